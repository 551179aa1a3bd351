//! What the streams of one connection may hand to the library before it has written what it has.
//!
//! A client may open windows as wide as it likes and then read nothing. Each stream has a bound of its own in the
//! library, but there may be more than a hundred of them: here is one for all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;

/// Bytes of bodies handed over between two turns of the library, in all.
const TURN_BYTES: usize = 128 * 1024;

/// The bound of one connection.
#[derive(Debug)]
pub(super) struct Outlet {
    left: AtomicUsize,
    /// Those who found none left. Only the task of the connection takes the lock.
    waiting: Mutex<Vec<Waker>>,
}

impl Default for Outlet {
    fn default() -> Self {
        Self { left: AtomicUsize::new(TURN_BYTES), waiting: Mutex::default() }
    }
}

impl Outlet {
    /// How many bytes may be handed over now.
    pub(super) fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    /// So many were.
    pub(super) fn spend(&self, count: usize) {
        let left = self.left().saturating_sub(count);
        self.left.store(left, Ordering::Relaxed);
    }

    /// Has who found none left woken as soon as there are some.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        let mut waiting = self.waiting.lock();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
    }

    /// The library has written all that it had.
    pub(super) fn refill(&self) {
        if self.left.swap(TURN_BYTES, Ordering::Relaxed) == 0 {
            let waiting = std::mem::take(&mut *self.waiting.lock());
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_finds_none_left_is_woken_once_when_there_are_some() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let cx = Context::from_waker(&waker);
        let outlet = Outlet::default();
        outlet.spend(TURN_BYTES - 1);
        outlet.refill();
        assert_eq!(outlet.left(), TURN_BYTES);
        // More than was left, as the library's bound is not ours.
        outlet.spend(2 * TURN_BYTES);
        assert_eq!(outlet.left(), 0);
        outlet.wait(&cx);
        outlet.wait(&cx);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        outlet.refill();
        assert_eq!(outlet.left(), TURN_BYTES);
        outlet.refill();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
