//! Errors of the gateway: problem documents with a stable code, the right status for the right cause, no inside story.

use bytes::Bytes;

use crate::support::*;

#[tokio::test]
async fn a_problem_document_has_all_its_members() {
    let gw = gateway("[[routes]]\npath = \"/x\"\nrespond = { status = 200 }\n").start().await;
    let problem = gw.get("/nowhere").await.expect_problem(404, "route.not_found").json();
    assert_eq!(problem["title"], "Not Found");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.ends_with('.')));
    assert!(problem.get("type").is_none_or(|kind| kind == "about:blank"));
}

#[tokio::test]
async fn browsers_get_a_page_and_only_they() {
    let gw = gateway("[[routes]]\npath = \"/x\"\nrespond = { status = 200 }\n").start().await;
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = gw.get("/<script>").header("accept", browser).send().await;
    let page = match page {
        Ok(page) => page,
        Err(_) => gw.get("/nowhere").header("accept", browser).await,
    };
    assert!([400, 404].contains(&page.status));
    assert!(page.header("content-type").unwrap().starts_with("text/html"), "{page:?}");
    assert!(page.text().contains(page.header("x-request-id").unwrap()));
    assert!(!page.text().contains("<script>"));
    for accept in ["*/*", "application/json", "application/json, text/html;q=0.9", "text/html;q=0"] {
        gw.get("/nowhere").header("accept", accept).await.expect_problem(404, "route.not_found");
    }
}

#[tokio::test]
async fn head_gets_the_head_of_the_error() {
    let gw = gateway("[[routes]]\npath = \"/x\"\nrespond = { status = 200 }\n").start().await;
    let connection = gw.client().connect().await;
    for _ in 0..2 {
        let answer = connection.request("HEAD", "/nowhere").await;
        assert_eq!((answer.status, answer.body.len()), (404, 0));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
}

/// 502, 503 and 504 are told apart: unreachable, nobody there to be asked, too late.
#[tokio::test]
async fn each_cause_has_its_status_and_code() {
    let dead = DeadPort::new();
    let unreachable = Unreachable::new();
    let app = upstream()
        .on("/close", Answer::Close)
        .on("/reset", Answer::Reset)
        .on("/hang", Answer::Hang)
        .start()
        .await;
    let nonsense = RawUpstream::answering_once("SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    let gw = gateway(
        r#"
        [upstream_defaults]
        timeouts = { connect = "300ms", read = "500ms" }
        retry = { attempts = 1 }
        [upstreams.dead]
        servers = ["{dead}"]
        [upstreams.unreachable]
        servers = ["{unreachable}"]
        [upstreams.app]
        servers = ["{app}"]
        [upstreams.nonsense]
        servers = ["{nonsense}"]
        [limits]
        body_timeout = "400ms"
        [[routes]]
        path = "/dead"
        upstream = "dead"
        [[routes]]
        path = "/unreachable"
        upstream = "unreachable"
        [[routes]]
        path = "/nonsense"
        upstream = "nonsense"
        [[routes]]
        path = "/hang/short"
        upstream = "app"
        rewrite = { path = "/hang" }
        timeout = "200ms"
        [[routes]]
        path = "/*"
        upstream = "app"
        "#,
    )
    .with("dead", &dead)
    .with("unreachable", &unreachable)
    .with("app", &app)
    .with("nonsense", &nonsense)
    .start()
    .await;
    for (path, status, code) in [
        ("/dead", 502, "upstream.connect_failed"),
        ("/unreachable", 504, "upstream.connect_timeout"),
        ("/close", 502, "upstream.reset"),
        ("/reset", 502, "upstream.reset"),
        ("/hang", 504, "upstream.timeout"),
        ("/hang/short", 504, "request.deadline_exceeded"),
        ("/nonsense", 502, "upstream.bad_response"),
    ] {
        let answer = gw.get(path).await.expect_problem(status, code);
        let text = answer.text();
        for inside in
            ["127.0.0.1", &dead.address().port().to_string(), "pingora", "os error", "edgeward.toml"]
        {
            assert!(!text.to_ascii_lowercase().contains(inside), "{path} tells the inside story: {text}");
        }
        let line = gw.logged(path).await;
        assert!(line.contains(&format!("\" {status} ")), "{line}");
    }
}

#[tokio::test]
async fn answers_that_are_not_http_become_502() {
    for wrong in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        "HTTP/1.1 20x OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Header: x\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        let app = RawUpstream::answering_once(wrong).await;
        let gw = in_front_of(&app, "retry = { attempts = 1 }").start().await;
        let answer = gw.get("/").await;
        assert_eq!(answer.status, 502, "{wrong:?} became {answer:?}");
        answer.expect_problem(502, "upstream.bad_response");
    }
}

#[tokio::test]
async fn an_endless_head_of_an_answer_is_cut() {
    let app = RawUpstream::script(|mut peer| async move {
        peer.head().await;
        peer.write(b"HTTP/1.1 200 OK\r\n").await;
        for n in 0..20_000 {
            peer.write(format!("X-{n}: {}\r\n", "y".repeat(100)).as_bytes()).await;
        }
        peer.rest().await;
    })
    .await;
    let gw = in_front_of(&app, "retry = { attempts = 1 }").start().await;
    gw.get("/").await.expect_problem(502, "upstream.bad_response");
}

/// What a service says is its own affair: errors of services pass as they are.
#[tokio::test]
async fn errors_of_services_are_not_ours() {
    let body = Bytes::from_static(b"{\"my\":\"error\"}");
    let own =
        |status| Answer::Fixed(Fixed::new(status, body.clone()).with("content-type", "application/x-own"));
    let app = upstream().on("/404", own(404)).on("/500", own(500)).on("/503", own(503)).start().await;
    let gw = in_front_of(&app, "retry = { attempts = 1 }").start().await;
    for status in [404, 500, 503] {
        let answer = gw.get(&format!("/{status}")).await.expect_status(status);
        assert_eq!(answer.header("content-type"), Some("application/x-own"));
        assert_eq!(answer.body, body);
    }
}

#[tokio::test]
async fn the_connection_survives_an_error_of_the_gateway() {
    let app = upstream().start().await;
    let dead = DeadPort::new();
    let gw = gateway(
        r#"
        [upstreams.app]
        servers = ["{app}"]
        [upstreams.dead]
        servers = ["{dead}"]
        [[routes]]
        path = "/app/*"
        upstream = "app"
        [[routes]]
        path = "/dead"
        upstream = "dead"
        "#,
    )
    .with("app", &app)
    .with("dead", &dead)
    .start()
    .await;
    // All at once: what is sent ahead waits for its turn, whatever becomes of those before.
    let post = "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut raw = gw.raw().await;
    raw.send([&get("/dead"), post, &get("/app/x"), &get("/dead"), &get("/app/y")].concat()).await;
    for status in [502, 404, 200, 502, 200] {
        raw.response().await.expect_status(status);
    }
    let mut raw = gw.raw().await;
    raw.get("/nowhere").await.expect_problem(404, "route.not_found");
    raw.get("/dead").await.expect_status(502);
    raw.send("POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello").await;
    raw.response().await.expect_problem(404, "route.not_found");
    raw.get("/app/x").await.expect_status(200);
}
