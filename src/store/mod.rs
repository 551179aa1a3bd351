//! What outlives the process: users, consumers, API keys, refresh tokens, revocations, services, usage. SQLite or PostgreSQL.
//!
//! A [`Store`] is a handle: made without touching anything, it connects and brings the schema up to date when it is first
//! asked. Every call is bounded in time and in how many there are at once. A store that is down costs one call a second
//! its time; the others fail at once, until it is back.
//!
//! The SQL is the same for both databases; [`on!`] and [`write!`] run it on whichever there is. What readers must hear of
//! carries the number of its change: see [`changes`].

pub mod changes;
pub mod config;
mod connect;
mod consumers;
mod error;
mod keys;
mod refresh;
mod revocations;
mod schema;
mod services;
#[cfg(test)]
mod tests;
mod url;
mod usage;
mod users;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

pub use consumers::{ConsumerRow, SubjectRow};
pub use error::StoreError;
pub use keys::{KeyRow, NewKey};
pub use refresh::Rotation;
pub use revocations::{KEPT_OF_ALL, RevocationRow, Revoked};
pub use services::{COLUMN_CHARACTERS_MAX, NAME_CHARACTERS_MAX, SERVICES_MAX, ServiceRow, Services};
pub use url::StoreUrl;
pub use usage::{BATCH_MAX, OwnerKind, UsageDelta, UsagePage, UsageRow};
pub use users::{Issued, User, UserChange};

use crate::base::{clock, panics, task};
use connect::{Oldest, Pools};

/// Longest a call may take, and a connection to be made.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Calls that run or wait at once: beyond it the store is not fast enough, and more would only wait in vain.
const CALLS_MAX: usize = 64;
/// Connections at once.
const CONNECTIONS_MAX: u32 = 10;
/// Connections that requests leave alone: to follow changes with, and what PostgreSQL calls out on; for services, too.
const CONNECTIONS_APART: u32 = 4;
/// Calls at once of those that follow changes, which find room however many requests want something.
const CALLS_APART: usize = 4;
/// While the store is down: how long after a failure nobody tries again.
const PAUSE: Duration = Duration::from_secs(1);

/// A handle to the store of the configuration. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: StoreUrl,
    /// Whether it is taken as it is: neither made nor brought up to date.
    only_reads: bool,
    /// Made on the runtime that first asks.
    pools: OnceLock<Pools>,
    /// Which connections are still good for anything.
    oldest: Oldest,
    /// Whether it was reached, with the schema of this version, and no call has failed to reach it since.
    is_sound: AtomicBool,
    /// Lets one at a time find that out.
    gate: tokio::sync::Mutex<()>,
    calls: Semaphore,
    /// The calls among them that have a connection.
    turns: Semaphore,
    calls_apart: Semaphore,
    health: Mutex<Health>,
    /// This process changed something that readers must hear of.
    changed: Notify,
    /// This process changed services.
    services_changed: Notify,
}

/// A handle that does not keep its store.
#[derive(Debug, Clone)]
pub struct WeakStore(Weak<Inner>);

impl WeakStore {
    /// The store, if somebody still has it.
    pub fn upgrade(&self) -> Option<Store> {
        self.0.upgrade().map(Store)
    }
}

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nobody asked it yet.
    Unknown,
    /// It answered the last call.
    Up,
    /// It cannot be reached.
    Down {
        /// Why.
        error: String,
        /// Since when.
        since: Instant,
        /// Until when nobody tries again.
        until: Instant,
    },
}

impl Store {
    /// A handle to the store at `url`. Connects to nothing yet.
    pub fn new(url: StoreUrl) -> Self {
        Self::with(url, false)
    }

    /// A handle for somebody who only looks: neither makes the store nor brings its schema up to date.
    pub fn reading(url: StoreUrl) -> Self {
        Self::with(url, true)
    }

