//! A message broker: calls, messages and the log bus, over connections that are bad in every way.

use serde_json::json;

use super::*;

/// `timeout` of the routes.
const BOUND: Duration = Duration::from_secs(1);

const CONFIG: &str = r#"
[brokers.main]
url = "{broker}"
connect_timeout = "2s"
[log.bus]
broker = "main"
exchange = ""
routing_key = "records"
[upstreams.app]
servers = ["{app}"]
[[routes]]
path = "/ask"
amqp = { broker = "main", queue = "echo", timeout = "1s" }
[[routes]]
path = "/leave"
amqp = { broker = "main", queue = "left", publish = true, timeout = "1s" }
[[routes]]
path = "/both"
[routes.aggregate]
timeout = "1s"
[[routes.aggregate.legs]]
name = "app"
upstream = "app"
path = "/app"
[[routes.aggregate.legs]]
name = "asked"
amqp = { broker = "main", queue = "echo", timeout = "1s" }
group = "asked"
[[routes.aggregate.legs]]
name = "spare"
amqp = { broker = "main", queue = "echo", timeout = "1s" }
group = "spare"
fallback = { is = "spare" }
[[routes]]
path = "/plain"
respond = { text = "ok" }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_slow_and_talking_nonsense() {
    let broker = RabbitMq::start().await;
    let chaos = Chaos::before(broker.address()).await;
    chaos.set(Faults::refused());
    let app = upstream().on("/app", Answer::json(json!({ "app": 1 }))).start().await;
    let gw =
        gateway(CONFIG).with("app", &app).replacing("{broker}", &chaos.instead(&broker.url())).start().await;
    within_ten(BOUND, gw.get("/ask")).await.expect_problem(503, "broker.down");
    within_ten(BOUND, gw.get("/leave")).await.expect_problem(503, "broker.down");
    let amqp = Amqp::connect(&broker.url()).await;
    for queue in ["left", "records"] {
        amqp.queue(queue).await;
    }
    let _served = amqp.serve("echo", |_| [Told::json(&json!({ "answered": true }))]).await;
    let mut records = amqp.take("records").await;
    chaos.heal();
    comes_to(&gw, "/ask", 200).await;

    // Late and in pieces it works as ever.
    let way = Way { latency: Duration::from_millis(5), jitter: Duration::from_millis(2), ..Way::slices(9) };
    chaos.set(Faults::both(way));
    gw.get("/ask").await.expect_status(200);
    gw.get("/leave").await.expect_status(202);
    chaos.heal();
    let faults = [
        (Faults::refused(), &["broker.down", "broker.lost"][..]),
        (Faults::silent(), &["broker.timeout", "broker.down", "broker.lost"]),
        (Faults::slow(BOUND * 3), &["broker.timeout", "broker.down", "broker.lost"]),
        (Faults::nonsense(NONSENSE), &["broker.lost", "broker.down", "broker.timeout"]),
    ];
    for (number, (fault, codes)) in faults.into_iter().enumerate() {
        eventually("messages to be taken", async || (gw.get("/leave").await.status == 202).then_some(()))
            .await;
        if fault.accept == Accept::Refused {
            chaos.strike(fault.clone());
        } else {
            chaos.set(fault.clone());
        }
        for path in ["/ask", "/leave"] {
            let refused = within_ten(BOUND, gw.get(path)).await;
            let code = refused.json()["code"].as_str().unwrap_or_default().to_owned();
            assert!(codes.contains(&code.as_str()), "{path}, {fault:?}: {refused:?}");
            assert!((502..=504).contains(&refused.status), "{refused:?}");
        }
        // A leg that is not needed may be missing, and a fallback stands for one.
        let part = within_ten(BOUND, gw.get("/both")).await.expect_status(200);
        assert_eq!(part.json(), json!({ "app": 1, "spare": { "is": "spare" } }), "{fault:?}");
        within_ten(BOUND, gw.get(&format!("/plain?{number}"))).await.expect_status(200);
        chaos.heal();
        comes_to(&gw, "/ask", 200).await;
        comes_to(&gw, "/leave", 202).await;
        let both = comes_to(&gw, "/both", 200).await;
        assert!(both.header("x-edgeward-completed").is_some());
        // What was logged meanwhile was kept.
        let uri = format!("/plain?{number}");
        records.find(&uri, |letter| letter.json()["uri"] == uri).await;
    }
    gw.metric_is("edgeward_broker_pending", &["main"], 0.0).await;
    gw.stop().await;
    crate::switches::of_messages(&broker).await;
}
