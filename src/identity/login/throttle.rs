//! How often somebody may be wrong: failed logins, by address and by account, before any password is worked on.
//!
//! A failure costs a place in two buckets, that of the address and that of the account; both fill again with time, so
//! nobody is locked out, only slowed down. Whoever wants to slow down somebody else by failing in his name has no hold of
//! where he logs in from: networks from which an account was logged in to have a bucket of their own for it.
//!
//! Memory is fixed. Where more keys come than there is room for, the one that has failed least makes way.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::base::decode::Rate;

/// How many failures are let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    /// Of one address; of IPv6, of one /56.
    pub per_address: Rate,
    /// Of one account, whoever tries.
    pub per_account: Rate,
}

/// Counts failures for a process: a reload keeps them.
#[derive(Debug)]
pub struct Throttle {
    began: Instant,
    keys: RandomState,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By key: when its bucket is full again, in microseconds.
    buckets: Table,
    /// By account and network: when it was last logged in from there, in microseconds.
    familiar: Table,
}

/// An attempt that was let through, and counts as a failure until it is known to be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    address: Take,
    account: Option<Take>,
    /// The key of the account from this network.
    pair: u64,
}

/// One place taken in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Take {
    key: u64,
    /// What it costs, in microseconds.
    cost: u64,
}

/// How long a network is remembered from which an account was logged in to.
const FAMILIAR: Duration = Duration::from_secs(30 * 86_400);

impl Throttle {
    /// Has counted nothing at `now`.
    pub fn new(now: Instant) -> Self {
        Self { began: now, keys: RandomState::new(), state: Mutex::default() }
    }

    /// Lets an attempt to log in to `account` from `address` through, or says how long to wait.
    pub fn login(
        &self,
        address: IpAddr,
        account: &str,
        failures: &Failures,
        now: Instant,
    ) -> Result<Attempt, Duration> {
        let (network, now) = (network(address), self.micros(now));
        let pair = self.keys.hash_one((2_u8, account, network));
        let mut state = self.state.lock();
        let address = state.buckets.take(self.keys.hash_one((0_u8, network)), failures.per_address, now)?;
        let seen = state.familiar.get(pair).is_some_and(|seen| now.saturating_sub(seen) < micros(FAMILIAR));
        let key = if seen { pair } else { self.keys.hash_one((1_u8, account)) };
        match state.buckets.take(key, failures.per_account, now) {
            Ok(account) => Ok(Attempt { address, account: Some(account), pair }),
            Err(wait) => {
                state.buckets.give_back(address);
                Err(wait)
            }
        }
    }

    /// Lets an attempt to show something from `address` through that is of no account, or says how long to wait.
    pub fn other(&self, address: IpAddr, failures: &Failures, now: Instant) -> Result<Attempt, Duration> {
        let now = self.micros(now);
        let key = self.keys.hash_one((0_u8, network(address)));
        let address = self.state.lock().buckets.take(key, failures.per_address, now)?;
        Ok(Attempt { address, account: None, pair: 0 })
    }

    /// It was right.
    pub fn succeeded(&self, attempt: Attempt, now: Instant) {
        let now = self.micros(now);
        self.uncounted(attempt);
        if attempt.account.is_some() {
            *self.state.lock().familiar.entry(attempt.pair) = now;
        }
    }

    /// Nobody knows whether it was: it does not count.
    pub fn uncounted(&self, attempt: Attempt) {
        let mut state = self.state.lock();
        state.buckets.give_back(attempt.address);
        attempt.account.into_iter().for_each(|account| state.buckets.give_back(account));
    }

    fn micros(&self, at: Instant) -> u64 {
        // From 1 on, so that no time is one of an empty place.
        micros(at.saturating_duration_since(self.began)).saturating_add(1)
    }
}

/// What counts as one address: IPv6 hands out whole networks (as with rate limits).
fn network(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() & (u128::MAX << (128 - NETWORK_BITS)),
    }
}

