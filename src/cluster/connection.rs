//! The one connection that calls of requests share: made in the background, multiplexed, bounded.
//!
//! A request never connects and never waits for a connection. While there is none, or Redis has just failed several
//! calls in a row, calls fail at once (the breaker); the **keeper**, a task of the process, makes a new connection, asks
//! for a sign of life within the same time that a request would wait, and only then lets calls through again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisError, ServerErrorKind, TlsCertificates, Value,
};
use tokio::sync::{Notify, watch};

use super::config::ClusterSettings;
use super::url::RedisUrl;
use crate::base::task::Backoff;
use crate::base::{clock, fault, units};
use crate::telemetry::metrics::ClusterMetrics;

/// Longest that a connection may take to be made, TLS and login included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Between attempts to connect: the first comes at once.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often an idle connection is asked for a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Failed calls in a row after which nobody asks any more.
const FAILURES_MAX: u32 = 3;
/// Calls at once. Redis answers more than these within the 20 ms that one may take; more would only wait in vain.
const CALLS_MAX: usize = 1024;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It is known to be away: nobody was asked.
    #[error("Redis is away")]
    Down,
    /// Too many calls wait already.
    #[error("{CALLS_MAX} calls wait for Redis already")]
    Busy,
    /// No answer in time.
    #[error("no answer from Redis in time")]
    Slow,
    /// The connection broke.
    #[error("the connection to Redis broke: {0}")]
    Broken(String),
    /// It answered with an error.
    #[error("Redis refused: {0}")]
    Refused(String),
    /// It does not know the script yet.
    #[error("Redis does not know the script")]
    NoScript,
    /// It has what cannot be.
    #[error("nonsense in Redis: {0}")]
    Nonsense(String),
    /// It answered something else than what was asked.
    #[error("no answer to what was asked: {0}")]
    OutOfStep(&'static str),
}

impl Failure {
    /// In one word, for metrics.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Busy => "busy",
            Self::Slow => "slow",
            Self::Broken(_) => "broken",
            Self::Refused(_) | Self::NoScript => "refused",
            Self::Nonsense(_) | Self::OutOfStep(_) => "nonsense",
        }
    }
}

/// Tells connections apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkId(u64);

/// A connection that can be had.
#[derive(Debug)]
struct Link {
    connection: MultiplexedConnection,
    id: LinkId,
    /// Calls that failed since one succeeded.
    failures: AtomicU32,
}

/// What was answered, and by which connection.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) value: Value,
    pub(super) link: LinkId,
}

/// How Redis is, as the keeper sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nobody has tried yet.
    Unknown,
    /// It answers.
    Up {
        /// Since when.
        since: Instant,
    },
    /// It does not.
    Down {
        /// Why.
        error: String,
        /// Since when.
        since: Instant,
    },
}

/// Redis, for calls that are waited for by requests.
#[derive(Debug)]
pub struct Redis {
    url: RedisUrl,
    ca: Option<Vec<u8>>,
    timeout: Duration,
    /// The key that is written to see whether one can.
    probe: String,
    link: ArcSwapOption<Link>,
    links: AtomicU64,
    calls: AtomicUsize,
    health: Mutex<Health>,
    lost: Notify,
    up: watch::Sender<bool>,
    metrics: Arc<ClusterMetrics>,
}

impl Redis {
    pub(super) fn new(settings: &ClusterSettings, metrics: Arc<ClusterMetrics>) -> Self {
        Self {
            url: settings.redis.clone(),
            ca: settings.ca.clone(),
            timeout: settings.timeout,
            probe: format!("{}alive", settings.prefix),
            link: ArcSwapOption::empty(),
            links: AtomicU64::new(0),
            calls: AtomicUsize::new(0),
            health: Mutex::new(Health::Unknown),
            lost: Notify::new(),
            up: watch::Sender::new(false),
            metrics,
        }
    }

    /// Where it is.
    pub fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// Longest wait of a request.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How it is.
    pub fn health(&self) -> Health {
        self.health.lock().clone()
    }

    /// Whether calls are let through at the moment.
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Says when that changes.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    pub(super) fn metrics(&self) -> &Arc<ClusterMetrics> {
        &self.metrics
    }

    /// Asks, and waits no longer than `limit`.
    pub(super) async fn call(&self, command: &Cmd, limit: Duration) -> Result<Answer, Failure> {
        let began = clock::now();
        let done = self.ask(command, limit).await;
        match &done {
            Err(Failure::NoScript) => {}
            Ok(_) => self.metrics.answered(clock::now().saturating_duration_since(began).as_secs_f64()),
            Err(failure) => self.metrics.failed(failure.word()),
        }
        done
    }

    async fn ask(&self, command: &Cmd, limit: Duration) -> Result<Answer, Failure> {
        let Some(link) = self.link.load_full() else { return Err(Failure::Down) };
        let _place = self.place()?;
        let mut connection = link.connection.clone();
        let answer = match tokio::time::timeout(limit, connection.send_packed_command(command)).await {
            Ok(Ok(Value::ServerError(error))) => Err(failure(&error.into())),
            Ok(Ok(value)) => Ok(Answer { value, link: link.id }),
            Ok(Err(error)) => Err(failure(&error)),
            Err(_) => Err(Failure::Slow),
        };
        match &answer {
            Ok(_) if link.failures.load(Ordering::Relaxed) == 0 => {}
            Ok(_) => link.failures.store(0, Ordering::Relaxed),
            // Of this call, not of Redis.
            Err(Failure::NoScript) => {}
            Err(failure) => self.note(failure, &link),
        }
        answer
    }

