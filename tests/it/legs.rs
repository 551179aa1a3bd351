//! How legs are carried: over which connections, what answers are taken, when they end, and what a missing input means.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::*;

/// A gateway with one aggregate at `/x/*`, made of `legs`, in front of `app`, of which `upstream` says more.
fn aggregate(app: &impl Addressed, upstream: &str, legs: &str) -> GatewayBuilder {
    gateway(&format!(
        "[log.access]\nformat = \"json\"\n[upstreams.app]\nservers = [\"{{app}}\"]\n{upstream}\n\
         [[routes]]\nname = \"x\"\npath = \"/x/*\"\n[routes.aggregate]\n{legs}"
    ))
    .with("app", app)
}

fn leg(name: &str, more: &str) -> String {
    format!(
        "[[routes.aggregate.legs]]\nname = \"{name}\"\nupstream = \"app\"\ngroup = \"{name}\"\npath = \"/{name}\"\n{more}\n"
    )
}

/// Whatever of its body was not read when it leaves, over HTTP/1.1, 1.0 and 2.
#[tokio::test]
async fn a_client_that_leaves_is_seen_behind_a_body_that_nobody_reads() {
    let app = upstream().otherwise(Answer::Hang).start().await;
    let gw = aggregate(&app, "", &leg("a", "timeout = \"60s\"")).start().await;
    for request in [
        "POST /x/gone HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
        "POST /x/gone HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\nhello",
        "POST /x/gone HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "POST /x/gone HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        "POST /x/gone HTTP/1.0\r\nHost: h\r\nContent-Length: 50\r\n\r\nhello",
    ] {
        let asked = app.requests();
        let mut client = gw.raw().await;
        client.send(request).await;
        eventually("the leg to be asked", async || (app.requests() > asked).then_some(())).await;
        drop(client);
        eventually(request, async || (app.open_connections() == 0).then_some(())).await;
        let line: Value = serde_json::from_str(&gw.logged("/x/gone").await).unwrap();
        assert_eq!((&line["status"], &line["reason"]), (&json!(499), &json!("client.closed")), "{request}");
    }
    let asked = app.requests();
    let (_pieces, body) = mpsc::channel(1);
    let request = gw.client().http2().request("POST", "/x/gone").streaming_body(body);
    let request = tokio::spawn(async move { request.send().await.map(drop) });
    eventually("the leg to be asked", async || (app.requests() > asked).then_some(())).await;
    request.abort();
    eventually("the call to end", async || (app.open_connections() == 0).then_some(())).await;
}

/// It is read for nothing, within what the route takes, and the connection lives on where it can.
#[tokio::test]
async fn a_body_that_nobody_reads_is_bounded_and_costs_no_connection() {
    let gate = Gate::new();
    let app = upstream().on("/a", gate.then(Answer::json(json!({})))).start().await;
    let gw = aggregate(&app, "", &leg("a", ""))
        .replacing("path = \"/x/*\"", "path = \"/x/*\"\nbody_bytes = \"1KB\"");
    let gw = gw.start().await;
    let mut client = gw.raw().await;
    client.send("POST /x/1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..2 {
        client.send(format!("200\r\n{}\r\n", "x".repeat(0x200))).await;
    }
    client.response().await.expect_problem(413, "request.body_too_large");
    client.closed().await;
    gate.open();
    let mut client = gw.raw().await;
    for body in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"] {
        client.send(format!("POST /x/1 HTTP/1.1\r\nHost: h\r\n{body}")).await;
        client.response().await.expect_status(200);
    }
    // One that is held back is not asked for, and nothing may follow in its place.
    client.send("POST /x/1 HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    client.response().await.expect_status(200);
    client.closed().await;
}

