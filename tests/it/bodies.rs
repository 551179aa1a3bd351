//! Bodies: streamed both ways, bounded, and never passed off as whole when they are not.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::support::*;

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn chunks_go_both_ways() {
    let app = upstream().on("/back", Answer::EchoBody).start().await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    let chunked = "POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n";
    raw.send(chunked).await;
    let echo = raw.response().await.expect_status(200).json();
    assert_eq!((echo["body"].as_str(), echo["body_len"].as_u64()), (Some("hello world"), Some(11)));
    raw.send(chunked.replace("/x", "/back")).await;
    assert_eq!(raw.response().await.expect_status(200).text(), "hello world");
    raw.still_open("/").await.expect_status(200);
}

/// Each piece of a body must come out as it went in, long before the body ends.
#[tokio::test]
async fn nothing_waits_for_the_whole_body() {
    let app = upstream().on("/back", Answer::EchoBody).start().await;
    let gw = in_front_of(&app, "").start().await;
    let (sender, pieces) = mpsc::channel(1);
    sender.send(Ok(Bytes::from_static(b"one"))).await.unwrap();
    let request = gw.request("POST", "/back").streaming_body(pieces);
    let mut answer = request.stream().await.unwrap();
    assert_eq!(answer.next().await.unwrap(), "one");
    sender.send(Ok(Bytes::from_static(b"two"))).await.unwrap();
    assert_eq!(answer.next().await.unwrap(), "two");
    drop(sender);
    assert_eq!(answer.next().await, None);
}

#[tokio::test]
async fn server_sent_events_arrive_one_by_one() {
    let (feed, answer) = Feed::new("text/event-stream");
    let app = upstream().on("/events", answer).start().await;
    let gw = in_front_of(&app, "").start().await;
    let mut events = gw.get("/events").header("accept", "text/event-stream").stream().await.unwrap();
    for n in 0..3 {
        let event = format!("data: {n}\n\n");
        feed.send(event.clone()).await;
        assert_eq!(events.next().await.unwrap(), event);
    }
    drop(events);
    feed.abandoned().await;
}

#[tokio::test]
async fn large_bodies_take_no_memory() {
    let app = upstream().on("/down", Answer::Zeros(64 * MIB)).start().await;
    let gw = in_front_of(&app, "").and("[defaults]\nbody_bytes = \"100MiB\"\n").start().await;
    gw.get("/").await.expect_status(200);
    let before = gw.resident_bytes();
    assert_eq!(gw.get("/down").stream().await.unwrap().count().await, 64 * MIB);
    let up = gw.request("POST", "/up").any_body(zeros(64 * MIB)).await;
    assert_eq!(up.echo().body_len(), 64 * MIB);
    let up = gw.client().http2().request("POST", "/up").any_body(zeros(64 * MIB)).await;
    assert_eq!(up.echo().body_len(), 64 * MIB);
    let grown = gw.resident_bytes().saturating_sub(before);
    assert!(grown < 24 * MIB, "64 MiB three times took {} KiB of memory", grown / 1024);
}

/// A reader that stops reading must stop the writer, not fill the gateway.
#[tokio::test]
async fn a_slow_reader_slows_the_service_down() {
    let app = upstream().on("/down", Answer::Zeros(256 * MIB)).start().await;
    let gw = in_front_of(&app, "").start().await;
    gw.get("/").await.expect_status(200);
    let before = gw.resident_bytes();
    let mut slow = gw.get("/down").stream().await.unwrap();
    slow.next().await.unwrap();
    // Others are served meanwhile, and memory does not grow.
    for _ in 0..50 {
        gw.get("/").await.expect_status(200);
    }
    let grown = gw.resident_bytes().saturating_sub(before);
    assert!(grown < 24 * MIB, "a stalled download took {} KiB of memory", grown / 1024);
}

