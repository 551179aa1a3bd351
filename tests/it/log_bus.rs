//! The log bus: every access record and every line of the process log as a message of a broker, whatever the broker does.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::*;

const ROUTES: &str = "[[routes]]\npath = \"/*\"\nrespond = { status = 200, text = \"ok\" }\n";

/// As the gateway of `product.md` has it: exchange `log`, routing key `gateway`; both are what is taken without a word.
fn with_bus(url: &str, more: &str) -> GatewayBuilder {
    let bus = format!("[log.bus]\nbroker = \"main\"\n{more}\n");
    gateway(&format!("[brokers.main]\nurl = \"{url}\"\n{BEGIN}{bus}{END}{ROUTES}"))
}

const BEGIN: &str = "# the bus\n";
const END: &str = "# and the rest\n";

/// The configuration with another table of the bus, or none.
fn another(config: &str, bus: &str) -> String {
    let (before, rest) = config.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    format!("{before}{BEGIN}{bus}{END}{after}")
}

fn kind(letter: &Letter) -> &str {
    letter.properties.kind().as_ref().map_or("", |kind| kind.as_str())
}

/// Waits for the record of `path`.
async fn record(letters: &mut Letters, path: &str) -> Letter {
    let wanted = |letter: &Letter| kind(letter) == "access" && letter.json()["uri"] == path;
    letters.find(&format!("the record of {path}"), wanted).await
}

/// Waits for a line of the process log with `part` in its message.
async fn line(letters: &mut Letters, part: &str) -> Value {
    let wanted =
        |letter: &Letter| kind(letter) == "log" && letter.json()["message"].as_str().unwrap().contains(part);
    letters.find(&format!("the line {part:?}"), wanted).await.json()
}

async fn reload(gw: &Gateway, change: impl FnOnce(String) -> String) {
    let before = gw.metric("edgeward_config_reloads_total", &["success"]).await.unwrap();
    gw.rewrite("edgeward.toml", change);
    gw.signal(Signal::HUP);
    gw.metric_is("edgeward_config_reloads_total", &["success"], before + 1.0).await;
}

