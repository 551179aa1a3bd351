//! Places for keys and what is counted of them: open addressing in one array, so that a look at a key is a look at one
//! place in memory.
//!
//! ```text
//! words   … │ key  count  count │ key  count  count │ 0  -  - │ …      a slot is as many words as its counters need
//! ```
//!
//! A key stands where its hash says, or as few slots after that as there is room: who is farther from home goes first
//! (Robin Hood), so a search for what is not there ends as soon as one for what is. The array grows by a fifth: right
//! after that it is two thirds full, not half as if it doubled. Tens of thousands of slots are copied then at most, as each
//! of the shards of a store has an array of its own.

use prefetch_index::prefetch_index;
use smallvec::SmallVec;

use super::rules::LONGER_WINDOWS_MAX;

/// Words of a cache line.
const LINE: usize = 8;

/// Slots of the smallest array.
const SLOTS_MIN: usize = 4;

/// Up to so many slots the array may be nearly full: a search through all of it is short.
const SMALL: usize = 64;

/// Most slots of one array: 2^24.
const SLOTS_MAX: usize = 1 << 24;

/// Words of the widest slot that there may be.
const WIDTH_MAX: usize = 4 + 4 * LONGER_WINDOWS_MAX;

/// Slots of `width` words, the first of which is the key: a uniformly distributed hash that is not 0.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Starts somewhere in the first line, so that slots which fit lines stand in one each.
    words: Vec<u64>,
    base: u8,
    width: u8,
    slots: u32,
    used: u32,
}

impl Slots {
    pub(super) fn new(width: usize) -> Self {
        let fits = width.next_multiple_of(LINE) - width <= 1;
        // A seventh of it empty is less than what two lines for a look cost.
        let width = if fits { width.next_multiple_of(LINE) } else { width };
        Self { width: u8::try_from(width.min(WIDTH_MAX)).unwrap_or(u8::MAX), ..Self::default() }
    }

    /// Slots there are, in use or not.
    pub(super) fn len(&self) -> usize {
        self.slots as usize
    }

    /// Bytes they take.
    pub(super) fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// Has the processor bring in where `key` is looked for.
    #[inline]
    pub(super) fn fetch(&self, key: u64) {
        let at = self.start(self.home(key));
        // A key is not far from home; the line beyond the first comes along while that is waited for.
        for line in 0..2 {
            prefetch_index(&self.words, at + line * LINE);
        }
    }

    /// Where `key` is.
    #[inline]
    pub(super) fn find(&self, key: u64) -> Option<usize> {
        let mut at = self.home(key);
        for far in 0..self.len() {
            let there = self.key(at);
            if there == key {
                return Some(at);
            }
            if there == 0 || self.distance(there, at) < far {
                break;
            }
            at = self.after(at);
        }
        None
    }

    /// The key in slot `at`; 0 = none.
    #[inline]
    pub(super) fn key(&self, at: usize) -> u64 {
        self.words.get(self.start(at)).copied().unwrap_or(0)
    }

    /// The words of slot `at`; none where there is no such slot.
    #[inline]
    pub(super) fn get(&self, at: usize) -> &[u64] {
        let start = self.start(at);
        self.words.get(start..start + usize::from(self.width)).unwrap_or_default()
    }

    /// The words of slot `at`, to be changed, but for the key.
    #[inline]
    pub(super) fn get_mut(&mut self, at: usize) -> &mut [u64] {
        let start = self.start(at);
        self.words.get_mut(start..start + usize::from(self.width)).unwrap_or_default()
    }

    /// The slots in use.
    pub(super) fn in_use(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|at| self.key(*at) != 0)
    }

    /// Takes a slot for `key`, which is not there yet: the rest of its words are 0. Other keys may stand elsewhere after it.
    /// `None` where there are too many.
    pub(super) fn insert(&mut self, key: u64) -> Option<usize> {
        if self.used as usize >= most(self.len()) {
            let more = self.len() + (self.len() / 5).max(SLOTS_MIN);
            if more > SLOTS_MAX {
                return None;
            }
            self.resize(more);
        }
        let mut carried: SmallVec<[u64; WIDTH_MAX]> = SmallVec::from_elem(0, usize::from(self.width));
        *carried.first_mut()? = key;
        Some(self.put(&mut carried))
    }

    /// Empties slot `at`. What stands behind it, if not at home, moves up into it.
    pub(super) fn remove(&mut self, mut at: usize) {
        if self.key(at) == 0 {
            return;
        }
        loop {
            let next = self.after(at);
            let key = self.key(next);
            if key == 0 || self.distance(key, next) == 0 {
                break;
            }
            let (from, to) = (self.start(next), self.start(at));
            self.words.copy_within(from..from + usize::from(self.width), to);
            at = next;
        }
        self.get_mut(at).fill(0);
        self.used -= 1;
    }

    /// Gives memory back where little of it is in use; says whether keys may stand elsewhere after it.
    pub(super) fn shrink(&mut self) -> bool {
        let (used, slots) = (self.used as usize, self.len());
        let is_sparse = slots > SMALL && used < slots / 4;
        if is_sparse {
            self.resize((used + used / 2).max(SLOTS_MIN));
        }
        is_sparse
    }

    /// Puts the slot `carried` in, from its home on, and whatever has to make room for it; says where the first is.
    fn put(&mut self, carried: &mut [u64]) -> usize {
        let key = |words: &[u64]| words.first().copied().unwrap_or(0);
        let mut at = self.home(key(carried));
        let (mut far, mut placed) = (0, None);
        // There is a free one.
        for _ in 0..=self.len() {
            let there = self.key(at);
            let its = if there == 0 { 0 } else { self.distance(there, at) };
            if there == 0 || its < far {
                self.get_mut(at).swap_with_slice(carried);
                placed = placed.or(Some(at));
                far = its;
            }
            if there == 0 {
                break;
            }
            at = self.after(at);
            far += 1;
        }
        self.used += 1;
        placed.unwrap_or(at)
    }

    fn resize(&mut self, slots: usize) {
        let width = usize::from(self.width);
        let words = vec![0_u64; slots * width + LINE - 1];
        let base = words.as_ptr().align_offset(LINE * size_of::<u64>()).min(LINE - 1);
        let base = u8::try_from(base).unwrap_or(0);
        let slots = u32::try_from(slots).unwrap_or(0);
        let old = std::mem::replace(self, Self { words, base, width: self.width, slots, used: 0 });
        let mut carried: SmallVec<[u64; WIDTH_MAX]> = SmallVec::from_elem(0, width);
        // In the order of their homes: each finds its slot at once.
        for at in old.in_use() {
            carried.copy_from_slice(old.get(at));
            self.put(&mut carried);
        }
    }

    #[inline]
    fn start(&self, at: usize) -> usize {
        usize::from(self.base) + at * usize::from(self.width)
    }

    /// By the upper bits of the hash: any number of slots will do.
    #[inline]
    fn home(&self, key: u64) -> usize {
        ((u128::from(key) * u128::from(self.slots)) >> 64) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 < self.len() { at + 1 } else { 0 }
    }

    /// How far from home `key` is in slot `at`.
    #[inline]
    fn distance(&self, key: u64, at: usize) -> usize {
        let home = self.home(key);
        if at >= home { at - home } else { at + self.len() - home }
    }
}

