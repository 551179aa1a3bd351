//! For what may happen a thousand times a second and is worth a line a minute.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets one of many through.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    /// Whether it is to be said at `now`, having been said no later than `every` ago: how many times it was not said
    /// since.
    pub fn now(&self, now: Instant, every: Duration) -> Option<u64> {
        let mut state = self.0.lock();
        if state.next.is_some_and(|next| now < next) {
            state.unsaid += 1;
            return None;
        }
        state.next = now.checked_add(every);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;

    #[test]
    fn says_how_often_it_was_silent() {
        let (seldom, t0) = (Seldom::default(), clock::now());
        let at = |seconds| seldom.now(t0 + Duration::from_secs(seconds), Duration::from_secs(60));
        let said: Vec<_> = [0, 1, 59, 60, 61, 200].map(at).into();
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
