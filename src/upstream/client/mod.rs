//! Requests of the gateway's own to an upstream, each for a client's: the same servers, health, breakers, budgets and
//! metrics as for what is passed on ([`Attempt`]), and in cleartext HTTP/1 the same connections ([`plain`]). What else
//! there is goes by Pingora's connector, with sockets of its own ([`pooled`]).
//!
//! Dropping a call ends it: an HTTP/1 connection is closed, an HTTP/2 stream reset.

mod plain;
mod pooled;

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use parking_lot::Mutex;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::{Error, ErrorType};

use super::Upstream;
use super::attempt::{Attempt, AttemptRecord, Outcome};
use super::fallback::{self, Fallback};
use super::introduction::Introduction;
use super::link::lacks_descriptor;
use super::pool::{NoServer, Tried};
use super::retry::{Decision, Failure, Situation, is_idempotent};
use crate::base::clock;
use crate::base::reason::Reason;
use crate::telemetry::trace::{SpanId, TraceContext};

/// Connections of the gateway's own, and those kept for later.
pub struct Client {
    /// Made by the first call that needs it.
    connector: OnceLock<Connector>,
    /// Idle connections that are kept.
    idle: usize,
}

impl Client {
    /// One that keeps so many idle connections.
    pub(super) fn new(idle: usize) -> Self {
        Self { connector: OnceLock::new(), idle }
    }

    fn connector(&self) -> &Connector {
        self.connector.get_or_init(|| Connector::new(Some(ConnectorOptions::new(self.idle))))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// A request, and the bounds of its answer.
pub struct Ask<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query, in origin form.
    pub target: &'a str,
    /// All headers but `Host`, those that frame the message, and `traceparent`.
    pub headers: Fields<'a>,
    /// The body.
    pub body: Option<Bytes>,
    /// The `Host` to send where the upstream wants the client's.
    pub host: Option<&'a HeaderValue>,
    /// See [`Upstream::hash_key`].
    pub hash_key: u64,
    /// For whom it is, for servers that want to be told.
    pub introduction: Introduction,
    /// When its time is over. Whoever calls lets go of the call then: in cleartext no timer runs for it.
    pub deadline: Option<Instant>,
    /// The trace that it belongs to.
    pub trace: Option<&'a TraceContext>,
    /// Longest body of the answer.
    pub bytes_max: usize,
    /// Asked before each piece of the answer's body is kept; false = there is no room for it.
    pub room: &'a (dyn Fn(usize) -> bool + Send + Sync),
    /// Counts attempts.
    pub attempts: &'a AtomicU32,
    /// Takes the record of each attempt that is over.
    pub notes: &'a Notes,
}

/// Headers of a request: those that many have in common, and its own, which stand in their place.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    common: &'a HeaderMap,
    own: Cow<'a, [(HeaderName, HeaderValue)]>,
}

impl<'a> Fields<'a> {
    /// Those of `common` that are not among `own`, and those.
    pub fn new(common: &'a HeaderMap, own: Cow<'a, [(HeaderName, HeaderValue)]>) -> Self {
        Self { common, own }
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let is_replaced = |name: &HeaderName| self.own.iter().any(|(own, _)| own == name);
        let common = self.common.iter().filter(move |(name, _)| !is_replaced(name));
        common.chain(self.own.iter().map(|(name, value)| (name, value)))
    }

