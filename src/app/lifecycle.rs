//! Signals and control commands become the same closed set of orders; this decides how the process changes and ends.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use super::reload::Reloader;
use super::upgrade::{Successor, Upgrader};
use crate::admin::Health;
use crate::config::snapshot::{Current, ServerSettings};
use crate::ingress::connection::Connections;

/// What an operator can ask of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Stop accepting, finish what is open within the grace period, exit (QUIT, TERM).
    Quit,
    /// Stop at once (INT).
    Stop,
    /// Reopen the log files (USR1).
    Reopen,
    /// Reload the configuration (HUP).
    Reload,
    /// Serve the services of the store as they were last read.
    Services,
    /// Start a new process, hand it the listeners, finish what is open, exit (USR2).
    Upgrade,
}

/// A command, and where its outcome is to be told.
#[derive(Debug)]
pub struct Order {
    /// What is to be done.
    pub command: Command,
    /// Whoever waits for the outcome: nobody behind a signal.
    pub answer: Option<oneshot::Sender<serde_json::Value>>,
}

impl Order {
    /// An order whose outcome only the log tells.
    pub fn unanswered(command: Command) -> Self {
        Self { command, answer: None }
    }

    fn done(self, outcome: serde_json::Value) {
        tell(self.answer, outcome);
    }
}

/// Tells whoever still waits for it.
fn tell(answer: Option<oneshot::Sender<serde_json::Value>>, outcome: serde_json::Value) {
    if let Some(answer) = answer {
        let _gave_up = answer.send(outcome);
    }
}

/// An outcome that is a refusal.
fn refusal(why: &str) -> serde_json::Value {
    serde_json::json!({ "ok": false, "error": why })
}

/// Orders waiting to be carried out; operators do not send more.
const ORDERS_MAX: usize = 16;
/// Those who wait for the next reload: beyond, nobody is told.
const WAITING_MAX: usize = 64;
/// How long an idle connection is still answered on when the process quits: a request that is on its way gets its
/// answer instead of a reset.
pub(super) const QUIT_LINGER: Duration = Duration::from_secs(1);

/// Longest that a process takes to end once it may: to write its last records, and to let go of what hangs.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest that whoever ordered an upgrade waits until nothing is accepted here any more.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The answer to an order to end: who is ending, and for how long that may take.
pub(super) fn ending(at_most: Duration) -> serde_json::Value {
    let milliseconds = u64::try_from((at_most + END_TIMEOUT).as_millis()).unwrap_or(u64::MAX);
    serde_json::json!({ "ok": true, "pid": std::process::id(), "milliseconds": milliseconds })
}

/// The course of the process, told to everybody who has to act on it.
#[derive(Debug)]
pub struct Lifecycle {
    orders: mpsc::Receiver<Order>,
    sender: mpsc::Sender<Order>,
    stop_accepting: watch::Sender<bool>,
    draining: watch::Sender<bool>,
    handed_over: watch::Sender<bool>,
}

/// What a reload or an upgrade came to.
enum Finished {
    Reload(serde_json::Value),
    Upgrade(Result<Successor, String>),
}

type Work<'h> = Pin<Box<dyn Future<Output = Finished> + 'h>>;

impl Lifecycle {
    /// A life that has just begun.
    pub fn new() -> Self {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        Self {
            orders,
            sender,
            stop_accepting: watch::Sender::new(false),
            draining: watch::Sender::new(false),
            handed_over: watch::Sender::new(false),
        }
    }

    /// Where orders are sent.
    pub fn sender(&self) -> mpsc::Sender<Order> {
        self.sender.clone()
    }

    /// Turns true when listeners are to be closed.
    pub fn stop_accepting(&self) -> watch::Receiver<bool> {
        self.stop_accepting.subscribe()
    }

    /// Turns true when connections are to be closed after what they are serving.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Turns true when a successor has all sockets: also those that are served to the end of a process that quits.
    pub fn handed_over(&self) -> watch::Receiver<bool> {
        self.handed_over.subscribe()
    }

