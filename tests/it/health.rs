//! Health: servers that fail get nothing until they recover, and clients notice none of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::*;

const CHECKED: &str = r#"
    retry = { attempts = 1 }
    [upstreams.app.health_check]
    path = "/health"
    interval = "100ms"
    timeout = "1s"
    unhealthy_after = 2
"#;

fn two(first: &Upstream, second: &Upstream, settings: &str) -> GatewayBuilder {
    gateway(&format!(
        "[upstreams.app]\nservers = [\"{{first}}\", \"{{second}}\"]\n{settings}\n\
         [[routes]]\npath = \"/*\"\nupstream = \"app\"\n"
    ))
    .with("first", first)
    .with("second", second)
}

/// Which servers answer ten requests in a row.
async fn answering(gw: &Gateway) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..10 {
        let answer = gw.get("/x").await;
        names.push(answer.header("x-server").unwrap_or("none").to_owned());
    }
    names.sort();
    names.dedup();
    names
}

#[tokio::test]
async fn a_server_that_fails_its_checks_gets_nothing_until_it_recovers() {
    let first = upstream().named("first").start().await;
    let second = upstream().named("second").start().await;
    let gw = two(&first, &second, CHECKED).start().await;
    eventually("both to answer", async || (answering(&gw).await == ["first", "second"]).then_some(())).await;
    first.on("/health", Answer::status(500));
    eventually("one to be left out", async || (answering(&gw).await == ["second"]).then_some(())).await;
    gw.metric_is("edgeward_upstream_backend_up", &[&first.address().to_string()], 0.0).await;
    gw.metric_is("edgeward_upstream_backend_up", &[&second.address().to_string()], 1.0).await;
    first.on("/health", Answer::status(204));
    eventually("both to answer again", async || (answering(&gw).await == ["first", "second"]).then_some(()))
        .await;
}

#[tokio::test]
async fn without_a_path_a_connection_is_enough() {
    let mut first = upstream().named("first").start().await;
    let second = upstream().named("second").start().await;
    let check = "[upstreams.app.health_check]\ninterval = \"100ms\"\nunhealthy_after = 1\n";
    let gw = two(&first, &second, check).start().await;
    first.stop().await;
    gw.metric_is("edgeward_upstream_backend_up", &[&first.address().to_string()], 0.0).await;
    assert_eq!(answering(&gw).await, ["second"]);
    first.restart().await;
    eventually("both to answer", async || (answering(&gw).await == ["first", "second"]).then_some(())).await;
    assert!(first.seen_at("/health").is_empty());
}

