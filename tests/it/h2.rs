//! HTTP/2 from clients: by prior knowledge and by ALPN, many requests at once, trailers.

use bytes::Bytes;
use http::HeaderMap;

use crate::support::*;

#[tokio::test]
async fn both_protocols_share_a_port() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let h2 = gw.client().http2().get("/two?x=1").host("api.example.com").await;
    assert_eq!(h2.version, http::Version::HTTP_2);
    let echo = h2.echo();
    assert_eq!((echo.target(), echo.host().as_str()), ("/two?x=1", "api.example.com"));
    assert_eq!(echo.version(), "HTTP/1.1", "the service is asked in HTTP/1.1 unless http2 = true");
    assert_eq!(echo.header("x-forwarded-host").as_deref(), Some("api.example.com"));
    assert_eq!(gw.get("/one").await.version, http::Version::HTTP_11);
    let out =
        curl(&["--http2-prior-knowledge", &format!("http://{}/c", gw.address()), "-w", "%{http_version}"])
            .await;
    assert!(out.stdout.ends_with("}2"), "{}", out.stdout);
}

#[tokio::test]
async fn a_slow_stream_does_not_hold_others_up() {
    let gate = Gate::new();
    let app = upstream().on("/slow", gate.then(Answer::text("late"))).start().await;
    let gw = in_front_of(&app, "").start().await;
    let connection = gw.client().http2().connect().await;
    let slow = tokio::spawn({
        let connection = connection.clone();
        async move { connection.get("/slow").await }
    });
    gate.arrived(1).await;
    let quick: Vec<_> = (0..50).map(|n| connection.get(&format!("/{n}"))).collect();
    for (n, request) in quick.into_iter().enumerate() {
        assert_eq!(request.await.echo().target(), format!("/{n}"));
    }
    gate.open();
    assert_eq!(slow.await.unwrap().text(), "late");
}

#[tokio::test]
async fn a_hundred_at_once() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let connection = gw.client().http2().connect().await;
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let connection = connection.clone();
            tokio::spawn(async move { connection.get(&format!("/{n}")).await.echo().target().to_owned() })
        })
        .collect();
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), format!("/{n}"));
    }
}

#[tokio::test]
async fn trailers_pass_over_http2() {
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "42".parse().unwrap())]);
    let answer = Answer::Trailers(Fixed::new(200, Bytes::from_static(b"data")), trailers);
    let app = upstream().on("/sum", answer).start().await;
    let gw = in_front_of(&app, "http2 = true").start().await;
    let answer = gw.client().http2().get("/sum").header("te", "trailers").await.expect_status(200);
    assert_eq!(answer.text(), "data");
    assert_eq!(answer.trailers.expect("trailers")["x-sum"], "42");
}

#[tokio::test]
async fn the_service_may_speak_http2_too() {
    let app = upstream().on("/back", Answer::EchoBody).start().await;
    let gw = in_front_of(&app, "http2 = true").start().await;
    let echo = gw.get("/x").host("api.example.com").await.echo();
    assert_eq!((echo.version(), echo.host().as_str()), ("HTTP/2.0", "api.example.com"));
    let back = gw.request("POST", "/back").body(vec![b'x'; 300_000]).await.expect_status(200);
    assert_eq!(back.body.len(), 300_000);
}

/// Every client must be able to tell half an answer from a whole one.
#[tokio::test]
async fn half_an_answer_does_not_look_whole() {
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let app = RawUpstream::answering_once(chunks).await;
    let gw = in_front_of(&app, "retry = { attempts = 1 }").start().await;
    let answer = gw.client().http2().get("/").send().await;
    assert!(answer.as_ref().map_or(true, |answer| answer.broken.is_some()), "{answer:?}");
    let out =
        curl(&["--http2-prior-knowledge", "-o", "/dev/null", &format!("http://{}/c", gw.address())]).await;
    assert_ne!(out.status, 0, "{}", out.stderr);
}

/// HTTP/2 clients may split their cookies (RFC 9113 section 8.2.3); services of HTTP/1 expect one header.
#[tokio::test]
async fn split_cookies_are_joined() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let request = gw.client().http2().get("/").header("cookie", "a=1").header("cookie", "b=2");
    assert_eq!(request.await.echo().header("cookie").as_deref(), Some("a=1; b=2"));
}

