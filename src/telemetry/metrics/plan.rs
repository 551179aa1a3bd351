//! What is counted for each plan.

use std::sync::Arc;

use super::cells::Counter;
use super::limit::LimitMetrics;

/// The metrics of one plan.
#[derive(Debug)]
pub struct PlanMetrics {
    pub(super) name: Box<str>,
    pub(super) passed: Counter,
    pub(super) quota_exceeded: Counter,
    pub(super) unavailable: Counter,
    /// Of its rate.
    pub(super) limited: Arc<LimitMetrics>,
}

impl PlanMetrics {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            passed: Counter::default(),
            quota_exceeded: Counter::default(),
            unavailable: Counter::default(),
            limited: Arc::new(LimitMetrics::new(name)),
        }
    }

    /// What its rate counts with.
    pub fn limit(&self) -> &Arc<LimitMetrics> {
        &self.limited
    }

    /// A request passed and was counted.
    pub fn passed(&self) {
        self.passed.inc();
    }

    /// The quota is used up.
    pub fn quota_exceeded(&self) {
        self.quota_exceeded.inc();
    }

    /// Nobody knows what was used, or can keep what is, and so nothing passes.
    pub fn unavailable(&self) {
        self.unavailable.inc();
    }
}
