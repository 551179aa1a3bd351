//! The counters that a process leaves to the one that replaces it, as bytes.
//!
//! Without them an upgrade would be a fresh burst for everybody. Only what is not as good as new is written, and no more than
//! a bounded number of bytes. Requests under way stay with the process that has them; what they may come to count for is
//! counted beforehand.
//!
//! ```text
//! MAGIC secret:2*u64 moment:u64 stores:u32
//! store   name kind bucket:u64 (0 = none) rings:u8 {per:u64} entries:u64
//! entry   key level at forgiven:2*u64 {newest:u32 counts:11*u32}
//! text    length:u32 UTF-8                                          all numbers little-endian
//! ```

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::basis;
use super::bucket::{Bucket, Forgiven};
use super::config::{QUEUE_MAX, nanos};
use super::key::KeyHash;
use super::live::{Identity, Live};
use super::ring::Ring;
use super::rules::{LONGER_WINDOWS_MAX, Layout};
use super::store::Store;
use super::table::Counters;

const MAGIC: &[u8; 8] = b"edgwcnt2";

/// Most that is written, and read.
pub const BYTES_MAX: usize = 256 << 20;

/// Longest name and kind of a limit.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Counters of one limit on their way.
struct Carried {
    identity: Identity,
    layout: Layout,
    entries: Vec<(KeyHash, Counters)>,
}

impl Live {
    /// All counters that are not as good as new ones, and whether that were so many that some are left out. `now` or, where
    /// requests are counted meanwhile, the latest of those is the moment that the next process goes on from.
    pub fn export(&self, now: Instant) -> (Vec<u8>, bool) {
        let passed = basis::nanos(now);
        let mut latest = passed;
        let stores = self.stores();
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        basis::get().secret.iter().for_each(|part| out.extend_from_slice(&part.to_le_bytes()));
        let moment = out.len();
        out.extend_from_slice(&passed.to_le_bytes());
        out.extend_from_slice(&u32::try_from(stores.len()).unwrap_or(0).to_le_bytes());
        let mut is_cut = false;
        for (identity, store) in &stores {
            put_text(&mut out, &identity.name);
            put_text(&mut out, &identity.kind);
            let Layout { bucket, rings, .. } = store.layout();
            out.extend_from_slice(&bucket.unwrap_or(0).to_le_bytes());
            out.push(u8::try_from(rings.len()).unwrap_or(0));
            rings.iter().for_each(|per| out.extend_from_slice(&per.to_le_bytes()));
            let at = out.len();
            out.extend_from_slice(&0_u64.to_le_bytes());
            let mut entries = 0_u64;
            store.each_in_use(passed, |key, counters| {
                // Room is left for what describes the stores that follow.
                if out.len() > BYTES_MAX - BYTES_MAX / 16 {
                    is_cut = true;
                    return;
                }
                entries += 1;
                latest = latest.max(counters.bucket.parts().1);
                put_entry(&mut out, key, counters);
            });
            put_at(&mut out, at, entries);
        }
        put_at(&mut out, moment, latest);
        is_cut |= out.len() > BYTES_MAX;
        (out, is_cut)
    }

    /// Goes on with what [`Live::export`] has written in another process, for all limits that there are here. Before anything
    /// is counted. Says how many counters there are.
    ///
    /// # Errors
    /// Nothing of it can be used; nothing has changed.
    pub fn import(&self, bytes: &[u8], now: Instant) -> Result<usize, &'static str> {
        let (secret, passed, carried) = read(bytes).ok_or("they cannot be read")?;
        if !basis::inherit(secret, passed, now) {
            return Err("this process counts already");
        }
        let mut entries = 0;
        for Carried { identity, layout, entries: carried } in carried {
            if let Some(store) = self.newest(&identity) {
                entries += store.import(&layout, carried, passed);
            }
        }
        Ok(entries)
    }
}

/// Writes over what stands `at` there.
fn put_at(out: &mut [u8], at: usize, number: u64) {
    if let Some(place) = out.get_mut(at..at + 8) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_entry(out: &mut Vec<u8>, key: KeyHash, counters: &Counters) {
    let Counters { bucket, rings, forgiven, under_way: _ } = counters;
    let (level, at) = bucket.parts();
    for number in [key.0, level, at, forgiven.parts, forgiven.under] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for ring in rings {
        ring.numbers().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    }
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.u32()?).ok().filter(|length| *length <= TEXT_BYTES_MAX)?;
        std::str::from_utf8(self.take(length)?).ok()
    }
}