/// A body that a leg needs is asked for and read whole, however it is framed, over each way into the gateway.
#[tokio::test]
async fn a_body_that_a_leg_needs_arrives_whole() {
    let app = upstream().otherwise(Answer::json(json!({}))).start().await;
    let legs = leg("a", "method = \"POST\"\nbody = \"request\"");
    let gw = aggregate(&app, "", &legs).start().await;
    let document = json!({ "v": "x".repeat(200_000) }).to_string();
    let (first, second) = document.split_at(70_000);
    let chunks = format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    for (version, framing, body) in [
        ("1.1", format!("Content-Length: {}", document.len()), &document),
        ("1.1", "Transfer-Encoding: chunked".to_owned(), &chunks),
        ("1.0", format!("Content-Length: {}", document.len()), &document),
    ] {
        let mut client = gw.raw().await;
        client.send(format!("POST /x/1 HTTP/{version}\r\nHost: h\r\n{framing}\r\n\r\n{body}")).await;
        client.response().await.expect_status(200);
        assert!(app.last().body == document, "{version} {framing}");
    }
    let request = gw.client().http2().request("POST", "/x/1").body(document.clone());
    request.await.expect_status(200);
    assert!(app.last().body == document);
    let mut client = gw.raw().await;
    client.send("POST /x/1 HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    client.response().await.expect_status(100);
    client.send("{}").await;
    client.response().await.expect_status(200);
    // It was read whole, so the connection goes on.
    client.still_open("/x/1").await;
}

/// Any way an answer may be framed.
#[tokio::test]
async fn answers_are_taken_as_they_are_framed() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n{\"a\r\n4\r\n\":1}\r\n0\r\nTrailer: x\r\n\r\n";
    for (answer, document, connections) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}".to_owned(), json!({ "a": { "a": 1 } }), 1),
        (chunked.to_owned(), json!({ "a": { "a": 1 } }), 1),
        (
            format!("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n{chunked}"),
            json!({ "a": { "a": 1 } }),
            1,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), json!({}), 1),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_owned(), json!({ "a": {} }), 2),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}".to_owned(), json!({ "a": {} }), 2),
        // What comes behind it is no answer to what is asked next.
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"b\":\"x\"}".to_owned(), json!({ "a": {} }), 2),
    ] {
        let app = RawUpstream::answering(answer.clone()).await;
        let gw = aggregate(&app, "", &leg("a", "")).start().await;
        for _ in 0..2 {
            assert_eq!(gw.get("/x/1").await.expect_status(200).json(), document, "{answer}");
        }
        assert_eq!(app.connections(), connections, "{answer}");
    }
    let until_close = RawUpstream::answering_once("HTTP/1.1 200 OK\r\n\r\n{\"a\":1}").await;
    let gw = aggregate(&until_close, "", &leg("a", "")).start().await;
    for _ in 0..2 {
        assert_eq!(gw.get("/x/1").await.expect_status(200).json(), json!({ "a": { "a": 1 } }));
    }
}

/// An answer that two readers could take for two things is none: one reason, and no connection used again.
#[tokio::test]
async fn answers_that_can_be_read_in_two_ways_are_none() {
    let early =
        "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(17) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nA: \0\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n{}",
        "HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "SSH-2.0-OpenSSH\r\n",
        &early,
    ] {
        let app = RawUpstream::answering(answer).await;
        let gw = aggregate(&app, "retry = { attempts = 1 }", &leg("a", "required = true")).start().await;
        for _ in 0..2 {
            let problem = gw.get("/x/1").await.expect_problem(502, "aggregate.leg_failed").json();
            assert_eq!(problem["leg_code"], "upstream.bad_response", "{answer}");
        }
        assert_eq!(app.connections(), 2, "{answer}");
    }
}

/// The servers close kept connections when they like: that costs nobody an answer, and counts as no failure.
#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced() {
    let app = RawUpstream::script(|mut peer| async move {
        if peer.head().await.is_some() {
            peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
        }
        // The next is read, and not answered.
        peer.head().await;
    })
    .await;
    let gw = aggregate(&app, "retry = { attempts = 1 }", &format!("report = \"body\"\n{}", leg("a", "")));
    let gw = gw.start().await;
    for round in 1..4 {
        let document = gw.get("/x/1").await.expect_status(200).json();
        assert_eq!(document["_legs"]["a"]["attempts"], 1);
        assert_eq!(app.connections(), round);
    }
}

/// Proxied requests and legs share what is kept open to a server.
#[tokio::test]
async fn legs_and_requests_share_connections() {
    let app = upstream().otherwise(Answer::json(json!({}))).start().await;
    let more = "[[routes]]\npath = \"/plain\"\nupstream = \"app\"\n";
    let gw = aggregate(&app, "", &leg("a", "")).and(more).start().await;
    for _ in 0..3 {
        gw.get("/plain").await.expect_status(200);
        gw.get("/x/1").await.expect_status(200);
    }
    assert_eq!(app.connections(), 1);
}

