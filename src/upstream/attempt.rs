//! One attempt to have a request answered by a server: the only way to call an upstream.
//!
//! Whoever holds an [`Attempt`] holds a place on its server and reports what it finds out; dropping it gives the place
//! back and, if nothing was reported, counts nothing against the server. The proxy's hooks and the gateway's own calls both
//! go through it, so health, breakers, budgets and metrics are the same for both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderValue;
use pingora::upstreams::peer::HttpPeer;

use super::breaker::Verdict;
use super::generation::Generation;
use super::introduction::Introduction;
use super::peer::{self, Timeouts};
use super::retry::Failure;
use super::server::{Report, Server, Ticket};
use crate::base::reason::Reason;
use crate::base::{clock, threads};

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The header of an answer arrived, with this status.
    Answered(u16),
    /// No connection could be made.
    ConnectFailed,
    /// No connection could be made in time.
    ConnectTimeout,
    /// A connection was made, but not TLS on it.
    Tls,
    /// The connection broke, or the server ended the stream.
    Reset,
    /// The server was silent for too long.
    Timeout {
        /// Whether the whole request had been sent. Before that the silence may be the client's, and says nothing about
        /// the server.
        body_sent: bool,
    },
    /// What it sent is not HTTP.
    BadResponse,
    /// There was no descriptor for a connection: the gateway's own trouble, of which servers know nothing.
    NoDescriptor,
    /// Nobody waited for the end.
    Abandoned,
}

impl Outcome {
    /// The failure to decide a retry by; `None` for answers below 500 and abandoned attempts.
    pub fn failure(self) -> Option<Failure> {
        match self {
            Self::Answered(status @ 500..) => Some(Failure::Status(status)),
            Self::Answered(_) | Self::NoDescriptor | Self::Abandoned => None,
            Self::ConnectFailed | Self::ConnectTimeout | Self::Tls => Some(Failure::Connect),
            Self::Reset => Some(Failure::Reset),
            Self::Timeout { body_sent } => Some(Failure::Timeout { body_sent }),
            Self::BadResponse => Some(Failure::BadResponse),
        }
    }

    /// Why the request ends if it is not repeated; `None` where there is an answer to pass on.
    pub fn reason(self) -> Option<Reason> {
        match self {
            Self::Answered(_) => None,
            Self::ConnectFailed => Some(Reason::ConnectFailed),
            Self::ConnectTimeout => Some(Reason::ConnectTimeout),
            Self::Tls => Some(Reason::UpstreamTls),
            Self::Reset => Some(Reason::UpstreamReset),
            Self::Timeout { .. } => Some(Reason::UpstreamTimeout),
            Self::BadResponse => Some(Reason::BadResponse),
            Self::NoDescriptor => Some(Reason::Overloaded),
            Self::Abandoned => Some(Reason::ClientClosed),
        }
    }

