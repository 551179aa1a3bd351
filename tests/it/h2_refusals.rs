//! HTTP/2 requests that the library refuses by itself, and connections that end badly: each is logged and counted.

use std::time::Duration;

use crate::support::h2::{END_HEADERS, END_STREAM, field, frame, headers};
use crate::support::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// GET, http, "/" and the authority "a".
const GOOD: &[u8] = b"\x82\x86\x84\x41\x01a";

fn good_with(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().fold(GOOD.to_vec(), |block, (name, value)| [block, field(name, value)].concat())
}

const JSON_LOG: &str = "[log.access]\nformat = \"json\"\n";

async fn gateway_with(more: &str) -> (Upstream, Gateway) {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and(JSON_LOG).and(more).start().await;
    (app, gw)
}

/// A connection that has exchanged settings.
async fn connect(gw: &Gateway) -> RawClient {
    let mut raw = gw.raw().await;
    raw.send(PREFACE).await;
    raw
}

/// What became of `stream`: the frames of the gateway on it, as (type, payload), until one ends it.
async fn end_of(raw: &mut RawClient, stream: u32) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((kind, flags, on, payload)) = raw.frame().await {
        if on == stream {
            let ends = kind == 3 || (flags & END_STREAM != 0 && kind <= 1);
            frames.push((kind, payload));
            if ends {
                return frames;
            }
        }
    }
    panic!("the connection ended before stream {stream}: {frames:?}");
}

