//! The counters of some keys, in a few bytes each: one shard of a [`super::store::Store`].

use std::collections::HashMap;

use smallvec::SmallVec;

use super::bucket::{Bucket, Forgiven, Room};
use super::index::{Index, SLOTS_MAX};
use super::key::KeyHash;
use super::ring::Ring;
use super::rules::{BucketRule, Layout, Rules};

/// Entries whose memory is taken at once.
const CHUNK: usize = 64;

/// One value a slot. Grows by chunks: nothing is copied, and no more than a chunk is unused.
#[derive(Debug)]
struct Column<T>(Vec<Box<[T; CHUNK]>>);

impl<T: Copy + Default> Column<T> {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn get(&self, slot: u32) -> Option<&T> {
        self.0.get(slot as usize / CHUNK)?.get(slot as usize % CHUNK)
    }

    fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.0.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)
    }

    fn set(&mut self, slot: u32, value: T) {
        if slot as usize / CHUNK >= self.0.len() {
            self.0.push(Box::new([T::default(); CHUNK]));
        }
        if let Some(there) = self.get_mut(slot) {
            *there = value;
        }
    }

    fn bytes(&self) -> usize {
        self.0.len() * size_of::<[T; CHUNK]>() + self.0.capacity() * size_of::<Box<[T; CHUNK]>>()
    }
}

/// A key and its shortest window: what nearly every request looks at, side by side, and never across two cache lines.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(32))]
struct Entry {
    key: KeyHash,
    bucket: Bucket,
}

/// Requests under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct UnderWay {
    /// Their number, where that is limited.
    pub(super) requests: u32,
    /// What they may come to count for at their end.
    pub(super) reserved: u32,
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
    pub(super) rooms: SmallVec<[Room; 3]>,
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
    index: Index,
    entries: Column<Entry>,
    rings: SmallVec<[Column<Ring>; 2]>,
    under_way: Option<Column<UnderWay>>,
    /// What a smaller burst has forgiven: of a few keys for a while after a reload, else empty.
    forgiven: HashMap<u32, Forgiven>,
    /// Slots that were in use; those in `free` are not any more.
    slots: u32,
    free: Vec<u32>,
    /// Where the next look for entries that are as good as new ones begins.
    sweep: u32,
}

impl Table {
    pub(super) fn new(layout: &Layout) -> Self {
        Self {
            index: Index::default(),
            entries: Column::new(),
            rings: layout.rings.iter().map(|_| Column::new()).collect(),
            under_way: layout.held.then(Column::new),
            forgiven: HashMap::new(),
            slots: 0,
            free: Vec::new(),
            sweep: 0,
        }
    }

    pub(super) fn find(&self, key: KeyHash) -> Option<u32> {
        self.index.find(key.place, |slot| self.entries.get(slot).is_some_and(|entry| entry.key == key))
    }

