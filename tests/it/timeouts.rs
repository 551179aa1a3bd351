//! Every wait has a bound, and a bound that passes is told from every other.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::support::*;

/// Asserts that `work` took about `bound`: not less, and not so much more that another bound ended it.
async fn takes<T>(bound: Duration, work: impl IntoFuture<Output = T>) -> T {
    let began = Instant::now();
    let value = work.await;
    let took = began.elapsed();
    assert!(took >= bound.mul_f32(0.9), "{took:?} is less than {bound:?}");
    assert!(took < bound + Duration::from_secs(4), "{took:?} is much more than {bound:?}");
    value
}

const HALF: Duration = Duration::from_millis(500);

/// A hung service: 504 within the time, and nobody else notices.
#[tokio::test]
async fn a_hung_service_is_504_and_others_are_unaffected() {
    let hung = upstream().otherwise(Answer::Hang).start().await;
    let well = upstream().start().await;
    let gw = gateway(
        r#"
        [upstreams.hung]
        servers = ["{hung}"]
        timeouts = { read = "30s" }
        [upstreams.well]
        servers = ["{well}"]
        [[routes]]
        path = "/hung/*"
        upstream = "hung"
        timeout = "500ms"
        [[routes]]
        path = "/well/*"
        upstream = "well"
        "#,
    )
    .with("hung", &hung)
    .with("well", &well)
    .start()
    .await;
    let waiting: Vec<_> = (0..20)
        .map(|n| {
            let request = gw.get(&format!("/hung/{n}"));
            tokio::spawn(takes(HALF, async move { request.await.expect_status(504) }))
        })
        .collect();
    while !waiting.iter().all(|task| task.is_finished()) {
        let began = Instant::now();
        gw.get("/well/x").await.expect_status(200);
        assert!(began.elapsed() < Duration::from_secs(2), "the others waited too");
    }
    for task in waiting {
        task.await.unwrap().expect_problem(504, "request.deadline_exceeded");
    }
}

#[tokio::test]
async fn the_wait_for_a_server_is_bounded_by_read() {
    let app = upstream().otherwise(Answer::Hang).start().await;
    let gw = in_front_of(&app, "timeouts = { read = \"500ms\" }")
        .and("[limits]\nbody_timeout = \"400ms\"\n")
        .start()
        .await;
    takes(HALF, gw.get("/")).await.expect_problem(504, "upstream.timeout");
    // Time-outs are not tried again unless asked for.
    assert_eq!(app.requests(), 1);
}

#[tokio::test]
async fn the_wait_for_a_connection_is_bounded_by_connect() {
    let unreachable = Unreachable::new();
    let settings = "timeouts = { connect = \"500ms\" }\nretry = { attempts = 1 }";
    let gw = in_front_of(&unreachable, settings).start().await;
    takes(HALF, gw.get("/")).await.expect_problem(504, "upstream.connect_timeout");
}

/// The route's time runs to the last byte: a service that drips forever does not get forever.
#[tokio::test]
async fn a_dripping_answer_ends_with_the_routes_time() {
    let (feed, answer) = Feed::new("text/plain");
    let app = upstream().otherwise(answer).start().await;
    let gw = in_front_of(&app, "").and("timeout = \"500ms\"\n").start().await;
    let dripping = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        while feed.send("drip").await {
            ticks.tick().await;
        }
    });
    let answer = takes(HALF, gw.get("/").send()).await.unwrap();
    assert!(answer.broken.is_some(), "it looks whole: {answer:?}");
    within("the service to be let go", dripping).await.unwrap();
}

/// `stream = true` lifts the route's deadline; bodies that move are not timed out.
#[tokio::test]
async fn a_stream_has_no_deadline() {
    let (feed, answer) = Feed::new("text/plain");
    let app = upstream().otherwise(answer).start().await;
    let gw = in_front_of(&app, "timeouts = { read = \"300ms\" }")
        .and("stream = true\n[limits]\nrequest_timeout = \"300ms\"\nbody_timeout = \"200ms\"\n")
        .start()
        .await;
    let mut answer = gw.get("/").stream().await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(700));
    ticks.tick().await;
    for _ in 0..2 {
        feed.send("piece").await;
        assert_eq!(answer.next().await.unwrap(), "piece");
        ticks.tick().await;
    }
    drop(feed);
    assert_eq!(answer.next().await, None);
}

#[tokio::test]
async fn an_answer_that_falls_silent_is_cut_by_read() {
    let (feed, answer) = Feed::new("application/octet-stream");
    let app = upstream().otherwise(answer).start().await;
    let gw = in_front_of(&app, "timeouts = { read = \"500ms\" }")
        .and("[limits]\nbody_timeout = \"400ms\"\n")
        .start()
        .await;
    let mut answer = gw.get("/").stream().await.unwrap();
    feed.send("first").await;
    assert_eq!(answer.next().await.unwrap(), "first");
    let end = takes(HALF.mul_f32(0.8), answer.try_next()).await;
    assert!(end.is_err(), "it looks whole: {end:?}");
}

