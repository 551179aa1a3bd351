//! Values of several forms under `[upstreams.NAME]`.

use http::{HeaderName, HeaderValue};

use super::super::address::Target;
use super::super::pool::{Balance, HashSource};
use super::super::{HostSent, default_port};
use super::{FallbackLinkRaw, HashRaw, ServerTable};
use crate::base::authority::is_authority;
use crate::base::decode::{Decoder, Kind, Node, Shape, Value, quote, text_value};
use crate::base::names::nearest;
use crate::base::respond::RespondRaw;

/// An address as written, checked but for its port, which depends on `tls`. Socket paths are absolute or relative to the
/// process, no longer to the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRaw(String);

impl AddressRaw {
    /// Where it is; `None` cannot happen for what was decoded.
    pub fn target(&self, tls: bool) -> Option<Target> {
        Target::parse(&self.0, default_port(tls)).ok()
    }
}

impl Value for AddressRaw {
    fn shape() -> Shape {
        Shape::Text {
            pattern: None,
            examples: &["10.0.0.1:3000", "users.internal:3000", "[::1]:3000", "unix:run/users.sock"],
        }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Some(text) = node.as_str() else {
            return cx.expected(node, "an address such as \"10.0.0.1:3000\"");
        };
        let text = match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => format!("unix:{}", cx.resolve(&node.origin, path).display()),
            _ => text.to_owned(),
        };
        match Target::parse(&text, default_port(false)) {
            Ok(_) => Some(Self(text)),
            Err(why) => {
                let message = format!("the server {} {why}", quote(node.as_str().unwrap_or_default()));
                cx.error("invalid-value", &node.origin, message).hint(why.hint());
                None
            }
        }
    }

    fn render(&self) -> String {
        quote(&self.0)
    }
}

/// One of `servers`: an address, or a table with more.
#[derive(Debug, Clone)]
pub enum ServerRaw {
    /// `"10.0.0.1:3000"`.
    Address(AddressRaw),
    /// `{ address = "10.0.0.1:3000", weight = 2 }`.
    Table(ServerTable),
}

impl Value for ServerRaw {
    fn shape() -> Shape {
        Shape::OneOf(vec![AddressRaw::shape(), ServerTable::shape()])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match &node.kind {
            Kind::String { .. } => AddressRaw::decode(node, cx).map(Self::Address),
            Kind::Table(_) => ServerTable::decode(node, cx).map(Self::Table),
            _ => cx.expected(node, "an address such as \"10.0.0.1:3000\" or a table"),
        }
    }

    fn render(&self) -> String {
        match self {
            Self::Address(address) => address.render(),
            Self::Table(table) => table.render(),
        }
    }
}

const BALANCE_WORDS: &[&str] = &["round_robin", "least_connections"];
const BALANCE_EXPECTED: &str =
    "\"round_robin\", \"least_connections\", { hash = \"ip\" } or { hash = \"header:NAME\" }";
const BALANCE_WORDS_LATER: &[&str] = &["peak_ewma", "random"];

impl Value for Balance {
    fn shape() -> Shape {
        Shape::OneOf(vec![Shape::Word(BALANCE_WORDS), HashRaw::shape()])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match &node.kind {
            Kind::String { text, .. } => match text.as_str() {
                "round_robin" => Some(Self::RoundRobin),
                "least_connections" => Some(Self::LeastConnections),
                later if BALANCE_WORDS_LATER.contains(&later) => not_available(node, later, cx),
                "hash" => cx.expected_or(
                    node,
                    "what is hashed",
                    Some("write { hash = \"ip\" } or { hash = \"header:NAME\" }".to_owned()),
                ),
                other => {
                    let hint = match (other, nearest(other, BALANCE_WORDS.iter().copied())) {
                        ("ip_hash", _) => "write { hash = \"ip\" }".to_owned(),
                        (_, Some(near)) => format!("did you mean \"{near}\"?"),
                        (_, None) => format!("one of {BALANCE_EXPECTED}"),
                    };
                    let message = format!("{} is not known here", quote(other));
                    cx.error("invalid-value", &node.origin, message).hint(hint);
                    None
                }
            },
            Kind::Table(table) if table.contains_key("sticky") => not_available(node, "sticky", cx),
            Kind::Table(_) => HashRaw::decode(node, cx).map(|raw| Self::Hash(raw.hash.value)),
            _ => cx.expected(node, BALANCE_EXPECTED),
        }
    }

    fn render(&self) -> String {
        match self {
            Self::RoundRobin => quote("round_robin"),
            Self::LeastConnections => quote("least_connections"),
            Self::Hash(source) => format!("{{ hash = {} }}", source.render()),
        }
    }
}

fn not_available<T>(node: &Node, word: &str, cx: &mut Decoder<'_>) -> Option<T> {
    cx.error("not-available", &node.origin, format!("{} is not available in this version", quote(word)));
    None
}

impl Value for HashSource {
    fn shape() -> Shape {
        Shape::Text { pattern: Some("^(ip|header:.+)$"), examples: &["ip", "header:x-user"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        text_value(node, cx, "\"ip\" or \"header:NAME\"", |text| match text.strip_prefix("header:") {
            None if text == "ip" => Ok(Self::Ip),
            None => Err("is neither \"ip\" nor \"header:NAME\""),
            Some(name) => name.trim().parse::<HeaderName>().map(Self::Header).map_err(|_| "names no header"),
        })
    }

    fn render(&self) -> String {
        match self {
            Self::Ip => quote("ip"),
            Self::Header(name) => quote(&format!("header:{name}")),
        }
    }
}

impl Value for HostSent {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["client", "server", "users.example.com"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        text_value(node, cx, "\"client\", \"server\" or a host name", |text| match text {
            "client" => Ok(Self::Client),
            "server" => Ok(Self::Server),
            name if is_authority(name.as_bytes()) => {
                HeaderValue::from_str(name).map(Self::Name).map_err(|_| "is no host name")
            }
            _ => Err("is neither \"client\" nor \"server\" nor a host name"),
        })
    }

    fn render(&self) -> String {
        match self {
            Self::Client => quote("client"),
            Self::Server => quote("server"),
            Self::Name(name) => quote(name.to_str().unwrap_or_default()),
        }
    }
}

/// `fallback`: an answer, or another upstream.
#[derive(Debug, Clone)]
pub enum FallbackRaw {
    /// `{ upstream = "users-static" }`.
    Upstream(FallbackLinkRaw),
    /// `{ status = 200, json = … }`.
    Answer(Box<RespondRaw>),
}

impl Value for FallbackRaw {
    fn shape() -> Shape {
        Shape::OneOf(vec![FallbackLinkRaw::shape(), RespondRaw::shape()])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Kind::Table(table) = &node.kind else { return cx.expected(node, "a table") };
        let Some(link) = table.get("upstream") else {
            return Box::decode(node, cx).map(Self::Answer);
        };
        if let Some((key, entry)) = table.iter().find(|(key, _)| *key != "upstream") {
            let message = format!(
                "a fallback is an upstream or an answer: \"upstream\" and {} exclude each other",
                quote(key)
            );
            cx.error("conflicting-keys", &entry.key, message).related(&link.key, "the upstream");
            return None;
        }
        FallbackLinkRaw::decode(node, cx).map(Self::Upstream)
    }

    fn render(&self) -> String {
        match self {
            Self::Upstream(link) => link.render(),
            Self::Answer(answer) => answer.render(),
        }
    }
}
