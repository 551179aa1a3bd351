//! A gateway under load while its configuration is reloaded and its binary upgraded: what `load-tests/nothing-dropped`,
//! `load-tests/reload-cost` and `load-tests/reload-leaks` run, and, with smaller numbers, `tests/it`.
//!
//! ```text
//! clients (http1, http2, websocket) ─► Gateway: the real binary, several processes of it after an upgrade ─► Origin
//!        └─► Tally: what was asked, answered and lost, by kind      ▲
//!                                            Setting: one configuration after the other
//! ```
//! Clients behave as real ones do, and no better: what has been written and gets no answer is lost. There is no retry
//! but for what HTTP/2 says was not looked at.
#![allow(dead_code, unused_imports, reason = "each of the programs uses a part of it")]

mod clients;
mod gateway;
mod http1;
mod http2;
mod nginx;
mod nothing_dropped;
mod origin;
mod reload_cost;
mod reload_leaks;
mod setting;
mod tally;
mod websocket;
mod wire;

pub use nothing_dropped::{NothingDropped, nginx_drops, nothing_dropped};
pub use reload_cost::{ReloadCost, reload_cost};
pub use reload_leaks::{ReloadLeaks, reload_leaks};
pub use tally::Kind;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Losses that clients count of a server at `address` until each kind has some, by kind: whether they count can be tried
/// on a server that loses everything.
pub async fn losses(address: SocketAddr, patience: Duration) -> Vec<(Kind, u64)> {
    let roots = Arc::new(rustls::RootCertStore::empty());
    let target = wire::Target { plain: address, secure: address, roots };
    let times =
        clients::Times { grace_period: Duration::ZERO, slow: Duration::ZERO, post_idle: Duration::ZERO };
    let run = Arc::new(clients::Run::new(target, times));
    let all = clients::Crowd {
        get: 1,
        idle_post: 1,
        fresh: 1,
        http2: 1,
        events: 1,
        uploads: 1,
        websockets: 1,
        http2_in_cleartext: true,
    };
    let mut crowd = clients::start(&run, all);
    let counted = || Kind::ALL.map(|kind| (kind, run.tally.lost(kind)));
    let everybody = async {
        while counted().iter().any(|(_, lost)| *lost == 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // Who has counted nothing by then is told by what is returned.
    let _ = tokio::time::timeout(patience, everybody).await;
    crowd.abort_all();
    while crowd.join_next().await.is_some() {}
    counted().to_vec()
}
