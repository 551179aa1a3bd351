//! Handles by name, for as long as somebody holds them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// The handles of one kind by name.
///
/// Holds them weakly: the configuration owns its handles, so a reload that keeps a name finds the same handle and its
/// counts, and when the last request of a removed name has ended its series go without anybody having to say so.
#[derive(Debug)]
pub(super) struct Handles<T> {
    inner: Mutex<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    by_name: BTreeMap<Box<str>, Weak<T>>,
    /// Size at which dead entries are looked for: twice what lived last time, so that the search costs nothing
    /// measurable per insertion and the map stays within twice what is alive.
    prune_at: usize,
}

const PRUNE_AT_MIN: usize = 64;

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { by_name: BTreeMap::new(), prune_at: PRUNE_AT_MIN }) }
    }
}

impl<T> Handles<T> {
    /// The handle under `name`; made by `make` if nobody holds one.
    pub(super) fn get(&self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut inner = self.inner.lock();
        if let Some(handle) = inner.by_name.get(name).and_then(Weak::upgrade) {
            return handle;
        }
        if inner.by_name.len() >= inner.prune_at {
            inner.by_name.retain(|_, handle| handle.strong_count() > 0);
            inner.prune_at = (inner.by_name.len() * 2).max(PRUNE_AT_MIN);
        }
        let handle = Arc::new(make());
        inner.by_name.insert(name.into(), Arc::downgrade(&handle));
        handle
    }

    /// All that are held, in the order of their names.
    pub(super) fn all(&self) -> Vec<Arc<T>> {
        self.inner.lock().by_name.values().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand reloads, each with a route of a new name, leave no trace of the old ones.
    #[test]
    fn names_that_are_gone_do_not_pile_up() {
        let handles = Handles::default();
        let kept = handles.get("kept", || 1);
        for generation in 0..1000 {
            handles.get(&format!("route-{generation}"), || 2);
        }
        assert!(Arc::ptr_eq(&kept, &handles.get("kept", || 3)));
        assert_eq!(handles.all().len(), 1);
        assert!(handles.inner.lock().by_name.len() <= PRUNE_AT_MIN);
    }
}
