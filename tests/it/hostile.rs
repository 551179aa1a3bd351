//! Services and clients that do not play by the rules: what one does must not reach another.

use std::time::{Duration, Instant};

use crate::support::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

/// A service that answers its first request so, and all others well.
async fn first_then_ok(first: String) -> RawUpstream {
    RawUpstream::script(move |mut peer| {
        let first = first.clone();
        async move {
            let mut reply = if peer.index == 0 { first } else { OK.to_owned() };
            while peer.head().await.is_some() {
                peer.write(reply.as_bytes()).await;
                reply = OK.to_owned();
            }
        }
    })
    .await
}

/// Bytes behind an answer are not the answer to the next request, which may be another client's.
#[tokio::test]
async fn an_answer_nobody_asked_for_is_delivered_to_nobody() {
    for first in [
        format!("{OK}{EVIL}"),
        format!("HTTP/1.1 204 No Content\r\n\r\n{EVIL}"),
        format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n{EVIL}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{EVIL}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{EVIL}"),
    ] {
        let app = first_then_ok(first.clone()).await;
        let gw = in_front_of(&app, "").start().await;
        for _ in 0..4 {
            let answer = gw.get("/").send().await.expect("an answer");
            assert_ne!(answer.text(), "evil", "{first:?}");
        }
    }
}

#[tokio::test]
async fn the_body_of_a_head_answer_is_not_the_next_answer() {
    let app = first_then_ok(EVIL.to_owned()).await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    raw.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    raw.head_response().await.expect_status(200);
    for _ in 0..3 {
        let answer = gw.get("/").send().await.expect("an answer");
        assert!(!answer.text().contains("evil"), "{answer:?}");
    }
}

/// 101 without a question turns no connection into a tunnel.
#[tokio::test]
async fn a_switch_nobody_asked_for_is_refused() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let app = RawUpstream::answering_once(format!("{switch}{EVIL}")).await;
    let gw = in_front_of(&app, "retry = { attempts = 1 }").start().await;
    let mut raw = gw.raw().await;
    raw.send("GET /a HTTP/1.1\r\nHost: localhost\r\n\r\nGET /b HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    if let Some(answer) = raw.response_or_close().await {
        assert!(answer.status >= 500, "{answer:?}");
    }
    gw.get("/c").send().await.ok();
    // What followed is a request of its own at most, never bytes of a tunnel on the first one's connection.
    let first = app.received().remove(0);
    assert!(!String::from_utf8_lossy(&first).contains("GET /b"), "{first:?}");
}

