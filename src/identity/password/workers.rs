//! Threads for passwords: a few, low in priority, with a short queue before them.
//!
//! A password costs tens of milliseconds of a core and megabytes of memory. How many are checked at once is bounded by
//! the number of threads, how many wait by the queue; what comes beyond is refused at once, and what nobody waits for any
//! more is not computed. Requests never run on these threads, nor these on theirs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{Check, Cost, Dearest, check};
use crate::base::{clock, fault, panics};
use crate::telemetry::metrics::Metrics;

/// How many passwords are worked on at once, and how many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Threads.
    pub workers: usize,
    /// Passwords that wait for one.
    pub queue: usize,
}

/// As many wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// How long it takes until those that wait are done, about.
    pub retry_after: Duration,
}

/// Why a password was not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckError {
    /// Too much is waiting already.
    Busy(Busy),
    /// The thread that had it is gone: a defect.
    Lost,
}

/// The threads of a process. They come with work, and go when there is none.
#[derive(Debug)]
pub struct Hashers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    metrics: Arc<Metrics>,
    /// How long the last one took.
    last_micros: AtomicU64,
    dearest: Dearest,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    threads: usize,
    /// Those of them that wait for work.
    idle: usize,
}

struct Job {
    password: String,
    stored: Option<String>,
    cost: Cost,
    answer: oneshot::Sender<Check>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("cost", &self.cost).finish_non_exhaustive()
    }
}

/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// What one password may be thought to take before any was checked.
const FIRST_GUESS: Duration = Duration::from_millis(50);

/// How much later than requests these threads get a core, on the scale of nice(1).
const NICE: i32 = 10;

impl Hashers {
    /// Starts nothing yet.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        let last_micros = AtomicU64::new(u64::try_from(FIRST_GUESS.as_micros()).unwrap_or_default());
        let (state, dearest) = (Mutex::default(), Dearest::default());
        let shared = Shared { state, work: Condvar::new(), metrics, last_micros, dearest };
        Arc::new(Self { shared: Arc::new(shared) })
    }

    /// [`check`], on one of the threads. When the returned future is dropped before its turn comes, nothing is computed.
    pub async fn check(
        &self,
        password: String,
        stored: Option<String>,
        cost: Cost,
        bounds: Bounds,
    ) -> Result<Check, CheckError> {
        let (answer, verdict) = oneshot::channel();
        let job = Job { password, stored, cost, answer };
        self.submit(job, bounds).map_err(CheckError::Busy)?;
        verdict.await.map_err(|_| CheckError::Lost)
    }

    fn submit(&self, job: Job, bounds: Bounds) -> Result<(), Busy> {
        let mut state = self.shared.state.lock();
        let has_hands = state.idle > state.waiting.len() || state.threads < bounds.workers;
        if !has_hands && state.waiting.len() >= bounds.queue {
            // Those who left make room.
            state.waiting.retain(|job| !job.answer.is_closed());
            if state.waiting.len() >= bounds.queue {
                return Err(self.busy(state.waiting.len(), bounds));
            }
        }
        if state.idle <= state.waiting.len() && state.threads < bounds.workers {
            if self.start_thread() {
                state.threads += 1;
            } else if state.threads == 0 {
                return Err(self.busy(0, bounds));
            }
        }
        state.waiting.push_back(job);
        self.shared.metrics.logins().passwords_waiting(state.waiting.len());
        drop(state);
        self.shared.work.notify_one();
        Ok(())
    }

    fn busy(&self, waiting: usize, bounds: Bounds) -> Busy {
        let each = Duration::from_micros(self.shared.last_micros.load(Relaxed));
        let rounds = u32::try_from(waiting / bounds.workers.max(1) + 1).unwrap_or(u32::MAX);
        Busy {
            retry_after: each.saturating_mul(rounds).clamp(Duration::from_secs(1), Duration::from_secs(30)),
        }
    }

    fn start_thread(&self) -> bool {
        let shared = self.shared.clone();
        let started = std::thread::Builder::new().name("password".to_owned()).spawn(move || work(&shared));
        if let Err(error) = &started {
            tracing::error!(%error, "no thread for passwords could be started");
        }
        started.is_ok()
    }

    /// How many threads there are, and how many passwords wait.
    #[cfg(test)]
    fn size(&self) -> (usize, usize) {
        let state = self.shared.state.lock();
        (state.threads, state.waiting.len())
    }
}

