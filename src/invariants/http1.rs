//! Of HTTP/1.1 on the wire: heads, chunked bodies, and what is sent on of both directions.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use http::Method;

use super::{pieces, strict};
use crate::base::decode::Surroundings;
use crate::base::wire::chunked::ChunkScanner;
use crate::config::snapshot::Snapshot;
use crate::config::{self, Runtime};
use crate::ingress::head::{Framing, HEADER_LINES_MAX, Head, HeadScanner, Span, Status};
use crate::proxy::{as_forwarded, as_forwarded_by_pingora, as_passed_on};

/// Longest head in [`head`].
const HEAD_BYTES: usize = 2048;

/// A head gets the same verdict however it comes; an accepted one is what it says, and stays so whatever follows.
pub fn head(bytes: &[u8]) {
    let (ends, bytes) = pieces(bytes);
    let whole = HeadScanner::new(HEAD_BYTES).scan(bytes);
    let mut scanner = HeadScanner::new(HEAD_BYTES);
    for end in ends {
        match scanner.scan(&bytes[..end]) {
            Status::Partial => {}
            verdict => assert_eq!(verdict, whole, "a verdict before the end is the last"),
        }
    }
    assert_eq!(scanner.scan(bytes), whole);
    let Status::Complete(head) = whole else { return };
    assert!(head.len <= bytes.len().min(HEAD_BYTES));
    let alone = &bytes[..head.len];
    assert_eq!(HeadScanner::new(HEAD_BYTES).scan(alone), whole, "what follows does not matter");
    assert!(alone.ends_with(b"\r\n\r\n"));
    assert!(!alone.iter().any(|byte| matches!(byte, 0 | 0x7f)));
    for (at, byte) in alone.iter().enumerate() {
        match byte {
            b'\r' => assert_eq!(alone.get(at + 1), Some(&b'\n')),
            b'\n' => assert_eq!(at.checked_sub(1).map(|before| alone[before]), Some(b'\r')),
            _ => {}
        }
    }
    let mut spelled = alone.to_vec();
    head.respell(&mut spelled);
    plain_reading(&spelled, &head);
    assert_eq!(HeadScanner::new(HEAD_BYTES).scan(&spelled), whole, "spelling changes nothing that is said");
}

/// Reads an accepted head as simply as a server behind might: it must see the same message.
fn plain_reading(head: &[u8], found: &Head) {
    let begin = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or_default();
    let text = &head[begin..];
    let lines: Vec<&[u8]> =
        text.split(|byte| *byte == b'\n').map(|line| &line[..line.len().saturating_sub(1)]).collect();
    let [request, fields @ .., last, rest] = &lines[..] else { panic!("too few lines") };
    assert!(last.is_empty() && rest.is_empty());
    let words: Vec<&[u8]> = request.split(|byte| *byte == b' ').collect();
    let version: &[u8] = if found.version_11 { b"HTTP/1.1" } else { b"HTTP/1.0" };
    let of = |span: Span| span.of(head);
    assert_eq!(words, [of(found.method), of(found.target), version]);
    assert!(fields.len() <= HEADER_LINES_MAX);
    let value = |name: &str| {
        let values = fields.iter().filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b':').unwrap();
            line[..at].eq_ignore_ascii_case(name.as_bytes()).then(|| line[at + 1..].trim_ascii())
        });
        values.collect::<Vec<_>>()
    };
    let (lengths, codings) = (value("content-length"), value("transfer-encoding"));
    match found.body {
        Framing::None => assert!(lengths.is_empty() && codings.is_empty()),
        Framing::Length(length) => {
            assert!(codings.is_empty());
            assert_eq!(lengths.len(), 1);
            assert_eq!(std::str::from_utf8(lengths[0]).unwrap().parse(), Ok(length));
        }
        Framing::Chunked => {
            assert!(lengths.is_empty() && codings.len() == 1 && codings[0].eq_ignore_ascii_case(b"chunked"));
        }
    }
    let hosts = value("host");
    assert!(hosts.len() <= 1 && (hosts.len() == 1 || !found.version_11));
    if let Some(host) = hosts.first() {
        assert_eq!(found.host.map(of), Some(*host));
    }
}

