//! The one place that reads the clock.
//!
//! State machines take `now` as an argument and are tested with made-up instants; whoever drives them asks here.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock, for time-outs and measurements.
#[inline]
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    Instant::now()
}

/// The wall clock, for what is shown or sent.
#[inline]
pub fn wall() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    SystemTime::now()
}

/// One moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By the monotonic clock.
    pub now: Instant,
    /// By the wall clock.
    pub wall: SystemTime,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        Self { now: now(), wall: wall() }
    }
}

/// Whole seconds since the Unix epoch of `at`; 0 for a clock set before it.
pub fn whole_unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Seconds since the Unix epoch of `at`; 0 for a clock set before it.
pub fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The wall clock in whole Unix seconds.
#[inline]
pub fn unix_now() -> i64 {
    wall().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
