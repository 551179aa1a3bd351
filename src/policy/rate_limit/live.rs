//! The stores of a process, found again by every new configuration.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::carry::Stores;
use super::rules::Rules;
use super::store::Store;

/// What makes counters the same in two configurations, together with the layout.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) name: Box<str>,
    pub(super) kind: String,
}

/// What the limits of configurations hold of a store, as long as there is one that has it.
#[derive(Debug)]
pub(super) struct Handle(pub(super) Arc<Store>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.finish_adopting();
    }
}

/// The counters of all limits of a process (or test). Held weakly: those of a limit that no configuration has any more
/// are gone with its last request.
#[derive(Debug, Default)]
pub struct Live {
    /// Of each identity those that are still alive, the newest last.
    stores: Mutex<HashMap<Identity, Vec<Weak<Handle>>>>,
}

impl Live {
    /// All that are alive, those that others have taken over from included.
    pub(super) fn stores(&self) -> Stores {
        let stores = self.stores.lock();
        let alive = stores.iter().flat_map(|(identity, stores)| {
            let alive = stores.iter().filter_map(Weak::upgrade);
            alive.map(move |handle| (identity.clone(), handle.0.clone()))
        });
        alive.collect()
    }

    /// The newest of that identity.
    pub(super) fn newest(&self, identity: &Identity) -> Option<Arc<Store>> {
        let stores = self.stores.lock();
        let newest = stores.get(identity)?.iter().rev().find_map(Weak::upgrade);
        newest.map(|newest| newest.0.clone())
    }

    /// The counters for the limit called `name` by a key of `kind` under `rules`: those there are, if their layout is the
    /// same, or new ones that adopt what they can of them. Changes nothing that requests see until one counts by them.
    pub(super) fn store(&self, name: &str, kind: String, rules: &Arc<Rules>, keys_max: usize) -> Arc<Handle> {
        let mut stores = self.stores.lock();
        stores.retain(|_, stores| {
            stores.retain(|store| store.strong_count() > 0);
            !stores.is_empty()
        });
        let known = stores.entry(Identity { name: name.into(), kind }).or_default();
        let newest = known.iter().rev().find_map(Weak::upgrade);
        if let Some(newest) = &newest
            && *newest.0.layout() == rules.layout()
            && newest.0.keys_max() == keys_max
        {
            return newest.clone();
        }
        let before = newest.map(|newest| newest.0.clone());
        let handle = Arc::new(Handle(Store::new(rules.clone(), keys_max, before)));
        known.push(Arc::downgrade(&handle));
        handle
    }
}
