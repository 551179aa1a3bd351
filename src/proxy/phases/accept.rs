//! The beginning of a request: who asks, under which id, and the bounds that hold from now on.

use std::time::Duration;

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
    // A head that was parsed can be put together again; if not, it keeps its spelling.
    let _forgotten = edit::forget_spelling(session.req_header_mut());
    let head = session.req_header();
    ctx.client =
        Client::find(&head.headers, ctx.peer_ip(), ctx.is_tls(), &ctx.snapshot.server.trusted_proxies);
    ctx.begin(head, host_of(head));
}
