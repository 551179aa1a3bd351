//! `response.envelope`: which answers are put into one, and how. Errors of the gateway's own never are, nor files,
//! redirects and streams.
//!
//! An answer is kept until it is whole, within a bound. What cannot be put into its envelope (it is longer, compressed, or
//! no JSON) ends as 502; over Pingora's ways, where the head is gone by the time the body shows that, by breaking off.

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, Result};

use crate::base::clock;
use crate::base::reason::Reason;
use crate::config::snapshot::Target;
use crate::policy::envelope::{self, Envelope};
use crate::proxy::{Asked, Context, edit};

/// An answer on its way into its envelope.
#[derive(Debug)]
pub(in crate::proxy) struct Wrapping {
    status: u16,
    pub(in crate::proxy) bytes_max: usize,
    kept: BytesMut,
}

/// Looks at the head of a server's answer, and edits it if its body, all of it, is to be put into an envelope.
pub(in crate::proxy) fn begin(head: &mut ResponseHeader, ctx: &mut Context) -> Result<Option<Wrapping>> {
    let Some(Envelope { bytes_max }) = ctx.route.envelope else { return Ok(None) };
    if head.status == StatusCode::NOT_MODIFIED {
        // It has to say what the answer would.
        return edit::weaken(head).map(|()| None);
    }
    if !is_meant(head) {
        return Ok(None);
    }
    let coding = head.headers.get(header::CONTENT_ENCODING);
    if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(refuse(ctx, "is compressed, which it was not asked to be"));
    }
    // To HEAD there is no body, and the length of what would be one depends on the moment.
    let has_body = ctx.head.method != Method::HEAD;
    let length =
        head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if has_body && length.is_some_and(|length: u64| length > bytes_max as u64) {
        return Err(too_large(ctx));
    }
    let status = head.status.as_u16();
    edit::enveloped(head)?;
    Ok(has_body.then(|| Wrapping { status, bytes_max, kept: BytesMut::new() }))
}

/// Whether what follows this head is JSON, and all of it.
fn is_meant(head: &ResponseHeader) -> bool {
    let is_whole = !head.status.is_informational()
        && !matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT
        );
    let content_type = head.headers.get(header::CONTENT_TYPE);
    is_whole && content_type.is_some_and(|value| envelope::is_json(value.as_bytes()))
}

/// The whole `body` in its envelope.
pub(in crate::proxy) fn seal(
    wrapping: &Wrapping,
    body: &[u8],
    asked: Asked<'_>,
    ctx: &mut Context,
) -> Result<Bytes> {
    let wrapped = envelope::wrap(wrapping.status, body, clock::wall(), path(asked));
    wrapped.map(Bytes::from).map_err(|_| refuse(ctx, "is not JSON, which it says it is"))
}

/// Keeps `piece` of the answer's body until its end, when all of it comes out in its envelope.
pub(in crate::proxy) fn piece(
    asked: Asked<'_>,
    piece: &mut Option<Bytes>,
    end: bool,
    ctx: &mut Context,
) -> Result<()> {
    let Some(mut wrapping) = ctx.wrapping.take() else { return Ok(()) };
    if let Some(piece) = piece.take() {
        if wrapping.kept.len() + piece.len() > wrapping.bytes_max {
            return Err(too_large(ctx));
        }
        wrapping.kept.extend_from_slice(&piece);
    }
    if end {
        *piece = Some(seal(&wrapping, &wrapping.kept, asked, ctx)?);
    } else {
        ctx.wrapping = Some(wrapping);
    }
    Ok(())
}

/// The gateway's own answer in its envelope, if it is JSON; as it is otherwise.
pub(super) fn local(
    head: &mut ResponseHeader,
    body: Bytes,
    asked: Asked<'_>,
    ctx: &Context,
) -> Result<Bytes> {
    let is_plain = !head.headers.contains_key(header::CONTENT_ENCODING);
    // What a login says has a shape of its own (RFC 6749 section 5.1).
    let is_login = matches!(ctx.route.target, Target::Login(_));
    if ctx.route.envelope.is_none() || is_login || !is_meant(head) || !is_plain {
        return Ok(body);
    }
    match envelope::wrap(head.status.as_u16(), &body, clock::wall(), path(asked)) {
        Ok(wrapped) => edit::enveloped(head).map(|()| wrapped.into()),
        // What the operator wrote is what is sent.
        Err(_) => Ok(body),
    }
}

/// The path as the client sent it.
fn path(asked: Asked<'_>) -> &str {
    let target = std::str::from_utf8(asked.target).unwrap_or_default();
    let path = target.split(['?', '#']).next().unwrap_or_default();
    // The absolute form has an authority before it.
    match path.split_once("://") {
        Some((_, rest)) if !path.starts_with('/') => {
            rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
        }
        _ => path,
    }
}

/// The server is not to blame: it answered, with what this route cannot pass on.
fn refuse(ctx: &mut Context, why: &'static str) -> Box<Error> {
    ctx.failure = Some(Reason::BadResponse);
    ctx.detail = Some(format!("response.envelope: the answer {why}"));
    Error::explain(ErrorType::HTTPStatus(502), why)
}

pub(in crate::proxy) fn too_large(ctx: &mut Context) -> Box<Error> {
    refuse(ctx, "is longer than response.envelope_bytes")
}