/// Each request as the document of the format `json`, each line of the process log as one of its own; with what a consumer
/// needs to sort them, and without what a log must not show.
#[tokio::test]
async fn records_and_lines_arrive() {
    let broker = RabbitMq::start().await;
    let amqp = Amqp::connect(&broker.url()).await;
    amqp.exchange("log").await;
    let (mut heard, mut others) = (amqp.listen("log", "gateway").await, amqp.listen("log", "other").await);
    let gw = with_bus(&broker.url(), "").start().await;
    let began = unix_now();
    let agent = "it/1 \"q\" \u{e9}";
    let answer = gw.get("/one?token=s3cret").header("user-agent", agent).await.expect_status(200);
    let letter = record(&mut heard, "/one?token=***").await;
    assert_eq!((letter.exchange.as_str(), letter.routing_key.as_str()), ("log", "gateway"));
    assert_eq!(letter.content_type(), Some("application/json"));
    let properties = &letter.properties;
    assert_eq!(properties.app_id().as_ref().map(|id| id.as_str()), Some("edgeward"));
    assert_eq!(*properties.delivery_mode(), Some(2), "a durable queue keeps it");
    let at = properties.timestamp().unwrap();
    assert!((began..=unix_now()).contains(&i64::try_from(at).unwrap()), "{at}");
    assert_eq!(letter.header("pid"), Some(gw.pid().to_string()));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(letter.header("host").as_deref(), Some(host.trim()));
    let document = letter.json();
    assert_eq!((&document["status"], &document["user_agent"]), (&Value::from(200), &Value::from(agent)));
    assert_eq!(document["request_id"], answer.header("x-request-id").unwrap());
    assert!(gw.logged("/one").await.contains("\"GET /one?token=*** HTTP/1.1\" 200"), "the lines are as ever");

    // Also what never became a request.
    let mut raw = gw.raw().await;
    raw.send("GET /broken HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    raw.response().await.expect_status(400);
    let broken = heard.find("the refused one", |letter| letter.json()["status"] == 400).await.json();
    assert_eq!(broken["reason"], "request.bad_host");

    // The same document as on standard output; no lines there are no reason to have none here.
    reload(&gw, |config| config + "[log.access]\nformat = \"json\"\n").await;
    let told = line(&mut heard, "configuration reloaded").await;
    assert_eq!(
        (&told["level"], &told["target"]),
        (&Value::from("info"), &Value::from("edgeward::app::reload"))
    );
    assert_eq!(told["fields"]["generation"], 2);
    gw.get("/two").await.expect_status(200);
    assert_eq!(record(&mut heard, "/two").await.text(), gw.logged("/two").await);
    reload(&gw, |config| config.replace("format = \"json\"", "output = \"off\"")).await;
    gw.get("/three").await.expect_status(200);
    record(&mut heard, "/three").await;
    assert!(!gw.access_log().iter().any(|line| line.contains("/three")));
    gw.metric_is("edgeward_log_bus_messages_total", &["access"], 4.0).await;
    let ready = gw.admin().get("/readyz?verbose").await.text();
    assert!(ready.contains("[+] broker log.bus: amqp://guest:***@"), "{ready}");
    let nothing = tokio::time::timeout(Duration::from_millis(50), others.try_next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    gw.stop().await;
}

/// The broker goes under the gateway and comes again: requests do not notice, and not a record is missing.
#[tokio::test]
async fn a_broker_that_goes_and_comes_has_everything() {
    // Straight to the queue: what RabbitMQ still has of bindings after it was killed is not what is asked here. Without them
    // it confirms what nobody hears.
    let mut broker = RabbitMq::start_with_queue("kept").await;
    let amqp = Amqp::connect(&broker.url()).await;
    let mut letters = amqp.take("kept").await;
    let gw = with_bus(&broker.url(), "exchange = \"\"\nrouting_key = \"kept\"").start().await;
    let ask = async |numbers: std::ops::Range<usize>| {
        for number in numbers {
            gw.get(&format!("/{number}")).await.expect_status(200);
        }
    };
    ask(0..50).await;
    for _ in 0..50 {
        letters.find("the records before", |letter| kind(letter) == "access").await;
    }
    broker.kill();
    let away = async || gw.stderr().contains("the broker is away").then_some(());
    eventually("word of it", away).await;
    let began = Instant::now();
    ask(50..300).await;
    assert!(began.elapsed() < Duration::from_secs(10), "requests wait for the bus: {:?}", began.elapsed());
    let waits =
        async || gw.metric("edgeward_log_bus_waiting_bytes", &[]).await.filter(|bytes| *bytes > 10_000.0);
    eventually("the records to wait", waits).await;
    broker.again().await;
    gw.metric_is("edgeward_log_bus_messages_total", &["access"], 300.0).await;
    gw.metric_is("edgeward_log_bus_waiting_bytes", &[], 0.0).await;
    ask(300..310).await;

    let amqp = Amqp::connect(&broker.url()).await;
    let mut letters = amqp.take("kept").await;
    let (mut missing, mut said) = ((50..310).map(|number| format!("/{number}")).collect::<BTreeSet<_>>(), 0);
    while !missing.is_empty() {
        let letter = tokio::time::timeout(Duration::from_secs(20), letters.try_next()).await;
        let Ok(letter) = letter else {
            let here = ["list_bindings", "list_queues"].map(|what| broker.ctl(&[what]));
            panic!("{missing:?} is not there, but {here:?}");
        };
        let letter = letter.unwrap();
        let document = letter.json();
        match kind(&letter) {
            "access" => drop(missing.remove(document["uri"].as_str().unwrap())),
            _ if document["fields"]["broker"] == "log.bus" => {
                said += usize::from(document["message"].as_str().unwrap().contains("the broker is away"));
            }
            _ => {}
        }
    }
    assert_eq!(said, 1, "that it was away is told afterwards, and once");
    for counter in ["dropped", "lost"] {
        assert_eq!(
            gw.metric(&format!("edgeward_log_bus_{counter}_total"), &[]).await,
            Some(0.0),
            "{counter}"
        );
    }
    gw.stop().await;
}

/// Nobody to publish to: what does not fit is dropped, counted and said once; requests go on, and so do the lines.
#[tokio::test]
async fn what_does_not_fit_is_counted() {
    let dead = DeadPort::new();
    let url = format!("amqp://{}", dead.address());
    let gw = with_bus(&url, "buffer = \"64KiB\"").start().await;
    for number in 0..200 {
        gw.get(&format!("/{number}")).await.expect_status(200);
    }
    eventually("all lines", async || (gw.access_log().len() == 200).then_some(())).await;
    let dropped =
        async || gw.metric("edgeward_log_bus_dropped_total", &["access"]).await.filter(|count| *count > 50.0);
    let dropped = eventually("drops", dropped).await;
    assert!(dropped < 200.0, "the first ones wait: {dropped}");
    let waiting = gw.metric("edgeward_log_bus_waiting_bytes", &[]).await.unwrap();
    assert!((32_000.0..=65_536.0).contains(&waiting), "{waiting}");
    let word = async || gw.stderr().contains("messages of the log bus dropped").then_some(());
    eventually("word of it", word).await;
    assert_eq!(gw.stderr().matches("messages of the log bus dropped").count(), 1, "{}", gw.stderr());
    assert_eq!(gw.metric("edgeward_log_bus_messages_total", &[]).await, Some(0.0));
    // What waits is given up when the process ends, within the bound of any flush.
    let began = Instant::now();
    gw.stop().await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

/// An exchange that is not there is said once and waited for; then a reload sends what comes elsewhere, and another one
/// nowhere.
#[tokio::test]
async fn a_missing_exchange_and_a_reload() {
    let broker = RabbitMq::start().await;
    let amqp = Amqp::connect(&broker.url()).await;
    let gw = with_bus(&broker.url(), "").start().await;
    for number in 0..20 {
        gw.get(&format!("/early/{number}")).await.expect_status(200);
    }
    let word = "cannot publish to the log bus, trying on: the exchange does not exist";
    eventually("word of it", async || gw.stderr().contains(word).then_some(())).await;
    // Two more tries, which say nothing.
    let failures = async || gw.metric("edgeward_broker_failures_total", &["log.bus", "no_exchange"]).await;
    let tried = failures().await.unwrap();
    eventually("two more tries", async || failures().await.filter(|now| *now >= tried + 2.0)).await;
    assert_eq!(gw.stderr().matches(word).count(), 1, "{}", gw.stderr());
    amqp.exchange("log").await;
    amqp.queue("all").await;
    amqp.bind("all", "log", "#").await;
    let mut all = amqp.take("all").await;
    gw.get("/late").await.expect_status(200);
    record(&mut all, "/late").await;
    // For a moment the exchange was there without a queue: not all of them need have been heard.
    gw.metric_is("edgeward_log_bus_messages_total", &["access"], 21.0).await;
    let again = async || gw.stderr().contains("the log bus takes messages again").then_some(());
    eventually("word of it", again).await;

    amqp.exchange("audit").await;
    let mut audit = amqp.listen("audit", "edge.one").await;
    let bus = "[log.bus]\nbroker = \"main\"\nexchange = \"audit\"\nrouting_key = \"edge.one\"\n";
    reload(&gw, |config| another(&config, bus)).await;
    gw.get("/elsewhere").await.expect_status(200);
    let letter = record(&mut audit, "/elsewhere").await;
    assert_eq!(letter.routing_key, "edge.one");
    // The name of a queue, over the default exchange.
    amqp.queue("direct").await;
    let mut direct = amqp.take("direct").await;
    let bus = "[log.bus]\nbroker = \"main\"\nexchange = \"\"\nrouting_key = \"direct\"\n";
    reload(&gw, |config| another(&config, bus)).await;
    gw.get("/queued").await.expect_status(200);
    record(&mut direct, "/queued").await;

    // The broker may say that it has it after it has passed it on.
    gw.metric_is("edgeward_log_bus_messages_total", &["access"], 23.0).await;
    reload(&gw, |config| another(&config, "")).await;
    gw.get("/nowhere").await.expect_status(200);
    gw.logged("/nowhere").await;
    reload(&gw, |config| another(&config, bus)).await;
    gw.get("/again").await.expect_status(200);
    record(&mut direct, "/again").await;
    gw.metric_is("edgeward_log_bus_messages_total", &["access"], 24.0).await;
    gw.stop().await;
}

/// Whatever is logged about publishing does not become something to publish without end, and a process that ends has
/// published all it had.
#[tokio::test]
async fn it_feeds_on_nothing_of_its_own_and_ends_empty() {
    let broker = RabbitMq::start().await;
    let amqp = Amqp::connect(&broker.url()).await;
    amqp.exchange("log").await;
    amqp.queue("kept").await;
    amqp.bind("kept", "log", "gateway").await;
    let gw = with_bus(&broker.url(), "[log]\nlevel = \"trace\"").start().await;
    let count = async || gw.metric("edgeward_log_bus_messages_total", &[]).await.unwrap();
    gw.get("/first").await.expect_status(200);
    gw.metric_is("edgeward_log_bus_messages_total", &["access"], 1.0).await;
    let before = count().await;
    // A moment in which nothing is asked but this.
    let mut ticks = tokio::time::interval(Duration::from_millis(1500));
    ticks.tick().await;
    ticks.tick().await;
    let grown = count().await - before;
    assert!(grown < 50.0, "{grown} messages out of nothing");

    let (requests, mut gw) = (300, gw);
    let client = gw.client().connect().await;
    for number in 0..requests {
        client.get(&format!("/last/{number}")).await.expect_status(200);
    }
    gw.signal(Signal::TERM);
    assert!(gw.exit().await.success());
    let mut letters = amqp.take("kept").await;
    let mut missing = (0..requests).map(|number| format!("/last/{number}")).collect::<BTreeSet<_>>();
    let mut stopped = false;
    while !missing.is_empty() || !stopped {
        let letter = within(&format!("{missing:?}"), letters.try_next()).await.unwrap();
        let document = letter.json();
        match kind(&letter) {
            "access" => drop(missing.remove(document["uri"].as_str().unwrap())),
            _ => stopped |= document["message"] == "stopped",
        }
    }
}

/// A broker that hangs holds nothing up: neither requests nor a reload nor the end.
#[tokio::test]
async fn a_broker_that_hangs_holds_nothing_up() {
    let broker = RabbitMq::start().await;
    let amqp = Amqp::connect(&broker.url()).await;
    amqp.exchange("log").await;
    let gw = with_bus(&broker.url(), "buffer = \"64KiB\"").start().await;
    gw.get("/first").await.expect_status(200);
    gw.metric_is("edgeward_log_bus_messages_total", &["access"], 1.0).await;
    broker.freeze();
    let began = Instant::now();
    for number in 0..200 {
        gw.get(&format!("/{number}")).await.expect_status(200);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let dropped =
        async || gw.metric("edgeward_log_bus_dropped_total", &["access"]).await.filter(|count| *count > 50.0);
    eventually("drops", dropped).await;
    reload(&gw, |config| config.replace("64KiB", "128KiB")).await;
    gw.get("/after").await.expect_status(200);
    let began = Instant::now();
    gw.stop().await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    broker.thaw();
}
