//! The shortest window: a token bucket, kept as a level that drains.

/// Parts of one request in which levels are kept. What drains is rounded down to them, so the error is to the strict side:
/// a four billionth of a request for each request.
const PART: u64 = 1 << 32;

/// Requests that one limit may let pass at most, in a window or a burst: levels must fit.
pub const COUNT_MAX: u64 = 1_000_000_000;

/// So many requests in so long, so many of them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketRule {
    /// Requests that drain in `per`; from 1 to [`COUNT_MAX`].
    pub count: u64,
    /// Nanoseconds; never 0.
    pub per: u64,
    /// Requests that fit into the empty bucket; from 1 to [`COUNT_MAX`].
    pub burst: u64,
    /// Nanoseconds that a request may wait for its place; 0 = none waits.
    pub queue: u64,
}

impl BucketRule {
    /// Nanoseconds in which `level` drains; rounded up.
    #[inline]
    fn time_of(&self, level: u64) -> u64 {
        if level == 0 {
            return 0;
        }
        let drain = self.count * PART;
        divided(u128::from(level) * u128::from(self.per) + u128::from(drain - 1), drain)
    }

    /// What drains in `nanos`; rounded down.
    #[inline]
    fn drained_in(&self, nanos: u64) -> u64 {
        divided(u128::from(nanos) * u128::from(self.count * PART), self.per)
    }

    #[inline]
    fn burst_level(&self) -> u64 {
        self.burst.saturating_mul(PART)
    }

    /// The highest level there can be: a burst, and those who wait.
    fn level_max(&self) -> u64 {
        if self.queue == 0 {
            return self.burst_level();
        }
        self.burst_level().saturating_add(self.drained_in(self.queue))
    }
}

/// The level of one key: how much of it was used and has not drained yet. Says nothing about rates, so a new
/// configuration goes on with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    level: u64,
    /// The moment of the level, in nanoseconds.
    at: u64,
}

/// What a smaller burst has forgiven a key: a larger one that comes after it asks for it again, so that no number of reloads
/// lets more through than the largest of the bursts would have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Forgiven {
    /// What is above the level, and drains after it.
    pub(super) parts: u64,
    /// The highest level there could be when it was forgiven.
    pub(super) under: u64,
}

impl Forgiven {
    /// What of it has drained by `now`, after all of `bucket`.
    pub(super) fn drain(&mut self, rule: &BucketRule, bucket: &Bucket, now: u64) {
        let drained = rule.drained_in(now.saturating_sub(bucket.at)).saturating_sub(bucket.level);
        self.parts = self.parts.saturating_sub(drained);
    }
}

/// What a window says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Whole requests that still fit; after this one, if it does.
    pub(super) left: u64,
    /// Nanoseconds until the request fits; 0 = it does.
    pub(super) wait: u64,
    /// Nanoseconds until nothing counts any more, this one included if it is admitted.
    pub(super) empty_in: u64,
}

impl Bucket {
    /// One in which `count` requests are at `now`.
    pub(super) fn holding(count: u64, now: u64) -> Self {
        Self { level: count.saturating_mul(PART), at: now }
    }

    /// The level, and its moment.
    pub(super) fn parts(&self) -> (u64, u64) {
        (self.level, self.at)
    }

    /// One of this level at this moment.
    pub(super) fn of_parts(level: u64, at: u64) -> Self {
        Self { level, at }
    }

    /// Whole requests in it, a part counted as one.
    pub(super) fn held(&self) -> u64 {
        self.level.div_ceil(PART)
    }

    /// How it stands for a request of `cost`, with `reserved` requests that are not in it yet.
    #[inline]
    pub(super) fn room(&self, rule: &BucketRule, reserved: u64, cost: u64, now: u64) -> Room {
        let used = self.level_at(rule, now).saturating_add(reserved.saturating_mul(PART));
        let needed = used.saturating_add(cost.saturating_mul(PART));
        let wait = rule.time_of(needed.saturating_sub(rule.burst_level()));
        let level = if wait <= rule.queue { needed } else { used };
        Room { left: rule.burst_level().saturating_sub(level) / PART, wait, empty_in: rule.time_of(level) }
    }

    /// Puts a request of `cost` in.
    #[inline]
    pub(super) fn add(&mut self, rule: &BucketRule, cost: u64, now: u64) {
        self.level = self.level_at(rule, now).saturating_add(cost.saturating_mul(PART));
        self.at = self.at.max(now);
    }

    /// Whether it is above the highest level that `rule` knows: an earlier rule may have known a higher one.
    #[inline]
    pub(super) fn is_above(&self, rule: &BucketRule) -> bool {
        // Hardly ever: the level that those who wait make is not worked out for it.
        self.level > rule.burst_level() && self.level > rule.level_max()
    }

