//! Messages: a route's request as one, with the answer of a queue or the broker's word as the client's answer; and legs
//! that ask a queue.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, Response, header};
use pingora::http::RequestHeader;
use pingora::{Error, Result};
use pingora_proxy::Session;

use super::dispatch::Answer;
use super::route::View;
use super::{aggregate, forward, respond};
use crate::base::clock;
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::broker::{self, Broker, Headers, Message, Name, Place};
use crate::config::snapshot::{Amqp, Destination, RoutingKey};
use crate::proxy::downstream::Downstream;
use crate::proxy::received::Received;
use crate::proxy::{Asked, Context};
use crate::subrequest::input::parameters;
use crate::subrequest::json::{self, DEPTH_MAX};
use crate::subrequest::{Answer as LegAnswer, Failure, LegCall};
use crate::telemetry::trace::{SpanId, TraceContext};

/// Largest message of a client: what RabbitMQ takes by default. A larger one would end the channel that all share.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Sends the request as a message, and answers with what comes of it. Ends early when the client goes away.
///
/// Boxed like [`aggregate::answer`].
pub(in crate::proxy) fn answer<'s>(
    session: &'s mut Session,
    ctx: &'s mut Context,
    target: Arc<Amqp>,
) -> BoxFuture<'s, Result<()>> {
    async move { answer_by(session, ctx, &target).await }.boxed()
}

async fn answer_by(session: &mut Session, ctx: &mut Context, target: &Amqp) -> Result<()> {
    let body = match client_body(session, ctx).await? {
        Ok(body) => body,
        Err(problem) => return respond::problem(session, ctx, &problem).await,
    };
    let head = session.req_header().clone();
    let (place, message) = match letter(ctx, target, &head, body) {
        Ok(letter) => letter,
        Err(problem) => return respond::problem(session, ctx, &problem).await,
    };
    let deadline = message.deadline;
    let asked = {
        let work = Box::pin(send(target, &place, message));
        // With a body that nobody reads there is no way to see the client go.
        if session.as_downstream_mut().is_body_done() {
            tokio::select! {
                biased;
                done = work => done,
                error = session.gone() => return Err(error),
            }
        } else {
            work.await
        }
    };
    let reply = match asked.and_then(|reply| checked(target, reply)) {
        Ok(reply) => reply,
        Err(mut refused) => {
            let routes = ctx.deadlines.first_byte;
            if refused.reason == Reason::BrokerTimeout && routes.is_some() && routes == deadline {
                refused.reason = Reason::DeadlineExceeded;
            }
            ctx.detail = Some(format!("broker {}: {}", target.broker.name(), refused.detail));
            return respond::problem(session, ctx, &Problem::new(refused.reason)).await;
        }
    };
    let response = match reply {
        Some(reply) => Response::builder().status(200).body(reply),
        None => {
            let taken = serde_json::json!({ "status": "accepted", "request_id": ctx.request_id.as_str() });
            Response::builder().status(202).body(Bytes::from(taken.to_string()))
        }
    };
    let mut response = response.map_err(|error| {
        Error::because(pingora::ErrorType::InternalError, "while making the answer's head", error)
    })?;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    ctx.answer_began();
    respond::local(session, ctx, Answer::Fixed(Arc::new(response))).await
}

/// Why there is no answer: for the client, and for the log.
struct Refused {
    reason: Reason,
    detail: String,
}

impl From<broker::Failure> for Refused {
    fn from(failure: broker::Failure) -> Self {
        Self { reason: failure.reason(), detail: failure.to_string() }
    }
}

async fn send(target: &Amqp, place: &Place, message: Message) -> std::result::Result<Option<Bytes>, Refused> {
    Ok(match &target.destination {
        Destination::Ask(queue) => Some(target.broker.ask(queue, message).await?.body),
        Destination::Leave(_) | Destination::Publish { .. } => {
            target.broker.publish(place, message).await?;
            None
        }
    })
}

/// The reply, if it can be the answer.
fn checked(target: &Amqp, reply: Option<Bytes>) -> std::result::Result<Option<Bytes>, Refused> {
    let Some(body) = reply else { return Ok(None) };
    if body.len() > target.reply_bytes {
        let detail = format!("the answer has {} bytes", body.len());
        return Err(Refused { reason: Reason::ReplyTooLarge, detail });
    }
    match json::parse(&body, DEPTH_MAX) {
        Ok(_) => Ok(Some(body)),
        Err(fault) => Err(Refused { reason: Reason::BadReply, detail: format!("the answer {fault}") }),
    }
}

