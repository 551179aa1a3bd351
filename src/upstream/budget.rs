//! Retry budget of one upstream: when everything fails, retries must not multiply the load.
//!
//! Each request deposits its share (20% by default), each retry costs one. Deposits fade within [`BUDGET_MEMORY`], so
//! that a good hour does not pay for a storm. A floor keeps quiet upstreams able to retry at all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Retries per second that are always allowed.
pub const BUDGET_FLOOR_PER_SECOND: f64 = 3.0;
/// How long a deposit lasts.
pub const BUDGET_MEMORY: Duration = Duration::from_secs(10);

/// The retry budget of one upstream.
#[derive(Debug)]
pub struct Budget {
    share: f64,
    /// Requests since the last withdrawal: the request path only counts; everything else happens when a retry is due.
    requests: AtomicU64,
    account: Mutex<Account>,
}

#[derive(Debug)]
struct Account {
    at: Instant,
    earned: f64,
    floor: f64,
}

impl Budget {
    /// A budget of `share` (0 to 1) of the requests, with a full floor.
    pub fn new(share: f64, now: Instant) -> Self {
        let account = Account { at: now, earned: 0.0, floor: BUDGET_FLOOR_PER_SECOND };
        Self { share: share.clamp(0.0, 1.0), requests: AtomicU64::new(0), account: Mutex::new(account) }
    }

    /// Counts one request (not its retries).
    #[inline]
    pub fn deposit(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one retry out, if there is one.
    pub fn withdraw(&self, now: Instant) -> bool {
        let mut account = self.account.lock();
        let requests = self.requests.swap(0, Ordering::Relaxed);
        account.settle(requests, self.share, now);
        let Account { earned, floor, .. } = &mut *account;
        match [earned, floor].into_iter().find(|purse| **purse >= 1.0) {
            Some(purse) => {
                *purse -= 1.0;
                true
            }
            None => false,
        }
    }
}

impl Account {
    /// Brings the account up to `now`. Requests since the last time are taken as spread evenly over it: those older
    /// than the memory earn nothing any more.
    #[expect(clippy::cast_precision_loss, reason = "a request count is far below 2^52")]
    fn settle(&mut self, requests: u64, share: f64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64() / BUDGET_MEMORY.as_secs_f64();
        let recent = if elapsed > 1.0 { 1.0 / elapsed } else { 1.0 };
        self.earned = self.earned * (1.0 - elapsed).max(0.0) + requests as f64 * share * recent;
        self.floor = (self.floor + elapsed * BUDGET_MEMORY.as_secs_f64() * BUDGET_FLOOR_PER_SECOND)
            .min(BUDGET_FLOOR_PER_SECOND);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::clock;

    fn withdrawals(budget: &Budget, now: Instant) -> usize {
        std::iter::repeat_with(|| budget.withdraw(now)).take(100_000).take_while(|allowed| *allowed).count()
    }

    #[test]
    fn floor_allows_three_a_second_without_any_traffic() {
        let start = clock::now();
        let budget = Budget::new(0.2, start);
        for second in 0..5 {
            assert_eq!(withdrawals(&budget, start + Duration::from_secs(second)), 3);
        }
    }

    #[test]
    fn requests_pay_for_retries() {
        let start = clock::now();
        let budget = Budget::new(0.2, start);
        for _ in 0..1_000 {
            budget.deposit();
        }
        assert_eq!(withdrawals(&budget, start + Duration::from_secs(1)), 203);
    }

    #[test]
    fn old_requests_do_not_pay() {
        let start = clock::now();
        let budget = Budget::new(0.2, start);
        for _ in 0..1_000 {
            budget.deposit();
        }
        // 1000 requests in 100 seconds: 100 of them in the last ten.
        assert_eq!(withdrawals(&budget, start + Duration::from_secs(100)), 23);
    }

    #[test]
    fn no_share_leaves_the_floor() {
        let start = clock::now();
        let budget = Budget::new(0.0, start);
        (0..1_000).for_each(|_| budget.deposit());
        assert_eq!(withdrawals(&budget, start), 3);
    }

    proptest! {
        /// Retries never exceed share x requests + floor x time + one second's floor.
        #[test]
        fn never_more_than_earned(
            share in 0.0_f64..=1.0,
            steps in proptest::collection::vec((0_u64..50, 0_u64..3_000, 0_usize..50), 1..60),
        ) {
            let start = clock::now();
            let budget = Budget::new(share, start);
            let (mut now, mut requests, mut retries) = (start, 0_u64, 0_usize);
            for (deposits, wait_ms, wanted) in steps {
                (0..deposits).for_each(|_| budget.deposit());
                requests += deposits;
                now += Duration::from_millis(wait_ms);
                retries += (0..wanted).filter(|_| budget.withdraw(now)).count();
                let floor = BUDGET_FLOOR_PER_SECOND * ((now - start).as_secs_f64() + 1.0);
                prop_assert!(retries as f64 <= share * requests as f64 + floor + 1e-6);
            }
        }
    }
}
