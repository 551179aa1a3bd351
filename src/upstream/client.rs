//! Requests of the gateway's own to an upstream, each for a client's: the same servers, health, breakers, budgets and
//! metrics as for what is passed on ([`Attempt`]); only the transport differs: a connector with sockets of its own.
//!
//! Dropping a call ends it: an HTTP/1 connection is closed, an HTTP/2 stream reset.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

use super::Upstream;
use super::attempt::{Attempt, AttemptRecord, Outcome};
use super::fallback::{self, Fallback};
use super::introduction::Introduction;
use super::pool::{NoServer, Tried};
use super::retry::{Decision, Failure, Situation, is_idempotent};
use crate::base::clock;
use crate::base::reason::Reason;
use crate::telemetry::trace::{SpanId, TraceContext};

/// Connections of the gateway's own, and those kept for later.
pub struct Client {
    connector: Connector,
}

impl Client {
    /// One that keeps so many idle connections.
    pub(super) fn new(idle: usize) -> Self {
        Self { connector: Connector::new(Some(ConnectorOptions::new(idle))) }
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
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: Option<Bytes>,
    /// The `Host` to send where the upstream wants the client's.
    pub host: Option<&'a HeaderValue>,
    /// See [`Upstream::hash_key`].
    pub hash_key: u64,
    /// For whom it is, for servers that want to be told.
    pub introduction: Introduction,
    /// When its time is over.
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
/// What is read of an answer that nobody wants, so that its connection can be used again.
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
                Ended::Answer(reply) if self.retry_policy().on.has_status(reply.status) => {
                    (Failure::Status(reply.status), Ok(reply))
                }
                Ended::Answer(reply) => return Ok(reply),
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
    received: u64,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let Some(attempt) = self.attempt.take() else { return };
        self.ask.notes.push(Note {
            upstream: self.upstream.name().clone(),
            span: self.span,
            started: self.started,
            record: attempt.close(clock::now()),
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
            received: 0,
        }
    }

    async fn run(mut self) -> Ended {
        let deadline = self.ask.deadline;
        let ended = match deadline {
            // Boxed: it is large, and moved on its way.
            Some(at) => tokio::time::timeout_at(at.into(), Box::pin(self.exchange())).await.ok(),
            None => Some(Box::pin(self.exchange()).await),
        };
        let ended = ended.unwrap_or(Ended::Failed(match self.is_connected {
            true => Outcome::Timeout { body_sent: self.is_sent },
            false => Outcome::ConnectTimeout,
        }));
        if let (Ended::Failed(outcome), Some(attempt)) = (&ended, &mut self.attempt) {
            attempt.finish(*outcome, clock::now());
        }
        ended
    }

    async fn exchange(&mut self) -> Ended {
        let Some(attempt) = &self.attempt else { return Ended::Failed(Outcome::Abandoned) };
        let mut peer = attempt.peer();
        if attempt.introduces() {
            attempt.introduce(&mut peer, self.ask.introduction);
        }
        let client = self.upstream.live.client();
        let mut is_replaced = false;
        loop {
            let (session, reused) = match client.connector.get_http_session(&*peer).await {
                Ok(connected) => connected,
                Err(error) => return Ended::Failed(not_connected(&error)),
            };
            self.is_connected = true;
            if let Some(attempt) = &mut self.attempt {
                // One from before was there at once.
                let now = if reused { attempt.record().started } else { clock::now() };
                attempt.connected(reused, now);
            }
            let answered = self.received > 0;
            match self.converse(session, &peer, client).await {
                Ok(reply) => return Ended::Answer(reply),
                Err(Broken::Missed(missed)) => return Ended::Missed(missed),
                Err(Broken::Nonsense) => return Ended::Failed(Outcome::BadResponse),
                Err(Broken::Error(error)) => {
                    let may_repeat = !answered && !self.has_answer() && is_idempotent(self.ask.method);
                    if reused && may_repeat && is_reset(&error) && !std::mem::replace(&mut is_replaced, true)
                    {
                        // A kept connection that the server had closed meanwhile: its right, and no failure.
                        self.is_sent = false;
                        continue;
                    }
                    return Ended::Failed(broke(&error, self.is_sent));
                }
            }
        }
    }

    fn has_answer(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.record().status.is_some())
    }

    async fn converse(
        &mut self,
        mut session: HttpSession,
        peer: &HttpPeer,
        client: &Client,
    ) -> Result<Reply, Broken> {
        if let Some(attempt) = &self.attempt {
            session.set_read_timeout(Some(attempt.timeouts().read));
            session.set_write_timeout(Some(attempt.timeouts().write));
        }
        self.send(&mut session, peer).await?;
        let status = read_head(&mut session).await?;
        if let Some(attempt) = &mut self.attempt {
            attempt.finish(Outcome::Answered(status.as_u16()), clock::now());
        }
        let body = if status.is_success() {
            self.read(&mut session).await?
        } else {
            drain(&mut session, self.ask.deadline).await;
            Bytes::new()
        };
        if session.response_done() {
            let idle = self.upstream.timeouts().idle;
            client.connector.release_http_session(session, peer, Some(idle)).await;
        }
        Ok(Reply { status: status.as_u16(), body })
    }

