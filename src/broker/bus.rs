//! Publishes the log bus: takes what `telemetry::bus` has collected and gives it to an exchange, on a thread of its own
//! with a connection of its own. A broker that is slow or blocked holds up neither requests nor their calls.
//!
//! A message is settled when the broker has confirmed it. One that was not is sent again, so it may arrive twice, and what
//! waits meanwhile is bounded by [`Bus`]. While something is wrong a single message at a time tries whether it still is.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::message::{Headers, Message, News, Place};
use super::{Broker, Failure};
use crate::base::task::Pauses;
use crate::base::{clock, fault, panics};
use crate::telemetry::bus::{self, Bus};

/// Messages that may be unconfirmed at once: they make up for the way to the broker and back, and for its disk.
pub const WINDOW: u32 = 4096;
/// Taken out of the queue at once.
const BATCH: usize = 256;
/// Between two tries while something is wrong.
const RETRY: Duration = Duration::from_secs(1);
/// Between two tries where the broker says that it is there.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// How long messages under way may take to be confirmed when they are to go elsewhere from now on, and how long the rest
/// may take when there is no bus any more.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often the same trouble, and dropped messages, are mentioned in the process log.
const MENTIONED: Duration = Duration::from_secs(60);

/// `[log.bus]`, compiled.
#[derive(Debug, Clone)]
pub struct LogBus {
    /// A connection that nobody else uses.
    pub broker: Broker,
    /// Where messages are published.
    pub place: Place,
    /// Bytes of messages that may wait to be confirmed.
    pub buffer: usize,
}

impl LogBus {
    fn is(&self, other: &Self) -> bool {
        self.broker.is(&other.broker) && self.place == other.place
    }
}

/// What the thread is told.
#[derive(Debug, Clone, Default)]
struct Orders {
    /// Where to.
    to: Option<LogBus>,
    /// Set when the process ends: publish what there is, until then.
    end: Option<Instant>,
}

/// Follows the configuration. One per process; without a bus it is nothing but a queue that takes nothing.
#[derive(Debug)]
pub struct Publisher {
    bus: Arc<Bus>,
    orders: watch::Sender<Orders>,
    /// Tells that the thread has ended, once there is one.
    ended: Mutex<Option<Receiver<()>>>,
}

impl Publisher {
    /// One for `bus`, which does nothing yet.
    pub fn new(bus: Arc<Bus>) -> Arc<Self> {
        Arc::new(Self { bus, orders: watch::Sender::default(), ended: Mutex::new(None) })
    }

    /// What it publishes.
    pub fn bus(&self) -> &Arc<Bus> {
        &self.bus
    }

    /// Publishes to `to` from now on; `None`: nothing any more. What was collected before goes there, too, or where it was
    /// to go.
    pub fn follow(&self, to: Option<&LogBus>) {
        match to {
            Some(to) => {
                if let Err(error) = self.start() {
                    tracing::error!(%error, "there is no thread for the log bus: nothing is published");
                    return;
                }
                self.bus.open(to.buffer);
            }
            None => self.bus.close(),
        }
        self.orders.send_modify(|orders| orders.to = to.cloned());
    }

    /// Publishes what there is and ends, until `until`. Returns whether all of it was published. Blocks.
    pub fn stop(&self, until: Instant) -> bool {
        self.bus.close();
        let Some(ended) = self.ended.lock().take() else { return true };
        self.orders.send_modify(|orders| orders.end = Some(until));
        // A little more than it gives itself: it says what was lost.
        let bound = until.saturating_duration_since(clock::now()) + RETRY;
        ended.recv_timeout(bound).is_ok()
    }

