//! What the gateway knows of one request, from its first hook to its record.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Method, Version};

use super::asked::Asked;
use super::client::Client;
use super::edit;
use super::phases::envelope::Wrapping;
use super::phases::finish;
use super::received::{Marks, Received};
use super::tunnels::{Tunnel, Tunnels};
use crate::base::client_cert::ClientCert;
use crate::base::clock::{self, Moment};
use crate::base::problem::{self, Form, Problem};
use crate::base::reason::Reason;
use crate::config::snapshot::{
    Amqp, IDENTITY_HEADERS, ListenerTls, LoginTarget, Route, RouteTimeout, Snapshot,
};
use crate::identity::login;
use crate::identity::principal::{Principal, Proof};
use crate::ingress::connection::Exchange;
use crate::policy::plan;
use crate::policy::rate_limit::Met;
use crate::routing::Captures;
use crate::telemetry::access::{AccessRecord, Field};
use crate::telemetry::metrics::{InFlight, Metrics};
use crate::telemetry::request_id::RequestId;
use crate::telemetry::trace::{SpanId, TraceContext};
use crate::upstream::bulkhead::Permit;
use crate::upstream::{Attempt, Failure, Outcome, Tried, Upstream};

/// One request. Whatever ends it, also a panic or the client's leaving, is recorded when this is dropped.
pub struct Context {
    /// What `ingress` knows of it; `None` only outside of it (tests of single hooks).
    pub(super) exchange: Option<Arc<Exchange>>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) began: Instant,
    /// The route; [`Snapshot::unmatched`] until one is found.
    pub(super) route: Arc<Route>,
    pub(super) captures: Captures,
    pub(super) in_flight: Option<InFlight>,
    pub(super) listener: u16,
    pub(super) client: Client,
    pub(super) request_id: RequestId,
    pub(super) trace: Option<TraceContext>,
    pub(super) head: Head,
    /// Path and query to forward, where they differ from what was sent.
    pub(super) target: Option<String>,
    pub(super) deadlines: Deadlines,
    pub(super) call: Option<Call>,
    /// A browser asks beforehand what it may send.
    pub(super) preflight: bool,
    /// What the limits on its way said.
    pub(super) met: Vec<Met>,
    /// What bounds whoever it is from.
    pub(super) planned: Option<plan::Met>,
    /// Who it is from, once that is proved.
    pub(super) principal: Option<Principal>,
    /// What services are told of that, by the headers of `[identity]`.
    pub(super) introduced: [Option<HeaderValue>; IDENTITY_HEADERS],
    /// What of its credentials services do not get.
    pub(super) stripped: Stripped,
    /// The key of its token was waited for.
    pub(super) has_waited: bool,
    /// When who it is from is no longer proved: ends a tunnel.
    pub(super) proved_until: Option<Instant>,
    /// Interim answers of servers so far.
    pub(super) interim_answers: u32,
    /// The tunnel that the request has become, if it is somebody's.
    tunnel: Option<Arc<Tunnel>>,
    /// Why it is refused, if the limits that instances share do not refuse it first.
    pub(super) refused: Option<Box<Problem>>,
    /// Why the gateway itself ends the request, once that is decided.
    pub(super) failure: Option<Reason>,
    /// The inside story, for the log only.
    pub(super) detail: Option<String>,
    /// Status sent, or that would have been; 0 = nothing yet.
    pub(super) status: u16,
    /// The line of the access log in the making; absent without one.
    pub(super) record: Option<Box<AccessRecord>>,
    /// A status made the answer's attempt a failed one, and the next is picked.
    pub(super) retrying: bool,
    pub(super) request_body_bytes: u64,
    pub(super) response_body_bytes: u64,
    /// The server's answer was received whole.
    pub(super) answer_ended: bool,
    pub(super) recorded: bool,
    /// No pace is demanded yet: see [`Context::hold_pace`].
    pub(super) pace_held: bool,
    /// The answer is kept until it is whole, to be put into its envelope.
    pub(super) wrapping: Option<Box<Wrapping>>,
    /// All was decided before Pingora was given the request.
    pub(super) decided: Option<Decided>,
}

/// What is needed of the request's head when the session is gone, or lent out.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) version: Version,
    /// gRPC, which HTTP/2 alone carries.
    pub(super) is_grpc: bool,
    /// The client says that it waits for server-sent events.
    pub(super) wants_events: bool,
    /// The client takes trailers (`TE`, RFC 9110 section 10.1.4).
    pub(super) takes_trailers: bool,
    /// How errors are written for this client.
    pub(super) error_form: Form,
    /// The announced length of the body; what is not announced is counted as it passes.
    pub(super) content_length: Option<u64>,
    /// Which kinds of fields it has.
    pub(super) marks: Marks,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            method: Method::GET,
            version: Version::HTTP_11,
            is_grpc: false,
            wants_events: false,
            takes_trailers: false,
            error_form: Form::Json,
            content_length: None,
            marks: Marks::default(),
        }
    }
}

