//! Messages: routes and legs that a queue answers, and what is published, over a real broker.

use std::time::{Duration, Instant};

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::support::*;

/// A gateway with the routes of these tests, before the broker at `url`.
fn before(url: &str, more: &str) -> GatewayBuilder {
    gateway(&format!(
        "[log.access]\nformat = \"json\"\n[brokers.main]\nurl = \"{url}\"\nchannels = 2\n{BROKER_END}{ROUTES}{more}"
    ))
}

/// Where a test adds settings of the broker.
const BROKER_END: &str = "# end of the broker\n";

const ROUTES: &str = r#"
[[routes]]
name = "ask"
path = "/ask/{id}"
amqp = { broker = "main", queue = "tickets", timeout = "5s", reply_bytes = "64KiB" }
[[routes]]
name = "quick"
path = "/quick"
amqp = { broker = "main", queue = "tickets", timeout = "150ms" }
[[routes]]
name = "nobody"
path = "/nobody"
amqp = { broker = "main", queue = "nobody" }
[[routes]]
name = "events"
path = "/events/{kind}"
amqp = { broker = "main", exchange = "events", routing_key = "shop.{path.kind}", publish = true }
[[routes]]
name = "leave"
path = "/leave"
amqp = { broker = "main", queue = "letters", publish = true }
[[routes]]
name = "lost"
path = "/lost"
amqp = { broker = "main", exchange = "not-there", publish = true }
"#;

/// Answers with what it was asked, and what it was told beside.
fn echo(letter: &Letter) -> Vec<Told> {
    let header = |name: &str| letter.header(name);
    vec![Told::json(&json!({
        "asked": letter.json(),
        "raw": letter.text(),
        "type": letter.content_type(),
        "method": header("request.method"),
        "uri": header("request.uri"),
        "id": header("path.id"),
        "request": header("x-request-id"),
        "trace": header("traceparent"),
        "subject": header("x-auth-subject"),
        "cookie": header("cookie"),
        "expiration": letter.properties.expiration().as_ref().map(|it| it.as_str()),
    }))]
}

