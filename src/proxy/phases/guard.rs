//! What the route asks of the request before anything is done for it, in the fixed order of [`crate::policy::Chain`].

use std::time::Duration;

use super::dispatch::Answer;
use super::route::View;
use crate::base::clock;
use crate::base::problem::Problem;
use crate::policy::rate_limit::Met;
use crate::policy::{RequestFacts, Verdict};
use crate::proxy::Context;

/// `Some`: the request is answered here, with that.
pub(in crate::proxy) fn check(view: &View<'_>, ctx: &mut Context) -> Result<Option<Answer>, Problem> {
    let mut met = std::mem::take(&mut ctx.met);
    let guard = &ctx.route.guard;
    let facts = RequestFacts {
        client: ctx.client.address,
        content_length: ctx.head.content_length,
        certificate: ctx.client_cert(),
        principal: None,
        route: &ctx.route.name,
        headers: Some(view.request().headers),
        preflight: ctx.preflight,
        now: if guard.has_limits() { clock::now() } else { ctx.began },
    };
    let verdict = guard.check(&facts, &mut met);
    ctx.met = met;
    match verdict {
        Verdict::Pass => Ok(None),
        Verdict::Preflight => Ok(Some(Answer::Preflight)),
        Verdict::Refuse(problem) => Err(problem),
    }
}

/// How long the request has to wait before anything is done for it; `None` = not at all.
pub(in crate::proxy) fn delay(ctx: &Context) -> Option<Duration> {
    ctx.met.iter().map(Met::delay).max().filter(|delay| !delay.is_zero())
}
