//! Requests over HTTP/1.1 and HTTP/2 without Pingora: read, decided, forwarded and answered in one task, which for HTTP/2 is
//! that of the connection.
//!
//! Pingora gives each side of an exchange a task of its own, with a channel between them, and each idle connection to a
//! server another one. For a plain request to a server in cleartext HTTP/1 that is most of what it costs. Here such a
//! request is served by itself:
//!
//! ```text
//! head ─► Request, Side ───► decide ─┬─► Relay: one attempt, both directions ─► fail, retried or answered
//!                (super::phases)     ├─► local answer: respond
//!                                    ├─► several services' answers: aggregate
//!                                    └─► not its kind (logins; TLS, HTTP/2 or PROXY headers to servers): Pingora's, decided already
//! ```
//! What is decided, edited, counted and logged, and what a failure means, is the same code for both. What the client speaks
//! is its [`Side`]'s business alone; there is one of these functions for each, made by the compiler.

mod client;
mod http1;
mod http2;
#[cfg(any(test, feature = "fuzzing"))]
mod judged;
mod relay;
mod request;
mod room;
mod side;
mod wire;

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::StatusCode;
use pingora::{Error, ErrorType, Result};

use super::context::{Context, Decided};
use super::dispatch::{Answer as LocalAnswer, Next};
use super::received::Received;
use super::{Gateway, aggregate, connect, decide_in_time, edit, envelope, fail, finish, respond};
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::ingress::connection::Exchange;
use crate::ingress::head::{Framing as RequestFraming, Head};
use crate::ingress::{Direct, EdgeStream, Http2Side, Served};
use crate::upstream::LastAnswer;
use crate::upstream::answer::{Answer, Framing};
use crate::upstream::retry::is_idempotent;
use client::Client;
use http1::Http1;
use http2::Http2;
#[cfg(any(test, feature = "fuzzing"))]
pub use judged::{as_forwarded, as_forwarded_by_pingora, as_passed_on, stream_as_forwarded};
use relay::{Relay, from_client};
use request::Request;
use side::Side;

impl Direct for Gateway {
    fn serve<'a>(
        &'a self,
        stream: &'a mut EdgeStream,
        exchange: &'a Arc<Exchange>,
        head: &'a Head,
    ) -> Pin<Box<dyn Future<Output = Served> + Send + 'a>> {
        // Boxed, so that an idle connection does not hold room for it.
        Box::pin(serve_message(self, stream, exchange, head))
    }

    fn serve_stream<'a>(
        &'a self,
        stream: Http2Side,
        exchange: &'a Arc<Exchange>,
    ) -> Pin<Box<dyn Future<Output = Option<Http2Side>> + Send + 'a>> {
        Box::pin(serve_stream(self, stream, exchange))
    }
}

async fn serve_message(
    gateway: &Gateway,
    stream: &mut EdgeStream,
    exchange: &Arc<Exchange>,
    head: &Head,
) -> Served {
    let bytes = stream.take_head(head.len);
    // An upgrade that is none is to be ignored, and Pingora's path knows how.
    let read = Request::read(&bytes, head).filter(|request| !http1::asks_for_upgrade(request.headers()));
    let Some(request) = read else {
        stream.put_head_back(&bytes);
        return Served::No;
    };
    drop(bytes);
    let side = Http1::new(stream, request.body);
    match serve(gateway, side, request, exchange).await {
        Ok(true) => Served::Kept,
        Ok(false) => Served::Closed,
        Err(NotOurs { side, request }) => {
            side.into_stream().put_head_back(&request.into_head());
            Served::No
        }
    }
}

async fn serve_stream(
    gateway: &Gateway,
    mut stream: Http2Side,
    exchange: &Arc<Exchange>,
) -> Option<Http2Side> {
    let ends = stream.is_message_done();
    let request = Request::take(stream.head_mut(), ends);
    let side = Http2::new(stream, request.body);
    match serve(gateway, side, request, exchange).await {
        Ok(_) => None,
        Err(NotOurs { side, request }) => {
            let mut stream = side.into_stream();
            request.put_back(stream.head_mut());
            Some(stream)
        }
    }
}

