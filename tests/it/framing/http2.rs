//! The same for requests over HTTP/2: what is made of them for a server of HTTP/1.1.

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::payload::{HIDDEN, Way, mark};
use super::{AT_ONCE, Bench, QUIET, Tally, innocent, report, seen};
use crate::support::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

type Field = (Vec<u8>, Vec<u8>);

/// One stream on a connection of its own.
#[derive(Debug, Clone, Default)]
struct Streamed {
    name: String,
    fields: Vec<Field>,
    /// Pieces of the body, each in a frame.
    data: Vec<Vec<u8>>,
    trailers: Option<Vec<Field>>,
    /// It is right, and has to be forwarded with this body.
    valid: Option<Vec<u8>>,
    mark: String,
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length, [kind, flags].as_slice(), &1_u32.to_be_bytes(), payload].concat()
}

/// A string of RFC 7541 section 5.2, not compressed.
fn text(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes.len();
    if rest < 127 {
        out.push(u8::try_from(rest).unwrap());
    } else {
        out.push(127);
        rest -= 127;
        while rest >= 128 {
            out.push(u8::try_from(rest % 128 + 128).unwrap());
            rest /= 128;
        }
        out.push(u8::try_from(rest).unwrap());
    }
    out.extend_from_slice(bytes);
}

/// A header block of literals that are in no table (RFC 7541 section 6.2.2).
fn block(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        text(name, &mut out);
        text(value, &mut out);
    }
    out
}

impl Streamed {
    fn bytes(&self) -> Vec<u8> {
        let is_bodiless = self.data.is_empty() && self.trailers.is_none();
        let mut bytes = PREFACE.to_vec();
        let block_bytes = block(&self.fields);
        // Long ones go on in frames of their own.
        let mut pieces = block_bytes.chunks(16_000).peekable();
        let mut kind = HEADERS;
        while let Some(piece) = pieces.next() {
            let mut flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            if kind == HEADERS && is_bodiless {
                flags |= END_STREAM;
            }
            bytes.extend(frame(kind, flags, piece));
            kind = 9;
        }
        for (at, piece) in self.data.iter().enumerate() {
            let ends = at + 1 == self.data.len() && self.trailers.is_none();
            bytes.extend(frame(DATA, u8::from(ends), piece));
        }
        if let Some(trailers) = &self.trailers {
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, &block(trailers)));
        }
        bytes
    }
}

struct Streams {
    way: Way,
    from: usize,
    all: Vec<Streamed>,
}

impl Streams {
    /// Adds one with these fields; `<0>` and `<E>` as in [`super::payload::Corpus`].
    fn add(&mut self, name: impl Into<String>, fields: &[(&str, &str)], data: &[&[u8]]) -> &mut Streamed {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        self.add_bytes(name, &fields, data)
    }

    fn add_bytes(
        &mut self,
        name: impl Into<String>,
        fields: &[(&[u8], &[u8])],
        data: &[&[u8]],
    ) -> &mut Streamed {
        let id = self.from + self.all.len();
        let put = |bytes: &[u8]| -> Vec<u8> {
            let mut out = Vec::new();
            let mut rest = bytes;
            while let Some((byte, after)) = rest.split_first() {
                match rest {
                    [b'<', what @ (b'0' | b'E'), b'>', after @ ..] => {
                        out.extend(mark(self.way, id, char::from(*what)).into_bytes());
                        rest = after;
                    }
                    _ => {
                        out.push(*byte);
                        rest = after;
                    }
                }
            }
            out
        };
        self.all.push(Streamed {
            name: name.into(),
            fields: fields.iter().map(|(name, value)| (put(name), put(value))).collect(),
            data: data.iter().map(|piece| put(piece)).collect(),
            trailers: None,
            valid: None,
            mark: mark(self.way, id, '0'),
        });
        self.all.last_mut().unwrap()
    }

    fn right(&mut self, name: &str, fields: &[(&str, &str)], data: &[&[u8]]) -> &mut Streamed {
        let streamed = self.add(name, fields, data);
        streamed.valid = Some(streamed.data.concat());
        streamed
    }
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "<0>");
const AUTHORITY: (&str, &str) = (":authority", "x");
const GET: [(&str, &str); 4] = [METHOD, SCHEME, PATH, AUTHORITY];
const POST: [(&str, &str); 4] = [(":method", "POST"), SCHEME, PATH, AUTHORITY];

