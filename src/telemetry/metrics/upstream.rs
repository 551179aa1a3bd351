//! What is counted for each upstream and for each of its servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use super::cells::{Codes, Histogram, SECONDS, Words};
use super::handles::Handles;

/// Why an attempt is repeated or has failed, as the configuration's `retry.on` names it.
const RETRY_REASONS: &[&str] = &["connect", "reset", "timeout", "bad_response", "502", "503", "504", "5xx"];
const FAILURE_REASONS: &[&str] = &["connect", "tls", "reset", "timeout", "bad_response"];

/// The metrics of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    pub(super) name: Box<str>,
    pub(super) retries: Words,
    pub(super) connect: Histogram,
    pub(super) request: Histogram,
    pub(super) servers: Handles<ServerMetrics>,
}

impl UpstreamMetrics {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            retries: Words::known(RETRY_REASONS),
            connect: Histogram::new(&SECONDS),
            request: Histogram::new(&SECONDS),
            servers: Handles::default(),
        }
    }

    /// The upstream's name, the value of the label `upstream`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The metrics of the server at `address`: the same handle for as long as somebody holds it. Its series go with
    /// the last holder, so servers that DNS no longer names do not stay.
    pub fn server(&self, address: &str) -> Arc<ServerMetrics> {
        self.servers.get(address, || ServerMetrics::new(address))
    }

    /// An attempt is repeated because of `reason`: `connect`, `reset`, `timeout`, `bad_response`, `502`, `503`, `504` or
    /// `5xx`.
    pub fn retry(&self, reason: &'static str) {
        self.retries.inc(reason);
    }

    /// A connection was made in `seconds`, TLS included. Reused connections do not count.
    pub fn connect_seconds(&self, seconds: f64) {
        self.connect.observe(seconds);
    }

    /// An attempt ended after `seconds`, counted from when a server was picked.
    pub fn request_seconds(&self, seconds: f64) {
        self.request.observe(seconds);
    }
}

/// The metrics of one server of an upstream.
#[derive(Debug)]
pub struct ServerMetrics {
    pub(super) address: Box<str>,
    pub(super) answers: Codes,
    pub(super) failures: Words,
    /// 0 or 1, [`UNKNOWN`] until the first [`ServerMetrics::up`].
    up: AtomicU8,
    /// A [`BreakerState`], [`UNKNOWN`] until the first [`ServerMetrics::breaker`].
    breaker: AtomicU8,
    pub(super) transitions: Words,
}

const UNKNOWN: u8 = u8::MAX;

/// Where a circuit breaker stands; the numbers are the gauge's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BreakerState {
    /// Requests pass.
    Closed = 0,
    /// Single requests pass, to see whether the server has recovered.
    HalfOpen = 1,
    /// Nothing passes.
    Open = 2,
}

impl BreakerState {
    /// The state in words, the value of the label `to`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

impl ServerMetrics {
    fn new(address: &str) -> Self {
        Self {
            address: address.into(),
            answers: Codes::default(),
            failures: Words::known(FAILURE_REASONS),
            up: AtomicU8::new(UNKNOWN),
            breaker: AtomicU8::new(UNKNOWN),
            transitions: Words::known(&[
                BreakerState::Closed.name(),
                BreakerState::HalfOpen.name(),
                BreakerState::Open.name(),
            ]),
        }
    }

    /// The server's address, the value of the label `backend`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// An attempt was answered with `status`.
    pub fn answered(&self, status: u16) {
        self.answers.inc(status);
    }

    /// An attempt ended without an answer: `connect`, `tls`, `reset`, `timeout`, `bad_response`, or another short word
    /// from the source code.
    pub fn failed(&self, reason: &'static str) {
        self.failures.inc(reason);
    }

    /// Whether the server is given requests, as health checks and ejection see it.
    pub fn up(&self, up: bool) {
        self.up.store(u8::from(up), Relaxed);
    }

    /// Its circuit breaker stands at `state` now; counts the transition if it stood elsewhere. Servers without a
    /// breaker never call this and show no such series.
    pub fn breaker(&self, state: BreakerState) {
        let before = self.breaker.swap(state as u8, Relaxed);
        if before != UNKNOWN && before != state as u8 {
            self.transitions.inc(state.name());
        }
    }

    pub(super) fn is_up(&self) -> Option<u8> {
        Some(self.up.load(Relaxed)).filter(|up| *up != UNKNOWN)
    }

    pub(super) fn breaker_state(&self) -> Option<u8> {
        Some(self.breaker.load(Relaxed)).filter(|state| *state != UNKNOWN)
    }
}
