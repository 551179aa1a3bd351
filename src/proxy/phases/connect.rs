//! Which server, for each attempt; what a failed attempt means, and what follows it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode, Version};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use crate::base::clock;
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::proxy::context::Call;
use crate::proxy::{Asked, Context};
use crate::upstream::retry::is_idempotent;
use crate::upstream::{
    Decision, Failure, Fallback, Introduction, NoServer, Outcome, Situation, Tried, Upstream, fallback,
    keep_to_http1, lacks_descriptor, tunnel,
};

/// How far a request has come, as far as that decides whether it may be sent again.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct Progress {
    /// What was read of its body can be sent again.
    pub(in crate::proxy) replayable: bool,
    /// The client has seen a part of the answer. A 101 is one: behind it there is no HTTP any more.
    pub(in crate::proxy) answer_started: bool,
    /// It became a tunnel.
    pub(in crate::proxy) tunnel: bool,
}

impl Progress {
    pub(in crate::proxy) fn of(session: &Session) -> Self {
        let starts =
            |status: StatusCode| !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS;
        Self {
            replayable: !session.as_downstream().retry_buffer_truncated(),
            answer_started: session.response_written().is_some_and(|head| starts(head.status)),
            tunnel: session.was_upgraded(),
        }
    }
}

/// Picks the server of the first attempt. Here, before Pingora takes over, so that "no server" is an answer like any
/// other and keeps the connection.
pub(in crate::proxy) fn first(
    asked: Asked<'_>,
    ctx: &mut Context,
    upstream: &Arc<Upstream>,
) -> Result<(), Problem> {
    let hash_key = upstream.hash_key(ctx.client.address, asked.headers);
    begin(ctx, upstream.clone(), hash_key, false)
}

fn begin(
    ctx: &mut Context,
    upstream: Arc<Upstream>,
    hash_key: u64,
    is_fallback: bool,
) -> Result<(), Problem> {
    ctx.call = Some(Call {
        upstream,
        tried: Tried::default(),
        attempt: None,
        permit: None,
        backoff: None,
        hash_key,
        body_sent: false,
        is_fallback,
        stale_replaced: false,
    });
    let Err(none) = admit(ctx).and_then(|()| pick(ctx)) else { return Ok(()) };
    ctx.failure = Some(none.reason);
    match fallback_upstream(ctx) {
        Some(other) => begin(ctx, other, hash_key, true),
        None => Err(Problem::new(none.reason).retry_after(none.retry_after)),
    }
}

/// Takes the call's place among the requests to its upstream, if that admits only so many.
fn admit(ctx: &mut Context) -> Result<(), NoServer> {
    let Some(call) = ctx.call.as_mut() else { return Ok(()) };
    call.permit = call.upstream.admit()?;
    Ok(())
}

/// Picks a server for the next attempt of the call: one not tried yet, if there is one.
fn pick(ctx: &mut Context) -> Result<(), NoServer> {
    let deadline = ctx.deadlines.first_byte;
    let Some(call) = ctx.call.as_mut() else { return Ok(()) };
    call.attempt = Some(call.upstream.attempt(&mut call.tried, call.hash_key, deadline, clock::now())?);
    call.body_sent = false;
    ctx.failure = None;
    Ok(())
}

/// The peer of the picked attempt, after the pause that a retry makes.
pub(in crate::proxy) async fn peer(session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
    if let Some(pause) = ctx.call.as_mut().and_then(|call| call.backoff.take()) {
        tokio::time::sleep(pause).await;
    }
    // A retry replays the body from its start.
    ctx.request_body_bytes = 0;
    let Some(attempt) = ctx.call.as_ref().and_then(|call| call.attempt.as_ref()) else {
        // Not reachable: an attempt is picked before Pingora is asked to go on, or to try again.
        ctx.failure = Some(Reason::Internal);
        return Error::e_explain(ErrorType::InternalError, "no attempt was picked");
    };
    let mut peer = attempt.peer();
    let introduction = attempt.introduces().then(|| introduction(ctx));
    if let Some(introduction) = introduction {
        attempt.introduce(&mut peer, introduction);
    }
    if ctx.is_upgrade() {
        tunnel::prepare(&mut peer, introduction);
    }
    if ctx.head.version == Version::HTTP_10 {
        // Pingora ends by chunks whatever comes over HTTP/2 without a length, and this client knows none.
        keep_to_http1(&mut peer);
    }
    if ctx.is_silence_normal() {
        // The request's deadline still holds until the answer begins: the client's side is cut off then.
        peer.options.read_timeout = Some(ctx.snapshot.limits.stream_idle);
        // What is written is written long after that, too.
        peer.options.write_timeout = Some(attempt.write_timeout());
    }
    let (bodiless, watched) = (session.is_body_empty(), is_watched(session, ctx));
    if let Some(exchange) = &ctx.exchange {
        exchange.watch_server(peer.options.read_timeout.filter(|_| watched));
    }
    if watched {
        // With a body there are moments when the client's side is not read: this is then the last resort.
        let idle = ctx.snapshot.limits.stream_idle;
        peer.options.read_timeout =
            peer.options.read_timeout.filter(|_| !bodiless).map(|read| read.max(idle));
        if bodiless && is_head_all(ctx) {
            peer.options.write_timeout = None;
        }
    }
    if let Some(call) = ctx.call.as_mut() {
        // To a server of HTTP/2 what has no body is sent whole with its head, and no hook says so.
        call.body_sent = bodiless;
    }
    Ok(peer)
}

