//! Header names that `http` has no constants for.

use http::HeaderName;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub(crate) const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Whether `name` (lower case) says where a request comes from, be it to a server that takes dashes for underscores, as
/// CGI does (RFC 3875 section 4.1.18): `Forwarded`, `X-Forwarded-*`, `X-Real-IP`.
pub(crate) fn is_forwarding(name: &str) -> bool {
    let name = name.as_bytes();
    name == b"forwarded"
        || is_alike(name, b"x-real-ip")
        || name.get(..FORWARDED.len()).is_some_and(|start| is_alike(start, FORWARDED))
}

const FORWARDED: &[u8] = b"x-forwarded-";

/// Whether `name` (lower case) says who a request is from by one of the names that services believe and that are kept
/// for the gateway, beside `identity.subject_header`: no client can send them.
pub(crate) fn is_identity(name: &str) -> bool {
    IDENTITY.iter().any(|kept| is_alike(name.as_bytes(), kept))
}

const IDENTITY: [&[u8]; 3] = [b"x-auth-roles", b"x-auth-claims", b"x-consumer"];

/// Whether both (lower case) are one name to a server that takes dashes for underscores.
pub(crate) fn is_alike(one: &[u8], other: &[u8]) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| plain(*one) == plain(*other))
}
