//! Bad input: every malformed request gets its 4xx, is logged and counted, and leaves the process in a known state.

use crate::support::*;

async fn strict() -> (Upstream, Gateway) {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "")
        .and("[limits]\nheader_bytes = \"8KiB\"\nheader_timeout = \"2s\"\n")
        .start()
        .await;
    (app, gw)
}

/// Sends each, and asserts its status and code, that the connection is closed, and that nothing reached the service.
async fn refused(cases: &[(&str, u16, &str)]) {
    let (app, gw) = strict().await;
    for (bytes, status, code) in cases {
        let mut raw = gw.raw().await;
        raw.try_send(bytes).await;
        let answer = raw.response_or_close().await.unwrap_or_else(|| panic!("no answer to {bytes:?}"));
        assert_eq!(answer.status, *status, "{bytes:?}: {}", answer.text());
        assert_eq!(answer.json()["code"], *code, "{bytes:?}");
        // Either closed, or in order: then nothing more comes of it.
        raw.finish_sending().await;
        raw.closed().await;
    }
    let seen: Vec<_> = app.seen().iter().map(|seen| format!("{} {}", seen.method, seen.uri)).collect();
    assert!(seen.is_empty(), "these reached the service: {seen:?}");
    eventually("each to be logged", async || (gw.access_log().len() >= cases.len()).then_some(())).await;
    assert_eq!(gw.access_log().len(), cases.len(), "{:#?}", gw.access_log());
    gw.get("/fine").await.expect_status(200);
    gw.stop().await;
}

/// Requests whose end two parsers could see in different places (RFC 9112 section 6.3).
#[tokio::test]
async fn ambiguous_framing() {
    let malformed = "request.malformed";
    refused(&[
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\nhello!", 400, malformed),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
            400,
            malformed,
        ),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\nhello", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\nhello", 400, malformed),
        ("POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, malformed),
    ])
    .await;
}

#[tokio::test]
async fn broken_heads() {
    let malformed = "request.malformed";
    refused(&[
        ("\x00\x01\x02\x03\r\n\r\n", 400, malformed),
        ("GET\r\n\r\n", 400, malformed),
        ("GET /\r\n\r\n", 400, malformed),
        ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400, malformed),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400, malformed),
        ("GET / http/1.1\r\nHost: x\r\n\r\n", 400, malformed),
        ("G(T / HTTP/1.1\r\nHost: x\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1\r\nHost: x\r\n: empty\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1\r\nHost: x\r\nBad name: 1\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n folded\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1\nHost: x\n\n", 400, malformed),
        ("GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400, malformed),
        (" GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, malformed),
        ("GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n", 400, malformed),
    ])
    .await;
}

#[tokio::test]
async fn hosts_that_are_missing_repeated_or_nonsense() {
    let host = "request.bad_host";
    refused(&[
        ("GET / HTTP/1.1\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: a:port\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, host),
        ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, host),
    ])
    .await;
}