fn read(bytes: &[u8]) -> Option<([u64; 2], u64, Vec<Carried>)> {
    let mut from = Reader(bytes);
    if from.take(MAGIC.len())? != MAGIC {
        return None;
    }
    let secret = [from.u64()?, from.u64()?];
    let passed = from.u64()?;
    let mut all = Vec::new();
    for _ in 0..from.u32()? {
        let identity = Identity { name: from.text()?.into(), kind: from.text()?.to_owned() };
        let bucket = Some(from.u64()?).filter(|per| *per > 0);
        let rings = usize::from(*from.take(1)?.first()?);
        if rings > LONGER_WINDOWS_MAX {
            return None;
        }
        let mut layout = Layout { bucket, rings: SmallVec::new(), held: false };
        for _ in 0..rings {
            layout.rings.push(Some(from.u64()?).filter(|per| *per > 0)?);
        }
        let mut entries = Vec::new();
        for _ in 0..from.u64()? {
            entries.push(entry(&mut from, &layout, passed)?);
        }
        all.push(Carried { identity, layout, entries });
    }
    from.0.is_empty().then_some((secret, passed, all))
}

/// None of which is later than `passed`, or than whoever has a place then may wait for it: it would count for as long as that
/// is away.
fn entry(from: &mut Reader<'_>, layout: &Layout, passed: u64) -> Option<(KeyHash, Counters)> {
    let key = KeyHash(from.u64()?);
    let bucket = Bucket::of_parts(from.u64()?, Some(from.u64()?).filter(|at| *at <= passed)?);
    let forgiven = Forgiven { parts: from.u64()?, under: from.u64()? };
    let mut rings = SmallVec::new();
    let latest = passed.saturating_add(nanos(QUEUE_MAX));
    for per in &layout.rings {
        let ring = Ring::of_numbers(|| from.u32())?;
        rings.push(Some(ring).filter(|ring| ring.is_before(*per, latest))?);
    }
    // No key is that of none.
    (key != KeyHash::default()).then_some((key, Counters { bucket, rings, forgiven, ..Counters::default() }))
}

