//! A longer window: requests counted in steps of a tenth of it, so that no sliding window ever holds more than its number.

use super::bucket::Room;

/// Steps of a window. One more is kept: the oldest, part of which is still inside, counts whole. So a request counts for
/// as long as the window and up to a tenth of it longer, never less.
const STEPS: u32 = 10;
const KEPT: usize = STEPS as usize + 1;

/// So many requests in any window of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowRule {
    /// Requests.
    pub count: u64,
    /// Nanoseconds; a multiple of [`STEPS`].
    pub per: u64,
}

impl WindowRule {
    fn step(&self) -> u64 {
        (self.per / u64::from(STEPS)).max(1)
    }

    fn step_at(&self, now: u64) -> u32 {
        // After 2^32 steps, 27 years of the shortest such window, time stands still: strict again.
        u32::try_from(now / self.step()).unwrap_or(u32::MAX)
    }
}

/// A ring in a third less memory, as long as no step has counted a million requests: see [`Ring::pack`].
pub(super) type Packed = [u64; PACKED];

/// Words of a packed ring.
pub(super) const PACKED: usize = 4;

/// Bits of a packed count, three of which stand in a word.
const BITS: u32 = 20;
const MASK: u32 = (1 << BITS) - 1;

/// Stands for a ring whose counts have grown out of it.
pub(super) const GROWN_OUT: Packed = [0, 0, 0, 1 << 63];

/// The counts of one key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ring {
    newest: u32,
    /// Of step n at n modulo [`KEPT`].
    counts: [u32; KEPT],
}

impl Ring {
    /// One in which `count` requests were made at `now`.
    pub(super) fn holding(rule: &WindowRule, count: u64, now: u64) -> Self {
        let mut ring = Self::default();
        ring.add(rule, count, now);
        ring
    }

    /// What it is made of.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        [self.newest].into_iter().chain(self.counts)
    }

    /// What [`Ring::numbers`] gave, one after the other.
    pub(super) fn of_numbers(mut next: impl FnMut() -> Option<u32>) -> Option<Self> {
        let mut ring = Self { newest: next()?, ..Self::default() };
        for count in &mut ring.counts {
            *count = next()?;
        }
        Some(ring)
    }

    /// Eleven counts of 20 bits, the newest step's lower 20 bits as the twelfth, its others in the 4 bits that each word has
    /// left. `None`: a count takes more.
    #[inline]
    pub(super) fn pack(&self) -> Option<Packed> {
        if self.counts.iter().fold(0, |all, count| all | count) > MASK {
            return None;
        }
        let newest = self.newest;
        let [a, b, c, d, e, f, g, h, i, j, k] = self.counts;
        let word = |low: u32, middle: u32, high: u32, rest: u32| {
            u64::from(low)
                | u64::from(middle) << BITS
                | u64::from(high) << (2 * BITS)
                | u64::from(rest) << (3 * BITS)
        };
        Some([
            word(a, b, c, newest >> BITS & 0xf),
            word(d, e, f, newest >> (BITS + 4) & 0xf),
            word(g, h, i, newest >> (BITS + 8)),
            word(j, k, newest & MASK, 0),
        ])
    }

    /// What [`Ring::pack`] gave; `None` for [`GROWN_OUT`].
    #[inline]
    pub(super) fn unpack(words: &Packed) -> Option<Self> {
        let [one, two, three, four] = *words;
        if four >> (3 * BITS) != 0 {
            return None;
        }
        let field = |word: u64, number: u32| (word >> (number * BITS)) as u32 & MASK;
        let rest = |word: u64| (word >> (3 * BITS)) as u32;
        Some(Self {
            newest: field(four, 2) | rest(one) << BITS | rest(two) << (BITS + 4) | rest(three) << (BITS + 8),
            counts: [
                field(one, 0),
                field(one, 1),
                field(one, 2),
                field(two, 0),
                field(two, 1),
                field(two, 2),
                field(three, 0),
                field(three, 1),
                field(three, 2),
                field(four, 0),
                field(four, 1),
            ],
        })
    }

    /// Whether nothing in it is later than `now`, of a window of `per`.
    pub(super) fn is_before(&self, per: u64, now: u64) -> bool {
        self.newest <= WindowRule { count: 1, per }.step_at(now)
    }

    /// Requests in the window that ends at `now`.
    pub(super) fn held(&self, rule: &WindowRule, now: u64) -> u64 {
        self.held_in(rule.step_at(now))
    }

    /// Requests in the window that ends in step `now`.
    fn held_in(&self, now: u32) -> u64 {
        if now <= self.newest {
            // All there are: what is older is cleared when a step begins.
            return self.counts.iter().map(|count| u64::from(*count)).sum();
        }
        self.counted(now).map(|(_, count)| u64::from(count)).sum()
    }

    /// How it stands for a request of `cost`, with `reserved` requests that are not in it yet.
    pub(super) fn room(&self, rule: &WindowRule, reserved: u64, cost: u64, now: u64) -> Room {
        let step = rule.step_at(now);
        let held = self.held_in(step);
        let used = held.saturating_add(reserved);
        let excess = used.saturating_add(cost).saturating_sub(rule.count);
        if excess == 0 {
            let left = rule.count.saturating_sub(used.saturating_add(cost));
            let empty_in = forgotten_at(rule, step.max(self.newest)).saturating_sub(now);
            return Room { left, wait: 0, empty_in };
        }
        Room {
            left: rule.count.saturating_sub(used),
            wait: self.wait_for(rule, excess, now),
            empty_in: if held == 0 { 0 } else { self.wait_for(rule, held, now) },
        }
    }

    /// Counts a request of `cost`.
    pub(super) fn add(&mut self, rule: &WindowRule, cost: u64, now: u64) {
        let step = rule.step_at(now);
        // A clock that steps back counts where it was last.
        if step > self.newest {
            let passed = usize::try_from(step - self.newest).unwrap_or(KEPT);
            for past in 0..passed.min(KEPT) {
                // Clears each step between, the new one included.
                if let Some(count) = self.counts.get_mut(place(step, past)) {
                    *count = 0;
                }
            }
            self.newest = step;
        }
        if let Some(count) = self.counts.get_mut(place(self.newest, 0)) {
            *count = count.saturating_add(u32::try_from(cost).unwrap_or(u32::MAX));
        }
    }

    /// Whether it is as good as a new one.
    pub(super) fn is_empty(&self, rule: &WindowRule, now: u64) -> bool {
        self.held(rule, now) == 0
    }

    /// Nanoseconds until `excess` of the counted requests are forgotten, oldest first.
    fn wait_for(&self, rule: &WindowRule, excess: u64, now: u64) -> u64 {
        let mut forgotten = 0;
        let mut last = self.newest;
        for (step, count) in self.counted(rule.step_at(now)) {
            forgotten += u64::from(count);
            last = step;
            if forgotten >= excess {
                break;
            }
        }
        forgotten_at(rule, last).saturating_sub(now).max(1)
    }

    /// The steps of the window that ends in step `now` with their counts, oldest first.
    fn counted(&self, now: u32) -> impl Iterator<Item = (u32, u32)> {
        let passed = now.saturating_sub(self.newest);
        let ages = (0..=STEPS.saturating_sub(passed)).rev().filter(move |_| passed <= STEPS);
        ages.filter_map(|age| {
            let step = self.newest.checked_sub(age)?;
            let count = self.counts.get(place(self.newest, age as usize))?;
            Some((step, *count))
        })
    }
}

