//! The beginning of a request: who asks, under which id, and the bounds that hold from now on.

use std::time::Duration;

use http::Version;
use pingora_proxy::Session;

use super::route::host_of;
use crate::proxy::client::Client;
use crate::proxy::{Context, edit};

/// How long the unread rest of a body may be drained before the connection is given up.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

pub(in crate::proxy) fn begin(session: &mut Session, ctx: &mut Context) {
    let snapshot = ctx.snapshot.clone();
    let limits = &snapshot.limits;
    // Pingora's own defaults: 60 s a read, none for writes, none for draining.
    session.set_read_timeout(Some(limits.body_timeout));
    session.set_write_timeout(Some(limits.body_timeout));
    session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
    if ctx.is_upgrade() {
        // Whatever the server answers, the bytes behind such a head belong to no next request.
        session.set_keepalive(None);
    } else if session.req_header().headers.contains_key(http::header::UPGRADE) {
        edit::ignore_upgrade(session.req_header_mut());
    }
    if session.req_header().version == Version::HTTP_10 {
        // It knows neither interim answers nor the wait for one (RFC 9110 sections 15.2 and 10.1.1).
        session.set_ignore_info_resp(true);
        edit::ignore_expectation(session.req_header_mut());
    }
    if ctx.exchange.as_ref().is_some_and(|exchange| exchange.last) {
        // Pingora reads only the first of several `Connection` lines.
        session.set_keepalive(None);
    }
    // A head that was parsed can be put together again; if not, it keeps its spelling.
    let _forgotten = edit::forget_spelling(session.req_header_mut());
    let head = session.req_header();
    ctx.client =
        Client::find(&head.headers, ctx.peer_ip(), ctx.is_tls(), &ctx.snapshot.server.trusted_proxies);
    ctx.begin(head, host_of(head));
}