    /// The word for it in metrics and in a server's last error.
    const fn word(self) -> &'static str {
        match self {
            Self::Answered(500) => "status 500",
            Self::Answered(502) => "status 502",
            Self::Answered(503) => "status 503",
            Self::Answered(504) => "status 504",
            Self::Answered(_) => "status 5xx",
            Self::ConnectFailed | Self::ConnectTimeout => "connect",
            Self::Tls => "tls",
            Self::Reset => "reset",
            Self::Timeout { .. } => "timeout",
            Self::BadResponse => "bad_response",
            Self::NoDescriptor => "no_descriptor",
            Self::Abandoned => "abandoned",
        }
    }

    /// What it says about the server.
    fn report(self, circumstances: Circumstances) -> Report {
        let bad = |reached| Report { reached, verdict: Verdict::Failure, error: Some(self.word()) };
        match self {
            // The server's way to say that it cannot, not that it does not work: 501 Not Implemented, 505, 511 …
            Self::Answered(500 | 502..=504) => bad(Some(true)),
            Self::Answered(_) => Report { reached: Some(true), verdict: Verdict::Success, error: None },
            Self::ConnectFailed | Self::Tls => bad(Some(false)),
            // Cut short by the request's deadline, it had no fair chance.
            Self::ConnectTimeout if circumstances.connect_cut => Report::NOTHING,
            Self::ConnectTimeout => bad(Some(false)),
            // Servers close idle connections when they like; a request can cross that on the way.
            Self::Reset if circumstances.reused && !circumstances.answered => Report::NOTHING,
            Self::Reset => bad(Some(false)),
            Self::Timeout { body_sent: true } | Self::BadResponse => bad(None),
            Self::Timeout { body_sent: false } | Self::NoDescriptor | Self::Abandoned => Report::NOTHING,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Circumstances {
    reused: bool,
    answered: bool,
    connect_cut: bool,
}

/// What is kept of an attempt for logs and traces.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    /// The server's address.
    pub server: Arc<str>,
    /// When the server was picked; all times count from here.
    pub started: Instant,
    /// Whether the connection was one from before; `None` if there was none.
    pub reused: Option<bool>,
    /// Until the connection was there, TLS included.
    pub connect: Option<Duration>,
    /// Until the header of the answer was complete.
    pub header: Option<Duration>,
    /// Until the end.
    pub total: Option<Duration>,
    /// The answer's status.
    pub status: Option<u16>,
    /// What came of it in the end: an answer that broke off is not `Answered`.
    pub outcome: Outcome,
}

/// Silence of an HTTP/2 server that makes its connection suspicious, where its `timeouts.read` is longer.
const SILENCE: Duration = Duration::from_millis(250);

/// One attempt under way.
#[derive(Debug)]
pub struct Attempt {
    server: Arc<Server>,
    /// Given back with the first outcome.
    ticket: Option<Ticket>,
    timeouts: Timeouts,
    connect_cut: bool,
    generation: Generation,
    record: AttemptRecord,
}

impl Attempt {
    pub(super) fn new(server: Arc<Server>, ticket: Ticket, deadline: Option<Instant>, now: Instant) -> Self {
        let own = server.common.timeouts;
        let timeouts = own.within(deadline, now);
        let record = AttemptRecord {
            server: server.label.clone(),
            started: now,
            reused: None,
            connect: None,
            header: None,
            total: None,
            status: None,
            outcome: Outcome::Abandoned,
        };
        let (connect_cut, generation) = (timeouts.connect < own.connect, server.state.generations.now());
        Self { server, ticket: Some(ticket), timeouts, connect_cut, generation, record }
    }

    /// How long a server is waited for in vain before the connection may be why.
    fn silence(&self) -> Duration {
        self.server.common.timeouts.read.min(SILENCE)
    }

    /// The server.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Where and how to connect, with this attempt's time-outs. The caller may lift the read time-out for what may be
    /// silent, such as tunnels.
    pub fn peer(&self) -> Box<HttpPeer> {
        let mut peer = Box::new(self.server.peer.clone());
        if self.server.is_http2() {
            peer.group_key = self.server.state.generations.now().of(peer.group_key);
        }
        peer.group_key = threads::own_key(peer.group_key);
        self.timeouts.apply(&mut peer);
        peer
    }

    /// Whether the server is to be told whose connection it gets: then a peer without [`Attempt::introduce`] is for
    /// the gateway's own business.
    pub fn introduces(&self) -> bool {
        self.server.common.proxy_protocol
    }

    /// Has the server of `peer`, made by this attempt, told for whom the connection is.
    pub fn introduce(&self, peer: &mut HttpPeer, introduction: Introduction) {
        peer::introduce(peer, introduction);
    }

    /// This attempt's time-outs: the upstream's, cut short by the request's deadline.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// The upstream's own bound on a write, whatever is left of the request's time.
    pub fn write_timeout(&self) -> Duration {
        self.server.common.timeouts.write
    }

    /// The `Host` to send; `None` = the client's.
    pub fn host(&self) -> Option<&HeaderValue> {
        self.server.host.as_ref()
    }

    /// A connection is there.
    pub fn connected(&mut self, reused: bool, now: Instant) {
        let took = self.since_start(now);
        self.record.reused = Some(reused);
        self.record.connect = Some(took);
        if !reused {
            self.server.common.metrics.connect_seconds(took.as_secs_f64());
        }
    }

    /// What came of it. `Answered` is told with the header and may be followed by one failure, if the answer broke off;
    /// the place on the server is held until the attempt is dropped or closed.
    pub fn finish(&mut self, outcome: Outcome, now: Instant) {
        let answered = matches!(self.record.outcome, Outcome::Answered(_));
        let broke_off = answered && !matches!(outcome, Outcome::Answered(_) | Outcome::Abandoned);
        if self.ticket.is_none() && !broke_off {
            return;
        }
        let took = self.since_start(now);
        self.record.outcome = outcome;
        if self.server.is_http2() {
            match outcome {
                Outcome::Answered(_) => self.server.state.generations.answered(&mut self.generation),
                // Who waits for the client, or was late to begin with, knows nothing of the connection.
                Outcome::Timeout { body_sent: true } if took >= self.silence() => {
                    self.server.state.generations.silent(self.generation, now);
                }
                _ => {}
            }
        }
        match outcome {
            Outcome::Answered(status) => {
                self.record.status = Some(status);
                self.record.header = Some(took);
                self.server.metrics.answered(status);
            }
            Outcome::Abandoned => {}
            failed => self.server.metrics.failed(failed.word()),
        }
        let circumstances = Circumstances {
            reused: self.record.reused == Some(true),
            answered,
            connect_cut: self.connect_cut,
        };
        self.server.report(self.ticket.take(), outcome.report(circumstances), now);
    }

    /// The record so far.
    pub fn record(&self) -> &AttemptRecord {
        &self.record
    }

    /// Ends it: gives the place on the server back and returns what is kept.
    pub fn close(mut self, now: Instant) -> AttemptRecord {
        self.end(now);
        self.record.clone()
    }

    fn end(&mut self, now: Instant) {
        if self.record.total.is_some() {
            return;
        }
        if self.ticket.is_some() {
            self.finish(Outcome::Abandoned, now);
        }
        let took = self.since_start(now);
        self.record.total = Some(took);
        self.server.common.metrics.request_seconds(took.as_secs_f64());
        self.server.release();
    }

    fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.record.started)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.record.total.is_none() {
            self.end(clock::now());
        }
    }
}
