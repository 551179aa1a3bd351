//! What is counted of a message broker.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::cells::{Counter, Gauge, Words};

/// Why a call had no answer, or a message was not taken.
const FAILURES: &[&str] = &[
    "down",
    "busy",
    "blocked",
    "too_large",
    "lost",
    "no_queue",
    "no_exchange",
    "refused",
    "rejected",
    "timeout",
];

/// The metrics of one broker.
#[derive(Debug)]
pub struct BrokerMetrics {
    pub(super) name: Box<str>,
    up: AtomicBool,
    pub(super) pending: Gauge,
    pub(super) published: Counter,
    pub(super) confirmed: Counter,
    pub(super) returned: Counter,
    pub(super) failures: Words,
    pub(super) replies: Words,
}

impl BrokerMetrics {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            up: AtomicBool::new(false),
            pending: Gauge::default(),
            published: Counter::default(),
            confirmed: Counter::default(),
            returned: Counter::default(),
            failures: Words::known(FAILURES),
            replies: Words::known(&["delivered", "late", "foreign"]),
        }
    }

    /// Whether it is connected.
    pub fn up(&self, up: bool) {
        self.up.store(up, Relaxed);
    }

    /// `by` more calls wait, or fewer.
    pub fn pending(&self, by: i64) {
        self.pending.add(by);
    }

    /// A message was given to it.
    pub fn published(&self) {
        self.published.inc();
    }

    /// It has taken one.
    pub fn confirmed(&self) {
        self.confirmed.inc();
    }

    /// It gave one back: no queue takes it.
    pub fn returned(&self) {
        self.returned.inc();
    }

    /// A call had no answer, or a message was not taken: why, in a word of the source code.
    pub fn failed(&self, why: &'static str) {
        self.failures.inc(why);
    }

    /// A reply came: `delivered`, `late` (nobody waits for it any more, or it is the second), or `foreign` (nobody ever
    /// asked for it).
    pub fn reply(&self, what: &'static str) {
        self.replies.inc(what);
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }
}