    fn with(url: StoreUrl, only_reads: bool) -> Self {
        Self(Arc::new(Inner {
            url,
            only_reads,
            pools: OnceLock::new(),
            oldest: Oldest::default(),
            is_sound: AtomicBool::new(false),
            gate: tokio::sync::Mutex::new(()),
            calls: Semaphore::new(CALLS_MAX),
            turns: Semaphore::new((CONNECTIONS_MAX - CONNECTIONS_APART) as usize),
            calls_apart: Semaphore::new(CALLS_APART),
            health: Mutex::new(Health::Unknown),
            changed: Notify::new(),
            services_changed: Notify::new(),
        }))
    }

    /// Where it is.
    pub fn url(&self) -> &StoreUrl {
        &self.0.url
    }

    /// A handle that does not keep it.
    pub fn downgrade(&self) -> WeakStore {
        WeakStore(Arc::downgrade(&self.0))
    }

    /// Makes the file of a store that is one, if it is not there, readable by its owner alone, and its directory: the
    /// paths that were made, for whoever wants to give them to somebody else.
    ///
    /// # Errors
    /// The file system says no.
    pub fn make_file(&self) -> io::Result<Vec<PathBuf>> {
        match &self.0.url {
            StoreUrl::Sqlite(path) => connect::make_file(path),
            StoreUrl::Postgres(_) => Ok(Vec::new()),
        }
    }

    /// How it is.
    pub fn health(&self) -> Health {
        self.0.health.lock().clone()
    }

    /// Connects, and brings the schema up to date, unless that was done.
    ///
    /// # Errors
    /// It cannot be reached, or not be used.
    pub async fn connect(&self) -> Result<(), StoreError> {
        self.call(async { self.ready().await.map(drop) }).await
    }

    /// The connections of a store that is known to answer with the right schema.
    async fn ready(&self) -> Result<&Pools, StoreError> {
        let pools = match self.0.pools.get() {
            Some(pools) => pools,
            None => {
                let made = Pools::new(&self.0.url, &self.0.oldest)?;
                self.0.pools.get_or_init(|| made)
            }
        };
        if !self.0.only_reads && !self.0.is_sound.load(Ordering::Acquire) {
            let Ok(_turn) = tokio::time::timeout(CALL_TIMEOUT, self.0.gate.lock()).await else {
                return Err(StoreError::Unavailable("it is still being prepared".to_owned()));
            };
            if !self.0.is_sound.load(Ordering::Acquire) {
                Pools::prepare(&self.0.url).await?;
                self.0.is_sound.store(true, Ordering::Release);
            }
        }
        Ok(pools)
    }