    /// All of them by themselves.
    pub fn to_map(&self) -> HeaderMap {
        self.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn len_max(&self) -> usize {
        self.common.len() + self.own.len()
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body; only read for 2xx.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// No server answered.
    Unanswered {
        /// Why.
        reason: Reason,
        /// When it makes sense to ask again, if that is known.
        retry_after: Option<Duration>,
    },
    /// The answer is larger than allowed.
    TooLarge,
    /// The answer is compressed although that was not asked for.
    Encoded,
}

/// Records of attempts that are over.
#[derive(Debug, Default)]
pub struct Notes(Mutex<Vec<Note>>);

/// One attempt that is over.
#[derive(Debug)]
pub struct Note {
    /// Whose server it was.
    pub upstream: Arc<str>,
    /// Its span, which the server was told as its parent.
    pub span: SpanId,
    /// When it began.
    pub started: SystemTime,
    /// What came of it.
    pub record: AttemptRecord,
    /// Bytes of the request's body.
    pub sent: u64,
    /// Bytes of the answer's body.
    pub received: u64,
}

/// Notes kept for one request: as many as an access record shows.
const NOTES_MAX: usize = 64;

impl Notes {
    /// What was noted, which is gone from here then.
    pub fn take(&self) -> Vec<Note> {
        std::mem::take(&mut *self.0.lock())
    }

    fn push(&self, note: Note) {
        let mut notes = self.0.lock();
        if notes.len() < NOTES_MAX {
            notes.push(note);
        }
    }
}

/// Bodies up to this are kept to be sent again, as for what is passed on.
const REPLAY_BYTES_MAX: usize = 64 * 1024;
/// What is read of an answer that nobody wants, so that its connection can be used again. A longer one is left, and the
/// connection with it, and so is one that does not come soon: the status is known, and must not be lost to the deadline
/// meanwhile.
const DRAIN_BYTES_MAX: usize = 64 * 1024;
/// How long that may take.
const DRAIN_TIME_MAX: Duration = Duration::from_millis(100);
/// Interim answers (1xx) heeded before the answer.
const INTERIM_MAX: usize = 16;

impl Upstream {
    /// Asks a server, and others where that may be repeated; what stands in for the upstream counts as its answer.
    pub async fn call(&self, ask: &Ask<'_>) -> Result<Reply, Missed> {
        let missed = match self.call_servers(ask).await {
            Err(missed @ Missed::Unanswered { reason, .. }) if fallback::applies(reason) => missed,
            other => return other,
        };
        match &self.fallback {
            Some(Fallback::Answer(answer)) => {
                Ok(Reply { status: answer.status().as_u16(), body: answer.body().clone() })
            }
            Some(Fallback::Upstream(link)) => match link.upstream() {
                Some(other) => other.call_servers(ask).await.map_err(|_| missed),
                None => Err(missed),
            },
            None => Err(missed),
        }
    }

    async fn call_servers(&self, ask: &Ask<'_>) -> Result<Reply, Missed> {
        let _place = self.admit().map_err(unanswered)?;
        let mut tried = Tried::default();
        let mut attempt = self.pick(ask, &mut tried).map_err(unanswered)?;
        loop {
            ask.attempts.fetch_add(1, Relaxed);
            let ended = Trial::begin(self, attempt, ask).run().await;
            let ended = match ended {
                Ended::Answer(reply) if !self.retry_policy().on.has_status(reply.status) => return Ok(reply),
                ended => ended,
            };
            let now = clock::now();
            let situation = Situation {
                method: ask.method,
                replayable: ask.body.as_ref().is_none_or(|body| body.len() <= REPLAY_BYTES_MAX),
                answer_started: false,
                attempts: tried.attempts(),
                time_left: ask.deadline.map(|at| at.saturating_duration_since(now)),
            };
            let (failure, otherwise) = match ended {
                Ended::Missed(missed) => return Err(missed),
                Ended::Answer(reply) => (Failure::Status(reply.status), Ok(reply)),
                Ended::Failed(outcome) => {
                    let is_late = ask.deadline.is_some_and(|at| now >= at);
                    let reason = if is_late {
                        Reason::DeadlineExceeded
                    } else {
                        outcome.reason().unwrap_or(Reason::Internal)
                    };
                    let missed = Missed::Unanswered { reason, retry_after: None };
                    match outcome.failure() {
                        Some(failure) if !is_late => (failure, Err(missed)),
                        _ => return Err(missed),
                    }
                }
            };
            let Decision::Retry(pause) = self.retry(failure, &situation, now) else { return otherwise };
            tokio::time::sleep(pause).await;
            attempt = match self.pick(ask, &mut tried) {
                Ok(attempt) => attempt,
                // Without another one this is the best there is.
                Err(_) => return otherwise,
            };
        }
    }

    fn pick(&self, ask: &Ask<'_>, tried: &mut Tried) -> Result<Attempt, NoServer> {
        self.attempt(tried, ask.hash_key, ask.deadline, clock::now())
    }
}

fn unanswered(none: NoServer) -> Missed {
    Missed::Unanswered { reason: none.reason, retry_after: Some(none.retry_after) }
}

/// How one attempt ended.
enum Ended {
    Answer(Reply),
    Failed(Outcome),
    /// There is an answer that cannot be used.
    Missed(Missed),
}

/// One attempt under way. Its record is noted whatever ends it.
struct Trial<'a> {
    upstream: &'a Upstream,
    ask: &'a Ask<'a>,
    attempt: Option<Attempt>,
    span: SpanId,
    started: SystemTime,
    is_connected: bool,
    is_sent: bool,
    is_over: bool,
    received: u64,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let Some(mut attempt) = self.attempt.take() else { return };
        let now = clock::now();
        if !self.is_over && self.ask.deadline.is_some_and(|at| at <= now) {
            // Its time was over: that is why it was let go of.
            attempt.finish(self.late(), now);
        }
        self.ask.notes.push(Note {
            upstream: self.upstream.name().clone(),
            span: self.span,
            started: self.started,
            record: attempt.close(now),
            sent: if self.is_sent { self.ask.body.as_ref().map_or(0, |body| body.len() as u64) } else { 0 },
            received: self.received,
        });
    }
}

/// Why a conversation with a server ended early.
enum Broken {
    Error(Box<Error>),
    /// The answer is no answer.
    Nonsense,
    Missed(Missed),
}

