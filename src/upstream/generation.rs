//! Which of a server's HTTP/2 connections new requests may share.
//!
//! Such a connection carries all requests there are, and one whose server is gone without a word (a router that lost its
//! table, a machine that lost its power) looks like one whose server takes its time: a ping finds that out, in half a
//! minute. Until then each request would run into its time-out. So one that does, while nobody else was answered either,
//! ends a **generation**: later requests make a connection anew, and what is under way on the old one goes on.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Of one server.
#[derive(Debug, Default)]
pub(super) struct Generations {
    number: AtomicU64,
    answers: AtomicU64,
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

    /// Who began in `own` waited in vain.
    pub(super) fn silent(&self, own: Generation) {
        if self.answers.load(Relaxed) == own.answers {
            // Of many that wait together the first ends it.
            let (Ok(_) | Err(_)) =
                self.number.compare_exchange(own.number, own.number.wrapping_add(1), Relaxed, Relaxed);
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

    #[test]
    fn a_silence_ends_a_generation_once_unless_somebody_was_answered() {
        let all = Generations::default();
        let (mut one, two, mut three) = (all.now(), all.now(), all.now());
        assert_eq!(one.of(7), 7, "the first is as if there were none");
        all.answered(&mut one);
        all.silent(two);
        assert_eq!(all.now().number, 0, "one was answered while two waited");
        // Nothing has come since.
        all.silent(one);
        assert_eq!(all.now().number, 1);
        all.answered(&mut three);
        all.silent(three);
        assert_eq!(all.now().number, 1, "it was of the one before");
        let (four, five) = (all.now(), all.now());
        all.silent(four);
        all.silent(five);
        assert_eq!(all.now().number, 2);
        assert_ne!(all.now().of(7), four.of(7));
    }
}