/// A chunked body ends at the same byte however it comes, and where a simple reader sees its end.
pub fn chunked(bytes: &[u8]) {
    let (ends, bytes) = pieces(bytes);
    let whole = ChunkScanner::default().advance(bytes);
    let (mut scanner, mut at, mut split) = (ChunkScanner::default(), 0, Ok((0, false)));
    for end in ends {
        if !matches!(split, Ok((_, false))) {
            break;
        }
        split = scanner.advance(&bytes[at..end]).map(|(count, done)| (at + count, done));
        at = end;
    }
    assert_eq!(split, whole);
    let Ok((length, done)) = whole else { return };
    assert!(length <= bytes.len() && (done || length == bytes.len()));
    if done {
        assert_eq!(end_of_chunks(bytes), Some(length));
    }
}

/// Where a chunked body ends, read without any check.
fn end_of_chunks(bytes: &[u8]) -> Option<usize> {
    let line_end =
        |from: usize| bytes.get(from..)?.windows(2).position(|pair| pair == b"\r\n").map(|at| from + at + 2);
    let mut at = 0;
    loop {
        let next = line_end(at)?;
        let size = bytes[at..next - 2].split(|byte| *byte == b';').next()?;
        // Whitespace may stand before an extension (RFC 9112 section 7.1.1).
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?.trim_end(), 16).ok()?;
        at = next;
        if size == 0 {
            break;
        }
        at += size + 2;
    }
    // Trailers, up to an empty line.
    loop {
        let next = line_end(at)?;
        if next == at + 2 {
            return Some(next);
        }
        at = next;
    }
}

/// A gateway in front of one server: everything is forwarded to it as it is, or with `rules` for its head.
fn forwarding(rules: &str) -> Arc<Snapshot> {
    let text = format!(
        "[[listeners]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n[log.access]\noutput = \"off\"\n\
         [upstreams.one]\nservers = [\"127.0.0.1:1\"]\n\
         [[routes]]\npath = \"/*\"\nupstream = \"one\"\nbody_bytes = \"4294967295GiB\"\n{rules}"
    );
    let nothing = Surroundings { env: &|_| None, read: &|_| Err(std::io::ErrorKind::NotFound.into()) };
    let loaded = config::load_text(Path::new("/nowhere/edgeward.toml"), &text, nothing);
    let compiled = loaded.compile(&Runtime::detached());
    let told = config::render::text(&compiled.diagnostics, &compiled.sources, false);
    Arc::new(compiled.snapshot.unwrap_or_else(|| panic!("{told}")))
}

/// The gateways that requests are forwarded by: one that settles a head once, and one whose rules look at what the client
/// sent each time.
pub(super) static PLAIN: LazyLock<Arc<Snapshot>> = LazyLock::new(|| forwarding(""));
pub(super) static RULED: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    forwarding(
        "request = { set = { X-Set = \"{header.x} {query.a}\" }, add = { X = \"z\" }, remove = [\"cookie\"] }\n",
    )
});

/// What is forwarded of a request is one strictly valid message, the one that a simple reader sees, whoever writes it; and so
/// is what is passed on of an answer. The first byte says which of them the rest is.
pub fn framing(bytes: &[u8]) {
    let Some((direction, bytes)) = bytes.split_first() else { return };
    match direction % 8 {
        0 | 4 => passed_on(bytes, &Method::GET),
        1 | 5 => passed_on(bytes, &Method::HEAD),
        2 => sent_on(bytes, &PLAIN, false),
        3 => sent_on(bytes, &RULED, false),
        6 => sent_on(bytes, &PLAIN, true),
        _ => sent_on(bytes, &RULED, true),
    }
}