#[tokio::test]
async fn expect_100_continue_is_answered_before_the_body() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and("[defaults]\nbody_bytes = \"1KiB\"\n").start().await;
    let mut raw = gw.raw().await;
    raw.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    raw.response().await.expect_status(100);
    raw.send("hello").await;
    assert_eq!(raw.response().await.expect_status(200).json()["body"], "hello");
    // A body that would be refused is not asked for.
    let mut raw = gw.raw().await;
    raw.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n")
        .await;
    raw.response().await.expect_problem(413, "request.body_too_large");
    let mut raw = gw.raw().await;
    raw.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: miracles\r\n\r\n").await;
    raw.response().await.expect_problem(417, "request.expectation_failed");
}

/// A server may answer before it has the whole body. Who has that answer is not waited for.
#[tokio::test]
async fn an_early_answer_ends_the_upload() {
    let early = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    let bare = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    for reply in [early, bare] {
        let app = RawUpstream::answering(reply).await;
        let gw = in_front_of(&app, "").and("[limits]\nbody_timeout = \"10s\"\n").start().await;
        let began = std::time::Instant::now();
        let mut raw = gw.raw().await;
        raw.send("POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf").await;
        let answer = raw.response().await.expect_status(403);
        assert_eq!(answer.header("connection"), Some("close"));
        raw.closed().await;
        assert!(began.elapsed() < std::time::Duration::from_secs(6), "{:?}", began.elapsed());
        let line = gw.logged("/up").await;
        assert!(line.contains("\" 403 "), "{line}");

        let (sender, pieces) = tokio::sync::mpsc::channel(1);
        sender.send(Ok("half".into())).await.unwrap();
        let request = gw.client().http2().request("POST", "/up").streaming_body(pieces);
        request.await.expect_status(403);
    }
}

#[tokio::test]
async fn curl_uploads_with_expect() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "")
        .and("[defaults]\nbody_bytes = \"4MiB\"\n")
        .file("data", &"x".repeat(2 << 20))
        .start()
        .await;
    let data = format!("@{}", gw.directory().join("data").display());
    let url = format!("http://{}/up", gw.address());
    let out = curl(&["--data-binary", &data, "-H", "Expect: 100-continue", &url]).await;
    assert_eq!(out.status, 0, "{}", out.stderr);
    assert!(out.stdout.contains("\"body_len\":2097152"), "{}", out.stdout.len());
}

#[tokio::test]
async fn too_large_bodies_are_413_however_they_are_framed() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and("body_bytes = \"1KiB\"\n").start().await;
    gw.request("POST", "/fits").body(vec![b'x'; 1024]).await.expect_status(200);
    let announced = gw.request("POST", "/announced").body(vec![b'x'; 1025]).await;
    announced.expect_problem(413, "request.body_too_large");
    assert!(app.seen_at("/announced").is_empty(), "the service was asked");
    let mut raw = gw.raw().await;
    raw.send("POST /chunked HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..40 {
        if !raw.try_send(format!("40\r\n{}\r\n", "x".repeat(64))).await {
            break;
        }
    }
    raw.response().await.expect_problem(413, "request.body_too_large");
    let h2 = gw.client().http2().request("POST", "/h2").body(vec![b'x'; 4096]).await;
    h2.expect_problem(413, "request.body_too_large");
    assert_eq!(app.seen_at("/chunked").len(), 0);
}

/// Zero takes the limit away.
#[tokio::test]
async fn the_size_limit_has_three_places() {
    let app = upstream().start().await;
    let gw = gateway(
        r#"
        [limits]
        body_bytes = "100B"
        [upstreams.app]
        servers = ["{app}"]
        [[routes]]
        path = "/*"
        upstream = "app"
        [[routes]]
        path = "/more"
        upstream = "app"
        body_bytes = "200B"
        "#,
    )
    .with("app", &app)
    .start()
    .await;
    for (path, size, status) in [("/x", 100, 200), ("/x", 101, 413), ("/more", 200, 200), ("/more", 201, 413)]
    {
        gw.request("POST", path).body(vec![b'x'; size]).await.expect_status(status);
    }
}

