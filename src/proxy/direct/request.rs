//! The client's request: its head as it came, and as it goes to a server.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};
use pingora::Result;

use crate::base::wire::fields::{self, write_field, write_fields};
use crate::ingress::head::{Framing, Head, Span};
use crate::proxy::asked::Asked;
use crate::proxy::context::Context;
use crate::proxy::edit;
use crate::proxy::phases::forward;

/// The head of a request.
#[derive(Debug)]
pub(super) struct Request {
    line: Line,
    method: Method,
    /// As sent, until [`Request::settle`].
    headers: HeaderMap,
    pub(super) body: Framing,
    /// The fields are what every server gets, but for `Host`.
    settled: bool,
}

/// Where the target stands.
#[derive(Debug)]
enum Line {
    /// In the bytes of a head of HTTP/1.1.
    Http1 { head: Bytes, target: Span },
    /// In the pseudo-header fields of HTTP/2.
    Http2(Uri),
}

impl Request {
    /// Takes `head`, whose body is known to be over if it `ends`.
    pub(super) fn take(head: &mut Parts, ends: bool) -> Self {
        let length = head.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let body = match length {
            _ if ends => Framing::None,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        Self {
            line: Line::Http2(std::mem::take(&mut head.uri)),
            method: std::mem::take(&mut head.method),
            headers: std::mem::take(&mut head.headers),
            body,
            settled: false,
        }
    }

    /// Undoes [`Request::take`].
    pub(super) fn put_back(self, head: &mut Parts) {
        if let Line::Http2(uri) = self.line {
            head.uri = uri;
        }
        (head.method, head.headers) = (self.method, self.headers);
    }

    /// Reads `head`, which was `scanned`. `None` where the map takes less than the scanner: then it is somebody else's to
    /// refuse.
    pub(super) fn read(head: &Bytes, scanned: &Head) -> Option<Self> {
        let lines = memchr::memchr(b'\n', head.get(scanned.target.end..)?)?;
        let headers = fields::read(head, scanned.target.end + lines + 1).ok()?;
        Some(Self {
            line: Line::Http1 { head: head.clone(), target: scanned.target },
            method: Method::from_bytes(scanned.method.of(head)).ok()?,
            headers,
            body: scanned.body,
            settled: false,
        })
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) fn asked(&self) -> Asked<'_> {
        let (version, target, authority) = match &self.line {
            Line::Http1 { head, target } => (Version::HTTP_11, target.of(head), None),
            Line::Http2(uri) => {
                let target = uri.path_and_query().map_or("", |target| target.as_str());
                (Version::HTTP_2, target.as_bytes(), uri.authority().map(|authority| authority.as_str()))
            }
        };
        Asked { method: &self.method, version, target, authority, headers: &self.headers }
    }

    /// The bytes of a head of HTTP/1 as they came.
    pub(super) fn into_head(self) -> Bytes {
        match self.line {
            Line::Http1 { head, .. } => head,
            Line::Http2(_) => Bytes::new(),
        }
    }

    /// Makes the fields what every server gets. Not where the route's rules may still ask for what the client sent; there
    /// each attempt edits a copy.
    pub(super) fn settle(&mut self, ctx: &Context) {
        if forward::has_rules(&ctx.route) {
            return;
        }
        let authority = self.authority();
        edit_fields(&mut self.headers, authority, ctx);
        self.settled = true;
    }

    /// The authority of HTTP/2, which is the host for a server of HTTP/1.
    fn authority(&self) -> Option<HeaderValue> {
        self.asked().authority.and_then(|authority| HeaderValue::from_str(authority).ok())
    }

    /// The head for the server of the attempt under way.
    pub(super) fn write(&self, ctx: &mut Context) -> Result<Vec<u8>> {
        let length = match &self.line {
            Line::Http1 { head, .. } => head.len(),
            Line::Http2(_) => COMMON_BYTES,
        };
        let mut out = Vec::with_capacity(length + ADDED_BYTES);
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(ctx.target.as_deref().map_or(self.asked().target, str::as_bytes));
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if self.settled {
            let host = forward::way(ctx).host;
            for (name, value) in &self.headers {
                let value = host.filter(|_| name == header::HOST).unwrap_or(value);
                write_field(name.as_str().as_bytes(), value.as_bytes(), &mut out);
            }
        } else {
            let mut headers = self.headers.clone();
            edit_fields(&mut headers, self.authority(), ctx);
            let way = forward::way(ctx);
            if let Some(host) = way.host {
                edit::host(&mut headers, host);
            }
            let route = ctx.route.clone();
            if let Some(rules) = &route.request {
                forward::edit_by_rules(self.asked(), &mut headers, &rules.headers, ctx)?;
            }
            write_fields(&headers, &mut out);
        }
        if matches!((&self.line, self.body), (Line::Http2(_), Framing::Chunked)) {
            write_field(b"transfer-encoding", b"chunked", &mut out);
        }
        out.extend_from_slice(b"\r\n");
        Ok(out)
    }
}

/// What a common head takes.
const COMMON_BYTES: usize = 384;
/// Room for what is added to a head.
const ADDED_BYTES: usize = 384;

fn edit_fields(headers: &mut HeaderMap, authority: Option<HeaderValue>, ctx: &Context) {
    let asked = headers.get(header::HOST).filter(|host| !host.is_empty()).cloned().or(authority);
    if let Some(forwarding) = forward::forwarding(ctx) {
        edit::request_fields(headers, asked.as_ref(), &forwarding);
    }
    let is_split = ctx.head.version == Version::HTTP_2;
    if ctx.head.marks.hop || is_split && edit::needs_joining(headers) {
        // The host of this server is put in its place when the head is written.
        edit::attempt_fields(headers, asked, false, &edit::Way { host: None, ..forward::way(ctx) });
    } else if let Some(host) = asked.filter(|_| !ctx.head.marks.host) {
        edit::host(headers, &host);
    }
}