fn with<'a>(base: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [base, more].concat()
}

fn all(way: Way, from: usize) -> Vec<Streamed> {
    let mut streams = Streams { way, from, all: Vec::new() };
    valid(&mut streams);
    pseudo(&mut streams);
    fields(&mut streams);
    bytes_in_fields(&mut streams);
    bodies(&mut streams);
    trailers(&mut streams);
    streams.all
}

fn valid(streams: &mut Streams) {
    streams.right("GET", &GET, &[]);
    streams.right("any order", &[AUTHORITY, PATH, METHOD, SCHEME], &[]);
    streams.right("Host, no authority", &[METHOD, SCHEME, PATH, ("host", "x")], &[]);
    streams.right("Host that agrees", &with(&GET, &[("host", "x")]), &[]);
    streams.right("te: trailers", &with(&GET, &[("te", "trailers")]), &[]);
    streams.right(
        "cookies in crumbs",
        &with(&GET, &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]),
        &[],
    );
    streams.right("a query", &[METHOD, SCHEME, (":path", "<0>?a[]={b}|`^\\&c=%20"), AUTHORITY], &[]);
    streams.right("another scheme", &[METHOD, (":scheme", "https"), PATH, AUTHORITY], &[]);
    streams.right("a strange method", &[(":method", "X!#$%&'*+-.^_`|~9"), SCHEME, PATH, AUTHORITY], &[]);
    streams.right("a small method", &[(":method", "get"), SCHEME, PATH, AUTHORITY], &[]);
    streams.right("an empty value", &with(&GET, &[("x", "")]), &[]);
    streams.right("a value of high bytes", &with(&GET, &[("x", "\u{e9}")]), &[]);
    streams.right("a tab in a value", &with(&GET, &[("x", "a\tb")]), &[]);
    streams.right("a strange name", &with(&GET, &[("!#$%&'*+-.^_`|~09az", "y")]), &[]);
    streams.right("a body", &POST, &[b"hello"]);
    streams.right("a body in pieces", &POST, &[b"he", b"", b"llo"]);
    streams.right("a body and an empty last frame", &POST, &[b"hello", b""]);
    streams.right("an empty body", &POST, &[b""]);
    streams.right("no body", &POST, &[]);
    streams.right("a body with a length", &with(&POST, &[("content-length", "5")]), &[b"hel", b"lo"]);
    streams.right("a length of nothing", &with(&POST, &[("content-length", "0")]), &[b""]);
    streams.right("GET with a body", &GET, &[b"hello"]);
    streams.right("a request as a body", &POST, &[HIDDEN.as_bytes()]);
    streams.right("chunks as a body", &POST, &[b"0\r\n\r\n", HIDDEN.as_bytes()]);
    streams.right(
        "an expectation",
        &with(&POST, &[("expect", "100-continue"), ("content-length", "5")]),
        &[b"hello"],
    );
    streams.right("trailers", &POST, &[b"hello"]).trailers = Some(vec![(b"x".to_vec(), b"y".to_vec())]);
    streams.right("trailers alone", &POST, &[]).trailers = Some(vec![(b"x".to_vec(), b"y".to_vec())]);
    let many: Vec<(String, String)> = (0..150).map(|n| (format!("x-{n}"), "v".repeat(40))).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    streams.right("many fields", &with(&GET, &many), &[]);
}

