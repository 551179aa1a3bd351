//! Watch over a server that should be answering, at the cost of an atomic store.
//!
//! Pingora makes two timers a request for it and drops them again. But while a server is waited for, the client's
//! connection is read, too, to notice that it is gone, and has an [alarm](super::alarm): the alarm can as well go off
//! for the server. A hook says so when the server has said something.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::alarm::Alarms;

/// How long the server of one exchange has been silent.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    /// Longest, in milliseconds; 0 = nobody watches.
    longest: AtomicU64,
    /// The moment when it has been too long.
    at: AtomicU64,
    /// That moment came once. Should the task not have run for a while, what the server said meanwhile is found now.
    last_call: AtomicBool,
    /// It was too long.
    over: AtomicBool,
}

impl Silence {
    pub(super) fn watch(&self, longest: Option<Duration>) {
        let longest =
            longest.map_or(0, |longest| u64::try_from(longest.as_millis()).unwrap_or(u64::MAX).max(1));
        self.longest.store(longest, Ordering::Relaxed);
        self.over.store(false, Ordering::Relaxed);
    }

    pub(super) fn restart(&self, alarms: &Alarms) {
        let longest = self.longest.load(Ordering::Relaxed);
        if longest > 0 {
            self.at.store(alarms.after(Duration::from_millis(longest)), Ordering::Relaxed);
            self.last_call.store(false, Ordering::Relaxed);
        }
    }

    /// When it will have been too long; `None` while nobody watches.
    pub(super) fn moment(&self) -> Option<u64> {
        let watched = self.longest.load(Ordering::Relaxed) > 0;
        watched.then(|| self.at.load(Ordering::Relaxed))
    }

    /// [`Silence::moment`] came. Whether that is the end; if not, it is put off.
    pub(super) fn is_over(&self, alarms: &Alarms) -> bool {
        if self.last_call.swap(true, Ordering::Relaxed) {
            self.over.store(true, Ordering::Relaxed);
            return true;
        }
        self.at.store(alarms.after(Duration::ZERO), Ordering::Relaxed);
        false
    }

    pub(super) fn take(&self) -> bool {
        self.longest.store(0, Ordering::Relaxed);
        self.over.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_over_at_its_second_moment() {
        let (silence, alarms) = (Silence::default(), Alarms::default());
        assert_eq!(silence.moment(), None);
        silence.watch(Some(Duration::from_secs(5)));
        silence.restart(&alarms);
        let first = silence.moment().unwrap();
        assert!((5_000..6_000).contains(&first));
        assert!(!silence.is_over(&alarms));
        assert!(silence.moment().unwrap() < first);
        silence.restart(&alarms);
        assert!(!silence.is_over(&alarms), "it spoke in between");
        assert!(!silence.take());
        silence.watch(Some(Duration::from_secs(5)));
        silence.restart(&alarms);
        assert!(!silence.is_over(&alarms) && silence.is_over(&alarms));
        assert!(silence.take() && !silence.take());
        assert_eq!(silence.moment(), None);
    }
}
