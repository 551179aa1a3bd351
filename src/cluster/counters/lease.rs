//! Limits with so many requests a second that not each of them can ask Redis: permits are taken in batches.
//!
//! An instance takes a **batch** of permits, which Redis counts as used from then on, and hands them to requests without
//! asking. The law holds for the taking, so in any time no more requests pass than it admits in that time and permits that
//! were held when it began: at most one batch for each instance. A batch is worth `cluster.lease` at the limit's own rate,
//! and grows to that only where requests use it up sooner: a key with few requests is counted one by one.
//!
//! Where Redis has none left, nobody asks again before some have gathered: that is as long as a lease, or a quarter of the
//! time in which the burst fills up, so that nothing of the rate is lost.
//!
//! Permits that are not used soon are given back. Those lost on the way (a process that is killed) are counted and unused.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::{Ask, Counters, Failure, Receipt, Room, SharedKey, SharedLimit, Standing, Wanted};
use crate::base::clock;

/// Locks that requests of different keys take.
const SHARDS: usize = 16;
/// Keys of one limit that batches are held for; others are counted one by one.
const KEYS_MAX: usize = 16_384;
/// For how many times the lease permits may be held.
const HELD_FOR: u32 = 10;
/// For how long at most a refusal is remembered.
const REFUSAL_MAX: Duration = Duration::from_secs(1);

/// The batches of one limit.
#[derive(Debug)]
pub(super) struct Leases {
    batch_max: u64,
    lease: Duration,
    /// How long nobody asks after a refusal, at least.
    gather: Duration,
    shards: Box<[Shard]>,
}

type Shard = Mutex<HashMap<SharedKey, Arc<Batch>>>;

/// The permits of one key.
#[derive(Debug)]
struct Batch {
    held: Mutex<Held>,
    /// Something came of a question to Redis.
    told: Notify,
}

#[derive(Debug)]
struct Held {
    permits: u64,
    /// When they are given back.
    until: Instant,
    /// The moment of Redis at which the oldest of them were counted.
    counted_at: u64,
    /// How many to ask for.
    want: u64,
    /// When Redis last gave some, what was used since, and whether that was not enough.
    asked: Instant,
    used: u64,
    starved: bool,
    /// Whether a request is asking.
    asking: bool,
    /// What Redis refused last.
    refused: Option<Refused>,
    /// How the windows stood when Redis was last asked, permits taken then left out.
    rooms: SmallVec<[Room; 2]>,
}

/// Requests that cost as much are refused without asking, until there may be room.
#[derive(Debug, Clone, Copy)]
struct Refused {
    cost: u64,
    at: Instant,
    until: Instant,
}

/// What a request does next.
enum Turn {
    Go(Standing),
    Ask { least: u64, most: u64 },
    Wait,
}