/// How many of so many slots may be in use.
fn most(slots: usize) -> usize {
    if slots < SMALL { slots - slots / 8 } else { slots * 13 / 16 }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Against a hash map, with hashes that clash on purpose, in slots of every width.
    #[test]
    fn finds_what_is_there_and_nothing_else() {
        let first = fastrand::u64(..1 << 40);
        for seed in (first..first + 100).chain(0..100) {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut slots, mut known) = (Slots::new(random.usize(1..=WIDTH_MAX)), HashMap::new());
            let most = random.usize(1..400);
            let bits = [0xf800_0000_0000_000f, 0x0000_0000_0000_00ff, u64::MAX][random.usize(..3)];
            for turn in 1..3_000_u64 {
                let key = random.u64(..) & bits;
                if random.bool() && known.len() < most && key != 0 && !known.contains_key(&key) {
                    assert_eq!(slots.find(key), None, "seed {seed}");
                    let at = slots.insert(key).unwrap();
                    assert!(slots.get(at)[1..].iter().all(|word| *word == 0), "seed {seed}");
                    slots.get_mut(at)[1..].fill(turn);
                    known.insert(key, turn);
                } else if let Some(&key) = known.keys().next() {
                    slots.remove(slots.find(key).unwrap());
                    known.remove(&key);
                    assert_eq!(slots.find(key), None, "seed {seed}");
                    slots.shrink();
                }
                assert_eq!(slots.used as usize, known.len(), "seed {seed}");
            }
            for (key, turn) in &known {
                let words = slots.get(slots.find(*key).unwrap());
                assert!(words[0] == *key && words[1..].iter().all(|word| word == turn), "seed {seed}");
            }
            let mut keys: Vec<u64> = slots.in_use().map(|at| slots.key(at)).collect();
            keys.sort_unstable();
            let mut all: Vec<u64> = known.keys().copied().collect();
            all.sort_unstable();
            assert_eq!(keys, all, "seed {seed}");
        }
    }

    /// However many there are, also right after it has grown: half as much again as what is in use at most, and what is looked
    /// for is near.
    #[test]
    fn little_of_it_is_unused() {
        let (mut slots, mut random) = (Slots::new(8), fastrand::Rng::with_seed(1));
        let mut searched = 0;
        for number in 1..=40_000 {
            let key = random.u64(1..);
            slots.insert(key).unwrap();
            let bytes = slots.bytes();
            assert!(bytes < number * 96 + 512, "{bytes} for {number}");
            searched = searched.max(slots.distance(key, slots.find(key).unwrap()));
        }
        assert!(searched < 64, "{searched}");
        // And gives it back when they are gone.
        for at in 0..slots.len() {
            while slots.key(at) != 0 {
                slots.remove(at);
            }
        }
        assert!(slots.shrink() && slots.bytes() < 1000);
    }

    #[test]
    fn slots_that_fit_lines_stand_in_one_each() {
        for width in [7, 8] {
            let mut slots = Slots::new(width);
            (1..100_u64).for_each(|number| assert!(slots.insert(number << 56).is_some()));
            assert_eq!(slots.in_use().count(), 99);
            for at in slots.in_use() {
                assert_eq!(std::ptr::from_ref(&slots.get(at)[0]) as usize % 64, 0);
            }
        }
    }

    #[test]
    fn an_empty_one_holds_nothing() {
        let slots = Slots::new(3);
        slots.fetch(7);
        assert_eq!((slots.find(7), slots.key(0), slots.get(0), slots.bytes()), (None, 0, &[][..], 0));
    }
}
