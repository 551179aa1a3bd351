//! Brokers that are killed, restarted and hung under load: errors for what needed them and nobody else, recovery by itself,
//! nothing that hangs, and no answer for the wrong request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::support::*;

/// Longest any answer may take: the time-out of the route, and a machine that is busy with other things.
const LONGEST: Duration = Duration::from_secs(6);

const ROUTES: &str = r#"
[[routes]]
name = "ask"
path = "/ask/{id}"
amqp = { broker = "main", queue = "echo", timeout = "3s" }
[[routes]]
name = "leave"
path = "/leave/{id}"
amqp = { broker = "main", exchange = "news", routing_key = "one", publish = true, timeout = "3s" }
[[routes]]
name = "plain"
path = "/plain"
respond = { status = 200, text = "ok" }
"#;

fn before(url: &str) -> GatewayBuilder {
    gateway(&format!("[log.access]\noutput = \"off\"\n[brokers.main]\nurl = \"{url}\"\n{ROUTES}"))
}

fn id_of(letter: &Letter) -> u64 {
    letter.json()["path"]["id"].as_str().unwrap().parse().unwrap()
}

fn answer_to(letter: &Letter) -> Told {
    Told::json(&json!({ "id": id_of(letter) }))
}

/// Ten thousand calls from forty clients at once, answered out of order, some twice and some to ids that nobody asked
/// with: each client gets the answer to its own question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_interleaved_calls_get_their_own_answers() {
    const CLIENTS: u64 = 40;
    const EACH: u64 = 250;
    const MIXED: usize = 16;
    let broker = RabbitMq::start().await;
    let service = Amqp::connect(&broker.url()).await;
    service.queue("echo").await;
    let mut letters = service.take("echo").await;
    let serving = tokio::spawn(async move {
        // Up to so many wait to be answered, and any of them may be next.
        let mut waiting: Vec<Letter> = Vec::new();
        let mut turn = 0_usize;
        loop {
            // Few are kept waiting for others to come, for as long as any come.
            let pause = Duration::from_millis(if waiting.len() < MIXED { 5 } else { 0 });
            match tokio::time::timeout(pause, letters.try_next()).await {
                Ok(None) => return,
                Ok(Some(letter)) => {
                    waiting.push(letter);
                    if waiting.len() < MIXED {
                        continue;
                    }
                }
                Err(_) if waiting.is_empty() => continue,
                Err(_) => {}
            }
            turn += 1;
            let letter = waiting.swap_remove(turn.wrapping_mul(7919) % waiting.len());
            service.reply(&letter, answer_to(&letter)).await;
            if turn.is_multiple_of(10) {
                service.reply(&letter, Told::json(&json!({ "id": "a second answer" }))).await;
            }
            if turn.is_multiple_of(17) {
                service
                    .reply(
                        &letter,
                        Told::json(&json!({ "id": "foreign" }))
                            .correlation("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
                    )
                    .await;
            }
        }
    });
    let gw = before(&broker.url()).start().await;
    gw.metric_is("edgeward_broker_up", &["main"], 1.0).await;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let http = gw.client();
        clients.spawn(async move {
            let connection = http.connect().await;
            for call in 0..EACH {
                let id = client * EACH + call;
                let answer = connection.get(&format!("/ask/{id}")).await.expect_status(200);
                assert_eq!(answer.json(), json!({ "id": id }));
            }
        });
    }
    within_a_minute("all calls", async {
        while let Some(done) = clients.join_next().await {
            done.unwrap()
        }
    })
    .await;
    let count = (CLIENTS * EACH) as f64;
    gw.metric_is("edgeward_broker_replies_total", &["delivered"], count).await;
    gw.metric_is("edgeward_broker_replies_total", &["late"], count / 10.0).await;
    gw.metric_is("edgeward_broker_replies_total", &["foreign"], (CLIENTS * EACH / 17) as f64).await;
    gw.metric_is("edgeward_broker_pending", &["main"], 0.0).await;
    serving.abort();
    gw.stop().await;
}

async fn within_a_minute<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), work).await {
        Ok(value) => value,
        Err(_) => panic!("a minute was not enough: {what}"),
    }
}

