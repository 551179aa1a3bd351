//! RabbitMQ: whoever asks a queue is told at once that there is no broker, or in time that there is no answer.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::*;

/// Within a handshake, or in an answer.
const COLUMNS: Columns = Columns { head: 5, up: 300, down: 4000, is_long: false };
/// The same over TLS.
const OVER_TLS: Columns = Columns { head: 5, up: 1500, down: 5000, is_long: false };
/// `timeout` of the routes for those who are in a hurry.
const HASTY: Duration = Duration::from_millis(500);
/// So many connections to it in one process, each with faults of its own.
const LANES: usize = 24;

fn value() -> Value {
    json!({ "numbers": (0..1500).collect::<Vec<_>>() })
}

/// Frames of its own protocol that it would not send.
pub(super) fn frames() -> Vec<Fault> {
    nonsense(&[
        ("a frame of 4 GiB", b"\x01\0\0\xff\xff\xff\xff\0\x0a", Sees::Nonsense),
        ("a frame without its end", b"\x01\0\0\0\0\0\x04\0\x0a\0\x0a\0", Sees::Nonsense),
        ("a frame of no type", b"\x63\0\0\0\0\0\x01\0\xce", Sees::Nonsense),
        ("an answer on a channel of nobody's", b"\x01\xff\xff\0\0\0\x04\0\x3c\0\x0b\xce", Sees::Nonsense),
        ("a body before its head", b"\x03\0\x01\0\0\0\x01x\xce", Sees::Nonsense),
        ("another version", b"AMQP\0\0\x09\x01", Sees::Nonsense),
        ("a method of no class", b"\x01\0\0\0\0\0\x04\xff\xff\xff\xff\xce", Sees::Nonsense),
    ])
}

#[tokio::test]
async fn rabbitmq() {
    let broker = RabbitMq::start().await;
    let faults = [COLUMNS.all(), frames()].concat();
    suffers("RabbitMQ", &broker, broker.address(), None, faults).await;
}

#[tokio::test]
async fn rabbitmq_over_tls() {
    let (broker, authority) = (RabbitMq::start().await, Authority::new());
    let relay = TlsRelay::before(broker.address(), &authority.server(&["127.0.0.1"])).await;
    let mut faults = OVER_TLS.all();
    // TLS tells that bytes are damaged.
    faults.iter_mut().filter(|fault| fault.sees == Sees::Damaged).for_each(|fault| fault.sees = Sees::Any);
    suffers("RabbitMQ over TLS", &broker, relay.address(), Some(&authority), faults).await;
}

async fn suffers(
    name: &str,
    broker: &RabbitMq,
    address: SocketAddr,
    authority: Option<&Authority>,
    mut faults: Vec<Fault>,
) {
    let amqp = Amqp::connect(&broker.url()).await;
    let _served = amqp.serve("echo", |_| [Told::json(&value())]).await;
    // What only a heartbeat finds out takes longer than all the rest: see `amqp_faults`.
    faults.retain(|fault| !fault.forgets);
    let (scheme, ca) = if authority.is_some() { ("amqps", "ca = \"ca.pem\"\n") } else { ("amqp", "") };
    let (mut config, mut lanes) =
        (String::from("[[routes]]\npath = \"/plain\"\nrespond = { text = \"ok\" }\n"), Vec::new());
    for lane in 0..LANES {
        let chaos = Chaos::before(address).await;
        config.push_str(&format!(
            "[brokers.b{lane}]\nurl = \"{scheme}://guest:guest@{}/%2f\"\n{ca}connect_timeout = \"1s\"\nchannels = 1\n\
             [[routes]]\npath = \"/patient/{lane}\"\namqp = {{ broker = \"b{lane}\", queue = \"echo\", timeout = \"10s\" }}\n\
             [[routes]]\npath = \"/hasty/{lane}\"\namqp = {{ broker = \"b{lane}\", queue = \"echo\", timeout = \"{}ms\" }}\n",
            chaos.address(),
            HASTY.as_millis()
        ));
        let faults: Vec<_> = faults.iter().skip(lane).step_by(LANES).cloned().collect();
        lanes.push((lane, chaos, faults));
    }
    let gw = gateway(&config);
    let gw = match authority {
        Some(authority) => gw.file("ca.pem", &authority.pem),
        None => gw,
    };
    let gw = gw.start().await;
    for lane in 0..LANES {
        comes_to(&gw, &format!("/patient/{lane}"), 200).await;
    }
    let before = Held::of(&gw);
    let suffering = lanes.iter().map(async |(lane, chaos, faults)| {
        let row = Row {
            name: name.to_owned(),
            gw: &gw,
            chaos,
            lasting: true,
            bound: HASTY,
            beside: &["/plain"],
            codes: |sees| match sees {
                Sees::Right => Some(&[]),
                Sees::Lost => Some(&["broker.down", "broker.lost"]),
                Sees::Damaged => None,
                _ => Some(&["broker.down", "broker.lost", "broker.timeout"]),
            },
            hears_all: true,
        };
        row.cells(faults, &async |how: How| {
            let path = format!("/{}/{lane}", if how.hasty { "hasty" } else { "patient" });
            judged(gw.get(&path).send().await, value().to_string().as_bytes())
        })
        .await;
    });
    futures_util::future::join_all(suffering).await;
    before.is_all(&gw).await;
    for lane in 0..LANES {
        gw.metric_is("edgeward_broker_pending", &[&format!("b{lane}")], 0.0).await;
    }
    gw.stop().await;
}
