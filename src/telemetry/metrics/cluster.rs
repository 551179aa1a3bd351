//! What is counted of Redis, where instances share something over it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::cells::{CALLS, Counter, Histogram, Words};

/// Why a call had no answer.
const FAILURES: &[&str] = &["down", "busy", "slow", "broken", "refused", "nonsense"];

/// The metrics of `[cluster]`.
#[derive(Debug)]
pub struct ClusterMetrics {
    up: AtomicBool,
    pub(super) failures: Words,
    pub(super) calls: Histogram,
    pub(super) permits: Words,
    pub(super) sent: Counter,
    pub(super) heard: Counter,
    pub(super) unreadable: Counter,
    pub(super) lost: Counter,
}

impl Default for ClusterMetrics {
    fn default() -> Self {
        Self {
            up: AtomicBool::new(false),
            failures: Words::known(FAILURES),
            calls: Histogram::new(&CALLS),
            permits: Words::known(&["taken", "used", "returned"]),
            sent: Counter::default(),
            heard: Counter::default(),
            unreadable: Counter::default(),
            lost: Counter::default(),
        }
    }
}

impl ClusterMetrics {
    /// Whether Redis is asked at the moment.
    pub fn up(&self, up: bool) {
        self.up.store(up, Relaxed);
    }

    /// A call was answered after `seconds`.
    pub fn answered(&self, seconds: f64) {
        self.calls.observe(seconds);
    }

    /// A call had no answer that could be used: `down`, `busy`, `slow`, `broken`, `refused` or `nonsense`.
    pub fn failed(&self, why: &'static str) {
        self.failures.inc(why);
    }

    /// `permits` of a limit that is counted in batches were `taken` from Redis, `used` by requests, or `returned`.
    pub fn permits(&self, what: &'static str, permits: u64) {
        self.permits.add(what, permits);
    }

    /// `revocations` were told to the others.
    pub fn revocations_sent(&self, revocations: u64) {
        self.sent.add(revocations);
    }

    /// `revocations` were heard, one's own as well.
    pub fn revocations_heard(&self, revocations: u64) {
        self.heard.add(revocations);
    }

    /// Something among the revocations could not be read.
    pub fn revocation_unreadable(&self) {
        self.unreadable.inc();
    }

    /// A revocation was not told to the others: too many wait already.
    pub fn revocation_lost(&self) {
        self.lost.inc();
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }
}
