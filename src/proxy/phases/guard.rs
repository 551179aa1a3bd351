//! What the route asks of the request before anything is done for it, in the fixed order of [`crate::policy::Chain`]; and
//! who it is from, for everything that comes after.

use std::time::{Duration, Instant};

use http::HeaderValue;

use super::dispatch::Answer;
use super::route::View;
use crate::base::client_cert::ClientCert;
use crate::base::clock::{self, Moment};
use crate::base::problem::Problem;
use crate::identity::forms::Form;
use crate::identity::jwks::KeyWait;
use crate::policy::auth::{Auth, Denied, Identified, Kind, Shown};
use crate::policy::rate_limit::{Met, Work};
use crate::policy::{RequestFacts, Verdict};
use crate::proxy::Context;
use crate::proxy::context::Stripped;
use crate::routing::Expression;
use crate::routing::expression::Failed;

/// What becomes of a request that is not refused.
pub(in crate::proxy) enum Guarded {
    /// It passes.
    Passed,
    /// It is answered here, with that.
    Answered(Answer),
    /// The key of its token may be on its way: it is judged again after that.
    Waits(KeyWait),
}

/// Judges a request. A plain call: only where the key of its token may be on its way there is something to wait for, after
/// which it is judged again.
///
/// # Errors
/// The answer, if it is refused.
pub(in crate::proxy) fn check(view: &View<'_>, ctx: &mut Context) -> Result<Guarded, Problem> {
    let mut met = std::mem::take(&mut ctx.met);
    let judged = check_all(view, ctx, &mut met);
    ctx.met = met;
    judged
}

/// Counts the request to whoever it is from: nothing refuses it any more.
///
/// # Errors
/// Others have used up meanwhile what was left.
pub(in crate::proxy) fn count(ctx: &mut Context) -> Result<(), Problem> {
    ctx.planned.as_mut().map_or(Ok(()), |planned| planned.count(clock::unix_now))
}

fn check_all(view: &View<'_>, ctx: &mut Context, met: &mut Vec<Met>) -> Result<Guarded, Problem> {
    let now = if ctx.route.guard.has_limits() { clock::now() } else { ctx.began };
    if !ctx.has_waited {
        // Once a request: what is counted there must not be counted twice.
        let work = |expression: &Expression| view.with_values(ctx, |values| expression.number(values));
        match ctx.route.guard.before_auth(&facts(view, ctx, now, &work), met) {
            Verdict::Pass => {}
            Verdict::Preflight => return Ok(Guarded::Answered(Answer::Preflight)),
            Verdict::Refuse(problem) => return Err(problem),
        }
    }
    if ctx.route.guard.auth.is_some() {
        let route = ctx.route.clone();
        if let Some(auth) = &route.guard.auth
            && let Some(wait) = authenticate(auth, view, ctx)?
        {
            return Ok(Guarded::Waits(wait));
        }
    } else {
        // Nobody is asked; who has proved a certificate on this connection is told all the same.
        introduce_certificate(ctx);
    }
    let work = |expression: &Expression| view.with_values(ctx, |values| expression.number(values));
    let mut planned = None;
    let judged = ctx.route.guard.after_auth(&facts(view, ctx, now, &work), met, &mut planned);
    ctx.planned = planned;
    match judged {
        Verdict::Refuse(problem) => Err(problem),
        Verdict::Pass | Verdict::Preflight => Ok(Guarded::Passed),
    }
}

fn facts<'a>(
    view: &'a View<'_>,
    ctx: &'a Context,
    now: Instant,
    work: &'a dyn Fn(&Expression) -> Result<u64, Failed>,
) -> RequestFacts<'a> {
    RequestFacts {
        client: ctx.client.address,
        content_length: ctx.head.content_length,
        principal: ctx.principal.as_ref(),
        route: &ctx.route.name,
        headers: Some(view.headers()),
        preflight: ctx.preflight,
        now,
        deadline: ctx.deadlines_of(&ctx.route).first_byte,
        work: Some(Work(work)),
    }
}

