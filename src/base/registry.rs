//! Values by identity, for as long as somebody holds them: how what is live outlives a configuration.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Values by identity, for as long as somebody holds them.
#[derive(Debug)]
pub struct Registry<K, V> {
    inner: Mutex<Inner<K, V>>,
}

#[derive(Debug)]
struct Inner<K, V> {
    by_key: HashMap<K, Weak<V>>,
    /// Size at which dead entries are looked for: the map stays within twice what is alive.
    prune_at: usize,
}

const PRUNE_AT_MIN: usize = 64;

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { by_key: HashMap::new(), prune_at: PRUNE_AT_MIN }) }
    }
}

impl<K: Eq + Hash, V> Registry<K, V> {
    /// The value under `key`; made by `build` if nobody holds one.
    pub fn get(&self, key: K, build: impl FnOnce() -> V) -> Arc<V> {
        self.get_arc(key, || Arc::new(build()))
    }

    /// Like [`Registry::get`], for values that are made shared.
    pub fn get_arc(&self, key: K, build: impl FnOnce() -> Arc<V>) -> Arc<V> {
        let mut inner = self.inner.lock();
        if let Some(value) = inner.by_key.get(&key).and_then(Weak::upgrade) {
            return value;
        }
        let value = build();
        inner.insert(key, &value);
        value
    }

    /// Puts `value` under `key`. Returns the one before, if somebody still holds it.
    pub fn replace(&self, key: K, value: &Arc<V>) -> Option<Arc<V>> {
        self.inner.lock().insert(key, value).and_then(|before| before.upgrade())
    }
}

impl<K: Eq + Hash, V> Inner<K, V> {
    fn insert(&mut self, key: K, value: &Arc<V>) -> Option<Weak<V>> {
        if self.by_key.len() >= self.prune_at {
            self.by_key.retain(|_, value| value.strong_count() > 0);
            self.prune_at = (self.by_key.len() * 2).max(PRUNE_AT_MIN);
        }
        self.by_key.insert(key, Arc::downgrade(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_held_and_forgets_the_rest() {
        let registry = Registry::default();
        let kept = registry.get(0, || "kept");
        for key in 1..1_000 {
            registry.get(key, || "dropped");
        }
        assert!(Arc::ptr_eq(&kept, &registry.get(0, || "new")));
        assert!(registry.inner.lock().by_key.len() <= PRUNE_AT_MIN);
    }
}