/// What of a request is given back: it is Pingora's, decided already.
struct NotOurs<S> {
    side: S,
    request: Request,
}

/// Serves a request. Whether its connection may carry another one.
async fn serve<S: Side>(
    gateway: &Gateway,
    side: S,
    request: Request,
    exchange: &Arc<Exchange>,
) -> std::result::Result<bool, NotOurs<S>> {
    let context = Context::new(Some(exchange.clone()), gateway.current.load(), gateway.metrics.clone());
    let mut ctx = Box::new(context);
    let step = decide_in_time(request.asked(), &Received::read(request.headers()), &mut ctx).await;
    let mut client = Client::new(side, request, ctx.snapshot.limits.body_timeout);
    client.closing = exchange.last || gateway.is_ending(&ctx);
    // Dropped before the client is, should this panic: it leaves word of what that is to be told.
    let mut ctx = ctx;
    let gone = given_up(&mut client).await;
    let ended = match (step, gone) {
        (Ok(Next::Forward | Next::Aggregate(_) | Next::Login(..) | Next::Amqp(_)), Some(error)) => {
            let error = fail::while_proxying(client.progress(), &mut ctx, error, false);
            answer_for(gateway, error, &mut client, &mut ctx).await
        }
        (Ok(Next::Forward), _) if is_plain(&ctx) => forward(gateway, &mut client, &mut ctx).await,
        (Ok(Next::Aggregate(plan)), _) => {
            match aggregate::answer(&mut client, &mut ctx, plan).await {
                // The client's side ended it, unless that was while it was answered.
                Err(error) if !client.answer_started => {
                    answer_for(gateway, error, &mut client, &mut ctx).await
                }
                ended => ended,
            }
        }
        (Ok(step @ (Next::Forward | Next::Login(..) | Next::Amqp(_))), _) => {
            ctx.decided = Some(match step {
                Next::Login(target, request) => Decided::Login(target, request),
                Next::Amqp(amqp) => Decided::Amqp(amqp),
                _ => Decided::Forward,
            });
            exchange.prepare(ctx);
            let Client { side, request, .. } = client;
            return Err(NotOurs { side, request });
        }
        (Ok(Next::Answer(answer)), _) => respond::local(&mut client, &mut ctx, answer).await,
        // Not reachable: each is waited for once.
        (Ok(Next::Wait(_)), _) => {
            respond::problem(&mut client, &mut ctx, &Problem::new(Reason::KeysUnavailable)).await
        }
        (Ok(Next::Ask | Next::Later(_)), _) => {
            Err(Error::explain(ErrorType::InternalError, "asked to wait twice"))
        }
        (Err(problem), _) => respond::problem(&mut client, &mut ctx, &problem).await,
    };
    // Nobody waits for a server any more.
    exchange.watch_server(None);
    if ended.is_err() {
        client.closing = true;
    }
    finish::record(&mut ctx, ended.as_ref().err().map(|error| &**error));
    // What it has taken of limits is not held while the client is waited for.
    drop(ctx);
    // A broken answer must not end as if it were whole.
    Ok(ended.is_ok() && client.finish().await)
}

/// Whether the picked server is one of those that this file can talk to.
fn is_plain(ctx: &Context) -> bool {
    ctx.call.as_ref().is_some_and(|call| call.upstream.is_plain())
}

/// Forwards the request, as often as may be, and answers it. An error says that the answer is not whole.
async fn forward<S: Side>(gateway: &Gateway, client: &mut Client<S>, ctx: &mut Context) -> Result<()> {
    if ctx.is_silence_normal() {
        client.body_timeout = ctx.snapshot.limits.stream_idle;
        ctx.lift_pace();
    } else {
        ctx.hold_pace();
    }
    client.request.settle(ctx);
    loop {
        let error = match attempt(gateway, client, ctx).await {
            Ok(()) => return Ok(()),
            Err(Failed::Connecting(error)) => connect::failed(client.progress(), ctx, error),
            Err(Failed::Talking { error, reused }) => {
                fail::while_proxying(client.progress(), ctx, error, reused)
            }
        };
        if !error.retry() {
            return answer_for(gateway, error, client, ctx).await;
        }
    }
}

