//! The head of a request, whoever read it: Pingora, or [`super::direct`].

use http::{HeaderMap, Method, Version};
use pingora::http::RequestHeader;

/// What the phases see of a request's head.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct Asked<'h> {
    pub(in crate::proxy) method: &'h Method,
    pub(in crate::proxy) version: Version,
    /// As sent: origin form, absolute form, or `*`.
    pub(in crate::proxy) target: &'h [u8],
    /// The authority of HTTP/2.
    pub(in crate::proxy) authority: Option<&'h str>,
    pub(in crate::proxy) headers: &'h HeaderMap,
}

impl<'h> Asked<'h> {
    pub(in crate::proxy) fn of(head: &'h RequestHeader) -> Self {
        Self {
            method: &head.method,
            version: head.version,
            target: head.raw_path(),
            authority: head.uri.authority().map(http::uri::Authority::as_str),
            headers: &head.headers,
        }
    }
}
