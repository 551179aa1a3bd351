//! Which tokens were revoked: a million of them, asked of by every request that shows a token.
//!
//! A hash table of fingerprints, without the names themselves. A slot is 16 bytes: 64 bits of a hash whose key is random
//! in each process, and the two times. The table is cut into 256 shards by eight bits of another hash, so two names
//! are taken for each other only if 72 bits agree: with 1,000,000 revocations about one question in 5 * 10^15. Between
//! 5/8 and 3/4 of the slots are in use: 21 to 26 bytes a revocation, 16 in a shard of none.
//!
//! Readers take no lock: slots are atomic, and a shard that grows, or forgets, is replaced as a whole.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use foldhash::quality::FixedState;
use parking_lot::Mutex;

/// Tells shards apart.
const SHARDS: usize = 256;
/// Least slots of a shard that holds anything.
const SLOTS_MIN: usize = 8;

/// Names, each with a moment up to which it is revoked, and one until which that matters.
#[derive(Debug)]
pub struct RevokedSet {
    fingerprints: RandomState,
    /// Cheaper, since nobody can gain anything from a shard that is fuller than others.
    places: FixedState,
    shards: Box<[Shard]>,
    len: AtomicUsize,
    /// Whether anything was ever revoked of any provider.
    has_any: AtomicBool,
}

#[derive(Debug, Default)]
struct Shard {
    slots: ArcSwap<Vec<Slot>>,
    /// How many slots are in use; held by whoever changes the shard.
    used: Mutex<usize>,
}

/// A fingerprint, 0 in a free slot; and both times in seconds, `before` in the upper half, `until` in the lower.
#[derive(Debug, Default)]
struct Slot {
    fingerprint: AtomicU64,
    times: AtomicU64,
}

impl Default for RevokedSet {
    fn default() -> Self {
        Self {
            fingerprints: RandomState::new(),
            places: FixedState::with_seed(RandomState::new().hash_one(SHARDS)),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            len: AtomicUsize::new(0),
            has_any: AtomicBool::new(false),
        }
    }
}