/// Answers for a request that no server answered; or gives `error` back if it is too late for that.
async fn answer_for<S: Side>(
    gateway: &Gateway,
    error: Box<Error>,
    client: &mut Client<S>,
    ctx: &mut Context,
) -> Result<()> {
    let Some(reason) = fail::settle(client.progress(), ctx, &error) else { return Err(error) };
    // Unless the whole request was read, where the client's message stopped is not known.
    client.closing |= !client.side.is_message_done() || gateway.is_ending(ctx);
    let sent = match connect::fallback_answer(ctx) {
        Some(fallback) => respond::local(client, ctx, LocalAnswer::Fixed(fallback)).await,
        None => respond::problem(client, ctx, &Problem::new(reason)).await,
    };
    // A stream is reset for what is malformed: nobody reads the answer, and that is not the client's leaving.
    if sent.is_err() && !ctx.exchange.as_ref().is_some_and(|exchange| exchange.is_body_malformed()) {
        ctx.failure = Some(Reason::ClientClosed);
    }
    sent
}

/// What is known of the client's having left. Streams that are opened and reset at once must not become as many connections to
/// servers (CVE-2023-44487).
async fn given_up<S: Side>(client: &mut Client<S>) -> Option<Box<Error>> {
    std::future::poll_fn(|cx| Poll::Ready(client.side.given_up(cx))).await.map(from_client)
}

/// Why an attempt failed.
enum Failed {
    /// There is no connection.
    Connecting(Box<Error>),
    /// Something went wrong on it.
    Talking { error: Box<Error>, reused: bool },
}

/// Sends the request to the picked server and passes its answer on.
async fn attempt<S: Side>(
    gateway: &Gateway,
    client: &mut Client<S>,
    ctx: &mut Context,
) -> std::result::Result<(), Failed> {
    if let Some(pause) = ctx.call.as_mut().and_then(|call| call.backoff.take()) {
        tokio::time::sleep(pause).await;
    }
    // What was read of the body is sent again.
    ctx.request_body_bytes = client.upload.taken;
    let is_stream = ctx.is_silence_normal();
    let stream_idle = ctx.snapshot.limits.stream_idle;
    let certainly = !is_idempotent(&ctx.head.method) || !client.is_surely_replayable();
    let is_whole = client.side.is_message_done();
    let Some(call) = ctx.call.as_mut() else { return Err(nothing_picked()) };
    call.body_sent = is_whole;
    let Some(attempt) = call.attempt.as_ref() else { return Err(nothing_picked()) };
    let timeouts = attempt.timeouts();
    let (read, write) = match is_stream {
        true => (stream_idle, attempt.write_timeout()),
        false => (timeouts.read, timeouts.write),
    };
    // A request whose head is all of it may have more behind it, which makes it none (RFC 9113 section 8.1.1).
    if client.request.body == RequestFraming::Length(0) && !client.side.is_message_done() {
        let end = std::future::poll_fn(|cx| client.side.poll_data(cx));
        let end = tokio::time::timeout(client.body_timeout, end).await;
        let end = end.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        end.map_err(|error| Failed::Talking { error: from_client(error), reused: false })?;
    }
    if let Some(error) = given_up(client).await {
        return Err(Failed::Talking { error, reused: false });
    }
    // Where one was closed meanwhile, others may be.
    let kept = if call.stale_replaced { None } else { attempt.kept_link(certainly) };
    let reused = kept.is_some();
    let link = match kept {
        Some(link) => link,
        None => attempt.new_link().await.map_err(Failed::Connecting)?,
    };
    if let Some(exchange) = &ctx.exchange {
        exchange.watch_server(Some(read));
    }
    connect::connected(ctx, reused);
    let talked = async {
        let head = client.request.write(ctx)?;
        let mut relay = Relay::new(client, ctx, link, head, write);
        talk(gateway, &mut relay).await.map(|keep| relay.into_idle_link().zip(keep))
    };
    match talked.await {
        Ok(link) => {
            let most = ctx.snapshot.limits.upstream_idle;
            let attempt = ctx.call.as_ref().and_then(|call| call.attempt.as_ref());
            if let Some(((link, last), attempt)) = link.zip(attempt) {
                attempt.keep_link(link, last, most);
            }
            client.flush().await.map_err(|error| Failed::Talking { error, reused })
        }
        Err(error) => Err(Failed::Talking { error, reused }),
    }
}

