//! The counters of some keys, in one slot each: one shard of a [`super::store::Store`].
//!
//! ```text
//! slot   key | level | its moment | requests under way, where they are limited | four words for each longer window
//! ```
//!
//! With up to two windows that is a cache line at most.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::bucket::{Bucket, Forgiven, Room};
use super::key::KeyHash;
use super::ring::{GROWN_OUT, PACKED, Ring};
use super::rules::{BucketRule, Layout, Rules};
use super::slots::Slots;

/// Words before whatever follows the bucket.
const AFTER_BUCKET: usize = 3;

/// Requests under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct UnderWay {
    /// Their number, where that is limited.
    pub(super) requests: u32,
    /// What they may come to count for at their end.
    pub(super) reserved: u32,
}

impl UnderWay {
    fn to_word(self) -> u64 {
        u64::from(self.requests) << 32 | u64::from(self.reserved)
    }

    fn of_word(word: u64) -> Self {
        Self { requests: (word >> 32) as u32, reserved: word as u32 }
    }
}

/// All counters of one key, by value: to be carried from one table to another.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    pub(super) bucket: Bucket,
    pub(super) rings: SmallVec<[Ring; 2]>,
    pub(super) under_way: UnderWay,
    pub(super) forgiven: Forgiven,
}

impl Counters {
    /// The same, with what requests under way may come to count for counted at `now`, and none of them under way.
    pub(super) fn with_reserved(mut self, rules: &Rules, now: u64) -> Self {
        let reserved = u64::from(std::mem::take(&mut self.under_way).reserved);
        if reserved > 0 {
            if let Some(rule) = &rules.bucket {
                self.forgiven.drain(rule, &self.bucket, now);
                self.bucket.add(rule, reserved, now);
            }
            for (rule, ring) in rules.windows.iter().zip(&mut self.rings) {
                ring.add(rule, reserved, now);
            }
        }
        self
    }
}

/// How all windows of one key stand for a request.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    /// The shortest window, then the longer ones; each with the moment it was asked for.
    pub(super) rooms: SmallVec<[Room; 2]>,
    /// Requests that may be under way beside those that are; `None` = not limited.
    pub(super) slots_left: Option<u32>,
    /// Nanoseconds until the request may go on.
    pub(super) delay: u64,
    /// Whether it may.
    pub(super) admitted: bool,
}

/// The counters of some keys.
#[derive(Debug)]
pub(super) struct Table {
    slots: Slots,
    held: bool,
    rings: u8,
    /// Where the next look for entries that are as good as new ones begins.
    sweep: u32,
    /// What few keys have.
    rare: Option<Box<Rare>>,
}

/// What has no place in a slot.
#[derive(Debug, Default)]
struct Rare {
    /// What a smaller burst has forgiven: of some keys for a while after a reload.
    forgiven: HashMap<KeyHash, Forgiven>,
    /// Rings with more in one step than a packed one can hold, by their number.
    rings: HashMap<(KeyHash, u8), Ring>,
}

impl Table {
    pub(super) fn new(layout: &Layout) -> Self {
        let rings = layout.rings.len();
        Self {
            slots: Slots::new(AFTER_BUCKET + usize::from(layout.held) + rings * PACKED),
            held: layout.held,
            rings: u8::try_from(rings).unwrap_or(u8::MAX),
            sweep: 0,
            rare: None,
        }
    }

    /// Has the processor bring in what is kept of `key`.
    pub(super) fn fetch(&self, key: KeyHash) {
        self.slots.fetch(key.0);
    }

    /// The slot of `key`, until another is taken in or goes.
    #[inline]
    pub(super) fn find(&self, key: KeyHash) -> Option<usize> {
        self.slots.fetch(key.0);
        self.slots.find(key.0)
    }

    /// Takes `counters` in under `key`, which is not there yet. `None` if there is no slot left.
    pub(super) fn insert(&mut self, key: KeyHash, counters: &Counters) -> Option<usize> {
        let slot = self.slots.insert(key.0)?;
        self.set_bucket(slot, counters.bucket);
        self.set_under_way(slot, counters.under_way);
        for at in 0..self.rings {
            let ring = counters.rings.get(usize::from(at)).copied().unwrap_or_default();
            self.set_ring(slot, at, &ring);
        }
        if counters.forgiven.parts > 0 {
            self.rare.get_or_insert_default().forgiven.insert(key, counters.forgiven);
        }
        Some(slot)
    }

    /// The counters in `slot`.
    pub(super) fn counters(&self, slot: usize) -> Counters {
        Counters {
            bucket: self.bucket(slot),
            rings: (0..self.rings).map(|at| self.ring(slot, at)).collect(),
            under_way: self.under_way(slot),
            forgiven: self.forgiven(slot).unwrap_or_default(),
        }
    }

    #[inline]
    fn key(&self, slot: usize) -> KeyHash {
        KeyHash(self.slots.key(slot))
    }

    #[inline]
    fn bucket(&self, slot: usize) -> Bucket {
        match self.slots.get(slot) {
            [_, level, at, ..] => Bucket::of_parts(*level, *at),
            _ => Bucket::default(),
        }
    }

