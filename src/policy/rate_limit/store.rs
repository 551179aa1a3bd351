//! The counters of one limit for all keys: in this process, in memory.
//!
//! A step (all windows looked at, then counted) holds one lock, that of the key's shard, and waits for nothing. The number
//! of keys has a bound: an entry goes only when it is as good as a new one, and while none does, new keys share one
//! **overflow** entry. What a key used there it has used when it gets an entry of its own, too.
//!
//! Counters outlive configurations. A store belongs to a name, a kind of key and a layout; a limit that is written anew
//! with other windows gets a new store, which **adopts** what it can use of the old one, shard by shard. From then on the
//! old one is a signpost: requests that still run under the old configuration count in the new store as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::basis::{instant, nanos};
use super::bucket::{Bucket, BucketRule, Forgiven};
use super::key::KeyHash;
use super::ring::{Ring, WindowRule};
use super::rules::{Layout, Rules};
use super::table::{Counters, Standing, Table};

/// Locks that requests of different keys take. A power of two.
const SHARDS: usize = 64;

/// Keys that the processor has at hand without being told.
const NEAR: usize = 4096;

/// Entries looked at for one that can go: with every new key, and when there is no room for it.
const LOOKS: u32 = 2;
const LOOKS_WHEN_FULL: u32 = 16;

/// The key of the overflow entry; no request has it.
const OVERFLOW: KeyHash = KeyHash(1);

/// Whether a request counts together with others for which there was no room.
pub(super) fn is_overflow(key: KeyHash) -> bool {
    key == OVERFLOW
}

/// By bits that the place within the shard does not come from.
fn shard_of(key: KeyHash) -> usize {
    usize::try_from(key.0 % SHARDS as u64).unwrap_or(0)
}

/// The counters of one limit.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    /// The rules that it was made for: their windows are those of the layout.
    rules: Arc<Rules>,
    /// The newest rules that anybody counted by: also requests of an older configuration count by them.
    newest: Mutex<Arc<Rules>>,
    keys_max: usize,
    /// Entries there are, without the overflow entry.
    keys: AtomicUsize,
    shards: Box<[Mutex<Shard>]>,
    overflow: Mutex<Shard>,
    /// Whether the overflow entry was ever used.
    overflowed: AtomicBool,
    /// The newest configuration that counted here.
    generation: AtomicU64,
    /// What it takes over from, until nothing is left there.
    before: Mutex<Option<Arc<Store>>>,
    /// Shards that have been taken over.
    adopted: AtomicUsize,
    /// Where the next shard is looked at, for adoption or for entries that can go.
    round: AtomicUsize,
}

#[derive(Debug)]
struct Shard {
    table: Table,
    /// The latest moment seen: time never runs backwards here.
    latest: u64,
    /// Whether what an earlier store had is here.
    adopted: bool,
    /// The store that this shard was taken over by.
    moved: Option<Arc<Store>>,
}

/// What a request holds until it has ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Holding {
    /// 1 where requests under way are limited.
    pub(super) requests: u32,
    /// What is reserved for it in the windows.
    pub(super) reserved: u64,
    /// Whether that counts.
    pub(super) counts: bool,
}

/// What came of a request.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    /// How it stands; `None` where the rules were others than the caller's.
    pub(super) standing: Option<Standing>,
    pub(super) admitted: bool,
    /// The rules it was decided by, where they were newer than the caller's: what it holds is given back by them.
    pub(super) newer: Option<Arc<Rules>>,
    /// Nanoseconds until it may go on, or until another may.
    pub(super) wait: u64,
    /// Where it counts; to be named when it ends.
    pub(super) key: KeyHash,
    /// The moment at which that was decided: of one key never an earlier one than before.
    #[cfg_attr(not(test), expect(dead_code, reason = "the law is held against it"))]
    pub(super) at: u64,
}