    /// Carries out orders until the process is to end; returns how it went, for the log.
    ///
    /// One reload or upgrade at a time; neither keeps the end waiting. Reloads asked for meanwhile are one reload after it.
    pub async fn run(&mut self, house: &House<'_>) -> Ending {
        let mut work: Option<Work<'_>> = None;
        // The upgrade under way, and the one to follow the reload under way.
        let (mut upgrading, mut upgrade_due): (Option<Order>, Option<Order>) = (None, None);
        // Whom the reload under way, and the one after it, are told to.
        let (mut told, mut waiting) = (Vec::new(), Vec::new());
        let (mut reload_due, mut services_due) = (false, false);
        let mut waiting_for_services = Vec::new();
        loop {
            if work.is_none()
                && let Some(order) = upgrade_due.take()
            {
                upgrading = Some(order);
                work = Some(Box::pin(async { Finished::Upgrade(house.upgrader.upgrade().await) }));
            } else if work.is_none() && reload_due {
                reload_due = false;
                told = std::mem::take(&mut waiting);
                work = Some(Box::pin(async { Finished::Reload(house.reloader.reload().await) }));
            } else if work.is_none() && services_due {
                services_due = false;
                told = std::mem::take(&mut waiting_for_services);
                work = Some(Box::pin(async { Finished::Reload(house.reloader.apply_services().await) }));
            }
            let order = tokio::select! {
                biased;
                order = self.orders.recv() => order,
                finished = finish(work.as_mut()) => {
                    work = None;
                    match finished {
                        Finished::Reload(outcome) => {
                            std::mem::take(&mut told).into_iter().for_each(|answer| tell(answer, outcome.clone()));
                        }
                        Finished::Upgrade(Ok(successor)) => {
                            if reload_due {
                                // It may have read the files before they were changed.
                                successor.reload();
                            }
                            let moved = refusal("the process was replaced, and the new one told to reload");
                            let all = waiting.into_iter().chain(waiting_for_services);
                            all.for_each(|answer| tell(answer, moved.clone()));
                            return self.hand_over(house, successor, upgrading).await;
                        }
                        Finished::Upgrade(Err(why)) => {
                            // All of it is for whoever asked; in the log one line says it.
                            let first = why.lines().next().unwrap_or_default();
                            tracing::error!("upgrade failed, this process goes on: {first}");
                            if let Some(order) = upgrading.take() {
                                order.done(refusal(&why));
                            }
                        }
                    }
                    continue;
                }
            };
            // No sender left cannot be: we hold one.
            let Some(order) = order else { return Ending::Stopped };
            match order.command {
                Command::Reopen => {
                    (house.reopen)();
                    order.done(serde_json::json!({ "ok": true }));
                }
                Command::Reload => {
                    reload_due = true;
                    if waiting.len() < WAITING_MAX {
                        waiting.push(order.answer);
                    }
                }
                Command::Services => {
                    services_due = true;
                    if waiting_for_services.len() < WAITING_MAX {
                        waiting_for_services.push(order.answer);
                    }
                }
                Command::Upgrade if upgrading.is_some() || upgrade_due.is_some() => {
                    tracing::warn!("an upgrade is under way already");
                    order.done(refusal("an upgrade is under way already"));
                }
                Command::Upgrade => upgrade_due = Some(order),
                Command::Quit => {
                    // A new process that does not serve yet is not going to.
                    drop(work);
                    let others = told.into_iter().chain(waiting).chain(waiting_for_services);
                    let upgrades = [upgrading, upgrade_due].into_iter().flatten().map(|order| order.answer);
                    others.chain(upgrades).for_each(|answer| tell(answer, refusal("the process is ending")));
                    order.done(house.quitting());
                    return self.quit(house).await;
                }
                Command::Stop => {
                    order.done(serde_json::json!({ "ok": true }));
                    return Ending::Stopped;
                }
            }
        }
    }

    async fn quit(&mut self, house: &House<'_>) -> Ending {
        house.health.drain();
        house.announce_end();
        tracing::info!(open = house.connections.open(), "draining");
        let ServerSettings { grace_period, drain_delay, .. } = house.current.load().server.clone();
        self.drain(house, drain_delay, grace_period, QUIT_LINGER, None).await
    }

    /// A successor accepts already: nothing is refused while this process serves out what it has.
    async fn hand_over(&mut self, house: &House<'_>, successor: Successor, order: Option<Order>) -> Ending {
        let pid = successor.release();
        tracing::info!(successor = pid, open = house.connections.open(), "handed over, draining");
        house.connections.pass_on();
        self.handed_over.send_replace(true);
        let current = house.current.load();
        let (grace_period, idle_timeout) = (current.server.grace_period, current.limits.idle_timeout);
        drop(current);
        let linger = idle_timeout.min(grace_period / 2);
        let told = order.map(|order| (order, serde_json::json!({ "ok": true, "pid": pid })));
        self.drain(house, Duration::ZERO, grace_period, linger, told).await
    }