#[tokio::test]
async fn a_queue_answers() {
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    let _served = service.serve("tickets", echo).await;
    let gw = before(&rabbit.url(), "").start().await;
    gw.metric_is("edgeward_broker_up", &["broker=\"main\""], 1.0).await;

    let answer = gw
        .request("POST", "/ask/7%20a?x=1")
        .header("content-type", "application/json")
        .header("x-auth-subject", "root")
        .header("cookie", "a=b")
        .body(r#"{"number":12345678901234567890.10}"#)
        .await
        .expect_status(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let told = answer.json();
    assert_eq!(told["raw"], r#"{"number":12345678901234567890.10}"#, "sent on as it is");
    assert_eq!(told["type"], "application/json");
    assert_eq!(
        (&told["method"], &told["uri"], &told["id"]),
        (&json!("POST"), &json!("/ask/7%20a?x=1"), &json!("7 a"))
    );
    assert_eq!(told["request"].as_str(), answer.header("x-request-id"));
    assert!(told["trace"].as_str().is_some_and(|trace| trace.starts_with("00-")));
    assert_eq!(
        (&told["subject"], &told["cookie"]),
        (&Value::Null, &Value::Null),
        "only the gateway says who it is from"
    );
    let left: u64 = told["expiration"].as_str().unwrap().parse().unwrap();
    assert!((1..=5000).contains(&left), "{left}");

    // Without a body the message is what path and query say.
    let told = gw.get("/ask/8?lang=de&tag=a&tag=b%26").await.expect_status(200).json();
    assert_eq!(
        told["asked"],
        json!({ "path": { "id": "8" }, "query": { "lang": "de", "tag": ["a", "b&"] } })
    );
    // Likewise over HTTP/2, and by HEAD.
    let told = gw.client().http2().get("/ask/9").await.expect_status(200).json();
    assert_eq!(told["asked"]["path"]["id"], "9");
    assert!(gw.request("HEAD", "/ask/9").await.expect_status(200).body.is_empty());

    let ready = gw.admin().get("/readyz?verbose").await.text();
    assert!(ready.contains("[+] broker main: amqp://guest:***@127.0.0.1:"), "{ready}");
    gw.metric_is("edgeward_broker_replies_total", &["broker=\"main\"", "event=\"delivered\""], 4.0).await;
    gw.metric_is("edgeward_broker_pending", &["broker=\"main\""], 0.0).await;
    gw.metric_is("edgeward_broker_confirmed_total", &["broker=\"main\""], 4.0).await;
}

#[tokio::test]
async fn what_is_no_json_is_never_published() {
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    service.queue("tickets").await;
    let gw = before(&rabbit.url(), "[defaults]\nbody_bytes = \"1KiB\"\n").start().await;
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    let post = |kind: &str, body: &str| {
        gw.request("POST", "/ask/1").header("content-type", kind).body(body.to_owned())
    };
    post("text/plain", "{}").await.expect_problem(415, "request.media_type");
    for broken in ["{", "{\"a\":1,\"a\":2}", "nonsense", "{}{}", &"[".repeat(1000)] {
        post("application/json", broken).await.expect_problem(400, "request.body_not_json");
    }
    post("application/json", &format!("\"{}\"", "x".repeat(2000)))
        .await
        .expect_problem(413, "request.body_too_large");
    gw.get("/ask/1?x=%ff").await.expect_problem(400, "aggregate.input_missing");
    assert_eq!(service.waiting("tickets").await, 0);
}

#[tokio::test]
async fn what_is_wrong_with_an_answer_is_told_apart() {
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    let answers = |letter: &Letter| match letter.header("path.id").as_deref() {
        Some("text") => vec![Told::bytes("hello")],
        Some("empty") => vec![Told::bytes("")],
        Some("deep") => vec![Told::bytes("[".repeat(10_000))],
        Some("large") => vec![Told::json(&json!("x".repeat(70_000)))],
        // Somebody else's id first, then one that cannot be, then none of ours; and the right one twice.
        Some("odd") => vec![
            Told::json(&json!("foreign")).correlation(&"A".repeat(32)),
            Told::json(&json!("foreign")).correlation("../../etc/passwd"),
            Told::json(&json!("right")),
            Told::json(&json!("duplicate")),
        ],
        _ => Vec::new(),
    };
    let _served = service.serve("tickets", answers).await;
    let gw = before(&rabbit.url(), "").start().await;
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    for unreadable in ["text", "empty", "deep"] {
        let answer = gw.get(&format!("/ask/{unreadable}")).await.expect_problem(502, "broker.bad_reply");
        assert!(!answer.text().contains("hello") && !answer.text().contains("main"), "{}", answer.text());
    }
    gw.get("/ask/large").await.expect_problem(502, "broker.reply_too_large");
    assert_eq!(gw.get("/ask/odd").await.expect_status(200).text(), "\"right\"");
    gw.metric_is("edgeward_broker_replies_total", &["event=\"foreign\""], 2.0).await;
    gw.metric_is("edgeward_broker_replies_total", &["event=\"late\""], 1.0).await;
    // The next one gets its own answer.
    assert_eq!(gw.get("/ask/odd").await.expect_status(200).text(), "\"right\"");
}

#[tokio::test]
async fn a_silent_service_costs_no_more_than_the_timeout() {
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    service.queue("tickets").await;
    let mut letters = service.take("tickets").await;
    let gw = before(
        &rabbit.url(),
        "[[routes]]\nname = \"short\"\npath = \"/short\"\ntimeout = \"120ms\"\namqp = { broker = \"main\", queue = \"tickets\" }\n",
    )
    .start()
    .await;
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    gw.get("/quick").await.expect_problem(504, "broker.timeout");
    let late = letters.next().await;
    assert!(
        late.properties
            .expiration()
            .as_ref()
            .is_some_and(|left| left.as_str().parse::<u64>().unwrap() <= 150)
    );
    gw.get("/short").await.expect_problem(504, "request.deadline_exceeded");
    // What comes then reaches nobody.
    service.reply(&late, Told::json(&json!("too late"))).await;
    gw.metric_is("edgeward_broker_replies_total", &["event=\"late\""], 1.0).await;
    gw.metric_is("edgeward_broker_failures_total", &["reason=\"timeout\""], 2.0).await;
    gw.metric_is("edgeward_broker_pending", &[], 0.0).await;
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place() {
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    service.queue("tickets").await;
    let gw = before(&rabbit.url(), "").replacing(BROKER_END, "max_pending = 1\n").start().await;
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    let mut first = gw.raw().await;
    first.send("GET /ask/1 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    gw.metric_is("edgeward_broker_pending", &[], 1.0).await;
    gw.get("/ask/2").await.expect_problem(503, "broker.full");
    drop(first);
    gw.metric_is("edgeward_broker_pending", &[], 0.0).await;
    let _served = service.serve("tickets", echo).await;
    gw.get("/ask/3").await.expect_status(200);
}

#[tokio::test]
async fn no_queue_is_known_at_once() {
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    let gw = before(&rabbit.url(), "").start().await;
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    let began = Instant::now();
    let answer = gw.get("/nobody").await.expect_problem(503, "broker.no_queue");
    assert!(began.elapsed() < Duration::from_secs(5), "it does not wait for the deadline");
    for inside in ["nobody\"", "main", "amqp", "127.0.0.1"] {
        assert!(!answer.text().contains(inside), "{}", answer.text());
    }
    let line: Value = serde_json::from_str(&gw.logged("broker.no_queue").await).unwrap();
    assert_eq!(line["detail"], "broker main: no queue takes the message");
    gw.metric_is("edgeward_broker_returned_total", &[], 1.0).await;
    // The queue comes, and with it answers: nothing is remembered.
    let _served = service.serve("nobody", echo).await;
    gw.get("/nobody").await.expect_status(200);
    assert!(!gw.stderr().contains("returned us"), "messages are not logged: {}", gw.stderr());
}

#[tokio::test]
async fn what_is_published_is_confirmed_and_there() {
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    service.exchange("events").await;
    service.queue("letters").await;
    let mut heard = service.listen("events", "shop.*").await;
    let _served = service.serve("tickets", echo).await;
    let gw = before(&rabbit.url(), "").start().await;
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    let answer = gw.request("POST", "/events/created").body(r#"{"id":7}"#).await.expect_status(202);
    assert_eq!(answer.json()["status"], "accepted");
    assert_eq!(answer.json()["request_id"].as_str(), answer.header("x-request-id"));
    let letter = heard.next().await;
    assert_eq!((letter.text().as_str(), letter.routing_key.as_str()), (r#"{"id":7}"#, "shop.created"));
    assert_eq!(letter.header("path.kind").as_deref(), Some("created"));
    assert_eq!(letter.properties.delivery_mode(), &Some(2), "kept on disk by who keeps");
    assert_eq!((letter.properties.expiration(), letter.properties.reply_to()), (&None, &None));
    // A value is one word of the key.
    for no_word in ["a.b", "%23", "*", "a%0ab"] {
        gw.request("POST", &format!("/events/{no_word}"))
            .body("{}")
            .await
            .expect_problem(400, "aggregate.input_missing");
    }
    gw.request("POST", "/leave").body("[1]").await.expect_status(202);
    assert_eq!(service.waiting("letters").await, 1);

    // An exchange that is not there ends its own channel, and nobody else's.
    for round in 0..20 {
        gw.request("POST", "/lost").body("{}").await.expect_problem(502, "broker.no_exchange");
        let (asked, told) = (format!("/ask/{round}"), format!("/events/e{round}"));
        let asked = gw.get(&asked);
        let told = gw.request("POST", &told).body("{}");
        let lost = gw.request("POST", "/lost").body("{}");
        let (asked, told, lost) = tokio::join!(asked.into_future(), told.into_future(), lost.into_future());
        asked.expect_status(200);
        told.expect_status(202);
        lost.expect_problem(502, "broker.no_exchange");
    }
    // Many at once hear the same: who was first, and who comes when the channel has just gone.
    let client = gw.client().http2().connect().await;
    for _ in 0..100 {
        let lost = (0..20).map(|_| client.request("POST", "/lost").body("{}").into_future());
        for answer in within("answers", futures_util::future::join_all(lost)).await {
            answer.expect_problem(502, "broker.no_exchange");
        }
    }
    // What nobody is bound to get is not taken.
    drop(heard);
    service.delete_exchange("events").await;
    gw.request("POST", "/events/x").body("{}").await.expect_problem(502, "broker.no_exchange");
    service.exchange("events").await;
    gw.request("POST", "/events/x").body("{}").await.expect_problem(503, "broker.no_queue");
}

/// A message that the broker refuses ends its channel; those that wait behind it go over the next one.
#[tokio::test]
async fn a_refused_message_is_refused_alone() {
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    service.exchange("events").await;
    let mut heard = service.listen("events", "shop.*").await;
    rabbit.ctl(&["add_user", "narrow", "narrow"]);
    rabbit.ctl(&["set_permissions", "narrow", "", ".*", ".*"]);
    rabbit.ctl(&["set_topic_permissions", "narrow", "events", "^shop\\.good", ""]);
    let gw = before(&rabbit.url_as("narrow", "narrow", "/"), "").start().await;
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    let told = |kind: &str| gw.request("POST", &format!("/events/{kind}")).body("{}").into_future();
    for round in 0..3 {
        // The channel's first message, so that the others wait.
        rabbit.freeze();
        let bad = tokio::spawn(told("bad"));
        gw.metric_is("edgeward_broker_pending", &[], 1.0).await;
        let good: Vec<_> = (0..10).map(|_| tokio::spawn(told("good"))).collect();
        gw.metric_is("edgeward_broker_pending", &[], 11.0).await;
        rabbit.thaw();
        within("an answer", bad).await.unwrap().expect_problem(502, "broker.refused");
        for good in good {
            within("an answer", good).await.unwrap().expect_status(202);
            assert_eq!(heard.next().await.routing_key, "shop.good", "{round}");
        }
        // It ends the channel again, for the next round.
        told("bad").await.expect_problem(502, "broker.refused");
    }
}

/// Confirmations come for many messages at once, and those that were returned are among them: each is told its own.
#[tokio::test]
async fn among_many_messages_each_is_told_its_own() {
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    service.exchange("events").await;
    service.queue("even").await;
    service.bind("even", "events", "shop.even").await;
    let gw = before(&rabbit.url(), "").start().await;
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    let client = gw.client().http2().connect().await;
    let sent = (0..400).map(|number| {
        let kind = if number % 2 == 0 { "even" } else { "odd" };
        let asked = client.request("POST", &format!("/events/{kind}")).body(number.to_string());
        async move { (number, asked.await.status) }
    });
    let told = futures_util::future::join_all(sent).await;
    for (number, status) in told {
        assert_eq!(status, if number % 2 == 0 { 202 } else { 503 }, "{number}");
    }
    assert_eq!(service.waiting("even").await, 200);
    gw.metric_is("edgeward_broker_returned_total", &[], 200.0).await;
}

#[tokio::test]
async fn two_services_over_http_and_one_over_a_queue_are_one_answer() {
    const LEGS: &str = r#"
[[routes]]
name = "all"
path = "/all/{id}"
[routes.aggregate]
report = "body"
[[routes.aggregate.legs]]
name = "order"
upstream = "app"
path = "/orders/{path.id}"
[[routes.aggregate.legs]]
name = "customer"
upstream = "app"
path = "/users/{order.userId}"
group = "customer"
[[routes.aggregate.legs]]
name = "tickets"
amqp = { broker = "main", queue = "tickets", timeout = "3s" }
body = { order = "{order.id}", text = "for {path.id}" }
forward_headers = ["Accept-Language"]
group = "tickets"
[[routes.aggregate.legs]]
name = "plain"
amqp = { broker = "main", queue = "tickets" }
target = "asked"
group = "plain"
[[routes]]
name = "needed"
path = "/needed/*"
[routes.aggregate]
[[routes.aggregate.legs]]
name = "tickets"
amqp = { broker = "main", queue = "nobody" }
required = true
[[routes]]
name = "each"
path = "/each"
[routes.aggregate]
[[routes.aggregate.legs]]
name = "list"
upstream = "app"
path = "/list"
[[routes.aggregate.legs]]
name = "ticket"
for_each = "list.items"
amqp = { broker = "main", queue = "tickets" }
body = { n = "{item}" }
group = "tickets"
target = "asked"
"#;
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    let answers = |letter: &Letter| {
        let language = letter.header("accept-language");
        let uri = letter.header("request.uri");
        vec![Told::json(&json!({ "asked": letter.json(), "language": language, "uri": uri }))]
    };
    let served = service.serve("tickets", answers).await;
    let app = upstream()
        .on("/orders/7", Answer::json(json!({ "id": 7, "userId": "u1" })))
        .on("/users/u1", Answer::json(json!({ "name": "Ann" })))
        .on("/list", Answer::json(json!({ "items": [1, 2, 1] })))
        .start()
        .await;
    let more = format!("[upstreams.app]\nservers = [\"{{app}}\"]\n{LEGS}");
    let gw = before(&rabbit.url(), &more).with("app", &app).start().await;
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    let answer =
        gw.get("/all/7?x=y").header("accept-language", "de").header("x-secret", "s").await.expect_status(200);
    assert_eq!(answer.header("x-edgeward-completed"), Some("true"));
    let told = answer.json();
    assert_eq!((&told["id"], &told["customer"]), (&json!(7), &json!({ "name": "Ann" })));
    let asked = json!({ "asked": { "order": 7, "text": "for 7" }, "language": "de", "uri": null });
    assert_eq!(told["tickets"], asked);
    assert_eq!(told["plain"], json!({ "path": { "id": "7" }, "query": { "x": "y" } }));
    assert_eq!(
        (&told["_legs"]["tickets"]["status"], &told["_legs"]["tickets"]["attempts"]),
        (&json!(200), &json!(1))
    );
    // Each element is asked about, equal ones too: a message may have an effect.
    let each = gw.get("/each").await.expect_status(200).json();
    assert_eq!(each["tickets"], json!([{ "n": 1 }, { "n": 2 }, { "n": 1 }]));

    let failed = gw.get("/needed/x").await.expect_problem(503, "aggregate.leg_unavailable");
    assert_eq!(failed.json()["leg"], "tickets");
    // One of them gone: the others are told, and that it is missing.
    drop(served);
    service.delete_queue("tickets").await;
    let partial = gw.get("/all/7").await.expect_status(200);
    assert_eq!(partial.header("x-edgeward-completed"), Some("false"));
    assert_eq!(partial.json()["_legs"]["tickets"]["reason"], "broker.no_queue");
    assert_eq!(partial.json()["customer"], json!({ "name": "Ann" }));
    gw.metric_is(
        "edgeward_aggregate_leg_failures_total",
        &["leg=\"tickets\"", "reason=\"broker.no_queue\"", "route=\"all\""],
        1.0,
    )
    .await;
}

#[tokio::test]
async fn a_broker_that_comes_later_is_found() {
    let mut rabbit = RabbitMq::start().await;
    rabbit.kill();
    let gw =
        before(&rabbit.url(), "[[routes]]\npath = \"/plain\"\nrespond = { text = \"here\" }\n").start().await;
    gw.get("/plain").await.expect_status(200);
    let began = Instant::now();
    let answer = gw.get("/ask/1").await.expect_problem(503, "broker.down");
    assert!(began.elapsed() < Duration::from_secs(2), "nobody waits for it");
    assert!(!answer.text().contains("127.0.0.1"));
    gw.request("POST", "/leave").body("{}").await.expect_problem(503, "broker.down");
    let ready = gw.admin().get("/readyz?verbose").await.expect_status(200).text();
    assert!(ready.contains("[-] broker main: amqp://guest:***@"), "{ready}");
    assert!(!gw.stderr().contains("guest:guest"), "{}", gw.stderr());
    rabbit.again().await;
    let service = Amqp::connect(&rabbit.url()).await;
    let _served = service.serve("tickets", echo).await;
    eventually("the broker is found", async || (gw.get("/ask/1").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn calls_under_way_fail_at_once_when_the_broker_dies_and_the_next_succeed() {
    let mut rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    service.queue("tickets").await;
    let gw = before(&rabbit.url(), "").start().await;
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    let client = gw.client().http2().connect().await;
    let began = Instant::now();
    let asked: Vec<_> = (0..8).map(|id| client.get(&format!("/ask/{id}"))).collect();
    let asked = asked.into_iter().map(|request| request.into_future());
    let asked = tokio::spawn(futures_util::future::join_all(asked));
    // What is sent is lost; the rest would be told that there is no broker.
    gw.metric_is("edgeward_broker_published_total", &[], 8.0).await;
    rabbit.kill();
    for answer in within("answers", asked).await.unwrap() {
        answer.expect_problem(502, "broker.lost");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "before their deadline");
    gw.metric_is("edgeward_broker_up", &[], 0.0).await;
    gw.get("/ask/1").await.expect_problem(503, "broker.down");
    rabbit.again().await;
    let service = Amqp::connect(&rabbit.url()).await;
    let _served = service.serve("tickets", echo).await;
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    gw.get("/ask/1").await.expect_status(200);
    gw.metric_is("edgeward_broker_pending", &[], 0.0).await;
}

/// A reload that does not change the broker keeps its connection, and the calls over it.
#[tokio::test]
async fn a_reload_keeps_the_connection() {
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    service.queue("tickets").await;
    let mut letters = service.take("tickets").await;
    let gw = before(&rabbit.url(), "[server]\ncontrol_socket = \"run/control.sock\"\n").start().await;
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    let asked = tokio::spawn(gw.get("/ask/1").into_future());
    let letter = letters.next().await;
    gw.rewrite("edgeward.toml", |text| text.replace("name = \"quick\"", "name = \"quicker\""));
    let ran = gw.order("reload").await;
    assert_eq!(ran.status, 0, "{}", ran.complaints());
    service.reply(&letter, Told::json(&json!("still there"))).await;
    assert_eq!(within("an answer", asked).await.unwrap().expect_status(200).text(), "\"still there\"");
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    assert_eq!(gw.stderr().matches("connected to the broker").count(), 1, "{}", gw.stderr());
    // Another password, or another of its settings, is another broker.
    gw.rewrite("edgeward.toml", |text| text.replace("channels = 2", "channels = 1"));
    assert_eq!(gw.order("reload").await.status, 0);
    eventually("a new connection", async || {
        (gw.stderr().matches("connected to the broker").count() == 2).then_some(())
    })
    .await;
    let asked = tokio::spawn(gw.get("/ask/2").into_future());
    service.reply(&letters.next().await, Told::json(&json!("here, too"))).await;
    assert_eq!(within("an answer", asked).await.unwrap().expect_status(200).text(), "\"here, too\"");
}

#[tokio::test]
async fn a_wrong_password_is_told_without_it() {
    let rabbit = RabbitMq::start().await;
    let url = rabbit.url_as("guest", "n0tThis", "/");
    let gw = before(&url, "").start().await;
    gw.get("/ask/1").await.expect_problem(503, "broker.down");
    let ready = eventually("what is wrong is told", async || {
        let ready = gw.admin().get("/readyz?verbose").await.text();
        ready.contains("ACCESS_REFUSED").then_some(ready)
    })
    .await;
    assert!(!ready.contains("n0tThis") && !gw.stderr().contains("n0tThis"), "{ready}\n{}", gw.stderr());
    let explained = before(&url, "").command(&["explain", "GET", "http://x/ask/7"]).await;
    let text = explained.stdout;
    assert!(text.contains("queue \"tickets\" of broker main") && !text.contains("n0tThis"), "{text}");
}

/// Messages of anybody else on the broker never become answers.
#[tokio::test]
async fn nobody_can_answer_who_was_not_asked() {
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    service.queue("tickets").await;
    let mut letters = service.take("tickets").await;
    let gw = before(&rabbit.url(), "").start().await;
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    let one = tokio::spawn(gw.get("/ask/1").into_future());
    let first = letters.next().await;
    let two = tokio::spawn(gw.get("/ask/2").into_future());
    let second = letters.next().await;
    let (one_id, two_id) =
        (first.correlation().unwrap().to_owned(), second.correlation().unwrap().to_owned());
    assert_ne!(one_id, two_id);
    // Who was asked the first question guesses at the second one's id: the number is known, the proof is not.
    let place = first.properties.reply_to().clone().unwrap();
    for (at, _) in one_id.char_indices() {
        let mut guess = one_id.clone();
        let other = if guess.as_bytes()[at] == b'A' { "B" } else { "A" };
        guess.replace_range(at..=at, other);
        let properties = BasicProperties::default().with_correlation_id(guess.as_str().into());
        service.publish("", place.as_str(), b"\"forged\"", properties).await;
    }
    service.reply(&second, Told::json(&json!("two"))).await;
    service.reply(&first, Told::json(&json!("one"))).await;
    assert_eq!(within("an answer", one).await.unwrap().expect_status(200).text(), "\"one\"");
    assert_eq!(within("an answer", two).await.unwrap().expect_status(200).text(), "\"two\"");
    gw.metric_is("edgeward_broker_replies_total", &["event=\"foreign\""], 32.0).await;
}

/// What only TLS carries, to a broker whose certificate `ca` vouches for; and to none that it does not vouch for.
#[tokio::test]
async fn a_broker_over_tls_proves_who_it_is() {
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    let _served = service.serve("tickets", echo).await;
    let (authority, stranger) = (Authority::new(), Authority::new());
    let relay = TlsRelay::before(rabbit.address(), &authority.server(&["127.0.0.1"])).await;
    let url = format!("amqps://guest:guest@{}/%2f", relay.address());
    let gw = before(&url, "")
        .replacing(BROKER_END, "ca = \"ca.pem\"\n")
        .file("ca.pem", &authority.pem)
        .start()
        .await;
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    gw.get("/ask/1").await.expect_status(200);

    let other = before(&url, "")
        .replacing(BROKER_END, "ca = \"ca.pem\"\n")
        .file("ca.pem", &stranger.pem)
        .start()
        .await;
    other.get("/ask/1").await.expect_problem(503, "broker.down");
    let ready = eventually("what is wrong is told", async || {
        let ready = other.admin().get("/readyz?verbose").await.text();
        ready.contains("certificate").then_some(ready)
    })
    .await;
    assert!(ready.contains("[-] broker main"), "{ready}");
}

/// How many threads of the library a gateway has: one for each connection.
fn library_threads(gw: &Gateway) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gw.pid())).unwrap().flatten();
    let name =
        |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.map(name).filter(|name| name.starts_with("lapin")).count()
}

/// A broker that hangs does not say goodbye. When it is used no longer nothing is left of it all the same.
#[tokio::test]
async fn a_broker_that_hangs_can_be_let_go_of() {
    let rabbit = RabbitMq::start().await;
    let broker = format!("[brokers.main]\nurl = \"{}\"\n", rabbit.url());
    let rest = "[server]\ncontrol_socket = \"run/control.sock\"\n[[routes]]\npath = \"/\"\nrespond = { text = \"here\" }\n";
    let gw = gateway(&format!("{broker}{rest}")).start().await;
    gw.metric_is("edgeward_broker_up", &[], 1.0).await;
    assert_eq!(library_threads(&gw), 1);
    rabbit.freeze();
    gw.rewrite("edgeward.toml", |text| text.replace(&broker, ""));
    let ran = gw.order("reload").await;
    assert_eq!(ran.status, 0, "{}", ran.complaints());
    eventually("its thread ends", async || (library_threads(&gw) == 0).then_some(())).await;
    gw.get("/").await.expect_status(200);
    rabbit.thaw();
}

/// The library has a thread for each connection it makes: one that never comes to anything must not keep it.
#[tokio::test]
async fn a_peer_that_says_nothing_keeps_no_threads() {
    let silent = RawUpstream::script(|mut connection| async move {
        connection.rest().await;
    })
    .await;
    let url = format!("amqp://127.0.0.1:{}", silent.address().port());
    let gw = before(&url, "").replacing(BROKER_END, "connect_timeout = \"50ms\"\n").start().await;
    eventually("many attempts", async || (silent.connections() >= 8).then_some(())).await;
    gw.get("/ask/1").await.expect_problem(503, "broker.down");
    eventually("threads end", async || (library_threads(&gw) <= 2).then_some(())).await;
}

#[tokio::test]
async fn what_the_broker_will_not_take_is_told() {
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    let mut arguments = lapin::types::FieldTable::default();
    arguments.insert("x-max-length".into(), 1.into());
    arguments.insert("x-overflow".into(), lapin::types::AMQPValue::LongString("reject-publish".into()));
    let options = lapin::options::QueueDeclareOptions::default();
    service.channel().queue_declare("letters".into(), options, arguments).await.unwrap();
    rabbit.ctl(&["add_user", "weak", "weak"]);
    rabbit.ctl(&["set_permissions", "weak", "", "", ".*"]);
    let weak = format!(
        "[brokers.weak]\nurl = \"{}\"\n[[routes]]\npath = \"/weak\"\namqp = {{ broker = \"weak\", queue = \"tickets\" }}\n",
        rabbit.url_as("weak", "weak", "/")
    );
    let served = service.serve("tickets", echo).await;
    let gw = before(&rabbit.url(), &weak).start().await;
    gw.metric_is("edgeward_broker_up", &[], 2.0).await;
    // A full queue.
    gw.request("POST", "/leave").body("1").await.expect_status(202);
    gw.request("POST", "/leave").body("2").await.expect_problem(503, "broker.rejected");
    // An account that may read and not write: told, again and again, and nobody else is disturbed.
    for _ in 0..3 {
        let answer = gw.get("/weak").await.expect_problem(502, "broker.refused");
        assert!(!answer.text().contains("weak\""), "{}", answer.text());
        gw.get("/ask/1").await.expect_status(200);
        gw.metric_is("edgeward_broker_up", &[], 2.0).await;
    }
    // No memory left: it says so once it is published to, and from then on nothing is sent.
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.00000001"]);
    eventually("it is known", async || {
        let answer = gw.get("/quick").await;
        let known = answer.status == 503 && answer.text().contains("broker.rejected");
        known.then_some(())
    })
    .await;
    let ready = gw.admin().get("/readyz?verbose").await.text();
    assert!(ready.contains("takes no messages"), "{ready}");
    rabbit.ctl(&["set_vm_memory_high_watermark", "0.9"]);
    eventually("it goes on", async || (gw.get("/ask/1").await.status == 200).then_some(())).await;
    drop(served);
}
