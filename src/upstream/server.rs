//! One address of an upstream: how to connect to it, and what is known about it.
//!
//! A [`Server`] belongs to one configuration; its [`ServerState`] (health, breaker, requests in flight) outlives reloads
//! and is shared by every configuration that means the same address under the same upstream and TLS policy.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::HttpPeer;
use pingora_load_balancing::Backend;

use super::address::Address;
use super::breaker::{Breaker, BreakerSettings, BreakerState, Gate, Permit, Trip, Verdict};
use super::check::Probe;
use super::ejection::Ejection;
use super::generation::Generations;
use super::health::{Health, Thresholds};
use super::link::Links;
use super::peer::Timeouts;
use crate::telemetry::metrics::{self, ServerMetrics, UpstreamMetrics};

/// What all servers of one upstream have in common.
#[derive(Debug)]
pub struct Common {
    /// The upstream's name.
    pub name: Arc<str>,
    /// Its time-outs.
    pub timeouts: Timeouts,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Its circuit breaker, if it has one.
    pub breaker: Option<BreakerSettings>,
    /// How many active checks change the mind; `None` without active checks.
    pub thresholds: Option<Thresholds>,
    /// Its metrics.
    pub metrics: Arc<UpstreamMetrics>,
}

/// One address of an upstream.
#[derive(Debug)]
pub struct Server {
    pub(super) label: Arc<str>,
    pub(super) weight: u32,
    pub(super) backup: bool,
    pub(super) host: Option<HeaderValue>,
    /// Everything about connecting but the time-outs of one attempt.
    pub(super) peer: HttpPeer,
    /// What the load-balancing crate's checks and hash rings work on.
    pub(super) backend: Backend,
    /// How it is checked; shared by all addresses of one name.
    pub(super) probe: Arc<Probe>,
    pub(super) state: Arc<ServerState>,
    pub(super) common: Arc<Common>,
    pub(super) metrics: Arc<ServerMetrics>,
}

/// What is known about a server. Shared between configurations, see [`super::live`].
#[derive(Debug)]
pub struct ServerState {
    id: u64,
    in_flight: AtomicU32,
    /// [`DOWN`] and its kin: what `control` says, readable without its lock.
    flags: AtomicU8,
    control: Mutex<Control>,
    /// Idle connections to it.
    pub(super) links: Links,
    /// Which of those over HTTP/2 are shared.
    pub(super) generations: Generations,
}

#[derive(Debug)]
struct Control {
    health: Health,
    ejection: Ejection,
    breaker: Breaker,
    draining: bool,
    /// When what [`Server::state_word`] says last changed.
    since: Instant,
    last_error: Option<(Cow<'static, str>, Instant)>,
}

/// Active checks failed.
const DOWN: u8 = 1;
/// Ejected by passive checks; the time may be over.
const EJECTED: u8 = 2;
/// The breaker is not closed.
const BREAKER: u8 = 4;
/// An operator wants no new requests on it.
const DRAINING: u8 = 8;
/// There are failures that a success would forgive.
const SUSPECT: u8 = 16;

impl ServerState {
    pub(super) fn new(now: Instant) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let control = Control {
            health: Health::default(),
            ejection: Ejection::default(),
            breaker: Breaker::default(),
            draining: false,
            since: now,
            last_error: None,
        };
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            in_flight: AtomicU32::new(0),
            flags: AtomicU8::new(0),
            control: Mutex::new(control),
            links: Links::default(),
            generations: Generations::default(),
        }
    }

    fn publish(&self, control: &Control) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(!control.health.is_healthy(), DOWN)
            | flag(control.ejection.is_out(), EJECTED)
            | flag(control.breaker.state() != BreakerState::Closed, BREAKER)
            | flag(control.draining, DRAINING)
            | flag(!control.ejection.is_idle() || !control.breaker.is_idle(), SUSPECT);
        self.flags.store(flags, Ordering::Release);
    }
}

/// Whether a server may be given a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It may.
    Ready,
    /// Only when nothing else is left: connections to it failed lately.
    Ejected,
    /// Not before this long (zero: nobody knows): its circuit breaker is open, or a probe is under way.
    Circuit(Duration),
    /// No: active checks fail, or it is being drained.
    Down,
}

/// A place on a server; [`Server::report`] takes it back.
#[derive(Debug)]
pub(super) struct Ticket(Permit);

/// What one request found out about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    /// Whether it could be reached: for passive health.
    pub(super) reached: Option<bool>,
    /// Whether it works: for the breaker.
    pub(super) verdict: Verdict,
    /// What went wrong, in a word.
    pub(super) error: Option<&'static str>,
}

