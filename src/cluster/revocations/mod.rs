//! Revocations of tokens, keys and consumers, told to all instances at once and kept for as long as they matter.
//!
//! Redis holds them twice: in a **stream**, which every instance follows and which is cut to a length, and in a **set** of
//! all that still matter. An instance reads the set when it starts and follows the stream from where it was then. When it
//! comes back after a while without Redis it goes on in the stream where it left off, or reads the set again if the stream
//! has been cut beyond that place. A Redis that has lost its data is noticed by that, too, and is told again what this
//! instance had told it.
//!
//! Telling never waits: [`Channel::publish`] leaves the revocation to a task that sends it as soon as Redis is there. It is
//! told at least once; hearing one twice changes nothing.

mod follow;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::Cmd;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use super::connection::{Failure, Redis};
use super::script::Script;
use crate::base::clock;
use crate::base::seldom::Seldom;
use crate::base::task;

/// Entries of the stream: what an instance can miss without reading the set.
const STREAM_MAX: usize = 10_000;
/// Revocations that wait to be sent.
const PENDING_MAX: usize = 100_000;
/// What this instance told and may have to tell again.
const TOLD_MAX: usize = 10_000;
/// Told at once.
const SENT_AT_ONCE: usize = 200;
/// Seconds for which a revocation is kept beyond its end: leeway, and clocks that differ.
const KEPT_AFTER_END: i64 = 3600;
/// How long telling may take, and the pause after a failure.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
const SEND_PAUSE: Duration = Duration::from_millis(100);
/// Longest text of a revocation that is read.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// What no longer holds although it has not expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// One token, by its `jti`.
    Token {
        /// Whose; empty = any provider's.
        provider: String,
        /// The `jti`.
        id: String,
        /// When it expires, in Unix seconds.
        until: i64,
    },
    /// All of a subject that were issued at a moment or earlier.
    Subject {
        /// Whose; empty = any provider's.
        provider: String,
        /// The `sub`.
        subject: String,
        /// The moment, in Unix seconds.
        issued_before: i64,
        /// When the last of them expires, in Unix seconds.
        until: i64,
    },
    /// An API key of a store, from a moment on, which may be to come: one that was replaced holds a while yet.
    Key {
        /// Its visible beginning.
        id: String,
        /// The moment, in Unix seconds.
        ends_at: i64,
        /// When it would have ended by itself, in Unix seconds.
        until: i64,
    },
    /// A consumer of a store, as it was up to a moment. One that is added under its name later is another.
    Consumer {
        /// Its name.
        name: String,
        /// The moment, in Unix seconds.
        removed_at: i64,
        /// How long that is kept, in Unix seconds.
        until: i64,
    },
}

impl Revocation {
    /// When it ceases to matter, in Unix seconds.
    pub fn until(&self) -> i64 {
        match self {
            Self::Token { until, .. }
            | Self::Subject { until, .. }
            | Self::Key { until, .. }
            | Self::Consumer { until, .. } => *until,
        }
    }

    /// What it says beside its end: the same text for the same thing.
    fn text(&self) -> String {
        match self {
            Self::Token { provider, id, .. } => json!({ "token": id, "provider": provider }).to_string(),
            Self::Subject { provider, subject, issued_before, .. } => {
                json!({ "subject": subject, "provider": provider, "issued_before": issued_before })
                    .to_string()
            }
            Self::Key { id, ends_at, .. } => json!({ "key": id, "ends_at": ends_at }).to_string(),
            Self::Consumer { name, removed_at, .. } => {
                json!({ "consumer": name, "removed_at": removed_at }).to_string()
            }
        }
    }

    /// Reads what [`Revocation::text`] wrote; `None` for anything else.
    fn read(text: &[u8], until: i64) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let value: Value = serde_json::from_slice(text).ok()?;
        let word = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let moment = |name: &str| value.get(name).and_then(Value::as_i64);
        match (word("token"), word("subject"), word("key"), word("consumer")) {
            (Some(id), None, None, None) => Some(Self::Token { provider: word("provider")?, id, until }),
            (None, Some(subject), None, None) => {
                let (provider, issued_before) = (word("provider")?, moment("issued_before")?);
                Some(Self::Subject { provider, subject, issued_before, until })
            }
            (None, None, Some(id), None) => Some(Self::Key { id, ends_at: moment("ends_at")?, until }),
            (None, None, None, Some(name)) => {
                Some(Self::Consumer { name, removed_at: moment("removed_at")?, until })
            }
            _ => None,
        }
    }
}

/// Takes what is heard.
pub type Heard = Arc<dyn Fn(&Revocation) + Send + Sync>;

/// Too many revocations wait to be told; this one was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{PENDING_MAX} revocations wait for Redis already")]
pub struct Full;

