//! Which of a server's HTTP/2 connections new requests may share.
//!
//! Such a connection carries all requests there are, and one whose server is gone without a word (a router that lost its
//! table, a machine that lost its power) looks like one whose server takes its time: a ping finds that out, in half a
//! minute. Until then each request would run into its time-out. So one that does, while nobody else was answered either,
//! ends a **generation**: later requests make a connection anew, and what is under way on the old one goes on. A server
//! that is slow for everybody looks the same, so that happens seldom.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The least time between two ends.
const LEAST: Duration = Duration::from_secs(5);

/// Of one server.
#[derive(Debug, Default)]
pub(super) struct Generations {
    number: AtomicU64,
    answers: AtomicU64,
    /// When the last one ended.
    ended: Mutex<Option<Instant>>,
}

/// How it was when a request began, or was last heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation {
    number: u64,
    answers: u64,
}

impl Generations {
    /// The one of now.
    pub(super) fn now(&self) -> Generation {
        Generation { number: self.number.load(Relaxed), answers: self.answers.load(Relaxed) }
    }

    /// Somebody was answered.
    pub(super) fn answered(&self, own: &mut Generation) {
        own.answers = self.answers.fetch_add(1, Relaxed).wrapping_add(1);
    }

    /// Who began in `own` waited in vain, until `now`.
    pub(super) fn silent(&self, own: Generation, now: Instant) {
        if self.now() != own {
            // Somebody was answered, or of many that wait together another was first.
            return;
        }
        let mut ended = self.ended.lock();
        if ended.is_none_or(|at| now.saturating_duration_since(at) >= LEAST)
            && self.number.load(Relaxed) == own.number
        {
            *ended = Some(now);
            self.number.store(own.number.wrapping_add(1), Relaxed);
        }
    }
}

impl Generation {
    /// Pingora's `key` of connections that may be shared, for this generation alone.
    pub(super) fn of(self, key: u64) -> u64 {
        // Any odd number tells them apart; this one spreads them.
        key.wrapping_add(self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;

    #[test]
    fn a_silence_ends_a_generation_once_unless_somebody_was_answered() {
        let (all, began) = (Generations::default(), clock::now());
        let (mut one, two, mut three) = (all.now(), all.now(), all.now());
        assert_eq!(one.of(7), 7, "the first is as if there were none");
        all.answered(&mut one);
        all.silent(two, began);
        assert_eq!(all.now().number, 0, "one was answered while two waited");
        // Nothing has come since.
        all.silent(one, began);
        assert_eq!(all.now().number, 1);
        all.answered(&mut three);
        all.silent(three, began + LEAST);
        assert_eq!(all.now().number, 1, "it was of the one before");
        let (four, five) = (all.now(), all.now());
        all.silent(four, began + LEAST / 2);
        assert_eq!(all.now().number, 1, "the last ended just now");
        all.silent(four, began + LEAST);
        all.silent(five, began + 2 * LEAST);
        assert_eq!(all.now().number, 2);
        assert_ne!(all.now().of(7), four.of(7));
    }
}
