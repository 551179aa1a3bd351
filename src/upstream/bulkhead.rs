//! `max_requests`: how many requests may be under way to one upstream at once, so that a slow one cannot take all there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Counts the requests under way to the upstreams of one name, over all configurations.
#[derive(Debug, Default)]
pub struct Bulkhead {
    under_way: AtomicU32,
}

/// A request's place, given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Bulkhead>);

impl Bulkhead {
    /// A place, if fewer than `most` are taken.
    pub fn enter(self: &Arc<Self>, most: u32) -> Option<Permit> {
        let more = |under_way| (under_way < most).then_some(under_way + 1);
        self.under_way.fetch_update(Relaxed, Relaxed, more).ok().map(|_| Permit(self.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back_once() {
        let bulkhead = Arc::new(Bulkhead::default());
        let (one, two) = (bulkhead.enter(2), bulkhead.enter(2));
        assert!(one.is_some() && two.is_some() && bulkhead.enter(2).is_none());
        // Fewer may be admitted than are under way: after a reload.
        assert!(bulkhead.enter(1).is_none() && bulkhead.enter(0).is_none());
        drop(one);
        assert!(bulkhead.enter(1).is_none());
        assert!(bulkhead.enter(2).is_some());
        drop(two);
        assert_eq!(bulkhead.under_way.load(Relaxed), 0);
    }
}
