//! Message brokers that speak AMQP 0-9-1: questions to queues, and messages to exchanges.
//!
//! ```text
//! Broker ── keeper: connects, again and again ── Link ─┬─ lanes for calls: one channel each, over the default exchange
//!                                                      └─ a lane for each exchange that is published to
//! ```
//!
//! A [`Broker`] is made when a configuration is compiled, and does nothing until it is started. It then keeps its
//! connection by itself: a request never connects, and never waits for a connection. Calls share a few channels; each
//! exchange that is named has one of its own, as publishing to one that does not exist closes the channel. The log bus
//! ([`bus`]) has a connection of its own.

pub mod bus;
pub mod config;
mod exchange;
mod failure;
mod frames;
mod id;
mod lane;
mod message;
mod pending;
mod socket;
#[cfg(test)]
mod tests;
mod url;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use lapin::BasicProperties;
use lapin::types::ShortString;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot, watch};

pub use self::config::{BrokerRaw, BrokerSettings};
pub use self::exchange::Exchange;
pub use self::failure::Failure;
use self::id::Ids;
use self::lane::{Common, Job, Kind, Lane};
pub use self::message::{Headers, Message, NAME_BYTES_MAX, Name, News, Place, Reply, queue_name};
use self::socket::{Connected, Pulled};
pub use self::url::BrokerUrl;
use crate::base::registry::Registry;
use crate::base::task::{self, Backoff, Pauses};
use crate::base::{clock, fault, panics, units};
use crate::telemetry::metrics::{BrokerMetrics, Metrics};

/// What a connection is closed with for no bad reason.
const REPLY_SUCCESS: u16 = 200;
/// Who publishes news.
const APP_ID: &str = "edgeward";
/// Longest wait for an answer, or for a confirmation, where nothing shorter is asked for.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// Between attempts to connect: the first comes at once.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A connection that lasts so long is made again without waiting longer than the first time.
const LASTING: Duration = Duration::from_secs(5);
/// How often it is looked whether the connection is still there, beside what its channels tell.
const LOOK: Duration = Duration::from_secs(1);
/// How long a broker that is used no longer may take to close the connection in an orderly way.
const GOODBYE: Duration = Duration::from_secs(2);

/// A broker. A cheap handle on what lives on over configurations that do not change it.
#[derive(Debug, Clone)]
pub struct Broker(Arc<Live>);

/// The live part.
#[derive(Debug)]
struct Live {
    state: Arc<State>,
    /// Once the keeper is started: dropped with the last handle, which ends it.
    keeper: Mutex<Option<oneshot::Sender<()>>>,
}

/// What the keeper and calls share.
#[derive(Debug)]
struct State {
    settings: BrokerSettings,
    metrics: Arc<BrokerMetrics>,
    link: ArcSwapOption<Link>,
    ids: Arc<Ids>,
    places: Arc<Semaphore>,
    turn: AtomicUsize,
    health: Mutex<Health>,
    up: watch::Sender<bool>,
}

/// How a broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Health {
    /// Nobody has tried yet.
    Unknown,
    /// Connected.
    Up { since: Instant },
    /// Not connected, and why.
    Down { error: String, since: Instant },
}

/// Tells the connections of this process apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LinkId(u64);

/// A connection with its channels.
#[derive(Debug)]
struct Link {
    id: LinkId,
    common: Common,
    /// For calls, over the default exchange only.
    lanes: Box<[Lane]>,
    /// As many as are named in configurations.
    exchanges: Mutex<HashMap<ShortString, Arc<Lane>>>,
    lost: Arc<Lost>,
    plug: Pulled,
}

/// Whether a lane of a connection ended.
#[derive(Debug, Default)]
struct Lost {
    told: Notify,
    /// By a panic: nobody serves its channel any more, though the connection stands.
    by_panic: AtomicBool,
}

