//! `[identity]`: how services learn who a request is from.

use http::HeaderName;
use indexmap::IndexMap;

use crate::base::decode::{Decoder, Node, Shape, Value, quote};
use crate::base::origin::At;
use crate::identity::config::ProviderRaw;
use crate::keys;

keys! {
    /// How services learn who a request is from.
    pub struct IdentityRaw {
        /// The header that says who was verified. What clients send under this name is always removed; `""` = none is.
        subject_header: IdentityHeader = IdentityHeader(Some(HeaderName::from_static("x-auth-subject"))),
        /// Who vouches for tokens, by name.
        providers: IndexMap<String, At<ProviderRaw>> = IndexMap::new(),
    }
}

/// `[identity]`, checked.
#[derive(Debug, Clone)]
pub struct IdentitySettings {
    /// Removed from every request and set to who was verified, if anybody was.
    pub subject_header: Option<HeaderName>,
}

impl IdentityRaw {
    /// The settings.
    pub(super) fn compile(&self) -> IdentitySettings {
        IdentitySettings { subject_header: self.subject_header.value.0.clone() }
    }
}

/// The name of a header that nothing else depends on; `""` = none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityHeader(pub Option<HeaderName>);

/// What frames and routes a message, or belongs to one hop: taking these away, or setting them, breaks the request.
const RESERVED: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-request-id",
];

impl Value for IdentityHeader {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["X-Auth-Subject", ""] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Some(text) = node.as_str() else { return cx.expected(node, "the name of a header, or \"\"") };
        if text.is_empty() {
            return Some(Self(None));
        }
        match HeaderName::from_bytes(text.as_bytes()) {
            Err(_) => cx.invalid(node, "is not the name of a header"),
            Ok(name) if RESERVED.contains(&name.as_str()) => cx.invalid(
                node,
                "is a header of HTTP itself: choose a name of its own, such as X-Auth-Subject",
            ),
            Ok(name) => Some(Self(Some(name))),
        }
    }

    fn render(&self) -> String {
        quote(self.0.as_ref().map_or("", HeaderName::as_str))
    }
}
