//! What goes out for what comes in, without a connection on either side: for [`crate::invariants`], which judges it. What
//! decides, edits and writes here is what does it for clients.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::v1::client::http_req_header_to_wire;

use super::http1::{asks_for_upgrade, frame_anew};
use super::is_plain;
use super::request::Request;
use super::wire::{LAST_CHUNK, write_chunk, write_piece};
use crate::base::wire::chunked::ChunkScanner;
use crate::base::wire::fields::{write_field, write_fields};
use crate::config::snapshot::Snapshot;
use crate::ingress::alone;
use crate::ingress::connection::Exchange;
use crate::ingress::head::{self, Head};
use crate::proxy::asked::Asked;
use crate::proxy::context::Context;
use crate::proxy::dispatch::Next;
use crate::proxy::phases::forward;
use crate::proxy::received::Received;
use crate::proxy::{decide, edit};
use crate::telemetry::metrics::Metrics;
use crate::upstream::answer::{Framing, Reader};

const ID: &[u8] = b"0123456789abcdef0123456789abcdef";

/// What is decided of a request, if it is to be forwarded.
fn decided(
    asked: Asked<'_>,
    headers: &HeaderMap,
    exchange: Exchange,
    snapshot: &Arc<Snapshot>,
) -> Option<Box<Context>> {
    let exchange = Some(Arc::new(exchange));
    let mut ctx = Box::new(Context::new(exchange, snapshot.clone(), Metrics::new()));
    let step = decide(asked, &Received::read(headers), &mut ctx);
    matches!(step, Ok(Next::Forward)).then_some(ctx)
}

/// A body of HTTP/1 as it goes to a server, behind `out`. The pieces are those that the scanner let pass, the last one says
/// whether the body ends with it.
fn write_body(framing: head::Framing, body: &[(&[u8], bool)], out: &mut Vec<u8>) {
    let mut scanner = (framing == head::Framing::Chunked).then(ChunkScanner::default);
    for (piece, ends) in body {
        let mut piece = piece.to_vec();
        frame_anew(scanner.as_mut(), &mut piece, *ends);
        out.extend_from_slice(&piece);
    }
}

/// The request of HTTP/1.1 whose head `bytes` are, which were `scanned`, as the gateway's own forwarder sends it to a server in
/// cleartext; for its `body` see [`as_forwarded_by_pingora`].
///
/// `None` where it is refused behind the scanner, or not forwarded on this way.
pub fn as_forwarded(
    snapshot: &Arc<Snapshot>,
    bytes: &Bytes,
    scanned: &Head,
    body: &[(&[u8], bool)],
) -> Option<Vec<u8>> {
    let mut request = Request::read(bytes, scanned).filter(|request| !asks_for_upgrade(request.headers()))?;
    let exchange = alone::exchange(scanned.upgrade, false);
    let mut ctx =
        decided(request.asked(), request.headers(), exchange, snapshot).filter(|ctx| is_plain(ctx))?;
    request.settle(&ctx);
    let mut out = request.write(&mut ctx).ok()?;
    write_body(request.body, body, &mut out);
    Some(out)
}

/// The same for a request over HTTP/2, behind whose head there is nothing if it `ends`; `is_whole`: its stream ended behind
/// the `body`.
pub fn stream_as_forwarded(
    snapshot: &Arc<Snapshot>,
    mut head: Parts,
    ends: bool,
    body: &[Bytes],
    is_whole: bool,
) -> Option<Vec<u8>> {
    let mut request = Request::take(&mut head, ends);
    let exchange = alone::exchange(false, ends);
    let mut ctx =
        decided(request.asked(), request.headers(), exchange, snapshot).filter(|ctx| is_plain(ctx))?;
    request.settle(&ctx);
    let mut out = request.write(&mut ctx).ok()?;
    let chunked = request.body == head::Framing::Chunked;
    body.iter().for_each(|piece| write_piece(piece, chunked, &mut out));
    if chunked && is_whole {
        out.extend_from_slice(LAST_CHUNK);
    }
    Some(out)
}