impl RevokedSet {
    /// Revokes `name` of `provider` (empty = of any) up to `before`, which matters until `until`: Unix seconds. Never
    /// takes back what was revoked before.
    pub fn add(&self, provider: &str, name: &str, before: i64, until: i64) {
        if provider.is_empty() {
            self.has_any.store(true, Ordering::Release);
        }
        let (fingerprint, shard) = self.place(provider, name);
        let Some(shard) = self.shards.get(shard) else { return };
        if shard.add(fingerprint, seconds(before), seconds(until)) {
            self.len.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Up to which moment `name` of `provider` is revoked, if it is.
    pub fn before(&self, provider: &str, name: &str) -> Option<i64> {
        if self.is_empty() {
            return None;
        }
        let own = self.find(provider, name);
        let any = if self.has_any.load(Ordering::Acquire) { self.find("", name) } else { None };
        own.max(any).map(i64::from)
    }

    fn find(&self, provider: &str, name: &str) -> Option<u32> {
        let (fingerprint, shard) = self.place(provider, name);
        self.shards.get(shard)?.find(fingerprint)
    }

    /// Forgets what does not matter any more at `now`: at least when that is an eighth of a shard.
    pub fn forget(&self, now: i64) {
        for shard in &*self.shards {
            let forgotten = shard.forget(seconds(now));
            self.len.fetch_sub(forgotten, Ordering::Relaxed);
        }
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for shard in &*self.shards {
            let mut used = shard.used.lock();
            shard.slots.store(Default::default());
            self.len.fetch_sub(std::mem::take(&mut *used), Ordering::Relaxed);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it takes of memory.
    pub fn bytes(&self) -> usize {
        let slots: usize = self.shards.iter().map(|shard| shard.slots.load().len()).sum();
        slots * size_of::<Slot>() + self.shards.len() * size_of::<Shard>()
    }

    fn place(&self, provider: &str, name: &str) -> (u64, usize) {
        // Zero marks a free slot.
        let fingerprint = self.fingerprints.hash_one((provider, name)).max(1);
        let place = self.places.hash_one((provider, name));
        (fingerprint, usize::try_from(place % SHARDS as u64).unwrap_or(0))
    }
}

impl Shard {
    fn find(&self, fingerprint: u64) -> Option<u32> {
        let slots = self.slots.load();
        let slot = probe(&slots, fingerprint).find(|slot| {
            let found = slot.fingerprint.load(Ordering::Acquire);
            found == 0 || found == fingerprint
        })?;
        // Free when it was looked at: whoever takes it now does so after this question.
        if slot.fingerprint.load(Ordering::Acquire) != fingerprint {
            return None;
        }
        Some(split(slot.times.load(Ordering::Acquire)).0)
    }

    /// Whether it was not there.
    fn add(&self, fingerprint: u64, before: u32, until: u32) -> bool {
        let mut used = self.used.lock();
        let slots = self.slots.load();
        if let Some(slot) = probe(&slots, fingerprint)
            .find(|slot| is_or_free(slot, fingerprint))
            .filter(|slot| !slot.is_free())
        {
            let (old_before, old_until) = split(slot.times.load(Ordering::Acquire));
            slot.times.store(join(old_before.max(before), old_until.max(until)), Ordering::Release);
            return false;
        }
        *used += 1;
        if *used * 4 > slots.len() * 3 {
            let grown = rebuilt(&slots, *used * 8 / 5, |_| true);
            put(&grown, fingerprint, join(before, until));
            self.slots.store(grown.into());
        } else {
            put(&slots, fingerprint, join(before, until));
        }
        true
    }

    /// How many were forgotten.
    fn forget(&self, now: u32) -> usize {
        let mut used = self.used.lock();
        let slots = self.slots.load();
        let is_over = |slot: &Slot| !slot.is_free() && split(slot.times.load(Ordering::Acquire)).1 < now;
        let over = slots.iter().filter(|slot| is_over(slot)).count();
        if over == 0 || over * 8 < *used {
            return 0;
        }
        *used -= over;
        let slots =
            if *used == 0 { Vec::new() } else { rebuilt(&slots, *used * 8 / 5, |slot| !is_over(slot)) };
        self.slots.store(slots.into());
        over
    }
}

impl Slot {
    fn is_free(&self) -> bool {
        self.fingerprint.load(Ordering::Acquire) == 0
    }
}

fn is_or_free(slot: &Slot, fingerprint: u64) -> bool {
    slot.is_free() || slot.fingerprint.load(Ordering::Acquire) == fingerprint
}

/// The slots in which `fingerprint` may stand, in the order in which they are filled.
fn probe(slots: &[Slot], fingerprint: u64) -> impl Iterator<Item = &Slot> {
    // The upper half of the product: evenly spread over any number of slots.
    let start = (u128::from(fingerprint) * slots.len() as u128) >> 64;
    let (before, from) = slots.split_at(usize::try_from(start).unwrap_or(0).min(slots.len()));
    from.iter().chain(before)
}

/// Fills the first free slot for `fingerprint`. The times come first: whoever finds the fingerprint finds them, too.
fn put(slots: &[Slot], fingerprint: u64, times: u64) {
    if let Some(slot) = probe(slots, fingerprint).find(|slot| slot.is_free()) {
        slot.times.store(times, Ordering::Release);
        slot.fingerprint.store(fingerprint, Ordering::Release);
    }
}

/// `capacity` slots with what `keep` keeps of `slots`.
fn rebuilt(slots: &[Slot], capacity: usize, keep: impl Fn(&Slot) -> bool) -> Vec<Slot> {
    let new: Vec<Slot> = (0..capacity.max(SLOTS_MIN)).map(|_| Slot::default()).collect();
    for slot in slots.iter().filter(|slot| !slot.is_free() && keep(slot)) {
        put(&new, slot.fingerprint.load(Ordering::Acquire), slot.times.load(Ordering::Acquire));
    }
    new
}

fn join(before: u32, until: u32) -> u64 {
    u64::from(before) << 32 | u64::from(until)
}

fn split(times: u64) -> (u32, u32) {
    (
        u32::try_from(times >> 32).unwrap_or(u32::MAX),
        u32::try_from(times & u64::from(u32::MAX)).unwrap_or(u32::MAX),
    )
}

/// Seconds, good until 2106; what lies beyond is for ever.
fn seconds(at: i64) -> u32 {
    u32::try_from(at.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Add { provider: u8, name: u16, before: i64, until: i64 },
        Forget { now: i64 },
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        let add = (0_u8..3, 0_u16..400, 0_i64..1000, 0_i64..1000)
            .prop_map(|(provider, name, before, until)| Step::Add { provider, name, before, until });
        prop_oneof![50 => add, 2 => (0_i64..1000).prop_map(|now| Step::Forget { now }), 1 => Just(Step::Clear)]
    }

    const PROVIDERS: [&str; 3] = ["", "one", "two"];

    proptest! {
        /// It holds what a map would hold; what has ended may be there or not.
        #[test]
        fn it_is_a_map_that_may_forget_what_ended(steps in prop::collection::vec(step(), 0..600)) {
            let set = RevokedSet::default();
            let mut must: HashMap<(u8, u16), (i64, i64)> = HashMap::new();
            let mut may = must.clone();
            for step in steps {
                match step {
                    Step::Add { provider, name, before, until } => {
                        set.add(PROVIDERS[usize::from(provider)], &name.to_string(), before, until);
                        for model in [&mut must, &mut may] {
                            let entry = model.entry((provider, name)).or_insert((before, until));
                            *entry = (entry.0.max(before), entry.1.max(until));
                        }
                    }
                    Step::Forget { now } => {
                        set.forget(now);
                        must.retain(|_, (_, until)| *until >= now);
                    }
                    Step::Clear => {
                        set.clear();
                        must.clear();
                        may.clear();
                    }
                }
            }
            for name in 0..400 {
                for provider in 1..3 {
                    let found = set.before(PROVIDERS[usize::from(provider)], &name.to_string());
                    let of = |model: &HashMap<(u8, u16), (i64, i64)>| {
                        [0, provider].into_iter().filter_map(|of| model.get(&(of, name))).map(|(before, _)| *before).max()
                    };
                    let (must, may) = (of(&must), of(&may));
                    prop_assert!(found >= must && found <= may, "{must:?} <= {found:?} <= {may:?}");
                }
            }
            prop_assert!(must.len() <= set.len() && set.len() <= may.len());
        }
    }

    #[test]
    fn a_million_take_less_than_27_bytes_each_and_are_forgotten() {
        let set = RevokedSet::default();
        for number in 0..1_000_000 {
            set.add("local", &format!("token-{number}"), i64::MAX, 1_000 + number % 100);
        }
        assert_eq!(set.len(), 1_000_000);
        let each = set.bytes() as f64 / 1e6;
        eprintln!("{each:.1} bytes a revocation");
        assert!((21.0..27.0).contains(&each), "{each}");
        assert!(
            (0..1_000_000)
                .step_by(997)
                .all(|number| set.before("local", &format!("token-{number}")).is_some())
        );
        assert!(
            (0..1_000_000)
                .step_by(997)
                .all(|number| set.before("other", &format!("token-{number}")).is_none())
        );
        set.forget(1_050);
        assert_eq!(set.len(), 500_000);
        assert!(set.bytes() < 14_000_000, "{}", set.bytes());
        assert!(set.before("local", "token-150").is_some() && set.before("local", "token-149").is_none());
        set.forget(5_000);
        assert!(set.is_empty() && set.bytes() < 20_000, "{}", set.bytes());
    }

    /// What was there before a question began is found, whatever others add meanwhile.
    #[test]
    fn readers_miss_nothing_while_it_grows() {
        let set = Arc::new(RevokedSet::default());
        (0..1000).for_each(|number| set.add("p", &format!("old-{number}"), 7, 9_000));
        let writer = {
            let set = set.clone();
            std::thread::spawn(move || {
                for number in 0..50_000 {
                    set.add("p", &format!("new-{number}"), 8, if number % 2 == 0 { 1 } else { 9_000 });
                    if number % 5_000 == 0 {
                        set.forget(5);
                    }
                }
            })
        };
        let mut rounds = 0;
        while !writer.is_finished() || rounds == 0 {
            for number in 0..1000 {
                assert_eq!(set.before("p", &format!("old-{number}")), Some(7));
            }
            rounds += 1;
        }
        writer.join().unwrap();
        assert_eq!(set.before("p", "new-49999"), Some(8));
    }
}