/// Counts its thread out, also when that panics.
struct Seat<'s>(&'s Shared);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.state.lock().threads -= 1;
        if std::thread::panicking() {
            tracing::error!("a thread for passwords panicked");
        }
    }
}

fn work(shared: &Shared) {
    // A request that waits for a core must not wait for a password. Where that cannot be had, it is only slower.
    rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE).unwrap_or_default();
    let _seat = Seat(shared);
    let mut memory = Vec::new();
    while let Some(job) = next(shared) {
        if job.answer.is_closed() {
            continue;
        }
        let began = clock::now();
        let verdict = panics::caught(|| {
            fault::point("password", "");
            check(&job.password, job.stored.as_deref(), job.cost, &shared.dearest, &mut memory)
        });
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(said) => {
                // Who waits learns that it is lost; the thread goes on with the next.
                tracing::error!("a check of a password panicked: {said}");
                memory = Vec::new();
                continue;
            }
        };
        let took = clock::now().saturating_duration_since(began);
        shared.last_micros.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        shared.metrics.logins().password_checked(took);
        if shared.state.lock().waiting.is_empty() {
            memory = Vec::new();
        }
        // Who left meanwhile does not want to know.
        drop(job.answer.send(verdict));
    }
}

/// The next password, once there is one; `None` when there was none for long.
fn next(shared: &Shared) -> Option<Job> {
    let mut state = shared.state.lock();
    loop {
        if let Some(job) = state.waiting.pop_front() {
            shared.metrics.logins().passwords_waiting(state.waiting.len());
            return Some(job);
        }
        state.idle += 1;
        let waited = shared.work.wait_for(&mut state, IDLE);
        state.idle -= 1;
        if waited.timed_out() && state.waiting.is_empty() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::hash;
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 1024, passes: 1 };
    /// Takes some hundred milliseconds, during which others wait.
    const DEAR: Cost = Cost { memory_kib: 64 * 1024, passes: 8 };

    fn hashers() -> Arc<Hashers> {
        Hashers::new(Metrics::new())
    }

    #[tokio::test]
    async fn verdicts_come_from_other_threads() {
        let (hashers, stored) = (hashers(), hash("right", CHEAP).unwrap());
        let bounds = Bounds { workers: 2, queue: 8 };
        for (password, wanted) in [("right", Check::Right { upgraded: None }), ("wrong", Check::Wrong)] {
            let verdict = hashers.check(password.into(), Some(stored.clone()), CHEAP, bounds).await;
            assert_eq!(verdict, Ok(wanted));
        }
        let (threads, waiting) = hashers.size();
        assert!((1..=2).contains(&threads) && waiting == 0, "{threads} threads, {waiting} waiting");
    }

    /// One is worked on, one waits, the third is refused; a place that was left is free again, and costs no hash.
    #[tokio::test]
    async fn the_queue_is_bounded_and_forgets_who_left() {
        let hashers = hashers();
        let bounds = Bounds { workers: 1, queue: 1 };
        let ask = |cost| hashers.check("x".into(), None, cost, bounds).boxed();
        let mut first = ask(DEAR);
        assert_eq!(first.as_mut().now_or_never(), None);
        // The only thread takes it up, now or soon.
        while hashers.size().1 > 0 {
            tokio::task::yield_now().await;
        }
        let mut second = ask(DEAR);
        assert_eq!(second.as_mut().now_or_never(), None);
        let refused = ask(CHEAP).await;
        let Err(CheckError::Busy(Busy { retry_after })) = refused else { panic!("{refused:?}") };
        assert!(retry_after >= Duration::from_secs(1));
        drop(second);
        let third = ask(CHEAP);
        assert_eq!((first.await, third.await), (Ok(Check::Wrong), Ok(Check::Wrong)));
        let (took, count) = hashers.shared.metrics.logins().passwords();
        assert_eq!(count, 2, "the one in between was not computed: {took} s in all");
    }
}
