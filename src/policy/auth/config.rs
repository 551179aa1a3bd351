//! What a route writes under `auth`, and what becomes of it.

use super::Auth;
use crate::base::decode::{Decoder, Kind, Node, Setting, Shape, Value, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::{At, Origin};
use crate::keys;

keys! {
    /// Who may use a route, and how that is proved; others get 401.
    pub struct AuthTable {
        /// Ways to prove it: `"mtls"` = a client certificate; `"none"` at the end = who has nothing to show passes, too.
        with: required Vec<At<Method>>,
    }
}

/// `auth` of a route.
#[derive(Debug, Clone)]
pub enum AuthRaw {
    /// `"none"`: everybody.
    None,
    /// Whoever proves it.
    Table(AuthTable),
}

/// One way to prove who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A client certificate.
    Mtls,
    /// Not at all.
    None,
}

impl AuthRaw {
    /// The policy; `None` where there is none. `path` is the configuration path of the table.
    pub fn compile(&self, path: &str, out: &mut Diagnostics) -> Option<Auth> {
        let Self::Table(table) = self else { return None };
        let methods = &table.with;
        let path = format!("{path}.with");
        for (index, method) in methods.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if let Some(first) = methods.iter().take(index).find(|earlier| earlier.value == method.value) {
                out.error(
                    "invalid-value",
                    &method.origin,
                    path,
                    format!("{} stands here twice", method.render()),
                )
                .related(&first.origin, "first written here");
            } else if method.value == Method::None && index + 1 < methods.len() {
                let message = "\"none\" stands at the end: it lets in who has nothing else to show";
                out.error("invalid-value", &method.origin, path, message);
            }
        }
        let has = |wanted| methods.iter().any(|method| method.value == wanted);
        Some(Auth { certificate: has(Method::Mtls), anonymous: has(Method::None) })
    }

    /// Where it asks for a client certificate.
    pub fn wants_certificate(&self) -> Option<&At<Method>> {
        match self {
            Self::None => None,
            Self::Table(table) => table.with.iter().find(|method| method.value == Method::Mtls),
        }
    }
}

impl Value for AuthRaw {
    fn shape() -> Shape {
        Shape::OneOf(vec![AuthTable::shape(), Shape::Word(&["none"])])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Table(_) => {
                // Here, where what is broken still counts.
                if let Some(with) =
                    node.get("with").filter(|with| with.as_array().is_some_and(<[_]>::is_empty))
                {
                    cx.key_error("invalid-value", &with.origin, "with", "nobody could prove anything")
                        .hint("write auth = \"none\" to let everybody in");
                }
                AuthTable::decode(node, cx).map(Self::Table)
            }
            Kind::String { text, .. } if text == "none" => Some(Self::None),
            Kind::String { .. } | Kind::Boolean(false) => {
                let hint = "\"none\" lets everybody in; ways to prove who one is stand in `with`".to_owned();
                cx.expected_or(node, "a table or \"none\"", Some(hint))
            }
            _ => cx.expected(node, "a table such as { with = [\"mtls\"] }, or \"none\""),
        }
    }

    fn render(&self) -> String {
        match self {
            Self::None => quote("none"),
            Self::Table(table) => table.render(),
        }
    }

    fn settings(&self, key: &str, origin: &Origin, out: &mut Vec<Setting>) {
        match self {
            Self::None => {
                let (key, origin) = (key.to_owned(), origin.clone());
                out.push(Setting { key, value: self.render(), origin, needs_upgrade: false });
            }
            Self::Table(table) => table.settings(key, origin, out),
        }
    }
}

impl Value for Method {
    fn shape() -> Shape {
        Shape::Word(&["mtls", "none"])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match node.as_str() {
            Some("mtls") => Some(Self::Mtls),
            Some("none") => Some(Self::None),
            Some(later) if later == "api_key" || later == "jwt" || later.starts_with("jwt:") => {
                let message = format!("{} is not available in this version", quote(later));
                cx.error("not-available", &node.origin, message);
                None
            }
            Some(other) => cx.none_of(node, other, &["mtls", "none"]),
            None => cx.expected(node, "\"mtls\" or \"none\""),
        }
    }

    fn render(&self) -> String {
        quote(match self {
            Self::Mtls => "mtls",
            Self::None => "none",
        })
    }
}