#[tokio::test]
async fn nobody_healthy_is_503_with_retry_after() {
    let app = upstream().on("/health", Answer::status(500)).start().await;
    let gw = in_front_of(&app, CHECKED).start().await;
    let refused = eventually("503", async || {
        let answer = gw.get("/x").await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    let refused = refused.expect_problem(503, "upstream.no_server");
    assert!(refused.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok_and(|s| s >= 1)));
    // Its own state is no reason to take the gateway out of rotation: others are served.
    let ready = gw.admin().get("/readyz?verbose").await.expect_status(200);
    assert!(ready.text().contains("app"), "{}", ready.text());
    gw.admin().get("/livez").await.expect_status(200);
}

/// A check that hangs fails after its own time.
#[tokio::test]
async fn a_hanging_check_is_a_failed_one() {
    let first = upstream().named("first").on("/health", Answer::Hang).start().await;
    let second = upstream().named("second").start().await;
    let check = "[upstreams.app.health_check]\npath = \"/health\"\ninterval = \"100ms\"\ntimeout = \"200ms\"\nunhealthy_after = 1\n";
    let gw = two(&first, &second, check).start().await;
    gw.metric_is("edgeward_upstream_backend_up", &[&first.address().to_string()], 0.0).await;
    assert_eq!(answering(&gw).await, ["second"]);
}

/// Without active checks, connect errors and resets put a server aside.
#[tokio::test]
async fn a_dead_server_is_put_aside() {
    let mut first = upstream().named("first").start().await;
    let second = upstream().named("second").start().await;
    let gw = two(&first, &second, "").start().await;
    assert_eq!(answering(&gw).await, ["first", "second"]);
    first.stop().await;
    for _ in 0..50 {
        gw.get("/x").await.expect_status(200);
    }
    let attempts = gw.metric("edgeward_upstream_retries_total", &["app"]).await.unwrap_or(0.0);
    assert!(attempts < 25.0, "{attempts} of 50 requests were first tried on the dead server");
}

/// A server killed under load: not one client error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_under_load_costs_nobody_an_error() {
    let mut first = upstream().named("first").start().await;
    let second = upstream().named("second").start().await;
    let gw = two(&first, &second, "").start().await;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (client, stop, sent) = (gw.client(), stop.clone(), sent.clone());
            tokio::spawn(async move {
                let connection = client.connect().await;
                let mut errors = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match connection.get("/x").send().await {
                        Ok(answer) if answer.status == 200 && answer.broken.is_none() => {}
                        other => errors.push(format!("{other:?}")),
                    }
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                errors
            })
        })
        .collect();
    let load = async |count: usize| {
        let goal = sent.load(Ordering::Relaxed) + count;
        eventually("load", async || (sent.load(Ordering::Relaxed) >= goal).then_some(())).await;
    };
    load(200).await;
    first.stop().await;
    load(400).await;
    first.restart().await;
    load(200).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let errors = client.await.unwrap();
        assert!(errors.is_empty(), "{} errors, the first: {}", errors.len(), errors[0]);
    }
}

/// A name that cannot be resolved leaves the process running and everything else served.
#[tokio::test]
async fn an_unresolvable_name_is_not_ready_and_nothing_more() {
    let app = upstream().start().await;
    let gw = gateway(
        r#"
        [upstreams.lost]
        servers = ["does-not-exist.invalid:80"]
        [upstreams.app]
        servers = ["{app}"]
        [[routes]]
        path = "/lost"
        upstream = "lost"
        [[routes]]
        path = "/*"
        upstream = "app"
        "#,
    )
    .with("app", &app)
    .start()
    .await;
    gw.get("/x").await.expect_status(200);
    let lost = gw.get("/lost").await.expect_problem(503, "upstream.not_ready");
    assert!(lost.header("retry-after").is_some());
    let ready = gw.admin().get("/readyz?verbose").await.expect_status(200);
    assert!(ready.text().contains("lost"), "{}", ready.text());
}

#[tokio::test]
async fn names_are_resolved() {
    let app = upstream().start().await;
    let port = app.address().port();
    let gw = gateway(&format!(
        "[upstreams.app]\nservers = [\"localhost:{port}\"]\n[[routes]]\npath = \"/*\"\nupstream = \"app\"\n"
    ))
    .start()
    .await;
    eventually("the name to be resolved", async || (gw.get("/").await.status == 200).then_some(())).await;
}

const BREAKER: &str =
    "retry = { attempts = 1 }\n[upstreams.app.circuit_breaker]\nfailures = 3\nopen_for = \"500ms\"";

#[tokio::test]
async fn a_circuit_opens_after_failures_in_a_row_and_closes_after_a_good_answer() {
    let app = upstream().otherwise(Answer::status(500)).start().await;
    let gw = in_front_of(&app, BREAKER).start().await;
    for _ in 0..3 {
        gw.get("/").await.expect_status(500);
    }
    let refused = gw.get("/").await.expect_problem(503, "upstream.circuit_open");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(app.requests(), 3, "an open circuit asks nobody");
    gw.metric_is("edgeward_circuit_breaker_state", &["app"], 2.0).await;
    app.otherwise(Answer::text("well"));
    eventually("the circuit to close", async || (gw.get("/").await.status == 200).then_some(())).await;
    gw.metric_is("edgeward_circuit_breaker_state", &["app"], 0.0).await;
    for _ in 0..5 {
        gw.get("/").await.expect_status(200);
    }
}