impl From<Box<Error>> for Broken {
    fn from(error: Box<Error>) -> Self {
        Self::Error(error)
    }
}

impl<'a> Trial<'a> {
    fn begin(upstream: &'a Upstream, attempt: Attempt, ask: &'a Ask<'a>) -> Self {
        Self {
            upstream,
            ask,
            attempt: Some(attempt),
            span: SpanId::random(),
            started: clock::wall(),
            is_connected: false,
            is_sent: false,
            is_over: false,
            received: 0,
        }
    }

    async fn run(mut self) -> Ended {
        let ended = if self.upstream.is_cleartext() {
            self.exchange_plainly().await
        } else {
            let deadline = self.ask.deadline;
            // Boxed: it is large, and moved on its way.
            let exchange = Box::pin(self.exchange_pooled());
            let ended = match deadline {
                Some(at) => tokio::time::timeout_at(at.into(), exchange).await.ok(),
                None => Some(exchange.await),
            };
            ended.unwrap_or_else(|| Ended::Failed(self.late()))
        };
        self.is_over = true;
        if let (Ended::Failed(outcome), Some(attempt)) = (&ended, &mut self.attempt) {
            attempt.finish(*outcome, clock::now());
        }
        ended
    }

    /// What it comes to when it is not over in time.
    fn late(&self) -> Outcome {
        match self.is_connected {
            true => Outcome::Timeout { body_sent: self.is_sent },
            false => Outcome::ConnectTimeout,
        }
    }

    fn connected(&mut self, reused: bool) {
        self.is_connected = true;
        if let Some(attempt) = &mut self.attempt {
            // One from before was there at once.
            let now = if reused { attempt.record().started } else { clock::now() };
            attempt.connected(reused, now);
        }
    }

    /// The head of the answer is there.
    fn answered(&mut self, status: u16) {
        if let Some(attempt) = &mut self.attempt {
            attempt.finish(Outcome::Answered(status), clock::now());
        }
    }

    /// How it ended with that; nothing where the same is to be tried on a new connection, as the one that was kept had
    /// been closed by the server meanwhile: its right, and no failure.
    fn ended(&mut self, talked: Result<Reply, Broken>, reused: bool) -> Option<Ended> {
        Some(match talked {
            Ok(reply) => Ended::Answer(reply),
            Err(Broken::Missed(missed)) => Ended::Missed(missed),
            Err(Broken::Nonsense) => Ended::Failed(Outcome::BadResponse),
            Err(Broken::Error(error)) => {
                let has_answer =
                    self.attempt.as_ref().is_some_and(|attempt| attempt.record().status.is_some());
                if reused && !has_answer && is_idempotent(self.ask.method) && is_reset(&error) {
                    self.is_sent = false;
                    return None;
                }
                Ended::Failed(broke(&error, self.is_sent))
            }
        })
    }

    /// The `Host` to send.
    fn host(&self) -> &[u8] {
        let own = self.attempt.as_ref().and_then(Attempt::host).or(self.ask.host);
        let server = || self.attempt.as_ref().map_or("localhost", |attempt| &*attempt.record().server);
        own.map_or_else(
            || Some(server()).filter(|server| !server.starts_with("unix:")).unwrap_or("localhost").as_bytes(),
            HeaderValue::as_bytes,
        )
    }

    /// What frames the request's body; none is announced where none is expected (RFC 9110 section 8.6).
    fn content_length(&self) -> Option<usize> {
        let expected = || matches!(*self.ask.method, Method::POST | Method::PUT | Method::PATCH).then_some(0);
        self.ask.body.as_ref().map(Bytes::len).or_else(expected)
    }

    fn drain_time(&self) -> Duration {
        self.ask.deadline.map_or(DRAIN_TIME_MAX, |deadline| {
            DRAIN_TIME_MAX.min(deadline.saturating_duration_since(clock::now()) / 2)
        })
    }
}

/// Whether this is the name of a coding of a body that changes it.
fn changes_body(coding: Option<&HeaderValue>) -> bool {
    coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn not_connected(error: &Error) -> Outcome {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Outcome::ConnectTimeout,
        ErrorType::TLSHandshakeFailure
        | ErrorType::TLSWantX509Lookup
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError => Outcome::Tls,
        _ if lacks_descriptor(error) => Outcome::NoDescriptor,
        _ => Outcome::ConnectFailed,
    }
}

fn broke(error: &Error, body_sent: bool) -> Outcome {
    match error.etype() {
        ErrorType::ReadTimedout => Outcome::Timeout { body_sent },
        // There was something to send, so it is the server that did not take it.
        ErrorType::WriteTimedout => Outcome::Timeout { body_sent: true },
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::InvalidH2 | ErrorType::H2Downgrade => {
            Outcome::BadResponse
        }
        _ => Outcome::Reset,
    }
}

fn is_reset(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError | ErrorType::H2Error
    )
}
