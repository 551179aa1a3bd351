//! How many connections each address has.
//!
//! In shards, so that two connections rarely meet at a lock, and each holds it for a lookup only. An address is known
//! for as long as it has a connection.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// More than threads that could accept at once.
const SHARDS: usize = 64;

/// The connections of each address. IPv6 addresses count by /56, which is what one customer is given: as single ones
/// nobody would ever reach a limit.
#[derive(Debug)]
pub(super) struct PerAddress {
    shards: [Mutex<HashMap<u64, u32>>; SHARDS],
    /// Keyed anew in every process: nobody can choose addresses that meet in one shard.
    hasher: RandomState,
}

impl Default for PerAddress {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    all: Arc<PerAddress>,
    key: u64,
}

impl PerAddress {
    /// Counts a connection of `address`; `None` if it has `most` already, where 0 is no limit.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Place> {
        let key = key(address);
        let mut shard = self.shard(key)?.lock();
        let count = shard.entry(key).or_insert(0);
        if most > 0 && usize::try_from(*count).unwrap_or(usize::MAX) >= most {
            return None;
        }
        *count = count.saturating_add(1);
        drop(shard);
        Some(Place { all: self.clone(), key })
    }

    fn shard(&self, key: u64) -> Option<&Mutex<HashMap<u64, u32>>> {
        self.shards.get(self.hasher.hash_one(key) as usize % SHARDS)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(shard) = self.all.shard(self.key) else { return };
        if let Entry::Occupied(mut entry) = shard.lock().entry(self.key) {
            match entry.get().checked_sub(1) {
                Some(left @ 1..) => {
                    entry.insert(left);
                }
                _ => {
                    entry.remove();
                }
            }
        }
    }
}

/// The whole of an IPv4 address, the first 56 bits of any other.
fn key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => 1 << 56 | u64::from(u32::from(address)),
        IpAddr::V6(address) => (u128::from(address) >> 72) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_apart_and_forgotten() {
        let all = Arc::new(PerAddress::default());
        let take = |address: &str, most| all.take(address.parse().unwrap(), most);
        let held = [take("192.0.2.1", 2).unwrap(), take("::ffff:192.0.2.1", 2).unwrap()];
        assert!(take("192.0.2.1", 2).is_none());
        // A limit that was changed meanwhile holds for those who come.
        assert!(take("192.0.2.1", 3).is_some() && take("192.0.2.1", 0).is_some());
        let network = take("2001:db8:0:100::1", 1).unwrap();
        assert!(take("2001:db8:0:1ff:ffff::", 1).is_none());
        assert!(take("2001:db8:0:200::1", 1).is_some());
        drop((held, network));
        assert!(take("192.0.2.1", 1).is_some());
        assert!(all.shards.iter().all(|shard| shard.lock().is_empty()));
    }
}
