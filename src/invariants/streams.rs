//! Of requests over HTTP/2 on their way to a server of HTTP/1.1.

use std::cell::RefCell;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header;
use http::request::Parts;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

use super::http1::{PLAIN, RULED};
use super::{pieces, strict};
use crate::ingress::check_http2_head;
use crate::proxy::stream_as_forwarded;

/// Longest input that is looked at: what is longer repeats itself.
const BYTES_MAX: usize = 8192;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What is forwarded of a request over HTTP/2 is one strictly valid message of HTTP/1.1, with the method, the host and the
/// body that came.
///
/// The first byte says how the stream ends and who forwards it, those behind it how the body is cut; then come the fields, a
/// line each, an empty line, and the body.
pub fn stream(bytes: &[u8]) {
    let Some((flags, bytes)) = bytes.split_first() else { return };
    let (ends, bytes) = pieces(&bytes[..bytes.len().min(BYTES_MAX)]);
    let split = bytes.windows(2).position(|pair| pair == b"\n\n");
    let (fields, body) = split.map_or((bytes, &b""[..]), |at| (&bytes[..at + 1], &bytes[at + 2..]));
    let frames = frames(fields, body, &ends, flags & 1 != 0, flags & 2 != 0);
    let Some(Received { head, ends, body, is_whole }) = received(&frames) else { return };
    if check_http2_head(&head, ends).is_err() {
        return;
    }
    // Where both are there they name the same place, and the field is what goes on.
    let host = head.headers.get(header::HOST).map(|host| host.as_bytes().to_vec());
    let host = host.or_else(|| head.uri.authority().map(|authority| authority.as_str().as_bytes().to_vec()));
    let (method, has_length) = (head.method.clone(), head.headers.contains_key(header::CONTENT_LENGTH));
    let snapshot = if flags & 4 != 0 { &RULED } else { &PLAIN };
    let Some(out) = stream_as_forwarded(snapshot, head, ends, &body, is_whole) else { return };
    let found = strict::requests(&out).unwrap_or_else(|what| panic!("{what}\n{}", out.escape_ascii()));
    let length =
        found.whole.iter().chain(&found.cut).find_map(|message| message.text("content-length").parse().ok());
    // A byte too many is known only when it comes: what was announced may have gone on by then.
    if !is_whole && length != Some(body.iter().map(Bytes::len).sum::<usize>()) {
        assert!(found.whole.is_empty() && found.cut.is_some(), "half a body is half a message");
        return;
    }
    assert!(found.cut.is_none(), "{}", out.escape_ascii());
    let [message] = &found.whole[..] else { panic!("{} messages", found.whole.len()) };
    assert_eq!(message.method, method.as_str());
    assert_eq!(message.all("host"), [host.unwrap_or_default()]);
    assert_eq!(message.chunked, !ends && !has_length);
    assert_eq!(message.body, body.concat());
}

/// A request as the library hands it out.
struct Received {
    head: Parts,
    /// Its stream ended with its head.
    ends: bool,
    body: Vec<Bytes>,
    /// All of it came.
    is_whole: bool,
}

/// The stream as a client sends it: the fields of `lines`, and `body`, cut at `ends`. It stays open unless it `is_ended`.
fn frames(lines: &[u8], body: &[u8], ends: &[usize], is_ended: bool, has_trailers: bool) -> Vec<u8> {
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let mut block = Vec::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        // Names of pseudo-header fields begin with a colon.
        let at = line.iter().skip(1).position(|byte| *byte == b':').map_or(line.len(), |at| at + 1);
        let value = line.get(at + 1..).unwrap_or_default();
        literal(&line[..at], value.strip_prefix(b" ").unwrap_or(value), &mut block);
    }
    let is_bodiless = body.is_empty() && !has_trailers;
    frame(1, END_HEADERS | if is_bodiless && is_ended { END_STREAM } else { 0 }, &block, &mut out);
    if is_bodiless {
        return out;
    }
    let mut cuts: Vec<usize> = ends.iter().map(|end| end % (body.len() + 1)).chain([body.len()]).collect();
    cuts.sort_unstable();
    let mut at = 0;
    for (number, end) in cuts.iter().enumerate() {
        let is_last = is_ended && !has_trailers && number + 1 == cuts.len();
        frame(0, u8::from(is_last), &body[at..*end], &mut out);
        at = *end;
    }
    if has_trailers {
        let mut trailers = Vec::new();
        literal(b"x", b"y", &mut trailers);
        frame(1, END_HEADERS | u8::from(is_ended), &trailers, &mut out);
    }
    out
}

