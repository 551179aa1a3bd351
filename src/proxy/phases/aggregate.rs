//! One request, many services: asks the legs of the route's plan, and answers with one document.

use std::borrow::Cow;
use std::iter;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use pingora::{Error, ErrorType, Result};

use super::dispatch::Answer;
use super::route::View;
use super::{amqp, connect, forward, respond};
use crate::base::clock;
use crate::base::problem::{Parts, Problem};
use crate::base::reason::Reason;
use crate::policy::body_limit::BodyLimit;
use crate::policy::envelope::is_json;
use crate::proxy::asked::Kept;
use crate::proxy::downstream::Downstream;
use crate::proxy::names::{TRACESTATE, X_REQUEST_ID, is_alike, is_forwarding, is_identity};
use crate::proxy::received::Received;
use crate::proxy::{Asked, Context, edit};
use crate::subrequest::config::Report;
use crate::subrequest::json::{self, Json};
use crate::subrequest::run::Run;
use crate::subrequest::{
    self, Answer as LegAnswer, Caller, ClientBody, Failure, Inputs, LegCall, Plan, Service, merge, report,
};
use crate::telemetry::trace::TraceContext;
use crate::upstream::client::{Ask, Fields, Missed, Notes};
use crate::upstream::{Failure as AttemptFailure, Introduction, Outcome, Upstream};

/// Asks the legs and answers, with what came of them or with a problem. Ends early, and all calls with it, when the
/// client goes away.
///
/// Boxed, as a future of unknown type: it ends in another local answer, and the compiler need not look through it.
pub(in crate::proxy) fn answer<'s>(
    client: &'s mut impl Downstream,
    ctx: &'s mut Context,
    plan: Arc<Plan>,
) -> BoxFuture<'s, Result<()>> {
    async move { answer_by(client, ctx, &plan).await }.boxed()
}

async fn answer_by(client: &mut impl Downstream, ctx: &mut Context, plan: &Plan) -> Result<()> {
    let body = match client_body(client, ctx, plan).await? {
        Ok(body) => body,
        Err(problem) => return respond::problem(client, ctx, &problem).await,
    };
    if !client.is_request_whole() {
        // A body that is not asked for may be held back.
        ctx.hold_pace();
    }
    let notes = Notes::default();
    let head = Kept::of(client.asked());
    let limit = ctx.route.guard.body;
    let asked = {
        let work = ask(ctx, plan, head.asked(), body.as_ref(), &notes);
        tokio::select! {
            biased;
            run = work => Ok(run),
            left = left(client, limit) => Err(left),
        }
    };
    note(ctx, notes);
    ctx.resume_pace();
    match asked {
        Err(Left::Gone(error)) => Err(error),
        Err(Left::TooMuch) => respond::problem(client, ctx, &Problem::new(Reason::BodyTooLarge)).await,
        Ok(Err(problem)) => respond::problem(client, ctx, &problem).await,
        Ok(Ok(run)) => conclude(client, ctx, plan, run).await,
    }
}

/// Why nobody waits for the legs any more.
enum Left {
    /// The client has gone away, or its body cannot be read.
    Gone(Box<Error>),
    /// It sends more than the route takes.
    TooMuch,
}

/// Resolves when the client has left. A body that no leg wants stands before that, and is read for nothing.
async fn left(client: &mut impl Downstream, limit: Option<BodyLimit>) -> Left {
    let mut bytes = 0;
    while !client.is_request_whole() {
        match client.read_body().await {
            Ok(Some(piece)) => bytes += piece.len() as u64,
            Ok(None) => break,
            // It pauses, and is not waited for.
            Err(error) if *error.etype() == ErrorType::ReadTimedout => std::future::pending().await,
            Err(error) => return Left::Gone(error),
        }
        if limit.is_some_and(|limit| !limit.allows(bytes)) {
            return Left::TooMuch;
        }
    }
    Left::Gone(client.gone().await)
}

/// The client's body, where the plan needs it: JSON within its bounds, or why not. Nothing has been asked by then.
async fn client_body(
    client: &mut impl Downstream,
    ctx: &mut Context,
    plan: &Plan,
) -> Result<Result<Option<ClientBody>, Problem>> {
    if !plan.wants_body {
        return Ok(Ok(None));
    }
    let body = match json_bytes(client, ctx, plan.bounds.total_bytes).await? {
        Ok(body) => body,
        Err(problem) => return Ok(Err(problem)),
    };
    match json::parse(&body, plan.bounds.depth) {
        Ok(json) => Ok(Ok(Some(ClientBody { bytes: body, json }))),
        Err(fault) => {
            ctx.detail = Some(format!("the body {fault}"));
            Ok(Err(Problem::new(Reason::BodyNotJson)))
        }
    }
}