/// Whoever takes nothing is let go after a while, and the service with him.
#[tokio::test]
async fn a_reader_that_takes_nothing_is_let_go() {
    let app = upstream().otherwise(Answer::Zeros(1 << 30)).start().await;
    let gw = in_front_of(&app, "").and("[limits]\nbody_timeout = \"500ms\"\n").start().await;
    let mut raw = gw.raw().await;
    raw.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let began = Instant::now();
    eventually("the service to be let go", async || {
        (app.requests() == 1 && app.open_connections() == 0).then_some(())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(raw);
}

fn frame_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// Headers as literals without an index, not compressed.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Sends a request as HTTP/2 frames on stream 1 and waits for what becomes of it: an answer, a reset, or the end of
/// the connection.
async fn exchange(gw: &Gateway, fields: &[(&str, &str)], body: Option<&[u8]>) {
    let mut raw = gw.raw().await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame_of(4, 0, 0, b""));
    bytes.extend(frame_of(1, if body.is_some() { 4 } else { 5 }, 1, &block(fields)));
    if let Some(body) = body {
        bytes.extend(frame_of(0, 1, 1, body));
    }
    raw.try_send(&bytes).await;
    while let Some((kind, _, stream, _)) = raw.frame().await {
        // HEADERS or RST_STREAM of our stream, or GOAWAY.
        if (stream == 1 && matches!(kind, 1 | 3)) || kind == 7 {
            return;
        }
    }
}

/// Malformed HTTP/2 requests (RFC 9113 section 8.1.1) end their stream or connection and never reach a service.
#[tokio::test]
async fn malformed_http2_requests_reach_nobody() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let good = [(":method", "GET"), (":scheme", "http"), (":path", "/bad"), (":authority", "a")];
    let with = |more: &[(&'static str, &'static str)]| [&good[..], more].concat();
    for fields in [
        with(&[("connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("Upper", "case")]),
        with(&[("x-line", "a\r\nx-smuggled: 1")]),
        with(&[("x-nul", "a\0b")]),
        with(&[("host", "other")]),
        with(&[(":late", "pseudo")]),
        with(&[("te", "gzip")]),
        with(&[("content-length", "5")]),
        with(&[(":path", "/twice")]),
        good[1..].to_vec(),
        vec![(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "a")],
        vec![(":method", "GET"), (":scheme", "http"), (":path", "bad"), (":authority", "a")],
        vec![(":method", "GET"), (":scheme", "http"), (":path", "/bad"), (":authority", "a b")],
        vec![(":method", "G T"), (":scheme", "http"), (":path", "/bad"), (":authority", "a")],
        vec![(":method", "GET"), (":scheme", "http"), (":path", "/bad")],
    ] {
        exchange(&gw, &fields, None).await;
        let seen: Vec<_> = app.seen().iter().map(|seen| format!("{} {:?}", seen.uri, seen.headers)).collect();
        assert!(seen.is_empty(), "{fields:?} reached the service as {seen:?}");
    }
    // The same way of sending, with nothing wrong: these bytes do make a request.
    exchange(&gw, &good, None).await;
    assert_eq!(app.seen_at("/bad").len(), 1);
}

/// A body that is shorter or longer than announced is not a whole request.
#[tokio::test]
async fn http2_bodies_must_have_their_length() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    for body in [&b"abc"[..], b"abcdefgh", b"abcde"] {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/bad"),
            (":authority", "a"),
            ("content-length", "5"),
        ];
        exchange(&gw, &fields, Some(body)).await;
        let expected = usize::from(body.len() == 5);
        assert_eq!(app.requests(), expected, "{body:?}");
    }
}

/// Endless small frames that mean nothing keep nobody busy for long.
#[tokio::test]
async fn floods_of_control_frames_end_the_connection() {
    let gw = gateway("[[routes]]\npath = \"/x\"\nrespond = { status = 200 }\n").start().await;
    let ping = frame_of(6, 0, 0, b"12345678");
    let settings = frame_of(4, 0, 0, b"");
    // CONTINUATION without an end (CVE-2024-27316).
    let endless =
        [frame_of(1, 1, 1, &block(&[(":method", "GET")])), frame_of(9, 0, 1, &[0; 1000]).repeat(2000)]
            .concat();
    for flood in [ping.repeat(100_000), settings.repeat(100_000), endless] {
        let mut raw = gw.raw().await;
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        raw.try_send(frame_of(4, 0, 0, b"")).await;
        // Nobody reads what comes back: the gateway must neither hoard it nor hang.
        let sent = tokio::time::timeout(Duration::from_secs(5), raw.try_send(&flood)).await;
        drop((sent, raw));
        gw.get("/x").await.expect_status(200);
    }
    let resident = gw.resident_bytes();
    assert!(resident < 150 << 20, "{} MiB", resident >> 20);
}

/// What comes from a client must not command the terminal or forge a line of the log.
#[tokio::test]
async fn log_lines_cannot_be_forged() {
    let gw = gateway("[[routes]]\npath = \"/x\"\nrespond = { status = 200 }\n").start().await;
    let mut raw = gw.raw().await;
    let agent = b"GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: \x1b[31m\" 200 0 \"-\" \"forged\r\nReferer: \xff\xfe\r\n\r\n";
    raw.try_send(agent).await;
    raw.response_or_close().await;
    eventually("a line", async || (!gw.access_log().is_empty()).then_some(())).await;
    let lines = gw.access_log();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].bytes().all(|byte| (32..127).contains(&byte)), "{:?}", lines[0]);
    assert!(!lines[0].contains("\" 200 0 \"-\" \"forged"), "{:?}", lines[0]);
}