/// What clients have seen, by path and status.
#[derive(Default)]
struct Seen {
    statuses: BTreeMap<(&'static str, u16), usize>,
    /// Messages that were accepted.
    accepted: BTreeSet<u64>,
    slowest: Duration,
}

/// Clients that go on asking until they are told to stop.
struct Load {
    tasks: JoinSet<Seen>,
    stop: Arc<AtomicBool>,
    /// Answers of the broker's service that were right.
    answered: Arc<AtomicUsize>,
}

impl Load {
    fn start(gw: &Gateway) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for (place, path) in ["/ask", "/ask", "/ask", "/leave", "/leave", "/plain"].into_iter().enumerate() {
            let (http, stop, answered) = (gw.client(), stop.clone(), answered.clone());
            tasks.spawn(async move {
                let connection = http.connect().await;
                let mut pace = tokio::time::interval(Duration::from_millis(3));
                pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let mut seen = Seen::default();
                let mut id = place as u64 * 1_000_000;
                while !stop.load(Relaxed) {
                    id += 1;
                    let target = if path == "/plain" { path.to_owned() } else { format!("{path}/{id}") };
                    let began = Instant::now();
                    let answer = connection.get(&target).await;
                    seen.slowest = seen.slowest.max(began.elapsed());
                    *seen.statuses.entry((path, answer.status)).or_default() += 1;
                    match (path, answer.status) {
                        ("/ask", 200) => {
                            assert_eq!(answer.json(), json!({ "id": id }), "an answer to another question");
                            answered.fetch_add(1, Relaxed);
                        }
                        ("/leave", 202) => drop(seen.accepted.insert(id)),
                        // It has no need to be asked as often as that goes.
                        ("/plain", _) => drop(pace.tick().await),
                        _ => {
                            let problem: Value = answer.json();
                            let code = problem["code"].as_str().unwrap_or_default().to_owned();
                            assert!(
                                code.starts_with("broker.") || code.starts_with("request.deadline"),
                                "{problem}"
                            );
                            // Refused at once there is always a next one: not as fast as that goes.
                            pace.tick().await;
                        }
                    }
                }
                seen
            });
        }
        Self { tasks, stop, answered }
    }

    /// Waits until questions are answered that are asked from now on.
    async fn flows(&self, what: &str) {
        let before = self.answered.load(Relaxed);
        eventually(what, async || (self.answered.load(Relaxed) >= before + 50).then_some(())).await;
    }

    async fn end(mut self) -> Seen {
        self.stop.store(true, Relaxed);
        let mut all = Seen::default();
        within("clients to end", async {
            while let Some(seen) = self.tasks.join_next().await {
                let seen = seen.unwrap();
                for (what, count) in seen.statuses {
                    *all.statuses.entry(what).or_default() += count;
                }
                all.accepted.extend(seen.accepted);
                all.slowest = all.slowest.max(seen.slowest);
            }
        })
        .await;
        all
    }
}

async fn service(broker: &RabbitMq) -> (Amqp, Served) {
    let service = Amqp::connect(&broker.url()).await;
    let served = service.serve("echo", |letter| Some(answer_to(letter))).await;
    (service, served)
}

/// Pulled out under load and put back: routes that need it fail with what says so, others notice nothing, and everything
/// goes on by itself. What was accepted is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_and_restarted_under_load() {
    let mut broker = RabbitMq::start_with_queue("kept").await;
    let (amqp, served) = service(&broker).await;
    amqp.exchange("news").await;
    amqp.bind("kept", "news", "#").await;
    let gw = before(&broker.url()).start().await;
    gw.metric_is("edgeward_broker_up", &["main"], 1.0).await;
    let load = Load::start(&gw);
    load.flows("answers").await;
    broker.kill();
    gw.metric_is("edgeward_broker_up", &["main"], 0.0).await;
    drop((amqp, served));
    broker.again().await;
    let (amqp, _served) = service(&broker).await;
    load.flows("answers after the restart").await;
    let seen = load.end().await;

    let count = |path, status| seen.statuses.get(&(path, status)).copied().unwrap_or_default();
    assert!(count("/ask", 503) > 0 && count("/leave", 503) > 0, "{:?}", seen.statuses);
    assert!(count("/plain", 200) > 0);
    let others: Vec<_> =
        seen.statuses.keys().filter(|(path, status)| *path == "/plain" && *status != 200).collect();
    assert!(others.is_empty(), "a route without a broker failed: {:?}", seen.statuses);
    let statuses: BTreeSet<u16> = seen.statuses.keys().map(|(_, status)| *status).collect();
    assert!(statuses.is_subset(&BTreeSet::from([200, 202, 502, 503, 504])), "{:?}", seen.statuses);
    assert!(seen.slowest < LONGEST, "{:?}", seen.slowest);
    gw.metric_is("edgeward_broker_pending", &["main"], 0.0).await;

    let mut missing = seen.accepted;
    let mut kept = amqp.take("kept").await;
    while !missing.is_empty() {
        let letter =
            within(&format!("{} accepted messages are not there", missing.len()), kept.try_next()).await;
        missing.remove(&id_of(&letter.unwrap()));
    }
    gw.stop().await;
}

/// A broker that hangs with its connection open: each call has its time-out, no more, others notice nothing, and when it
/// goes on so do they. What it answers to those that were given up goes to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_under_load() {
    let broker = RabbitMq::start().await;
    let (amqp, _served) = service(&broker).await;
    amqp.exchange("news").await;
    amqp.queue("kept").await;
    amqp.bind("kept", "news", "#").await;
    let gw = before(&broker.url()).start().await;
    gw.metric_is("edgeward_broker_up", &["main"], 1.0).await;
    let load = Load::start(&gw);
    load.flows("answers").await;
    broker.freeze();
    gw.get("/ask/1").await.expect_status(504);
    broker.thaw();
    load.flows("answers when it goes on").await;
    let seen = load.end().await;
    let failed: Vec<_> =
        seen.statuses.keys().filter(|(path, status)| *path == "/plain" && *status != 200).collect();
    assert!(failed.is_empty(), "{:?}", seen.statuses);
    assert!(seen.slowest < LONGEST, "{:?}", seen.slowest);
    gw.metric_is("edgeward_broker_pending", &["main"], 0.0).await;
    gw.stop().await;
}
