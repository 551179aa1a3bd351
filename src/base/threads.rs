//! The threads that serve connections: each has a runtime of its own, and a connection stays on one of them to its end.
//!
//! Threads that share a queue wake up for anything: one waits for the events of all, and where the kernel lets it wait for a
//! processor, because of what one client floods, all others wait as well. With its own events a thread is woken for
//! its own connections alone, and the kernel keeps threads apart whose clients have nothing to do with each other.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// The number of the current thread among those that serve, from 1; 0 for all others together.
pub fn number() -> usize {
    NUMBER.get()
}

/// Gives the current thread its number. For its beginning.
pub fn set_number(number: usize) {
    NUMBER.set(number);
}

/// `key` of connections that may be shared, for the current thread alone: the runtime of another one would have to be waited
/// for whenever something comes on them.
pub fn own_key(key: u64) -> u64 {
    // Any odd number tells them apart; this one spreads them.
    key.wrapping_add((number() as u64).wrapping_mul(0xd6e8_feb8_6659_fd93))
}

/// All threads that serve. Of none, connections are served where they are accepted.
#[derive(Debug, Default)]
pub struct Threads(Vec<Thread>);

#[derive(Debug)]
struct Thread {
    runtime: Handle,
    /// Connections that are served there.
    seated: AtomicUsize,
}

impl Threads {
    /// Those of these runtimes, whose only threads have the numbers from 1 on.
    pub fn of(runtimes: impl IntoIterator<Item = Handle>) -> Self {
        Self(runtimes.into_iter().map(|runtime| Thread { runtime, seated: AtomicUsize::new(0) }).collect())
    }

    /// A place for a connection that the current thread has accepted: on the thread with the fewest, which is the current one
    /// only if no other has as few. Whoever connects wakes it up, and those who sit there with it. `None` where there are no
    /// threads to choose from.
    pub fn seat(self: &Arc<Self>) -> Option<Seat> {
        let threads = self.0.iter().enumerate();
        let (index, thread) = threads
            .min_by_key(|(index, thread)| (thread.seated.load(Ordering::Relaxed), index + 1 == number()))?;
        thread.seated.fetch_add(1, Ordering::Relaxed);
        Some(Seat { threads: self.clone(), index })
    }
}

/// The place of a connection, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    threads: Arc<Threads>,
    index: usize,
}

impl Seat {
    /// The runtime of its thread, unless that is the current one.
    pub fn elsewhere(&self) -> Option<&Handle> {
        let thread = self.threads.0.get(self.index).filter(|_| self.index + 1 != number());
        thread.map(|thread| &thread.runtime)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(thread) = self.threads.0.get(self.index) {
            thread.seated.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_sit_where_there_are_the_fewest() {
        assert!(Arc::new(Threads::default()).seat().is_none());
        let threads = Arc::new(Threads::of([Handle::current(), Handle::current(), Handle::current()]));
        let first: Vec<Seat> = (0..3).filter_map(|_| threads.seat()).collect();
        assert_eq!(first.iter().map(|seat| seat.index).collect::<Vec<_>>(), [0, 1, 2]);
        let fourth = threads.seat().unwrap();
        assert_eq!(fourth.index, 0);
        drop(first);
        // The first thread still has one. The current one comes last.
        set_number(2);
        let third = threads.seat().unwrap();
        assert!(third.index == 2 && third.elsewhere().is_some());
        let second = threads.seat().unwrap();
        assert!(second.index == 1 && second.elsewhere().is_none());
        drop((second, fourth));
        assert_eq!(threads.seat().unwrap().index, 0);
        assert_ne!(own_key(1), 1);
        set_number(0);
        assert_eq!(own_key(1), 1);
    }
}
