//! What instances share over Redis: counters of limits ([`counters`]) and revocations ([`revocations`]).
//!
//! A [`Cluster`] is made when a configuration is compiled, and does nothing until it is started. It then keeps its
//! connections by itself. Whatever is wrong with Redis is a status, never a reason not to start, and costs a request
//! `cluster.timeout` at most, or nothing once it is known.

pub mod config;
mod connection;
pub mod counters;
pub mod revocations;
mod script;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod url;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

pub use self::config::ClusterSettings;
pub use self::connection::{Failure, Health, Redis};
use self::counters::Counters;
use self::revocations::{Channel, Heard};
pub use self::url::RedisUrl;
use crate::base::{clock, task, units};
use crate::telemetry::metrics::ClusterMetrics;

/// How often batches that nobody uses are given back.
const TIDY: Duration = Duration::from_millis(250);

/// What this instance shares with others.
#[derive(Debug)]
pub struct Cluster {
    settings: ClusterSettings,
    redis: Arc<Redis>,
    counters: Arc<Counters>,
    revocations: Arc<Channel>,
    started: AtomicBool,
}

async fn tidy(counters: Arc<Counters>) {
    loop {
        tokio::time::sleep(TIDY).await;
        counters.tidy();
    }
}

impl Cluster {
    /// One that connects to nothing yet.
    pub fn new(settings: ClusterSettings, metrics: Arc<ClusterMetrics>) -> Arc<Self> {
        let redis = Arc::new(Redis::new(&settings, metrics));
        Arc::new(Self {
            counters: Counters::new(redis.clone(), &settings.prefix, settings.lease),
            revocations: Channel::new(redis.clone(), &settings.prefix),
            redis,
            settings,
            started: AtomicBool::new(false),
        })
    }

    /// What it was made from.
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// The shared counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Revocations, to and from other instances.
    pub fn revocations(&self) -> &Arc<Channel> {
        &self.revocations
    }

    /// Connects, and keeps connected for as long as the current runtime lives. Revocations of other instances, and one's
    /// own, are given to `heard`. Only the first call does anything.
    pub fn start(&self, heard: Heard) {
        if self.started.swap(true, Ordering::AcqRel) {
            return;
        }
        let (redis, counters) = (self.redis.clone(), self.counters.clone());
        let (sent, hears) = (self.revocations.clone(), self.revocations.clone());
        drop(task::keep("redis", move || redis.clone().keep()));
        drop(task::keep("revocations sent", move || sent.clone().send()));
        drop(task::keep("revocations heard", move || hears.clone().hear(heard.clone())));
        drop(task::keep("shared counters", move || tidy(counters.clone())));
    }

    /// Waits until Redis answers for the first time, at most for `limit`.
    pub async fn ready(&self, limit: Duration) -> bool {
        let mut up = self.redis.watch();
        tokio::time::timeout(limit, up.wait_for(|up| *up)).await.is_ok_and(|up| up.is_ok())
    }

    /// Waits until all revocations that other instances have told are known here, at most for `limit`. Not at all while
    /// Redis is away.
    pub async fn caught_up(&self, limit: Duration) -> bool {
        self.redis.is_up() && self.revocations.caught_up(limit).await
    }

    /// How it is, in one line for people; and whether it is well.
    pub fn status(&self) -> (bool, String) {
        let now = clock::now();
        let ago = |since| {
            let passed: Duration = now.saturating_duration_since(since);
            units::format_duration(Duration::from_secs(passed.as_secs()))
        };
        let url = self.redis.url();
        match self.redis.health() {
            Health::Unknown => (false, format!("{url}: connecting")),
            Health::Up { since } => {
                (true, format!("{url}: up for {}{}", ago(since), self.revocations.status()))
            }
            Health::Down { error, since } => (false, format!("{url}: away for {}: {error}", ago(since))),
        }
    }
}

/// The cluster of a process: the same for all its configurations, as `[cluster]` needs an upgrade to change.
#[derive(Debug, Default)]
pub struct Slot(Mutex<Option<Arc<Cluster>>>);

impl Slot {
    /// The cluster of `settings`: the one that has been started, if it is of these settings.
    pub fn of(&self, settings: ClusterSettings, metrics: Arc<ClusterMetrics>) -> Arc<Cluster> {
        let mut slot = self.0.lock();
        match &*slot {
            Some(cluster) if cluster.settings == settings => cluster.clone(),
            // A reload that changes them is refused; this one is let go with it.
            Some(cluster) if cluster.started.load(Ordering::Acquire) => Cluster::new(settings, metrics),
            _ => slot.insert(Cluster::new(settings, metrics)).clone(),
        }
    }
}