/// The one deadline of a request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Deadlines {
    /// For the first byte of the answer.
    pub(super) first_byte: Option<Instant>,
    /// For the last byte of the answer.
    pub(super) whole: Option<Instant>,
}

/// Credentials that services do not get.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stripped {
    /// The `Authorization` header.
    pub(super) authorization: bool,
    /// The cookie of tokens.
    pub(super) cookie: bool,
    /// The header and the parameter of API keys.
    pub(super) key: bool,
}

/// The call to an upstream: one attempt, or several.
pub(super) struct Call {
    pub(super) upstream: Arc<Upstream>,
    pub(super) tried: Tried,
    pub(super) attempt: Option<Attempt>,
    /// Its place among the requests to the upstream.
    pub(super) permit: Option<Permit>,
    /// Pause before the picked attempt.
    pub(super) backoff: Option<Duration>,
    pub(super) hash_key: u64,
    /// Whether the whole request body went to the server.
    pub(super) body_sent: bool,
    /// Whether this is the fallback of another upstream.
    pub(super) is_fallback: bool,
    /// A stale pooled connection was replaced once already.
    pub(super) stale_replaced: bool,
}

/// What was decided of a request that Pingora is given later.
pub(super) enum Decided {
    /// It is forwarded, and its first server picked.
    Forward,
    /// It is a login, or its kin.
    Login(LoginTarget, Box<login::Request>),
    /// It asks a queue, or is published.
    Amqp(Arc<Amqp>),
}

impl Context {
    pub(super) fn new(
        exchange: Option<Arc<Exchange>>,
        snapshot: Arc<Snapshot>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let began = exchange.as_ref().map_or_else(clock::now, |exchange| exchange.began);
        let listener = exchange.as_ref().map_or(0, |exchange| exchange.connection.listener);
        Self {
            exchange,
            route: snapshot.unmatched.clone(),
            snapshot,
            metrics,
            began,
            captures: Captures::default(),
            in_flight: None,
            listener,
            client: Client::default(),
            request_id: RequestId::random(),
            trace: None,
            head: Head::default(),
            target: None,
            deadlines: Deadlines::default(),
            call: None,
            preflight: false,
            met: Vec::new(),
            planned: None,
            principal: None,
            introduced: [const { None }; IDENTITY_HEADERS],
            stripped: Stripped::default(),
            has_waited: false,
            proved_until: None,
            interim_answers: 0,
            tunnel: None,
            refused: None,
            failure: None,
            detail: None,
            status: 0,
            record: None,
            retrying: false,
            request_body_bytes: 0,
            response_body_bytes: 0,
            answer_ended: false,
            recorded: false,
            pace_held: false,
            wrapping: None,
            decided: None,
        }
    }

    /// Who is at the other end of the connection, proxies included.
    pub(super) fn peer_ip(&self) -> IpAddr {
        match &self.exchange {
            Some(exchange) => exchange.connection.peer.ip(),
            None => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        }
    }

    /// The certificate that the client has proved to own.
    pub(super) fn client_cert(&self) -> Option<&ClientCert> {
        self.exchange.as_ref()?.connection.client_cert()
    }

    /// TLS of the listener as it is now, if it has any.
    pub(super) fn listener_tls(&self) -> Option<&ListenerTls> {
        self.snapshot.listeners.get(usize::from(self.listener))?.tls.as_deref()
    }

    /// The listener's `Strict-Transport-Security`.
    pub(super) fn hsts(&self) -> Option<&HeaderValue> {
        self.listener_tls()?.hsts.as_ref()
    }