impl Broker {
    fn make(settings: BrokerSettings, metrics: Arc<BrokerMetrics>) -> Result<Arc<Live>, String> {
        let ids = Ids::new().map_err(|_| "the system has no random numbers".to_owned())?;
        let places = usize::try_from(settings.max_pending).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let state = State {
            metrics,
            link: ArcSwapOption::empty(),
            ids: Arc::new(ids),
            places: Arc::new(Semaphore::new(places)),
            turn: AtomicUsize::new(0),
            health: Mutex::new(Health::Unknown),
            up: watch::Sender::new(false),
            settings,
        };
        Ok(Arc::new(Live { state: Arc::new(state), keeper: Mutex::new(None) }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.state.settings.name
    }

    /// Whether both are handles on the same.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Connects, and keeps connected for as long as somebody holds a handle and the current runtime lives. Only the first
    /// call does anything.
    pub fn start(&self) {
        let mut keeper = self.0.keeper.lock();
        if keeper.is_none() {
            let (held, last) = oneshot::channel();
            drop(task::spawn("broker", self.0.state.clone().keep(last)));
            *keeper = Some(held);
        }
    }

    /// Waits until it is connected for the first time, at most for `limit`.
    pub async fn ready(&self, limit: Duration) -> bool {
        let mut up = self.0.state.up.subscribe();
        tokio::time::timeout(limit, up.wait_for(|up| *up)).await.is_ok_and(|up| up.is_ok())
    }

    /// How it is, in one line for people; and whether it is well.
    pub fn status(&self) -> (bool, String) {
        let state = &*self.0.state;
        let now = clock::now();
        let ago = |since| {
            let passed: Duration = now.saturating_duration_since(since);
            units::format_duration(Duration::from_secs(passed.as_secs()))
        };
        let url = &state.settings.url;
        match &*state.health.lock() {
            Health::Unknown => (false, format!("{url}: connecting")),
            Health::Up { .. } if state.is_blocked() => (false, format!("{url}: takes no messages")),
            Health::Up { since } => (true, format!("{url}: up for {}", ago(*since))),
            Health::Down { error, since } => (false, format!("{url}: away for {}: {error}", ago(*since))),
        }
    }

    /// Asks `queue`, and waits for the answer. Dropped, it waits no more, and its place is free.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ask(&self, queue: &Name, message: Message) -> Result<Reply, Failure> {
        let place = Place { exchange: None, routing_key: queue.clone() };
        match self.0.state.send(&place, message, Kind::Ask).await {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(Failure::Lost),
            Err(failure) => Err(failure),
        }
    }

    /// Publishes to `place`, and waits until the broker has taken the message.
    ///
    /// # Errors
    /// Why it has not.
    pub async fn publish(&self, place: &Place, message: Message) -> Result<(), Failure> {
        self.0.state.send(place, message, Kind::Tell).await.map(drop)
    }
}

impl State {
    async fn send(&self, place: &Place, message: Message, kind: Kind) -> Result<Option<Reply>, Failure> {
        let done = self.send_by(place, message, kind).await;
        if let Err(failure) = done {
            self.metrics.failed(failure.word());
        }
        done
    }