    /// Takes away what is above the highest level that `rule` knows, or puts back what an earlier one has forgiven.
    pub(super) fn clamp(&mut self, rule: &BucketRule, forgiven: &mut Forgiven) {
        let most = rule.level_max();
        if self.level > most {
            forgiven.parts = forgiven.parts.saturating_add(self.level - most);
            forgiven.under = most;
            self.level = most;
        } else if most > forgiven.under {
            let back = forgiven.parts.min(most - forgiven.under);
            self.level = self.level.saturating_add(back);
            forgiven.parts -= back;
            forgiven.under = most;
        }
    }

    /// Whether it is as good as a new one.
    pub(super) fn is_empty(&self, rule: &BucketRule, now: u64) -> bool {
        self.level_at(rule, now) == 0
    }

    #[inline]
    fn level_at(&self, rule: &BucketRule, now: u64) -> u64 {
        if self.level == 0 {
            return 0;
        }
        let level = if self.is_above(rule) { rule.level_max() } else { self.level };
        // A clock that steps back drains nothing.
        let drained = u128::from(now.saturating_sub(self.at)) * u128::from(rule.count * PART);
        // Nearly always all of it: known without dividing.
        if drained >= u128::from(level) * u128::from(rule.per) {
            return 0;
        }
        level - divided(drained, rule.per)
    }
}

/// Rounded down; at most what fits.
#[inline]
fn divided(number: u128, by: u64) -> u64 {
    // One instruction where numbers are small, as they mostly are; many where they are not.
    match u64::try_from(number) {
        Ok(number) => number / by,
        Err(_) => u64::try_from(number / u128::from(by)).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const RULE: BucketRule = BucketRule { count: 10, per: SECOND, burst: 3, queue: 0 };

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::default();
        for left in (0..3).rev() {
            let room = bucket.room(&RULE, 0, 1, SECOND);
            assert_eq!((room.left, room.wait), (left, 0));
            bucket.add(&RULE, 1, SECOND);
        }
        let room = bucket.room(&RULE, 0, 1, SECOND);
        assert_eq!(room, Room { left: 0, wait: SECOND / 10, empty_in: 3 * SECOND / 10 });
        assert!((1..=2).contains(&bucket.room(&RULE, 0, 1, SECOND + SECOND / 10 - 1).wait));
        assert_eq!(bucket.room(&RULE, 0, 1, SECOND + SECOND / 10).wait, 0);
        assert!(
            !bucket.is_empty(&RULE, SECOND + 299_999_999) && bucket.is_empty(&RULE, SECOND + 300_000_000)
        );
    }

    #[test]
    fn what_is_reserved_takes_room() {
        let bucket = Bucket::default();
        assert_eq!(bucket.room(&RULE, 2, 1, 0).wait, 0);
        assert_eq!(bucket.room(&RULE, 3, 1, 0).wait, SECOND / 10);
        assert_eq!(bucket.room(&RULE, u64::MAX, u64::MAX, 0).left, 0);
    }

    /// Numbers at their bounds must neither wrap nor let anything through.
    #[test]
    fn the_largest_numbers_fit() {
        let rule = BucketRule { count: COUNT_MAX, per: u64::MAX, burst: COUNT_MAX, queue: u64::MAX };
        let mut bucket = Bucket::default();
        bucket.add(&rule, COUNT_MAX, 0);
        assert_eq!(bucket.room(&rule, 0, 1, 1).left, 0);
        assert!(bucket.room(&rule, 0, 1, 1).wait > 0);
        assert_eq!(bucket.room(&rule, 0, 1, u64::MAX).left, COUNT_MAX - 1);
    }

    /// A level that an earlier, larger burst allowed is a full bucket to the new one, no fuller.
    #[test]
    fn a_smaller_burst_takes_over() {
        let mut bucket = Bucket::default();
        bucket.add(&BucketRule { burst: 1000, ..RULE }, 1000, 0);
        let mut forgiven = Forgiven::default();
        bucket.clamp(&RULE, &mut forgiven);
        assert_eq!(
            bucket.room(&RULE, 0, 1, 0),
            Room { left: 0, wait: SECOND / 10, empty_in: 3 * SECOND / 10 }
        );
        // Under the larger one again it is as if it had never been forgiven, but for what has drained.
        let rule = BucketRule { burst: 1000, ..RULE };
        let now = 10 * SECOND;
        forgiven.drain(&RULE, &bucket, now);
        bucket.add(&RULE, 0, now);
        bucket.clamp(&rule, &mut forgiven);
        assert_eq!(bucket.room(&rule, 0, 1, now).left, 99);
        assert_eq!(forgiven.parts, 0);
    }
}