/// To and from the other instances.
#[derive(Debug)]
pub struct Channel {
    redis: Arc<Redis>,
    stream: String,
    set: String,
    publish: Script,
    queue: Mutex<Queue>,
    /// Something waits to be sent.
    filled: Notify,
    /// Whether this instance hears the others at the moment.
    is_heard: watch::Sender<bool>,
    /// How often the whole set was read.
    readings: AtomicUsize,
    unreadable: Seldom,
}

#[derive(Debug, Default)]
struct Queue {
    pending: VecDeque<Revocation>,
    /// The last that were sent.
    told: VecDeque<Revocation>,
}

impl Channel {
    pub(super) fn new(redis: Arc<Redis>, prefix: &str) -> Arc<Self> {
        Arc::new(Self {
            redis,
            stream: format!("{prefix}revocations"),
            set: format!("{prefix}revoked"),
            publish: Script::new(include_str!("publish.lua")),
            queue: Mutex::default(),
            filled: Notify::new(),
            is_heard: watch::Sender::new(false),
            readings: AtomicUsize::new(0),
            unreadable: Seldom::default(),
        })
    }

    /// Tells all instances, this one as well; as soon as Redis is there.
    ///
    /// # Errors
    /// Redis has been away for so long, or so much is revoked, that no more can wait.
    pub fn publish(&self, revocation: Revocation) -> Result<(), Full> {
        {
            let mut queue = self.queue.lock();
            if queue.pending.len() >= PENDING_MAX {
                self.redis.metrics().revocation_lost();
                return Err(Full);
            }
            queue.pending.push_back(revocation);
        }
        self.filled.notify_one();
        Ok(())
    }

    /// Revocations that wait to be told.
    pub fn waiting(&self) -> usize {
        self.queue.lock().pending.len()
    }

    /// Whether this instance hears the others at the moment.
    pub fn is_heard(&self) -> bool {
        *self.is_heard.borrow()
    }

    /// Waits until everything that was told so far is heard, at most for `limit`.
    pub(super) async fn caught_up(&self, limit: Duration) -> bool {
        let mut is_heard = self.is_heard.subscribe();
        tokio::time::timeout(limit, is_heard.wait_for(|heard| *heard)).await.is_ok_and(|heard| heard.is_ok())
    }

    /// For people, as the end of a line.
    pub(super) fn status(&self) -> String {
        let heard = if self.is_heard() { "followed" } else { "not followed" };
        match self.waiting() {
            0 => format!(", revocations {heard}"),
            waiting => format!(", revocations {heard}, {waiting} wait to be sent"),
        }
    }

    /// Sends what waits, for as long as the process lives.
    pub(super) async fn send(self: Arc<Self>) {
        let mut up = self.redis.watch();
        loop {
            let next: Vec<Revocation> =
                self.queue.lock().pending.iter().take(SENT_AT_ONCE).cloned().collect();
            if next.is_empty() {
                self.filled.notified().await;
                continue;
            }
            if up.wait_for(|up| *up).await.is_err() {
                return;
            }
            match self.send_these(&next).await {
                Ok(()) => self.sent(next),
                Err(error) => {
                    tracing::debug!(%error, "revocations were not sent, and are sent again");
                    tokio::time::sleep(task::spread(SEND_PAUSE)).await;
                }
            }
        }
    }

    async fn send_these(&self, revocations: &[Revocation]) -> Result<(), Failure> {
        let rest = |command: &mut Cmd| {
            command.arg(2).arg(&self.stream).arg(&self.set).arg(STREAM_MAX).arg(KEPT_AFTER_END);
            for revocation in revocations {
                command.arg(revocation.text()).arg(revocation.until());
            }
        };
        self.publish.run(&self.redis, rest, SEND_TIMEOUT).await.map(drop)
    }

    fn sent(&self, revocations: Vec<Revocation>) {
        self.redis.metrics().revocations_sent(revocations.len() as u64);
        let mut queue = self.queue.lock();
        for revocation in revocations {
            queue.pending.pop_front();
            if queue.told.len() >= TOLD_MAX {
                queue.told.pop_front();
            }
            queue.told.push_back(revocation);
        }
    }

    /// Redis has lost what it was told: what this instance told it is told again, as far as it matters.
    fn tell_again(&self) {
        let now = clock::unix_now();
        let mut queue = self.queue.lock();
        let told = std::mem::take(&mut queue.told);
        let room = PENDING_MAX.saturating_sub(queue.pending.len());
        let again =
            told.into_iter().filter(|told| told.until().saturating_add(KEPT_AFTER_END) > now).take(room);
        queue.pending.extend(again);
        drop(queue);
        self.filled.notify_one();
    }

    fn unreadable(&self, now: Instant) {
        self.redis.metrics().revocation_unreadable();
        if self.unreadable.now(now, Duration::from_secs(60)).is_some() {
            tracing::warn!(redis = %self.redis.url(), "something among the revocations in Redis cannot be read");
        }
    }
}
