//! `[identity]`: where clients show who they are, and how services learn who a request is from.

use std::sync::Arc;

use http::HeaderName;
use indexmap::IndexMap;

use super::login::LoginRaw;
use crate::base::decode::{Decoder, Node, Shape, Value, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::{At, Origin};
use crate::identity::config::ProviderRaw;
use crate::identity::forms::Encoding;
use crate::policy::auth::Places;
use crate::routing::config::CookieName;
use crate::{enum_value, keys};

keys! {
    /// Where clients show who they are, and how services learn who a request is from.
    pub struct IdentityRaw {
        /// The header that says who was verified. What clients send under this name is always removed; `""` = none is.
        subject_header: IdentityHeader = IdentityHeader::named("x-auth-subject"),
        /// Likewise its roles, separated by commas.
        roles_header: IdentityHeader = IdentityHeader::named("x-auth-roles"),
        /// Likewise the claims of its token: the payload as it was signed, encoded.
        claims_header: IdentityHeader = IdentityHeader::named("x-auth-claims"),
        /// How claims are encoded: `base64url` (without padding) or `base64` (with padding).
        claims_encoding: EncodingRaw = EncodingRaw::Base64Url,
        /// Likewise its consumer's name.
        consumer_header: IdentityHeader = IdentityHeader::named("x-consumer"),
        /// Whether tokens are passed on: the `Authorization` header, and the cookie of `token_cookie`.
        keep_authorization: bool = true,
        /// A cookie in which tokens are sent, too; `""` = none.
        token_cookie: TokenCookie = TokenCookie(None),
        /// What is protected, as `WWW-Authenticate` names it.
        realm: Realm = Realm("edgeward".into()),
        /// Where API keys are sent.
        api_key: ApiKeyPlacesRaw = ApiKeyPlacesRaw::default(),
        /// Who vouches for tokens, by name.
        providers: IndexMap<String, At<ProviderRaw>> = IndexMap::new(),
        /// Logging in with a name and a password; absent = none does.
        login: optional LoginRaw,
    }
}

keys! {
    /// Where API keys are sent, beside `Authorization: ApiKey KEY`.
    pub struct ApiKeyPlacesRaw {
        /// The header; `""` = none.
        header: IdentityHeader = IdentityHeader::named("x-api-key"),
        /// A parameter of the query; `""` = none. It stands in logs of others than this gateway.
        query: String = String::new(),
        /// Whether keys are passed on to services.
        keep: bool = false,
    }
}

enum_value! {
    /// How claims are encoded.
    pub enum EncodingRaw {
        /// RFC 4648 section 5, without padding.
        Base64Url = "base64url",
        /// RFC 4648 section 4, with padding.
        Base64 = "base64",
    }
}

/// Headers that say who it is.
pub const IDENTITY_HEADERS: usize = 4;

/// `[identity]`, checked.
#[derive(Debug, Clone)]
pub struct IdentitySettings {
    /// Removed from every request and set to who was verified: subject, roles, claims, consumer.
    pub headers: Arc<[Option<HeaderName>; IDENTITY_HEADERS]>,
    /// How claims are written.
    pub encoding: Encoding,
    /// Whether tokens are passed on.
    pub keep_authorization: bool,
    /// Whether API keys are passed on.
    pub keep_keys: bool,
    /// Where clients show who they are.
    pub places: Arc<Places>,
}

impl IdentityRaw {
    /// The headers that say who it is, by their keys.
    pub(super) fn headers(&self) -> [(&'static str, &At<IdentityHeader>); IDENTITY_HEADERS] {
        [
            ("subject_header", &self.subject_header),
            ("roles_header", &self.roles_header),
            ("claims_header", &self.claims_header),
            ("consumer_header", &self.consumer_header),
        ]
    }

    /// The settings.
    pub(super) fn compile(&self, out: &mut Diagnostics) -> IdentitySettings {
        self.check_names(out);
        let encoding = match self.claims_encoding.value {
            EncodingRaw::Base64Url => Encoding::Base64Url,
            EncodingRaw::Base64 => Encoding::Base64,
        };
        let query = self.api_key.query.as_str();
        IdentitySettings {
            headers: Arc::new(self.headers().map(|(_, header)| header.0.clone())),
            encoding,
            keep_authorization: *self.keep_authorization,
            keep_keys: *self.api_key.keep,
            places: Arc::new(Places {
                realm: self.realm.0.clone(),
                cookie: self.token_cookie.0.as_ref().map(|name| name.as_str().into()),
                key_header: self.api_key.header.0.clone(),
                key_query: Some(query).filter(|query| !query.is_empty()).map(Box::from),
            }),
        }
    }

    /// One header says one thing, also to services that take dashes for underscores.
    fn check_names(&self, out: &mut Diagnostics) {
        let mut seen: Vec<(String, &Origin)> = Vec::new();
        let [subject, roles, claims, consumer] = self.headers();
        for (key, header) in [subject, roles, claims, consumer, ("api_key.header", &self.api_key.header)] {
            let Some(name) = &header.0 else { continue };
            let plain = name.as_str().replace('_', "-");
            match seen.iter().find(|(other, _)| *other == plain) {
                Some((_, other)) => {
                    let message = format!("the header {name} says something else already");
                    let (origin, other) = match (&header.origin, *other) {
                        (Origin::Default, other) => (other, None),
                        (origin, other) => (origin, Some(other).filter(|other| **other != Origin::Default)),
                    };
                    let problem = out.error("duplicate-name", origin, format!("identity.{key}"), message);
                    if let Some(other) = other {
                        problem.related(other, "written here, too");
                    }
                }
                None => seen.push((plain, &header.origin)),
            }
        }
    }
}

/// The name of a header that nothing else depends on; `""` = none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityHeader(pub Option<HeaderName>);

impl IdentityHeader {
    fn named(name: &'static str) -> Self {
        Self(Some(HeaderName::from_static(name)))
    }
}

/// What frames and routes a message, belongs to one hop or shows who it is: taking these away, or setting them, breaks
/// the request.
const RESERVED: &[&str] = &[
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
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

/// The name of a cookie; `""` = none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenCookie(pub Option<CookieName>);

impl Value for TokenCookie {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["session", ""] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        use crate::base::decode::MapKey;
        let Some(text) = node.as_str() else { return cx.expected(node, "the name of a cookie, or \"\"") };
        if text.is_empty() {
            return Some(Self(None));
        }
        match CookieName::from_key(text) {
            Ok(name) => Some(Self(Some(name))),
            Err(message) => cx.invalid(node, &message),
        }
    }

    fn render(&self) -> String {
        quote(self.0.as_ref().map_or("", CookieName::as_str))
    }
}

/// What is protected: visible ASCII without quotes and backslashes, as it stands between quotes in a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm(pub Box<str>);

impl Value for Realm {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["shop"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Some(text) = node.as_str() else { return cx.expected(node, "a name") };
        let plain = |byte: u8| (b' '..=b'~').contains(&byte) && !b"\"\\".contains(&byte);
        if text.is_empty() || text.len() > REALM_BYTES_MAX || !text.bytes().all(plain) {
            return cx.invalid(
                node,
                "is not a realm: up to 128 visible ASCII characters but quotes and backslashes",
            );
        }
        Some(Self(text.into()))
    }

    fn render(&self) -> String {
        quote(&self.0)
    }
}

const REALM_BYTES_MAX: usize = 128;