/// The client's body of at most `most` bytes, which says that it is JSON or nothing of what it is; or why not.
pub(super) async fn json_bytes(
    client: &mut impl Downstream,
    ctx: &mut Context,
    most: usize,
) -> Result<Result<Bytes, Problem>> {
    let refuse = |reason| Ok(Err(Problem::new(reason)));
    if client.asked().headers.get(header::CONTENT_TYPE).is_some_and(|value| !is_json(value.as_bytes())) {
        return refuse(Reason::MediaType);
    }
    let limit = ctx.route.guard.body;
    let fits = |bytes: u64| bytes <= most as u64 && limit.is_none_or(|limit| limit.allows(bytes));
    if ctx.head.content_length.is_some_and(|length| !fits(length)) {
        return refuse(Reason::BodyTooLarge);
    }
    if ctx.head.marks.expect {
        client.ask_for_body().await?;
    }
    let mut body = BytesMut::new();
    let pause = ctx.snapshot.limits.body_timeout;
    while let Some(piece) = within(pause, client.read_body()).await? {
        ctx.request_body_bytes += piece.len() as u64;
        if !fits(ctx.request_body_bytes) {
            return refuse(Reason::BodyTooLarge);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Ok(body.freeze()))
}

/// What `read` comes to, unless the client pauses for too long.
async fn within<T>(pause: Duration, read: impl Future<Output = Result<T>>) -> Result<T> {
    let late =
        || Error::explain(ErrorType::ReadTimedout, "while the client's body was waited for").into_down();
    tokio::time::timeout(pause, read).await.unwrap_or_else(|_| Err(late()))
}

async fn ask(
    ctx: &Context,
    plan: &Plan,
    head: Asked<'_>,
    body: Option<&ClientBody>,
    notes: &Notes,
) -> Result<Run, Problem> {
    let received = Received::read(head.headers);
    let view = View::read(head, &received, ctx.listener)?;
    let request = view.request();
    let values = view.values(ctx, &request);
    let host = super::route::host_of(head, &received).and_then(|host| HeaderValue::from_bytes(host).ok());
    let caller = Calls {
        carried: carried(ctx, head.headers),
        client: head.headers,
        address: ctx.client.address,
        trusted: ctx.client.peer_trusted,
        identity: forward::identity(ctx),
        hidden: forward::hidden(ctx),
        host,
        introduction: connect::introduction(ctx),
        trace: ctx.trace.as_ref(),
        notes,
    };
    let inputs = Inputs { values: &values, body, hidden_parameter: forward::hidden_parameter(ctx) };
    Ok(subrequest::run(plan, inputs, &caller, clock::now(), ctx.deadlines.first_byte).await)
}

/// What every leg's request says, whatever it asks.
pub(super) fn carried(ctx: &Context, client: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    // What is compressed could not be read.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(header::VIA, HeaderValue::from_static("1.1 edgeward"));
    if let Ok(id) = HeaderValue::from_bytes(ctx.request_id.as_bytes()) {
        headers.insert(X_REQUEST_ID, id);
    }
    if ctx.trace.as_ref().is_some_and(|trace| trace.parent.is_some()) {
        for state in client.get_all(TRACESTATE) {
            headers.append(TRACESTATE, state.clone());
        }
    }
    for (name, value) in forward::identity(ctx).told() {
        headers.insert(name, value.clone());
    }
    headers
}

/// Calls the legs' upstreams for one request.
struct Calls<'a> {
    carried: HeaderMap,
    client: &'a HeaderMap,
    address: IpAddr,
    /// Whether what the client says of where it comes from is believed.
    trusted: bool,
    /// The headers that only the gateway may send.
    identity: edit::Identity<'a>,
    /// What services do not get of what the client showed for who it is.
    hidden: edit::Credentials<'a>,
    host: Option<HeaderValue>,
    introduction: Introduction,
    trace: Option<&'a TraceContext>,
    notes: &'a Notes,
}

impl Calls<'_> {
    /// Whether a leg may send `name`: never what says who a request is from, which is the gateway's to say.
    fn may_send(&self, call: &LegCall<'_>, name: &HeaderName) -> bool {
        let alike = |own: &HeaderName| is_alike(own.as_str().as_bytes(), name.as_str().as_bytes());
        let is_own = self.identity.names.iter().flatten().any(alike);
        let is_hidden = (self.hidden.authorization && *name == header::AUTHORIZATION)
            || self.hidden.header == Some(name)
            || (self.hidden.cookie.is_some() && *name == header::COOKIE);
        let is_claim =
            is_forwarding(name.as_str()) && !self.trusted && call.leg.request.forward.contains(name);
        !is_own && !is_identity(name.as_str()) && !is_claim && !is_hidden
    }
}

impl Caller for Calls<'_> {
    async fn call(&self, call: LegCall<'_>) -> Result<LegAnswer, Failure> {
        let headers = self.headers(&call);
        match &call.leg.service {
            Service::Upstream(upstream) => self.call_upstream(upstream, &call, headers).await,
            Service::Queue { broker, queue } => {
                amqp::call((broker, queue), &call, &headers.to_map(), self.trace).await
            }
        }
    }
}

