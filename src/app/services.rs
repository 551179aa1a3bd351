//! Follows the services of the store: what changes there is served within a second, whoever changed it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::lifecycle::{Command, Order};
use super::reload::Reloader;
use crate::admin::Parts;
use crate::base::{clock, task};
use crate::config::snapshot::Current;
use crate::store::Store;

/// Least time between two times that services are applied: what changes meanwhile is applied together.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often all is read although nobody said that it changed: a trigger can be dropped.
const READ_ANYWAY: Duration = Duration::from_secs(30);
/// Longest that services may take to be applied.
const APPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// Follows the services of one store.
#[derive(Debug)]
pub(super) struct Follower {
    store: Store,
    reloader: Arc<Reloader>,
    orders: mpsc::Sender<Order>,
    known: tokio::sync::Mutex<Known>,
    /// Why they could not be read last.
    failure: Mutex<Option<String>>,
}

/// What was applied last.
#[derive(Debug, Default)]
struct Known {
    /// Which state.
    number: Option<i64>,
    /// When it was read.
    read: Option<Instant>,
    /// When it was applied.
    applied: Option<Instant>,
}

/// Whom services are applied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// At once, while nothing is served yet.
    Itself,
    /// Whoever carries out orders, one at a time with reloads and upgrades.
    Order,
}

impl Follower {
    /// One that has `reloader` apply the services of `store`, by `orders`.
    pub(super) fn new(store: Store, reloader: Arc<Reloader>, orders: mpsc::Sender<Order>) -> Self {
        Self { store, reloader, orders, known: tokio::sync::Mutex::default(), failure: Mutex::default() }
    }

    /// Reads and applies services before anything is served.
    ///
    /// # Errors
    /// Why that was not possible.
    pub(super) async fn learn(&self) -> Result<(), String> {
        self.follow(By::Itself).await
    }

    /// Returns when what stood in the store at the call is served.
    ///
    /// # Errors
    /// The store does not answer, or the process cannot serve what it has.
    pub(super) async fn catch_up(&self) -> Result<(), String> {
        self.follow(By::Order).await
    }

    /// Why services could not be read last; `None` if they could.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Follows the store for as long as it is polled.
    pub(super) async fn run(self: Arc<Self>) {
        let mut watch = self.store.watch_services();
        loop {
            if let Err(error) = self.catch_up().await {
                tracing::debug!(error, "cannot follow the services");
                tokio::time::sleep(task::spread(PAUSE)).await;
            }
            watch.next().await;
        }
    }

    async fn follow(&self, by: By) -> Result<(), String> {
        let mut known = self.known.lock().await;
        let done = self.follow_from(&mut known, by).await;
        *self.failure.lock() = done.clone().err();
        done
    }

    async fn follow_from(&self, known: &mut Known, by: By) -> Result<(), String> {
        let number = self.store.services_number().await.map_err(|error| error.to_string())?;
        let is_recent =
            known.read.is_some_and(|read| clock::now().saturating_duration_since(read) < READ_ANYWAY);
        if known.number == Some(number) && is_recent {
            return Ok(());
        }
        if let Some(applied) = known.applied {
            tokio::time::sleep(INTERVAL.saturating_sub(clock::now().saturating_duration_since(applied)))
                .await;
        }
        let services = self.store.services().await.map_err(|error| error.to_string())?;
        known.read = Some(clock::now());
        let number = services.number;
        if known.number.is_some() && self.reloader.services().is_some_and(|last| last.rows == services.rows) {
            known.number = Some(number);
            return Ok(());
        }
        self.reloader.know_services(services);
        // Whoever stops waiting must not take it for served the next time.
        known.number = None;
        let outcome = match by {
            By::Itself => self.reloader.apply_services().await,
            By::Order => self.order().await?,
        };
        known.applied = Some(clock::now());
        if outcome.get("ok") == Some(&true.into()) {
            known.number = Some(number);
            return Ok(());
        }
        let error = outcome.get("error").and_then(serde_json::Value::as_str).unwrap_or("it was refused");
        Err(error.to_owned())
    }

    async fn order(&self) -> Result<serde_json::Value, String> {
        let (answer, outcome) = oneshot::channel();
        let order = Order { command: Command::Services, answer: Some(answer) };
        let ending = || "the process is ending".to_owned();
        self.orders.send(order).await.map_err(|_| ending())?;
        match tokio::time::timeout(APPLY_TIMEOUT, outcome).await {
            Ok(outcome) => outcome.map_err(|_| ending()),
            Err(_) => Err("the process is busy with something else".to_owned()),
        }
    }
}

/// What the Admin API is lent.
pub(super) fn api_parts(
    current: &Arc<Current>,
    reloader: &Arc<Reloader>,
    services: Option<&Arc<Follower>>,
) -> Parts {
    let (reloader, follower, failing) = (reloader.clone(), services.cloned(), services.cloned());
    Parts {
        current: current.clone(),
        store: services.and_then(|_| current.load().store.clone()),
        loaded: Box::new(move || reloader.loaded()),
        catch_up: Box::new(move || {
            let follower = follower.clone();
            Box::pin(async move {
                match &follower {
                    Some(follower) => follower.catch_up().await,
                    None => Ok(()),
                }
            })
        }),
        failure: Box::new(move || failing.as_ref().and_then(|follower| follower.failure())),
    }
}

/// Waits a while for the services of the store. Without them what the files say is served, and `/readyz` tells; but a
/// process is not replaced by one that serves less.
pub(super) async fn learn(services: &Follower, within: Duration, replaces: bool) -> io::Result<()> {
    let error = match tokio::time::timeout(within, services.learn()).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => "they are still being read".to_owned(),
    };
    if replaces {
        let message = format!("the services of the store are not known, and would be lost: {error}");
        return Err(io::Error::other(message));
    }
    tracing::warn!("starting without the services of the store: {error}");
    Ok(())
}
