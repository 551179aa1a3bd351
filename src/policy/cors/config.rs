//! What a route writes under `cors`, and what becomes of it.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::origin::OriginPattern;
use super::{Cors, Headers};
use crate::base::decode::{Decoder, Node, Shape, Value, quote, text_value};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::At;
use crate::keys;
use crate::routing::MethodSet;

keys! {
    /// Which pages of other origins may read answers and send what; preflights are answered by the gateway.
    pub struct CorsRaw {
        /// Origins: `"https://app.example.com"`, `"https://*.example.com"` for all below a domain, or `"*"` for any.
        origins: required Vec<At<OriginPattern>>,
        /// Methods that pages may use; absent = the route's.
        methods: MethodSet = MethodSet::EMPTY,
        /// Headers that pages may send; `"*"` = any.
        headers: Vec<At<NameRaw>> = Vec::new(),
        /// Headers of answers that pages may read; `"*"` = all, without credentials.
        expose: Vec<At<NameRaw>> = Vec::new(),
        /// Whether requests may carry cookies, certificates and the like.
        credentials: bool = false,
        /// How long browsers may keep the answer to a preflight; absent = as they like.
        max_age: optional Duration,
    }
}

impl CorsRaw {
    /// The policy of a route that takes `methods`. `path` is the configuration path of the table;
    /// `None` where no origins are given, which is an error.
    pub fn compile(&self, methods: MethodSet, path: &str, out: &mut Diagnostics) -> Option<Cors> {
        if self.origins.is_empty() {
            // What is broken was reported.
            if !out.has_errors() {
                let message = "without origins nobody could read anything";
                out.error("invalid-value", &self.origins.origin, format!("{path}.origins"), message)
                    .hint("name them, or write cors = false to take an inherited table away");
            }
            return None;
        }
        if *self.credentials {
            let any_origin =
                self.origins.iter().find(|at| at.value == OriginPattern::Any).map(|at| &at.origin);
            let any_exposed = self.expose.iter().find(|at| at.value == NameRaw::Any).map(|at| &at.origin);
            for (key, at) in [("origins", any_origin), ("expose", any_exposed)] {
                let Some(at) = at else { continue };
                let hint = match key {
                    "origins" => "name the origins: with \"*\" any page could act for whoever visits it",
                    _ => "name the headers: with credentials \"*\" is a name like any other to browsers",
                };
                let message = "\"*\" does not go with `credentials`";
                out.error("conflicting-keys", at, format!("{path}.{key}"), message)
                    .hint(hint)
                    .related(&self.credentials.origin, "asked for here");
            }
        }
        let own = if self.methods.is_empty() { methods } else { *self.methods };
        let methods = (!own.is_empty()).then(|| HeaderValue::from_str(&own.to_string()).ok()).flatten();
        let headers = match list(&self.headers, path, "headers", out) {
            None => Headers::None,
            Some(list) if list == "*" => Headers::Any,
            Some(list) => Headers::These(list),
        };
        Some(Cors {
            origins: self.origins.iter().map(|at| at.value.clone()).collect(),
            methods,
            headers,
            expose: list(&self.expose, path, "expose", out),
            credentials: *self.credentials,
            max_age: self.max_age.as_ref().map(|age| HeaderValue::from(age.as_secs())),
        })
    }
}

/// The names as one value; `"*"` stands alone.
fn list(names: &[At<NameRaw>], path: &str, key: &str, out: &mut Diagnostics) -> Option<HeaderValue> {
    if let (Some(any), true) = (names.iter().find(|name| name.value == NameRaw::Any), names.len() > 1) {
        let message = "\"*\" stands for all, beside which no other is needed";
        out.error("invalid-value", &any.origin, format!("{path}.{key}"), message);
    }
    let written: Vec<&str> = names.iter().map(|name| name.value.text()).collect();
    (!written.is_empty()).then(|| HeaderValue::from_str(&written.join(", ")).ok()).flatten()
}

/// The name of a header, in its own spelling, or `"*"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameRaw {
    /// All.
    Any,
    /// This one.
    Named(String),
}

impl NameRaw {
    fn text(&self) -> &str {
        match self {
            Self::Any => "*",
            Self::Named(name) => name,
        }
    }
}

impl Value for NameRaw {
    fn shape() -> Shape {
        Shape::Text { pattern: Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"), examples: &["Authorization", "*"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        text_value(node, cx, "the name of a header", |text| match text {
            "*" => Ok(Self::Any),
            name => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(_) => Ok(Self::Named(name.to_owned())),
                Err(_) => Err("is not the name of a header"),
            },
        })
    }

    fn render(&self) -> String {
        quote(self.text())
    }
}

impl Value for OriginPattern {
    fn shape() -> Shape {
        Shape::Text {
            pattern: Some("^(\\*|[A-Za-z][A-Za-z0-9+.-]*://[^/?#@]+)$"),
            examples: &["https://app.example.com", "https://*.example.com", "*"],
        }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        text_value(node, cx, "an origin such as \"https://app.example.com\"", Self::parse)
    }

    fn render(&self) -> String {
        quote(&self.text())
    }
}
