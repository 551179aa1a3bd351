//! How much of their quotas consumers, keys and others have used: counted in memory, kept in the store.
//!
//! ```text
//! request ─► Account (a lock of its own) ─► queue ─► once a second: what came in addition ─► store ─► the total of all
//!                       ▲                                                                               │ instances
//!                       └───────────── what other instances have written meanwhile ◄────────────────────┘
//! ```
//!
//! A request never waits for the store. What it counts by is read when the process starts, and followed once a second; an
//! account that is counted here learns the total of all instances whenever it is written. So a quota is exceeded by at most
//! what came within a second at each other instance, and after a process was killed by what it had not written: also a
//! second's worth, or less where a quota says so ([`Quota::unsaved_max`]).
//!
//! The ledger outlives configurations. An account belongs to a plan's name and an owner, so a reload goes on with it.

mod account;
mod period;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;

pub use account::{Account, AccountId, Full, Owner, Quota, Standing};
pub use period::{Every, Span};
pub use sync::Bookkeeper;

use account::Queue;

use crate::base::seldom::Seldom;

/// Locks that requests of different accounts take when they look for theirs. A power of two.
const SHARDS: usize = 16;
/// Accounts of those who are known, about 300 bytes each.
const ACCOUNTS_MAX: usize = 1_000_000;
/// Accounts of addresses: beyond, further ones share one.
const ADDRESSES_MAX: usize = 100_000;

/// All accounts of a process (or test).
#[derive(Debug)]
pub struct Ledger {
    shards: [Mutex<HashMap<AccountId, Arc<Account>>>; SHARDS],
    hasher: RandomState,
    known: AtomicUsize,
    addresses: AtomicUsize,
    plans: Mutex<HashMap<Box<str>, PlanId>>,
    /// Accounts with something that the store has not got.
    queue: Mutex<Vec<Arc<Account>>>,
    has_store: AtomicBool,
    /// The store was never read, or did not answer when it was last asked.
    is_away: AtomicBool,
    hurry: Notify,
    complaints: Seldom,
    /// The next shard that is looked through for what is over.
    round: AtomicUsize,
}

/// Stands for the name of a plan, for as long as the process lives: handles are found by it without comparing names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanId(u32);

impl PlanId {
    /// Its place in a list of all plans.
    pub fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            shards: Default::default(),
            hasher: RandomState::new(),
            known: AtomicUsize::new(0),
            addresses: AtomicUsize::new(0),
            plans: Mutex::default(),
            queue: Mutex::default(),
            has_store: AtomicBool::new(false),
            is_away: AtomicBool::new(false),
            hurry: Notify::new(),
            complaints: Seldom::default(),
            round: AtomicUsize::new(0),
        }
    }
}

impl Ledger {
    /// What stands for the plan called `name`.
    pub fn plan(&self, name: &str) -> PlanId {
        let mut plans = self.plans.lock();
        if let Some(known) = plans.get(name) {
            return *known;
        }
        let id = PlanId(u32::try_from(plans.len()).unwrap_or(u32::MAX));
        plans.insert(name.into(), id);
        id
    }

    /// There is a store: until it was read nobody knows what was used before.
    pub fn await_store(&self) {
        self.has_store.store(true, Relaxed);
        self.is_away.store(true, Relaxed);
    }

    /// Whether what is counted is kept.
    pub fn has_store(&self) -> bool {
        self.has_store.load(Relaxed)
    }

    /// Whether there is a store that was never read, or that does not answer at the moment.
    pub fn is_away(&self) -> bool {
        self.is_away.load(Relaxed)
    }

    /// The account under `id`. When there is no room for another one, further owners of the plan share one.
    pub fn account(&self, id: AccountId) -> Arc<Account> {
        let shard = self.shard(&id);
        let mut accounts = shard.lock();
        if let Some(known) = accounts.get(&id) {
            return known.clone();
        }
        let (number, most) = match &id.owner {
            Owner::Known(..) => (&self.known, ACCOUNTS_MAX),
            Owner::Address(_) => (&self.addresses, ADDRESSES_MAX),
        };
        let is_shared = matches!(&id.owner, Owner::Address(network) if network.is_empty());
        if !is_shared && number.fetch_add(1, Relaxed) >= most {
            number.fetch_sub(1, Relaxed);
            drop(accounts);
            return self.account(AccountId { plan: id.plan, owner: Owner::Address("".into()) });
        }
        let account = Arc::new(Account::new(id.clone()));
        accounts.insert(id, account.clone());
        account
    }

    /// Counts a request to `account` at `now`.
    ///
    /// # Errors
    /// There is no room for it: it is not counted.
    pub fn count(
        &self,
        account: &Arc<Account>,
        quota: &Quota,
        since: Option<i64>,
        now: i64,
    ) -> Result<Standing, Full> {
        let counted = account.count(quota, since, now, self.has_store());
        if matches!(counted, Err(Full::Unsaved(_)) | Ok((_, Queue::Hurry | Queue::New { hurries: true }))) {
            self.hurry.notify_one();
        }
        let (standing, queue) = counted?;
        if let Queue::New { .. } = queue {
            self.queue.lock().push(account.clone());
        }
        Ok(standing)
    }

    fn shard(&self, id: &AccountId) -> &Mutex<HashMap<AccountId, Arc<Account>>> {
        let at = usize::try_from(self.hasher.hash_one(id) >> 32).unwrap_or(0) % SHARDS;
        let [first, ..] = &self.shards;
        self.shards.get(at).unwrap_or(first)
    }

    /// Forgets accounts of one shard that nobody holds and whose periods are over.
    fn tidy(&self, now: i64) {
        let at = self.round.fetch_add(1, Relaxed) % SHARDS;
        let Some(shard) = self.shards.get(at) else { return };
        // Whoever wants one waits for the lock, and finds none: nobody counts to an account that is not here.
        shard.lock().retain(|id, account| {
            let is_kept = Arc::strong_count(account) > 1 || !account.is_over(now);
            if !is_kept {
                match id.owner {
                    Owner::Known(..) => self.known.fetch_sub(1, Relaxed),
                    Owner::Address(ref network) if network.is_empty() => 0,
                    Owner::Address(_) => self.addresses.fetch_sub(1, Relaxed),
                };
            }
            is_kept
        });
    }
}

type Held = SmallVec<[(PlanId, Arc<Account>); 1]>;

/// The accounts of one owner, found once and then held: by plan, of which it rarely has more than one.
#[derive(Debug, Default)]
pub struct Accounts {
    own_plan: OnceLock<PlanId>,
    held: ArcSwap<Held>,
}

impl Accounts {
    /// What stands for the plan that the owner itself names; `find` is asked the first time.
    pub fn own_plan(&self, find: impl FnOnce() -> PlanId) -> PlanId {
        *self.own_plan.get_or_init(find)
    }

    /// The account under `plan`; `find` is asked the first time.
    pub fn under(&self, plan: PlanId, find: impl FnOnce() -> Arc<Account>) -> Arc<Account> {
        let held = self.held.load();
        if let Some((_, account)) = held.iter().find(|(known, _)| *known == plan) {
            return account.clone();
        }
        drop(held);
        // Whoever is second holds the same one: there is one an id.
        let account = find();
        self.held.rcu(|held| {
            let mut held = (**held).clone();
            if !held.iter().any(|(known, _)| *known == plan) {
                held.push((plan, account.clone()));
            }
            held
        });
        account
    }
}

/// It says nothing about who somebody is.
impl PartialEq for Accounts {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Accounts {}
