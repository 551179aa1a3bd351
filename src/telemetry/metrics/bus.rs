//! What is counted of the log bus, where a configuration has one.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::cells::Words;
use crate::telemetry::bus::Kind;

/// The metrics of `[log.bus]`.
#[derive(Debug)]
pub struct BusMetrics {
    pub(super) published: Words,
    pub(super) dropped: Words,
    pub(super) lost: Words,
    waiting: AtomicUsize,
}

impl Default for BusMetrics {
    fn default() -> Self {
        let kinds = Kind::ALL.map(Kind::word);
        Self {
            published: Words::known(&kinds),
            dropped: Words::known(&kinds),
            lost: Words::known(&kinds),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl BusMetrics {
    /// The broker has confirmed a message.
    pub fn published(&self, kind: Kind) {
        self.published.inc(kind.word());
    }

    /// There was no room for a message.
    pub fn dropped(&self, kind: Kind) {
        self.dropped.inc(kind.word());
    }

    /// A message was given up: the process ended, or its bus was taken out of the configuration.
    pub fn lost(&self, kind: Kind) {
        self.lost.inc(kind.word());
    }

    /// So many bytes are not published yet.
    pub fn waiting(&self, bytes: usize) {
        self.waiting.store(bytes, Relaxed);
    }

    pub(super) fn bytes_waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }
}
