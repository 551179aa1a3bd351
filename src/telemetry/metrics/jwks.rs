//! What is counted for each key set that is fetched.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use super::cells::{Counter, Words};
use crate::base::clock;

/// Why a fetch fails, in the words of `FetchError`.
const FAILURES: &[&str] = &["connect", "status", "timeout", "too_large", "invalid"];

/// The metrics of the key set of one provider.
#[derive(Debug)]
pub struct JwksMetrics {
    pub(super) name: Box<str>,
    pub(super) succeeded: Counter,
    pub(super) failed: Words,
    /// Bits of an `f64`: seconds since the epoch; 0.0 before the first success.
    last_success: AtomicU64,
}

impl JwksMetrics {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            succeeded: Counter::default(),
            failed: Words::known(FAILURES),
            last_success: AtomicU64::new(0),
        }
    }

    /// A fetch brought a set that can be used.
    pub fn succeeded(&self, at: SystemTime) {
        self.succeeded.inc();
        self.last_success.store(clock::unix_seconds(at).to_bits(), Relaxed);
    }

    /// A fetch failed because of `reason`: a short word from the source code.
    pub fn failed(&self, reason: &'static str) {
        self.failed.inc(reason);
    }

    pub(super) fn last_success(&self) -> f64 {
        f64::from_bits(self.last_success.load(Relaxed))
    }
}
