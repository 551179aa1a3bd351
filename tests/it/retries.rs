//! Retries: on another server, within the time, and never of a request that may have had an effect.

use crate::support::*;

/// Two servers, asked in turn.
fn pair(first: &impl Addressed, second: &impl Addressed, retry: &str) -> GatewayBuilder {
    gateway(&format!(
        "[upstreams.app]\nservers = [\"{{first}}\", \"{{second}}\"]\n{retry}\n\
         [[routes]]\npath = \"/*\"\nupstream = \"app\"\n"
    ))
    .with("first", first)
    .with("second", second)
}

/// Nothing was sent: any method may go to the other server.
#[tokio::test]
async fn a_refused_connection_is_tried_elsewhere_whatever_the_method() {
    let (dead, app) = (DeadPort::new(), upstream().start().await);
    let gw = pair(&dead, &app, "").start().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "GET", "POST"] {
        let answer = gw.request(method, "/x").body("payload").await.expect_status(200);
        assert_eq!(answer.echo().body(), "payload", "{method}");
    }
}

#[tokio::test]
async fn a_reset_is_tried_elsewhere_when_the_method_is_idempotent() {
    let bad = upstream().otherwise(Answer::Reset).start().await;
    let app = upstream().start().await;
    let gw = pair(&bad, &app, "").start().await;
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        for _ in 0..2 {
            gw.request(method, "/x").await.expect_status(200);
        }
    }
}

#[tokio::test]
async fn a_post_that_may_have_had_an_effect_is_not_repeated() {
    let bad = upstream().otherwise(Answer::Reset).start().await;
    let gw = in_front_of(&bad, "retry = { attempts = 3, budget = \"100%\" }").start().await;
    gw.request("POST", "/x").body("payload").await.expect_problem(502, "upstream.reset");
    assert_eq!(bad.requests(), 1);
    let busy = upstream().otherwise(Answer::status(503)).start().await;
    let gw = in_front_of(&busy, "retry = { attempts = 3, budget = \"100%\" }").start().await;
    gw.request("POST", "/x").await.expect_status(503);
    assert_eq!(busy.requests(), 1);
}

#[tokio::test]
async fn unless_the_configuration_says_that_it_may_be() {
    let app = upstream().otherwise(Answer::sequence([Answer::status(503), Answer::Echo])).start().await;
    let gw = in_front_of(&app, "retry = { attempts = 2, non_idempotent = true }").start().await;
    let answer = gw.request("POST", "/x").body("payload").await;
    assert_eq!(answer.echo().body(), "payload", "the body is sent again, whole");
    assert_eq!(app.requests(), 2);
}

#[tokio::test]
async fn gateway_statuses_are_tried_elsewhere_and_others_are_not() {
    for (status, attempts) in [(502, 2), (503, 2), (504, 2), (500, 1), (404, 1), (429, 1)] {
        let app = upstream()
            .otherwise(Answer::sequence([Answer::status(status), Answer::text("ok")]))
            .start()
            .await;
        let gw = in_front_of(&app, "").start().await;
        let expected = if attempts == 2 { 200 } else { status };
        gw.get("/").await.expect_status(expected);
        assert_eq!(app.requests(), attempts, "{status}");
    }
}

#[tokio::test]
async fn what_is_tried_again_can_be_chosen() {
    let app = upstream().otherwise(Answer::sequence([Answer::status(500), Answer::text("ok")])).start().await;
    let gw = in_front_of(&app, "retry = { on = [\"5xx\"] }").start().await;
    gw.get("/").await.expect_status(200);
    let app = upstream().otherwise(Answer::sequence([Answer::status(503), Answer::text("ok")])).start().await;
    let gw = in_front_of(&app, "retry = { on = [\"connect\"] }").start().await;
    gw.get("/").await.expect_status(503);
    let hung = upstream().otherwise(Answer::sequence([Answer::Hang, Answer::text("ok")])).start().await;
    let gw = in_front_of(&hung, "retry = { on = [\"timeout\"] }\ntimeouts = { read = \"400ms\" }")
        .and("[limits]\nbody_timeout = \"300ms\"\n")
        .start()
        .await;
    gw.get("/").await.expect_status(200);
}

