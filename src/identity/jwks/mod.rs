//! Key sets that identity providers publish under a URL, fetched in the background.
//!
//! Requests only look at what is there ([`Remote::held`]); one task for each set keeps it fresh ([`Remote::start`]). When to
//! fetch, and what to say to a token whose key is not there, is decided by [`schedule::Schedule`].

mod freshness;
pub mod schedule;
mod url;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

pub use self::freshness::max_age;
pub use self::url::JwksUrl;

use self::schedule::{Next, Schedule, Unknown};
use super::keys::KeySet;
use super::keys::jwk::{Secrets, parse_set};
use super::token::Refusal;
use crate::base::reason::Reason;
use crate::base::seldom::Seldom;
use crate::base::task::{self, AbortOnDrop};
use crate::base::{clock, fault, units};
use crate::telemetry::metrics::JwksMetrics;

/// Largest key set taken in, in bytes. Those in use have a few KiB.
pub const SET_BYTES_MAX: usize = 1 << 20;
/// Longest a fetch may take, connecting included.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests of one provider that may wait for a fetch at once; further ones are refused at once.
const WAITING_MAX: usize = 256;
/// How often trouble that goes on is logged.
const TROUBLE_EVERY: Duration = Duration::from_secs(60);

/// Gets a document from the network.
#[async_trait]
pub trait Fetch: std::fmt::Debug + Send + Sync {
    /// The document under `url`: at most [`SET_BYTES_MAX`] of it, within [`FETCH_TIMEOUT`].
    ///
    /// # Errors
    /// Anything but a 200 with a body of that size.
    async fn fetch(&self, url: &JwksUrl) -> Result<Document, FetchError>;
}

/// A document, and how long it may be used.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its bytes.
    pub body: Bytes,
    /// `max-age` of its `Cache-Control` (RFC 9111 section 5.2.2.1), less its `Age`; `None` = it does not say.
    pub max_age: Option<Duration>,
}

/// Why there is no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FetchError {
    /// For the metric: a word from the source code.
    pub word: &'static str,
    /// For people.
    pub message: String,
}

impl FetchError {
    /// One counted under `word`.
    pub fn new(word: &'static str, message: impl Into<String>) -> Self {
        Self { word, message: message.into() }
    }
}

/// Fetches nothing: for configurations that are never put into force.
#[derive(Debug)]
pub struct Offline;

#[async_trait]
impl Fetch for Offline {
    async fn fetch(&self, _: &JwksUrl) -> Result<Document, FetchError> {
        Err(FetchError::new("offline", "nothing is fetched here"))
    }
}

/// The keys of a provider at one moment.
#[derive(Debug)]
pub struct Held {
    /// The keys; none before the first fetch.
    pub set: Arc<KeySet>,
    /// Counts sets that differ.
    pub generation: u64,
    /// Until when they may be used; `None` before the first fetch.
    pub usable_until: Option<Instant>,
}

/// A key set under a URL. Lives as long as a configuration names it for the same provider.
pub struct Remote {
    name: Arc<str>,
    url: JwksUrl,
    fetch: Arc<dyn Fetch>,
    metrics: Arc<JwksMetrics>,
    held: ArcSwap<Held>,
    schedule: Mutex<Schedule>,
    /// What the last fetch came to grief over.
    trouble: Mutex<Option<String>>,
    said: Seldom,
    wake: Arc<Notify>,
    /// Counts fetches that ended.
    ended: watch::Sender<u64>,
    waiting: AtomicUsize,
    task: Mutex<Option<AbortOnDrop>>,
}

async fn keep_fresh(remote: Weak<Remote>, wake: Arc<Notify>) {
    // Not held while nothing happens, or it would never be dropped.
    while let Some(remote) = remote.upgrade() {
        let next = remote.schedule.lock().next(clock::now());
        match next {
            Next::Fetch => remote.refresh().await,
            Next::At(due) => {
                drop(remote);
                // Instances that lost the provider together do not come back in step.
                let late = due.saturating_duration_since(clock::now()).mul_f64(fastrand::f64() / 10.0);
                let due = tokio::time::Instant::from_std(due + late);
                tokio::time::timeout_at(due, wake.notified()).await.unwrap_or_default();
            }
        }
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("name", &self.name).field("url", &self.url).finish_non_exhaustive()
    }
}

impl Remote {
    /// The set of the provider `name` under `url`. Nothing is fetched before [`Remote::start`].
    pub fn new(
        name: Arc<str>,
        url: JwksUrl,
        fetch: Arc<dyn Fetch>,
        metrics: Arc<JwksMetrics>,
        now: Instant,
    ) -> Self {
        let nothing = Held { set: Arc::default(), generation: 0, usable_until: None };
        Self {
            name,
            url,
            fetch,
            metrics,
            held: ArcSwap::from_pointee(nothing),
            schedule: Mutex::new(Schedule::new(now)),
            trouble: Mutex::default(),
            said: Seldom::default(),
            wake: Arc::default(),
            ended: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
            task: Mutex::default(),
        }
    }

    /// What there is at the moment.
    pub fn held(&self) -> arc_swap::Guard<Arc<Held>> {
        self.held.load()
    }

    /// Keeps the set fresh from now on, on the current runtime. Once is enough.
    pub fn start(self: &Arc<Self>) {
        let mut task = self.task.lock();
        if task.is_none() {
            let (this, wake) = (Arc::downgrade(self), self.wake.clone());
            let work = move || keep_fresh(this.clone(), wake.clone());
            *task = Some(AbortOnDrop::new(task::keep("key set", work)));
        }
    }