impl Store {
    pub(super) fn new(rules: Arc<Rules>, keys_max: usize, before: Option<Arc<Self>>) -> Arc<Self> {
        let layout = rules.layout();
        let shard = || {
            Mutex::new(Shard {
                table: Table::new(&layout),
                latest: 0,
                adopted: before.is_none(),
                moved: None,
            })
        };
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            overflow: shard(),
            layout,
            newest: Mutex::new(rules.clone()),
            rules,
            keys_max,
            keys: AtomicUsize::new(0),
            overflowed: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            adopted: AtomicUsize::new(if before.is_some() { 0 } else { SHARDS + 1 }),
            before: Mutex::new(before),
            round: AtomicUsize::new(0),
        })
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn keys_max(&self) -> usize {
        self.keys_max
    }

    /// Keys that have an entry of their own.
    pub fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    /// Bytes that are kept for counters.
    pub fn bytes(&self) -> usize {
        let shards = self.shards.iter().chain([&self.overflow]);
        shards.map(|shard| size_of::<Mutex<Shard>>() + shard.lock().table.bytes()).sum()
    }

    /// Has the processor bring in what is kept of `key`, where that may be far: it is about to be asked for.
    pub(super) fn fetch(&self, key: KeyHash) {
        // Nobody waits for that.
        if self.keys() > NEAR
            && let Some(shard) = self.shard(key).try_lock()
        {
            shard.table.fetch(key);
        }
    }

    /// Looks at all windows of `key` for a request of `cost`, and counts it if all of them admit it: one step. One that
    /// would have to wait asks for a place by `may_wait`, with the nanoseconds, and is not admitted without.
    pub(super) fn take(
        self: &Arc<Self>,
        rules: &Arc<Rules>,
        key: KeyHash,
        cost: u64,
        now: Instant,
        may_wait: &dyn Fn(u64) -> bool,
    ) -> Taken {
        let now = nanos(now);
        self.note_generation(rules);
        if !self.is_current(rules) {
            return self.take_for_older(key, cost, now, may_wait);
        }
        self.adopt_one_more();
        let mut shard = self.shard(key).lock();
        self.adopt(&mut shard, Some(key));
        if let Some(moved) = shard.moved.clone() {
            drop(shard);
            return moved.take_for_older(key, cost, now, may_wait);
        }
        // Once more, under the lock that whatever newer rules have counted has been under.
        if !self.is_current(rules) {
            drop(shard);
            return self.take_for_older(key, cost, now, may_wait);
        }
        let now = shard.advance(now);
        if let Some(slot) = shard.table.find(key) {
            return self.step(&mut shard, rules, slot, (key, cost), now, may_wait);
        }
        match self.enter(&mut shard, rules, key, now) {
            Ok(Some(slot)) => {
                let now = shard.latest;
                return self.step(&mut shard, rules, slot, (key, cost), now, may_wait);
            }
            Ok(None) => {}
            Err(successor) => {
                drop(shard);
                return successor.take_for_older(key, cost, now, may_wait);
            }
        }
        // The key's own shard is let go only then: nobody makes an entry for it that lacks what it uses here.
        let overflow = self.overflow.lock();
        self.overflowed.store(true, Relaxed);
        drop(shard);
        let mut shard = overflow;
        self.adopt(&mut shard, None);
        if let Some(moved) = shard.moved.clone() {
            drop(shard);
            return moved.take_for_older(key, cost, now, may_wait);
        }
        if !self.is_current(rules) {
            drop(shard);
            return self.take_for_older(key, cost, now, may_wait);
        }
        let now = shard.advance(now);
        let slot = match shard.table.find(OVERFLOW) {
            Some(slot) => Some(slot),
            None => shard.table.insert(OVERFLOW, &Counters::default()),
        };
        match slot {
            Some(slot) => self.step(&mut shard, rules, slot, (OVERFLOW, cost), now, may_wait),
            // A table of one entry has a slot.
            None => Taken { standing: None, admitted: false, newer: None, wait: 1, key: OVERFLOW, at: now },
        }
    }

    /// How `key` stands, and whether that is a counter it shares with others: nothing is counted.
    pub(super) fn look(
        self: &Arc<Self>,
        rules: &Arc<Rules>,
        key: KeyHash,
        now: Instant,
    ) -> Option<(Standing, bool)> {
        let at = nanos(now);
        let mut shard = self.shard(key).lock();
        self.adopt(&mut shard, Some(key));
        if let Some(moved) = shard.moved.clone() {
            drop(shard);
            return moved.look(rules, key, now);
        }
        let at = at.max(shard.latest);
        if let Some(slot) = shard.table.find(key) {
            return Some((shard.table.standing(rules, slot, 0, at), false));
        }
        let overflow = self.overflow.lock();
        let shared = overflow.table.find(OVERFLOW);
        if let Some(slot) = shared.filter(|_| self.keys() >= self.keys_max) {
            return Some((overflow.table.standing(rules, slot, 0, at.max(overflow.latest)), true));
        }
        drop(overflow);
        // It would begin with what was used under the shared one.
        let begins = self.from_overflow(&mut shard, rules).ok()?;
        let mut alone = Table::new(&self.layout);
        let slot = alone.insert(key, &begins)?;
        Some((alone.standing(rules, slot, 0, at), false))
    }

    /// The same by the newest rules, for a request of a configuration that they replaced. It is told nothing of windows
    /// that it does not know.
    fn take_for_older(
        self: &Arc<Self>,
        key: KeyHash,
        cost: u64,
        now: u64,
        may_wait: &dyn Fn(u64) -> bool,
    ) -> Taken {
        let rules = self.newest_rules();
        let taken = self.take(&rules, key, cost, instant(now), may_wait);
        Taken { standing: None, newer: taken.newer.clone().or(Some(rules)), ..taken }
    }

    #[inline]
    fn step(
        &self,
        shard: &mut Shard,
        rules: &Rules,
        slot: usize,
        (key, cost): (KeyHash, u64),
        now: u64,
        may_wait: &dyn Fn(u64) -> bool,
    ) -> Taken {
        if self.is_current(rules) {
            shard.table.clamp(rules, slot);
        }
        let mut standing = shard.table.standing(rules, slot, cost, now);
        // Before anything is counted: there is nothing to give back.
        standing.admitted &= standing.delay == 0 || !standing.admitted || may_wait(standing.delay);
        let (admitted, mut wait) = (standing.admitted, standing.delay);
        if admitted {
            shard.table.admit(rules, slot, cost, now, standing.delay);
        } else {
            wait = standing.rooms.iter().map(|room| room.wait).max().unwrap_or(0);
        }
        Taken { standing: Some(standing), admitted, newer: None, wait, key, at: now }
    }

    /// A request that was admitted has ended: what it held is free, and counts if it is to.
    pub(super) fn end(self: &Arc<Self>, rules: &Arc<Rules>, key: KeyHash, held: Holding, now: Instant) {
        let mut shard = if key == OVERFLOW { self.overflow.lock() } else { self.shard(key).lock() };
        self.adopt(&mut shard, Some(key));
        if let Some(moved) = shard.moved.clone() {
            drop(shard);
            return moved.end(&moved.newest_rules(), key, held, now);
        }
        // By older rules it would lower a level to what they know.
        let newest = (!self.is_current(rules)).then(|| self.newest_rules());
        let rules = newest.as_ref().unwrap_or(rules);
        let now = shard.advance(nanos(now));
        // Its entry is there: one with a request under way never goes.
        let Some(slot) = shard.table.find(key) else { return };
        let reserved = u32::try_from(held.reserved).unwrap_or(u32::MAX);
        shard.table.release(slot, held.requests, reserved);
        if held.counts {
            shard.table.count(rules, slot, held.reserved, now, 0);
        }
    }

    /// Makes an entry for a new key, if there is or comes to be room for one. What it used before may be known to a
    /// successor alone, which is the error then.
    fn enter(
        self: &Arc<Self>,
        shard: &mut MutexGuard<'_, Shard>,
        rules: &Rules,
        key: KeyHash,
        now: u64,
    ) -> Result<Option<usize>, Arc<Self>> {
        let current = self.is_current(rules);
        if current {
            self.went(shard.table.sweep(rules, LOOKS, now));
        }
        let has_room = self.reserve() || current && self.make_room(shard, rules, now) && self.reserve();
        if !has_room {
            return Ok(None);
        }
        let slot = self.from_overflow(shard, rules).map(|counters| shard.table.insert(key, &counters));
        if !matches!(slot, Ok(Some(_))) {
            self.went(1);
        }
        slot
    }

    fn reserve(&self) -> bool {
        let more = |keys| (keys < self.keys_max).then_some(keys + 1);
        self.keys.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    fn went(&self, gone: usize) {
        if gone > 0 {
            self.keys.fetch_sub(gone, Relaxed);
        }
    }

    /// Looks for entries that can go, first in `shard`, then in a few others that nobody is at.
    fn make_room(&self, shard: &mut MutexGuard<'_, Shard>, rules: &Rules, now: u64) -> bool {
        let gone = shard.table.sweep(rules, LOOKS_WHEN_FULL, now);
        self.went(gone);
        if gone > 0 {
            return true;
        }
        for _ in 0..OTHERS_LOOKED_AT {
            let at = self.round.fetch_add(1, Relaxed) % SHARDS;
            let Some(mut other) = self.shards.get(at).and_then(Mutex::try_lock) else { continue };
            if !other.adopted || other.moved.is_some() || !self.is_current(rules) {
                continue;
            }
            let now = other.advance(now);
            let gone = other.table.sweep(rules, LOOKS_WHEN_FULL, now);
            self.went(gone);
            if gone > 0 {
                return true;
            }
        }
        false
    }

    /// What a new key begins with: nothing, or what was used under the overflow entry, which may all have been its own.
    fn from_overflow(self: &Arc<Self>, entering: &mut Shard, rules: &Rules) -> Result<Counters, Arc<Self>> {
        let mut counters = Counters::default();
        if !self.overflowed.load(Relaxed) && self.is_whole() {
            return Ok(counters);
        }
        let mut shard = self.overflow.lock();
        self.adopt(&mut shard, None);
        if let Some(successor) = shard.moved.clone() {
            return Err(successor);
        }
        let Some(slot) = shard.table.find(OVERFLOW) else { return Ok(counters) };
        // Time goes on there at a pace of its own.
        let now = entering.advance(shard.latest);
        // Those under way end there; what they may come to count for counts here from now on.
        counters = shard.table.counters(slot).with_reserved(rules, now);
        Ok(counters)
    }

    fn newest_rules(&self) -> Arc<Rules> {
        self.newest.lock().clone()
    }

    #[inline]
    fn note_generation(&self, rules: &Arc<Rules>) {
        if self.generation.load(Relaxed) < rules.generation {
            let mut newest = self.newest.lock();
            if self.generation.fetch_max(rules.generation, Relaxed) < rules.generation {
                *newest = rules.clone();
            }
        }
    }

    /// Whether nobody counts by newer rules: older ones neither lower a level nor let an entry go.
    #[inline]
    fn is_current(&self, rules: &Rules) -> bool {
        rules.generation >= self.generation.load(Relaxed)
    }

    #[inline]
    fn shard(&self, key: KeyHash) -> &Mutex<Shard> {
        self.shards.get(shard_of(key)).unwrap_or(&self.overflow)
    }

    /// Whether there is no store before that anything could be taken over from.
    #[inline]
    fn is_whole(&self) -> bool {
        self.adopted.load(Relaxed) > SHARDS
    }

    /// Takes over all that is left, if anything was taken over: the two hold each other until that is done.
    pub(super) fn finish_adopting(self: &Arc<Self>) {
        if self.is_whole() || self.adopted.load(Relaxed) == 0 {
            return;
        }
        for (at, shard) in self.shards.iter().chain([&self.overflow]).enumerate() {
            self.adopt_at(&mut shard.lock(), at);
        }
    }

    /// Takes over one more shard of the store before, so that it is gone soon, also where few keys come.
    fn adopt_one_more(self: &Arc<Self>) {
        if self.is_whole() {
            return;
        }
        let at = self.round.fetch_add(1, Relaxed) % (SHARDS + 1);
        let shard = self.shards.get(at).unwrap_or(&self.overflow);
        if let Some(mut shard) = shard.try_lock() {
            self.adopt_at(&mut shard, at);
        }
    }

    /// Takes over what the store before has in the place of `shard`, that of `key`.
    #[inline]
    fn adopt(self: &Arc<Self>, shard: &mut MutexGuard<'_, Shard>, key: Option<KeyHash>) {
        if shard.adopted {
            return;
        }
        let at = key.filter(|key| *key != OVERFLOW).map_or(SHARDS, shard_of);
        self.adopt_at(shard, at);
    }

    fn adopt_at(self: &Arc<Self>, shard: &mut MutexGuard<'_, Shard>, at: usize) {
        if shard.adopted {
            return;
        }
        shard.adopted = true;
        let before = self.before.lock().clone();
        let Some(before) = before else { return };
        let mut old = before.shards.get(at).unwrap_or(&before.overflow).lock();
        // A store that was never counted in may stand between.
        before.adopt_at(&mut old, at);
        shard.latest = shard.latest.max(old.latest);
        let all = old.table.drain(&before.layout);
        let rules = before.newest_rules();
        for (key, counters) in all {
            // Where nothing is reserved any more it counts at once.
            let counters =
                if self.layout.held { counters } else { counters.with_reserved(&rules, shard.latest) };
            let counters = self.converted(&before, counters, shard.latest);
            // More than `keys_max`, for as long as they are not as good as new ones: nobody's counter is lost.
            if shard.table.insert(key, &counters).is_some() && key != OVERFLOW {
                self.keys.fetch_add(1, Relaxed);
            }
            if key == OVERFLOW {
                self.overflowed.store(true, Relaxed);
            }
        }
        old.moved = Some(self.clone());
        drop(old);
        if self.adopted.fetch_add(1, Relaxed) == SHARDS {
            *self.before.lock() = None;
        }
    }

    /// Shows all counters that are not as good as new ones at `now`, with what is reserved in them counted.
    pub(super) fn each_in_use(&self, now: u64, mut show: impl FnMut(KeyHash, &Counters)) {
        let rules = self.newest_rules();
        for shard in self.shards.iter().chain([&self.overflow]) {
            shard.lock().table.each_in_use(&rules, now, &mut show);
        }
    }

    /// Takes in counters of `layout` that another process had at `now`; those that are here already stay. Says how many.
    pub(super) fn import(&self, layout: &Layout, entries: Vec<(KeyHash, Counters)>, now: u64) -> usize {
        let rules = Rules {
            bucket: layout.bucket.map(|per| BucketRule { count: 1, per, burst: 1, queue: 0 }),
            windows: layout.rings.iter().map(|per| WindowRule { count: 1, per: *per }).collect(),
            ..Rules::default()
        };
        let before = Self::new(Arc::new(rules), 0, None);
        let mut taken = 0;
        for (key, counters) in entries {
            let counters = self.converted(&before, counters, now);
            let mut shard = if key == OVERFLOW { self.overflow.lock() } else { self.shard(key).lock() };
            shard.latest = shard.latest.max(now);
            if shard.table.find(key).is_some() || shard.table.insert(key, &counters).is_none() {
                continue;
            }
            taken += 1;
            if key == OVERFLOW {
                self.overflowed.store(true, Relaxed);
            } else {
                // More than `keys_max`, for as long as they are not as good as new ones: nobody's counter is lost.
                self.keys.fetch_add(1, Relaxed);
            }
        }
        taken
    }

    /// Counters of the store `before` in this one's layout: windows of the same length go on, others begin anew.
    fn converted(&self, before: &Self, counters: Counters, now: u64) -> Counters {
        let old_ring = |per: u64| {
            let at = before.layout.rings.iter().position(|old| *old == per)?;
            Some((before.rules.windows.get(at)?, counters.rings.get(at)?))
        };
        let (bucket, forgiven) = match (self.layout.bucket, before.layout.bucket) {
            (Some(per), Some(old)) if per == old => (counters.bucket, counters.forgiven),
            (Some(per), _) => {
                let held = old_ring(per).map(|(rule, ring)| Bucket::holding(ring.held(rule, now), now));
                (held.unwrap_or_default(), Forgiven::default())
            }
            (None, _) => Default::default(),
        };
        let rings = self.rules.windows.iter().map(|rule| match old_ring(rule.per) {
            Some((_, ring)) => *ring,
            None if before.layout.bucket == Some(rule.per) => {
                Ring::holding(rule, counters.bucket.held(), now)
            }
            None => Ring::default(),
        });
        let rings: SmallVec<[Ring; 2]> = rings.collect();
        Counters { bucket, rings, under_way: counters.under_way, forgiven }
    }
}

/// Shards beside its own in which room is looked for.
const OTHERS_LOOKED_AT: usize = 4;

impl Shard {
    /// The moment that counts at `now`.
    #[inline]
    fn advance(&mut self, now: u64) -> u64 {
        self.latest = self.latest.max(now);
        self.latest
    }
}