impl Leases {
    pub(super) fn new(per_second: u64, burst: u64, lease: Duration) -> Self {
        let batch = u128::from(per_second) * lease.as_nanos() / 1_000_000_000;
        let filled = u128::from(burst) * 1_000_000_000 / u128::from(per_second.max(1));
        let filled = Duration::from_nanos(u64::try_from(filled).unwrap_or(u64::MAX));
        Self {
            gather: lease.min(filled / 4),
            batch_max: u64::try_from(batch).unwrap_or(u64::MAX).max(1),
            lease,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    pub(super) fn batch_max(&self) -> u64 {
        self.batch_max
    }

    /// One request: from the batch, or from the next one.
    pub(super) async fn take(
        &self,
        counters: &Arc<Counters>,
        ask: &Ask<'_>,
        deadline: Instant,
    ) -> Result<Standing, Failure> {
        let Some(batch) = self.batch(ask.key) else {
            let wanted = [Wanted { ask: *ask, least: ask.cost, most: ask.cost }];
            let (_, told) = counters.ask(&wanted, deadline).await?;
            return told.into_iter().next().map(|told| told.standing).ok_or(Failure::Slow);
        };
        loop {
            // Before looking, so that nothing that is told afterwards is missed.
            let mut told = pin!(batch.told.notified());
            let mut turn = batch.turn(self, counters, ask);
            if matches!(turn, Turn::Wait) {
                told.as_mut().enable();
                turn = batch.turn(self, counters, ask);
            }
            match turn {
                Turn::Go(standing) => return Ok(standing),
                Turn::Ask { least, most } => {
                    let asking = Asking(&batch);
                    let wanted = [Wanted { ask: *ask, least, most }];
                    let answer = counters.ask(&wanted, deadline).await;
                    let standing = self.learn(&batch, counters, ask, answer);
                    drop(asking);
                    if let Some(standing) = standing.transpose() {
                        return standing;
                    }
                }
                Turn::Wait => {
                    let left = deadline.saturating_duration_since(clock::now());
                    if left.is_zero() || tokio::time::timeout(left, told).await.is_err() {
                        return Err(Failure::Slow);
                    }
                }
            }
        }
    }

    /// Takes in what Redis said, and this request's permits first. `None` where they went to others meanwhile.
    fn learn(
        &self,
        batch: &Batch,
        counters: &Counters,
        ask: &Ask<'_>,
        answer: Result<(bool, SmallVec<[super::Told; 2]>), Failure>,
    ) -> Result<Option<Standing>, Failure> {
        let (admitted, told) = answer?;
        let told = told.into_iter().next().ok_or(Failure::Slow)?;
        let now = clock::now();
        let mut held = batch.held.lock();
        held.rooms = told.standing.rooms;
        if !admitted {
            let wait = held.rooms.iter().map(|room| room.wait).max().unwrap_or(0);
            held.starved = true;
            let until = now + Duration::from_nanos(wait).max(self.gather).min(REFUSAL_MAX);
            held.refused = Some(Refused { cost: ask.cost, at: now, until });
            return Ok(Some(held.refusal(now, now)));
        }
        held.refused = None;
        held.want = next_want(&held, now, self.lease, self.batch_max);
        held.asked = now;
        held.used = 0;
        held.starved = false;
        if held.permits == 0 {
            held.counted_at = told.standing.receipt.at;
        }
        held.permits += told.cost;
        held.until = now + self.lease * HELD_FOR;
        // What the batch took is not there for others any more.
        for room in &mut held.rooms {
            room.left = room.left.saturating_sub(told.cost);
        }
        counters.redis.metrics().permits("taken", told.cost);
        Ok(held.spend(ask.cost, counters))
    }

    /// Permits that are held for `key`.
    pub(super) fn held(&self, key: SharedKey) -> u64 {
        let batch = self.shard(key).and_then(|shard| shard.lock().get(&key).cloned());
        batch.map_or(0, |batch| batch.held.lock().permits)
    }

    /// A request that has just had permits does not count after all.
    pub(super) fn put_back(&self, ask: &Ask<'_>) {
        let batch = self.shard(ask.key).and_then(|shard| shard.lock().get(&ask.key).cloned());
        if let Some(batch) = batch {
            let mut held = batch.held.lock();
            // No more than a batch is ever held; what is above it stays used.
            held.permits = held.permits.saturating_add(ask.cost).min(self.batch_max.max(held.permits));
        }
    }

    /// Gives back what nobody used, and forgets keys that hold nothing.
    pub(super) fn tidy(&self, counters: &Arc<Counters>, limit: &Arc<SharedLimit>) {
        let now = clock::now();
        for shard in &self.shards {
            shard.lock().retain(|key, batch| {
                let mut held = batch.held.lock();
                held.give_back(counters, limit, *key, now);
                let is_refusing = held.refused.is_some_and(|refused| refused.until > now);
                held.permits > 0 || held.asking || is_refusing || Arc::strong_count(batch) > 1
            });
        }
    }

    fn batch(&self, key: SharedKey) -> Option<Arc<Batch>> {
        let mut shard = self.shard(key)?.lock();
        if let Some(batch) = shard.get(&key) {
            return Some(batch.clone());
        }
        if shard.len() >= KEYS_MAX / SHARDS {
            return None;
        }
        let now = clock::now();
        let held = Held {
            permits: 0,
            until: now,
            counted_at: 0,
            want: 1,
            asked: now,
            used: 0,
            starved: false,
            asking: false,
            refused: None,
            rooms: SmallVec::new(),
        };
        let batch = Arc::new(Batch { held: Mutex::new(held), told: Notify::new() });
        shard.insert(key, batch.clone());
        Some(batch)
    }

    fn shard(&self, key: SharedKey) -> Option<&Shard> {
        let [first, ..] = key.0;
        self.shards.get(usize::from(first) % SHARDS)
    }
}

/// How many permits to ask for next: as many as are used within a lease. Doubles at most, and never more than a batch.
fn next_want(held: &Held, now: Instant, lease: Duration, batch_max: u64) -> u64 {
    let passed = now.saturating_duration_since(held.asked).max(Duration::from_micros(1));
    if held.starved || (passed < lease && held.used > 0) {
        return held.want.saturating_mul(2).min(batch_max);
    }
    let used = u128::from(held.used) * lease.as_nanos() / passed.as_nanos();
    u64::try_from(used).unwrap_or(u64::MAX).clamp(1, batch_max)
}

impl Batch {
    fn turn(&self, leases: &Leases, counters: &Arc<Counters>, ask: &Ask<'_>) -> Turn {
        let now = clock::now();
        let mut held = self.held.lock();
        held.give_back(counters, ask.limit, ask.key, now);
        if let Some(standing) = held.spend(ask.cost, counters) {
            return Turn::Go(standing);
        }
        if let Some(refused) = held.refused.filter(|refused| refused.until > now && ask.cost >= refused.cost)
        {
            return Turn::Go(held.refusal(refused.at, now));
        }
        if held.asking {
            return Turn::Wait;
        }
        held.asking = true;
        let least = ask.cost - held.permits;
        Turn::Ask { least, most: least.max(held.want.min(leases.batch_max)) }
    }
}

impl Held {
    /// Takes `cost` permits, if there are as many.
    fn spend(&mut self, cost: u64, counters: &Counters) -> Option<Standing> {
        let left = self.permits.checked_sub(cost)?;
        // How the windows stood before this request, these permits and Redis's taken together.
        let mut rooms = self.rooms.clone();
        for room in &mut rooms {
            room.left = room.left.saturating_add(self.permits);
            room.wait = 0;
        }
        self.permits = left;
        self.used = self.used.saturating_add(cost);
        counters.redis.metrics().permits("used", cost);
        let receipt = Receipt { at: self.counted_at, delay: 0, leased: true };
        Some(Standing { rooms, admitted: true, delay: 0, receipt })
    }

    /// What is told to a request that Redis has refused at `at`, or one like it.
    fn refusal(&self, at: Instant, now: Instant) -> Standing {
        let passed = u64::try_from(now.saturating_duration_since(at).as_nanos()).unwrap_or(u64::MAX);
        let mut rooms = self.rooms.clone();
        for room in &mut rooms {
            room.left = room.left.saturating_add(self.permits);
            room.wait = if room.wait == 0 { 0 } else { room.wait.saturating_sub(passed).max(1) };
            room.empty_in = room.empty_in.saturating_sub(passed);
        }
        Standing {
            rooms,
            admitted: false,
            delay: 0,
            receipt: Receipt { at: self.counted_at, delay: 0, leased: true },
        }
    }

    fn give_back(
        &mut self,
        counters: &Arc<Counters>,
        limit: &Arc<SharedLimit>,
        key: SharedKey,
        now: Instant,
    ) {
        if self.permits > 0 && now >= self.until && !self.asking {
            let permits = std::mem::take(&mut self.permits);
            counters.redis.metrics().permits("returned", permits);
            // Who waits is never counted in batches.
            let receipt = Receipt { at: self.counted_at, delay: 0, leased: false };
            counters.return_later(limit, key, permits, receipt);
        }
    }
}

/// Somebody asks for the next batch; others wait for what comes of it, also when the request is gone.
struct Asking<'a>(&'a Batch);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.held.lock().asking = false;
        self.0.told.notify_waiters();
    }
}
