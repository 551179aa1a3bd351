//! The hand-written Node gateway, whole: users and services in a database, endpoints over HTTP and a message broker, tokens
//! that are revoked by their `jti`, and a log that goes to the broker's exchange.

use std::io::Write;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::examples::example;
use crate::support::*;

const NAME: &str = "node-gateway.toml";

/// What a queue was asked, and who it was said to be from.
type Asked = (String, Option<String>);

/// What an operator does: runs the command beside the gateway's configuration, with its environment, and types `input`.
async fn operator(gw: &Gateway, broker: &str, arguments: &[&str], input: &str) -> String {
    let mut command = command(&gw.directory(), arguments);
    command.env("JWT_SECRET", SECRET).env("BROKER_URL", broker);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (input, shown) = (input.to_owned(), arguments.join(" "));
    let work = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    let output = within(&shown, work).await.unwrap();
    assert!(output.status.success(), "{shown}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Logs in as a browser did, and gives the bare token.
async fn log_in(gw: &Gateway, name: &str) -> String {
    let body = json!({ "username": name, "password": format!("{name}'s secret") });
    let request = gw.request("POST", "/login").header("content-type", "application/json");
    request.header("accept", "text/plain").body(body.to_string()).await.expect_status(200).text()
}

/// Asks the service as the front end did.
async fn dashboard(gw: &Gateway, token: &str) -> Response {
    let request = gw.request("POST", "/dashboard/7").header("authorization", &format!("Bearer {token}"));
    request.header("content-type", "application/json").body("{\"since\":1}").await
}

/// What a header `gatewayauth` says.
fn payload(header: Option<&str>) -> Value {
    serde_json::from_slice(&STANDARD.decode(header.expect("who it is from")).unwrap()).unwrap()
}

fn kind(letter: &Letter) -> &str {
    letter.properties.kind().as_ref().map_or("", |kind| kind.as_str())
}

/// The next record of a request for `uri` that was answered with `status`.
async fn recorded(log: &mut Letters, uri: &str, status: u16) -> Value {
    let wanted = |letter: &Letter| {
        kind(letter) == "access" && letter.json()["uri"] == uri && letter.json()["status"] == status
    };
    log.find(&format!("the record of {uri} with {status}"), wanted).await.json()
}

#[tokio::test]
async fn from_an_empty_database_to_a_revoked_token() {
    let rabbit = RabbitMq::start().await;
    let amqp = Amqp::connect(&rabbit.url()).await;
    amqp.exchange("log").await;
    let mut log = amqp.listen("log", "gateway").await;
    // The third service listens to a queue.
    let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let hears = asked.clone();
    let tickets = amqp
        .serve("tickets", move |letter| {
            hears.lock().unwrap().push((letter.text(), letter.header("gatewayauth")));
            [Told::json(&json!({ "tickets": [12_345_678_901_234_567_890_u64], "state": "newest" }))]
        })
        .await;
    let (users, more, reports) =
        (upstream().start().await, upstream().start().await, upstream().start().await);
    let user = json!({ "id": 7, "name": "Ada", "state": "old" });
    users.on("/api/users/7", Answer::json(user));
    reports.on("/usage", Answer::json(json!({ "used": 3, "state": "new" })));
    let servers = [("10.0.0.1:3001", &users), ("10.0.0.2:3001", &more), ("10.0.0.3:3002", &reports)];
    let url = rabbit.url();
    let gw = example(NAME, &servers).env("JWT_SECRET", SECRET).env("BROKER_URL", &url).start().await;
    gw.metric_is("edgeward_broker_up", &["broker=\"main\""], 1.0).await;

    // Its users and its services, by the commands that the example names.
    for (name, roles) in [("ada", "user,auditor"), ("eve", "user")] {
        let add = ["user", "add", name, "--roles", roles, "--password-stdin"];
        operator(&gw, &url, &add, &format!("{name}'s secret\n")).await;
    }
    gw.request("POST", "/dashboard/7").body("{}").await.expect_problem(404, "route.not_found");
    let (get, post) = (
        format!("http-get=http://{}/api/users/{{path.id}}", users.address()),
        format!("http-post=http://{}/usage", reports.address()),
    );
    let add = ["service", "add", "dashboard", "--path", "/dashboard/{id}", "--roles", "user,auditor"];
    let endpoints = ["--endpoint", &get, "--endpoint", &post, "--endpoint", "amqp=main/tickets"];
    operator(&gw, &url, &[&add[..], &endpoints[..]].concat(), "").await;

    // All roles are needed.
    gw.request("POST", "/dashboard/7").body("{}").await.expect_problem(401, "auth.credentials_required");
    let (ada, eve) = (log_in(&gw, "ada").await, log_in(&gw, "eve").await);
    dashboard(&gw, &eve).await.expect_problem(403, "auth.role_missing");
    assert_eq!((users.requests(), reports.requests(), asked.lock().unwrap().len()), (0, 0, 0));

    // All three at once; merged in their order, digit for digit.
    let whole = dashboard(&gw, &ada).await.expect_status(200);
    assert_eq!(
        whole.text(),
        r#"{"id":7,"name":"Ada","state":"newest","used":3,"tickets":[12345678901234567890]}"#
    );
    assert_eq!(whole.header("x-edgeward-completed"), Some("true"));
    assert_eq!((users.last().method.as_str(), reports.last().method.as_str()), ("GET", "POST"));
    assert_eq!(reports.last().body, "{\"since\":1}");
    let (body, auth) = asked.lock().unwrap().pop().unwrap();
    assert_eq!(body, "{\"since\":1}");
    // Each of them learns who it is from.
    let claims = payload(auth.as_deref());
    assert_eq!((&claims["sub"], &claims["roles"]), (&json!("ada"), &json!(["user", "auditor"])));
    for seen in [users.last(), reports.last()] {
        assert_eq!(payload(seen.header("gatewayauth")), claims);
    }
    let record = recorded(&mut log, "/dashboard/7", 200).await;
    assert_eq!(record["request_id"], whole.header("x-request-id").unwrap());
    assert_eq!((&record["user"], &record["route"]), (&json!("ada"), &json!("service:dashboard")));

    // One that fails is left out, and logged, whichever it is.
    reports.on("/usage", Answer::status(500));
    let partial = dashboard(&gw, &ada).await.expect_status(200);
    assert_eq!(partial.text(), r#"{"id":7,"name":"Ada","state":"newest","tickets":[12345678901234567890]}"#);
    assert_eq!(partial.header("x-edgeward-completed"), Some("false"));
    let record = recorded(&mut log, "/dashboard/7", 200).await;
    assert!(record["detail"].as_str().unwrap().contains("leg.status"), "{record}");
    reports.on("/usage", Answer::json(json!({ "used": 4, "state": "new" })));
    drop(tickets);
    amqp.delete_queue("tickets").await;
    let partial = dashboard(&gw, &ada).await.expect_status(200);
    assert_eq!(partial.text(), r#"{"id":7,"name":"Ada","state":"new","used":4}"#);
    let record = recorded(&mut log, "/dashboard/7", 200).await;
    assert!(record["detail"].as_str().unwrap().contains("broker.no_queue"), "{record}");

    // A revoked `jti` opens nothing, and no other token is touched.
    let other = log_in(&gw, "ada").await;
    let id = claims["jti"].as_str().expect("a token has an id");
    operator(&gw, &url, &["token", "revoke", "--jti", id], "").await;
    dashboard(&gw, &ada).await.expect_problem(401, "auth.token_revoked");
    let asked_before = users.requests();
    dashboard(&gw, &other).await.expect_status(200);
    assert_eq!(users.requests(), asked_before + 1);
    let record = recorded(&mut log, "/dashboard/7", 401).await;
    assert_eq!(record["reason"], "auth.token_revoked");

    // Lines of the process log go the same way.
    gw.signal(rustix::process::Signal::HUP);
    let told = log
        .find("a line of the log", |letter| {
            kind(letter) == "log"
                && letter.json()["message"].as_str().unwrap().contains("configuration reloaded")
        })
        .await;
    assert_eq!((told.exchange.as_str(), told.routing_key.as_str()), ("log", "gateway"));
    dashboard(&gw, &other).await.expect_status(200);
    operator(&gw, &url, &["service", "remove", "dashboard"], "").await;
    dashboard(&gw, &other).await.expect_problem(404, "route.not_found");
    gw.stop().await;
}