/// The error code of the GOAWAY that ends a connection.
async fn goaway(raw: &mut RawClient) -> u32 {
    let mut code = None;
    while let Some((kind, _, _, payload)) = raw.frame().await {
        if kind == 7 {
            code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    }
    code.expect("a GOAWAY")
}

async fn lines(gw: &Gateway, count: usize) -> Vec<serde_json::Value> {
    let found = async || Some(gw.access_log()).filter(|lines| lines.len() >= count);
    let lines = eventually(&format!("{count} lines"), found).await;
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whatever breaks a rule of HTTP/2 in one header ends that stream alone, leaves one line, and counts once.
#[tokio::test]
async fn malformed_header_fields() {
    let (app, gw) = gateway_with("").await;
    let blocks: Vec<(&str, Vec<u8>)> = vec![
        ("a header of the connection", good_with(&[("connection", "close")])),
        ("another one", good_with(&[("transfer-encoding", "chunked")])),
        ("te other than trailers", good_with(&[("te", "gzip")])),
        ("no method", b"\x86\x84\x41\x01a".to_vec()),
        ("no scheme", b"\x82\x84\x41\x01a".to_vec()),
        ("no path", b"\x82\x86\x41\x01a".to_vec()),
        ("a path that is repeated", [GOOD, b"\x84"].concat()),
        ("a pseudo-header after a header", [&GOOD[..3], &field("x", "y"), b"\x41\x01a"].concat()),
        ("the status of an answer", [GOOD, b"\x88"].concat()),
        ("a length that is none", good_with(&[("content-length", "x")])),
        ("a length of no body", good_with(&[("content-length", "3")])),
        ("two lengths", good_with(&[("content-length", "3"), ("content-length", "4")])),
        (
            "extended CONNECT",
            [b"\x86\x84\x41\x01a".to_vec(), field(":method", "CONNECT"), field(":protocol", "x")].concat(),
        ),
    ];
    let mut raw = connect(&gw).await;
    for (at, (what, block)) in blocks.iter().enumerate() {
        let stream = u32::try_from(at * 2 + 1).unwrap();
        raw.send(headers(stream, block)).await;
        let frames = end_of(&mut raw, stream).await;
        assert_eq!(frames, [(3, vec![0, 0, 0, 1])], "{what}");
        let logged = lines(&gw, at + 1).await.pop().unwrap();
        assert_eq!(
            (logged["status"].as_u64(), logged["reason"].as_str()),
            (Some(400), Some("request.malformed")),
            "{what}"
        );
        assert!(logged["detail"].is_string(), "{what}: {logged}");
    }
    // The connection serves the next one.
    let stream = u32::try_from(blocks.len() * 2 + 1).unwrap();
    raw.send(headers(stream, GOOD)).await;
    assert_eq!(end_of(&mut raw, stream).await[0].0, 1);
    assert_eq!(app.requests(), 1);
    let count = blocks.len() as f64;
    gw.metric_is("edgeward_http_requests_rejected_total", &["reason=\"request.malformed\""], count).await;
    gw.metric_is("edgeward_http_requests_total", &["code=\"400\""], count).await;
}

/// What the library lets pass and HTTP/1 would not is answered, with the line of a request that was understood.
#[tokio::test]
async fn what_two_servers_could_read_in_two_ways() {
    let (app, gw) = gateway_with("").await;
    let cases = [
        (good_with(&[("host", "b")]), 400, "request.bad_host", "Host is not the host of the target"),
        (b"\x82\x86\x84".to_vec(), 400, "request.bad_host", "no Host"),
        (
            b"\x82\x06\x00\x84\x41\x01a".to_vec(),
            400,
            "request.malformed",
            "the target is no path and no http URL",
        ),
        (
            good_with(&[("expect", "x")]),
            417,
            "request.expectation_failed",
            "an expectation other than 100-continue",
        ),
    ];
    let mut raw = connect(&gw).await;
    for (at, (block, status, code, detail)) in cases.iter().enumerate() {
        let stream = u32::try_from(at * 2 + 1).unwrap();
        raw.send(headers(stream, block)).await;
        let frames = end_of(&mut raw, stream).await;
        let body: serde_json::Value = serde_json::from_slice(&frames[1].1).unwrap();
        assert_eq!((body["status"].as_u64(), body["code"].as_str()), (Some(*status), Some(*code)));
        let logged = lines(&gw, at + 1).await.pop().unwrap();
        assert_eq!((logged["status"].as_u64(), logged["detail"].as_str()), (Some(*status), Some(*detail)));
        assert_eq!((logged["method"].as_str(), logged["uri"].as_str()), (Some("GET"), Some("/")), "{logged}");
    }
    assert_eq!(app.requests(), 0);
    // CONNECT has neither path nor scheme, and is refused like everywhere.
    let connect_block = [field(":method", "CONNECT"), b"\x41\x01a".to_vec()].concat();
    raw.send(headers(9, &connect_block)).await;
    end_of(&mut raw, 9).await;
    assert_eq!(lines(&gw, 5).await.pop().unwrap()["status"], 501);
}

/// The library answers 431 by itself.
#[tokio::test]
async fn header_lists_that_are_too_large() {
    let (app, gw) = gateway_with("[limits]\nheader_bytes = \"8KiB\"\n").await;
    let mut raw = connect(&gw).await;
    let long = "x".repeat(120);
    let large = good_with(&vec![("x-long", long.as_str()); 60]);
    raw.send(headers(1, &large)).await;
    assert_eq!(end_of(&mut raw, 1).await[0].0, 1, "an answer");
    let logged = lines(&gw, 1).await.pop().unwrap();
    assert_eq!(
        (logged["status"].as_u64(), logged["reason"].as_str()),
        (Some(431), Some("request.header_too_large"))
    );
    raw.send(headers(3, GOOD)).await;
    end_of(&mut raw, 3).await;
    assert_eq!(app.requests(), 1);
    gw.metric_is("edgeward_http_requests_total", &["code=\"431\""], 1.0).await;
}

/// A stream too many is refused, and was not served: that is a 503.
#[tokio::test]
async fn more_streams_than_were_offered() {
    let gate = Gate::new();
    let app = upstream().otherwise(gate.then(Answer::text("late"))).start().await;
    let gw = in_front_of(&app, "").and(JSON_LOG).start().await;
    let mut raw = connect(&gw).await;
    for stream in 0..128 {
        raw.send(headers(stream * 2 + 1, GOOD)).await;
    }
    gate.arrived(128).await;
    raw.send(headers(257, GOOD)).await;
    assert_eq!(end_of(&mut raw, 257).await, [(3, vec![0, 0, 0, 7])]);
    let logged = lines(&gw, 1).await.pop().unwrap();
    assert_eq!(
        (logged["status"].as_u64(), logged["reason"].as_str()),
        (Some(503), Some("gateway.overloaded"))
    );
    gate.open();
    lines(&gw, 129).await;
}

/// A body that is not as long as was said: the request fails, for the client's fault.
#[tokio::test]
async fn a_body_of_another_length() {
    let (_app, gw) = gateway_with("").await;
    let mut raw = connect(&gw).await;
    raw.send(frame(1, END_HEADERS, 1, &good_with(&[("content-length", "3")]))).await;
    raw.send(frame(0, END_STREAM, 1, b"hello")).await;
    end_of(&mut raw, 1).await;
    let logged = lines(&gw, 1).await.pop().unwrap();
    assert_eq!(logged["reason"], "request.malformed", "{logged}");
}

/// Nothing is whole before it is known that nothing follows: a body that is longer than was said reaches no server as one of
/// that length, however its pieces come.
#[tokio::test]
async fn a_body_that_goes_on_behind_its_end_is_forwarded_to_nobody() {
    let (app, gw) = gateway_with("").await;
    let mut raw = connect(&gw).await;
    let post = |length: &str| [&b"\x83\x86\x84\x41\x01a"[..], &field("content-length", length)].concat();
    for (stream, length) in [(1, "0"), (3, "5"), (5, "6")] {
        raw.send(frame(1, END_HEADERS, stream, &post(length))).await;
        raw.send(frame(0, 0, stream, b"hello")).await;
        raw.send(frame(0, END_STREAM, stream, b"GET /hidden")).await;
        assert_eq!(end_of(&mut raw, stream).await, [(3, vec![0, 0, 0, 1])], "{length}");
    }
    let logged = lines(&gw, 3).await;
    assert!(logged.iter().all(|line| line["reason"] == "request.malformed"), "{logged:#?}");
    // Those of the right length come through, also where their end comes by itself, or behind trailers.
    let trailers = frame(1, END_HEADERS | END_STREAM, 11, &field("x", "y"));
    let ends =
        [(7, "0", frame(0, END_STREAM, 7, b"")), (9, "5", frame(0, END_STREAM, 9, b"")), (11, "5", trailers)];
    for (stream, length, end) in ends {
        raw.send(frame(1, END_HEADERS, stream, &post(length))).await;
        if length == "5" {
            raw.send(frame(0, 0, stream, b"he")).await;
            raw.send(frame(0, 0, stream, b"llo")).await;
        }
        raw.send(end).await;
        assert_eq!(end_of(&mut raw, stream).await[0].0, 1, "{stream}");
    }
    let bodies: Vec<_> = app.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [&b""[..], b"hello", b"hello"]);
}

/// What the library takes off a path in silence, and what it drops of trailers, is seen in whatever form it comes.
#[tokio::test]
async fn what_the_library_does_not_tell() {
    let (app, gw) = gateway_with("").await;
    let with_path = |path: &[u8]| [b"\x82\x86\x41\x01a", path].concat();
    // As it is, kept in the table, from there, compressed, with the name spelled out.
    let fragments: [&[u8]; 5] =
        [b"\x04\x04/a#b", b"\x44\x04/a#b", b"\xbf", b"\x04\x84\x60\x7f\xf5\x1f", b"\x00\x05:path\x04/a#b"];
    let mut raw = connect(&gw).await;
    for (at, path) in fragments.iter().enumerate() {
        let stream = u32::try_from(at * 2 + 1).unwrap();
        raw.send(headers(stream, &with_path(path))).await;
        let frames = end_of(&mut raw, stream).await;
        let body: serde_json::Value = serde_json::from_slice(&frames[1].1).unwrap();
        assert_eq!(body["code"], "request.malformed", "{path:?}");
    }
    assert_eq!(app.requests(), 0);
    raw.send(headers(21, GOOD)).await;
    assert_eq!(end_of(&mut raw, 21).await[0].0, 1);
    for trailers in
        [&b"\x84"[..], b"\x04\x02/x", b"\x00\x05:path\x02/x", b"\x00\x84\xb9\x58\xd3\x3f\x02/x", b"\xbe"]
    {
        let mut raw = connect(&gw).await;
        // The authority goes into the table.
        raw.send(frame(1, END_HEADERS, 1, b"\x83\x86\x84\x41\x01a")).await;
        raw.send(frame(0, 0, 1, b"hello")).await;
        raw.send(frame(1, END_HEADERS | END_STREAM, 1, trailers)).await;
        assert_eq!(goaway(&mut raw).await, 1, "{trailers:?}");
    }
    assert_eq!(app.requests(), 1, "none of them was whole");
}

/// An error that ends the connection is counted there, and leaves a line for the request that was being sent.
#[tokio::test]
async fn errors_of_the_connection() {
    for (what, bytes, code, status, reason) in [
        (
            "an unknown pseudo-header",
            headers(1, &good_with(&[(":x", "y")])),
            "PROTOCOL_ERROR",
            400,
            "request.malformed",
        ),
        (
            "a name in upper case",
            headers(1, &good_with(&[("X-Upper", "1")])),
            "PROTOCOL_ERROR",
            400,
            "request.malformed",
        ),
        (
            "a header block that cannot be decompressed",
            headers(1, b"\xff\xff\xff\xff\xff"),
            "COMPRESSION_ERROR",
            400,
            "request.malformed",
        ),
        (
            "a frame between the pieces of a header block",
            [frame(1, END_STREAM, 1, GOOD), frame(6, 0, 0, &[0; 8])].concat(),
            "PROTOCOL_ERROR",
            400,
            "request.malformed",
        ),
        (
            "pieces without end",
            [frame(1, END_STREAM, 1, GOOD), frame(9, 0, 1, &[]).repeat(50)].concat(),
            "ENHANCE_YOUR_CALM",
            431,
            "request.header_too_large",
        ),
    ] {
        let (_app, gw) = gateway_with("").await;
        let mut raw = connect(&gw).await;
        raw.try_send(bytes).await;
        assert_ne!(goaway(&mut raw).await, 0, "{what}");
        let logged = lines(&gw, 1).await.pop().unwrap();
        assert_eq!(
            (logged["status"].as_u64(), logged["reason"].as_str()),
            (Some(status), Some(reason)),
            "{what}"
        );
        let label = format!("code=\"{code}\"");
        gw.metric_is("edgeward_http2_connection_errors_total", &[&label], 1.0).await;
    }
}

/// An error of the connection with no request on its way is counted and leaves no line.
#[tokio::test]
async fn errors_between_requests_leave_no_line() {
    let (_app, gw) = gateway_with("").await;
    let mut raw = connect(&gw).await;
    raw.send(headers(1, GOOD)).await;
    end_of(&mut raw, 1).await;
    raw.send(frame(8, 0, 0, &[0; 4])).await;
    assert_ne!(goaway(&mut raw).await, 0);
    gw.metric_is("edgeward_http2_connection_errors_total", &["code=\"PROTOCOL_ERROR\""], 1.0).await;
    gw.get("/last").await.expect_status(200);
    lines(&gw, 2).await;
}

/// A client that leaves in the middle of a head, in either protocol; one that says nothing leaves no line.
#[tokio::test]
async fn clients_that_leave_in_the_middle_of_a_head() {
    let (_app, gw) = gateway_with("").await;
    drop(gw.raw().await);
    for blank in ["\r\n", "\r\n\r"] {
        gw.raw().await.send(blank).await.finish_sending().await;
    }
    let mut raw = gw.raw().await;
    raw.send("GET /half HTTP/1.1\r\nHost: x\r\n").await.finish_sending().await;
    raw.closed().await;
    let logged = lines(&gw, 1).await.pop().unwrap();
    assert_eq!((logged["status"].as_u64(), logged["reason"].as_str()), (Some(499), Some("client.closed")));
    let mut raw = connect(&gw).await;
    raw.send(frame(1, END_STREAM, 1, GOOD)).await.finish_sending().await;
    raw.rest().await;
    let logged = lines(&gw, 2).await.pop().unwrap();
    assert_eq!((logged["status"].as_u64(), logged["reason"].as_str()), (Some(499), Some("client.closed")));
    // Connected, agreed on settings, gone: nothing was asked.
    connect(&gw).await.finish_sending().await;
    gw.get("/last").await.expect_status(200);
    lines(&gw, 3).await;
    gw.metric_is("edgeward_http_requests_rejected_total", &["reason=\"client.closed\""], 2.0).await;
}

/// As nginx does, with what came of the request line.
#[tokio::test]
async fn half_a_head_is_logged_with_its_request_line() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    gw.raw().await.send("GET /half HTTP/1.1\r\nHost: x\r\n").await.finish_sending().await;
    assert!(gw.logged("/half").await.contains("\"GET /half HTTP/1.1\" 499 0"));
    gw.raw().await.send("GET /quarter").await.finish_sending().await;
    assert!(gw.logged("/quarter").await.contains("\"GET /quarter\" 499 0"));
}

