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

/// A copy of a head, for who works on it while the client is watched.
#[derive(Debug)]
pub(in crate::proxy) struct Kept {
    method: Method,
    version: Version,
    target: Box<[u8]>,
    authority: Option<Box<str>>,
    headers: HeaderMap,
}

impl Kept {
    pub(in crate::proxy) fn of(asked: Asked<'_>) -> Self {
        Self {
            method: asked.method.clone(),
            version: asked.version,
            target: asked.target.into(),
            authority: asked.authority.map(Into::into),
            headers: asked.headers.clone(),
        }
    }

    pub(in crate::proxy) fn asked(&self) -> Asked<'_> {
        Asked {
            method: &self.method,
            version: self.version,
            target: &self.target,
            authority: self.authority.as_deref(),
            headers: &self.headers,
        }
    }
}