    pub(super) fn is_tls(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.connection.tls.is_some())
    }

    /// Whether the client asked to turn the connection into a WebSocket.
    pub(super) fn is_upgrade(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.upgrade)
    }

    /// Whether either side may be silent for [`crate::config::snapshot::Limits::stream_idle`] before there is an answer:
    /// in tunnels, in gRPC to a server that can speak it, and on routes that say so. What else a client says of itself
    /// lifts no bound; what the answer's head says does, from then on ([`super::phases::respond`]).
    pub(super) fn is_silence_normal(&self) -> bool {
        let grpc = || self.head.is_grpc && self.call.as_ref().is_some_and(|call| call.upstream.http2());
        self.route.stream || self.is_upgrade() || grpc()
    }

    pub(super) fn enter_route(&mut self, route: Arc<Route>, captures: Captures) {
        self.in_flight = Some(route.metrics.start());
        self.route = route;
        self.captures = captures;
    }

    /// Keeps what the record needs of the head, and settles the request's id and trace.
    pub(super) fn begin(&mut self, head: Asked<'_>, received: &Received<'_>, host: Option<&[u8]>) {
        let content_type = received.content_type.map(HeaderValue::as_bytes);
        let accept = received.accept.map(HeaderValue::as_bytes);
        let foreign_id = received.request_id.filter(|_| self.client.peer_trusted);
        if let Some(foreign) = foreign_id.and_then(|id| RequestId::foreign(id.as_bytes())) {
            self.request_id = foreign;
        }
        // Several of them say nothing (W3C Trace Context section 3.2).
        let traceparent = received.traceparent.filter(|_| !received.marks.several_traces);
        self.trace = Some(TraceContext::accept(traceparent.map(HeaderValue::as_bytes)));
        self.head = Head {
            method: head.method.clone(),
            version: head.version,
            is_grpc: head.version == Version::HTTP_2
                && content_type.is_some_and(|value| value.starts_with(b"application/grpc")),
            wants_events: accept.is_some_and(|value| value.starts_with(b"text/event-stream")),
            takes_trailers: received.te.is_some_and(edit::is_trailers),
            error_form: problem::negotiate(content_type, accept),
            content_length: received
                .content_length
                .and_then(|value| value.to_str().ok()?.trim().parse().ok()),
            marks: received.marks,
        };
        if let Some(log) = &self.snapshot.log.access {
            let mut record = log.record();
            record.set(Field::Method, head.method.as_str());
            record.set(Field::Target, head.target);
            if let Some(host) = host {
                record.set(Field::Host, host);
            }
            log.collect_request(&mut record, head.headers);
            self.record = Some(record);
        }
    }

    /// Ends the current attempt, if there is one: with a failure, or with what it has come to so far.
    pub(super) fn end_attempt(&mut self, failure: Option<Outcome>, now: Instant) {
        self.end_attempt_at(failure, Moment { now, wall: clock::wall() });
    }

    /// The same for who knows what time it is.
    pub(super) fn end_attempt_at(&mut self, failure: Option<Outcome>, at: Moment) {
        let Some(call) = self.call.as_mut() else { return };
        let Some(mut attempt) = call.attempt.take() else { return };
        if let Some(failure) = failure {
            attempt.finish(failure, at.now);
        }
        let done = attempt.close(at.now);
        let Some(record) = self.record.as_mut() else { return };
        record.set(Field::Upstream, call.upstream.name().as_bytes());
        let another_upstream = call.is_fallback && call.tried.attempts() == 1;
        let started = at.wall.checked_sub(done.total.unwrap_or_default()).unwrap_or(SystemTime::UNIX_EPOCH);
        let line = record.begin_attempt(&done.server, SpanId::random(), started);
        line.span.duration = done.total;
        line.status = done.status;
        line.failure = match done.outcome {
            Outcome::ConnectTimeout => Some("connect timeout"),
            outcome => outcome.failure().map(Failure::label),
        };
        line.connect = if done.reused == Some(true) { Some(Duration::ZERO) } else { done.connect };
        line.header = done.header;
        line.bytes_sent = self.request_body_bytes;
        line.response_length = self.response_body_bytes;
        line.bytes_received = self.response_body_bytes;
        line.another_upstream = another_upstream;
    }

    /// A kept connection turned out to be closed: has the same server asked again on a new one, once a request.
    pub(super) fn replace_stale(&mut self) -> bool {
        match self.call.as_mut() {
            Some(call) if call.attempt.is_some() && !call.stale_replaced => {
                call.stale_replaced = true;
                true
            }
            _ => false,
        }
    }

    /// Sets the deadlines of `route` and has the connection cut the request off at the first of them.
    pub(super) fn set_deadlines(&mut self, route: &Route) {
        self.deadlines = self.deadlines_of(route);
        if let Some(exchange) = &self.exchange {
            exchange.cut_off_at(self.deadlines.first_byte.and_then(|at| at.checked_add(CUT_OFF_GRACE)));
        }
    }

    /// By when the parts of it must be over on `route`.
    pub(super) fn deadlines_of(&self, route: &Route) -> Deadlines {
        let after = |time| self.began.checked_add(time);
        match route.timeout {
            _ if route.stream => Deadlines::default(),
            RouteTimeout::Unlimited => Deadlines::default(),
            RouteTimeout::Whole(time) => Deadlines { first_byte: after(time), whole: after(time) },
            RouteTimeout::Default => {
                Deadlines { first_byte: after(self.snapshot.limits.request_timeout), whole: None }
            }
        }
    }

    /// The answer has begun: from now on only the deadline for the whole holds.
    pub(super) fn answer_began(&mut self) {
        if self.status == 101 {
            // A tunnel is over when its ends say so, or when it is no longer known whose it is. One that is somebody's
            // has a cut-off in any case: it may be moved up.
            self.deadlines.whole = None;
            let until = |principal: &Principal| instant_of(principal.until.unwrap_or(i64::MAX));
            self.proved_until = self.principal.as_ref().map(until);
        }
        if let Some(exchange) = &self.exchange {
            exchange.cut_off_at(self.deadlines.whole.or(self.proved_until));
        }
    }

    /// The answer opens a tunnel: if it is somebody's, it ends when that is revoked.
    pub(super) fn open_tunnel(&mut self, tunnels: &Arc<Tunnels>) {
        if let (Some(exchange), Some(principal)) = (&self.exchange, &self.principal) {
            self.tunnel = Some(tunnels.open(exchange.clone(), principal.clone()));
        }
    }

    /// Why a tunnel has ended, if that is because who it is from is no longer proved.
    pub(super) fn identity_ended(&self) -> Option<Reason> {
        let is_revoked = self.tunnel.as_ref().is_some_and(|tunnel| tunnel.is_revoked());
        self.proved_until.filter(|until| is_revoked || *until <= clock::now())?;
        Some(match self.principal.as_ref()?.proof {
            Proof::Token(_) if is_revoked => Reason::TokenRevoked,
            Proof::Token(_) => Reason::TokenExpired,
            Proof::ApiKey(_) => Reason::ApiKeyInvalid,
            Proof::Certificate(_) => Reason::CertificateRequired,
        })
    }

    /// Has the connection cut the request off after `time`, if it would not before.
    pub(super) fn cut_off_within(&self, time: Duration) {
        let Some(exchange) = &self.exchange else { return };
        let at = clock::now().checked_add(time);
        exchange.cut_off_at(exchange.cut_off().map_or(at, |before| at.map(|at| at.min(before))));
    }

    /// Bodies may move as slowly as they like, and the server be silent for `limits.stream_idle`: it is a stream.
    pub(super) fn lift_pace(&self) {
        if let Some(exchange) = &self.exchange {
            exchange.demand(0);
            exchange.watch_longer(self.snapshot.limits.stream_idle);
        }
    }

    /// The server did not take up the client's handshake: its answer is one like others.
    pub(super) fn stays_http(&self) {
        let attempt = self.call.as_ref().and_then(|call| call.attempt.as_ref());
        if let Some((exchange, attempt)) = self.exchange.as_ref().zip(attempt) {
            exchange.demand(self.snapshot.limits.min_body_rate);
            exchange.watch_server(Some(attempt.timeouts().read));
        }
    }

    /// Until the server asks for the body, it is not the client that is waited for.
    pub(super) fn hold_pace(&mut self) {
        if let Some(exchange) = self.exchange.as_ref().filter(|_| self.head.marks.expect) {
            exchange.demand(0);
            self.pace_held = true;
        }
    }

    /// The server asked, or the client did not wait for it.
    pub(super) fn resume_pace(&mut self) {
        if std::mem::take(&mut self.pace_held)
            && let Some(exchange) = &self.exchange
        {
            exchange.demand(self.snapshot.limits.min_body_rate);
        }
    }

    /// Whether the deadline for what is waited for now has passed.
    pub(super) fn is_late(&self) -> bool {
        let deadline = if self.status == 0 { self.deadlines.first_byte } else { self.deadlines.whole };
        deadline.is_some_and(|at| clock::now() >= at)
    }

    /// Bytes this request has put on the connection so far, head included; the body alone where streams share it.
    pub(super) fn bytes_sent(&self) -> u64 {
        match &self.exchange {
            Some(exchange) if self.head.version < Version::HTTP_2 => {
                exchange.connection.bytes_written.load(Ordering::Relaxed) - exchange.bytes_written_before
            }
            _ => self.response_body_bytes,
        }
    }
}

/// The moment at which the wall clock is going to show `unix` seconds; now, if it has.
fn instant_of(unix: i64) -> Instant {
    let Moment { now, wall } = Moment::now();
    let passed = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let at = Duration::from_secs(u64::try_from(unix).unwrap_or(0));
    // Further than any connection lasts there is no difference.
    now + at.saturating_sub(passed).min(LONGEST_TUNNEL)
}

const LONGEST_TUNNEL: Duration = Duration::from_secs(365 * 24 * 3600);

/// The upstream's own time-outs end at the deadline, and become a proper answer; the connection's follow after this.
const CUT_OFF_GRACE: Duration = Duration::from_millis(50);

impl Drop for Context {
    fn drop(&mut self) {
        finish::dropped(self);
    }
}