    fn place(&self) -> Result<Place<'_>, Failure> {
        if self.calls.fetch_add(1, Ordering::Relaxed) >= CALLS_MAX {
            self.calls.fetch_sub(1, Ordering::Relaxed);
            return Err(Failure::Busy);
        }
        Ok(Place(&self.calls))
    }

    /// A call over `link` failed: enough of them, or a broken connection, and nobody asks any more.
    fn note(&self, failure: &Failure, link: &Arc<Link>) {
        let failures = link.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= FAILURES_MAX || matches!(failure, Failure::Broken(_)) {
            self.give_up(link, failure.to_string());
        }
    }

    /// What came over `link` as an answer is none to what was asked. Calls and answers over one connection are matched by
    /// their order alone, and whoever lost one answer would give each call that of another: the connection is given up.
    pub(super) fn distrust(&self, link: LinkId) {
        if let Some(current) = self.link.load_full().filter(|current| current.id == link) {
            self.give_up(&current, "an answer to something else".to_owned());
        }
    }

    /// Nobody uses `link` any more, if it is still the one in use.
    fn give_up(&self, link: &Arc<Link>, error: String) {
        let mut health = self.health.lock();
        let before = self.link.compare_and_swap(link, None);
        // Another may have been quicker, and the keeper too.
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, link)) {
            self.down(&mut health, error);
            self.lost.notify_one();
        }
    }

    /// Keeps a connection, for as long as the process lives.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut pauses = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        loop {
            match self.connect().await {
                Ok(connection) => {
                    let since = clock::now();
                    self.publish(connection);
                    self.attend().await;
                    if clock::now().saturating_duration_since(since) >= HEARTBEAT {
                        pauses.reset();
                        continue;
                    }
                    // It connects, and then fails: no better than one that does not.
                }
                Err(error) => self.down(&mut self.health.lock(), error),
            }
            // Instances that lost it together do not come back in step.
            tokio::time::sleep(pauses.pause()).await;
        }
    }

    /// A connection that answers as fast as requests need it, and takes what they write.
    async fn connect(&self) -> Result<MultiplexedConnection, String> {
        fault::point("redis", "");
        // The bounds are ours.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(CALLS_MAX);
        let mut connection = self.open(config).await?;
        // Reading is not enough: it may be full, or a replica.
        let mut write = redis::cmd("SET");
        write.arg(&self.probe).arg(1).arg("EX").arg(60);
        match tokio::time::timeout(self.timeout, connection.send_packed_command(&write)).await {
            Ok(Ok(Value::ServerError(error))) => Err(error.to_string()),
            Ok(Ok(_)) => Ok(connection),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {}", units::format_duration(self.timeout))),
        }
    }

    /// A connection of its own, for those who wait for long.
    pub(super) async fn open(&self, config: AsyncConnectionConfig) -> Result<MultiplexedConnection, String> {
        let client = match &self.ca {
            Some(ca) if self.url.is_tls() => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(ca.clone()) };
                Client::build_with_tls(self.url.info(), certificates)
            }
            _ => Client::open(self.url.info()),
        };
        let client = client.map_err(|error| error.to_string())?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err(format!("not connected within {}", units::format_duration(CONNECT_TIMEOUT))),
        }
    }

    fn publish(&self, connection: MultiplexedConnection) {
        let id = LinkId(self.links.fetch_add(1, Ordering::Relaxed));
        // The connection and what is told of it change together.
        let mut health = self.health.lock();
        let now = clock::now();
        match &*health {
            Health::Down { since, .. } => {
                let after = units::format_duration(Duration::from_millis(millis(now, *since)));
                tracing::info!(redis = %self.url, "Redis is back after {after}");
            }
            Health::Unknown => tracing::info!(redis = %self.url, "connected to Redis"),
            Health::Up { .. } => {}
        }
        *health = Health::Up { since: now };
        self.link.store(Some(Arc::new(Link { connection, id, failures: AtomicU32::new(0) })));
        self.metrics.up(true);
        self.up.send_replace(true);
    }

    fn down(&self, health: &mut Health, error: String) {
        let since = match health {
            Health::Down { since, .. } => *since,
            _ => {
                tracing::warn!(redis = %self.url, "Redis is away: {error}");
                clock::now()
            }
        };
        *health = Health::Down { error, since };
        self.metrics.up(false);
        self.up.send_replace(false);
    }

    /// Until the connection is lost: asks for a sign of life where no request does.
    async fn attend(&self) {
        let ping = redis::cmd("PING");
        while self.link.load().is_some() {
            tokio::select! {
                () = self.lost.notified() => {}
                () = tokio::time::sleep(HEARTBEAT) => match self.ask(&ping, self.timeout).await {
                    Ok(Answer { value: Value::SimpleString(pong), .. }) if pong == "PONG" => {}
                    Ok(answer) => self.distrust(answer.link),
                    // That was noted.
                    Err(_) => {}
                },
            }
        }
    }
}

fn millis(now: Instant, since: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX)
}

fn failure(error: &RedisError) -> Failure {
    if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) {
        Failure::NoScript
    } else if error.is_io_error() || error.is_unrecoverable_error() {
        Failure::Broken(error.to_string())
    } else if error.code().is_some() {
        Failure::Refused(error.to_string())
    } else {
        // Such as bytes that are no answer at all.
        Failure::Broken(error.to_string())
    }
}

/// One of the calls that may be under way.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