/// One attempt in all turns it off.
#[tokio::test]
async fn retries_can_be_turned_off() {
    let app = upstream().otherwise(Answer::sequence([Answer::status(503), Answer::text("ok")])).start().await;
    let gw = in_front_of(&app, "retry = { attempts = 1 }").start().await;
    gw.get("/").await.expect_status(503);
    assert_eq!(app.requests(), 1);
}

#[tokio::test]
async fn the_last_answer_is_passed_on_as_it_came() {
    let app = upstream().otherwise(Answer::status(503).header("x-own", "mine")).start().await;
    let gw = in_front_of(&app, "retry = { attempts = 3, budget = \"100%\" }").start().await;
    let answer = gw.get("/").await.expect_status(503);
    assert_eq!(answer.header("x-own"), Some("mine"));
    assert_eq!(app.requests(), 3);
}

/// More than 64 KiB are not kept for another try.
#[tokio::test]
async fn large_bodies_are_sent_once() {
    for (size, requests) in [(60_000, 2), (70_000, 1)] {
        let app =
            upstream().otherwise(Answer::sequence([Answer::status(503), Answer::text("ok")])).start().await;
        let gw = in_front_of(&app, "").start().await;
        let expected = if requests == 2 { 200 } else { 503 };
        gw.request("PUT", "/").body(vec![b'x'; size]).await.expect_status(expected);
        assert_eq!(app.requests(), requests, "{size} bytes");
        assert!(app.seen().iter().all(|seen| seen.body_len == size as u64), "each got the whole body");
    }
}

/// A service in trouble is not buried under retries: each request deposits its share, each retry costs one.
#[tokio::test]
async fn the_budget_bounds_retries() {
    let app = upstream().otherwise(Answer::status(503)).start().await;
    let gw = in_front_of(&app, "retry = { attempts = 2, budget = \"20%\", backoff = \"1ms\" }").start().await;
    let connection = gw.client().connect().await;
    for _ in 0..200 {
        connection.get("/").await.expect_status(503);
    }
    let retries = app.requests() - 200;
    // 20 % of 200, and the floor of 3 a second for as long as this took.
    assert!((3..110).contains(&retries), "{retries} retries of 200 requests");
    let counted = gw.metric("edgeward_upstream_retries_total", &["app"]).await.unwrap();
    assert_eq!(counted as usize, retries);
}

/// The connection was closed by the server while it lay idle: that costs nobody an error.
#[tokio::test]
async fn a_connection_closed_while_idle_is_no_error() {
    let app = RawUpstream::answering_once("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let gw = in_front_of(&app, "").start().await;
    for _ in 0..20 {
        gw.get("/").await.expect_status(200);
    }
}

/// After the first byte of an answer went out there is no second try.
#[tokio::test]
async fn an_answer_that_began_is_not_begun_again() {
    let app = upstream().otherwise(Answer::Truncated(100, "half".into())).start().await;
    let gw = in_front_of(&app, "retry = { attempts = 5, budget = \"100%\" }").start().await;
    let answer = gw.get("/").send().await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.broken.is_some() || answer.status == 502));
    assert!(app.requests() <= 1 + 4);
}

#[tokio::test]
async fn every_attempt_is_in_the_log() {
    let (dead, app) = (DeadPort::new(), upstream().start().await);
    let gw = pair(&dead, &app, "")
        .and("[log.access]\nformat = '$request_uri [$upstream_addr] [$upstream_status] $status'\n")
        .start()
        .await;
    for path in ["/1", "/2"] {
        gw.get(path).await.expect_status(200);
    }
    let (dead, app) = (dead.address(), app.address());
    let lines = [gw.logged("/1").await, gw.logged("/2").await];
    let both = format!("[{dead}, {app}] [502, 200] 200");
    assert!(lines.iter().any(|line| line.ends_with(&both)), "{lines:?}");
}