/// However it drips, the whole head has `header_timeout`.
#[tokio::test]
async fn a_dripping_head_is_408() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and("[limits]\nheader_timeout = \"600ms\"\n").start().await;
    let mut raw = gw.raw().await;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let began = Instant::now();
    raw.send("GET / HTTP/1.1\r\nHost: localhost\r\n").await;
    while began.elapsed() < Duration::from_millis(900) {
        ticks.tick().await;
        if !raw.try_send("X-Drip: 1\r\n").await {
            break;
        }
    }
    if let Some(answer) = raw.response_or_close().await {
        answer.expect_problem(408, "request.header_timeout");
    }
    gw.get("/fine").await.expect_status(200);
    assert!(app.seen().iter().all(|seen| seen.uri.path() == "/fine"));
}

/// A connection that never says anything gets no answer, just an end.
#[tokio::test]
async fn silence_before_the_first_byte_is_only_closed() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "")
        .and("[limits]\nheader_timeout = \"500ms\"\nidle_timeout = \"500ms\"\n")
        .start()
        .await;
    let mut raw = gw.raw().await;
    takes(HALF, raw.closed()).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_idle_timeout() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and("[limits]\nidle_timeout = \"500ms\"\n").start().await;
    let mut raw = gw.raw().await;
    raw.get("/").await.expect_status(200);
    takes(HALF, raw.closed()).await;
    // Line ends behind a body are no beginning of a request (RFC 9112 section 2.2).
    for behind in ["\r\n", "\r\n\r\n\r\n"] {
        let mut raw = gw.raw().await;
        raw.get("/").await.expect_status(200);
        raw.send(behind).await;
        takes(HALF, raw.closed()).await;
    }
    assert!(!gw.access_log().iter().any(|line| line.contains(" 408 ")), "{:#?}", gw.access_log());
    let h2 = gw.client().http2().connect().await;
    h2.get("/").await.expect_status(200);
    takes(HALF.mul_f32(0.8), h2.closed()).await;
}

#[tokio::test]
async fn a_client_that_falls_silent_in_its_body_is_408() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and("[limits]\nbody_timeout = \"500ms\"\n").start().await;
    let mut raw = gw.raw().await;
    raw.send("POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf").await;
    let answer = takes(HALF, raw.response_or_close()).await.expect("an answer");
    answer.expect_problem(408, "request.body_timeout");
    raw.closed().await;
    assert!(app.seen_at("/slow").is_empty());
    let line = gw.logged("/slow").await;
    assert!(line.contains("\" 408 "), "{line}");
}

/// The streams of an HTTP/2 connection have the same bounds, and answers when they end.
#[tokio::test]
async fn an_http2_client_that_falls_silent_in_its_body_is_408() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and("[limits]\nbody_timeout = \"500ms\"\n").start().await;
    let connection = gw.client().http2().connect().await;
    let (sender, pieces) = mpsc::channel(1);
    sender.send(Ok(Bytes::from_static(b"half"))).await.unwrap();
    let request = connection.request("POST", "/slow").streaming_body(pieces);
    takes(HALF, request).await.expect_problem(408, "request.body_timeout");
    assert!(app.seen_at("/slow").is_empty());
    connection.get("/fine").await.expect_status(200);
    drop(sender);
}

#[tokio::test]
async fn a_hung_service_is_504_over_http2_too() {
    let app = upstream().otherwise(Answer::Hang).start().await;
    let gw = in_front_of(&app, "").and("timeout = \"500ms\"\n").start().await;
    let connection = gw.client().http2().connect().await;
    for accept in ["*/*", "text/event-stream"] {
        let request = connection.get("/").header("accept", accept);
        takes(HALF, request).await.expect_problem(504, "request.deadline_exceeded");
    }
}

/// A body that the server does not take is the server's silence, not the client's.
#[tokio::test]
async fn a_server_that_takes_no_body_is_504() {
    let app = RawUpstream::script(|mut peer| async move {
        peer.head().await;
        std::future::pending().await
    })
    .await;
    let gw = in_front_of(&app, "timeouts = { read = \"900ms\", write = \"300ms\" }")
        .and("[limits]\nbody_timeout = \"800ms\"\nbody_bytes = \"1GiB\"\n")
        .start()
        .await;
    let mut raw = gw.raw().await;
    raw.send("POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n").await;
    let mut ended = false;
    for _ in 0..10_000 {
        ended = !raw.try_send([b'x'; 10_000]).await;
        if ended {
            break;
        }
    }
    assert!(ended, "all of it was taken");
    let line = gw.logged("/slow").await;
    assert!(line.contains("\" 504 "), "{line}");
}

