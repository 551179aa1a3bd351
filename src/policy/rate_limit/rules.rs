//! What one limit says, and what of it an earlier configuration must have said for its counters to go on.

use smallvec::SmallVec;

pub use super::bucket::{BucketRule, COUNT_MAX};
pub use super::ring::WindowRule;

/// Windows beside the shortest that one limit may have.
pub const LONGER_WINDOWS_MAX: usize = 4;

/// What one limit says.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Counts configurations: the newest rules are the ones that counters are kept by.
    pub generation: u64,
    /// The shortest window.
    pub bucket: Option<BucketRule>,
    /// The others, shortest first.
    pub windows: SmallVec<[WindowRule; 2]>,
    /// Requests under way at once.
    pub concurrent: Option<u32>,
    /// Whether requests are counted when they have ended, by what came of them. Until then their place is kept.
    pub counted_at_end: bool,
}

impl Rules {
    /// What must be kept of each key.
    pub(super) fn layout(&self) -> Layout {
        Layout {
            bucket: self.bucket.map(|rule| rule.per),
            rings: self.windows.iter().map(|rule| rule.per).collect(),
            held: self.holds(),
        }
    }

    /// Whether a request of `cost` fits when nothing else counts.
    pub(super) fn ever_admit(&self, cost: u64) -> bool {
        self.bucket.is_none_or(|rule| cost <= rule.burst)
            && self.windows.iter().all(|rule| cost <= rule.count)
    }

    /// Whether something is held from a request's beginning to its end.
    pub(super) fn holds(&self) -> bool {
        self.concurrent.is_some() || self.counted_at_end
    }
}

/// What is kept of each key: counters of one layout go on under all rules that have it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Layout {
    /// The length of the shortest window in nanoseconds.
    pub(super) bucket: Option<u64>,
    /// Those of the longer ones.
    pub(super) rings: SmallVec<[u64; 2]>,
    /// Whether requests under way are counted.
    pub(super) held: bool,
}
