//! What is counted for each leg of a route that puts several answers together.

use super::cells::{Histogram, SECONDS, Words};

/// The metrics of one leg.
#[derive(Debug)]
pub struct LegMetrics {
    pub(super) route: Box<str>,
    pub(super) leg: Box<str>,
    pub(super) duration: Histogram,
    pub(super) failures: Words,
}

impl LegMetrics {
    pub(super) fn new(route: &str, leg: &str) -> Self {
        Self {
            route: route.into(),
            leg: leg.into(),
            duration: Histogram::new(&SECONDS),
            failures: Words::default(),
        }
    }

    /// It took `seconds`, from when its inputs were there.
    pub fn took(&self, seconds: f64) {
        self.duration.observe(seconds);
    }

    /// It failed: a code such as `leg.timeout` or `upstream.reset`, from the source code.
    pub fn failed(&self, code: &'static str) {
        self.failures.inc(code);
    }
}
