//! The admin listener: health and metrics.

use crate::support::*;

const ROUTES: &str = r#"
    [upstreams.app]
    servers = ["{app}"]
    [[routes]]
    name = "things"
    path = "/things/*"
    upstream = "app"
    [[routes]]
    name = "fixed"
    path = "/fixed"
    respond = { status = 200, text = "ok" }
"#;

#[tokio::test]
async fn requests_are_counted_by_route_method_and_status() {
    let app = upstream().on("/things/bad", Answer::status(500)).start().await;
    let gw = gateway(ROUTES).with("app", &app).start().await;
    for path in ["/things/1", "/things/2", "/things/bad", "/fixed", "/nowhere"] {
        gw.get(path).await;
    }
    gw.request("POST", "/things/3").await.expect_status(200);
    gw.request("BREW", "/things/4").await.expect_status(200);
    let total = "edgeward_http_requests_total";
    gw.metric_is(total, &["route=\"things\"", "method=\"GET\"", "code=\"200\""], 2.0).await;
    gw.metric_is(total, &["route=\"things\"", "method=\"GET\"", "code=\"500\""], 1.0).await;
    gw.metric_is(total, &["route=\"things\"", "method=\"POST\""], 1.0).await;
    gw.metric_is(total, &["route=\"things\"", "method=\"_OTHER\""], 1.0).await;
    gw.metric_is(total, &["route=\"fixed\""], 1.0).await;
    gw.metric_is(total, &["code=\"404\""], 1.0).await;
    gw.metric_is("edgeward_http_request_duration_seconds_count", &["route=\"things\""], 5.0).await;
    gw.metric_is("edgeward_upstream_requests_total", &["upstream=\"app\"", &app.address().to_string()], 5.0)
        .await;
    let page = gw.metrics().await;
    assert!(!page.contains("BREW") && !page.contains("/nowhere"), "an unbounded label");
    for name in [
        "edgeward_build_info",
        "process_resident_memory_bytes",
        "process_open_fds",
        "edgeward_http_requests_in_flight",
    ] {
        assert!(page.contains(name), "{name} is missing:\n{page}");
    }
}

#[tokio::test]
async fn requests_in_flight_go_up_and_down() {
    let gate = Gate::new();
    let app = upstream().otherwise(gate.then(Answer::text("late"))).start().await;
    let gw = gateway(ROUTES).with("app", &app).start().await;
    let held = tokio::spawn(std::future::IntoFuture::into_future(gw.get("/things/1")));
    gate.arrived(1).await;
    gw.metric_is("edgeward_http_requests_in_flight", &["route=\"things\""], 1.0).await;
    gate.open();
    held.await.unwrap().expect_status(200);
    gw.metric_is("edgeward_http_requests_in_flight", &["route=\"things\""], 0.0).await;
    // A client that leaves must not stay counted.
    let gate = Gate::new();
    app.otherwise(gate.then(Answer::text("late")));
    let mut raw = gw.raw().await;
    raw.send("GET /things/2 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    gate.arrived(1).await;
    drop(raw);
    gw.metric_is("edgeward_http_requests_in_flight", &["route=\"things\""], 0.0).await;
    gw.metric_is("edgeward_http_requests_total", &["route=\"things\"", "code=\"499\""], 1.0).await;
}

/// The page must be what Prometheus reads: every sample belongs to a described family, every line parses.
#[tokio::test]
async fn the_page_is_well_formed_in_both_formats() {
    let app = upstream().start().await;
    let gw = gateway(ROUTES).with("app", &app).start().await;
    gw.get("/things/1").await.expect_status(200);
    for (accept, kind, ends) in [
        ("text/plain", "text/plain; version=0.0.4", false),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", true),
    ] {
        let answer = gw.admin().get("/metrics").header("accept", accept).await.expect_status(200);
        assert!(answer.header("content-type").unwrap().starts_with(kind), "{:?}", answer.headers);
        let page = answer.text();
        assert_eq!(page.trim_end().ends_with("# EOF"), ends, "{accept}");
        let mut typed = Vec::new();
        for line in page.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                typed.push(kind.split(' ').next().unwrap().to_owned());
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert!(typed.iter().any(|family| name.starts_with(family.as_str())), "no TYPE for {line}");
                assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
        let mut families = typed.clone();
        families.sort();
        families.dedup();
        assert_eq!(families.len(), typed.len(), "a family twice: {typed:?}");
    }
}

#[tokio::test]
async fn known_series_are_there_before_the_first_request() {
    let app = upstream().start().await;
    let gw = gateway(ROUTES).with("app", &app).start().await;
    assert_eq!(gw.metric("edgeward_http_requests_in_flight", &["route=\"things\""]).await, Some(0.0));
    assert!(gw.metric("edgeward_upstream_backend_up", &[&app.address().to_string()]).await.is_some());
}

#[tokio::test]
async fn health_pages() {
    let app = upstream().start().await;
    let gw = gateway(ROUTES).with("app", &app).start().await;
    gw.admin().get("/livez").await.expect_status(200);
    gw.admin().get("/readyz").await.expect_status(200);
    let verbose = gw.admin().get("/readyz?verbose").await.expect_status(200).text();
    assert!(verbose.contains("app"), "{verbose}");
    gw.admin().get("/nothing-here").await.expect_status(404);
    gw.admin().request("POST", "/livez").await.expect_status(405);
    assert_eq!(gw.admin().request("HEAD", "/readyz").await.expect_status(200).text(), "");
    // Not on the listeners that serve the public.
    for path in ["/livez", "/readyz", "/metrics"] {
        gw.get(path).await.expect_problem(404, "route.not_found");
    }
}

/// A page in a browser must not reach the admin listener by a name that points to this machine.
#[tokio::test]
async fn the_admin_listener_knows_its_own_names() {
    let gw = gateway("[[routes]]\npath = \"/x\"\nrespond = { status = 200 }\n").start().await;
    for host in ["127.0.0.1:9901", "localhost", "[::1]:9901"] {
        gw.admin().get("/livez").host(host).await.expect_status(200);
    }
    let refused = gw.admin().get("/metrics").host("evil.example").await;
    assert!((400..500).contains(&refused.status), "{refused:?}");
}

#[tokio::test]
async fn malformed_requests_and_connections_are_counted() {
    let gw = gateway("[[routes]]\npath = \"/x\"\nrespond = { status = 200 }\n").start().await;
    let mut raw = gw.raw().await;
    raw.send("RUBBISH\r\n\r\n").await;
    raw.response().await.expect_status(400);
    gw.metric_is("edgeward_http_requests_rejected_total", &["request.malformed"], 1.0).await;
}