#[tokio::test]
async fn a_listener_can_do_without_http2() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "")
        .and("[[listeners]]\nname = \"main\"\naddress = \"127.0.0.1:0\"\nhttp2 = false\n")
        .start()
        .await;
    gw.get("/").await.expect_status(200);
    let attempt = gw.client().http2().get("/").send().await;
    assert!(attempt.is_err() || attempt.is_ok_and(|answer| answer.status >= 400), "it spoke HTTP/2");
    gw.get("/").await.expect_status(200);
}

#[tokio::test]
async fn errors_over_http2_are_the_same_documents() {
    let gw = gateway("[[routes]]\npath = \"/x\"\nmethods = [\"POST\"]\nrespond = { status = 200 }\n")
        .start()
        .await;
    let connection = gw.client().http2().connect().await;
    connection.get("/nowhere").await.expect_problem(404, "route.not_found");
    let refused = connection.get("/x").await.expect_problem(405, "route.method_not_allowed");
    assert_eq!(refused.header("allow"), Some("POST"));
    connection.request("POST", "/x").await.expect_status(200);
}

/// Opening and resetting streams without end (CVE-2023-44487) must not keep anybody busy.
#[tokio::test]
async fn a_flood_of_resets_ends_the_connection_and_nothing_else() {
    let gate = Gate::new();
    let app = upstream().on("/slow", gate.then(Answer::text("late"))).start().await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // HPACK: GET, http, "/" and the authority "a" from the static table.
    let block = b"\x82\x86\x84\x41\x01a";
    for stream in 0..5_000_u32 {
        let id = (stream * 2 + 1).to_be_bytes();
        bytes.extend_from_slice(&[0, 0, block.len() as u8, 1, 5]);
        bytes.extend_from_slice(&id);
        bytes.extend_from_slice(block);
        bytes.extend_from_slice(b"\0\0\x04\x03\0");
        bytes.extend_from_slice(&id);
        bytes.extend_from_slice(&8_u32.to_be_bytes());
    }
    raw.try_send(bytes).await;
    // The connection is ended: GOAWAY, then closed.
    raw.rest().await;
    gw.get("/fine").await.expect_status(200);
    assert!(app.requests() < 1000, "{} of the 5000 reset requests were passed on", app.requests());
}

/// A stream that is refused before it becomes a request is counted and logged like one.
#[tokio::test]
async fn malformed_streams_are_counted_and_leave_the_others_alone() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let connection = gw.client().http2().connect().await;
    let doubled = connection.get("/twice").header("host", "a").header("host", "b").send().await;
    assert!(doubled.is_err() || doubled.is_ok_and(|answer| answer.status == 400), "it was passed on");
    connection.get("/fine").await.expect_status(200);
    assert!(gw.logged(" 400 ").await.contains("127.0.0.1"));
    gw.metric_is("edgeward_http_requests_total", &["code=\"400\""], 1.0).await;
    assert_eq!(app.requests(), 1);
}

#[tokio::test]
async fn too_many_http2_fields_are_refused() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and("[limits]\nheader_bytes = \"1MiB\"\n").start().await;
    let connection = gw.client().http2().connect().await;
    let with = |count: usize| {
        (0..count).fold(connection.get("/"), |request, n| request.header("x-many", &n.to_string()))
    };
    with(80).await.expect_status(200);
    with(300).await.expect_problem(431, "request.header_too_large");
    let flood = with(23_000).send().await;
    assert!(flood.is_err() || flood.is_ok_and(|answer| answer.status == 431), "it was passed on");
    assert_eq!(app.requests(), 1);
    gw.client().http2().get("/").await.expect_status(200);
}

#[tokio::test]
async fn oversized_http2_headers_are_refused() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and("[limits]\nheader_bytes = \"8KiB\"\n").start().await;
    let connection = gw.client().http2().connect().await;
    let answer = connection.get("/").header("x-big", &"x".repeat(12_000)).send().await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 431), "it was passed on");
    assert_eq!(app.requests(), 0);
    gw.client().http2().get("/").await.expect_status(200);
}