fn pseudo(streams: &mut Streams) {
    for left_out in 0..4 {
        let mut fields = GET.to_vec();
        let (name, _) = fields.remove(left_out);
        streams.add(format!("no {name}"), &fields, &[]);
        let twice = with(&GET, &[GET[left_out]]);
        streams.add(format!("{name} twice"), &twice, &[]);
        let mut empty = GET.to_vec();
        empty[left_out].1 = "";
        streams.add(format!("{name} empty"), &empty, &[]);
        let mut late = GET.to_vec();
        let last = late.remove(left_out);
        late.extend([("x", "y"), last]);
        streams.add(format!("{name} behind a field"), &late, &[]);
        let upper = name.to_uppercase();
        let mut loud = GET.to_vec();
        loud[left_out].0 = &upper;
        streams.add(upper.to_string(), &loud, &[]);
    }
    for (name, value) in [
        (":x", "y"),
        (":status", "200"),
        (":protocol", "websocket"),
        (":", "x"),
        ("", "x"),
        (":host", "x"),
        (":method ", "GET"),
        (" :method", "GET"),
    ] {
        streams.add(format!("{name:?}: {value}"), &with(&[(name, value)], &GET), &[]);
        streams.add(format!("{name:?}: {value}, last"), &with(&GET, &[(name, value)]), &[]);
    }
    for method in [
        "G T",
        "GET ",
        " GET",
        "GET <E> HTTP/1.1\r\nHost: x\r\n\r\nGET",
        "GET\r\nX-Evil: 1",
        "G\tT",
        "G\0T",
        "(",
        "CONNECT",
        "PRI",
        "G\u{e9}T",
        "GET:",
        &"M".repeat(40),
        "GET\n",
    ] {
        streams.add(
            format!(":method {:?}", &method[..method.len().min(40)]),
            &[(":method", method), SCHEME, PATH, AUTHORITY],
            &[],
        );
        streams.add(
            format!(":method {:?} with a body", &method[..method.len().min(40)]),
            &[(":method", method), SCHEME, PATH, AUTHORITY],
            &[b"hello"],
        );
    }
    streams.add("TRACE with a body", &[(":method", "TRACE"), SCHEME, PATH, AUTHORITY], &[b"hello"]);
    streams.add(
        "TRACE with a length",
        &[(":method", "TRACE"), SCHEME, PATH, AUTHORITY, ("content-length", "0")],
        &[b""],
    );
    for scheme in [
        "",
        "ftp",
        "http ",
        "http\r\nX-Evil: 1",
        "http://x<E>",
        "https://x<E> HTTP/1.1\r\nX-Evil: 1\r\n\r\n",
        "ht tp",
        "javascript",
        "http:",
        "\0",
        "HTTP",
    ] {
        streams.add(format!(":scheme {scheme:?}"), &[METHOD, (":scheme", scheme), PATH, AUTHORITY], &[]);
    }
    for path in [
        "d/00000/0",
        "*",
        "<0> HTTP/1.1\r\nHost: x\r\n\r\nGET <E>",
        "<0> HTTP/1.1\r\nX-Evil: 1",
        "<0> <E>",
        " <0>",
        "<0> ",
        "\t<0>",
        "<0>\t",
        "<0>\r",
        "<0>\n",
        "<0>\0",
        "<0>\x7f",
        "<0>#a",
        "<0>?a#b",
        "<0>?a b",
        "<0>?a\r\nX-Evil: 1",
        "http://x<0>",
        "http://y<0>",
        "//y<0>",
        "//x<0>",
        "///<0>",
        "\\<0>",
        "<0>\\a",
        "<0>\"",
        "<0>?\"",
        "<0><a>",
        "<0>?<a>",
        "<0>^`{|}",
        "<0>%",
        "<0>%zz",
        "<0>%00",
        "<0>%0d%0aX-Evil:%201",
        "<0>?%",
        "<0>\u{e9}",
        "<0>?\u{e9}",
        "/..<0>",
        "/%2e%2e<0>",
        "<0>/../../..",
        "?a",
        "#",
        "x<0>",
        "<0>;a",
        "<0>%2f..%2f",
        "/*",
        "<0>?",
        "<0>??",
        "<0>/./a",
        "javascript:x",
        "x:80",
        ":80",
        "[::1]",
    ] {
        streams.add(format!(":path {path:?}"), &[METHOD, SCHEME, (":path", path), AUTHORITY], &[]);
    }
    let long = format!("<0>/{}", "l".repeat(20_000));
    streams.add("a long :path", &[METHOD, SCHEME, (":path", &long), AUTHORITY], &[]);
    for authority in [
        "",
        " ",
        "x ",
        " x",
        "x y",
        "x/y",
        "x?y",
        "x#y",
        "u@x",
        "u:p@x",
        "@x",
        "x@",
        "x:80",
        "x:",
        "x:y",
        "x:99999",
        "x:-1",
        "x,y",
        "x\r\nX-Evil: 1",
        "x\r\n\r\nGET <E> HTTP/1.1\r\nHost: x\r\n\r\n",
        "x\0",
        "x\t",
        "x\\y",
        "[::1]",
        "[::1",
        "::1",
        "[::1]x",
        "x%00",
        "x%2f",
        "a..b",
        ".",
        "*",
        "http://x",
        "x;y",
        "x\"",
        "<x>",
        "x'",
        "x|y",
        "x\u{e9}",
        "x!",
        "x$y",
        "~x",
        "x\n",
        "evil.example/<E>?",
    ] {
        streams.add(
            format!(":authority {authority:?}"),
            &[METHOD, SCHEME, PATH, (":authority", authority)],
            &[],
        );
        streams.add(format!("host {authority:?}"), &[METHOD, SCHEME, PATH, ("host", authority)], &[]);
        streams.add(format!(":authority x, host {authority:?}"), &with(&GET, &[("host", authority)]), &[]);
    }
    streams.add("Host twice", &with(&GET, &[("host", "x"), ("host", "x")]), &[]);
    streams.add("two Hosts", &with(&GET, &[("host", "x"), ("host", "y")]), &[]);
}

