//! Spawning: every task of the process starts here, so that it is named in the log when it panics, and counted.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::task::JoinHandle;

use super::{clock, panics};

static RUNNING: AtomicUsize = AtomicUsize::new(0);
static RESTARTS: AtomicU64 = AtomicU64::new(0);

/// How many tasks started here have not ended.
pub fn running() -> usize {
    RUNNING.load(Ordering::Relaxed)
}

/// How often a task of [`keep`] panicked, and was started again.
pub fn restarts() -> u64 {
    RESTARTS.load(Ordering::Relaxed)
}

/// Spawns `work` on the current runtime. A panic in it ends only it, and is logged under `name`.
pub fn spawn<F>(name: &'static str, work: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let guard = Running::new();
    let work = panics::contained(work).map(move |ended| {
        drop(guard);
        if let Err(said) = ended {
            tracing::error!(task = name, "task panicked: {said}");
        }
    });
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    tokio::spawn(work)
}

/// Spawns what `begin` gives, and again after a pause whenever that panics: for what goes on beside requests for as long
/// as the process, or what the task belongs to. Ends when the work does.
pub fn keep<F>(name: &'static str, mut begin: impl FnMut() -> F + Send + 'static) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut pauses = Pauses::default();
    spawn(name, async move {
        loop {
            let began = clock::now();
            let Err(said) = panics::contained(begin()).await else { return };
            pauses.restart(name, &said, began).await;
        }
    })
}

/// A pause of about `pause`, give or take a quarter: instances that lost something together do not come back for it in
/// step.
pub fn spread(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// The pauses between attempts at something that others may have lost, too: each about twice as long as the one before,
/// from a first to a longest one, and [`spread`].
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Those from about `first` to about `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next one.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        spread(pause)
    }

    /// Begins again with the first: something was achieved.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Runs `work`, which blocks, on a thread where that keeps nobody waiting.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(work)
}

/// Spawns `work` on another runtime than the current one; otherwise as [`spawn`].
pub fn spawn_on<F>(runtime: &tokio::runtime::Handle, name: &'static str, work: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let _entered = runtime.enter();
    spawn(name, work)
}

/// The pauses before work that panicked is begun anew.
#[derive(Debug, Default)]
pub struct Pauses(u32);

/// The longest pause is so many times as long as the first.
const DOUBLINGS_MAX: u32 = 6;
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Who runs for so long has recovered: the next pause is a short one again.
const LASTING: Duration = Duration::from_secs(120);

impl Pauses {
    /// Counts and tells that `name`, which `began` then, panicked, and waits until it is to begin anew.
    pub async fn restart(&mut self, name: &'static str, said: &str, began: Instant) {
        RESTARTS.fetch_add(1, Ordering::Relaxed);
        let ran = clock::now().saturating_duration_since(began);
        let pause = self.next(ran, fastrand::f64());
        tracing::error!(task = name, "task panicked, and is started again: {said}");
        tokio::time::sleep(pause).await;
    }

    /// The pause after a run that lasted `ran`; `random` is below 1.
    fn next(&mut self, ran: Duration, random: f64) -> Duration {
        if ran >= LASTING {
            self.0 = 0;
        }
        let pause = PAUSE_MIN.saturating_mul(1 << self.0);
        self.0 = self.0.saturating_add(1).min(DOUBLINGS_MAX);
        pause.mul_f64(0.5 + random)
    }
}

/// Aborts its task when dropped: for tasks that belong to a value.
#[derive(Debug)]
pub struct AbortOnDrop(JoinHandle<()>);

impl AbortOnDrop {
    /// Ties `handle` to the returned value.
    pub fn new(handle: JoinHandle<()>) -> Self {
        Self(handle)
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One of [`RUNNING`], until it is dropped.
struct Running;

impl Running {
    fn new() -> Self {
        RUNNING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn what_is_kept_begins_anew_after_a_panic_and_ends_with_its_work() {
        let rounds = Arc::new(AtomicUsize::new(0));
        let counted = rounds.clone();
        let kept = keep("test", move || {
            let round = counted.fetch_add(1, Ordering::Relaxed);
            async move { assert!(round == 1, "round {round}") }
        });
        kept.await.unwrap();
        assert_eq!(rounds.load(Ordering::Relaxed), 2);
        assert!(restarts() >= 1);
    }

    #[test]
    fn pauses_are_spread_by_a_quarter() {
        let pauses: Vec<_> = (0..1000).map(|_| spread(Duration::from_secs(4)).as_millis()).collect();
        assert!(pauses.iter().all(|pause| (3000..5000).contains(pause)), "{pauses:?}");
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(*least < 3100 && *most > 4900, "{least} to {most}");
    }

    #[test]
    fn a_backoff_doubles_to_a_bound_is_spread_and_begins_again() {
        let nominal = [50, 100, 200, 400, 800, 1000, 1000, 1000];
        let mut met = std::collections::HashSet::new();
        for _ in 0..100 {
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
            for middle in nominal.map(Duration::from_millis) {
                let pause = backoff.pause();
                assert!(
                    pause >= middle.mul_f64(0.75) && pause <= middle.mul_f64(1.25),
                    "{middle:?}: {pause:?}"
                );
                met.insert(pause);
            }
            backoff.reset();
            assert!(backoff.pause() <= Duration::from_micros(62_500));
        }
        assert!(met.len() > 700, "no two instances pause alike: {}", met.len());
    }

    #[test]
    fn pauses_grow_to_a_bound_are_spread_and_forget() {
        let mut pauses = Pauses::default();
        let middle: Vec<_> = (0..9).map(|_| pauses.next(Duration::ZERO, 0.5).as_millis()).collect();
        assert_eq!(middle, [500, 1000, 2000, 4000, 8000, 16000, 32000, 32000, 32000]);
        assert_eq!(pauses.next(LASTING, 0.0).as_millis(), 250);
        assert_eq!(pauses.next(Duration::ZERO, 0.999).as_millis(), 1499);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use tokio::net::TcpListener;

    use super::*;

    /// Sees how several that lose a server together come back for it: each keeps, as `keep` does, a connection to an
    /// address where all are closed at once. (Not by how much at most: a machine may be busy.)
    pub(crate) async fn come_back_one_by_one(mut keep: impl FnMut(std::net::SocketAddr)) {
        const SOME: usize = 16;
        let mut listeners = Vec::new();
        for _ in 0..SOME {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        for listener in &listeners {
            keep(listener.local_addr().unwrap());
        }
        let pauses = listeners.iter().map(|listener| async {
            let mut times = Vec::new();
            while times.len() < 6 {
                drop(listener.accept().await.unwrap());
                times.push(clock::now());
            }
            let pauses = times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0]).as_millis());
            pauses.collect::<Vec<_>>()
        });
        let all: Vec<Vec<u128>> = futures_util::future::join_all(pauses).await;
        for (at, middle) in [(2, 200), (3, 400), (4, 800)] {
            let met: Vec<_> = all.iter().map(|pauses| pauses[at]).collect();
            let (least, most) = (met.iter().min().unwrap(), met.iter().max().unwrap());
            assert!(most - least > middle / 10, "they come in step: {met:?}");
            assert!(*most > middle, "they come too soon: {met:?}");
        }
        // Who only comes late comes in step on a machine that is not busy.
        let early = |pauses: &Vec<u128>| pauses[2] < 190 || pauses[3] < 380 || pauses[4] < 760;
        assert!(all.iter().any(early), "{all:?}");
    }
}