const NETWORK_BITS: u32 = 56;
const _: () = assert!(Ipv6Addr::BITS == 128);

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Times by key: [`SETS`] sets of [`WAYS`] places each, 256 KiB once it is used.
#[derive(Debug, Default)]
struct Table {
    sets: Vec<[Slot; WAYS]>,
    /// What is written when there is no place at all, which there always is.
    nowhere: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: u64,
    at: u64,
}

const SETS: usize = 2048;
const WAYS: usize = 8;

impl Table {
    fn get(&self, key: u64) -> Option<u64> {
        self.sets.get(set_of(key))?.iter().find(|slot| slot.key == key).map(|slot| slot.at)
    }

    /// The time of `key`; 0 for a new one, which takes the place of the earliest time of its set.
    fn entry(&mut self, key: u64) -> &mut u64 {
        if self.sets.is_empty() {
            self.sets = vec![[Slot::default(); WAYS]; SETS];
        }
        let Some(set) = self.sets.get_mut(set_of(key)) else { return &mut self.nowhere };
        let place = set.iter().position(|slot| slot.key == key);
        let place =
            place.or_else(|| set.iter().enumerate().min_by_key(|(_, slot)| slot.at).map(|(at, _)| at));
        let Some(slot) = place.and_then(|place| set.get_mut(place)) else { return &mut self.nowhere };
        if slot.key != key {
            *slot = Slot { key, at: 0 };
        }
        &mut slot.at
    }

    /// Takes a place in the bucket of `key`, or says how long it takes until there is one (the generic cell rate
    /// algorithm: the bucket holds `rate.count`, and is filled evenly within `rate.per`).
    fn take(&mut self, key: u64, rate: Rate, now: u64) -> Result<Take, Duration> {
        let cost = (micros(rate.per) / rate.count.max(1)).max(1);
        let depth = cost.saturating_mul(rate.count.saturating_sub(1));
        let full_at = self.get(key).unwrap_or(0).max(now);
        match (full_at - now).checked_sub(depth).filter(|wait| *wait > 0) {
            Some(wait) => Err(Duration::from_micros(wait)),
            None => {
                *self.entry(key) = full_at.saturating_add(cost);
                Ok(Take { key, cost })
            }
        }
    }

    fn give_back(&mut self, take: Take) {
        if self.get(take.key).is_some() {
            let at = self.entry(take.key);
            *at = at.saturating_sub(take.cost);
        }
    }
}