/// A request of HTTP/1.0 or 1.1 as Pingora sends it to a server of HTTP/1.1, a handshake of WebSocket too: the hooks edit the
/// head, Pingora writes it. Of the `body` each piece is what came, and whether it ends there; the framing is the forwarder's.
///
/// `None` where it is refused behind the scanner.
pub fn as_forwarded_by_pingora(
    snapshot: &Arc<Snapshot>,
    bytes: &Bytes,
    scanned: &Head,
    body: &[(&[u8], bool)],
) -> Option<Vec<u8>> {
    let read = Request::read(bytes, scanned)?;
    // As Pingora reads it.
    let mut head = RequestHeader::build(scanned.method.of(bytes), scanned.target.of(bytes), None).ok()?;
    head.set_version(if scanned.version_11 { Version::HTTP_11 } else { Version::HTTP_10 });
    for (name, value) in read.headers() {
        head.append_header(name.clone(), value.clone()).ok()?;
    }
    if !scanned.upgrade && asks_for_upgrade(&head.headers) {
        edit::ignore_upgrade(&mut head);
    }
    if !scanned.version_11 {
        edit::ignore_expectation(&mut head);
    }
    let exchange = alone::exchange(scanned.upgrade, false);
    let mut ctx = decided(Asked::of(&head), &head.headers, exchange, snapshot)?;
    forward::request(&mut head, &ctx).ok()?;
    // Each attempt has a copy, which is of HTTP/1.1 whatever the client speaks.
    let mut sent = head.clone();
    sent.set_version(Version::HTTP_11);
    forward::head_for(Asked::of(&head), &mut sent, &mut ctx).ok()?;
    let mut out = http_req_header_to_wire(&sent)?.to_vec();
    write_body(read.body, body, &mut out);
    Some(out)
}

/// The answer that begins `bytes`, to a request with `method`, as a client of HTTP/1.1 gets it, interim ones included, and
/// whether all of it came; with what is behind it.
///
/// `None` where it is refused.
pub fn as_passed_on<'b>(bytes: &'b [u8], method: &Method) -> Option<(Vec<u8>, bool, &'b [u8])> {
    let mut input = BytesMut::from(bytes);
    let mut out = Vec::new();
    let (mut head, body) = loop {
        let Some(mut answer) = Reader::default().read(&mut input, method).ok()? else {
            return Some((out, false, b""));
        };
        if answer.head.status == StatusCode::SWITCHING_PROTOCOLS {
            return None;
        }
        if !answer.head.status.is_informational() {
            break (answer.head, answer.body);
        }
        edit::interim(&mut answer.head);
        edit::frame(&mut answer.head, edit::AnswerFraming::NoContent).ok()?;
        write_status(&answer.head, &mut out);
        write_fields(&answer.head.headers, &mut out);
        out.extend_from_slice(b"\r\n");
    };
    if body == Framing::UntilClose {
        edit::frame(&mut head, edit::AnswerFraming::Chunks).ok()?;
    } else if head.status == StatusCode::NO_CONTENT {
        edit::frame(&mut head, edit::AnswerFraming::NoContent).ok()?;
    }
    edit::response(&mut head, Version::HTTP_11, ID).ok()?;
    write_status(&head, &mut out);
    write_fields(&head.headers, &mut out);
    write_field(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT", &mut out);
    out.extend_from_slice(b"\r\n");
    let (taken, ended) = match body {
        Framing::None => (0, true),
        Framing::Length(length) => {
            let here = usize::try_from(length).unwrap_or(usize::MAX).min(input.len());
            out.extend_from_slice(input.get(..here).unwrap_or_default());
            (here, here as u64 == length)
        }
        Framing::Chunked => {
            let mut data = Vec::new();
            let (taken, ended) =
                ChunkScanner::default().decode(&input, |piece| data.extend_from_slice(piece)).ok()?;
            write_chunk(&data, &mut out);
            if ended {
                out.extend_from_slice(LAST_CHUNK);
            }
            (taken, ended)
        }
        Framing::UntilClose => {
            write_chunk(&input, &mut out);
            out.extend_from_slice(LAST_CHUNK);
            (input.len(), true)
        }
    };
    let behind = input.len() - taken;
    Some((out, ended, bytes.get(bytes.len() - behind..).unwrap_or_default()))
}

fn write_status(head: &ResponseHeader, out: &mut Vec<u8>) {
    let phrase = head.get_reason_phrase().unwrap_or_default();
    out.extend_from_slice(format!("HTTP/1.1 {} {phrase}\r\n", head.status.as_str()).as_bytes());
}
