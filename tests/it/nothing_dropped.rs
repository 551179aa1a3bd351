//! The short form of `load-tests/nothing-dropped` and `load-tests/reload-leaks`: the same code, smaller numbers.

use std::path::Path;

use crate::process_life::{NothingDropped, ReloadLeaks, losses, nothing_dropped, reload_leaks};
use crate::support::*;

const BINARY: &str = env!("CARGO_BIN_EXE_edgeward");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_dropped_by_reloads_and_upgrades() {
    match nothing_dropped(Path::new(BINARY), NothingDropped::short()).await {
        Ok(counts) => eprintln!("{counts}"),
        Err(lost) => panic!("\n{lost}"),
    }
}

/// Clients that count nothing would find nothing: against a server that answers nobody, each kind has losses.
#[tokio::test]
async fn what_is_lost_is_counted() {
    let deaf = RawUpstream::script(|mut peer| async move {
        peer.head().await;
        peer.reset();
    })
    .await;
    for (kind, lost) in losses(deaf.address(), PATIENCE).await {
        assert!(lost > 0, "{kind:?} was answered by nobody, and has lost nothing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_leave_nothing_behind() {
    let plan = ReloadLeaks { warm_up: 100, reloads: 200, growth_percent: 5 };
    match reload_leaks(Path::new(BINARY), plan).await {
        Ok(held) => eprintln!("{held}"),
        Err(left) => panic!("\n{left}"),
    }
}
