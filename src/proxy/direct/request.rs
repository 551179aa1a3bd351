//! The client's request: its head as it was scanned, and as it goes to a server.

use bytes::Bytes;
use http::{HeaderMap, Method, Version, header};
use pingora::Result;

use crate::base::wire::fields::{self, write_field, write_fields};
use crate::ingress::head::{Framing, Head, Span};
use crate::proxy::asked::Asked;
use crate::proxy::context::Context;
use crate::proxy::edit;
use crate::proxy::phases::forward;

/// The head of a request over HTTP/1.1.
#[derive(Debug)]
pub(super) struct Request {
    head: Bytes,
    method: Method,
    target: Span,
    /// As sent, until [`Request::settle`].
    headers: HeaderMap,
    pub(super) body: Framing,
    /// The fields are what every server gets, but for `Host`.
    settled: bool,
}

impl Request {
    /// Reads `head`, which was `scanned`. `None` where the map takes less than the scanner: then it is somebody else's to
    /// refuse.
    pub(super) fn read(head: &Bytes, scanned: &Head) -> Option<Self> {
        let lines = memchr::memchr(b'\n', head.get(scanned.target.end..)?)?;
        let headers = fields::read(head, scanned.target.end + lines + 1).ok()?;
        Some(Self {
            method: Method::from_bytes(scanned.method.of(head)).ok()?,
            target: scanned.target,
            head: head.clone(),
            headers,
            body: scanned.body,
            settled: false,
        })
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) fn asked(&self) -> Asked<'_> {
        Asked {
            method: &self.method,
            version: Version::HTTP_11,
            target: self.target.of(&self.head),
            authority: None,
            headers: &self.headers,
        }
    }

    /// The bytes of the head as they came.
    pub(super) fn into_head(self) -> Bytes {
        self.head
    }

    /// Makes the fields what every server gets. Not where the route's rules may still ask for what the client sent; there
    /// each attempt edits a copy.
    pub(super) fn settle(&mut self, ctx: &Context) {
        if forward::has_rules(&ctx.route) {
            return;
        }
        edit_fields(&mut self.headers, ctx);
        self.settled = true;
    }

    /// The head for the server of the attempt under way.
    pub(super) fn write(&self, ctx: &mut Context) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(self.head.len() + ADDED_BYTES);
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(ctx.target.as_deref().map_or(self.target.of(&self.head), str::as_bytes));
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if self.settled {
            let host = forward::way(ctx).host;
            for (name, value) in &self.headers {
                let value = host.filter(|_| name == header::HOST).unwrap_or(value);
                write_field(name.as_str().as_bytes(), value.as_bytes(), &mut out);
            }
        } else {
            let mut headers = self.headers.clone();
            edit_fields(&mut headers, ctx);
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
        out.extend_from_slice(b"\r\n");
        Ok(out)
    }
}

/// Room for what is added to a head.
const ADDED_BYTES: usize = 384;

fn edit_fields(headers: &mut HeaderMap, ctx: &Context) {
    let asked = headers.get(header::HOST).filter(|host| !host.is_empty()).cloned();
    if let Some(forwarding) = forward::forwarding(ctx) {
        edit::request_fields(headers, asked.as_ref(), &forwarding);
    }
    if ctx.head.marks.hop {
        // The host of this server is put in its place when the head is written.
        edit::attempt_fields(headers, asked, false, &edit::Way { host: None, ..forward::way(ctx) });
    }
}
