//! The data plane: the only `ProxyHttp` implementation, a table of contents over `phases`.
//!
//! ```text
//! request_filter           accept ─► belong ─► route ─► guard ─► dispatch ─┬─► local answer: respond
//!                                                                          └─► the first attempt is picked
//! upstream_peer            connect   (again for every retry)
//! upstream_request_filter  forward   (the request's edits)
//! request_body_filter      forward   (body limit, empty last chunk)
//! upstream_response_filter respond   (retry on a status)
//! response_filter          respond   (the answer's edits)
//! fail_to_proxy            fail      (from cause to problem)
//! logging, Drop            finish    (always, once)
//! ```

mod asked;
pub mod client;
mod context;
mod direct;
mod downstream;
pub mod edit;
mod names;
mod phases;
pub mod received;
mod tunnels;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use tokio::sync::watch;

use asked::Asked;
pub use context::Context;
use context::Decided;
#[cfg(any(test, feature = "fuzzing"))]
pub use direct::{as_forwarded, as_forwarded_by_pingora, as_passed_on, stream_as_forwarded};
use phases::{
    accept, aggregate, amqp, belong, connect, dispatch, envelope, fail, finish, forward, guard, login,
    respond, route,
};
use received::Received;
pub use tunnels::Tunnels;

use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::base::{clock, fault, pressure};
use crate::config::snapshot::Current;
use crate::ingress::connection::exchange;
use crate::policy::rate_limit::{self, Met};
use crate::telemetry::metrics::Metrics;

/// Attempts Pingora itself allows: above any `retry.attempts`, whose own count decides, and the fallback's.
pub const ATTEMPTS_MAX: usize = 32;

/// The gateway as Pingora calls it, and `ingress` for what can do without (see [`direct`]). Clones are one gateway.
#[derive(Debug, Clone)]
pub struct Gateway {
    current: Arc<Current>,
    metrics: Arc<Metrics>,
    /// True once the process drains: answers from then on close their connections.
    draining: watch::Receiver<bool>,
    tunnels: Arc<Tunnels>,
}

impl Gateway {
    /// A gateway that serves the configuration of the moment, and has tunnels in `tunnels`.
    pub fn new(
        current: Arc<Current>,
        metrics: Arc<Metrics>,
        draining: watch::Receiver<bool>,
        tunnels: Arc<Tunnels>,
    ) -> Self {
        Self { current, metrics, draining, tunnels }
    }

    /// Whether the connection of this request is to be closed after it.
    fn is_ending(&self, ctx: &Context) -> bool {
        let retired = ctx.exchange.as_ref().is_some_and(|exchange| exchange.connection.is_retired());
        // Where memory is short nothing is kept for later.
        retired || pressure::is_short_of_memory() || *self.draining.borrow()
    }

    fn close_if_ending(&self, session: &mut Session, ctx: &Context) {
        if self.is_ending(ctx) {
            session.set_keepalive(None);
        }
    }
}

/// Accept, belong, route, guard, dispatch: everything that is decided before anything is written or sent.
fn decide(asked: Asked<'_>, received: &Received<'_>, ctx: &mut Context) -> Result<dispatch::Next, Problem> {
    accept::begin(asked, received, ctx);
    accept::shed(ctx)?;
    settle(asked, received, ctx)
}

/// What of that can be done again, when the key of a token was waited for.
fn settle(asked: Asked<'_>, received: &Received<'_>, ctx: &mut Context) -> Result<dispatch::Next, Problem> {
    let view = route::View::read(asked, received, ctx.listener)?;
    route::note(&view, ctx);
    fault::point("request", asked.target);
    belong::check(&view, ctx)?;
    let found = route::find(&view, ctx);
    // Before anything is asked or told: in cleartext nothing is, whatever the route.
    if let Some(answer) = belong::elsewhere(&view, ctx)? {
        return Ok(dispatch::Next::Answer(answer));
    }
    // Also for what matches no route: `[defaults]` govern that, and who may not come in learns nothing about routes.
    let guarded = match guard::check(&view, ctx) {
        Ok(guard::Guarded::Passed) => found,
        Ok(guard::Guarded::Answered(answer)) => return Ok(dispatch::Next::Answer(answer)),
        Ok(guard::Guarded::Waits(wait)) => return Ok(dispatch::Next::Wait(wait)),
        Err(problem) => Err(problem),
    };
    if rate_limit::is_pending(&ctx.met) {
        // One question for all of them, also for who is refused: it counts against his address.
        ctx.refused = guarded.err().map(Box::new);
        return Ok(dispatch::Next::Ask);
    }
    guarded?;
    go_on(asked, &view, ctx)
}

/// What follows [`dispatch::Next::Ask`].
async fn decide_asked(
    asked: Asked<'_>,
    received: &Received<'_>,
    ctx: &mut Context,
) -> Result<dispatch::Next, Problem> {
    if let Some(problem) = rate_limit::settle(&mut ctx.met).await {
        return Err(problem);
    }
    if let Some(problem) = ctx.refused.take() {
        return Err(*problem);
    }
    let view = route::View::read(asked, received, ctx.listener)?;
    go_on(asked, &view, ctx)
}

/// The limits have let it pass.
fn go_on(asked: Asked<'_>, view: &route::View<'_>, ctx: &mut Context) -> Result<dispatch::Next, Problem> {
    match guard::delay(ctx) {
        Some(delay) => Ok(dispatch::Next::Later(delay)),
        None => {
            guard::count(ctx)?;
            dispatch::start(asked, view, ctx)
        }
    }
}