/// For whoever holds one by its limit.
pub(super) type Stores = Vec<(Identity, Arc<Store>)>;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::super::tests::{limit_in, rules, settings};
    use super::super::{Facts, RateLimit, Rules, Settings};
    use super::*;
    use crate::base::clock;

    fn passes(limit: &Arc<RateLimit>, number: u32, now: Instant) -> bool {
        limit.check(&Facts::of(IpAddr::V4(number.into())), now).unwrap().refusal().is_none()
    }

    fn with(rules: Rules) -> (Live, Arc<RateLimit>) {
        let live = Live::default();
        let limit = limit_in(&live, Settings { keys_max: 1000, ..settings(rules) });
        (live, limit)
    }

    #[test]
    fn the_next_process_goes_on_with_the_counters() {
        let (old, limit) = with(rules(1, 60, 3, &[(5, 3600)]));
        let base = clock::now();
        assert!((0..3).all(|_| passes(&limit, 1, base)));
        assert!(passes(&limit, 2, base));
        let later = base + Duration::from_secs(130);
        // As good as new by then, but for the hour.
        assert!((0..2).all(|_| passes(&limit, 1, later)));
        let (bytes, is_cut) = old.export(later);
        assert!(!is_cut);
        let (new, limit) = with(rules(1, 60, 3, &[(5, 3600)]));
        assert_eq!(new.import(&bytes, later), Ok(2));
        assert!(!passes(&limit, 1, later), "the hour is used up");
        assert!(!passes(&limit, 1, later + Duration::from_secs(3400)));
        assert!((0..3).all(|_| passes(&limit, 2, later)) && !passes(&limit, 2, later));
        assert!(passes(&limit, 3, later));
    }

    /// What is counted while they are written, and who has a place in a queue then: neither makes the others useless.
    #[test]
    fn what_counts_meanwhile_is_carried_too() {
        let mut rules = rules(1, 1, 3, &[(50, 10)]);
        rules.bucket.as_mut().unwrap().queue = 9_000_000_000;
        let (old, limit) = with(rules.clone());
        let base = clock::now();
        let meanwhile = base + Duration::from_secs(1);
        assert!((0..3).all(|_| passes(&limit, 1, base)));
        let waiting = limit.check(&Facts::of(IpAddr::V4(1.into())), base).unwrap();
        assert_eq!(waiting.delay(), Duration::from_secs(1));
        assert!((0..12).all(|_| passes(&limit, 2, meanwhile)));
        let (bytes, _) = old.export(base);
        let (new, limit) = with(rules);
        assert_eq!(new.import(&bytes, base), Ok(2));
        // Where the old one was when it counted last is where this one begins.
        let met = limit.check(&Facts::of(IpAddr::V4(1.into())), meanwhile).unwrap();
        assert_eq!(met.delay(), Duration::from_secs(1));
        assert!(!passes(&limit, 2, meanwhile), "as many wait as may");
    }

    /// With other windows it goes on with those that are there, as after a reload; with another burst as well.
    #[test]
    fn another_configuration_takes_what_it_can_use() {
        let (old, limit) = with(rules(5, 3600, 5, &[]));
        let now = clock::now();
        assert!((0..5).all(|_| passes(&limit, 1, now)));
        let (bytes, _) = old.export(now);
        let (new, limit) = with(rules(3, 1, 3, &[(6, 3600)]));
        assert_eq!(new.import(&bytes, now), Ok(1));
        assert!(passes(&limit, 1, now) && !passes(&limit, 1, now));
        let (new, limit) = with(rules(5, 3600, 2, &[]));
        assert_eq!(new.import(&bytes, now), Ok(1));
        assert!(!passes(&limit, 1, now) && passes(&limit, 2, now));
        // Another name is another limit.
        let new = Live::default();
        let other = limit_in(&new, Settings { name: "other".into(), ..settings(rules(5, 3600, 5, &[])) });
        assert_eq!(new.import(&bytes, now), Ok(0));
        assert!(passes(&other, 1, now));
    }

    /// Nothing that arrives makes it fail otherwise than by saying so, nor changes anything then.
    #[test]
    fn what_is_cut_or_garbled_is_refused() {
        let (old, limit) = with(rules(1, 60, 3, &[(5, 3600)]));
        let now = clock::now();
        (0..30).for_each(|number| assert!(passes(&limit, number, now)));
        let (bytes, _) = old.export(now);
        let (new, limit) = with(rules(1, 60, 3, &[(5, 3600)]));
        for length in 0..bytes.len() {
            assert!(new.import(&bytes[..length], now).is_err(), "{length}");
        }
        assert_eq!(limit.store().keys(), 0);
        let mut random = fastrand::Rng::with_seed(3);
        let mut accepted = 0;
        for _ in 0..2000 {
            let mut garbled = bytes.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(24..garbled.len());
                garbled[at] = random.u8(..);
            }
            accepted += usize::from(new.import(&garbled, now).is_ok());
            let noise: Vec<u8> = (0..200).map(|_| random.u8(..)).collect();
            assert!(new.import(&noise, now).is_err());
        }
        // What is still well-formed is taken for what it says.
        assert!(limit.store().keys() <= accepted * 30);
        passes(&limit, 1, now + Duration::from_secs(10_000_000));
    }

    /// The one that newcomers share, and what requests under way may come to count for, are carried along.
    #[test]
    fn shared_and_reserved_counters_are_carried() {
        let live = Live::default();
        let mut rules = rules(3, 3600, 3, &[]);
        rules.counted_at_end = true;
        let limit = limit_in(&live, Settings { keys_max: 16, ..settings(rules.clone()) });
        let now = clock::now();
        let under_way: Vec<_> =
            (0..40).map(|number| limit.check(&Facts::of(IpAddr::V4((number % 17).into())), now)).collect();
        let (bytes, _) = live.export(now);
        let new = Live::default();
        let limit = limit_in(&new, Settings { keys_max: 16, ..settings(rules) });
        assert_eq!(new.import(&bytes, now), Ok(17));
        assert_eq!(limit.store().keys(), 16);
        assert!(passes(&limit, 15, now) && !passes(&limit, 0, now));
        drop(under_way);
    }
}
