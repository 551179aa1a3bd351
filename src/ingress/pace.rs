//! Whether a body moves fast enough: `limits.min_body_rate`. Pure: durations in, verdict out.

use std::time::Duration;

/// How far one direction of a body may still fall behind.
///
/// Only the time in which the client is waited for counts, and every byte buys time back. What is saved up is bounded,
/// so that a quick start does not pay for a slow rest; so over any stretch of waiting a body carried what its rate
/// asks for, but for the bound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    most: Duration,
    left: Duration,
}

impl Pace {
    /// Nothing is behind yet. `silence` is the longest time in which nothing may come at all. A quarter more than that
    /// may be owed: whoever pauses for as long as is allowed must be able to make up for it, and silence is to be told
    /// as silence.
    pub(super) fn new(silence: Duration) -> Self {
        let most = silence.saturating_add(silence / 4);
        Self { most, left: most }
    }

    /// How long the client may be waited for from now on, if nothing comes.
    pub(super) fn left(&self) -> Duration {
        self.left
    }

    /// The most there ever is of [`Pace::left`].
    pub(super) fn most(&self) -> Duration {
        self.most
    }

    /// The client was waited for, `time` long, and moved so many `bytes`; `rate` in bytes a second, 0 = any.
    pub(super) fn moved(&mut self, time: Duration, bytes: u64, rate: u64) {
        let Some(micros) = bytes.saturating_mul(1_000_000).checked_div(rate) else { return };
        let bought = Duration::from_micros(micros);
        self.left = self.left.saturating_add(bought).saturating_sub(time).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_are_made_up_for_and_drips_are_not() {
        let mut pace = Pace::new(20 * SECOND);
        for _ in 0..100 {
            pace.moved(19 * SECOND, 19 * 1024, 1024);
            assert_eq!(pace.left(), 25 * SECOND, "an honest client with long pauses");
        }
        // A quick start does not pay for a slow rest.
        pace.moved(Duration::ZERO, 1 << 40, 1024);
        for second in 1..=25 {
            assert!(!pace.left().is_zero(), "{second}");
            pace.moved(SECOND, 1, 1024);
        }
        assert!(pace.left() < SECOND);
        let mut any = Pace::new(SECOND);
        any.moved(100 * SECOND, 0, 0);
        assert_eq!(any.left(), any.most());
    }

    proptest! {
        /// Whoever keeps to the rate in each of its steps is never behind, whoever does half of it always ends.
        #[test]
        fn the_rate_decides(rate in 1_u64..1_000_000, steps in prop::collection::vec(1_u64..20_000, 1..50)) {
            let mut kept = Pace::new(20 * SECOND);
            let mut half = Pace::new(20 * SECOND);
            for millis in &steps {
                let (time, bytes) = (Duration::from_millis(*millis), (rate * millis).div_ceil(1000));
                kept.moved(time, bytes, rate);
                half.moved(time, bytes / 2, rate);
                prop_assert_eq!(kept.left(), kept.most());
            }
            for _ in 0..60 {
                half.moved(SECOND, rate / 2, rate);
            }
            prop_assert!(half.left().is_zero());
        }
    }
}
