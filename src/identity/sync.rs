//! Keeps the directory up to date with the store, and tells the store which keys were used.

use std::sync::Arc;
use std::time::Duration;

use super::directory::Directory;
use crate::base::{clock, fault};
use crate::store::{Store, StoreError};

/// How often the use of keys is recorded, and ended revocations are forgotten.
const CHORES_EVERY: Duration = Duration::from_secs(10);
/// How often the store is rid of what has ended long ago.
const FORGET_EVERY: Duration = Duration::from_secs(3600);
/// Uses recorded in one transaction.
const USES_MAX: usize = 500;

/// Follows one store.
#[derive(Debug)]
pub struct Follower {
    store: Store,
    directory: Arc<Directory>,
    /// Up to which change the directory knows the store; `None` before the first.
    known: tokio::sync::Mutex<Option<i64>>,
}

impl Follower {
    /// One that has `directory` follow `store`.
    pub fn new(store: Store, directory: Arc<Directory>) -> Self {
        directory.await_store();
        Self { store, directory, known: tokio::sync::Mutex::new(None) }
    }

    /// Brings the directory up to date.
    ///
    /// # Errors
    /// The store does not answer; what was read until then counts.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        let mut known = self.known.lock().await;
        let last = self.store.last_change().await?;
        if known.is_some_and(|known| known > last) {
            tracing::warn!("the store is an older state of itself, or another one: reading all of it");
            self.directory.forget_store();
            *known = None;
        }
        while known.is_none_or(|known| known < last) {
            let changes = self.store.changes(known.unwrap_or(0), last).await?;
            let upto = changes.upto;
            self.directory.apply(changes, upto == last, clock::unix_now());
            *known = Some(upto);
        }
        Ok(())
    }

    /// One that knows as much of `store` as this one of its own: as if that had been put in its place.
    #[cfg(test)]
    pub(super) async fn of_another_store(&self, store: Store) -> Self {
        let known = tokio::sync::Mutex::new(*self.known.lock().await);
        Self { store, directory: self.directory.clone(), known }
    }

    /// Follows the store for as long as it is polled.
    pub async fn run(self: Arc<Self>) {
        let mut watch = self.store.watch();
        let (mut chores, mut forget) = (clock::now(), clock::now());
        loop {
            fault::point("store", "");
            if let Err(error) = self.catch_up().await {
                tracing::debug!(%error, "cannot follow the store");
            }
            let now = clock::now();
            if now.saturating_duration_since(chores) >= CHORES_EVERY {
                chores = now;
                self.directory.forget(clock::unix_now());
                self.record_uses().await;
            }
            if now.saturating_duration_since(forget) >= FORGET_EVERY {
                forget = now;
                match self.store.forget(clock::unix_now()).await {
                    Ok(rows) => tracing::debug!(rows, "the store forgot what had ended"),
                    Err(error) => tracing::debug!(%error, "the store cannot forget what has ended"),
                }
            }
            watch.next().await;
        }
    }

    /// Tells the store which keys were used.
    pub async fn record_uses(&self) {
        let used = self.directory.take_used();
        for some in used.chunks(USES_MAX) {
            if let Err(error) = self.store.keys_used(some).await {
                tracing::debug!(%error, "the use of API keys could not be recorded");
                self.directory.give_back_used(some);
            }
        }
    }
}