/// A body that breaks off must break off for the client too: never a clean end.
#[tokio::test]
async fn truncated_answers_are_seen_to_be_truncated() {
    let app = upstream()
        .on("/length", Answer::Truncated(1000, Bytes::from_static(b"half")))
        .on("/chunks", Answer::TruncatedChunked(Bytes::from_static(b"half")))
        .start()
        .await;
    let gw = in_front_of(&app, "").start().await;
    for path in ["/length", "/chunks"] {
        let answer = gw.get(path).send().await;
        if let Ok(answer) = answer {
            assert!(answer.broken.is_some() || answer.status == 502, "{path}: looks whole: {answer:?}");
        }
        let mut raw = gw.raw().await;
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        let bytes = String::from_utf8(raw.rest().await).unwrap();
        assert!(!bytes.contains("\r\n0\r\n\r\n"), "{path}: ended cleanly: {bytes}");
        let h2 = gw.client().http2().get(path).send().await;
        assert!(h2.is_err() || h2.is_ok_and(|a| a.broken.is_some() || a.status == 502), "{path} over HTTP/2");
    }
    gw.get("/fine").await.expect_status(200);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let (feed, answer) = Feed::new("text/plain");
    let gate = Gate::new();
    let app = upstream().on("/stream", answer).on("/wait", gate.then(Answer::text("late"))).start().await;
    let gw = in_front_of(&app, "").start().await;
    let mut stream = gw.get("/stream").stream().await.unwrap();
    feed.send("one").await;
    stream.next().await.unwrap();
    drop(stream);
    feed.abandoned().await;
    let mut raw = gw.raw().await;
    raw.send("GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    gate.arrived(1).await;
    drop(raw);
    let line = gw.logged("/wait").await;
    assert!(line.contains("\" 499 "), "{line}");
}

/// A client that stops in the middle of its body must not become a whole request at the service.
#[tokio::test]
async fn a_half_sent_body_is_not_a_request() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let mut raw = gw.raw().await;
        raw.send(format!("POST /half HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n")).await;
        raw.send(if head.contains("chunked") { "4\r\nhalf\r\n" } else { "half" }).await;
        drop(raw);
    }
    eventually("connections to the service to close", async || (app.open_connections() == 0).then_some(()))
        .await;
    assert!(app.seen_at("/half").is_empty(), "{:?}", app.seen_at("/half"));
}

/// Answered before the body was read: the answer arrives, and the connection is not confused by the rest.
#[tokio::test]
async fn an_early_answer_is_passed_on() {
    let app = upstream().on("/no", Answer::Unread(Box::new(Answer::status(401)))).start().await;
    let gw = in_front_of(&app, "").and("body_bytes = \"64MiB\"\n").start().await;
    let answer = gw.request("POST", "/no").any_body(zeros(8 * MIB)).send().await;
    if let Ok(answer) = answer {
        assert_eq!(answer.status, 401);
    }
    gw.get("/fine").await.expect_status(200);
}

#[tokio::test]
async fn requests_without_a_body_have_none() {
    let app = RawUpstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let gw = in_front_of(&app, "").start().await;
    gw.request("POST", "/p").body("").await.expect_status(200);
    gw.request("DELETE", "/d").await.expect_status(200);
    gw.client().http2().get("/g").await.expect_status(200);
    let wire = app.received_text().to_ascii_lowercase();
    assert!(!wire.contains("chunked"), "{wire}");
}

/// An answer that ends with the connection is whole when the connection ends in order.
#[tokio::test]
async fn answers_without_a_length() {
    let app = RawUpstream::answering_once("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end").await;
    let gw = in_front_of(&app, "").start().await;
    let answer = gw.get("/").await.expect_status(200);
    assert_eq!(answer.text(), "until the end");
}