    async fn send_by(&self, place: &Place, message: Message, kind: Kind) -> Result<Option<Reply>, Failure> {
        let link = self.link.load_full().ok_or(Failure::Down)?;
        if link.is_blocked() {
            return Err(Failure::Blocked);
        }
        let permit = self.places.clone().try_acquire_owned().map_err(|_| Failure::Busy)?;
        let permit = Arc::new(permit);
        let named = place.exchange.as_ref().map(|exchange| exchange.lane(&link));
        let lane = match &named {
            Some(lane) => lane,
            None => link.next_lane(&self.turn).ok_or(Failure::Down)?,
        };
        let deadline = message.deadline.unwrap_or_else(|| clock::now() + WAIT_MAX);
        let id = self.ids.next();
        let _counted = Counted::new(&self.metrics);
        let mut waiting = lane.pending().wait(id);
        let header_bytes = message.headers.bytes();
        let mut properties = BasicProperties::default().with_headers(message.headers.into_table());
        if let Some(kind) = message.content_type {
            properties = properties.with_content_type(kind.into());
        }
        if let Some(news) = message.news {
            properties =
                properties.with_type(news.kind.into()).with_timestamp(news.at).with_app_id(APP_ID.into());
        }
        lane.send(Job {
            id,
            exchange: place.exchange.as_ref().map(|exchange| exchange.name().short()).unwrap_or_default(),
            routing_key: place.routing_key.short(),
            properties,
            header_bytes,
            body: message.body,
            deadline,
            kind,
            mandatory: message.news.is_none(),
            place: permit.clone(),
        });
        // The place is taken for as long as it is waited, and until the broker has said what became of the message.
        let outcome = tokio::time::timeout_at(deadline.into(), waiting.outcome()).await;
        drop(permit);
        outcome.unwrap_or(Err(Failure::TimedOut))
    }

    fn is_blocked(&self) -> bool {
        self.link.load().as_ref().is_some_and(|link| link.is_blocked())
    }

    /// Keeps a connection until the `last` handle is gone.
    async fn keep(self: Arc<Self>, last: oneshot::Receiver<()>) {
        tokio::select! {
            () = self.stay_whatever_happens() => {}
            _ = last => {}
        }
        if let Some(link) = self.link.swap(None) {
            link.say_goodbye().await;
        }
    }

    /// A panic loses the connection, as a broken one does.
    async fn stay_whatever_happens(&self) {
        let mut pauses = Pauses::default();
        loop {
            let began = clock::now();
            let Err(said) = panics::contained(self.stay_connected()).await else { return };
            if let Some(link) = self.link.swap(None) {
                link.plug.pull();
            }
            self.down("the gateway panicked".to_owned());
            pauses.restart("broker", &said, began).await;
        }
    }

    /// Connects, again and again.
    async fn stay_connected(&self) {
        let mut pauses = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        loop {
            match self.connect().await {
                Ok(link) => {
                    let since = clock::now();
                    self.publish_link(link.clone());
                    let error = link.broken().await;
                    self.link.store(None);
                    link.plug.pull();
                    self.down(error);
                    if clock::now().saturating_duration_since(since) >= LASTING {
                        pauses.reset();
                    }
                }
                Err(error) => self.down(error),
            }
            // Instances that lost it together do not come back in step.
            tokio::time::sleep(pauses.pause()).await;
        }
    }

    async fn connect(&self) -> Result<Arc<Link>, String> {
        fault::point("broker", &*self.settings.name);
        let Connected { connection, plug } = socket::connect(&self.settings).await?;
        let common = Common {
            connection: Arc::new(connection),
            ids: self.ids.clone(),
            metrics: self.metrics.clone(),
            open_timeout: self.settings.connect_timeout,
        };
        let lost = Arc::new(Lost::default());
        let mut lanes = Vec::with_capacity(usize::from(self.settings.channels));
        for _ in 0..self.settings.channels {
            let open = common.open(Kind::Ask).await.map_err(|error| error.to_string())?;
            lanes.push(link_lane(&common, Some(open), Kind::Ask, &lost));
        }
        let id = LinkId::next();
        Ok(Arc::new(Link { id, common, lanes: lanes.into(), exchanges: Mutex::default(), lost, plug }))
    }

    fn publish_link(&self, link: Arc<Link>) {
        let now = clock::now();
        let before = std::mem::replace(&mut *self.health.lock(), Health::Up { since: now });
        let (broker, url) = (&*self.settings.name, &self.settings.url);
        match before {
            Health::Down { since, .. } => {
                let after = now.saturating_duration_since(since);
                let after = units::format_duration(Duration::from_millis(
                    u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
                ));
                tracing::info!(broker, %url, "the broker is back after {after}");
            }
            Health::Unknown | Health::Up { .. } => tracing::info!(broker, %url, "connected to the broker"),
        }
        self.link.store(Some(link));
        self.metrics.up(true);
        self.up.send_replace(true);
    }