/// The client's body, which has to be JSON; empty if there is none.
async fn client_body(
    session: &mut Session,
    ctx: &mut Context,
) -> Result<std::result::Result<Bytes, Problem>> {
    if session.as_downstream_mut().is_body_done() {
        return Ok(Ok(Bytes::new()));
    }
    let body = aggregate::json_bytes(session, ctx, MESSAGE_BYTES_MAX).await?;
    let Ok(bytes) = &body else { return Ok(body) };
    if bytes.is_empty() {
        return Ok(body);
    }
    match json::parse(bytes, DEPTH_MAX) {
        Ok(_) => Ok(body),
        Err(fault) => {
            ctx.detail = Some(format!("the body {fault}"));
            Ok(Err(Problem::new(Reason::BodyNotJson)))
        }
    }
}

/// The message that a request is, and where it goes.
fn letter(
    ctx: &Context,
    target: &Amqp,
    head: &RequestHeader,
    body: Bytes,
) -> std::result::Result<(Place, Message), Problem> {
    let received = Received::read(&head.headers);
    let view = View::read(Asked::of(head), &received, ctx.listener)?;
    let request = view.request();
    let values = view.values(ctx, &request);
    let unusable = || Problem::new(Reason::InputMissing);
    let body = if body.is_empty() {
        parameters(&values, &target.captures, forward::hidden_parameter(ctx)).ok_or_else(unusable)?.into()
    } else {
        body
    };
    let place = match &target.destination {
        Destination::Ask(queue) | Destination::Leave(queue) => {
            Place { exchange: None, routing_key: queue.clone() }
        }
        Destination::Publish { exchange, key } => {
            let routing_key = match key {
                RoutingKey::Fixed(key) => key.clone(),
                RoutingKey::Made(template) => {
                    template.expand_words(&values).and_then(Name::new).ok_or_else(unusable)?
                }
            };
            Place { exchange: Some(exchange.clone()), routing_key }
        }
    };
    let mut headers = Headers::default();
    let mut told = || {
        carry(&mut headers, &aggregate::carried(ctx, &head.headers), ctx.trace.as_ref())?;
        headers.set("request.method", head.method.as_str().as_bytes())?;
        let bare = forward::without_key(&view, ctx);
        let query = bare.as_deref().or(view.query).filter(|query| !query.is_empty());
        let uri = query.map(|query| format!("{}?{query}", view.path));
        headers.set("request.uri", uri.as_deref().unwrap_or(&view.path).as_bytes())?;
        for (index, name) in target.captures.iter().enumerate() {
            if let Some(value) = ctx.captures.get(&view.path, index) {
                let value = crate::routing::escape::decode_segment(value);
                headers.set(&format!("path.{name}"), &value)?;
            }
        }
        Ok(())
    };
    told().map_err(|failure: broker::Failure| Problem::new(failure.reason()))?;
    let own = clock::now().checked_add(target.timeout);
    let deadline = match (own, ctx.deadlines.first_byte) {
        (Some(own), Some(routes)) => Some(own.min(routes)),
        (own, routes) => own.or(routes),
    };
    Ok((place, Message { headers, deadline, ..Message::json(body) }))
}

/// Tells a service over a broker what one over HTTP is told in the head.
fn carry(
    headers: &mut Headers,
    carried: &HeaderMap,
    trace: Option<&TraceContext>,
) -> std::result::Result<(), broker::Failure> {
    // They say how HTTP is spoken.
    const OF_HTTP: [HeaderName; 4] =
        [header::ACCEPT, header::ACCEPT_ENCODING, header::VIA, header::CONTENT_TYPE];
    for name in carried.keys().filter(|name| !OF_HTTP.contains(name)) {
        let values: Vec<&[u8]> = carried.get_all(name).iter().map(|value| value.as_bytes()).collect();
        headers.set(name.as_str(), &values.join(&b", "[..]))?;
    }
    if let Some(trace) = trace {
        headers.set("traceparent", &trace.traceparent(SpanId::random()))?;
    }
    Ok(())
}

/// Asks the queue of a leg.
pub(super) async fn call(
    (broker, queue): (&Broker, &Name),
    call: &LegCall<'_>,
    told: &HeaderMap,
    trace: Option<&TraceContext>,
) -> std::result::Result<LegAnswer, Failure> {
    let mut headers = Headers::default();
    carry(&mut headers, told, trace).map_err(|_| Failure::RequestTooLarge)?;
    let body = call.made.body.clone().unwrap_or_default();
    call.attempts.fetch_add(1, Relaxed);
    let message = Message { headers, deadline: call.deadline, ..Message::json(body) };
    let reply = broker.ask(queue, message).await.map_err(|failure| match failure {
        broker::Failure::TimedOut => Failure::Timeout,
        broker::Failure::TooLarge => Failure::RequestTooLarge,
        other => Failure::Upstream { reason: other.reason(), retry_after: None },
    })?;
    let bytes = reply.body.len();
    if bytes > call.bytes_max || !call.room.take(bytes) {
        return Err(Failure::TooLarge);
    }
    Ok(LegAnswer { status: 200, body: reply.body })
}
