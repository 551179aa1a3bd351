//! What outlives a configuration: providers with the tokens they have verified, and the keys that were fetched, found again
//! by identity.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::directory::Directory;
use super::jwks::{Fetch, JwksUrl, Offline, Remote};
use super::login::Live as Logins;
use super::provider::{Provider, Settings};
use super::usage::Ledger;
use crate::base::clock;
use crate::base::registry::Registry;
use crate::store::{Store, StoreUrl, WeakStore};
use crate::telemetry::metrics::Metrics;

/// The live state of identity of a process (or test).
#[derive(Debug)]
pub struct Live {
    metrics: Arc<Metrics>,
    fetch: Arc<dyn Fetch>,
    providers: Registry<(String, u64), Provider>,
    key_sets: Registry<(Arc<str>, String), Remote>,
    directory: Arc<Directory>,
    logins: Arc<Logins>,
    usage: Arc<Ledger>,
    /// Those that snapshots hold: the one of the process, and another one that a reload asks for in vain.
    stores: Mutex<Vec<WeakStore>>,
}

impl Live {
    /// Nothing known yet; key sets are got by `fetch`.
    pub fn new(metrics: Arc<Metrics>, fetch: Arc<dyn Fetch>) -> Arc<Self> {
        Arc::new(Self {
            logins: Logins::new(metrics.clone(), clock::now()),
            metrics,
            fetch,
            providers: Registry::default(),
            key_sets: Registry::default(),
            directory: Arc::default(),
            usage: Arc::default(),
            stores: Mutex::default(),
        })
    }

    /// One that never fetches: for `check`, `explain` and tests.
    pub fn offline(metrics: Arc<Metrics>) -> Arc<Self> {
        Self::new(metrics, Arc::new(Offline))
    }

    /// Who is known: the same for as long as the process lives.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// What logins share: the threads for passwords, and who was wrong how often.
    pub fn logins(&self) -> &Arc<Logins> {
        &self.logins
    }

    /// What was used of quotas.
    pub fn usage(&self) -> &Arc<Ledger> {
        &self.usage
    }

    /// The store at `url`: the one there is if that is where it is. Asks it nothing.
    pub fn store(&self, url: &StoreUrl) -> Store {
        let mut stores = self.stores.lock();
        stores.retain(|store| store.upgrade().is_some());
        if let Some(known) = stores.iter().filter_map(WeakStore::upgrade).find(|store| store.url() == url) {
            return known;
        }
        let store = Store::new(url.clone());
        stores.push(store.downgrade());
        store
    }

    /// The provider that `settings` describe: the one there is, if it was `written` alike and its files still contain the
    /// same (`content` tells that). So a reload keeps the tokens it has verified.
    pub fn provider(&self, settings: Settings, written: &str, content: u64) -> Arc<Provider> {
        let key = (format!("{} = {written}", settings.name), content);
        self.providers.get(key, || Provider::new(settings))
    }

    /// The key set of the provider `name` under `url`: the one there is, so that whatever else changes about the provider,
    /// its keys need not be fetched again.
    pub fn key_set(&self, name: &Arc<str>, url: &JwksUrl, now: Instant) -> Arc<Remote> {
        self.key_sets.get((name.clone(), url.to_string()), || {
            Remote::new(name.clone(), url.clone(), self.fetch.clone(), self.metrics.key_set(name), now)
        })
    }
}
