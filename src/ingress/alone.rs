//! Requests on a connection that has no socket, for tests and fuzzers that judge what goes out.
#![allow(clippy::unwrap_used, reason = "only tests and fuzzers run this")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use super::connection::{Connection, Connections, Exchange, Peer};
use super::ends::Ends;
use crate::base::clock;
use crate::telemetry::metrics::Metrics;

/// One that asks for an upgrade or not, and whose message ends with its head or does not.
pub(crate) fn exchange(upgrade: bool, ends_with_head: bool) -> Exchange {
    // Its alarms are a task's. Nobody waits for one, and so it never runs.
    static CONNECTION: LazyLock<(Arc<Connection>, tokio::runtime::Runtime)> = LazyLock::new(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let inside = runtime.enter();
        let peer = Peer::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 4711)));
        let ends = Ends { client: peer, socket: peer, local: None, header: None, is_unnamed: false };
        let open = Arc::new(Connections::default()).admit(1, &Metrics::new().listener("alone")).ok().unwrap();
        let connection = Connection::new(0, 80, ends, None, open);
        drop(inside);
        (connection, runtime)
    });
    let mut exchange = Exchange::new(CONNECTION.0.clone(), clock::now(), 0, upgrade);
    exchange.ends_with_head = ends_with_head;
    exchange
}
