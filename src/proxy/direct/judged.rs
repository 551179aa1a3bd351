//! What goes out for what comes in, without a connection on either side: for [`crate::invariants`], which judges it.

use std::net::Ipv4Addr;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, Version, header};
use pingora::http::ResponseHeader;

use super::request::Request;
use super::wire::{LAST_CHUNK, write_chunk};
use crate::base::peer::PeerValues;
use crate::base::wire::chunked::ChunkScanner;
use crate::base::wire::fields::{write_field, write_fields};
use crate::ingress::head::{self, Head};
use crate::policy::trusted::TrustedProxies;
use crate::proxy::client::Client;
use crate::proxy::edit;
use crate::proxy::phases::forward;
use crate::proxy::phases::route::View;
use crate::proxy::received::Received;
use crate::upstream::answer::{Framing, Reader};

const ID: &[u8] = b"0123456789abcdef0123456789abcdef";

/// The request whose head `bytes` are, which were `scanned`, as a server in cleartext gets it. The pieces of its body are those
/// that the scanner let pass, the last one says whether the body ends with it.
///
/// `None` where it is refused behind the scanner, or not forwarded on this way.
pub fn as_forwarded(bytes: &Bytes, scanned: &Head, body: &[(&[u8], bool)]) -> Option<Vec<u8>> {
    let request = Request::read(bytes, scanned)?;
    let received = Received::read(request.headers());
    let marks = received.marks;
    if marks.upgrade {
        return None;
    }
    let view = View::read(request.asked(), &received, 0).ok()?;
    let target = forward::target(&view, None, None);
    let peer = PeerValues::new(Ipv4Addr::LOCALHOST.into(), 80, false);
    let client = Client::find(request.headers(), peer.ip, false, &TrustedProxies::default());
    let identity = edit::Identity { names: &[], values: &[] };
    let forwarding = edit::Forwarding {
        peer: &peer,
        client: &client,
        version: Version::HTTP_11,
        ends_with_head: false,
        request_id: ID,
        trace_valid: false,
        marks,
        identity,
        credentials: edit::Credentials { authorization: false, header: None, cookie: None },
        reads_answer: false,
    };
    let mut headers = request.headers().clone();
    let asked = headers.get(header::HOST).cloned();
    edit::request_fields(&mut headers, asked.as_ref(), &forwarding);
    if marks.hop {
        let way = edit::Way {
            version: Version::HTTP_11,
            upgrade: false,
            host: None,
            server: "localhost",
            takes_trailers: false,
            marks,
            identity,
        };
        edit::attempt_fields(&mut headers, asked, false, &way);
    }
    let (method, sent) = (request.asked().method.as_str(), request.asked().target);
    let mut out = [method.as_bytes(), target.as_deref().map_or(sent, str::as_bytes)].join(&b' ');
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(&headers, &mut out);
    out.extend_from_slice(b"\r\n");
    let mut scanner = ChunkScanner::default();
    for (piece, ends) in body {
        if request.body != head::Framing::Chunked {
            out.extend_from_slice(piece);
            continue;
        }
        let mut data = Vec::new();
        scanner.decode(piece, |piece| data.extend_from_slice(piece)).ok()?;
        write_chunk(&data, &mut out);
        if *ends {
            out.extend_from_slice(LAST_CHUNK);
        }
    }
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
