//! What a limit that instances share says, in the numbers that the scripts count with.
//!
//! The law is the local engine's: the shortest window is a level that drains evenly, longer ones are counted in steps of a
//! tenth. Scripts count in doubles, so everything is a whole number below 2^53 there: time in microseconds, and levels in
//! parts of which a window's length in **units** goes to one request. A level then drains by exactly `count` parts a unit,
//! and nothing is ever rounded but the moment, down to a unit: to the strict side, and not adding up.

use smallvec::SmallVec;

/// Requests that one limit may let pass at most, in a window or a burst.
pub const COUNT_MAX: u64 = 1_000_000_000;

/// Units of a shortest window: so few that a level of three times [`COUNT_MAX`] is below 2^53.
const UNITS_MAX: u64 = 2_000_000;
/// Steps of a longer window.
const STEPS: u64 = 10;

const NANOS: u64 = 1000;

/// So many requests in so long, so many of them at once. Times in nanoseconds, as the local engine has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BucketLaw {
    /// Requests that drain in `per`; from 1 to [`COUNT_MAX`].
    pub count: u64,
    /// Never 0.
    pub per: u64,
    /// Requests that fit into the empty bucket; from 1 to [`COUNT_MAX`].
    pub burst: u64,
    /// How long a request may wait for its place; 0 = none waits.
    pub queue: u64,
}

/// So many requests in any window of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WindowLaw {
    /// Requests; at most [`COUNT_MAX`].
    pub count: u64,
    /// Nanoseconds; never 0.
    pub per: u64,
}

/// What one limit says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Law {
    /// The shortest window.
    pub bucket: Option<BucketLaw>,
    /// The others, shortest first.
    pub windows: SmallVec<[WindowLaw; 2]>,
}

/// A law as the scripts have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Encoded {
    /// What comes after the cost: memory, number of windows, seven numbers for each.
    pub(super) arguments: Box<[u64]>,
    /// Windows.
    pub(super) windows: usize,
}

impl Law {
    /// Requests a second that the shortest window lets pass, rounded down.
    pub(super) fn per_second(&self) -> u64 {
        let per_second = |rule: &BucketLaw| {
            let count = u128::from(rule.count) * 1_000_000_000 / u128::from(rule.per.max(1));
            u64::try_from(count).unwrap_or(u64::MAX)
        };
        self.bucket.as_ref().map_or(0, per_second)
    }

    pub(super) fn encoded(&self) -> Encoded {
        let mut windows: Vec<[u64; 7]> = Vec::new();
        let mut memory = 0;
        if let Some(rule) = &self.bucket {
            let tick = tick(rule.per);
            let (count, burst) = (rule.count.clamp(1, COUNT_MAX), rule.burst.clamp(1, COUNT_MAX));
            let per = multiple(micros(rule.per), tick);
            // No longer than makes as much wait as may be there at once: sums stay exact.
            let queue_max =
                (u128::from(COUNT_MAX) * u128::from(per) / u128::from(count)).min(u128::from(u64::MAX >> 16));
            let queue = (rule.queue / NANOS).min(u64::try_from(queue_max).unwrap_or(u64::MAX));
            let drained = u128::from(per) * u128::from(burst) / u128::from(count);
            memory = u64::try_from(drained).unwrap_or(u64::MAX).saturating_add(queue).saturating_add(per);
            windows.push([1, per, tick, tick, count, burst, queue]);
        }
        let queue = self.bucket.map_or(0, |rule| rule.queue / NANOS);
        for rule in &self.windows {
            let per = multiple(micros(rule.per), STEPS);
            windows.push([2, per, per / STEPS, tick(rule.per), rule.count.min(COUNT_MAX), 0, 0]);
            memory = memory.max(per.saturating_add(per / STEPS).saturating_add(queue));
        }
        let head = [memory.min(MEMORY_MAX), windows.len() as u64];
        let arguments = head.into_iter().chain(windows.iter().flatten().copied()).collect();
        Encoded { arguments, windows: windows.len() }
    }
}

/// Longest that anything is remembered: a hundred years. Far below 2^53 microseconds.
const MEMORY_MAX: u64 = 100 * 365 * 86_400 * 1_000_000;

/// Rounded up: a longer window is a stricter one.
fn micros(nanos: u64) -> u64 {
    nanos.div_ceil(NANOS).clamp(1, MEMORY_MAX)
}

fn multiple(value: u64, of: u64) -> u64 {
    value.div_ceil(of).saturating_mul(of)
}

/// Microseconds of a unit of a window of `per` nanoseconds: the fewest of which there are no more than [`UNITS_MAX`] in it,
/// and which go into it, if any of the next few do.
fn tick(per: u64) -> u64 {
    let per = micros(per);
    let least = per.div_ceil(UNITS_MAX).max(1);
    let candidates = least..least.saturating_add(10_000).min(least.saturating_mul(2)).max(least + 1);
    candidates.clone().find(|tick| per.is_multiple_of(*tick)).unwrap_or(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn units_go_into_every_window_people_write() {
        for (seconds, unit) in
            [(1, 1), (60, 30), (900, 450), (3600, 1800), (86_400, 43_200), (7 * 86_400, 302_400)]
        {
            let tick = tick(seconds * SECOND);
            assert_eq!(tick, unit, "{seconds} s");
            assert!((seconds * 1_000_000).is_multiple_of(tick) && seconds * 1_000_000 / tick <= UNITS_MAX);
        }
    }

    #[test]
    fn the_largest_numbers_stay_exact() {
        let bucket = BucketLaw { count: COUNT_MAX, per: u64::MAX, burst: COUNT_MAX, queue: u64::MAX };
        let windows = SmallVec::from_elem(WindowLaw { count: u64::MAX, per: u64::MAX }, 1);
        let law = Law { bucket: Some(bucket), windows };
        let encoded = law.encoded();
        for number in &encoded.arguments {
            assert!(*number < 1 << 53, "{number}");
        }
        let [per, unit, count, burst, queue] =
            [3, 4, 6, 7, 8].map(|at| u128::from(encoded.arguments.get(at).copied().unwrap()));
        let highest = (2 * burst) * (per / unit) + queue / unit * count;
        assert!(highest < 1 << 53, "{highest}");
    }

    #[test]
    fn rates_by_the_second() {
        let law = |count, per| Law {
            bucket: Some(BucketLaw { count, per, burst: 1, queue: 0 }),
            windows: SmallVec::new(),
        };
        assert_eq!(law(1000, SECOND).per_second(), 1000);
        assert_eq!(law(120_000, 60 * SECOND).per_second(), 2000);
        assert_eq!(law(59, 60 * SECOND).per_second(), 0);
        assert_eq!(Law::default().per_second(), 0);
    }
}