    fn start(&self) -> io::Result<()> {
        let mut ended = self.ended.lock();
        if ended.is_some() {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (done, receiver) = sync_channel(1);
        let (bus, orders) = (self.bus.clone(), self.orders.subscribe());
        thread::Builder::new().name("log-bus".to_owned()).spawn(move || {
            let all = runtime.block_on(work(bus, orders));
            runtime.shutdown_background();
            // Nobody may wait for it any more.
            let _told = all.then(|| done.try_send(()));
        })?;
        *ended = Some(receiver);
        Ok(())
    }
}

/// Publishes to the end of the process. A panic costs the messages that were under way, no more.
async fn work(bus: Arc<Bus>, orders: watch::Receiver<Orders>) -> bool {
    let mut pauses = Pauses::default();
    loop {
        let began = clock::now();
        match panics::contained(Work::new(bus.clone(), orders.clone()).run()).await {
            Ok(all) => return all,
            Err(said) => pauses.restart("log bus", &said, began).await,
        }
    }
}

type UnderWay = FuturesUnordered<BoxFuture<'static, (u64, Result<(), Failure>)>>;

struct Work {
    bus: Arc<Bus>,
    orders: watch::Receiver<Orders>,
    headers: Headers,
    /// Where to, at the moment.
    to: Option<LogBus>,
    /// Taken out of the queue and not given to the broker, or to be given to it again: by their number.
    next: BTreeMap<u64, bus::Message>,
    /// Given to the broker.
    sent: BTreeMap<u64, bus::Message>,
    under_way: UnderWay,
    number: u64,
    trouble: Option<Trouble>,
    /// What was said of troubles, and when.
    said: Vec<(Failure, Instant)>,
    mention_drops_at: Instant,
}

/// What has gone wrong since the last message was confirmed.
struct Trouble {
    /// Whether anything was said of it.
    said: bool,
    /// When to try again.
    again_at: Instant,
    /// The broker is away: it is worth a try as soon as it is back.
    away: bool,
}

impl Work {
    fn new(bus: Arc<Bus>, orders: watch::Receiver<Orders>) -> Self {
        let mut headers = Headers::default();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        for (name, value) in [("host", host.trim()), ("pid", &std::process::id().to_string())] {
            // They are short.
            headers.set(name, value.as_bytes()).unwrap_or_default();
        }
        Self {
            bus,
            orders,
            headers,
            to: None,
            next: BTreeMap::new(),
            sent: BTreeMap::new(),
            under_way: UnderWay::new(),
            number: 0,
            trouble: None,
            said: Vec::new(),
            mention_drops_at: clock::now(),
        }
    }

    /// Works to the end of the process. Returns whether everything was published.
    async fn run(mut self) -> bool {
        fault::point("log bus", "");
        loop {
            let Orders { to, end } = self.orders.borrow_and_update().clone();
            let same = match (&self.to, &to) {
                (Some(old), Some(new)) => old.is(new),
                (None, None) => true,
                _ => false,
            };
            if !same {
                let farewell = clock::now() + FAREWELL;
                self.turn_to(to, end.map_or(farewell, |end| end.min(farewell))).await;
            }
            if let Some(end) = end {
                return self.finish(end).await;
            }
            if !self.serve(None).await {
                // Whoever gives orders is gone.
                return false;
            }
        }
    }

    /// Everything goes elsewhere from now on, or nowhere. What is under way may be confirmed until `until`.
    async fn turn_to(&mut self, to: Option<LogBus>, until: Instant) {
        if to.is_none() {
            let published = self.serve(Some(until)).await;
            let lost = self.give_up();
            if !published || lost > 0 {
                tracing::warn!(lost, "the log bus is gone with messages that were not published");
            }
        } else {
            // What is under way is likely to be confirmed; sent elsewhere it would be there twice.
            self.settle_until(until).await;
            self.next.append(&mut self.sent);
        }
        self.under_way = UnderWay::new();
        self.trouble = None;
        self.to = to;
    }

    /// Publishes what there is, until `end`.
    async fn finish(mut self, end: Instant) -> bool {
        self.serve(Some(end)).await;
        let lost = self.give_up();
        if lost > 0 {
            tracing::warn!(lost, "messages of the log bus were not published");
        }
        lost == 0
    }

    /// Nobody will have what is left. Returns how much that is.
    fn give_up(&mut self) -> usize {
        let left: Vec<_> = std::mem::take(&mut self.next).into_values().collect();
        let left = left.into_iter().chain(std::mem::take(&mut self.sent).into_values());
        let held = left.map(|message| self.bus.give_up(&message)).count();
        held + self.bus.abandon()
    }

    /// Publishes: without `until` as long as the orders are the same, else until nothing is left or the time is over.
    /// Returns whether there may be more orders, and whether nothing is left.
    async fn serve(&mut self, until: Option<Instant>) -> bool {
        let Some(to) = self.to.clone() else {
            return match until {
                Some(_) => true,
                None => self.orders.changed().await.is_ok(),
            };
        };
        to.broker.start();
        loop {
            self.mention_drops();
            self.fill(&to);
            let is_idle = self.under_way.is_empty();
            let is_done = is_idle && self.next.is_empty();
            // While a message tries whether things are better there is nothing else to wait for.
            let wait_at = self.trouble.as_ref().filter(|_| is_idle);
            let wait_at = wait_at.map(|trouble| (trouble.again_at, trouble.away));
            let has_room = self.trouble.is_none() && self.sent.len() < WINDOW as usize;
            if until.is_some() && is_done {
                return true;
            }
            tokio::select! {
                Some((number, outcome)) = self.under_way.next(), if !is_idle => {
                    self.settle(number, outcome);
                }
                changed = self.orders.changed(), if until.is_none() => return changed.is_ok(),
                () = at(until) => return false,
                () = wait(&to.broker, wait_at) => {}
                () = self.bus.arrived(), if has_room => {}
            }
        }
    }