/// Not reachable: an attempt is picked before, and for every retry.
fn nothing_picked() -> Failed {
    Failed::Connecting(Error::explain(ErrorType::InternalError, "no attempt was picked"))
}

/// The whole body of an answer in its envelope, where the route wants that.
async fn wrapped<S: Side>(relay: &mut Relay<'_, S>, answer: &mut Answer) -> Result<Option<Bytes>> {
    let Some(wrapping) = envelope::begin(&mut answer.head, relay.ctx())? else { return Ok(None) };
    let Some(body) = relay.collect(answer.body, wrapping.bytes_max).await? else {
        return Err(envelope::too_large(relay.ctx()));
    };
    let (client, ctx) = relay.sides();
    envelope::seal(&wrapping, &body, client.request.asked(), ctx).map(Some)
}

/// One exchange. If the connection may be used again, what its last answer was.
async fn talk<S: Side>(gateway: &Gateway, relay: &mut Relay<'_, S>) -> Result<Option<LastAnswer>> {
    let method = relay.ctx().head.method.clone();
    // The server waits for no word of its own, or has given it.
    let mut asked_for_body = !relay.ctx().head.marks.expect || relay.is_request_empty();
    let mut answer = loop {
        let mut answer = relay.head(&method).await?;
        let (client, ctx) = relay.sides();
        respond::upstream_answered(client.progress(), answer.head.status, ctx)?;
        if !answer.head.status.is_informational() {
            break answer;
        }
        asked_for_body |= answer.head.status == StatusCode::CONTINUE;
        edit::interim(&mut answer.head);
        // No body follows, whatever it says (RFC 9110 section 15.2).
        edit::frame(&mut answer.head, edit::AnswerFraming::NoContent)?;
        ctx.resume_pace();
        client.side.write_interim(answer.head).await?;
    };
    // A server that answers before it has all of a request may take what follows for another one, whose answer would
    // go to whoever comes next; and so may one that never asked for the body that it was to be asked about.
    let keep = answer.keep_alive && asked_for_body && relay.is_request_sent();
    if !asked_for_body {
        relay.withhold();
    }
    let wrapped = wrapped(relay, &mut answer).await?;
    let (client, ctx) = relay.sides();
    let mut head = answer.head;
    if respond::begins(&head, ctx) {
        client.body_timeout = ctx.snapshot.limits.stream_idle;
    }
    if let Some(wrapped) = &wrapped {
        edit::frame(&mut head, edit::AnswerFraming::Length(wrapped.len()))?;
    } else if answer.body == Framing::UntilClose && S::CHUNKS {
        edit::frame(&mut head, edit::AnswerFraming::Chunks)?;
    } else if head.status == StatusCode::NO_CONTENT {
        edit::frame(&mut head, edit::AnswerFraming::NoContent)?;
    }
    respond::head(client.request.asked(), &mut head, ctx)?;
    client.closing |= gateway.is_ending(ctx);
    let is_bodiless = matches!(answer.body, Framing::None | Framing::Length(0));
    client.write_head(head, is_bodiless && wrapped.is_none()).await?;
    match wrapped {
        Some(wrapped) => {
            let count = wrapped.len();
            client.side.write_body(wrapped, true).await?;
            respond::piece(count, ctx);
        }
        None => relay.body(answer.body).await?,
    }
    let is_whole = relay.is_request_whole();
    respond::answer_ended(is_whole, relay.ctx());
    if asked_for_body {
        relay.rest().await?;
    }
    let last = match answer.body {
        Framing::None => LastAnswer::Bodiless,
        _ => LastAnswer::WithBody,
    };
    Ok(keep.then_some(last))
}
