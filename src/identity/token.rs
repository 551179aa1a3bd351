//! A token that was verified, and why one was not.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{COOKIE, HeaderMap};
use serde_json::{Map, Value};

use super::forms::Forms;
use crate::base::reason::Reason;

/// A JSON Web Token (RFC 7519) whose signature and claims were checked. Immutable: the requests that show it share it.
#[derive(Debug)]
pub struct Token {
    /// The provider that vouches for it, by its name in the configuration.
    pub provider: Arc<str>,
    /// `sub`.
    pub subject: Option<Box<str>>,
    /// `jti`.
    pub id: Option<Box<str>>,
    /// `iat`, in Unix seconds.
    pub issued_at: Option<i64>,
    /// `exp`, in Unix seconds, leeway not included.
    pub expires_at: Option<i64>,
    /// The provider's `roles_claim`.
    pub roles: Box<[Box<str>]>,
    /// `scope` or `scp` (RFC 8693 section 4.2).
    pub scopes: Box<[Box<str>]>,
    /// All claims, in the order of the payload.
    pub claims: Map<String, Value>,
    /// The payload's JSON, byte for byte as it was signed.
    pub payload: Box<[u8]>,
    /// How services read of it.
    pub forms: Forms,
}

/// Why a credential does not prove anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the client is told.
    pub reason: Reason,
    /// Which provider, which check, by how much: for the log and `explain` alone.
    pub detail: String,
    /// When asking again may help: what `Retry-After` says.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// One for `reason`.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), retry_after: None }
    }

    /// The same, of the provider called `name`.
    pub fn by(mut self, name: &str) -> Self {
        self.detail.insert_str(0, &format!("provider {name}: "));
        self
    }
}

/// What revoked a token; shown, it completes "the token was revoked …".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevokedBy {
    /// That it is the one with this `jti`.
    Id(Box<str>),
    /// That it is one of its subject's, issued no later than a moment.
    Subject {
        /// Whose.
        subject: Box<str>,
        /// The moment, in Unix seconds.
        before: i64,
        /// When it was issued, if it says so.
        issued_at: Option<i64>,
    },
}

impl fmt::Display for RevokedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "by its id (jti {id})"),
            Self::Subject { subject, issued_at: Some(issued_at), before } => {
                let earlier = before.saturating_sub(*issued_at);
                write!(
                    f,
                    "with all of {subject} that were issued up to {before}: iat is {earlier} s before that"
                )
            }
            Self::Subject { subject, issued_at: None, before } => {
                write!(f, "with all of {subject} that were issued up to {before}, as it has no iat")
            }
        }
    }
}

/// The values of the cookies called `name` that a request brings.
pub fn in_cookies<'a, 'n>(
    headers: &'a HeaderMap,
    name: &'n str,
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    let pairs = headers.get_all(COOKIE).iter();
    let pairs = pairs.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        // Quotes may stand around it (RFC 6265 section 4.1.1).
        Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    })
}