    /// Runs one call: bounded, counted, and remembered as a sign of how the store is.
    /// (Boxed at once: a future with both databases in it is too large to be handed around.)
    fn call<'a, T: Send + 'a>(
        &'a self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let in_turn = async {
            // Never closed.
            let _turn = self.0.turns.acquire().await;
            work.await
        };
        Box::pin(self.bounded(&self.0.calls, Box::pin(in_turn)))
    }

    /// [`Store::call`] for those that follow changes: requests, however many, neither take their places nor all of the
    /// connections.
    fn call_apart<'a, T: Send + 'a>(
        &'a self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        Box::pin(self.bounded(&self.0.calls_apart, Box::pin(work)))
    }

    async fn bounded<T>(
        &self,
        places: &Semaphore,
        work: BoxFuture<'_, Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if let Health::Down { error, until, .. } = &*self.0.health.lock()
            && clock::now() < *until
        {
            return Err(StoreError::Unavailable(error.clone()));
        }
        let Ok(_place) = places.try_acquire() else {
            return Err(StoreError::Unavailable("too many calls wait for it already".to_owned()));
        };
        // Once, and at most for as long as another process changes the schema.
        let asked = async {
            match self.ready().await {
                Ok(_) => tokio::time::timeout(CALL_TIMEOUT, work).await.unwrap_or_else(|_| {
                    Err(StoreError::Unavailable(format!("no answer within {} s", CALL_TIMEOUT.as_secs())))
                }),
                Err(error) => Err(error),
            }
        };
        // What a server says can be too much for the driver: one that makes it panic is one that is of no use.
        let done = panics::contained(asked).await.unwrap_or_else(|said| {
            tracing::error!(store = %self.0.url, "the database's driver panicked: {said}");
            Err(StoreError::Unavailable("the database's driver panicked".to_owned()))
        });
        self.remember(done.as_ref().err());
        done
    }

    fn remember(&self, error: Option<&StoreError>) {
        let mut health = self.0.health.lock();
        match error {
            Some(StoreError::Unavailable(error)) => {
                self.0.is_sound.store(false, Ordering::Release);
                self.0.oldest.renew();
                let now = clock::now();
                let since = match &*health {
                    Health::Down { since, .. } => *since,
                    _ => {
                        tracing::warn!(store = %self.0.url, "the store is down: {error}");
                        now
                    }
                };
                let until = now + task::spread(PAUSE);
                *health = Health::Down { error: error.clone(), since, until };
            }
            _ if *health == Health::Up => {}
            _ => {
                if let Health::Down { since, .. } = &*health {
                    let seconds = clock::now().saturating_duration_since(*since).as_secs();
                    tracing::info!(store = %self.0.url, "the store is back after {seconds} s");
                }
                *health = Health::Up;
            }
        }
    }
}

/// Runs `$body` with `$pool` on the store's database. The body is compiled twice, once for each kind.
macro_rules! on {
    ($store:expr, $pool:ident => $body:expr) => {
        match $store.ready().await? {
            $crate::store::connect::Pools::Sqlite($pool) => $body,
            $crate::store::connect::Pools::Postgres($pool) => $body,
        }
    };
}

/// Runs `$body` in a transaction `$tx` (of SQLite one that has the right to write from the start, so that it never has to
/// be given up for another), commits, and is what `$body` is.
macro_rules! write {
    ($store:expr, $tx:ident => $body:expr) => {
        match $store.ready().await? {
            $crate::store::connect::Pools::Sqlite(pool) => {
                let mut $tx = pool.begin_with("BEGIN IMMEDIATE").await?;
                let done = $body;
                $tx.commit().await?;
                done
            }
            $crate::store::connect::Pools::Postgres(pool) => {
                let mut $tx = pool.begin().await?;
                let done = $body;
                $tx.commit().await?;
                done
            }
        }
    };
}

/// Like [`write!`], for what readers must hear of. Takes the lock of the counter first; `$next` gives the next number.
macro_rules! change {
    ($store:expr, $tx:ident => $body:expr) => {{
        let done = match $store.ready().await? {
            $crate::store::connect::Pools::Sqlite(pool) => {
                let mut $tx = pool.begin_with("BEGIN IMMEDIATE").await?;
                let done = $body;
                $tx.commit().await?;
                done
            }
            $crate::store::connect::Pools::Postgres(pool) => {
                let mut $tx = pool.begin().await?;
                let done = $body;
                sqlx::query("SELECT pg_notify($1, '')")
                    .bind($crate::store::changes::CHANNEL)
                    .execute(&mut *$tx)
                    .await?;
                $tx.commit().await?;
                done
            }
        };
        $store.0.changed.notify_one();
        done
    }};
}

/// The next number of a change, in the transaction `$tx`. The first in a transaction keeps other writers out to its end.
macro_rules! next {
    ($tx:ident) => {
        sqlx::query_scalar::<_, i64>($crate::store::changes::NEXT).fetch_one(&mut *$tx).await?
    };
}

use {change, next, on, write};

/// A list of names in one column.
fn names_to_text(names: &[String]) -> String {
    serde_json::to_string(names).unwrap_or_else(|_| "[]".to_owned())
}

/// The names in a column; none where somebody else wrote something else there.
fn names_from_text(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_default()
}