impl Report {
    /// Nothing was found out.
    pub(super) const NOTHING: Self = Self { reached: None, verdict: Verdict::Neutral, error: None };
}

impl Server {
    /// The address, as in logs and metrics.
    pub fn address(&self) -> &Arc<str> {
        &self.label
    }

    /// The upstream's name.
    pub fn upstream(&self) -> &Arc<str> {
        &self.common.name
    }

    /// The relative share of requests, at least 1.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Whether it is only used when no other server is left.
    pub fn is_backup(&self) -> bool {
        self.backup
    }

    /// Requests it is working on.
    pub fn in_flight(&self) -> u32 {
        self.state.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn state(&self) -> &Arc<ServerState> {
        &self.state
    }

    /// Where it is connected to.
    pub(super) fn socket(&self) -> &SocketAddr {
        &self.peer._address
    }

    /// Whether requests may share a connection to it.
    pub(super) fn is_http2(&self) -> bool {
        self.peer.options.max_h2_streams > 1
    }

    /// Tells this server from all others of the process.
    pub(super) fn id(&self) -> u64 {
        self.state.id
    }

    /// Whether it may be given a request now.
    pub fn availability(&self, now: Instant) -> Availability {
        let flags = self.state.flags.load(Ordering::Acquire);
        if flags & (DOWN | EJECTED | BREAKER | DRAINING) == 0 {
            return Availability::Ready;
        }
        let control = self.state.control.lock();
        // A state that nothing of this configuration would ever end does not count.
        if control.draining || (!control.health.is_healthy() && self.common.thresholds.is_some()) {
            return Availability::Down;
        }
        if self.common.breaker.is_some()
            && let Gate::Shut(wait) = control.breaker.gate(now)
        {
            return Availability::Circuit(wait);
        }
        if control.ejection.is_ejected(now) { Availability::Ejected } else { Availability::Ready }
    }

    /// Takes a place for one request, which counts as in flight until [`Server::release`]. `None` when the breaker let
    /// another request through first.
    pub(super) fn admit(&self, now: Instant) -> Option<Ticket> {
        let flags = self.state.flags.load(Ordering::Acquire);
        let mut ticket = Ticket(Permit::ordinary());
        if flags & (EJECTED | BREAKER) != 0 {
            let mut control = self.state.control.lock();
            if self.common.breaker.is_some() {
                let (permit, entered) = control.breaker.admit(now)?;
                ticket = Ticket(permit);
                self.breaker_entered(&mut control, entered, now);
            }
            if control.ejection.expire(now) {
                control.since = now;
                self.metrics.up(control.health.is_healthy());
                tracing::info!(upstream = %self.common.name, server = %self.label, "server tried again");
            }
            self.state.publish(&control);
        }
        self.state.in_flight.fetch_add(1, Ordering::Relaxed);
        Some(ticket)
    }

    /// The request is over.
    pub(super) fn release(&self) {
        self.state.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes in what a request found out. With its ticket when it does so for the first time; without one for what
    /// turned out later (an answer that broke off).
    pub(super) fn report(&self, ticket: Option<Ticket>, report: Report, now: Instant) {
        let counts_all =
            matches!(&self.common.breaker, Some(BreakerSettings { trip: Trip::Ratio { .. }, .. }));
        let nothing_new = report.error.is_none() && (report == Report::NOTHING || !counts_all);
        if nothing_new && self.state.flags.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut control = self.state.control.lock();
        if let Some(error) = report.error {
            control.last_error = Some((Cow::Borrowed(error), now));
        }
        if report.reached == Some(true) && control.ejection.on_success() {
            self.came_back(&mut control, now);
        }
        if report.reached == Some(false)
            && let Some(out) = control.ejection.on_failure(now)
        {
            control.since = now;
            self.metrics.up(false);
            let error = report.error.unwrap_or_default();
            tracing::warn!(upstream = %self.common.name, server = %self.label, error, ?out, "server ejected");
        }
        if let Some(settings) = &self.common.breaker {
            let entered = match ticket {
                Some(Ticket(permit)) => control.breaker.settle(permit, report.verdict, now, settings),
                None => control.breaker.record(report.verdict, now, settings),
            };
            self.breaker_entered(&mut control, entered, now);
        }
        self.state.publish(&control);
    }

    /// Takes in one active check.
    pub(super) fn checked(&self, result: Result<(), String>, now: Instant) {
        let Some(thresholds) = self.common.thresholds else { return };
        let mut control = self.state.control.lock();
        let passed = result.is_ok();
        let change = control.health.observe(passed, thresholds);
        // A passed check proves that connections work.
        let back = passed && control.ejection.on_success();
        let error = result.err();
        match change {
            Some(true) => {
                control.since = now;
                tracing::info!(upstream = %self.common.name, server = %self.label, "server healthy");
            }
            Some(false) => {
                control.since = now;
                let error = error.as_deref().unwrap_or_default();
                tracing::warn!(upstream = %self.common.name, server = %self.label, error, "server unhealthy");
            }
            None if back => self.came_back(&mut control, now),
            None => {}
        }
        if let Some(error) = error {
            control.last_error = Some((Cow::Owned(error), now));
        }
        self.metrics.up(control.health.is_healthy() && !control.ejection.is_ejected(now));
        self.state.publish(&control);
    }

    /// Stops or resumes giving it new requests.
    pub fn set_draining(&self, draining: bool, now: Instant) {
        let mut control = self.state.control.lock();
        if control.draining != draining {
            control.draining = draining;
            control.since = now;
        }
        self.state.publish(&control);
    }

    /// Publishes gauges as they stand: for a server that has just become part of a configuration.
    pub(super) fn announce(&self, now: Instant) {
        let control = self.state.control.lock();
        self.metrics.up(control.health.is_healthy() && !control.ejection.is_ejected(now));
        if self.common.breaker.is_some() {
            self.metrics.breaker(gauge(control.breaker.state()));
        }
    }

    /// What is known about it.
    pub fn status(&self, now: Instant) -> ServerStatus {
        let control = self.state.control.lock();
        ServerStatus {
            address: self.label.clone(),
            weight: self.weight,
            backup: self.backup,
            state: self.state_word(&control, now),
            since: now.saturating_duration_since(control.since),
            in_flight: self.in_flight(),
            last_error: control
                .last_error
                .as_ref()
                .map(|(error, at)| (error.clone().into_owned(), now.saturating_duration_since(*at))),
        }
    }

    fn state_word(&self, control: &Control, now: Instant) -> &'static str {
        let breaker = self.common.breaker.as_ref().map(|_| control.breaker.state());
        match (self.common.thresholds, breaker) {
            _ if control.draining => "draining",
            (Some(_), _) if !control.health.is_healthy() => "unhealthy",
            (_, Some(BreakerState::Open)) => "circuit_open",
            (_, Some(BreakerState::HalfOpen)) => "circuit_half_open",
            _ if control.ejection.is_ejected(now) => "ejected",
            (Some(_), _) if !control.health.is_known() => "warming",
            _ => "up",
        }
    }

    fn came_back(&self, control: &mut Control, now: Instant) {
        control.since = now;
        self.metrics.up(control.health.is_healthy());
        tracing::info!(upstream = %self.common.name, server = %self.label, "server back");
    }

    fn breaker_entered(&self, control: &mut Control, entered: Option<BreakerState>, now: Instant) {
        let Some(state) = entered else { return };
        control.since = now;
        self.metrics.breaker(gauge(state));
        let (upstream, server) = (&self.common.name, &self.label);
        match state {
            BreakerState::Open => {
                let error = control.last_error.as_ref().map_or("", |(error, _)| error.as_ref());
                tracing::warn!(%upstream, %server, error, "circuit opened");
            }
            BreakerState::HalfOpen => tracing::info!(%upstream, %server, "circuit half open"),
            BreakerState::Closed => tracing::info!(%upstream, %server, "circuit closed"),
        }
    }
}

/// What is known about a server, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// Its address.
    pub address: Arc<str>,
    /// Its relative share of requests.
    pub weight: u32,
    /// Whether it is only used when no other server is left.
    pub backup: bool,
    /// `up`, `warming` (no check has ended yet), `unhealthy`, `ejected`, `circuit_open`, `circuit_half_open`, `draining`.
    pub state: &'static str,
    /// How long it has been so.
    pub since: Duration,
    /// Requests it is working on.
    pub in_flight: u32,
    /// The last thing that went wrong, and how long ago.
    pub last_error: Option<(String, Duration)>,
}

fn gauge(state: BreakerState) -> metrics::BreakerState {
    match state {
        BreakerState::Closed => metrics::BreakerState::Closed,
        BreakerState::HalfOpen => metrics::BreakerState::HalfOpen,
        BreakerState::Open => metrics::BreakerState::Open,
    }
}

/// The address as Pingora has it; `None` for a socket path that the kernel would not take.
pub(super) fn socket_address(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Inet(address) => Some(SocketAddr::Inet(*address)),
        Address::Unix(path) => std::os::unix::net::SocketAddr::from_pathname(path).ok().map(SocketAddr::Unix),
    }
}