    /// Waits until the first fetch has ended, however.
    pub async fn warm(&self) {
        let mut ended = self.ended.subscribe();
        // An error says that nobody will ever send again.
        ended.wait_for(|rounds| *rounds > 0).await.map(drop).unwrap_or_default();
    }

    /// Fetches once, and takes over what comes of it.
    async fn refresh(&self) {
        self.schedule.lock().begin(clock::now());
        fault::point("key set", &*self.name);
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.fetch.fetch(&self.url)).await;
        let fetched = fetched.unwrap_or_else(|_| Err(FetchError::new("timeout", "no answer in time")));
        self.settle(fetched, clock::now());
    }

    /// Takes over the outcome of a fetch that ended `now`.
    fn settle(&self, fetched: Result<Document, FetchError>, now: Instant) {
        let read = fetched.and_then(|document| {
            let mut skipped = Vec::new();
            let set = parse_set(&document.body, Secrets::Refused, &mut skipped)
                .map_err(|why| FetchError::new("invalid", format!("the key set is {why}")))?;
            if set.is_empty() {
                let why = skipped.first().map_or(String::new(), |first| format!(": {first}"));
                return Err(FetchError::new("invalid", format!("no key of the set can be used{why}")));
            }
            Ok((set, skipped, document.max_age))
        });
        match read {
            Ok((set, skipped, max_age)) => self.take(set, &skipped, max_age, now),
            Err(error) => {
                self.metrics.failed(error.word);
                self.schedule.lock().failed(now);
                if let Some(unsaid) = self.said.now(now, TROUBLE_EVERY) {
                    let (provider, url) = (&self.name, self.url.shown());
                    tracing::warn!(%provider, url, unsaid, "keys not fetched: {error}");
                }
                *self.trouble.lock() = Some(error.message);
            }
        }
        self.ended.send_modify(|rounds| *rounds += 1);
    }

    fn take(&self, set: KeySet, skipped: &[String], max_age: Option<Duration>, now: Instant) {
        let usable_until = {
            let mut schedule = self.schedule.lock();
            schedule.succeeded(now, max_age);
            schedule.usable_until()
        };
        let before = self.held.load_full();
        let changed = !before.set.is_same(&set);
        let provider = &self.name;
        if changed {
            let keys = set.len();
            tracing::info!(%provider, keys, "keys of the provider have changed");
            for why in skipped {
                tracing::warn!(%provider, "left out: {why}");
            }
        }
        let (set, generation) = if changed {
            (Arc::new(set), before.generation + 1)
        } else {
            (before.set.clone(), before.generation)
        };
        self.held.store(Arc::new(Held { set, generation, usable_until }));
        self.metrics.succeeded(clock::wall());
        if self.trouble.lock().take().is_some() {
            tracing::info!(%provider, "keys are fetched again");
        }
    }

    /// What becomes of a request whose token names a key that is not there, or that comes before any is.
    ///
    /// # Errors
    /// It is refused: with `refusal`, or because nobody can say.
    pub fn unknown(
        self: &Arc<Self>,
        kid: Option<&str>,
        refusal: Refusal,
        now: Instant,
    ) -> Result<KeyWait, Refusal> {
        let answer = self.schedule.lock().unknown(kid.unwrap_or_default(), now);
        match answer {
            Unknown::Refuse => Err(refusal),
            Unknown::Unavailable(after) => Err(self.unavailable(after)),
            Unknown::Wait => {
                if self.waiting.fetch_add(1, Relaxed) >= WAITING_MAX {
                    self.waiting.fetch_sub(1, Relaxed);
                    // Whether the token is any good cannot be told; that it is not would be a lie.
                    return Err(self.unavailable(schedule::COOLDOWN));
                }
                let ended = self.ended.subscribe();
                self.wake.notify_one();
                Ok(KeyWait { remote: self.clone(), ended, refusal: refusal.by(&self.name) })
            }
        }
    }

    fn unavailable(&self, after: Duration) -> Refusal {
        let trouble = self.trouble.lock();
        let detail = trouble.as_deref().unwrap_or("keys are being fetched").to_owned();
        Refusal { retry_after: Some(after), ..Refusal::new(Reason::KeysUnavailable, detail) }
    }

    /// How it stands, for `/readyz?verbose`.
    pub fn status(&self, now: Instant) -> String {
        let ago = |at: Instant| {
            units::format_duration(Duration::from_secs(now.saturating_duration_since(at).as_secs()))
        };
        let (keys, last) = (self.held().set.len(), self.schedule.lock().last_success());
        let trouble = self.trouble.lock();
        let trouble = trouble.as_ref().map(|why| format!("; last fetch failed: {why}")).unwrap_or_default();
        match last {
            Some(at) => format!("{keys} keys, fetched {} ago{trouble}", ago(at)),
            None => format!("keys were never fetched{trouble}"),
        }
    }
}

/// A request waits until the keys that its token may need were fetched.
#[derive(Debug)]
pub struct KeyWait {
    remote: Arc<Remote>,
    ended: watch::Receiver<u64>,
    refusal: Refusal,
}

impl KeyWait {
    /// Returns when a fetch has ended, or at `until`. Then the token is to be verified again.
    pub async fn done(mut self, until: Option<Instant>) {
        let ended = async {
            // It cannot be closed while `remote` is held.
            self.ended.changed().await.unwrap_or_default();
        };
        match until {
            Some(until) => {
                let until = tokio::time::Instant::from_std(until);
                tokio::time::timeout_at(until, ended).await.unwrap_or_default();
            }
            None => ended.await,
        }
    }

    /// What to tell the client if it is not going to wait.
    pub fn refusal(&self) -> Refusal {
        self.refusal.clone()
    }
}

impl Drop for KeyWait {
    fn drop(&mut self) {
        self.remote.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