/// The moment from which the requests of `step` do not count any more.
fn forgotten_at(rule: &WindowRule, step: u32) -> u64 {
    (u64::from(step) + KEPT as u64).saturating_mul(rule.step())
}

/// Where the count of the step `past` steps before `newest` is.
fn place(newest: u32, past: usize) -> usize {
    (newest as usize % KEPT + KEPT - past % KEPT) % KEPT
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000_000;
    const STEP: u64 = MINUTE / 10;
    const RULE: WindowRule = WindowRule { count: 5, per: MINUTE };

    #[test]
    fn holds_its_number_for_at_least_the_window() {
        let mut ring = Ring::default();
        for _ in 0..5 {
            assert_eq!(ring.room(&RULE, 0, 1, 3 * STEP + 7).wait, 0);
            ring.add(&RULE, 1, 3 * STEP + 7);
        }
        let room = ring.room(&RULE, 0, 1, 3 * STEP + 7);
        assert_eq!((room.left, room.wait, room.empty_in), (0, 11 * STEP - 7, 11 * STEP - 7));
        assert_eq!(ring.room(&RULE, 0, 1, 14 * STEP - 1).wait, 1);
        assert_eq!(ring.room(&RULE, 0, 5, 14 * STEP).wait, 0);
        assert!(ring.is_empty(&RULE, 14 * STEP) && !ring.is_empty(&RULE, 14 * STEP - 1));
    }

    /// Whatever is in it, as long as it fits; what does not fit is not lost by being cut.
    #[test]
    fn what_is_packed_is_what_is_unpacked() {
        let mut random = fastrand::Rng::with_seed(7);
        for bits in 1..=32 {
            for _ in 0..200 {
                let number = |random: &mut fastrand::Rng| random.u32(..) >> (32 - bits);
                let mut ring = Ring { newest: random.u32(..), ..Ring::default() };
                ring.counts.iter_mut().for_each(|count| *count = number(&mut random));
                let fits = ring.counts.iter().all(|count| *count <= MASK);
                assert_eq!(ring.pack().is_some(), fits);
                assert!(!fits || ring.pack().as_ref().and_then(Ring::unpack) == Some(ring));
            }
        }
        assert_eq!(Ring::unpack(&GROWN_OUT), None);
        assert_eq!(Ring::default().pack(), Some([0; PACKED]));
    }

    #[test]
    fn waits_for_as_many_as_are_in_the_way() {
        let mut ring = Ring::default();
        ring.add(&RULE, 2, 0);
        ring.add(&RULE, 3, 2 * STEP);
        assert_eq!(ring.room(&RULE, 0, 1, 3 * STEP).wait, 8 * STEP);
        assert_eq!(ring.room(&RULE, 0, 3, 3 * STEP).wait, 10 * STEP);
        // The first two are forgotten, the others not.
        assert_eq!(ring.room(&RULE, 0, 1, 11 * STEP).left, 1);
        ring.add(&RULE, 2, 11 * STEP);
        assert_eq!(ring.held(&RULE, 11 * STEP), 5);
        assert_eq!(ring.held(&RULE, 13 * STEP), 2);
    }

    #[test]
    fn a_clock_that_steps_back_forgets_nothing() {
        let mut ring = Ring::default();
        ring.add(&RULE, 5, 100 * STEP);
        assert!(ring.room(&RULE, 0, 1, 0).wait >= 100 * STEP);
        ring.add(&RULE, 1, 50 * STEP);
        assert_eq!(ring.held(&RULE, 100 * STEP), 6);
        // And one that leaps forward forgets all.
        ring.add(&RULE, 1, u64::MAX);
        assert_eq!(ring.held(&RULE, u64::MAX), 1);
    }
}