#[tokio::test]
async fn a_failed_probe_opens_it_again() {
    let app = upstream().otherwise(Answer::status(500)).start().await;
    let gw = in_front_of(&app, BREAKER).start().await;
    for _ in 0..3 {
        gw.get("/").await.expect_status(500);
    }
    eventually("a probe", async || (gw.get("/").await.status == 500).then_some(())).await;
    gw.get("/").await.expect_problem(503, "upstream.circuit_open");
    assert_eq!(app.requests(), 4);
}

#[tokio::test]
async fn a_good_answer_in_between_starts_the_count_again() {
    let app = upstream().on("/bad", Answer::status(500)).start().await;
    let gw = in_front_of(&app, BREAKER).start().await;
    for path in ["/bad", "/bad", "/good", "/bad", "/bad", "/good"] {
        gw.get(path).await.expect_status(if path == "/bad" { 500 } else { 200 });
    }
}

#[tokio::test]
async fn a_circuit_can_go_by_the_ratio_of_errors() {
    let app = upstream().on("/bad", Answer::status(500)).start().await;
    let settings = "retry = { attempts = 1 }\n[upstreams.app.circuit_breaker]\n\
                    error_ratio = \"50%\"\nmin_requests = 10\nwindow = \"1m\"\nopen_for = \"1h\"";
    let gw = in_front_of(&app, settings).start().await;
    for n in 0..9 {
        let path = if n % 2 == 0 { "/bad" } else { "/good" };
        gw.get(path).await.expect_status(if n % 2 == 0 { 500 } else { 200 });
    }
    gw.get("/bad").await.expect_status(500);
    gw.get("/good").await.expect_problem(503, "upstream.circuit_open");
}

/// The circuit is per server: the other one goes on.
#[tokio::test]
async fn one_servers_circuit_is_not_the_others() {
    let first = upstream().named("first").otherwise(Answer::status(500)).start().await;
    let second = upstream().named("second").start().await;
    let gw = two(&first, &second, &BREAKER.replace("500ms", "1h")).start().await;
    for _ in 0..10 {
        gw.get("/x").await;
    }
    assert_eq!(answering(&gw).await, ["second"]);
    assert_eq!(first.requests(), 3);
}

#[tokio::test]
async fn a_fallback_answers_when_nothing_can_be_reached() {
    let dead = DeadPort::new();
    let fallback = "[upstreams.app.fallback]\nstatus = 200\njson = { users = [], degraded = true }\n";
    let gw = in_front_of(&dead, fallback).start().await;
    let answer = gw.get("/").await.expect_status(200);
    assert_eq!(answer.json(), serde_json::json!({ "users": [], "degraded": true }));
    assert!(answer.header("x-request-id").is_some());
}

#[tokio::test]
async fn a_fallback_can_be_another_upstream() {
    let dead = DeadPort::new();
    let spare = upstream().named("spare").start().await;
    let gw = in_front_of(
        &dead,
        "fallback = { upstream = \"spare\" }\n[upstreams.spare]\nservers = [\"{spare}\"]\n",
    )
    .with("spare", &spare)
    .start()
    .await;
    let echo = gw.request("POST", "/x").body("payload").await.echo();
    assert_eq!((echo.server(), echo.body(), echo.target()), ("spare", "payload", "/x"));
}

/// What a service says itself is not replaced.
#[tokio::test]
async fn a_fallback_is_not_for_answers() {
    let app = upstream().otherwise(Answer::status(500)).start().await;
    let gw = in_front_of(&app, "[upstreams.app.fallback]\nstatus = 200\ntext = \"spare\"\n").start().await;
    gw.get("/").await.expect_status(500);
}
