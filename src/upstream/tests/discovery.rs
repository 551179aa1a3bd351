//! Names of servers.

use super::*;

/// The name does not resolve when the process starts: it runs, says so, and serves as soon as it does. Later answers
/// change the pool; failures change nothing.
#[tokio::test(start_paused = true)]
async fn names_resolve_in_the_background() {
    let zone = Arc::new(Zone::default());
    let live = Live::new(Metrics::new(), zone.clone());
    let upstream = Upstream::new(settings(&["users.internal:8080"]), &live, clock::now());
    assert_eq!(first(&upstream, clock::now()).unwrap_err().reason, Reason::NotReady);
    upstream.start();
    upstream.warm().await;
    let status = upstream.status(clock::now());
    assert!(!status.is_ready());
    assert_eq!(status.names[0].error.as_deref(), Some("no such name"));

    zone.set("users.internal", &[[10, 0, 0, 2], [10, 0, 0, 1]]);
    eventually("two servers", || upstream.servers().len() == 2).await;
    assert_eq!(request(&upstream, Outcome::Answered(200), clock::now()), "10.0.0.1:8080");

    zone.set("users.internal", &[[10, 0, 0, 2], [10, 0, 0, 3]]);
    eventually("a new server", || upstream.servers()[1].address().as_ref() == "10.0.0.3:8080").await;

    zone.0.lock().clear();
    eventually("failure", || upstream.status(clock::now()).names[0].error.is_some()).await;
    assert_eq!(upstream.servers().len(), 2, "the last good addresses are kept");
}

/// A new configuration is ready at once with what is known about its names, and takes the background work over.
#[tokio::test(start_paused = true)]
async fn names_are_shared_between_configurations() {
    let zone = Arc::new(Zone::default());
    zone.set("users.internal", &[[10, 0, 0, 1]]);
    let live = Live::new(Metrics::new(), zone.clone());
    let before = Upstream::new(settings(&["users.internal"]), &live, clock::now());
    before.start();
    before.warm().await;

    let after = Upstream::new(settings(&["users.internal:81", "users.internal"]), &live, clock::now());
    assert_eq!(after.servers().len(), 2, "before any lookup of its own");
    after.start();
    drop(before);
    zone.set("users.internal", &[[10, 0, 0, 9]]);
    eventually("new address", || after.servers()[0].address().as_ref() == "10.0.0.9:81").await;
}
