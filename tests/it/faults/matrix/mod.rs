//! Every kind of peer, behind every kind of fault: a row a peer, a column a fault.
//!
//! What holds in each cell: requests are answered within the time-outs, rightly where the fault does no harm, and otherwise
//! with an error of the peer's kind, or with the beginning of the right answer that is seen to be no more than that; what
//! has nothing to do with the peer is served meanwhile; and once the fault is over, the right answer comes again, by itself.
//! At the end of a row nothing has panicked, and nothing is held that was not held before.

mod brokers;
mod clients;
mod columns;
mod legs;
mod log_bus;
mod outcome;
mod probes;
mod providers;
mod redis;
mod servers;
mod stores;
mod tunnels;

use self::columns::{Columns, Fault, nonsense};
use self::outcome::{Outcome, Sees, judged};
use super::*;

/// How a request is made.
#[derive(Clone, Copy, Debug)]
struct How {
    /// Over what has short time-outs: its answer is not to come.
    hasty: bool,
    /// Over a connection that is there already, where the row has the choice.
    kept: bool,
}

/// A peer.
struct Row<'a> {
    name: String,
    gw: &'a Gateway,
    chaos: &'a Chaos,
    /// One connection is kept for long, and made again in the background. Then a fault is seen, or over, after a while.
    lasting: bool,
    /// Longest a request may take; it has ten times as long.
    bound: Duration,
    /// What is served whatever happens to the peer.
    beside: &'a [&'a str],
    /// The codes of errors that clients may see; `None`: any.
    codes: fn(Sees) -> Option<&'static [&'static str]>,
    /// Every request has an answer that its client hears.
    hears_all: bool,
}

impl Row<'_> {
    /// Has each of the `faults` happen, on new connections and on those there are.
    async fn suffers(&self, faults: &[Fault], ask: impl AsyncFn(How) -> Outcome) {
        let patient = How { hasty: false, kept: false };
        self.is_well("at first", patient, &ask).await;
        let before = Held::of(self.gw);
        self.cells(faults, &ask).await;
        self.is_well("at the end", patient, &ask).await;
        before.is_all(self.gw).await;
    }

    async fn cells(&self, faults: &[Fault], ask: &impl AsyncFn(How) -> Outcome) {
        for fault in faults {
            for kept in [false, true] {
                if if kept { fault.reaches_open_ones() } else { fault.reaches_new_ones() } {
                    self.cell(fault, kept, ask).await;
                }
            }
        }
    }

    async fn cell(&self, fault: &Fault, kept: bool, ask: &impl AsyncFn(How) -> Outcome) {
        let shown =
            format!("{}, {}, {} connections", self.name, fault.what, if kept { "open" } else { "new" });
        let how = How { hasty: fault.may_be_silent(), kept };
        self.is_well(&format!("before {shown}"), how, ask).await;
        if fault.forgets {
            self.chaos.forget();
        } else if kept {
            self.chaos.set(fault.faults.clone());
        } else {
            self.chaos.strike(fault.faults.clone());
        }
        let began = Instant::now();
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What may be right at first is asked more often where one connection serves all.
        let mut left = if self.lasting && fault.sees.allows(&Outcome::Right, None) { 4 } else { 1 };
        while left > 0 {
            let began_one = Instant::now();
            let (outcome, ()) = tokio::join!(ask(how), self.serves_others(&shown));
            let took = began_one.elapsed();
            assert!(took < self.bound * 10, "{shown}: {took:?}: {outcome:?}");
            assert!(!self.hears_all || outcome != Outcome::Nothing, "{shown}: nothing");
            let is_wanted = fault.sees.allows(&outcome, (self.codes)(fault.sees));
            if is_wanted {
                left -= 1;
                continue;
            }
            // Meanwhile it may look like before, or like the connection that was lost.
            let is_passing = matches!(outcome, Outcome::Right)
                || matches!(&outcome, Outcome::Refused(_) if Sees::Any.allows(&outcome, (self.codes)(Sees::Any)));
            assert!(self.lasting && is_passing, "{shown}: {:?}, but {outcome:?}", fault.sees);
            assert!(began.elapsed() < PATIENCE, "{shown}: {outcome:?} for good, not {:?}", fault.sees);
            looks.tick().await;
        }
        self.chaos.heal();
        self.is_well(&format!("after {shown}"), How { hasty: false, kept }, ask).await;
    }

    async fn is_well(&self, when: &str, how: How, ask: &impl AsyncFn(How) -> Outcome) {
        let what = format!("{} to be well {when}", self.name);
        eventually(&what, async || {
            let outcome = ask(how).await;
            assert!(!matches!(outcome, Outcome::Wrong(_)), "{what}: {outcome:?}");
            (outcome == Outcome::Right).then_some(())
        })
        .await;
    }

    async fn serves_others(&self, shown: &str) {
        for path in self.beside {
            let began = Instant::now();
            let answer = self.gw.get(path).await;
            assert_eq!((answer.status, answer.broken), (200, None), "{shown}: {path}");
            assert!(began.elapsed() < Duration::from_secs(10), "{shown}: {path}: {:?}", began.elapsed());
        }
    }
}

/// Most of a cell is waiting: so many `lanes` wait at the same time, each with some of the `faults`, and all that it takes.
async fn in_lanes(lanes: usize, faults: &[Fault], suffers: impl AsyncFn(Vec<Fault>)) {
    let lanes = (0..lanes).map(|lane| {
        let faults = faults.iter().skip(lane).step_by(lanes).cloned().collect();
        Box::pin(suffers(faults))
    });
    futures_util::future::join_all(lanes).await;
}

/// What a process holds.
struct Held {
    descriptors: usize,
    threads: usize,
}

/// What may come in addition: connections that are kept for later, threads that sleep.
const MORE_DESCRIPTORS: usize = 40;
const MORE_THREADS: usize = 40;
const RESIDENT_MAX: u64 = 400 << 20;

impl Held {
    fn of(gw: &Gateway) -> Self {
        let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", gw.pid())).unwrap().count();
        Self { descriptors: count("fd"), threads: count("task") }
    }

    /// With so many connections besides.
    fn and(mut self, connections: usize) -> Self {
        self.descriptors += connections;
        self
    }

    /// Waits until there is not much more than that, and nothing is under way; nothing has panicked.
    async fn is_all(&self, gw: &Gateway) {
        eventually("descriptors and threads to be given back", async || {
            let now = Self::of(gw);
            (now.descriptors <= self.descriptors + MORE_DESCRIPTORS
                && now.threads <= self.threads + MORE_THREADS)
                .then_some(())
        })
        .await;
        gw.metric_is("edgeward_http_requests_in_flight", &[], 0.0).await;
        let forgiven = async || {
            let panics = gw.metric("edgeward_panics_total", &[]).await.unwrap();
            (panics == gw.panics_forgiven() as f64).then_some(panics)
        };
        let panics = eventually("no panic but those that are known", forgiven).await;
        let restarts = gw.metric("edgeward_task_restarts_total", &[]).await.unwrap();
        assert!(restarts <= panics, "{restarts}");
        assert!(gw.resident_bytes() < RESIDENT_MAX, "{} bytes", gw.resident_bytes());
    }
}