/// Whether the client's side keeps watch over the server: it is read all the while, be it for the body or to notice that
/// the client is gone. That spares Pingora's time-out and its timer, and unlike that one the watch can be told later,
/// when the answer's head says so, that silence is normal ([`respond`](super::respond)).
///
/// Not with a body that a server may leave lying, as Pingora stops reading from the client when it cannot be sent on; and
/// not over a server of HTTP/2, unless a stream of events is asked for: a time-out of Pingora's has the connection not
/// used again that many requests share.
fn is_watched(session: &mut Session, ctx: &Context) -> bool {
    let small = || ctx.head.content_length.is_some_and(|length| length <= WATCHED_BODY_BYTES_MAX);
    ctx.exchange.is_some()
        && !ctx.is_silence_normal()
        && (ctx.head.wants_events || session.is_body_empty() || small())
        && ctx.call.as_ref().is_some_and(|call| !call.upstream.http2() || ctx.head.wants_events)
}

/// Longest body that the buffers of sockets take at once in practice.
const WATCHED_BODY_BYTES_MAX: u64 = 64 * 1024;

/// Whether all that is written to the server is a head (there is no body) that fits the kernel's buffer: then no write
/// waits, and none needs a timer.
fn is_head_all(ctx: &Context) -> bool {
    let exchange = ctx.exchange.as_ref().filter(|_| ctx.head.version < Version::HTTP_2);
    let introduced: usize = ctx.introduced.iter().flatten().map(|value| value.len()).sum();
    exchange.is_some_and(|exchange| exchange.head_bytes + introduced as u64 <= UNBOUNDED_HEAD_BYTES_MAX)
        && ctx.route.request.is_none()
        && ctx.route.rewrite.is_none()
        && ctx.call.as_ref().is_some_and(|call| !call.upstream.http2())
}

/// Longest head that is written without a time-out: the smallest buffer that a socket has, less what is added.
const UNBOUNDED_HEAD_BYTES_MAX: u64 = 3 * 1024;

/// What a server that expects a PROXY header is told of the client.
pub(super) fn introduction(ctx: &Context) -> Introduction {
    let Some(connection) = ctx.exchange.as_ref().map(|exchange| &exchange.connection) else {
        return Introduction::Unknown;
    };
    let address = ctx.client.address;
    let is_peer = address == connection.peer.ip();
    if is_peer && (connection.is_peer_unnamed || connection.peer.socket().is_none()) {
        // The address stands for somebody else's: the proxy's, or that of a unix socket.
        return Introduction::Unknown;
    }
    // The port of one that a proxy named in a header is not known.
    let source = SocketAddr::new(address, if is_peer { connection.peer.port() } else { 0 });
    let destination = connection.proxy_header.map(|header| header.destination).or(connection.local);
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    Introduction::Client { source, destination: destination.unwrap_or(nowhere) }
}

pub(in crate::proxy) fn connected(ctx: &mut Context, reused: bool) {
    if let Some(exchange) = &ctx.exchange {
        // The time to connect has a bound of its own.
        exchange.server_spoke();
    }
    if let Some(attempt) = ctx.call.as_mut().and_then(|call| call.attempt.as_mut()) {
        // One from before was there at once.
        let now = if reused { attempt.record().started } else { clock::now() };
        attempt.connected(reused, now);
    }
}