    #[inline]
    fn set_bucket(&mut self, slot: usize, bucket: Bucket) {
        if let [_, level, at, ..] = self.slots.get_mut(slot) {
            (*level, *at) = bucket.parts();
        }
    }

    #[inline]
    fn under_way(&self, slot: usize) -> UnderWay {
        let word = if self.held { self.slots.get(slot).get(AFTER_BUCKET) } else { None };
        word.map_or_else(UnderWay::default, |word| UnderWay::of_word(*word))
    }

    fn set_under_way(&mut self, slot: usize, under_way: UnderWay) {
        if self.held
            && let Some(word) = self.slots.get_mut(slot).get_mut(AFTER_BUCKET)
        {
            *word = under_way.to_word();
        }
    }

    fn ring_at(&self, at: u8) -> usize {
        AFTER_BUCKET + usize::from(self.held) + usize::from(at) * PACKED
    }

    /// The ring numbered `at` of the key in `slot`.
    fn ring(&self, slot: usize, at: u8) -> Ring {
        let words = self.slots.get(slot).get(self.ring_at(at)..).and_then(|words| words.first_chunk());
        words.map_or_else(Ring::default, |words| {
            Ring::unpack(words).unwrap_or_else(|| {
                let grown_out = self.rare.as_ref().and_then(|rare| rare.rings.get(&(self.key(slot), at)));
                grown_out.copied().unwrap_or_default()
            })
        })
    }

    fn set_ring(&mut self, slot: usize, at: u8, ring: &Ring) {
        let (key, from) = (self.key(slot), self.ring_at(at));
        let packed = ring.pack();
        let words = self.slots.get_mut(slot).get_mut(from..).and_then(|words| words.first_chunk_mut());
        let Some(words) = words else { return };
        let had_grown_out = *words == GROWN_OUT;
        *words = packed.unwrap_or(GROWN_OUT);
        if packed.is_none() {
            self.rare.get_or_insert_default().rings.insert((key, at), *ring);
        } else if had_grown_out {
            self.drop_rare(|rare| {
                rare.rings.remove(&(key, at));
            });
        }
    }

    #[inline]
    fn forgiven(&self, slot: usize) -> Option<Forgiven> {
        let rare = self.rare.as_ref()?;
        rare.forgiven.get(&self.key(slot)).copied()
    }

    /// Takes something out of what is rare, and that away when nothing is left.
    fn drop_rare(&mut self, take: impl FnOnce(&mut Rare)) {
        if let Some(rare) = &mut self.rare {
            take(rare);
            if rare.forgiven.is_empty() && rare.rings.is_empty() {
                self.rare = None;
            }
        }
    }

    /// How the key in `slot` stands for a request of `cost`: all windows are looked at, nothing is counted.
    #[inline]
    pub(super) fn standing(&self, rules: &Rules, slot: usize, cost: u64, now: u64) -> Standing {
        let under_way = self.under_way(slot);
        let reserved = u64::from(under_way.reserved);
        let mut rooms = SmallVec::new();
        let (mut delay, mut admitted) = (0, true);
        if let Some(rule) = &rules.bucket {
            let room = self.bucket(slot).room(rule, reserved, cost, now);
            // What is more than there ever is room for does not wait for it either.
            admitted = room.wait <= rule.queue && cost <= rule.burst;
            delay = if admitted { room.wait } else { 0 };
            rooms.push(room);
        }
        for (rule, at) in rules.windows.iter().zip(0..self.rings) {
            // Who waits is in the window in which it goes on.
            let room = self.ring(slot, at).room(rule, reserved, cost, now.saturating_add(delay));
            admitted &= room.wait == 0;
            rooms.push(room);
        }
        let slots_left = rules.concurrent.map(|most| most.saturating_sub(under_way.requests));
        admitted &= slots_left != Some(0);
        Standing { rooms, slots_left, delay, admitted }
    }

    /// Counts a request that [`Table::standing`] admitted, or reserves what it may come to count for.
    #[inline]
    pub(super) fn admit(&mut self, rules: &Rules, slot: usize, cost: u64, now: u64, delay: u64) {
        if !rules.counted_at_end {
            self.count(rules, slot, cost, now, delay);
        }
        if self.held {
            let mut under_way = self.under_way(slot);
            if rules.concurrent.is_some() {
                under_way.requests = under_way.requests.saturating_add(1);
            }
            if rules.counted_at_end {
                let cost = u32::try_from(cost).unwrap_or(u32::MAX);
                under_way.reserved = under_way.reserved.saturating_add(cost);
            }
            self.set_under_way(slot, under_way);
        }
    }

