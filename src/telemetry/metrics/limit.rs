//! What is counted for each rate limit.

use super::cells::Counter;

/// The metrics of one rate limit.
#[derive(Debug)]
pub struct LimitMetrics {
    pub(super) name: Box<str>,
    pub(super) refused: Counter,
}

impl LimitMetrics {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), refused: Counter::default() }
    }

    /// The limit had no room for a request.
    pub fn refused(&self) {
        self.refused.inc();
    }
}
