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
use crate::policy::auth::credentials;
use crate::policy::transform::Rules;
use crate::proxy::received::Received;
use crate::proxy::{Asked, Context, edit};
use crate::routing::escape::strict_query;
use crate::upstream::Attempt;

/// What the route makes of the path, where that is another.
pub(super) fn rewritten(view: &View<'_>, ctx: &Context, route: &Route) -> Result<Option<String>, Problem> {
    let Some(rewrite) = &route.rewrite else { return Ok(None) };
    view.with_values(ctx, |values| {
        let path = rewrite.apply(values).map_err(|_| Problem::new(Reason::BadPath))?;
        Ok((path != view.path).then(|| path.into_owned()))
    })
}

/// Settles path and query to forward: once a request, before the first attempt.
pub(in crate::proxy) fn plan(view: &View<'_>, ctx: &mut Context, route: &Route) -> Result<(), Problem> {
    let rewritten = rewritten(view, ctx, route)?;
    let edits = route.request.as_ref().and_then(|rules| rules.query.as_ref());
    let bare = without_key(view, ctx);
    let sent = bare.as_deref().or(view.query);
    let edited = edits.map(|edits| view.with_values(ctx, |values| edits.apply(sent, values))).or(bare);
    ctx.target = target(view, rewritten.as_deref(), edited.as_deref());
    Ok(())
}

/// Path and query in origin form, or `*`; `None` where that is what the client sent.
pub(in crate::proxy) fn target(
    view: &View<'_>,
    rewritten: Option<&str>,
    edited: Option<&str>,
) -> Option<String> {
    let query = strict_query(edited.or(view.query).unwrap_or_default());
    let path = match (rewritten, &view.path) {
        (Some(path), _) => path,
        (None, Cow::Owned(normal)) => normal.as_str(),
        // As it came, unless it came in absolute form: it is sent on in origin form.
        (None, Cow::Borrowed(path))
            if edited.is_none()
                && matches!(query, Cow::Borrowed(_))
                && (view.origin_form || *path == "*") =>
        {
            return None;
        }
        (None, Cow::Borrowed(path)) => path,
    };
    let mut target = String::with_capacity(path.len() + query.len() + 1);
    target.push_str(path);
    if !query.is_empty() {
        target.push('?');
        target.push_str(&query);
    }
    Some(target)
}

/// The parameter of the query that services do not get: it has the client's API key.
pub(super) fn hidden_parameter(ctx: &Context) -> Option<&str> {
    ctx.snapshot.identity.places.key_query.as_deref().filter(|_| ctx.stripped.key)
}

/// The query without the API key in it, if there is one to be taken out.
pub(super) fn without_key(view: &View<'_>, ctx: &Context) -> Option<String> {
    let name = hidden_parameter(ctx)?;
    credentials::without(view.query?, name)
}

/// The head as every server gets it: settled once a request, on the client's own, of which each attempt gets a copy.
/// Not where the route's rules may still ask for what the client sent; there each copy is edited.
pub(in crate::proxy) fn request(head: &mut RequestHeader, ctx: &Context) -> Result<()> {
    if has_rules(&ctx.route) { Ok(()) } else { tell_where_from(head, ctx) }
}

/// Whether the route's rules may ask for what the client sent after the head was settled.
pub(in crate::proxy) fn has_rules(route: &Route) -> bool {
    route.request.is_some() || route.response.is_some()
}

fn tell_where_from(head: &mut RequestHeader, ctx: &Context) -> Result<()> {
    forwarding(ctx).map_or(Ok(()), |forwarding| edit::request(head, &forwarding))
}

/// What every server is told of where the request comes from.
pub(in crate::proxy) fn forwarding(ctx: &Context) -> Option<edit::Forwarding<'_>> {
    let exchange = ctx.exchange.as_ref()?;
    Some(edit::Forwarding {
        peer: &exchange.connection.peer_values,
        client: &ctx.client,
        version: ctx.head.version,
        ends_with_head: exchange.ends_with_head,
        request_id: ctx.request_id.as_bytes(),
        trace_valid: ctx.trace.as_ref().is_some_and(|trace| trace.parent.is_some()),
        marks: ctx.head.marks,
        identity: identity(ctx),
        credentials: hidden(ctx),
        reads_answer: ctx.route.envelope.is_some(),
    })
}

