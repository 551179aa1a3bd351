//! The beginning of a request: who asks, under which id, and the bounds that hold from now on.

use std::time::Duration;

use http::Version;
use pingora_proxy::Session;

use super::route::host_of;
use crate::base::pressure;
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::policy::trusted::TrustedProxies;
use crate::proxy::client::Client;
use crate::proxy::received::{Marks, Received};
use crate::proxy::{Asked, Context, edit};

/// How long the unread rest of a body may be drained before the connection is given up.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Sets the bounds on what Pingora waits for. Its own defaults are 60 s a read, and none for writes and for draining.
pub(in crate::proxy) fn bound(session: &mut Session, ctx: &Context) {
    let limits = &ctx.snapshot.limits;
    session.set_read_timeout(Some(limits.body_timeout));
    session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
    if session.req_header().version == Version::HTTP_2 {
        // Streams share a connection, on which others may make progress. HTTP/1 connections bound their writes
        // themselves, at no cost a request: see `ingress::stream`.
        session.set_write_timeout(Some(limits.body_timeout));
    }
    if ctx.exchange.as_ref().is_some_and(|exchange| exchange.last) {
        // Pingora reads only the first of several `Connection` lines.
        session.set_keepalive(None);
    }
}

/// Whether there is nothing for [`repair`] to do.
pub(in crate::proxy) fn is_in_order(session: &Session, ctx: &Context, marks: Marks) -> bool {
    !marks.upgrade && !ctx.is_upgrade() && session.req_header().version != Version::HTTP_10
}

/// Takes out of the head what has to be ignored but would not be.
pub(in crate::proxy) fn repair(session: &mut Session, ctx: &Context, marks: Marks) {
    if ctx.is_upgrade() {
        // Whatever the server answers, the bytes behind such a head belong to no next request.
        session.set_keepalive(None);
    } else if marks.upgrade {
        edit::ignore_upgrade(session.req_header_mut());
    }
    if session.req_header().version == Version::HTTP_10 {
        // It knows neither interim answers nor the wait for one (RFC 9110 sections 15.2 and 10.1.1).
        session.set_ignore_info_resp(true);
        edit::ignore_expectation(session.req_header_mut());
    }
}

/// Refuses the request where there is no room for more, before anything is spent on it.
pub(in crate::proxy) fn shed(ctx: &mut Context) -> Result<(), Problem> {
    let came_late = ctx.exchange.as_ref().is_some_and(|exchange| exchange.connection.is_shed());
    let short = match (pressure::is_short_of_memory(), came_late) {
        (true, _) => "memory is short",
        (_, true) => "file descriptors were short when its connection was accepted",
        _ => return Ok(()),
    };
    pressure::shed();
    ctx.detail = Some(short.to_owned());
    Err(Problem::new(Reason::Overloaded))
}

/// Who asks, and what the record shows of the head.
pub(in crate::proxy) fn begin(head: Asked<'_>, received: &Received<'_>, ctx: &mut Context) {
    let nobody = TrustedProxies::default();
    let is_unnamed = ctx.exchange.as_ref().is_some_and(|exchange| exchange.connection.is_peer_unnamed);
    let trusted = if is_unnamed { &nobody } else { &ctx.snapshot.server.trusted_proxies };
    ctx.client = Client::find(head.headers, ctx.peer_ip(), ctx.is_tls(), trusted);
    ctx.begin(head, received, host_of(head, received));
}