    fn down(&self, error: String) {
        let (broker, url) = (&*self.settings.name, &self.settings.url);
        let mut health = self.health.lock();
        let since = match &*health {
            Health::Down { since, .. } => *since,
            _ => {
                tracing::warn!(broker, %url, "the broker is away: {error}");
                clock::now()
            }
        };
        *health = Health::Down { error, since };
        drop(health);
        self.metrics.up(false);
        self.up.send_replace(false);
    }
}

fn link_lane(common: &Common, open: Option<lane::Open>, kind: Kind, lost: &Arc<Lost>) -> Lane {
    let lost = lost.clone();
    Lane::start(common.clone(), open, kind, move |by_panic| {
        lost.by_panic.fetch_or(by_panic, Ordering::Relaxed);
        lost.told.notify_one();
    })
}

impl LinkId {
    fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

impl Link {
    fn is_blocked(&self) -> bool {
        self.common.connection.status().blocked()
    }

    fn next_lane(&self, turn: &AtomicUsize) -> Option<&Lane> {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        self.lanes.get(turn.checked_rem(self.lanes.len())?)
    }

    /// The channel for the exchange called `name`, which is opened when it is used. Requests go through [`Exchange::lane`].
    fn exchange(&self, name: &Name) -> Arc<Lane> {
        let mut exchanges = self.exchanges.lock();
        let lane = || Arc::new(link_lane(&self.common, None, Kind::Tell, &self.lost));
        exchanges.entry(name.short()).or_insert_with(lane).clone()
    }

    /// Closes the connection, if the broker takes part in that.
    async fn say_goodbye(&self) {
        let closed = self.common.connection.close(REPLY_SUCCESS, "no longer used".into());
        // The socket ends with this, whatever comes of it.
        drop(tokio::time::timeout(GOODBYE, closed).await);
    }

    /// Resolves when the connection is gone, or no longer of use.
    async fn broken(&self) -> String {
        while self.common.connection.status().connected() {
            if self.lost.by_panic.load(Ordering::Relaxed) {
                return "the driver of a channel panicked".to_owned();
            }
            tokio::select! {
                () = self.lost.told.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        "the connection broke".to_owned()
    }
}

/// Counts a call that waits.
struct Counted<'a>(&'a BrokerMetrics);

impl<'a> Counted<'a> {
    fn new(metrics: &'a BrokerMetrics) -> Self {
        metrics.pending(1);
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.pending(-1);
    }
}

/// The brokers of a process, which outlive its configurations: one that is written alike is the same.
#[derive(Debug, Default)]
pub struct Brokers(Registry<(String, u64), Live>);

impl Brokers {
    /// The broker that `settings` describe, `written` so.
    ///
    /// # Errors
    /// It cannot be.
    pub fn of(&self, settings: BrokerSettings, written: &str, metrics: &Metrics) -> Result<Broker, String> {
        let metrics = metrics.broker(&settings.name);
        let key = (format!("{} = {written}", settings.name), settings.content());
        let made = Broker::make(settings, metrics)?;
        Ok(Broker(self.0.get_arc(key, || made)))
    }

    /// Another connection to what `broker` is, called `name`, for at most `max_pending` messages under way.
    ///
    /// # Errors
    /// It cannot be.
    pub fn beside(
        &self,
        broker: &Broker,
        name: &str,
        max_pending: u32,
        metrics: &Metrics,
    ) -> Result<Broker, String> {
        let settings = &broker.0.state.settings;
        let settings = BrokerSettings { name: name.into(), channels: 1, max_pending, ..settings.clone() };
        let written = format!("beside: {} {:?}", settings.url, settings.connect_timeout);
        self.of(settings, &written, metrics)
    }
}
