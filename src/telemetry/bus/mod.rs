//! The log bus: access records and lines of the process log as JSON documents, on their way to a message broker.
//!
//! ```text
//! access log's writer: Format::write_document ─┐
//! process log:         Line ───────────────────┴─► Bus (bounded in bytes; full: dropped and counted) ─► broker::bus
//! ```
//!
//! Knows no broker: who publishes takes messages out ([`Bus::take`]) and says when they are done with
//! ([`Bus::settle`]). Nothing here waits or logs, so the process log can feed it from anywhere.

mod line;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(super) use self::line::{Fields, is_kept_from_the_bus};
use super::metrics::{BusMetrics, Metrics};

/// What a message counts beside its body: it lies in a queue, and in the broker's client.
const OVERHEAD_BYTES: usize = 128;

/// What a message is about: its AMQP type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One request: the document of the access log's format `json`.
    Access,
    /// A line of the process log.
    Log,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Access, Self::Log];

    /// The word for it in messages and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Log => "log",
        }
    }
}

/// A document to be published.
#[derive(Debug, Clone)]
pub struct Message {
    /// What it is about.
    pub kind: Kind,
    /// When it happened.
    pub at: SystemTime,
    /// A JSON object.
    pub body: Bytes,
}

impl Message {
    /// What it counts against the bound.
    fn bytes(&self) -> usize {
        self.body.len() + OVERHEAD_BYTES
    }
}

/// The queue of what is to be published: one per process, closed until a configuration has a bus.
#[derive(Debug)]
pub struct Bus {
    open: AtomicBool,
    queue: Mutex<Queue>,
    arrived: Notify,
    /// Dropped since somebody last asked; the metrics have them, too.
    dropped: AtomicU64,
    all_metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Message>,
    /// Of those that wait, and of those taken that are not settled.
    bytes: usize,
    /// What `bytes` may not exceed.
    bound: usize,
    /// Asked for when the first configuration has a bus: others show no such metrics.
    metrics: Option<Arc<BusMetrics>>,
}

impl Bus {
    /// A closed one; what becomes of messages is counted in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicBool::new(false),
            queue: Mutex::default(),
            arrived: Notify::new(),
            dropped: AtomicU64::new(0),
            all_metrics: metrics,
        })
    }

    /// Takes messages from now on, as long as all that are not published yet stay within `bound` bytes.
    pub fn open(&self, bound: usize) {
        let mut queue = self.queue.lock();
        queue.bound = bound;
        queue.metrics.get_or_insert_with(|| self.all_metrics.bus());
        self.open.store(true, Relaxed);
    }

    /// Takes none any more. What waits stays to be taken out.
    pub fn close(&self) {
        self.open.store(false, Relaxed);
    }

    /// Whether messages are taken.
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Puts `messages` into the queue, as many as there is room for; the rest is dropped and counted. Never waits for
    /// anybody but another caller.
    pub fn offer(&self, messages: impl IntoIterator<Item = Message>) {
        if !self.is_open() {
            return;
        }
        let mut dropped = 0;
        {
            let mut queue = self.queue.lock();
            for message in messages {
                let bytes = message.bytes();
                if queue.bytes.saturating_add(bytes) > queue.bound {
                    dropped += 1;
                    if let Some(metrics) = &queue.metrics {
                        metrics.dropped(message.kind);
                    }
                    continue;
                }
                queue.bytes += bytes;
                queue.waiting.push_back(message);
            }
            queue.show();
        }
        if dropped > 0 {
            self.dropped.fetch_add(dropped, Relaxed);
        }
        self.arrived.notify_one();
    }

    /// Up to `most` messages, oldest first. They count against the bound until they are settled.
    pub fn take(&self, most: usize) -> Vec<Message> {
        let mut queue = self.queue.lock();
        let count = most.min(queue.waiting.len());
        queue.waiting.drain(..count).collect()
    }

    /// Waits until there may be something to take. For one task at a time.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// `message`, taken before, is published.
    pub fn settle(&self, message: &Message) {
        self.done(message, BusMetrics::published);
    }

    /// `message`, taken before, is given up.
    pub fn give_up(&self, message: &Message) {
        self.done(message, BusMetrics::lost);
    }

    /// Gives up all that wait. Returns how many.
    pub fn abandon(&self) -> usize {
        let waiting = self.take(usize::MAX);
        waiting.iter().for_each(|message| self.give_up(message));
        waiting.len()
    }

    /// How many were dropped since this was last asked.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Relaxed)
    }

    fn done(&self, message: &Message, count: impl FnOnce(&BusMetrics, Kind)) {
        let mut queue = self.queue.lock();
        queue.bytes = queue.bytes.saturating_sub(message.bytes());
        if let Some(metrics) = &queue.metrics {
            count(metrics, message.kind);
        }
        queue.show();
    }
}

impl Queue {
    /// Says how full it is.
    fn show(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.waiting(self.bytes);
        }
    }
}
