//! What came of the requests.

use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

#[derive(Default)]
pub(crate) struct Tally {
    times: Vec<u32>,
    bytes: u64,
    errors: u64,
    first_error: Option<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, outcome: io::Result<u64>, time: Duration) {
        match outcome {
            Ok(bytes) => {
                self.bytes += bytes;
                self.times.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
            }
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| error.to_string());
            }
        }
    }

    pub(crate) fn join(&mut self, other: Self) {
        self.times.extend(other.times);
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// One line of JSON.
    pub(crate) fn report(mut self, took: Duration) {
        self.times.sort_unstable();
        let at = |share: f64| {
            let index = (self.times.len() as f64 * share) as usize;
            self.times.get(index).or(self.times.last()).copied().unwrap_or(0)
        };
        let report = json!({
            "requests": self.times.len(), "errors": self.errors, "first_error": self.first_error,
            "seconds": took.as_secs_f64(), "bytes": self.bytes,
            "p50": at(0.5), "p99": at(0.99), "p999": at(0.999),
        });
        crate::say(&report.to_string());
    }
}

pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "not the gateway")]
    Instant::now()
}