    /// Counts in all windows.
    #[inline]
    pub(super) fn count(&mut self, rules: &Rules, slot: usize, cost: u64, now: u64, delay: u64) {
        if let Some(rule) = &rules.bucket {
            let (key, mut bucket) = (self.key(slot), self.bucket(slot));
            if let Some(forgiven) = self.rare.as_mut().and_then(|rare| rare.forgiven.get_mut(&key)) {
                forgiven.drain(rule, &bucket, now);
            }
            bucket.add(rule, cost, now);
            self.set_bucket(slot, bucket);
        }
        for (rule, at) in rules.windows.iter().zip(0..self.rings) {
            let mut ring = self.ring(slot, at);
            ring.add(rule, cost, now.saturating_add(delay));
            self.set_ring(slot, at, &ring);
        }
    }

    /// A request has ended: what was held for it is free.
    pub(super) fn release(&mut self, slot: usize, requests: u32, reserved: u32) {
        let mut under_way = self.under_way(slot);
        under_way.requests = under_way.requests.saturating_sub(requests);
        under_way.reserved = under_way.reserved.saturating_sub(reserved);
        self.set_under_way(slot, under_way);
    }

    /// Lowers what an earlier rule allowed and `rules` do not, and keeps in mind what they forgive by that.
    #[inline]
    pub(super) fn clamp(&mut self, rules: &Rules, slot: usize) {
        let Some(rule) = &rules.bucket else { return };
        let mut bucket = self.bucket(slot);
        let before = self.forgiven(slot);
        if before.is_none() && !bucket.is_above(rule) {
            return;
        }
        let (key, mut forgiven) = (self.key(slot), before.unwrap_or_default());
        bucket.clamp(rule, &mut forgiven);
        self.set_bucket(slot, bucket);
        if forgiven.parts > 0 {
            self.rare.get_or_insert_default().forgiven.insert(key, forgiven);
        } else if before.is_some() {
            self.drop_rare(|rare| {
                rare.forgiven.remove(&key);
            });
        }
    }

    /// Whether nothing of what was forgiven the key in `slot` counts any more.
    fn is_forgotten(&self, rule: &BucketRule, slot: usize, now: u64) -> bool {
        self.forgiven(slot).is_none_or(|mut forgiven| {
            forgiven.drain(rule, &self.bucket(slot), now);
            forgiven.parts == 0
        })
    }

    /// Looks at so many entries, in turn, and lets those go that are as good as new ones; says how many went.
    pub(super) fn sweep(&mut self, rules: &Rules, looks: u32, now: u64) -> usize {
        let (mut gone, mut looked) = (0, 0);
        let len = self.slots.len();
        // Slots that are free cost little, and count for nothing: or a table that empties would never be found empty.
        for _ in 0..(looks as usize * 8).min(len) {
            if looked == looks {
                break;
            }
            let slot = if (self.sweep as usize) < len { self.sweep as usize } else { 0 };
            let key = self.key(slot);
            looked += u32::from(key != KeyHash::default());
            if key == KeyHash::default() || !self.is_as_new(rules, slot, now) {
                self.sweep = u32::try_from(slot + 1).unwrap_or(0);
                continue;
            }
            self.sweep = u32::try_from(slot).unwrap_or(0);
            // Another one may move up into the slot: it is looked at next.
            self.slots.remove(slot);
            let rings = self.rings;
            self.drop_rare(|rare| {
                rare.forgiven.remove(&key);
                (0..rings).for_each(|at| {
                    rare.rings.remove(&(key, at));
                });
            });
            gone += 1;
        }
        if gone > 0 {
            self.slots.shrink();
        }
        gone
    }

    /// Whether nothing is under way, and nothing of what was counted in `slot` counts any more.
    fn is_as_new(&self, rules: &Rules, slot: usize, now: u64) -> bool {
        let mut rings = rules.windows.iter().zip(0..self.rings);
        let bucket = rules.bucket.as_ref();
        self.under_way(slot) == UnderWay::default()
            && bucket.is_none_or(|rule| {
                self.bucket(slot).is_empty(rule, now) && self.is_forgotten(rule, slot, now)
            })
            && rings.all(|(rule, at)| self.ring(slot, at).is_empty(rule, now))
    }

    /// Shows all that is not as good as new, with what is reserved in it counted.
    pub(super) fn each_in_use(&self, rules: &Rules, now: u64, show: &mut impl FnMut(KeyHash, &Counters)) {
        for slot in self.slots.in_use() {
            if !self.is_as_new(rules, slot, now) {
                show(self.key(slot), &self.counters(slot).with_reserved(rules, now));
            }
        }
    }

    /// Everything in it, which leaves it empty.
    pub(super) fn drain(&mut self, layout: &Layout) -> Vec<(KeyHash, Counters)> {
        let all = self.slots.in_use().map(|slot| (self.key(slot), self.counters(slot))).collect();
        *self = Self::new(layout);
        all
    }

    /// Bytes that are kept for the counters.
    pub(super) fn bytes(&self) -> usize {
        let rare = self.rare.as_ref().map_or(0, |rare| {
            size_of::<Rare>()
                + rare.forgiven.capacity() * size_of::<(KeyHash, Forgiven)>()
                + rare.rings.capacity() * size_of::<((KeyHash, u8), Ring)>()
        });
        self.slots.bytes() + rare
    }
}
