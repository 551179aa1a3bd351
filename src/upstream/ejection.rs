//! Passive health of one server: connections that fail or break take it out for a while, without any check.
//!
//! Pure: takes `now`. Only trouble with reaching the server counts (refused, timed out, reset); what it answers is the
//! circuit breaker's business. Selection ignores ejections when nothing else is left: a guess must not be an outage.

use std::time::{Duration, Instant};

/// Failures in a row that eject. One is too few: a single reset happens to healthy servers when they restart.
pub const EJECT_AFTER_FAILURES: u32 = 3;
/// Failures further apart than this are not "in a row": on a quiet upstream they are separate events.
pub const EJECT_WINDOW: Duration = Duration::from_secs(10);
/// First time out. Long enough to spare requests, short enough that a restart is over and used again.
pub const EJECT_FIRST: Duration = Duration::from_secs(5);
/// Longest time out; it doubles until then while the server never answers in between.
pub const EJECT_MAX: Duration = Duration::from_secs(60);

/// Passive health of one server.
#[derive(Debug, Default, Clone)]
pub struct Ejection {
    failures: u32,
    last_failure: Option<Instant>,
    until: Option<Instant>,
    /// Ejections since it last worked; doubles the time out.
    times: u32,
}

impl Ejection {
    /// Whether the server is out at `now`.
    pub fn is_ejected(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Whether the server is out as far as anybody has noticed: the time may be over, see [`Ejection::expire`].
    pub fn is_out(&self) -> bool {
        self.until.is_some()
    }

    /// Ends an ejection whose time is over; returns whether there was one. The server is then on trial: see
    /// [`Ejection::on_failure`].
    pub fn expire(&mut self, now: Instant) -> bool {
        let over = self.until.is_some_and(|until| now >= until);
        if over {
            self.until = None;
        }
        over
    }

    /// Whether a success would change nothing, so that reporting it may be skipped.
    pub fn is_idle(&self) -> bool {
        self.failures == 0 && self.times == 0 && self.until.is_none()
    }

    /// A connection failed or broke. Returns for how long the server is out, if this ejected it.
    ///
    /// A server that was out and has not worked since needs only one failure to be out again, for twice as long.
    pub fn on_failure(&mut self, now: Instant) -> Option<Duration> {
        if self.is_ejected(now) {
            // Requests from before the ejection, or panic mode: no news.
            return None;
        }
        let in_a_row =
            self.last_failure.is_some_and(|last| now.saturating_duration_since(last) <= EJECT_WINDOW);
        self.failures = if in_a_row { self.failures.saturating_add(1) } else { 1 };
        self.last_failure = Some(now);
        if self.times == 0 && self.failures < EJECT_AFTER_FAILURES {
            return None;
        }
        let out =
            EJECT_FIRST.saturating_mul(1_u32.checked_shl(self.times.min(16)).unwrap_or(1)).min(EJECT_MAX);
        self.times = self.times.saturating_add(1);
        self.failures = 0;
        self.until = Some(now + out);
        Some(out)
    }

    /// The server answered: all is forgiven. Returns whether that ended an ejection.
    pub fn on_success(&mut self) -> bool {
        let was_out = self.until.is_some();
        *self = Self::default();
        was_out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn ejects_after_failures_in_a_row() {
        let (mut ejection, now) = (Ejection::default(), clock::now());
        assert_eq!(ejection.on_failure(now), None);
        assert_eq!(ejection.on_failure(now), None);
        assert!(!ejection.on_success());
        assert_eq!(ejection.on_failure(now), None);
        assert_eq!(ejection.on_failure(now), None);
        assert_eq!(ejection.on_failure(now), Some(EJECT_FIRST));
        assert!(ejection.is_ejected(now + EJECT_FIRST - SECOND));
        assert!(!ejection.is_ejected(now + EJECT_FIRST));
    }

    #[test]
    fn rare_failures_are_not_a_row() {
        let (mut ejection, start) = (Ejection::default(), clock::now());
        for n in 0..20 {
            assert_eq!(ejection.on_failure(start + n * (EJECT_WINDOW + SECOND)), None);
        }
    }

    /// A server that stays dead is tried once after each time out, less and less often; one answer forgives all.
    #[test]
    fn time_out_doubles_until_it_works_again() {
        let (mut ejection, mut now) = (Ejection::default(), clock::now());
        ejection.on_failure(now);
        ejection.on_failure(now);
        let mut outs = Vec::new();
        for _ in 0..6 {
            let out = ejection.on_failure(now).expect("one failure is enough now");
            outs.push(out.as_secs());
            assert_eq!(ejection.on_failure(now), None, "stragglers do not add up");
            now += out;
            assert!(ejection.expire(now));
        }
        assert_eq!(outs, [5, 10, 20, 40, 60, 60]);
        assert!(!ejection.expire(now) && !ejection.is_idle(), "back, but on trial");
        assert!(!ejection.on_success());
        assert!(ejection.is_idle());
        assert_eq!(ejection.on_failure(now), None);
    }

    proptest! {
        /// Never out longer than the maximum, whatever the order of events; a success always brings it back.
        #[test]
        fn bounded(events in proptest::collection::vec((any::<bool>(), 0_u64..20_000), 0..200)) {
            let (mut ejection, mut now) = (Ejection::default(), clock::now());
            for (failed, wait) in events {
                now += Duration::from_millis(wait);
                if failed {
                    ejection.on_failure(now);
                } else {
                    ejection.on_success();
                    prop_assert!(!ejection.is_ejected(now));
                }
                prop_assert!(!ejection.is_ejected(now + EJECT_MAX));
            }
        }
    }
}
