//! The bound, and what is said when it is reached.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;

fn message(kind: Kind, bytes: usize) -> Message {
    Message { kind, at: UNIX_EPOCH, body: Bytes::from(vec![b'x'; bytes]) }
}

fn counted(metrics: &Arc<Metrics>, series: &str) -> Option<f64> {
    let text = metrics.render(false);
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
fn a_closed_bus_takes_nothing_and_has_no_metrics() {
    let metrics = Metrics::new();
    let bus = Bus::new(metrics.clone());
    bus.offer([message(Kind::Log, 1)]);
    assert!(!bus.is_open() && bus.take(1).is_empty());
    assert!(!metrics.render(false).contains("log_bus"));
    bus.open(1000);
    bus.offer([message(Kind::Log, 1)]);
    bus.close();
    bus.offer([message(Kind::Log, 2)]);
    assert_eq!(bus.take(9).len(), 1, "what waited when it was closed");
}

#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    let metrics = Metrics::new();
    let bus = Bus::new(metrics.clone());
    bus.open(2 * (100 + OVERHEAD_BYTES));
    bus.offer((0..3).map(|_| message(Kind::Access, 100)));
    assert_eq!(counted(&metrics, r#"edgeward_log_bus_dropped_total{kind="access"}"#), Some(1.0));
    assert_eq!(counted(&metrics, r#"edgeward_log_bus_dropped_total{kind="log"}"#), Some(0.0));
    assert_eq!((bus.take_dropped(), bus.take_dropped()), (1, 0));
    let taken = bus.take(1);
    bus.offer([message(Kind::Log, 100)]);
    assert_eq!(
        counted(&metrics, r#"edgeward_log_bus_dropped_total{kind="log"}"#),
        Some(1.0),
        "not settled yet"
    );
    bus.settle(&taken[0]);
    bus.offer([message(Kind::Log, 100)]);
    assert_eq!(counted(&metrics, r#"edgeward_log_bus_messages_total{kind="access"}"#), Some(1.0));
    let kinds: Vec<Kind> = bus.take(9).iter().map(|message| message.kind).collect();
    assert_eq!(kinds, [Kind::Access, Kind::Log], "in order");
}

#[test]
fn what_is_given_up_is_counted() {
    let metrics = Metrics::new();
    let bus = Bus::new(metrics.clone());
    bus.open(10_000);
    bus.offer((0..5).map(|_| message(Kind::Access, 10)));
    let taken = bus.take(2);
    bus.give_up(&taken[0]);
    assert_eq!(bus.abandon(), 3);
    assert_eq!(counted(&metrics, r#"edgeward_log_bus_lost_total{kind="access"}"#), Some(4.0));
    let left = 10.0 + OVERHEAD_BYTES as f64;
    assert_eq!(counted(&metrics, "edgeward_log_bus_waiting_bytes"), Some(left));
}

#[tokio::test]
async fn who_publishes_is_woken() {
    let bus = Bus::new(Metrics::new());
    bus.open(10_000);
    let publish = async {
        loop {
            let taken = bus.take(10);
            if !taken.is_empty() {
                return taken.len();
            }
            bus.arrived().await;
        }
    };
    let offer = async {
        // The other one waits by then.
        tokio::task::yield_now().await;
        bus.offer([message(Kind::Log, 1)]);
    };
    let both = async { tokio::join!(publish, offer).0 };
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), both).await.unwrap(), 1);
}

proptest! {
    /// Whatever is offered, taken and settled: never more than the bound, nothing out of order, nothing twice.
    #[test]
    fn the_bound_holds(steps in prop::collection::vec((0..4_u8, 0..400_usize), 0..60)) {
        let bus = Bus::new(Metrics::new());
        let bound = 2000;
        bus.open(bound);
        let (mut held, mut offered, mut seen) = (Vec::new(), 0_u64, 0);
        for (step, size) in steps {
            match step {
                0 | 1 => {
                    offered += 1;
                    let at = UNIX_EPOCH + Duration::from_secs(offered);
                    bus.offer([Message { at, ..message(Kind::Log, size) }]);
                }
                2 => {
                    for taken in bus.take(size % 5) {
                        let serial = taken.at.duration_since(UNIX_EPOCH).unwrap().as_secs();
                        prop_assert!(serial > seen);
                        seen = serial;
                        held.push(taken);
                    }
                }
                _ => {
                    if let Some(message) = held.pop() {
                        bus.settle(&message);
                    }
                }
            }
            let queue = bus.queue.lock();
            let real: usize = queue.waiting.iter().chain(&held).map(Message::bytes).sum();
            prop_assert_eq!(real, queue.bytes);
            prop_assert!(real <= bound);
        }
    }
}
