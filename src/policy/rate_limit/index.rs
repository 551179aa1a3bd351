//! Finds the slot of a key: open addressing with linear probing, four bytes a place.
//!
//! A hash map of whole entries is half empty after it has grown, which at a million keys costs as much again as the
//! counters; here only these four bytes are sparse. Each place holds a slot and eight bits of the key's hash, so that
//! hardly ever an entry is looked at that is not the one.

/// A place: 0 = free, else a tag in the upper 8 bits and a slot, counted from 1, in the lower 24.
type Place = u32;

const SLOT_BITS: u32 = 24;

/// Slots that an index can tell apart.
pub(super) const SLOTS_MAX: u32 = (1 << SLOT_BITS) - 1;

const PLACES_MIN: usize = 16;

/// The slots of the keys of one shard. Keys are uniformly distributed hashes already; `hash` is a part of them.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// A power of two, or none at all.
    places: Vec<Place>,
    used: usize,
}

impl Index {
    /// The slot under `hash` that `is_it` knows as the right one.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let mut at = self.home(hash)?;
        loop {
            match self.places.get(at).copied().unwrap_or(0) {
                0 => return None,
                place if place >> SLOT_BITS == tag => {
                    let slot = (place & SLOTS_MAX) - 1;
                    if is_it(slot) {
                        return Some(slot);
                    }
                }
                _ => {}
            }
            at = self.after(at);
        }
    }

    /// Adds `slot` under `hash`, under which it is not there yet. `hash_of` gives the hash of any slot.
    pub(super) fn insert(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        // At most four fifths full, with one free place at least: every search ends.
        if (self.used + 1) * 5 > self.places.len() * 4 {
            let slots: Vec<u32> = self.slots().collect();
            self.places = vec![0; (self.places.len() * 2).max(PLACES_MIN)];
            for slot in slots {
                self.put(hash_of(slot), slot);
            }
        }
        self.put(hash, slot);
        self.used += 1;
    }

    /// Takes `slot` out, which is there under `hash`.
    pub(super) fn remove(&mut self, hash: u64, slot: u32, hash_of: impl Fn(u32) -> u64) {
        let Some(mut at) = self.home(hash) else { return };
        loop {
            match self.places.get(at).copied().unwrap_or(0) {
                0 => return,
                place if (place & SLOTS_MAX) - 1 == slot => break,
                _ => at = self.after(at),
            }
        }
        self.used -= 1;
        // What stands behind it and could not stand nearer to its home moves up.
        let mut next = self.after(at);
        loop {
            let place = self.places.get(next).copied().unwrap_or(0);
            if place == 0 {
                break;
            }
            let home = self.home(hash_of((place & SLOTS_MAX) - 1)).unwrap_or(next);
            if self.distance(home, next) >= self.distance(at, next) {
                self.set(at, place);
                at = next;
            }
            next = self.after(next);
        }
        self.set(at, 0);
    }

    /// All slots.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.places.iter().filter(|place| **place != 0).map(|place| (place & SLOTS_MAX) - 1)
    }

    /// Bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<Place>()
    }

    fn put(&mut self, hash: u64, slot: u32) {
        let Some(mut at) = self.home(hash) else { return };
        while self.places.get(at).is_some_and(|place| *place != 0) {
            at = self.after(at);
        }
        self.set(at, tag(hash) << SLOT_BITS | (slot + 1));
    }

    fn set(&mut self, at: usize, place: Place) {
        if let Some(there) = self.places.get_mut(at) {
            *there = place;
        }
    }

    fn home(&self, hash: u64) -> Option<usize> {
        let mask = self.places.len().checked_sub(1)?;
        usize::try_from(hash & mask as u64).ok()
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.places.len().wrapping_sub(1))
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.places.len().wrapping_sub(1))
    }
}

/// From bits that the home of a key does not come from.
fn tag(hash: u64) -> u32 {
    u32::try_from(hash >> 56).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Against a hash map, with hashes that clash on purpose.
    #[test]
    fn finds_what_is_there_and_nothing_else() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut index, mut known, mut hashes) = (Index::default(), HashMap::new(), Vec::new());
            for _ in 0..2_000 {
                let bits = if seed % 2 == 0 { 0xff00_0000_0000_001f } else { u64::MAX };
                let hash = random.u64(..) & bits;
                let hash_of = |slot: u32, hashes: &Vec<u64>| hashes[slot as usize];
                if random.bool() && known.len() < 300 {
                    let slot = u32::try_from(hashes.len()).unwrap();
                    hashes.push(hash);
                    index.insert(hash, slot, |slot| hash_of(slot, &hashes));
                    known.insert(slot, hash);
                } else if let Some((&slot, &hash)) = known.iter().next() {
                    index.remove(hash, slot, |slot| hash_of(slot, &hashes));
                    known.remove(&slot);
                    assert_eq!(index.find(hash, |found| found == slot), None, "seed {seed}");
                }
            }
            for (slot, hash) in &known {
                assert_eq!(index.find(*hash, |found| found == *slot), Some(*slot), "seed {seed}");
            }
            assert_eq!(index.slots().count(), known.len(), "seed {seed}");
        }
    }
}
