//! `response.envelope`: JSON answers in one shape, over every way through the gateway; all else as it is.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::support::*;

const ROUTES: &str = r#"
[defaults.response]
envelope = true
envelope_bytes = "64KiB"
set = { "X-Frame-Options" = "DENY" }
[[routes]]
path = "/api/*"
upstream = "app"
[[routes]]
path = "/plain/*"
upstream = "app"
rewrite = { prefix = "/plain", to = "/api" }
response = { envelope = false }
[[routes]]
path = "/fixed"
respond = { status = 201, json = { a = 1.50 } }
[[routes]]
path = "/text"
respond = { status = 200, text = "hello" }
[[routes]]
path = "/gone"
upstream = "gone"
[[routes]]
path = "/both/*"
[routes.aggregate]
[[routes.aggregate.legs]]
name = "one"
upstream = "app"
path = "/api/{path.rest}"
"#;

async fn app(tls: Option<&Identity>) -> Upstream {
    let builder = match tls {
        Some(identity) => upstream().tls(identity),
        None => upstream(),
    };
    builder
        .on(
            "/api/users",
            typed("application/json; charset=utf-8", r#"{ "id": 12345678901234567890.10 }"#)
                .header("etag", "\"v1\"")
                .header("accept-ranges", "bytes"),
        )
        .on("/api/missing", Answer::sequence([Answer::json(json!({ "error": "none" }))]))
        .on("/api/empty", typed("application/json", ""))
        .on("/api/page", typed("text/html", "<p>").header("etag", "\"v1\""))
        .on("/api/same", Answer::status(304).header("etag", "\"v1\""))
        .on("/api/nothing", Answer::status(204))
        .on("/api/liar", typed("application/json", "1,\"status\":2"))
        .on("/api/trailed", trailed("[1]"))
        .on("/api/trailed-liar", trailed("[1"))
        .on("/api/zipped", Answer::json(json!({})).header("content-encoding", "gzip"))
        .on("/api/long", Answer::json(json!("x".repeat(70_000))))
        .start()
        .await
}

async fn gateway_for(app: &Upstream, more: &str) -> Gateway {
    let dead = DeadPort::new();
    gateway(&format!(
        "[upstreams.app]\nservers = [\"{{app}}\"]\n{more}\n[upstreams.gone]\nservers = [\"{{dead}}\"]\n\
         fallback = {{ status = 200, json = {{ degraded = true }} }}\n{ROUTES}"
    ))
    .with("app", app)
    .with("dead", &dead)
    .start()
    .await
}

fn check(value: &Value, status: u16, data: &Value, path: &str) {
    let members: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(members, ["status", "data", "timestamp", "path"]);
    assert_eq!((&value["status"], &value["data"], &value["path"]), (&json!(status), data, &json!(path)));
    let timestamp: jiff::Timestamp = value["timestamp"].as_str().unwrap().parse().unwrap();
    assert!((jiff::Timestamp::now().as_second() - timestamp.as_second()).abs() < 60);
}

/// What holds over every way: by HTTP/1.1 and HTTP/2, from servers with and without TLS.
async fn holds(gw: &Gateway, app: &Upstream, client: impl Fn() -> Client) {
    let get = |path: &str| client().get(path);
    let answer = get("/api/users?token=x")
        .header("accept-encoding", "gzip")
        .header("range", "bytes=0-3")
        .header("if-range", "\"v1\"")
        .await
        .expect_status(200);
    assert!(answer.text().contains(r#""data":{ "id": 12345678901234567890.10 },"#), "{}", answer.text());
    check(&answer.json(), 200, &answer.json()["data"], "/api/users");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("etag"), Some("W/\"v1\""));
    assert_eq!((answer.header("accept-ranges"), answer.header("x-frame-options")), (None, Some("DENY")));
    let seen = app.last();
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
    assert_eq!((seen.header("range"), seen.header("if-range")), (None, None));
    // No body, no envelope; but what is said of it holds for both.
    let head = client().request("HEAD", "/api/users").await.expect_status(200);
    assert_eq!((head.header("etag"), head.header("content-length")), (Some("W/\"v1\""), None));
    let same = get("/api/same").header("if-none-match", "W/\"v1\"").await.expect_status(304);
    assert_eq!(same.header("etag"), Some("W/\"v1\""));
    assert_eq!(get("/api/nothing").await.expect_status(204).text(), "");
    check(&get("/api/trailed").await.expect_status(200).json(), 200, &json!([1]), "/api/trailed");
    assert!(comes_to_nothing(get("/api/trailed-liar").send().await));
    // What is no JSON is nobody's.
    let page = get("/api/page").await.expect_status(200);
    assert_eq!((page.text().as_str(), page.header("etag")), ("<p>", Some("\"v1\"")));
    assert_eq!(get("/plain/users").await.text(), r#"{ "id": 12345678901234567890.10 }"#);
    assert_eq!(app.last().header("accept-encoding"), None);
    // What the gateway itself says.
    check(&get("/fixed").await.expect_status(201).json(), 201, &json!({ "a": 1.5 }), "/fixed");
    assert_eq!(get("/text").await.text(), "hello");
    check(&get("/gone").await.expect_status(200).json(), 200, &json!({ "degraded": true }), "/gone");
    let both = get("/both/users").await.expect_status(200);
    assert!(both.text().contains(r#""data":{"id":12345678901234567890.10},"#), "{}", both.text());
    assert_eq!(both.header("x-edgeward-completed"), Some("true"));
    // Its errors are not.
    get("/nowhere").await.expect_problem(404, "route.not_found");
    get("/both/page").await.expect_problem(502, "aggregate.nothing_answered");
    // What is known by the head ends before it.
    get("/api/zipped").await.expect_problem(502, "upstream.bad_response");
    get("/api/long").await.expect_problem(502, "upstream.bad_response");
    let line = gw.logged("/api/long").await;
    assert!(line.contains(" 502 "), "{line}");
}

#[tokio::test]
async fn json_answers_get_one_shape_over_http_1() {
    let app = app(None).await;
    let gw = gateway_for(&app, "").await;
    holds(&gw, &app, || gw.client()).await;
    // Here a body is seen whole before anything is said of it.
    gw.get("/api/liar").await.expect_problem(502, "upstream.bad_response");
    check(&gw.get("/api/empty").await.expect_status(200).json(), 200, &Value::Null, "/api/empty");
    app.on("/api/users", Answer::status(404).header("content-type", "application/json"));
    check(&gw.get("/api/users").await.expect_status(404).json(), 404, &Value::Null, "/api/users");
}

#[tokio::test]
async fn json_answers_get_one_shape_over_http_2() {
    let app = app(None).await;
    let gw = gateway_for(&app, "").await;
    holds(&gw, &app, || gw.client().http2()).await;
    assert!(comes_to_nothing(gw.client().http2().get("/api/liar").send().await));
    let (feed, answer) = Feed::new("application/json");
    app.on("/api/late", answer);
    feed.send("1,").await;
    let late = gw.client().http2().get("/api/late");
    let late = tokio::spawn(async move { late.await });
    feed.send("\"status\":2").await;
    drop(feed);
    late.await.unwrap().expect_problem(502, "upstream.bad_response");
    let empty = gw.client().http2().get("/api/empty").await.expect_status(200);
    check(&empty.json(), 200, &Value::Null, "/api/empty");
}

#[tokio::test]
async fn json_answers_of_http_2_and_tls_servers_get_one_shape() {
    let authority = Authority::new();
    let app = app(Some(&authority.server(&["app.internal"]))).await;
    for http2 in [false, true] {
        let more = format!(
            "http2 = {http2}\nhost = \"app.internal\"\ntls = {{ sni = \"app.internal\", ca = \"ca.pem\" }}"
        );
        let dead = DeadPort::new();
        let gw = gateway(&format!(
            "[upstreams.app]\nservers = [\"{{app}}\"]\n{more}\n[upstreams.gone]\nservers = [\"{{dead}}\"]\n\
             fallback = {{ status = 200, json = {{ degraded = true }} }}\n{ROUTES}"
        ))
        .with("app", &app)
        .with("dead", &dead)
        .file("ca.pem", &authority.pem)
        .start()
        .await;
        holds(&gw, &app, || gw.client()).await;
        holds(&gw, &app, || gw.client().http2()).await;
        // Where the head is gone by then the answer breaks off, and is no other's.
        let (feed, answer) = Feed::new("application/json");
        app.on("/api/late", answer);
        feed.send("1,").await;
        let mut late = gw.client().http2().get("/api/late").stream().await.unwrap();
        assert_eq!(late.status, 200);
        feed.send("\"status\":2").await;
        drop(feed);
        assert!(late.try_next().await.is_err());
        let mut old = gw.raw().await;
        old.send("GET /api/users HTTP/1.0\r\nHost: h\r\n\r\n").await;
        let text = String::from_utf8(old.rest().await).unwrap();
        assert!(text.contains("\r\n\r\n{\"status\":200,\"data\":{ \"id\": "), "{text}");
        assert!(!text.to_ascii_lowercase().contains("chunked"), "{text}");
    }
}

/// However it is framed; and the connections on both sides go on.
#[tokio::test]
async fn framing_is_the_envelopes_own() {
    let long = format!("\"{}\"", "x".repeat(40_000));
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{long}", long.len()),
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n", long.len()),
    ] {
        let data = if answer.contains("xxx") { json!("x".repeat(40_000)) } else { json!({}) };
        let app = RawUpstream::answering(answer).await;
        let gw = in_front_of(&app, "[defaults.response]\nenvelope = true").start().await;
        let mut client = gw.raw().await;
        for _ in 0..3 {
            let answer = client.get("/a").await.expect_status(200);
            assert!(answer.header("content-length").is_some() && answer.header("transfer-encoding").is_none());
            check(&answer.json(), 200, &data, "/a");
        }
        assert_eq!(app.connections(), 1);
    }
    let until_close =
        RawUpstream::answering_once("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[1]").await;
    let gw = in_front_of(&until_close, "[defaults.response]\nenvelope = true").start().await;
    check(&gw.get("/a").await.json(), 200, &json!([1]), "/a");
    // One that is cut short is none, and neither is one without an end.
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n[1]".to_owned(),
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{}", " ".repeat(2 << 20)),
    ] {
        let app = RawUpstream::answering_once(answer).await;
        let gw = in_front_of(&app, "[defaults.response]\nenvelope = true").start().await;
        assert_eq!(gw.get("/a").await.status, 502);
    }
}

/// However long it takes: a server that sends something now and then is not silent.
#[tokio::test]
async fn an_answer_may_take_longer_than_its_pauses() {
    let (feed, answer) = Feed::new("application/json");
    let app = upstream().on("/slow", answer).start().await;
    let gw = in_front_of(
        &app,
        "timeouts = { read = \"1s\" }\n[limits]\nbody_timeout = \"500ms\"\n[defaults.response]\nenvelope = true",
    );
    let gw = gw.start().await;
    let feeding = async move {
        feed.send("[0").await;
        for _ in 0..10 {
            let _ = tokio::time::timeout(Duration::from_millis(300), std::future::pending::<()>()).await;
            feed.send(",0").await;
        }
        feed.send("]").await;
    };
    let (answer, ()) = tokio::join!(gw.get("/slow").into_future(), feeding);
    check(&answer.expect_status(200).json(), 200, &json!(vec![0; 11]), "/slow");
}

/// A stream begins at once: nothing of it is kept.
#[tokio::test]
async fn streams_are_left_alone() {
    let (feed, events) = Feed::new("text/event-stream");
    let app = upstream().on("/events", events).start().await;
    let gw = in_front_of(&app, "[defaults.response]\nenvelope = true").start().await;
    feed.send("data: 1\n\n").await;
    let mut stream = gw.get("/events").stream().await.unwrap();
    assert_eq!(stream.next().await.unwrap(), "data: 1\n\n");
}

/// One of HTTP/2 whose end is behind its body.
fn trailed(body: &'static str) -> Answer {
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("1"))]);
    Answer::Trailers(Fixed::new(200, body.into()).with("content-type", "application/json"), trailers)
}

/// Whether nobody can take this for an answer of the service's, whether or not its head has gone out.
fn comes_to_nothing<E>(answer: Result<Response, E>) -> bool {
    match answer {
        Err(_) => true,
        Ok(answer) if answer.status == 502 => answer.json()["code"] == "upstream.bad_response",
        Ok(answer) => answer.broken.is_some() && answer.body.is_empty(),
    }
}

fn typed(content_type: &str, body: &'static str) -> Answer {
    Answer::Fixed(Fixed::new(200, body.into()).with("content-type", content_type))
}
