//! What answers: a server (the first attempt is picked here), or the gateway itself.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::route::View;
use super::{connect, forward};
use crate::base::clock;
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::config::snapshot::{Amqp, LoginTarget, Target};
use crate::files::{self, Site};
use crate::identity::jwks::KeyWait;
use crate::identity::login;
use crate::policy::cors;
use crate::proxy::{Asked, Context};
use crate::subrequest::Plan;

pub(in crate::proxy) enum Next {
    /// Pingora goes on and asks for a peer.
    Forward,
    /// The gateway answers.
    Answer(Answer),
    /// Not yet: limits that instances share have to be asked first.
    Ask,
    /// The gateway answers with what a login or its kin comes to.
    Login(LoginTarget, Box<login::Request>),
    /// The gateway answers with what several services say, put together.
    Aggregate(Arc<Plan>),
    /// The gateway answers with what a queue says, or that the message is published.
    Amqp(Arc<Amqp>),
    /// Not yet: a limit has it wait for its place first.
    Later(Duration),
    /// The key of the request's token may be on its way: see [`crate::proxy::decide_in_time`].
    Wait(KeyWait),
}

/// A local answer.
pub(in crate::proxy) enum Answer {
    /// Another address, with the status of the redirect.
    Redirect { status: StatusCode, location: String },
    /// What a browser may send, which asked before it does.
    Preflight,
    /// What the route or the fallback says.
    Fixed(Arc<http::Response<Bytes>>),
    /// What was made for this request.
    Made(http::Response<Bytes>),
    /// A file, or what is said in its place.
    File(Arc<Site>, Box<files::Request>),
}

pub(in crate::proxy) fn start(asked: Asked<'_>, view: &View<'_>, ctx: &mut Context) -> Result<Next, Problem> {
    let route = ctx.route.clone();
    match &route.target {
        Target::Respond(respond) => Ok(Next::Answer(Answer::Fixed(respond.clone()))),
        Target::Redirect(redirect) => {
            let location = view.with_values(ctx, |values| redirect.to.expand_location(values));
            let location = location.map_err(|_| Problem::new(Reason::BadPath))?;
            Ok(Next::Answer(Answer::Redirect { status: redirect.status, location }))
        }
        Target::Upstream(upstream) => {
            forward::plan(view, ctx, &route)?;
            ctx.set_deadlines(&route);
            match connect::first(asked, ctx, upstream) {
                Ok(()) => Ok(Next::Forward),
                Err(problem) => match connect::fallback_answer(ctx) {
                    Some(answer) => Ok(Next::Answer(Answer::Fixed(answer))),
                    None => Err(problem),
                },
            }
        }
        Target::Files(site) => {
            let path = forward::rewritten(view, ctx, &route)?;
            let path = path.as_deref().unwrap_or(&view.path);
            let request = files::Request::new(
                asked.method,
                path,
                (&view.path, view.query),
                asked.headers,
                clock::wall(),
            )?;
            ctx.set_deadlines(&route);
            Ok(Next::Answer(Answer::File(site.clone(), Box::new(request))))
        }
        Target::Login(target) => {
            let request = target.login.read(asked.headers, ctx.client.address);
            ctx.set_deadlines(&route);
            Ok(Next::Login(target.clone(), Box::new(request)))
        }
        Target::Aggregate(_) | Target::Amqp(_) if ctx.preflight => {
            // Nobody here answers it, and it must not do what it only asks about.
            let mut problem = Problem::new(Reason::MethodNotAllowed);
            let announced = cors::announced(asked.method, asked.headers);
            problem.allow = announced.map(|method| Cow::Owned(method.as_str().to_owned()));
            Err(problem)
        }
        Target::Aggregate(plan) => {
            ctx.set_deadlines(&route);
            Ok(Next::Aggregate(plan.clone()))
        }
        Target::Amqp(amqp) => {
            ctx.set_deadlines(&route);
            Ok(Next::Amqp(amqp.clone()))
        }
        Target::Nothing => Err(Problem::new(Reason::RouteNotFound)),
    }
}
