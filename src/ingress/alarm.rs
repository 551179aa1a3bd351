//! Deadlines of connections, at the cost of an atomic store.
//!
//! A timer a request would be registered and dropped tens of thousands of times a second and hardly ever fire. Instead
//! every connection has one alarm: a moment and a waker. One task looks through all of them every [`SWEEP`] and wakes
//! those whose moment has passed. Deadlines are kept to within that: they are seconds, not milliseconds.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::{clock, task};

/// How late an alarm may be. Looking through 10,000 connections takes a tenth of a millisecond.
const SWEEP: Duration = Duration::from_millis(25);

/// No alarm is set.
const NONE: u64 = 0;
/// It went off.
const RANG: u64 = u64::MAX;

/// The alarm of one connection. One task waits for it: the one that serves the connection.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    /// When, in milliseconds of [`Alarms::moment`]; or [`NONE`], or [`RANG`].
    at: AtomicU64,
    waker: AtomicWaker,
    /// One of [`Idle`].
    idle: AtomicU8,
    retired: AtomicBool,
    retiring: Notify,
}

/// Whether a connection waits for its next request, and how it is ended then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Idle {
    /// Something is under way.
    No = 0,
    /// By its alarm, which is set to the end of that wait.
    Rings = 1,
    /// In order: its client is told before.
    Retires = 2,
}

impl Alarm {
    /// Sets it to go off at `at_ms`, unless that is what it is set to, and waits for it.
    pub(crate) fn poll(&self, at_ms: u64, set: &mut u64, cx: &mut Context<'_>) -> Poll<()> {
        if *set != at_ms {
            *set = at_ms;
            self.at.store(at_ms.clamp(NONE + 1, RANG - 1), Ordering::Relaxed);
        }
        self.waker.register(cx.waker());
        // After the registration: whoever rings from now on wakes us.
        if self.at.load(Ordering::Acquire) == RANG { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Has whoever waits for it look again at what it is to be set to.
    pub(crate) fn nudge(&self) {
        self.waker.wake();
    }

    /// Nothing is waited for.
    pub(crate) fn clear(&self) {
        self.at.store(NONE, Ordering::Relaxed);
    }

    /// Says whether its connection idles.
    pub(crate) fn idle(&self, idle: Idle) {
        self.idle.store(idle as u8, Ordering::Relaxed);
    }

    /// Has the connection end once what is open on it is done: what it was made for holds no longer.
    pub(crate) fn retire(&self) {
        if !self.retired.swap(true, Ordering::Relaxed) {
            self.retiring.notify_one();
        }
    }

    /// Whether it is to end.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Resolves once it is to end; for one waiter.
    pub(crate) async fn retirement(&self) {
        self.retiring.notified().await;
    }

    /// Since when it idles, in an order of its own; `None` while something is under way.
    fn idles_until(&self) -> Option<u64> {
        let idles = self.idle.load(Ordering::Relaxed) != Idle::No as u8 && !self.is_retired();
        Some(self.at.load(Ordering::Relaxed)).filter(|at| idles && *at != RANG)
    }

    /// Ends its connection, if that still idles.
    fn end_idle(&self) {
        let idle = self.idle.load(Ordering::Relaxed);
        if idle == Idle::Retires as u8 {
            self.retire();
        } else if idle == Idle::Rings as u8 {
            self.ring_if_due(RANG - 1);
        }
    }

    fn ring_if_due(&self, now_ms: u64) {
        let at = self.at.load(Ordering::Relaxed);
        let due = at != NONE && at != RANG && at <= now_ms;
        // If it was set anew meanwhile, that is another moment.
        if due && self.at.compare_exchange(at, RANG, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.waker.wake();
        }
    }
}

/// The alarms of all connections.
#[derive(Debug)]
pub(crate) struct Alarms {
    began: Instant,
    /// When they were last looked through, as [`Alarms::moment`] counts.
    looked_ms: AtomicU64,
    alarms: Mutex<Vec<Weak<Alarm>>>,
    /// There is one again.
    came: Arc<Notify>,
    sweeper: Mutex<Option<task::AbortOnDrop>>,
}

impl Default for Alarms {
    fn default() -> Self {
        Self {
            began: clock::now(),
            looked_ms: AtomicU64::new(0),
            alarms: Mutex::default(),
            came: Arc::default(),
            sweeper: Mutex::default(),
        }
    }
}

impl Alarms {
    /// `at` in milliseconds since these alarms were made, rounded up.
    pub(crate) fn moment(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.began)).saturating_add(1)
    }

    /// The instant that [`Alarms::moment`] gave `moment` for; up to a millisecond later.
    pub(crate) fn instant(&self, moment: u64) -> Option<Instant> {
        self.began.checked_add(Duration::from_millis(moment))
    }

    /// The moment `time` from now. Does not ask the clock, so it may be as far off as an alarm.
    pub(crate) fn after(&self, time: Duration) -> u64 {
        let now = self.looked_ms.load(Ordering::Relaxed).saturating_add(millis(SWEEP));
        now.saturating_add(millis(time))
    }

    /// A new alarm, looked after until it is dropped. The first one starts the looking.
    pub(crate) fn alarm(self: &Arc<Self>) -> Arc<Alarm> {
        let alarm = Arc::new(Alarm::default());
        let mut alarms = self.alarms.lock();
        if alarms.is_empty() {
            // Nobody has looked for a while.
            self.looked_ms.store(self.elapsed(), Ordering::Relaxed);
            self.came.notify_one();
        }
        alarms.push(Arc::downgrade(&alarm));
        drop(alarms);
        self.watch();
        alarm
    }