fn set_of(key: u64) -> usize {
    usize::try_from(key % SETS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;

    const FAILURES: Failures = Failures {
        per_address: Rate { count: 6, per: Duration::from_secs(60) },
        per_account: Rate { count: 3, per: Duration::from_secs(60) },
    };

    struct Case {
        throttle: Throttle,
        t0: Instant,
    }

    impl Case {
        fn new() -> Self {
            let t0 = clock::now();
            Self { throttle: Throttle::new(t0), t0 }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.t0 + Duration::from_secs(seconds)
        }

        /// How many failures of `account` from `address` pass in a row, and the seconds to wait for the next.
        fn failures(&self, address: &str, account: &str, second: u64) -> (usize, u64) {
            let mut passed = 0;
            loop {
                let address = address.parse().unwrap();
                match self.throttle.login(address, account, &FAILURES, self.at(second)) {
                    Ok(_) => passed += 1,
                    Err(wait) => return (passed, wait.as_millis().div_ceil(1000) as u64),
                }
                assert!(passed < 1000);
            }
        }

        fn success(&self, address: &str, account: &str, second: u64) -> bool {
            let now = self.at(second);
            let attempt = self.throttle.login(address.parse().unwrap(), account, &FAILURES, now);
            attempt.map(|attempt| self.throttle.succeeded(attempt, now)).is_ok()
        }
    }

    #[test]
    fn an_account_is_slowed_down_and_never_locked() {
        let case = Case::new();
        assert_eq!(case.failures("192.0.2.1", "alice", 0), (3, 20));
        assert_eq!(case.failures("192.0.2.2", "alice", 0), (0, 20), "wherever from");
        assert_eq!(case.failures("192.0.2.2", "bob", 0), (3, 20), "others are not concerned");
        assert_eq!(case.failures("192.0.2.3", "alice", 20), (1, 20));
        assert_eq!(case.failures("192.0.2.3", "alice", 600), (3, 20));
    }

    #[test]
    fn an_address_is_slowed_down_whatever_accounts_it_tries() {
        let case = Case::new();
        for (account, passed) in [("a", 3), ("b", 3), ("c", 0)] {
            assert_eq!(case.failures("192.0.2.1", account, 0).0, passed, "{account}");
        }
        assert_eq!(case.failures("192.0.2.1", "d", 10), (1, 10));
        assert_eq!(case.failures("::ffff:192.0.2.1", "d", 10).0, 0, "the same, in another dress");
        assert_eq!(case.failures("192.0.2.2", "d", 10).0, 2, "what the other tried of it counts");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let case = Case::new();
        assert_eq!(case.failures("2001:db8:1:1200::1", "a", 0).0, 3);
        assert_eq!(case.failures("2001:db8:1:12ff::2", "b", 0).0, 3);
        assert_eq!(case.failures("2001:db8:1:1234::3", "c", 0).0, 0);
        assert_eq!(case.failures("2001:db8:1:1300::1", "c", 0).0, 3);
    }

    /// Who fails in the name of another does not slow him down where he is known.
    #[test]
    fn a_lockout_cannot_be_aimed() {
        let case = Case::new();
        assert!(case.success("198.51.100.7", "alice", 0));
        for second in 1..100 {
            case.failures(&format!("192.0.2.{second}"), "alice", second);
            assert!(case.success("198.51.100.7", "alice", second), "{second}");
        }
        assert!(!case.success("198.51.100.8", "alice", 100), "elsewhere he has to wait his turn");
        assert_eq!(case.failures("198.51.100.7", "alice", 100).0, 3, "not that he may guess for ever");
        assert!(!case.success("198.51.100.7", "alice", 100));
    }

    #[test]
    fn successes_and_what_nobody_judged_cost_nothing() {
        let case = Case::new();
        for _ in 0..50 {
            assert!(case.success("192.0.2.1", "alice", 0));
            let address = "192.0.2.1".parse().unwrap();
            let attempt = case.throttle.login(address, "bob", &FAILURES, case.at(0)).unwrap();
            case.throttle.uncounted(attempt);
            let attempt = case.throttle.other(address, &FAILURES, case.at(0)).unwrap();
            case.throttle.uncounted(attempt);
        }
        assert_eq!(case.failures("192.0.2.1", "bob", 0).0, 3);
    }

    /// Many at once, before the first of them is known to have failed, are no way around.
    #[test]
    fn attempts_under_way_count() {
        let case = Case::new();
        let attempt =
            |_| case.throttle.login("192.0.2.1".parse().unwrap(), "a", &FAILURES, case.at(0)).is_ok();
        assert_eq!((0..100).map(attempt).filter(|passed| *passed).count(), 3);
    }

    /// A flood of accounts neither grows the table nor makes it forget the one that is being guessed at.
    #[test]
    fn memory_is_bounded_and_the_worst_are_kept() {
        let case = Case::new();
        assert_eq!(case.failures("192.0.2.1", "victim", 0).0, 3);
        for number in 0_u32..100_000 {
            let address = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
            let account = format!("user{number}");
            assert!(case.throttle.login(address, &account, &FAILURES, case.at(0)).is_ok());
        }
        assert_eq!(case.throttle.state.lock().buckets.sets.len(), SETS);
        assert_eq!(case.failures("198.51.100.1", "victim", 0).0, 0);
    }
}