fn fields(streams: &mut Streams) {
    for (name, value) in [
        ("connection", "close"),
        ("connection", "keep-alive"),
        ("connection", "x"),
        ("connection", "transfer-encoding"),
        ("connection", ""),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("transfer-encoding", ""),
        ("upgrade", "websocket"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABk"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("te", "trailers;q=0"),
        ("te", "chunked"),
        ("te", ""),
        ("te", "TRAILERS"),
        ("trailer", "x"),
        ("trailer", "content-length"),
        ("expect", "x"),
        ("expect", "100-continue, x"),
        ("expect", ""),
        ("content-length", ""),
        ("content-length", " "),
        ("content-length", "5 "),
        ("content-length", " 5"),
        ("content-length", "+5"),
        ("content-length", "-5"),
        ("content-length", "0x5"),
        ("content-length", "5,5"),
        ("content-length", "5, 5"),
        ("content-length", "05"),
        ("content-length", "00000000000000000000005"),
        ("content-length", "5\t"),
        ("content-length", "99999999999999999999"),
        ("content-length", "18446744073709551621"),
        ("content-length", "5.0"),
        ("content-length", "five"),
        ("content-length", "5\r\nX-Evil: 1"),
        ("content-length", "5\0"),
        ("content-length", "0"),
        ("content-length", "4"),
        ("content-length", "6"),
        ("X-Upper", "1"),
        ("x-Upper", "1"),
        ("Content-Length", "5"),
        ("Host", "x"),
        ("x y", "1"),
        ("x:", "1"),
        ("x:y", "1"),
        ("x\r\nx-evil", "1"),
        ("x\n", "1"),
        ("x\0", "1"),
        ("x\t", "1"),
        ("x(", "1"),
        ("x\u{e9}", "1"),
        ("x=", "1"),
        ("x;", "1"),
        ("x\"", "1"),
        ("x[", "1"),
        ("x{", "1"),
        ("x/", "1"),
        ("x@", "1"),
        ("x,", "1"),
        ("x?", "1"),
        ("x<", "1"),
        ("x\\", "1"),
        (" x", "1"),
        ("x ", "1"),
        ("transfer-encoding ", "chunked"),
        ("transfer-encoding:", "chunked"),
        ("transfer-encoding:chunked\r\nx", "1"),
        ("content-length ", "0"),
        ("content_length", "0"),
        ("transfer_encoding", "chunked"),
        ("proxy-authorization", "Basic eDp5"),
        ("x-forwarded-for", "9.9.9.9\r\nX-Evil: 1"),
        ("via", "1.1 x"),
        ("x-real-ip", "9.9.9.9"),
        ("cookie", "a=1\r\nX-Evil: 1"),
        ("cookie", ""),
        ("cookie", ";"),
        ("cookie", " a=1 "),
        ("max-forwards", "0"),
        ("traceparent", "x"),
    ] {
        let what = format!("{name:?}: {value:?}");
        streams.add(&what, &with(&GET, &[(name, value)]), &[]);
        streams.add(format!("{what} with a body"), &with(&POST, &[(name, value)]), &[b"hello"]);
        streams.add(
            format!("{what} with a request"),
            &with(&POST, &[(name, value)]),
            &[b"0\r\n\r\n", HIDDEN.as_bytes()],
        );
    }
    for pair in [["5", "5"], ["5", "6"], ["0", "5"], ["5", ""]] {
        streams.add(
            format!("lengths {pair:?}"),
            &with(&POST, &[("content-length", pair[0]), ("content-length", pair[1])]),
            &[b"hello"],
        );
    }
    let long = "v".repeat(20_000);
    streams.add("a long value", &with(&GET, &[("x", &long)]), &[]);
    streams.add("a long name", &with(&GET, &[(&long, "x")]), &[]);
    let crumbs: Vec<(&str, &str)> = vec![("cookie", "a=b"); 300];
    streams.add("many crumbs", &with(&GET, &crumbs), &[]);
    streams.add("many cookies of a few bytes, then a body", &with(&POST, &crumbs[..60]), &[b"hello"]);
}

fn bytes_in_fields(streams: &mut Streams) {
    let base: Vec<(&[u8], &[u8])> =
        GET.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    for byte in (0_u8..=0x20).chain([0x22, 0x28, 0x2c, 0x3a, 0x3b, 0x41, 0x5c, 0x7f, 0x80, 0xff]) {
        for (place, name, value) in [
            ("in a value", b"x".to_vec(), vec![b'a', byte, b'b']),
            ("before a value", b"x".to_vec(), vec![byte, b'b']),
            ("behind a value", b"x".to_vec(), vec![b'a', byte]),
            ("alone in a value", b"x".to_vec(), vec![byte]),
            ("in a name", vec![b'x', byte, b'y'], b"1".to_vec()),
            ("before a name", vec![byte, b'y'], b"1".to_vec()),
            ("behind a name", vec![b'x', byte], b"1".to_vec()),
        ] {
            let fields = [base.as_slice(), &[(name.as_slice(), value.as_slice())]].concat();
            streams.add_bytes(format!("{byte:#04x} {place}"), &fields, &[]);
        }
    }
}

fn bodies(streams: &mut Streams) {
    for (length, data) in [
        ("5", &[b"hell".as_slice()][..]),
        ("5", &[b"hello!"]),
        ("5", &[b"hel", b"lo!"]),
        ("5", &[b"hello", b"x"]),
        ("5", &[b"hello", b""]),
        ("5", &[b""]),
        ("5", &[]),
        ("0", &[b"x"]),
        ("0", &[b"", b"x"]),
        ("1", &[HIDDEN.as_bytes()]),
        ("1000", &[HIDDEN.as_bytes()]),
    ] {
        let bytes: usize = data.iter().map(|piece| piece.len()).sum();
        streams.add(
            format!("{length} said, {bytes} sent in {}", data.len()),
            &with(&POST, &[("content-length", length)]),
            data,
        );
    }
    for method in ["HEAD", "DELETE", "OPTIONS", "TRACE"] {
        streams.add(
            format!("{method} with a body"),
            &[(":method", method), SCHEME, PATH, AUTHORITY],
            &[b"hello"],
        );
    }
}

fn trailers(streams: &mut Streams) {
    for (name, value) in [
        (":path", "<E>"),
        (":method", "GET"),
        (":status", "200"),
        ("content-length", "5"),
        ("content-length", "9"),
        ("transfer-encoding", "chunked"),
        ("host", "evil"),
        ("connection", "close"),
        ("te", "trailers"),
        ("X-Upper", "1"),
        ("x\r\nx-evil", "1"),
        ("x", "a\r\nX-Evil: 1"),
        ("x", "a\0"),
        ("x-evil", "1"),
        ("authorization", "x"),
        ("x y", "1"),
        ("trailer", "x"),
        ("expect", "100-continue"),
    ] {
        let trailer = vec![(name.as_bytes().to_vec(), value.as_bytes().to_vec())];
        streams.add(format!("a trailer {name:?}: {value:?}"), &POST, &[b"hello"]).trailers =
            Some(trailer.clone());
        streams
            .add(
                format!("a trailer {name:?}: {value:?}, with a length"),
                &with(&POST, &[("content-length", "5")]),
                &[b"hello"],
            )
            .trailers = Some(trailer.clone());
        streams
            .add(
                format!("a trailer {name:?}: {value:?}, with a length of more"),
                &with(&POST, &[("content-length", "6")]),
                &[b"hello"],
            )
            .trailers = Some(trailer);
    }
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its answer's head came.
    Answered,
    /// Reset, or the connection ended.
    Refused,
    /// Nothing came.
    Nothing,
}

async fn send(bench: &Bench, streamed: &Streamed) -> End {
    let mut socket = bench.connect(false).await;
    let _left = within("send", socket.write_all(&streamed.bytes())).await;
    let patience = if streamed.valid.is_some() { PATIENCE } else { 2 * QUIET };
    let (mut input, mut buffer, mut end) = (Vec::new(), vec![0; 16 * 1024], End::Nothing);
    loop {
        while input.len() >= 9 {
            let length = usize::from(input[0]) << 16 | usize::from(input[1]) << 8 | usize::from(input[2]);
            if input.len() < 9 + length {
                break;
            }
            let frame: Vec<u8> = input.drain(..9 + length).collect();
            let (kind, flags, stream) = (frame[3], frame[4], frame[8]);
            if kind == GOAWAY {
                return if end == End::Answered { end } else { End::Refused };
            }
            if stream == 1 && kind == RST_STREAM {
                return if end == End::Answered { end } else { End::Refused };
            }
            if stream == 1 && kind == HEADERS {
                end = End::Answered;
            }
            if stream == 1 && kind <= HEADERS && flags & END_STREAM != 0 {
                return end;
            }
        }
        match tokio::time::timeout(patience, socket.read(&mut buffer)).await {
            Ok(Ok(count @ 1..)) => input.extend_from_slice(&buffer[..count]),
            Ok(_) => return if end == End::Answered { end } else { End::Refused },
            Err(_) => return end,
        }
    }
}

/// What is forwarded of HTTP/2 is one strictly valid HTTP/1.1 request a stream, over each way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_over_http2_what_goes_out_is_right() {
    let bench = Bench::start(super::reply).await;
    for (at, way) in Way::ALL.into_iter().enumerate() {
        let streams = all(way, 10_000 * (at + 1));
        let sending = futures_util::stream::iter(&streams).map(|streamed| send(&bench, streamed));
        let ends: Vec<End> = sending.buffered(AT_ONCE).collect().await;
        let mut tally = Tally { sent: streams.len(), ..Tally::default() };
        let seen = seen(&bench.recorded().await, &mut tally.faults);
        for (streamed, end) in streams.iter().zip(&ends) {
            let forwarded = seen.get(&streamed.mark).and_then(|messages| messages.first());
            match (&streamed.valid, forwarded) {
                (Some(body), Some(message)) if message.body == *body || way == Way::Leg => tally.valid += 1,
                (Some(_), other) => {
                    tally.valid += 1;
                    tally.valid_refused.push(format!("{}: {end:?}, {other:?}", streamed.name));
                }
                (None, Some(_)) => tally.forwarded += 1,
                (None, None) if *end != End::Nothing => tally.refused += 1,
                (None, None) => tally.neither += 1,
            }
        }
        let what = format!("HTTP/2 {way:?}");
        report(&what, &tally);
        assert!(
            tally.faults.is_empty(),
            "{what}: {} faults\n{}",
            tally.faults.len(),
            tally.faults[..tally.faults.len().min(40)].join("\n")
        );
        assert!(tally.valid_refused.is_empty(), "{what}:\n{}", tally.valid_refused.join("\n"));
        assert_eq!(tally.neither, 0, "each is answered or reset");
        assert!(tally.forwarded > 10 && tally.refused > 100, "{tally:?}");
        innocent(&bench, way, 99_998).await;
    }
    bench.gw.stop().await;
}