/// Whoever notices first that the time is over: it was the server that was silent.
#[tokio::test]
async fn a_deadline_counts_against_the_silent_server() {
    let app = upstream().otherwise(Answer::Hang).start().await;
    let settings = "[upstreams.app.circuit_breaker]\nfailures = 2\nopen_for = \"1h\"";
    let gw = in_front_of(&app, settings).and("timeout = \"200ms\"\n").start().await;
    for _ in 0..2 {
        gw.get("/").await.expect_problem(504, "request.deadline_exceeded");
    }
    gw.get("/").await.expect_problem(503, "upstream.circuit_open");
}

/// A slow client must never make a server look bad.
#[tokio::test]
async fn a_slow_client_does_not_count_against_the_server() {
    let app = upstream().start().await;
    let settings =
        "timeouts = { read = \"900ms\" }\n[upstreams.app.circuit_breaker]\nfailures = 1\nopen_for = \"1h\"";
    let gw = in_front_of(&app, settings).and("[limits]\nbody_timeout = \"500ms\"\n").start().await;
    for _ in 0..2 {
        let mut raw = gw.raw().await;
        raw.send("POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf").await;
        raw.response_or_close().await;
    }
    gw.get("/").await.expect_status(200);
}

/// The default bound of a request without a route time: first byte to first byte.
#[tokio::test]
async fn request_timeout_bounds_the_wait_for_the_first_byte_only() {
    let (feed, answer) = Feed::new("text/plain");
    let app = upstream().on("/hang", Answer::Hang).on("/long", answer).start().await;
    let gw = in_front_of(&app, "").and("[limits]\nrequest_timeout = \"500ms\"\n").start().await;
    takes(HALF, gw.get("/hang")).await.expect_problem(504, "request.deadline_exceeded");
    let mut answer = gw.get("/long").stream().await.unwrap();
    feed.send("a").await;
    answer.next().await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(900));
    ticks.tick().await;
    ticks.tick().await;
    feed.send("b").await;
    assert_eq!(answer.next().await.unwrap(), Bytes::from_static(b"b"));
}

/// Attempts do not add up: all of them together have the one time of the request.
#[tokio::test]
async fn retries_share_the_requests_time() {
    let app = upstream().otherwise(Answer::Hang).start().await;
    let settings =
        "timeouts = { read = \"300ms\" }\nretry = { attempts = 10, on = [\"timeout\"], budget = \"100%\" }";
    let gw = in_front_of(&app, settings)
        .and("timeout = \"700ms\"\n[limits]\nbody_timeout = \"200ms\"\n")
        .start()
        .await;
    let began = Instant::now();
    gw.get("/").await.expect_status(504);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(app.requests() <= 4, "{}", app.requests());
}

/// What a client says that it waits for lifts nothing: before the head of an answer `read` holds.
#[tokio::test]
async fn nobody_lifts_read_by_a_header() {
    let app = upstream().otherwise(Answer::Hang).start().await;
    for settings in ["timeouts = { read = \"500ms\" }", "http2 = true\ntimeouts = { read = \"500ms\" }"] {
        let gw = in_front_of(&app, settings).and("[limits]\nbody_timeout = \"400ms\"\n").start().await;
        for client in [gw.client(), gw.client().http2()] {
            let request = client.get("/").header("accept", "text/event-stream");
            takes(HALF, request).await.expect_problem(504, "upstream.timeout");
            let request = client.request("POST", "/").header("accept", "text/event-stream").body("x");
            takes(HALF, request).await.expect_problem(504, "upstream.timeout");
        }
        let request = gw.request("POST", "/").header("content-type", "application/grpc").body("x");
        takes(HALF, request).await.expect_status(504);
    }
}

/// An answer that is a stream of events may pause for `stream_idle` from its head on, and no longer.
#[tokio::test]
async fn streams_of_events_may_pause() {
    for (settings, accept) in
        [("", "*/*"), ("", "text/event-stream"), ("http2 = true\n", "text/event-stream")]
    {
        for (http2, method) in [(false, "GET"), (false, "POST"), (true, "GET"), (true, "POST")] {
            let (feed, events) = Feed::new("text/event-stream");
            let app = upstream().otherwise(events).start().await;
            let gw = in_front_of(&app, &format!("{settings}timeouts = {{ read = \"300ms\" }}"))
                .and("[limits]\nstream_idle = \"2s\"\nbody_timeout = \"200ms\"\n")
                .start()
                .await;
            let client = if http2 { gw.client().http2() } else { gw.client() };
            let request = client.request(method, "/").header("accept", accept);
            let request = if method == "POST" { request.body("question") } else { request };
            let mut answer = request.stream().await.unwrap();
            let mut ticks = tokio::time::interval(Duration::from_millis(700));
            ticks.tick().await;
            for _ in 0..2 {
                ticks.tick().await;
                feed.send("data: x\n\n").await;
                assert_eq!(
                    answer.next().await.unwrap(),
                    "data: x\n\n",
                    "{settings} {accept} {http2} {method}"
                );
            }
            let end = takes(Duration::from_secs(2), answer.try_next()).await;
            assert!(end.is_err(), "it looks whole: {end:?}");
        }
    }
}