/// How long the request has to wait before anything is done for it; `None` = not at all.
pub(in crate::proxy) fn delay(ctx: &Context) -> Option<Duration> {
    ctx.met.iter().map(Met::delay).max().filter(|delay| !delay.is_zero())
}

fn authenticate(auth: &Auth, view: &View<'_>, ctx: &mut Context) -> Result<Option<KeyWait>, Problem> {
    let request = view.request();
    let tls = ctx.exchange.as_ref().and_then(|exchange| exchange.connection.tls.as_ref());
    let shown = Shown {
        headers: request.headers,
        query: request.query,
        certificate: tls.and_then(|tls| tls.client_cert.as_ref()),
        at: Moment::now(),
        has_waited: ctx.has_waited,
    };
    match auth.identify(&shown) {
        Identified::Wait(wait) => return Ok(Some(wait)),
        Identified::Refused(denied) => return Err(deny(*denied, ctx)),
        Identified::Known(principal) => ctx.principal = Some(principal),
        Identified::Nobody => {}
    }
    let holds =
        auth.authorize(ctx.principal.as_ref(), |when| view.with_values(ctx, |values| when.holds(values)));
    if let Err(denied) = holds {
        return Err(deny(*denied, ctx));
    }
    introduce(ctx);
    ctx.stripped = stripped(auth, view, ctx);
    Ok(None)
}

/// Notes for log and metrics what the client is not told.
fn deny(denied: Denied, ctx: &mut Context) -> Problem {
    let Denied { problem, scheme, detail } = denied;
    ctx.route.metrics.auth_failed(scheme, problem.reason);
    ctx.detail = Some(detail);
    problem
}

/// What services are told of who it is. Of a token these are clones of what was made when it was first seen.
fn introduce(ctx: &mut Context) {
    let Some(principal) = &ctx.principal else { return introduce_certificate(ctx) };
    let settings = &ctx.snapshot.identity;
    let [subject, roles, claims, consumer] = &*settings.headers;
    let mut dropped = 0_u32;
    let mut value = |form: &Form| match form {
        Form::Value(value) => Some(value.clone()),
        Form::Absent => None,
        Form::Unusable => {
            dropped += 1;
            None
        }
    };
    ctx.introduced = [
        subject.as_ref().and_then(|_| value(&principal.subject_form())),
        roles.as_ref().and_then(|_| value(&principal.roles_form())),
        claims.as_ref().and_then(|_| principal.claims_form(settings.encoding).and_then(&mut value)),
        consumer.as_ref().and_then(|_| value(&principal.consumer_form())),
    ];
    (0..dropped).for_each(|_| ctx.metrics.identity_value_dropped());
}

fn introduce_certificate(ctx: &mut Context) {
    let name: Option<HeaderValue> = ctx.client_cert().and_then(ClientCert::principal).cloned();
    let wanted = ctx.snapshot.identity.headers.first().is_some_and(Option::is_some);
    if let (true, Some(name), Some(subject)) = (wanted, name, ctx.introduced.first_mut()) {
        *subject = Some(name);
    }
}

/// What of the credentials services do not get.
fn stripped(auth: &Auth, view: &View<'_>, ctx: &Context) -> Stripped {
    let settings = &ctx.snapshot.identity;
    let (tokens, keys) = (auth.takes(Kind::Jwt), auth.takes(Kind::ApiKey));
    let hides_tokens = !settings.keep_authorization && (tokens || keys);
    let hides_keys = keys && !settings.keep_keys;
    let is_key = || {
        let found = crate::policy::auth::credentials::authorization(view.request().headers);
        found.ok().flatten().is_some_and(|authorization| authorization.is_key())
    };
    Stripped {
        authorization: hides_tokens || hides_keys && is_key(),
        cookie: tokens && !settings.keep_authorization,
        key: hides_keys,
    }
}
