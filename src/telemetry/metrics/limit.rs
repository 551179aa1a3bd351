//! What is counted for each rate limit.

use super::cells::Counter;

/// The metrics of one rate limit.
#[derive(Debug)]
pub struct LimitMetrics {
    pub(super) name: Box<str>,
    pub(super) passed: Counter,
    pub(super) delayed: Counter,
    pub(super) refused: Counter,
    pub(super) overflowed: Counter,
    pub(super) store_failures: Counter,
    pub(super) cost_failures: Counter,
}

impl LimitMetrics {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            passed: Counter::default(),
            delayed: Counter::default(),
            refused: Counter::default(),
            overflowed: Counter::default(),
            store_failures: Counter::default(),
            cost_failures: Counter::default(),
        }
    }

    /// A request went on at once.
    pub fn passed(&self) {
        self.passed.inc();
    }

    /// A request went on after it had waited for its place.
    pub fn delayed(&self) {
        self.delayed.inc();
    }

    /// A request counted together with others: there was no room for its key.
    pub fn overflowed(&self) {
        self.overflowed.inc();
    }

    /// The counters that instances share could not be asked about a request.
    pub fn store_failed(&self) {
        self.store_failures.inc();
    }

    /// What a request counts for could not be worked out.
    pub fn cost_failed(&self) {
        self.cost_failures.inc();
    }

    /// The limit had no room for a request.
    pub fn refused(&self) {
        self.refused.inc();
    }
}