/// The log says which rule a refused head broke; the client is not told.
#[tokio::test]
async fn the_log_names_the_rule_that_was_broken() {
    let (_app, gw) = gateway_with("").await;
    for (at, (head, rule)) in [
        ("GET / HTTP/1.1\nHost: x\n\n", "a line ends in LF without CR"),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", "a folded header line"),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "Content-Length is repeated",
        ),
    ]
    .iter()
    .enumerate()
    {
        let mut raw = gw.raw().await;
        raw.send(head).await;
        let answer = raw.response().await.expect_problem(400, "request.malformed");
        assert!(!answer.text().contains(rule), "{}", answer.text());
        assert_eq!(lines(&gw, at + 1).await.pop().unwrap()["detail"], *rule);
    }
}

/// A header block that drips is bounded as a whole, as an HTTP/1 head is.
#[tokio::test]
async fn a_header_block_that_never_ends() {
    let (_app, gw) = gateway_with("[limits]\nheader_timeout = \"300ms\"\n").await;
    let mut raw = connect(&gw).await;
    raw.send(frame(1, END_STREAM, 1, GOOD)).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..4 {
        ticks.tick().await;
        raw.try_send(frame(9, 0, 1, &field("x", "y"))).await;
    }
    assert_eq!(goaway(&mut raw).await, 11);
    let logged = lines(&gw, 1).await.pop().unwrap();
    assert_eq!(
        (logged["status"].as_u64(), logged["reason"].as_str()),
        (Some(408), Some("request.header_timeout"))
    );
}

