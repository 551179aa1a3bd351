//! `WWW-Authenticate`: RFC 6750 section 3 for tokens. `ApiKey` is common practice, and not registered.
//!
//! What stands in it is coarse: which check failed, and by how much, is for the log.

use super::Kind;
use crate::base::reason::Reason;

/// What is asked of somebody who showed nothing: no error is named (RFC 6750 section 3.1).
pub(super) fn wanted(kind: Kind, realm: &str) -> Option<String> {
    match kind {
        Kind::Jwt => Some(format!("Bearer realm=\"{realm}\"")),
        Kind::ApiKey => Some(format!("ApiKey realm=\"{realm}\"")),
        Kind::Mtls | Kind::None => None,
    }
}

/// What is said of credentials that prove nothing.
pub(super) fn refused(kind: Kind, realm: &str, reason: Reason) -> Option<String> {
    let challenge = wanted(kind, realm)?;
    if kind != Kind::Jwt {
        return Some(challenge);
    }
    let error = if reason.status() == 400 { "invalid_request" } else { "invalid_token" };
    let description = match reason {
        Reason::CredentialsAmbiguous => "several tokens",
        Reason::TokenMalformed => "malformed token",
        Reason::TokenExpired => "token expired",
        Reason::TokenNotYetValid => "token not valid yet",
        Reason::TokenRevoked => "token revoked",
        _ => "token not valid",
    };
    Some(format!("{challenge}, error=\"{error}\", error_description=\"{description}\""))
}

/// What is said of a good token that is not enough.
pub(super) fn insufficient(realm: &str, scopes: &[Box<str>]) -> String {
    let mut challenge = format!("Bearer realm=\"{realm}\", error=\"insufficient_scope\"");
    if !scopes.is_empty() {
        challenge.push_str(&format!(", scope=\"{}\"", scopes.join(" ")));
    }
    challenge
}