fn frame(kind: u8, flags: u8, payload: &[u8], out: &mut Vec<u8>) {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    out.extend([&length[..], &[kind, flags], &1_u32.to_be_bytes(), payload].concat());
}

/// A field that is in no table (RFC 7541 section 6.2.2).
fn literal(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(0);
    for text in [name, value] {
        match u8::try_from(text.len()) {
            Ok(length @ ..127) => out.push(length),
            _ => {
                let rest = text.len() - 127;
                out.extend([127, 0x80 | (rest & 0x7f) as u8, (rest >> 7) as u8]);
            }
        }
        out.extend_from_slice(text);
    }
}

thread_local! {
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(tokio::runtime::Builder::new_current_thread().build().unwrap());
}

/// What the library makes of these bytes of a client's; `None` where it makes no request of them.
fn received(bytes: &[u8]) -> Option<Received> {
    RUNTIME.with_borrow(|runtime| runtime.block_on(accepted(bytes)))
}

async fn accepted(bytes: &[u8]) -> Option<Received> {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    client.write_all(bytes).await.unwrap();
    let mut connection = h2::server::handshake(server).await.ok()?;
    // All is there: what does not come at once never does.
    let (request, _answer) = connection.accept().now_or_never()??.ok()?;
    let (head, mut stream) = request.into_parts();
    let ends = stream.is_end_stream();
    let (mut body, mut is_open, mut is_left) = (Vec::new(), true, false);
    let read = loop {
        let step = async {
            tokio::select! {
                biased;
                piece = stream.data() => Some(piece),
                _ended = connection.accept(), if is_open => None,
            }
        };
        match step.now_or_never() {
            Some(Some(Some(Ok(piece)))) => body.push(piece),
            Some(Some(Some(Err(_)))) => break false,
            Some(Some(None)) => {
                break stream.trailers().now_or_never().is_some_and(|trailers| trailers.is_ok());
            }
            Some(None) => is_open = false,
            // The client leaves in the middle.
            None if !std::mem::replace(&mut is_left, true) => client.shutdown().await.unwrap(),
            None => break false,
        }
    };
    Some(Received { head, ends, body, is_whole: ends || read })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body whose requests are all refused would hold whatever the gateway did.
    #[test]
    fn good_ones_are_forwarded() {
        let fields =
            b":method: POST\n:scheme: http\n:path: /a?b=[c]\n:authority: a\ncookie: a=b\ncookie: c=d\n";
        for (length, body, is_ended, trailers) in [
            ("", "", true, false),
            ("", "hello", true, false),
            ("", "hello", true, true),
            ("content-length: 5\n", "hello", true, false),
            ("", "hel", false, false),
            ("content-length: 5\n", "hel", false, false),
        ] {
            let lines = [fields.as_slice(), length.as_bytes()].concat();
            let found = received(&frames(&lines, body.as_bytes(), &[2], is_ended, trailers)).unwrap();
            assert_eq!((found.is_whole, found.body.concat()), (is_ended, body.as_bytes().to_vec()));
            assert_eq!(check_http2_head(&found.head, found.ends), Ok(()));
            let Received { head, ends, body, is_whole } = found;
            let (again, uri) = (http::Request::builder().method(head.method.clone()), head.uri.clone());
            let mut again = again.uri(uri).body(()).unwrap().into_parts().0;
            again.headers = head.headers.clone();
            let plain = stream_as_forwarded(&PLAIN, head, ends, &body, is_whole).unwrap();
            let ruled = stream_as_forwarded(&RULED, again, ends, &body, is_whole).unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_lowercase();
            assert!(text(&plain).contains("\r\ncookie: a=b; c=d\r\n"), "{}", text(&plain));
            assert!(!text(&ruled).contains("cookie"), "{}", text(&ruled));
        }
        for wrong in ["content-length: 4\n", "content-length: 6\n"] {
            let lines = [fields.as_slice(), wrong.as_bytes()].concat();
            assert!(
                received(&frames(&lines, b"hello", &[2], true, false)).is_none_or(|found| !found.is_whole)
            );
        }
    }
}