/// A client that holds its body back until it is told to go on is told so (RFC 9110 section 10.1.1).
#[tokio::test]
async fn a_body_that_is_held_back_is_asked_for() {
    let app = RawUpstream::script(|mut peer| async move {
        peer.head().await;
        peer.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        let body = peer.body(5).await;
        assert_eq!(body, b"hello");
        peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").await;
    })
    .await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = connect(&gw).await;
    let block =
        [&b"\x83\x86\x84\x41\x01a"[..], &field("expect", "100-continue"), &field("content-length", "5")]
            .concat();
    raw.send(frame(1, END_HEADERS, 1, &block)).await;
    // Before a byte of the body was sent.
    interim(&mut raw).await;
    raw.send(frame(0, END_STREAM, 1, b"hello")).await;
    let frames = end_of(&mut raw, 1).await;
    assert_eq!(frames[0].0, 1);
    assert_eq!(frames.last().unwrap().1, b"good");
    assert!(app.received_text().contains("hello"));
}

/// Who has no body has nothing to be asked for: the server hears of no expectation, over either version.
#[tokio::test]
async fn an_expectation_without_a_body_is_not_passed_on() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    for (path, client) in [("/one", gw.client()), ("/two", gw.client().http2())] {
        client.get(path).header("expect", "100-continue").await.expect_status(200);
        assert_eq!(app.seen_at(path)[0].header("expect"), None, "{path}");
    }
    let mut raw = connect(&gw).await;
    let expecting = good_with(&[("expect", "100-continue"), ("content-length", "0")]);
    raw.send(frame(1, END_HEADERS, 1, &expecting)).await;
    raw.send(frame(0, END_STREAM, 1, b"")).await;
    end_of(&mut raw, 1).await;
    assert_eq!(app.last().header("expect"), None);
}

/// Waits for HEADERS that end nothing.
async fn interim(raw: &mut RawClient) {
    loop {
        let (kind, flags, _, _) = raw.frame().await.expect("a frame");
        if kind == 1 {
            assert_eq!(flags & END_STREAM, 0, "an interim answer does not end the stream");
            return;
        }
    }
}