    /// Lets messages that are under way be confirmed.
    async fn settle_until(&mut self, until: Instant) {
        while !self.under_way.is_empty() {
            tokio::select! {
                Some((number, outcome)) = self.under_way.next() => self.settle(number, outcome),
                () = at(Some(until)) => return,
            }
        }
    }

    /// Gives the broker as many messages as it may have.
    fn fill(&mut self, to: &LogBus) {
        let now = clock::now();
        let room = match &self.trouble {
            None => WINDOW as usize,
            Some(trouble) if trouble.again_at <= now => 1,
            Some(_) => 0,
        };
        while self.sent.len() < room {
            if self.next.is_empty() {
                let taken: VecDeque<_> = self.bus.take(BATCH.min(room)).into();
                for message in taken {
                    self.number += 1;
                    self.next.insert(self.number, message);
                }
            }
            let Some((number, message)) = self.next.pop_first() else { return };
            self.under_way.push(publish(to, &self.headers, number, &message));
            self.sent.insert(number, message);
        }
    }

    fn settle(&mut self, number: u64, outcome: Result<(), Failure>) {
        let Some(message) = self.sent.remove(&number) else { return };
        match outcome {
            Ok(()) => {
                self.bus.settle(&message);
                if self.trouble.take().is_some_and(|trouble| trouble.said) {
                    tracing::info!("the log bus takes messages again");
                }
            }
            Err(failure) => {
                self.next.insert(number, message);
                self.troubled(failure);
            }
        }
    }

    /// Says what is wrong, unless it was said lately, and puts the next try off.
    fn troubled(&mut self, failure: Failure) {
        let away = matches!(failure, Failure::Down | Failure::Lost);
        let now = clock::now();
        let again_at = now + if away { RETRY_MIN } else { RETRY };
        let trouble = self.trouble.get_or_insert(Trouble { said: false, again_at, away });
        (trouble.again_at, trouble.away) = (again_at, away);
        // The broker's own line tells that it is away. And what is said is the next message: of a queue that now and then
        // has room for one, nothing else would be told any more.
        if away || self.said.iter().any(|(said, at)| *said == failure && now < *at + MENTIONED) {
            return;
        }
        self.said.retain(|(said, _)| *said != failure);
        self.said.push((failure, now));
        trouble.said = true;
        if let Some(to) = &self.to {
            let exchange = to.place.exchange.as_ref().map_or("", |exchange| exchange.name().as_str());
            tracing::warn!(
                broker = to.broker.name(),
                exchange,
                routing_key = to.place.routing_key.as_str(),
                "cannot publish to the log bus, trying on: {failure}"
            );
        }
    }

    fn mention_drops(&mut self) {
        let now = clock::now();
        if now < self.mention_drops_at {
            return;
        }
        let dropped = self.bus.take_dropped();
        if dropped > 0 {
            tracing::warn!(messages = dropped, "messages of the log bus dropped: its buffer is full");
            self.mention_drops_at = now + MENTIONED;
        }
    }
}

fn publish(
    to: &LogBus,
    headers: &Headers,
    number: u64,
    message: &bus::Message,
) -> BoxFuture<'static, (u64, Result<(), Failure>)> {
    let (broker, place) = (to.broker.clone(), to.place.clone());
    let body: Bytes = message.body.clone();
    let news = News { kind: message.kind.word(), at: clock::whole_unix_seconds(message.at) };
    let message = Message { headers: headers.clone(), news: Some(news), ..Message::json(body) };
    Box::pin(async move { (number, broker.publish(&place, message).await) })
}

/// Resolves at `until`, if there is such a time.
async fn at(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

/// Resolves when it is time for another try.
async fn wait(broker: &Broker, until: Option<(Instant, bool)>) {
    let Some((until, away)) = until else { return std::future::pending().await };
    tokio::time::sleep_until(until.into()).await;
    if away {
        broker.ready(RETRY).await;
    }
}