/// No connection: nothing of the request was sent, so any method may be tried again.
pub(in crate::proxy) fn failed(progress: Progress, ctx: &mut Context, mut error: Box<Error>) -> Box<Error> {
    let outcome = match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Outcome::ConnectTimeout,
        ErrorType::TLSHandshakeFailure
        | ErrorType::TLSWantX509Lookup
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError => Outcome::Tls,
        _ if lacks_descriptor(&error) => Outcome::NoDescriptor,
        _ => Outcome::ConnectFailed,
    };
    ctx.detail = Some(error.to_string().trim().to_owned());
    let retry = next(progress, ctx, outcome);
    error.set_retry(retry);
    error
}

/// Ends the current attempt with the failure `outcome` and decides what follows; true = another one is picked, and
/// Pingora shall ask for its peer.
pub(in crate::proxy) fn next(progress: Progress, ctx: &mut Context, outcome: Outcome) -> bool {
    let now = clock::now();
    ctx.end_attempt(Some(outcome), now);
    let reason = if ctx.is_late() { Some(Reason::DeadlineExceeded) } else { outcome.reason() };
    ctx.failure = reason;
    let (Some(failure), Some(call)) = (outcome.failure(), ctx.call.as_mut()) else { return false };
    let situation = situation(progress, &ctx.head.method, call, ctx.deadlines.first_byte, now);
    if let Decision::Retry(pause) = call.upstream.retry(failure, &situation, now) {
        call.backoff = Some(pause);
        if pick(ctx).is_ok() {
            return true;
        }
        ctx.failure = reason;
    }
    fall_back(progress, ctx, failure)
}

/// The server answered with a status that another may do better than. True: the attempt is ended as failed and the
/// next is picked. False: this answer goes to the client as it came.
pub(in crate::proxy) fn again_after_status(progress: Progress, ctx: &mut Context, status: u16) -> bool {
    let now = clock::now();
    let Some(call) = ctx.call.as_mut() else { return false };
    let situation = situation(progress, &ctx.head.method, call, ctx.deadlines.first_byte, now);
    let Decision::Retry(pause) = call.upstream.retry(Failure::Status(status), &situation, now) else {
        return false;
    };
    // The next one is picked before this one is let go: without a next one, this answer is the best there is.
    let Some(current) = call.attempt.take() else { return false };
    let picked = pick(ctx).is_ok();
    let Some(call) = ctx.call.as_mut() else { return false };
    let next = call.attempt.replace(current);
    if picked {
        call.backoff = Some(pause);
        ctx.end_attempt(None, now);
        if let Some(call) = ctx.call.as_mut() {
            call.attempt = next;
        }
    }
    picked
}

fn situation<'s>(
    progress: Progress,
    method: &'s Method,
    call: &Call,
    deadline: Option<Instant>,
    now: Instant,
) -> Situation<'s> {
    Situation {
        method,
        replayable: progress.replayable,
        answer_started: progress.answer_started,
        attempts: call.tried.attempts(),
        time_left: deadline.map(|at| at.saturating_duration_since(now)),
    }
}

/// Turns to the fallback upstream, if there is one and the request may be sent again.
fn fall_back(progress: Progress, ctx: &mut Context, failure: Failure) -> bool {
    let sendable = failure == Failure::Connect || is_idempotent(&ctx.head.method) && progress.replayable;
    if progress.answer_started || !sendable {
        return false;
    }
    let Some(other) = fallback_upstream(ctx) else { return false };
    let (hash_key, reason) = (ctx.call.as_ref().map_or(0, |call| call.hash_key), ctx.failure);
    if begin(ctx, other, hash_key, true).is_ok() {
        return true;
    }
    ctx.failure = reason;
    false
}

/// The upstream that stands in for the one that could not be reached; a stand-in has none of its own.
fn fallback_upstream(ctx: &Context) -> Option<Arc<Upstream>> {
    let call = ctx.call.as_ref().filter(|call| !call.is_fallback)?;
    match call.upstream.fallback()? {
        Fallback::Upstream(link) if ctx.failure.is_some_and(fallback::applies) => link.upstream().cloned(),
        _ => None,
    }
}

/// The fixed answer that stands in for an upstream that could not be reached.
pub(in crate::proxy) fn fallback_answer(ctx: &Context) -> Option<Arc<http::Response<Bytes>>> {
    match ctx.call.as_ref()?.upstream.fallback()? {
        Fallback::Answer(answer) if ctx.failure.is_some_and(fallback::applies) => Some(answer.clone()),
        _ => None,
    }
}