    async fn send(&mut self, session: &mut HttpSession, peer: &HttpPeer) -> Result<(), Broken> {
        let head = self.head(matches!(session, HttpSession::H2(_)), peer)?;
        let body = self.ask.body.clone().filter(|body| !body.is_empty());
        match session {
            HttpSession::H2(stream) => stream.write_request_header(Box::new(head), body.is_none())?,
            _ => session.write_request_header(Box::new(head)).await?,
        }
        if let Some(body) = body {
            session.write_request_body(body, true).await?;
        }
        session.finish_request_body().await?;
        self.is_sent = true;
        Ok(())
    }

    fn head(&self, is_http2: bool, peer: &HttpPeer) -> Result<RequestHeader, Box<Error>> {
        use pingora::upstreams::peer::Peer;
        let ask = self.ask;
        let headers = ask.headers;
        let mut head =
            RequestHeader::build(ask.method.clone(), ask.target.as_bytes(), Some(headers.len() + 4))?;
        let own = self.attempt.as_ref().and_then(Attempt::host).or(ask.host);
        let server = self.attempt.as_ref().map_or("localhost", |attempt| &*attempt.record().server);
        let server = if server.starts_with("unix:") { "localhost" } else { server };
        if is_http2 {
            let authority = own.map_or(server.as_bytes(), HeaderValue::as_bytes);
            let uri = http::Uri::builder()
                .scheme(if peer.tls() { "https" } else { "http" })
                .authority(authority)
                .path_and_query(ask.target)
                .build();
            let uri =
                uri.map_err(|_| Error::explain(ErrorType::InvalidHTTPHeader, "no authority to send"))?;
            head.set_uri(uri);
        } else {
            match own {
                Some(host) => head.insert_header(header::HOST, host.clone())?,
                None => head.insert_header(header::HOST, server)?,
            }
        }
        for (name, value) in headers {
            head.append_header(name.clone(), value.clone())?;
        }
        if let Some(trace) = ask.trace {
            head.insert_header("traceparent", &trace.traceparent(self.span)[..])?;
        }
        if let Some(body) = &ask.body {
            head.insert_header(header::CONTENT_LENGTH, body.len())?;
        }
        Ok(head)
    }

    /// The body of an answer that is wanted, within its bounds.
    async fn read(&mut self, session: &mut HttpSession) -> Result<Bytes, Broken> {
        let headers = session.response_header().map(|head| &head.headers);
        let is_encoded = headers.and_then(|headers| headers.get(header::CONTENT_ENCODING));
        if is_encoded.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Broken::Missed(Missed::Encoded));
        }
        let announced =
            headers.and_then(|headers| headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: u64| length > self.ask.bytes_max as u64) {
            return Err(Broken::Missed(Missed::TooLarge));
        }
        let mut pieces: Option<Pieces> = None;
        while let Some(piece) = session.read_response_body().await? {
            let length = pieces.as_ref().map_or(0, Pieces::len) + piece.len();
            if length > self.ask.bytes_max || !(self.ask.room)(piece.len()) {
                return Err(Broken::Missed(Missed::TooLarge));
            }
            self.received += piece.len() as u64;
            pieces = Some(match pieces {
                None => Pieces::One(piece),
                Some(before) => before.and(&piece),
            });
        }
        Ok(pieces.map_or_else(Bytes::new, Pieces::whole))
    }
}

/// A body as it comes: most come in one piece, which is not copied.
enum Pieces {
    One(Bytes),
    Many(BytesMut),
}

impl Pieces {
    fn len(&self) -> usize {
        match self {
            Self::One(piece) => piece.len(),
            Self::Many(pieces) => pieces.len(),
        }
    }

    fn and(self, piece: &[u8]) -> Self {
        let mut pieces = match self {
            Self::One(first) => BytesMut::from(&first[..]),
            Self::Many(pieces) => pieces,
        };
        pieces.extend_from_slice(piece);
        Self::Many(pieces)
    }

    fn whole(self) -> Bytes {
        match self {
            Self::One(piece) => piece,
            Self::Many(pieces) => pieces.freeze(),
        }
    }
}

/// The status of the answer, interim ones passed over.
async fn read_head(session: &mut HttpSession) -> Result<StatusCode, Broken> {
    for _ in 0..INTERIM_MAX {
        session.read_response_header().await?;
        let status = session.response_header().map(|head| head.status).ok_or(Broken::Nonsense)?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked for it.
            return Err(Broken::Nonsense);
        }
        if !status.is_informational() {
            return Ok(status);
        }
    }
    Err(Broken::Nonsense)
}

/// Reads a short body to its end, so that the connection can be used again. A longer one is left, and the connection
/// with it, and so is one that does not come soon: the status is known, and must not be lost to the deadline meanwhile.
async fn drain(session: &mut HttpSession, deadline: Option<Instant>) {
    let all = async {
        let mut left = DRAIN_BYTES_MAX;
        while let Ok(Some(piece)) = session.read_response_body().await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                return;
            }
        }
    };
    let time = deadline.map_or(DRAIN_TIME_MAX, |deadline| {
        DRAIN_TIME_MAX.min(deadline.saturating_duration_since(clock::now()) / 2)
    });
    // Whatever comes of it.
    drop(tokio::time::timeout(time, all).await);
}

fn not_connected(error: &Error) -> Outcome {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Outcome::ConnectTimeout,
        ErrorType::TLSHandshakeFailure
        | ErrorType::TLSWantX509Lookup
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError => Outcome::Tls,
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
