//! What the server gets: the path, the head's edits, the body within its bound.

use std::borrow::Cow;

use bytes::Bytes;
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::route::View;
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::config::snapshot::Route;
use crate::proxy::Context;
use crate::proxy::edit;
use crate::upstream::Attempt;

/// Settles path and query to forward: once a request, before the first attempt.
pub(in crate::proxy) fn plan(view: &View<'_>, ctx: &mut Context, route: &Route) -> Result<(), Problem> {
    let rewritten = match &route.rewrite {
        Some(rewrite) => view.with_values(ctx, |values| {
            let path = rewrite.apply(values).map_err(|_| Problem::new(Reason::BadPath))?;
            Ok((path != view.path).then(|| path.into_owned()))
        })?,
        None => None,
    };
    let path = match (&rewritten, &view.path) {
        (Some(path), _) => path.as_str(),
        (None, Cow::Owned(normal)) => normal.as_str(),
        // As it came, unless it came in absolute form: it is sent on in origin form.
        (None, Cow::Borrowed(path)) if view.origin_form || *path == "*" => return Ok(()),
        (None, Cow::Borrowed(path)) => path,
    };
    let query = view.query.unwrap_or_default();
    let mut target = String::with_capacity(path.len() + query.len() + 1);
    target.push_str(path);
    if !query.is_empty() {
        target.push('?');
        target.push_str(query);
    }
    ctx.target = Some(target);
    Ok(())
}

/// The head of one attempt.
pub(in crate::proxy) fn head(request: &mut RequestHeader, ctx: &mut Context) -> Result<()> {
    let Some(exchange) = ctx.exchange.as_ref() else { return Ok(()) };
    let attempt = ctx.call.as_ref().and_then(|call| call.attempt.as_ref());
    let forwarding = edit::Forwarding {
        peer: &exchange.connection.peer_values,
        client: &ctx.client,
        version: ctx.head.version,
        upgrade: exchange.upgrade,
        host: attempt.and_then(Attempt::host),
        server: attempt.map_or("", |attempt| &attempt.record().server),
        takes_trailers: ctx.head.takes_trailers,
        request_id: ctx.request_id.as_bytes(),
        trace_valid: ctx.trace.as_ref().is_some_and(|trace| trace.parent.is_some()),
    };
    edit::request(request, &forwarding)?;
    if let Some(target) = &ctx.target {
        // Last: the host may stand only in the target, which this takes away.
        request.set_raw_path(target.as_bytes())?;
    }
    Ok(())
}

/// One piece of the request body, on its way to the server.
pub(in crate::proxy) fn body(
    session: &Session,
    body: &mut Option<Bytes>,
    end: bool,
    ctx: &mut Context,
) -> Result<()> {
    if session.was_upgraded() {
        ctx.request_body_bytes += body.as_ref().map_or(0, |piece| piece.len() as u64);
        return Ok(());
    }
    if let Some(piece) = body {
        ctx.request_body_bytes += piece.len() as u64;
        if ctx.route.guard.body.is_some_and(|limit| !limit.allows(ctx.request_body_bytes)) {
            ctx.failure = Some(Reason::BodyTooLarge);
            return Error::e_explain(ErrorType::HTTPStatus(413), "the body is larger than the route allows");
        }
    }
    if end {
        if let Some(call) = ctx.call.as_mut() {
            call.body_sent = true;
        }
        // An empty last chunk would be written as a second end of the body (Pingora #935).
        if body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
    }
    Ok(())
}