    async fn drain(
        &mut self,
        house: &House<'_>,
        delay: Duration,
        grace_period: Duration,
        linger: Duration,
        told: Option<(Order, serde_json::Value)>,
    ) -> Ending {
        let (stop_accepting, draining) = (self.stop_accepting.clone(), self.draining.clone());
        let drained = async {
            tokio::time::sleep(delay).await;
            house.upgrader.let_go();
            house.connections.linger_for(linger);
            stop_accepting.send_replace(true);
            draining.send_replace(true);
            if let Some((order, outcome)) = told {
                // The listeners hold the other ends. Whoever comes after the answer is served by the next process.
                let closed = tokio::time::timeout(CLOSE_TIMEOUT, stop_accepting.closed()).await;
                closed.unwrap_or_else(|_| tracing::warn!("connections are still accepted"));
                order.done(outcome);
                // It is written before this process may end.
                tokio::task::yield_now().await;
            }
            match tokio::time::timeout(grace_period, house.connections.all_closed()).await {
                Ok(()) => Ending::Drained,
                Err(_) => Ending::GraceOver(house.connections.open()),
            }
        };
        tokio::pin!(drained);
        // A second QUIT changes nothing; INT does.
        loop {
            tokio::select! {
                ending = &mut drained => return ending,
                order = self.orders.recv() => match order {
                    Some(order) if order.command == Command::Stop => {
                        order.done(serde_json::json!({ "ok": true }));
                        return Ending::Stopped;
                    }
                    Some(order) if order.command == Command::Reopen => {
                        (house.reopen)();
                        order.done(serde_json::json!({ "ok": true }));
                    }
                    Some(order) if order.command == Command::Quit => order.done(house.quitting()),
                    // Asked for by the store's changes, not by anybody: what is left is served as it began.
                    Some(order) if order.command == Command::Services => {
                        order.done(refusal("this process is leaving"));
                    }
                    Some(order) => {
                        tracing::warn!(command = ?order.command, "not carried out: this process is leaving");
                        order.done(refusal("this process is leaving"));
                    }
                    None => return Ending::Stopped,
                }
            }
        }
    }
}

/// The end of the work under way; never, without any.
async fn finish(work: Option<&mut Work<'_>>) -> Finished {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

/// What orders are carried out on.
pub struct House<'h> {
    /// The configuration in force, which says how long a leaving process has.
    pub current: &'h Current,
    /// Told first when the process quits: load balancers in front look here.
    pub health: Arc<Health>,
    /// Waited for.
    pub connections: Arc<Connections>,
    /// Reopens the log files.
    pub reopen: &'h dyn Fn(),
    /// Loads the configuration anew.
    pub reloader: &'h Reloader,
    /// Starts the next process.
    pub upgrader: &'h Upgrader,
}

impl House<'_> {
    /// The answer to a quit.
    fn quitting(&self) -> serde_json::Value {
        let current = self.current.load();
        ending(current.server.drain_delay.saturating_add(current.server.grace_period))
    }

    fn announce_end(&self) {
        super::service_manager::stopping();
    }
}

impl std::fmt::Debug for House<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("House").finish_non_exhaustive()
    }
}

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything that was open came to its end.
    Drained,
    /// So many connections were still open when the grace period was over.
    GraceOver(usize),
    /// At once, as asked.
    Stopped,
}

/// Installs the handlers (from now on no signal kills) and returns what turns signals into orders while polled.
pub(super) fn signals(orders: mpsc::Sender<Order>) -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user1 = signal(SignalKind::user_defined1())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Sent to who writes a file beyond what it may (`ulimit -f`), and would end the process: the write fails all the same,
    // as on a disk that is full. The handler stays.
    drop(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
    Ok(async move {
        loop {
            let command = tokio::select! {
                () = recv(&mut interrupt) => Command::Stop,
                () = recv(&mut terminate) => Command::Quit,
                () = recv(&mut quit) => Command::Quit,
                () = recv(&mut user1) => Command::Reopen,
                () = recv(&mut hangup) => Command::Reload,
                () = recv(&mut user2) => Command::Upgrade,
            };
            if orders.send(Order::unanswered(command)).await.is_err() {
                return;
            }
        }
    })
}

async fn recv(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}
