//! Logins and what belongs to them: a small body is read, then the password is waited for, or the store.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pingora::Result;
use pingora_proxy::Session;

use super::{guard, respond, route};
use crate::base::clock;
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::config::snapshot::LoginTarget;
use crate::identity::login::body::BODY_BYTES_MAX;
use crate::identity::login::{Refused, Request};
use crate::policy::rate_limit::{self, Facts, Met, Work};
use crate::proxy::Context;
use crate::proxy::asked::Asked;
use crate::proxy::phases::dispatch::Answer;
use crate::proxy::received::Received;
use crate::routing::Expression;

/// Answers one of the paths of `[identity.login]` within the request's time.
pub(in crate::proxy) async fn answer(
    session: &mut Session,
    ctx: &mut Context,
    target: LoginTarget,
    request: Request,
) -> Result<()> {
    let first_byte = ctx.deadlines.first_byte;
    let work = async {
        let Some(body) = body(session, ctx).await? else { return Ok(Err(Refused::too_large())) };
        if let Err(problem) = limit(session, ctx, &target, &request, &body).await {
            return Ok(Err(Refused::limited(problem)));
        }
        if let Some(delay) = guard::delay(ctx) {
            tokio::time::sleep(delay).await;
            ctx.met.iter_mut().for_each(Met::waited);
        }
        while_there(session, target.login.answer(target.step, &request, body)).await
    };
    let done = match first_byte {
        None => work.await?,
        Some(at) => {
            let left = at.saturating_duration_since(clock::now());
            match tokio::time::timeout(left, work).await {
                Ok(done) => done?,
                Err(_) => {
                    return respond::problem(session, ctx, &Problem::new(Reason::DeadlineExceeded)).await;
                }
            }
        }
    };
    match done {
        Ok(response) => respond::local(session, ctx, Answer::Fixed(Arc::new(response))).await,
        Err(Refused { problem, detail, .. }) => {
            ctx.detail = Some(detail);
            respond::problem(session, ctx, &problem).await
        }
    }
}

/// The request's body; `None` if it is longer than any of these may be. What is announced as longer was refused before.
async fn body(session: &mut Session, ctx: &mut Context) -> Result<Option<Bytes>> {
    if session.is_body_empty() {
        return Ok(Some(Bytes::new()));
    }
    if ctx.head.marks.expect {
        session.as_downstream_mut().write_continue_response().await?;
    }
    let mut body = BytesMut::new();
    while let Some(piece) = session.as_downstream_mut().read_request_body().await? {
        ctx.request_body_bytes += piece.len() as u64;
        body.extend_from_slice(&piece);
        if body.len() > BODY_BYTES_MAX {
            return Ok(None);
        }
    }
    Ok(Some(body.freeze()))
}

/// Asks the limits that count by the account: before the password is worked on.
///
/// # Errors
/// Why it is refused.
async fn limit(
    session: &Session,
    ctx: &mut Context,
    target: &LoginTarget,
    request: &Request,
    body: &[u8],
) -> Result<(), Problem> {
    if target.limits.is_empty() {
        return Ok(());
    }
    let refused = ask(session, ctx, target, request, body)?;
    match refused {
        Some(problem) => Err(problem),
        None => rate_limit::settle(&mut ctx.met).await.map_or(Ok(()), Err),
    }
}

/// Asks those of this process.
fn ask(
    session: &Session,
    ctx: &mut Context,
    target: &LoginTarget,
    request: &Request,
    body: &[u8],
) -> Result<Option<Problem>, Problem> {
    let account = request.account(target.step, body);
    let route = ctx.route.clone();
    let received = Received::read(&session.req_header().headers);
    let view = route::View::read(Asked::of(session.req_header()), &received, ctx.listener)?;
    let mut met = std::mem::take(&mut ctx.met);
    let work = |expression: &Expression| view.with_values(ctx, |values| expression.number(values));
    let facts = Facts {
        route: &route.name,
        headers: Some(&session.req_header().headers),
        account: account.as_deref(),
        work: Some(Work(&work)),
        deadline: ctx.deadlines.first_byte,
        ..Facts::of(ctx.client.address)
    };
    let refused = target.limits.check(&facts, clock::now(), &mut met);
    ctx.met = met;
    Ok(refused)
}

/// Does `work` for as long as the client is there: for one that has left no password is worked on.
async fn while_there<T>(session: &mut Session, work: impl Future<Output = T>) -> Result<T> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        left = session.as_downstream_mut().read_body_or_idle(true) => {
            left?;
            pingora::Error::e_explain(pingora::ErrorType::ConnectionClosed, "while a login was waited for")
        }
    }
}