impl Calls<'_> {
    /// Everything that a leg's request says beside its body.
    fn headers<'c>(&'c self, call: &LegCall<'c>) -> Fields<'c> {
        let made = call.made;
        let is_json = made.body.is_some();
        let own = if !is_json && made.headers.iter().all(|(name, _)| self.may_send(call, name)) {
            Cow::Borrowed(&*made.headers)
        } else {
            let may = made.headers.iter().filter(|(name, _)| self.may_send(call, name));
            let json = is_json.then(|| (header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
            may.cloned().chain(json).collect()
        };
        Fields::new(&self.carried, own)
    }

    async fn call_upstream(
        &self,
        upstream: &Upstream,
        call: &LegCall<'_>,
        headers: Fields<'_>,
    ) -> Result<LegAnswer, Failure> {
        let made = call.made;
        let room = |bytes: usize| call.room.take(bytes);
        let ask = Ask {
            method: &made.method,
            target: &made.target,
            headers,
            body: made.body.clone(),
            host: self.host.as_ref(),
            hash_key: upstream.hash_key(self.address, self.client),
            introduction: self.introduction,
            deadline: call.deadline,
            trace: self.trace,
            bytes_max: call.bytes_max,
            room: &room,
            attempts: call.attempts,
            notes: self.notes,
        };
        match upstream.call(&ask).await {
            Ok(reply) => Ok(LegAnswer { status: reply.status, body: reply.body }),
            Err(Missed::Unanswered { reason: Reason::DeadlineExceeded, .. }) => Err(Failure::Timeout),
            Err(Missed::Unanswered { reason, retry_after }) => Err(Failure::Upstream { reason, retry_after }),
            Err(Missed::TooLarge) => Err(Failure::TooLarge),
            Err(Missed::Encoded) => Err(Failure::Encoded),
        }
    }
}

/// Keeps for the log, and for traces, what attempts came to.
fn note(ctx: &mut Context, notes: Notes) {
    let Some(record) = ctx.record.as_mut() else { return };
    let mut before: Option<Arc<str>> = None;
    for note in notes.take() {
        let done = &note.record;
        let line = record.begin_attempt(&done.server, note.span, note.started);
        line.span.duration = done.total;
        line.status = done.status;
        line.failure = match done.outcome {
            Outcome::ConnectTimeout => Some("connect timeout"),
            outcome => outcome.failure().map(AttemptFailure::label),
        };
        line.connect = if done.reused == Some(true) { Some(Duration::ZERO) } else { done.connect };
        line.header = done.header;
        line.bytes_sent = note.sent;
        line.response_length = note.received;
        line.bytes_received = note.received;
        line.another_upstream = before.as_ref().is_some_and(|before| *before != note.upstream);
        before = Some(note.upstream);
    }
}

async fn conclude(client: &mut impl Downstream, ctx: &mut Context, plan: &Plan, mut run: Run) -> Result<()> {
    for (leg, settled) in plan.legs.iter().zip(&run.legs) {
        match settled.failure() {
            // It was let go of, and says nothing about its service.
            Some(Failure::Cancelled) => continue,
            Some(failure) => leg.metrics.failed(failure.code()),
            None => {}
        }
        leg.metrics.took(settled.took.as_secs_f64());
    }
    ctx.detail = ctx.record.as_ref().map(|_| report::log_line(plan, &run.legs));
    let timing = (plan.report != Report::None).then(|| report::server_timing(plan, &run.legs));
    let timing = timing.and_then(|timing| HeaderValue::try_from(timing).ok());
    if let Some(refusal) = merge::refusal(plan, &run) {
        let mut problem = Problem::new(refusal.reason);
        problem.retry_after = refusal.retry_after;
        let completed = (plan.completed_header.clone(), HeaderValue::from_static("false"));
        problem.parts = Some(Box::new(Parts {
            status: refusal.status,
            leg: refusal.leg,
            headers: iter::once(completed).chain(timing.map(|timing| (SERVER_TIMING, timing))).collect(),
            ..Parts::default()
        }));
        return respond::problem(client, ctx, &problem).await;
    }
    let document = merge::compose(plan, &mut run.legs);
    let mut members = document.members;
    if plan.report == Report::Body {
        members.insert(report::MEMBER.into(), report::body(plan, &run.legs, &document.failed_shapes));
    }
    let completed = document.completed;
    let response = Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .header(&plan.completed_header, if completed { "true" } else { "false" });
    // What is not whole must not be taken for the answer by the next who asks.
    let response = if completed { response } else { response.header(header::CACHE_CONTROL, "no-store") };
    let response = match timing {
        Some(timing) => response.header(SERVER_TIMING, timing),
        None => response,
    };
    let response = response.body(Bytes::from(Json::Object(members).to_vec()));
    let response = response
        .map_err(|error| Error::because(ErrorType::InternalError, "while making the answer's head", error))?;
    ctx.answer_began();
    respond::local(client, ctx, Answer::Made(response)).await
}

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