fn sent_on(bytes: &[u8], snapshot: &Arc<Snapshot>, by_pingora: bool) {
    let (ends, bytes) = pieces(bytes);
    let Status::Complete(head) = HeadScanner::new(HEAD_BYTES).scan(bytes) else { return };
    if !by_pingora && (!head.version_11 || head.upgrade) {
        return;
    }
    let (text, rest) = bytes.split_at(head.len);
    // As far as the stream lets the body pass: up to its end, and nothing of what breaks its framing.
    let (length, done) = match head.body {
        Framing::None => (0, true),
        Framing::Length(length) => {
            let here = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
            (here, here as u64 == length)
        }
        Framing::Chunked => ChunkScanner::default().advance(rest).unwrap_or((0, false)),
    };
    let mut cuts: Vec<usize> = ends.iter().map(|end| end % (length + 1)).chain([length]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut at = 0;
    let mut body = Vec::new();
    for end in cuts {
        if end > at {
            body.push((&rest[at..end], done && end == length));
            at = end;
        }
    }
    let mut text = text.to_vec();
    head.respell(&mut text);
    let text = text.into();
    let out = match by_pingora {
        true => as_forwarded_by_pingora(snapshot, &text, &head, &body),
        false => as_forwarded(snapshot, &text, &head, &body),
    };
    let Some(out) = out else { return };
    let found = strict::requests(&out).unwrap_or_else(|what| panic!("{what}\n{}", out.escape_ascii()));
    if !done {
        assert!(found.whole.is_empty() && found.cut.is_some(), "half a body is half a message");
        return;
    }
    assert!(found.cut.is_none());
    let [message] = &found.whole[..] else { panic!("{} messages", found.whole.len()) };
    assert_eq!(message.method.as_bytes(), head.method.of(bytes));
    // Who came without one, as HTTP/1.0 may, has the server's own.
    let host = head.host.map_or(b"127.0.0.1:1".as_slice(), |host| host.of(bytes));
    assert_eq!(message.all("host"), [host]);
    assert_eq!(message.chunked, head.body == Framing::Chunked);
    let expected = if message.chunked { data_of_chunks(rest) } else { rest[..length].to_vec() };
    assert_eq!(message.body, expected);
}

/// The data of a chunked body, read without any check.
fn data_of_chunks(bytes: &[u8]) -> Vec<u8> {
    let (mut data, mut rest) = (Vec::new(), bytes);
    loop {
        let line = rest.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let digits = rest[..line].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..digits]).unwrap(), 16).unwrap();
        if size == 0 {
            return data;
        }
        data.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
}

fn passed_on(bytes: &[u8], method: &Method) {
    let Some((out, done, behind)) = as_passed_on(bytes, method) else { return };
    let found = strict::answers(&out, &[method.as_str()], false);
    let found = found.unwrap_or_else(|what| panic!("{what}\n{}", out.escape_ascii()));
    let finals: Vec<_> = found.whole.iter().filter(|answer| answer.status >= 200).collect();
    assert_eq!(finals.len(), usize::from(done));
    assert!(!done || found.cut.is_none());
    assert!(behind.len() <= bytes.len() && (done || behind.is_empty()));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body whose requests are all refused would hold whatever the gateway did.
    #[test]
    fn good_ones_are_forwarded() {
        let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
        for (version, fields) in [
            ("1.1", "Content-Length: 5\r\n"),
            ("1.1", "Transfer-Encoding: chunked\r\n"),
            ("1.1", handshake),
            ("1.0", "Content-Length: 5\r\n"),
        ] {
            let text = format!("GET /a?b=[c] HTTP/{version}\r\nHost: a\r\nCookie: d=e\r\n{fields}\r\n");
            let Status::Complete(head) = HeadScanner::new(HEAD_BYTES).scan(text.as_bytes()) else {
                panic!("{text}")
            };
            let bytes = text.into_bytes().into();
            for (snapshot, has_cookie) in [(&PLAIN, true), (&RULED, false)] {
                // The other two are Pingora's.
                let is_direct = head.version_11 && !head.upgrade;
                let direct = is_direct.then(|| as_forwarded(snapshot, &bytes, &head, &[]).unwrap());
                let by_pingora = as_forwarded_by_pingora(snapshot, &bytes, &head, &[]).unwrap();
                for out in direct.iter().chain([&by_pingora]) {
                    let out = String::from_utf8_lossy(out).to_lowercase();
                    assert!(out.starts_with("get /a?b=%5bc%5d http/1.1\r\n"), "{out}");
                    assert_eq!(out.contains("\r\ncookie: d=e\r\n"), has_cookie, "{out}");
                    assert_eq!(out.contains("\r\nx: z\r\n"), !has_cookie, "{out}");
                }
            }
        }
    }
}