    /// Starts the looking on the current runtime, unless it goes on already.
    pub(crate) fn watch(self: &Arc<Self>) {
        let mut sweeper = self.sweeper.lock();
        if sweeper.is_none() {
            let (alarms, came) = (Arc::downgrade(self), self.came.clone());
            let work = task::keep("alarms", move || sweep(alarms.clone(), came.clone()));
            *sweeper = Some(task::AbortOnDrop::new(work));
        }
    }

    /// Ends the connections that have idled longest, at most so many.
    pub(crate) fn end_idle(&self, most: usize) {
        let mut idle: Vec<(u64, Arc<Alarm>)> = Vec::new();
        for alarm in self.alarms.lock().iter().filter_map(Weak::upgrade) {
            idle.extend(alarm.idles_until().map(|until| (until, alarm)));
        }
        // All of them may idle for the same time: who would be closed first has idled longest.
        idle.sort_unstable_by_key(|(until, _)| *until);
        idle.iter().take(most).for_each(|(_, alarm)| alarm.end_idle());
    }

    /// Milliseconds since these alarms were made, rounded down.
    fn elapsed(&self) -> u64 {
        millis(clock::now().saturating_duration_since(self.began))
    }

    /// Wakes those whose moment has passed; `false` if there are none left at all.
    fn ring(&self) -> bool {
        let now_ms = self.elapsed();
        self.looked_ms.store(now_ms, Ordering::Relaxed);
        let mut alarms = self.alarms.lock();
        alarms.retain(|alarm| match alarm.upgrade() {
            Some(alarm) => {
                alarm.ring_if_due(now_ms);
                true
            }
            None => false,
        });
        !alarms.is_empty()
    }
}

/// Whole milliseconds; at most what can be added to any moment of this process.
fn millis(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1000).saturating_add(u64::from(time.subsec_millis())).min(u64::MAX / 4)
}

async fn sweep(alarms: Weak<Alarms>, came: Arc<Notify>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(any_left) = alarms.upgrade().map(|alarms| alarms.ring()) else { return };
        // A process that nobody asks does not wake up to look at nothing.
        if !any_left {
            came.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::{Wake, Waker};

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An alarm that is put off does not ring at its first moment, and one that rang stays so until it is set anew.
    #[test]
    fn rings_once_at_its_last_moment() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let (alarm, mut set) = (Alarm::default(), 0);
        alarm.ring_if_due(1_000);
        assert!(alarm.poll(50, &mut set, &mut cx).is_pending());
        assert!(alarm.poll(80, &mut set, &mut cx).is_pending());
        alarm.ring_if_due(60);
        assert!(alarm.poll(80, &mut set, &mut cx).is_pending());
        alarm.ring_if_due(80);
        alarm.ring_if_due(90);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(alarm.poll(80, &mut set, &mut cx).is_ready());
        assert!(alarm.poll(200, &mut set, &mut cx).is_pending());
        alarm.clear();
        alarm.ring_if_due(300);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    /// Without alarms nobody looks, and the first one that comes again goes by the clock of then.
    #[tokio::test(start_paused = true)]
    async fn nobody_looks_while_there_are_none() {
        const UNTOUCHED: u64 = u64::MAX / 8;
        let alarms = Arc::new(Alarms::default());
        drop(alarms.alarm());
        tokio::time::sleep(SWEEP * 10).await;
        alarms.looked_ms.store(UNTOUCHED, Ordering::Relaxed);
        tokio::time::sleep(SWEEP * 10).await;
        assert_eq!(alarms.looked_ms.load(Ordering::Relaxed), UNTOUCHED);

        let _alarm = alarms.alarm();
        assert!(alarms.looked_ms.swap(UNTOUCHED, Ordering::Relaxed) <= alarms.elapsed());
        tokio::time::sleep(SWEEP * 10).await;
        assert!(alarms.looked_ms.load(Ordering::Relaxed) <= alarms.elapsed(), "they are looked after again");
    }

    #[tokio::test]
    async fn who_has_idled_longest_is_ended_first() {
        let waker = Waker::from(Arc::new(Count(AtomicUsize::new(0))));
        let mut cx = Context::from_waker(&waker);
        let alarms = Arc::new(Alarms::default());
        let all: Vec<_> = (0..5).map(|_| alarms.alarm()).collect();
        let mut set = [0; 5];
        let far = alarms.after(Duration::from_secs(3600));
        let mut rings = |n: usize, by: u64| all[n].poll(by, &mut set[n], &mut cx).is_ready();
        for (n, idle) in
            [Idle::Rings, Idle::Rings, Idle::No, Idle::Rings, Idle::Retires].into_iter().enumerate()
        {
            all[n].idle(idle);
            // Later ones idle longer; what serves a request has the nearest alarm.
            assert!(!rings(n, if n == 4 { far } else { far - 10 * n as u64 }));
        }
        alarms.end_idle(2);
        assert!(rings(3, far - 30) && rings(1, far - 10) && !rings(0, far) && !rings(2, far - 20));
        alarms.end_idle(2);
        assert!(rings(0, far) && !rings(2, far - 20));
        assert!(all[4].is_retired());
        all[4].retirement().await;
    }
}