    /// Takes `counters` in under `key`, which is not there yet. `None` if there is no slot left.
    pub(super) fn insert(&mut self, key: KeyHash, counters: &Counters) -> Option<u32> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots < SLOTS_MAX => {
                self.slots += 1;
                self.slots - 1
            }
            None => return None,
        };
        self.entries.set(slot, Entry { key, bucket: counters.bucket });
        for (at, column) in self.rings.iter_mut().enumerate() {
            column.set(slot, counters.rings.get(at).copied().unwrap_or_default());
        }
        if let Some(column) = &mut self.under_way {
            column.set(slot, counters.under_way);
        }
        if counters.forgiven.parts > 0 {
            self.forgiven.insert(slot, counters.forgiven);
        }
        let entries = &self.entries;
        self.index.insert(key.place, slot, |slot| place_of(entries, slot));
        Some(slot)
    }

    /// The counters in `slot`.
    pub(super) fn counters(&self, slot: u32) -> Counters {
        Counters {
            bucket: self.entries.get(slot).map(|entry| entry.bucket).unwrap_or_default(),
            rings: self.rings.iter().filter_map(|column| column.get(slot).copied()).collect(),
            under_way: self.under_way(slot),
            forgiven: self.forgiven.get(&slot).copied().unwrap_or_default(),
        }
    }

    fn under_way(&self, slot: u32) -> UnderWay {
        self.under_way.as_ref().and_then(|column| column.get(slot)).copied().unwrap_or_default()
    }

    /// How the key in `slot` stands for a request of `cost`: all windows are looked at, nothing is counted.
    pub(super) fn standing(&self, rules: &Rules, slot: u32, cost: u64, now: u64) -> Standing {
        let under_way = self.under_way(slot);
        let reserved = u64::from(under_way.reserved);
        let mut rooms = SmallVec::new();
        let (mut delay, mut admitted) = (0, true);
        if let (Some(rule), Some(entry)) = (&rules.bucket, self.entries.get(slot)) {
            let room = entry.bucket.room(rule, reserved, cost, now);
            // What is more than there ever is room for does not wait for it either.
            admitted = room.wait <= rule.queue && cost <= rule.burst;
            delay = if admitted { room.wait } else { 0 };
            rooms.push(room);
        }
        for (rule, column) in rules.windows.iter().zip(&self.rings) {
            let Some(ring) = column.get(slot) else { continue };
            // Who waits is in the window in which it goes on.
            let room = ring.room(rule, reserved, cost, now.saturating_add(delay));
            admitted &= room.wait == 0;
            rooms.push(room);
        }
        let slots_left = rules.concurrent.map(|most| most.saturating_sub(under_way.requests));
        admitted &= slots_left != Some(0);
        Standing { rooms, slots_left, delay, admitted }
    }

    /// Counts a request that [`Table::standing`] admitted, or reserves what it may come to count for.
    pub(super) fn admit(&mut self, rules: &Rules, slot: u32, cost: u64, now: u64, delay: u64) {
        if !rules.counted_at_end {
            self.count(rules, slot, cost, now, delay);
        }
        if let Some(under_way) = self.under_way.as_mut().and_then(|column| column.get_mut(slot)) {
            if rules.concurrent.is_some() {
                under_way.requests = under_way.requests.saturating_add(1);
            }
            if rules.counted_at_end {
                let cost = u32::try_from(cost).unwrap_or(u32::MAX);
                under_way.reserved = under_way.reserved.saturating_add(cost);
            }
        }
    }

    /// Counts in all windows.
    pub(super) fn count(&mut self, rules: &Rules, slot: u32, cost: u64, now: u64, delay: u64) {
        if let (Some(rule), Some(entry)) = (&rules.bucket, self.entries.get_mut(slot)) {
            if !self.forgiven.is_empty()
                && let Some(forgiven) = self.forgiven.get_mut(&slot)
            {
                forgiven.drain(rule, &entry.bucket, now);
            }
            entry.bucket.add(rule, cost, now);
        }
        for (rule, column) in rules.windows.iter().zip(&mut self.rings) {
            if let Some(ring) = column.get_mut(slot) {
                ring.add(rule, cost, now.saturating_add(delay));
            }
        }
    }

    /// A request has ended: what was held for it is free.
    pub(super) fn release(&mut self, slot: u32, requests: u32, reserved: u32) {
        if let Some(under_way) = self.under_way.as_mut().and_then(|column| column.get_mut(slot)) {
            under_way.requests = under_way.requests.saturating_sub(requests);
            under_way.reserved = under_way.reserved.saturating_sub(reserved);
        }
    }

    /// Lowers what an earlier rule allowed and `rules` do not, and keeps in mind what they forgive by that.
    pub(super) fn clamp(&mut self, rules: &Rules, slot: u32) {
        let (Some(rule), Some(entry)) = (&rules.bucket, self.entries.get_mut(slot)) else { return };
        if self.forgiven.is_empty() && !entry.bucket.is_above(rule) {
            return;
        }
        let mut forgiven = self.forgiven.remove(&slot).unwrap_or_default();
        entry.bucket.clamp(rule, &mut forgiven);
        if forgiven.parts > 0 {
            self.forgiven.insert(slot, forgiven);
        }
    }

    /// Whether nothing of what was forgiven the key in `slot` counts any more.
    fn is_forgotten(&self, rule: &BucketRule, slot: u32, bucket: &Bucket, now: u64) -> bool {
        self.forgiven.is_empty()
            || self.forgiven.get(&slot).is_none_or(|forgiven| {
                let mut forgiven = *forgiven;
                forgiven.drain(rule, bucket, now);
                forgiven.parts == 0
            })
    }

    /// Looks at some entries, in turn, and lets those go that are as good as new ones; says how many went.
    pub(super) fn sweep(&mut self, rules: &Rules, looks: u32, now: u64) -> usize {
        let mut gone = 0;
        for _ in 0..looks.min(self.slots) {
            let slot = self.sweep % self.slots;
            self.sweep = slot + 1;
            let Some(Entry { key, bucket }) = self.entries.get(slot).copied() else { continue };
            // A free slot has no key in the index.
            if key != KeyHash::default()
                && self.under_way(slot) == UnderWay::default()
                && self.is_as_new(rules, slot, &bucket, now)
            {
                let entries = &self.entries;
                self.index.remove(key.place, slot, |slot| place_of(entries, slot));
                self.entries.set(slot, Entry::default());
                self.forgiven.remove(&slot);
                self.free.push(slot);
                gone += 1;
            }
        }
        gone
    }

    /// Whether nothing of what was counted in `slot` counts any more.
    fn is_as_new(&self, rules: &Rules, slot: u32, bucket: &Bucket, now: u64) -> bool {
        let mut rings = rules.windows.iter().zip(&self.rings);
        rules
            .bucket
            .as_ref()
            .is_none_or(|rule| bucket.is_empty(rule, now) && self.is_forgotten(rule, slot, bucket, now))
            && rings.all(|(rule, column)| column.get(slot).is_none_or(|ring| ring.is_empty(rule, now)))
    }

    /// Shows all that is not as good as new, with what is reserved in it counted.
    pub(super) fn each_in_use(&self, rules: &Rules, now: u64, show: &mut impl FnMut(KeyHash, &Counters)) {
        for slot in self.index.slots() {
            let Some(Entry { key, bucket }) = self.entries.get(slot) else { continue };
            if self.under_way(slot).reserved > 0 || !self.is_as_new(rules, slot, bucket, now) {
                show(*key, &self.counters(slot).with_reserved(rules, now));
            }
        }
    }

    /// Everything in it, which leaves it empty.
    pub(super) fn drain(&mut self, layout: &Layout) -> Vec<(KeyHash, Counters)> {
        let slots: Vec<u32> = self.index.slots().collect();
        let all = slots.iter().filter_map(|slot| Some((self.entries.get(*slot)?.key, self.counters(*slot))));
        let all = all.collect();
        *self = Self::new(layout);
        all
    }

    /// Bytes that are kept for the counters.
    pub(super) fn bytes(&self) -> usize {
        self.index.bytes()
            + self.entries.bytes()
            + self.rings.iter().map(Column::bytes).sum::<usize>()
            + self.under_way.as_ref().map_or(0, Column::bytes)
            + self.free.capacity() * size_of::<u32>()
            + self.forgiven.capacity() * size_of::<(u32, Forgiven)>()
    }
}

fn place_of(entries: &Column<Entry>, slot: u32) -> u64 {
    entries.get(slot).map_or(0, |entry| entry.key.place)
}