/// The headers that tell servers who it is from.
pub(super) fn identity(ctx: &Context) -> edit::Identity<'_> {
    edit::Identity { names: &*ctx.snapshot.identity.headers, values: &ctx.introduced }
}

/// What servers do not get of what the client showed for that.
pub(super) fn hidden(ctx: &Context) -> edit::Credentials<'_> {
    let places = &ctx.snapshot.identity.places;
    edit::Credentials {
        authorization: ctx.stripped.authorization,
        header: places.key_header.as_ref().filter(|_| ctx.stripped.key),
        cookie: places.cookie.as_deref().filter(|_| ctx.stripped.cookie),
    }
}

/// The head of one attempt.
pub(in crate::proxy) fn head(
    session: &Session,
    request: &mut RequestHeader,
    ctx: &mut Context,
) -> Result<()> {
    if ctx.exchange.is_none() {
        return Ok(());
    }
    head_for(Asked::of(session.req_header()), request, ctx)
}

/// The same for what was `asked`.
pub(in crate::proxy) fn head_for(
    asked: Asked<'_>,
    request: &mut RequestHeader,
    ctx: &mut Context,
) -> Result<()> {
    if has_rules(&ctx.route) {
        tell_where_from(request, ctx)?;
    }
    edit::attempt(request, &way(ctx))?;
    if let Some(target) = &ctx.target {
        // Last: the host may stand only in the target, which this takes away.
        request.set_raw_path(target.as_bytes())?;
    }
    if ctx.route.request.is_none() {
        return Ok(());
    }
    let route = ctx.route.clone();
    route.request.as_ref().map_or(Ok(()), |rules| edit_by_rules(asked, request, &rules.headers, ctx))
}

/// How the head of the attempt under way goes to its server.
pub(in crate::proxy) fn way(ctx: &Context) -> edit::Way<'_> {
    let attempt = ctx.call.as_ref().and_then(|call| call.attempt.as_ref());
    edit::Way {
        version: ctx.head.version,
        upgrade: ctx.is_upgrade(),
        host: attempt.and_then(Attempt::host),
        server: attempt.map_or("", |attempt| &attempt.record().server),
        takes_trailers: ctx.head.takes_trailers,
        marks: ctx.head.marks,
        identity: identity(ctx),
    }
}

/// Does what a route's rules say with the head of a request or an answer.
pub(in crate::proxy) fn edit_by_rules(
    asked: Asked<'_>,
    head: &mut impl edit::rules::Head,
    rules: &Rules,
    ctx: &mut Context,
) -> Result<()> {
    // Read once more: it was lent out meanwhile. Only who asks pays for it.
    let view = rules.asks().then(|| View::read(asked, &Received::read(asked.headers), ctx.listener).ok());
    let view = view.flatten();
    let unusable = match view {
        Some(view) => view.with_values(ctx, |values| edit::rules::apply(head, rules, Some(values)))?,
        None => edit::rules::apply(head, rules, None)?,
    };
    if ctx.detail.is_none() {
        ctx.detail = unusable;
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
    let bytes = body.as_ref().map_or(0, Bytes::len);
    if session.was_upgraded() {
        ctx.request_body_bytes += bytes as u64;
        body_passes(ctx);
        return Ok(());
    }
    piece(bytes, end, ctx)?;
    // An empty last chunk would be written as a second end of the body (Pingora #935).
    if end && body.as_ref().is_some_and(Bytes::is_empty) {
        *body = None;
    }
    Ok(())
}

/// So many bytes of the request body are on their way to the server, `end` says whether as the last.
pub(in crate::proxy) fn piece(bytes: usize, end: bool, ctx: &mut Context) -> Result<()> {
    body_passes(ctx);
    ctx.request_body_bytes += bytes as u64;
    if ctx.route.guard.body.is_some_and(|limit| !limit.allows(ctx.request_body_bytes)) {
        ctx.failure = Some(Reason::BodyTooLarge);
        return Error::e_explain(ErrorType::HTTPStatus(413), "the body is larger than the route allows");
    }
    if end && let Some(call) = ctx.call.as_mut() {
        call.body_sent = true;
    }
    Ok(())
}

fn body_passes(ctx: &mut Context) {
    ctx.resume_pace();
    if let Some(exchange) = &ctx.exchange {
        // It was the client that was waited for.
        exchange.server_spoke();
    }
}