/// The same, and what follows [`dispatch::Next::Wait`], [`dispatch::Next::Ask`] and [`dispatch::Next::Later`].
async fn decide_in_time(
    asked: Asked<'_>,
    received: &Received<'_>,
    ctx: &mut Context,
) -> Result<dispatch::Next, Problem> {
    let mut step = decide(asked, received, ctx);
    if let Ok(dispatch::Next::Wait(wait)) = step {
        // For the key of a token, no longer than the request may take.
        let route = ctx.route.clone();
        ctx.set_deadlines(&route);
        wait.done(ctx.deadlines.first_byte).await;
        ctx.has_waited = true;
        step = settle(asked, received, ctx);
    }
    if matches!(step, Ok(dispatch::Next::Ask)) {
        // Boxed: most requests have no such limit, and do not carry what asking needs.
        step = Box::pin(decide_asked(asked, received, ctx)).await;
    }
    if let Ok(dispatch::Next::Later(delay)) = step {
        let route = ctx.route.clone();
        ctx.set_deadlines(&route);
        if let Some(deadline) = ctx.deadlines.first_byte {
            let left = deadline.saturating_duration_since(clock::now());
            ctx.met.iter_mut().for_each(|met| met.give_up(left));
            if let Some(problem) = rate_limit::refusal(&ctx.met) {
                return Err(problem);
            }
        }
        // Before a server is picked: none is kept waiting.
        tokio::time::sleep(delay).await;
        ctx.met.iter_mut().for_each(Met::waited);
        guard::count(ctx)?;
        let view = route::View::read(asked, received, ctx.listener)?;
        step = dispatch::start(asked, &view, ctx);
    }
    step
}

#[async_trait]
impl ProxyHttp for Gateway {
    /// Boxed: it is moved from future to future on its way to the first hook.
    type CTX = Box<Context>;

    fn new_ctx(&self) -> Box<Context> {
        let exchange = exchange();
        let begun = exchange.as_ref().and_then(|exchange| exchange.take_prepared()?.downcast().ok());
        begun.unwrap_or_else(|| Box::new(Context::new(exchange, self.current.load(), self.metrics.clone())))
    }

    /// None: each costs an allocation per request, and what they do is done elsewhere or not at all.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<Context>) -> Result<bool> {
        accept::bound(session, ctx);
        let received = Received::read(&session.req_header().headers);
        let step = if let Some(decided) = ctx.decided.take() {
            Ok(match decided {
                Decided::Forward => dispatch::Next::Forward,
                Decided::Login(target, request) => dispatch::Next::Login(target, request),
                Decided::Amqp(amqp) => dispatch::Next::Amqp(amqp),
            })
        } else if accept::is_in_order(session, ctx, received.marks) {
            decide_in_time(Asked::of(session.req_header()), &received, ctx).await
        } else {
            accept::repair(session, ctx, received.marks);
            let asked = Asked::of(session.req_header());
            decide_in_time(asked, &Received::read(asked.headers), ctx).await
        };
        self.close_if_ending(session, ctx);
        match step {
            Ok(dispatch::Next::Forward) => {
                forward::request(session.req_header_mut(), ctx)?;
                if ctx.is_silence_normal() {
                    session.set_read_timeout(Some(ctx.snapshot.limits.stream_idle));
                    ctx.lift_pace();
                } else {
                    ctx.hold_pace();
                }
                return Ok(false);
            }
            Ok(dispatch::Next::Answer(answer)) => respond::local(session, ctx, answer).await,
            Ok(dispatch::Next::Login(target, request)) => login::answer(session, ctx, target, *request).await,
            Ok(dispatch::Next::Aggregate(plan)) => aggregate::answer(session, ctx, plan).await,
            Ok(dispatch::Next::Amqp(target)) => amqp::answer(session, ctx, target).await,
            // It has asked and waited once.
            Ok(dispatch::Next::Ask | dispatch::Next::Later(_)) => {
                return Error::e_explain(ErrorType::InternalError, "asked to wait twice");
            }
            // Not reachable: it is waited for once.
            Ok(dispatch::Next::Wait(_)) => {
                respond::problem(session, ctx, &Problem::new(Reason::KeysUnavailable)).await
            }
            Err(problem) => respond::problem(session, ctx, &problem).await,
        }
        // Whatever keeps an answer of ours from being written is on the client's side.
        .map_err(Error::into_down)?;
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Box<Context>) -> Result<Box<HttpPeer>> {
        connect::peer(session, ctx).await
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        _digest: Option<&Digest>,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        connect::connected(ctx, reused);
        Ok(())
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Box<Context>,
        error: Box<Error>,
    ) -> Box<Error> {
        connect::failed(connect::Progress::of(session), ctx, error)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        forward::head(session, request, ctx)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        forward::body(session, body, end, ctx)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        respond::check(session, response)?;
        respond::upstream_answered(connect::Progress::of(session), response.status, ctx)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Box<Context>,
    ) -> Result<()> {
        self.close_if_ending(session, ctx);
        respond::edit(session, response, ctx)?;
        if ctx.status == 101 {
            ctx.open_tunnel(&self.tunnels);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Box<Context>,
    ) -> Result<Option<Duration>> {
        respond::body(session, body, end, ctx)?;
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        session: &mut Session,
        _trailers: &mut http::HeaderMap,
        ctx: &mut Box<Context>,
    ) -> Result<Option<Bytes>> {
        respond::trailers(session, ctx).await
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Box<Context>,
        client_reused: bool,
    ) -> Box<Error> {
        fail::while_proxying(connect::Progress::of(session), ctx, error, client_reused)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Box<Context>,
    ) -> FailToProxy {
        fail::answer(session, ctx, error).await
    }

    async fn logging(&self, _session: &mut Session, error: Option<&Error>, ctx: &mut Box<Context>) {
        finish::record(ctx, error);
    }

    /// The access log and the metrics say it, with the reason.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Box<Context>, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Box<Context>,
        _error: &Error,
        _reason: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
