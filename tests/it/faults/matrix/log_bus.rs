//! The log bus: requests are served whatever becomes of their records, and each record comes in the end.

use std::collections::BTreeSet;

use tokio::sync::Mutex;

use super::*;

/// Within a handshake, and when some records have been published.
const COLUMNS: Columns = Columns { head: 5, up: 3000, down: 700, is_long: false };
/// So many gateways, each with some of the faults.
const LANES: usize = 8;
/// How long a record is waited for.
const HASTY: Duration = Duration::from_millis(500);
const PATIENT: Duration = Duration::from_secs(10);

const CONFIG: &str = r#"
[brokers.main]
url = "{broker}"
connect_timeout = "1s"
[log.bus]
broker = "main"
exchange = "log"
routing_key = "{queue}"
[[routes]]
path = "/*"
respond = { text = "ok" }
"#;

#[tokio::test]
async fn records() {
    let broker = RabbitMq::start().await;
    let amqp = Amqp::connect(&broker.url()).await;
    amqp.exchange("log").await;
    let mut faults = [COLUMNS.all(), brokers::frames()].concat();
    // What only a heartbeat finds out takes longer than all the rest (see `log_bus`). And AMQP has no sum over a message:
    // what is damaged on the way is published so.
    faults.retain(|fault| !fault.forgets && fault.sees != Sees::Damaged);
    // Records come though their confirmations do not.
    faults.iter_mut().filter(|fault| fault.sees == Sees::Silent).for_each(|fault| fault.sees = Sees::Any);
    let lane = std::sync::atomic::AtomicUsize::new(0);
    in_lanes(LANES, &faults, async |faults| {
        let queue = format!("records{}", lane.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        amqp.queue(&queue).await;
        amqp.bind(&queue, "log", &queue).await;
        let heard = Heard { letters: amqp.take(&queue).await, asked: 0, missing: BTreeSet::new() };
        suffers(&broker, &queue, heard, &faults).await;
    })
    .await;
}

async fn suffers(broker: &RabbitMq, queue: &str, heard: Heard, faults: &[Fault]) {
    let chaos = Chaos::before(broker.address()).await;
    let gw = gateway(CONFIG)
        .replacing("{broker}", &chaos.instead(&broker.url()))
        .replacing("{queue}", queue)
        .start()
        .await;
    let row = Row {
        name: "log bus".to_owned(),
        gw: &gw,
        chaos: &chaos,
        lasting: true,
        bound: PATIENT,
        beside: &[],
        codes: |sees| if sees == Sees::Right { Some(&[]) } else { None },
        hears_all: false,
    };
    let heard = Mutex::new(heard);
    row.suffers(faults, async |how: How| heard.lock().await.ask(&gw, how).await).await;
    let mut heard = heard.into_inner();
    within("every record", async {
        while !heard.missing.is_empty() {
            heard.hear().await;
        }
    })
    .await;
    gw.metric_is("edgeward_log_bus_dropped_total", &[], 0.0).await;
    gw.stop().await;
}

/// What has come, and what has not.
struct Heard {
    letters: Letters,
    asked: usize,
    missing: BTreeSet<String>,
}

impl Heard {
    /// Makes a request, and waits for its record for as long as the broker is there.
    async fn ask(&mut self, gw: &Gateway, how: How) -> Outcome {
        self.asked += 1;
        let uri = format!("/{}", self.asked);
        self.missing.insert(uri.clone());
        let served = judged(gw.get(&uri).send().await, b"ok");
        if served != Outcome::Right {
            return Outcome::Wrong(format!("the request itself: {served:?}"));
        }
        let until = Instant::now() + if how.hasty { HASTY } else { PATIENT };
        while self.missing.contains(&uri) {
            if Instant::now() > until {
                return Outcome::Nothing;
            }
            let letter = tokio::time::timeout(Duration::from_millis(50), self.hear()).await;
            if letter.is_err() && gw.metric("edgeward_broker_up", &["log.bus"]).await == Some(0.0) {
                return Outcome::Refused("away".to_owned());
            }
        }
        Outcome::Right
    }

    /// Takes one message in: whole, whatever happened on the way.
    async fn hear(&mut self) {
        let record = self.letters.next().await.json();
        if let Some(uri) = record["uri"].as_str() {
            self.missing.remove(uri);
        }
    }
}