#[tokio::test]
async fn paths_that_mean_nothing() {
    let path = "request.bad_path";
    refused(&[
        ("GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400, path),
        ("GET /% HTTP/1.1\r\nHost: x\r\n\r\n", 400, path),
        ("GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400, path),
        ("GET /../x HTTP/1.1\r\nHost: x\r\n\r\n", 400, path),
    ])
    .await;
}

#[tokio::test]
async fn heads_that_are_too_large() {
    let long = "x".repeat(9000);
    let many: String = (0..2000).map(|n| format!("X{n}: y\r\n")).collect();
    refused(&[
        (&format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 414, "request.uri_too_long"),
        (&format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"), 431, "request.header_too_large"),
        (&format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"), 431, "request.header_too_large"),
    ])
    .await;
}

#[tokio::test]
async fn methods_that_are_not_for_a_gateway() {
    refused(&[(
        "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
        501,
        "request.method_unsupported",
    )])
    .await;
}

/// Bodies that stop making sense after a good head: the request fails, and nothing after it is taken for a request.
#[tokio::test]
async fn broken_chunks_end_the_connection() {
    for body in [
        "zz\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5 ;\r\nhello\r\n0\r\nBad Trailer\r\n\r\n",
    ] {
        let (app, gw) = strict().await;
        let mut raw = gw.raw().await;
        let after = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
        raw.try_send(format!(
            "POST /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}{after}"
        ))
        .await;
        if let Some(answer) = raw.response_or_close().await {
            assert_eq!(answer.status, 400, "{body:?}: {}", answer.text());
        }
        raw.rest().await;
        eventually("the service's connections to end", async || (app.open_connections() == 0).then_some(()))
            .await;
        assert!(app.seen().is_empty(), "{body:?}: {:?}", app.seen());
        gw.get("/fine").await.expect_status(200);
    }
}

/// A body that was answered without being read must not be read as the next request.
#[tokio::test]
async fn an_unread_body_is_not_the_next_request() {
    let (app, gw) = strict().await;
    let gw2 = in_front_of(&app, "").and("body_bytes = \"10B\"\n").start().await;
    for gw in [&gw, &gw2] {
        let mut raw = gw.raw().await;
        let inner = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
        let outer =
            format!("POST /outer HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{inner}", inner.len());
        raw.send(&outer).await;
        raw.response().await;
        raw.try_send("GET /next HTTP/1.1\r\nHost: x\r\n\r\n").await;
        if let Some(answer) = raw.response_or_close().await {
            answer.expect_status(200);
        }
    }
    assert!(app.seen_at("/smuggled").is_empty());
}

/// These are odd but right, and must work.
#[tokio::test]
async fn odd_requests_that_are_valid() {
    let (app, gw) = strict().await;
    for (bytes, target) in [
        ("\r\nGET /blank-line-before HTTP/1.1\r\nHost: x\r\n\r\n", "/blank-line-before"),
        ("GET http://x/absolute?q HTTP/1.1\r\nHost: x\r\n\r\n", "/absolute?q"),
        ("GET /empty-host HTTP/1.1\r\nHost:x\r\nX:\r\n\r\n", "/empty-host"),
        ("GET /same-lengths HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "/same-lengths"),
        ("GET /query?a[]=1&b={}|\\^` HTTP/1.1\r\nHost: x\r\n\r\n", ""),
        ("M-SEARCH /method HTTP/1.1\r\nHost: x\r\n\r\n", "/method"),
    ] {
        let mut raw = gw.raw().await;
        raw.send(bytes).await;
        let answer = raw.response().await;
        if target.is_empty() {
            assert!([200, 400].contains(&answer.status), "{bytes:?}");
        } else {
            assert_eq!(answer.expect_status(200).json()["target"], target, "{bytes:?}");
        }
    }
    assert!(app.requests() >= 5);
}

/// Anything at all on a connection: the process lives, and serves the next one.
#[tokio::test]
async fn rubbish_harms_nobody() {
    let (_app, gw) = strict().await;
    // A fixed generator: the same rubbish every time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for round in 0..120 {
        let length = (next() % 300) as usize + 1;
        let mut bytes: Vec<u8> = (0..length).map(|_| next() as u8).collect();
        match round % 4 {
            0 => {}
            1 => bytes = [b"GET / HTTP/1.1\r\n".to_vec(), bytes].concat(),
            2 => bytes = [preface.clone(), bytes].concat(),
            _ => bytes = [preface.clone(), b"\0\0\0\x04\0\0\0\0\0".to_vec(), bytes].concat(),
        }
        let mut raw = gw.raw().await;
        raw.try_send(&bytes).await;
        drop(raw);
    }
    gw.get("/fine").await.expect_status(200);
    gw.stop().await;
}

/// More connections than allowed wait or are refused; those that are in are served.
#[tokio::test]
async fn the_number_of_connections_is_bounded() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and("[limits]\nconnections = 10\n").start().await;
    let mut inside = Vec::new();
    for _ in 0..10 {
        let mut raw = gw.raw().await;
        raw.get("/in").await.expect_status(200);
        inside.push(raw);
    }
    let mut extra = gw.raw().await;
    extra.try_send("GET /extra HTTP/1.1\r\nHost: x\r\n\r\n").await;
    for raw in &mut inside {
        raw.get("/still").await.expect_status(200);
    }
    assert!(app.seen_at("/extra").is_empty(), "the eleventh was let in");
    drop(inside);
    eventually("room again", async || {
        gw.get("/room").send().await.is_ok_and(|answer| answer.status == 200).then_some(())
    })
    .await;
}