/// A server's silence has a bound of its own; when the time of the leg ends it, the server has failed no less.
#[tokio::test]
async fn silent_servers_are_left_and_remembered() {
    let app = upstream().otherwise(Answer::Hang).start().await;
    let read = "retry = { attempts = 1 }\ntimeouts = { read = \"100ms\" }";
    let gw = aggregate(&app, read, &leg("a", "required = true")).and("[limits]\nbody_timeout = \"50ms\"\n");
    let gw = gw.start().await;
    let problem = gw.get("/x/1").await.expect_problem(504, "aggregate.leg_timeout").json();
    assert_eq!(problem["leg_code"], "upstream.timeout");
    for timeout in ["timeout = \"100ms\"\n", ""] {
        let own = if timeout.is_empty() { "timeout = \"100ms\"" } else { "" };
        let legs = format!("{timeout}{}", leg("a", &format!("required = true\n{own}")));
        let gw = aggregate(&app, "", &legs).start().await;
        let began = Instant::now();
        let problem = gw.get("/x/1").await.expect_problem(504, "aggregate.leg_timeout").json();
        assert_eq!(problem["leg_code"], "leg.timeout");
        assert!(began.elapsed() < Duration::from_secs(5));
        gw.metric_is("edgeward_upstream_failures_total", &["upstream=\"app\"", "reason=\"timeout\""], 1.0)
            .await;
        let line: Value = serde_json::from_str(&gw.logged("/x/1").await).unwrap();
        assert_eq!(line["attempts"][0]["failure"], "timeout", "{line}");
    }
    // One that takes nothing of a long body, either.
    let deaf = RawUpstream::script(|peer| async move {
        std::future::pending::<()>().await;
        drop(peer);
    })
    .await;
    let write = "retry = { attempts = 1 }\ntimeouts = { write = \"200ms\" }";
    let legs = format!(
        "total_bytes = \"32MiB\"\n{}",
        leg("a", "method = \"POST\"\nbody = \"request\"\nrequired = true")
    );
    let gw = aggregate(&deaf, write, &legs)
        .replacing("path = \"/x/*\"", "path = \"/x/*\"\nbody_bytes = \"32MiB\"");
    let gw = gw.start().await;
    let body = format!("\"{}\"", "x".repeat(16 << 20));
    let problem = gw.request("POST", "/x/1").body(body).await.expect_problem(504, "aggregate.leg_timeout");
    assert_eq!(problem.json()["leg_code"], "upstream.timeout");
}

/// What is missing is named by the status: the client's own is his to send (400), another leg's is not (502).
#[tokio::test]
async fn a_missing_input_is_the_clients_only_if_it_was_his_to_send() {
    let app = upstream().on("/a", Answer::json(json!({ "id": 1, "dots": ".." }))).start().await;
    let with = |path: &str, more: &str| {
        let needs = leg("b", &format!("required = true\n{more}")).replace("\"/b\"", &format!("\"{path}\""));
        format!("{}{needs}", leg("a", ""))
    };
    let post = |body: &str| format!("method = \"POST\"\nbody = {body}");
    let (client, legs) = ((400, "aggregate.input_missing"), (502, "aggregate.leg_failed"));
    for (path, more, (status, code)) in [
        ("/b/{query.q}", String::new(), client),
        ("/b/{header.x-q}", String::new(), client),
        ("/b/{query.q}/{a.id}", String::new(), client),
        ("/b/{query.q}/{a.no}", String::new(), client),
        ("/b/{a.no}", String::new(), legs),
        ("/b/{path.rest}/{a.no}", String::new(), legs),
        ("/b/{a.dots}", String::new(), legs),
        ("/b", post("{ v = \"{query.q}\" }"), client),
        ("/b", post("{ v = \"<{query.q}{a.id}>\" }"), client),
        ("/b", post("{ v = \"<{a.no}>\" }"), legs),
        ("/b", post("{ v = \"{a.no}\" }"), legs),
    ] {
        let gw = aggregate(&app, "", &with(path, &more)).start().await;
        let problem = gw.get("/x/1").await.expect_problem(status, code).json();
        assert_eq!(
            (&problem["leg"], &problem["leg_code"]),
            (&json!("b"), &json!("leg.input_missing")),
            "{path} {more}"
        );
    }
    // From the body, and through a leg that was not asked for want of it.
    let chain = leg("a", "").replace("\"/a\"", "\"/a/{body.v}\"")
        + &leg("b", "required = true").replace("\"/b\"", "\"/b/{a.id}\"");
    let gw = aggregate(&app, "", &chain).start().await;
    let asked = app.requests();
    gw.request("POST", "/x/1").body("{}").await.expect_problem(400, "aggregate.input_missing");
    assert_eq!(app.requests(), asked);
}
