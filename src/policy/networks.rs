//! A set of networks in CIDR notation, asked by address.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

/// An immutable set of networks. A lookup is two comparisons for a few networks and some twenty for a hundred thousand;
/// clones share the set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Networks {
    /// First and last addresses; sorted, disjoint.
    v4: Arc<[(u32, u32)]>,
    v6: Arc<[(u128, u128)]>,
}

impl Networks {
    /// The set of all addresses in any of `networks`.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match unmapped(network) {
                IpNet::V4(network) => v4.push((u32::from(network.network()), u32::from(network.broadcast()))),
                IpNet::V6(network) => {
                    v6.push((u128::from(network.network()), u128::from(network.broadcast())))
                }
            }
        }
        Self { v4: merge(v4).into(), v6: merge(v6).into() }
    }

    /// Whether `address` is in one of the networks. An IPv4 address mapped into IPv6 counts as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => within(&self.v4, u32::from(address)),
            IpAddr::V6(address) => within(&self.v6, u128::from(address)),
        }
    }

    /// Whether there is no network in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// `network`, as an IPv4 one if it is one of IPv4 addresses mapped into IPv6.
fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.network().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(address, len)| Ipv4Net::new(address, len).ok()).map_or(network, IpNet::V4)
}

/// Sorts ranges and joins those that overlap.
fn merge<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, before| {
        let overlaps = next.0 <= before.1;
        if overlaps {
            before.1 = before.1.max(next.1);
        }
        overlaps
    });
    ranges
}

fn within<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after.checked_sub(1).and_then(|index| ranges.get(index)).is_some_and(|(_, last)| address <= *last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(texts: &[&str]) -> Networks {
        Networks::new(texts.iter().map(|text| text.parse().unwrap()))
    }

    #[test]
    fn contains_what_was_listed() {
        let networks =
            set(&["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32", "::ffff:198.51.100.0/120"]);
        for inside in ["10.255.0.1", "192.0.2.7", "2001:db8::1", "::ffff:10.0.0.1", "198.51.100.9"] {
            assert!(networks.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["9.255.255.255", "11.0.0.0", "192.0.2.8", "2001:db9::", "::10.0.0.1", "::1"] {
            assert!(!networks.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(set(&["0.0.0.0/0"]).contains("255.255.255.255".parse().unwrap()));
        assert!(!set(&["0.0.0.0/0"]).contains("::1".parse().unwrap()));
        assert!(!Networks::default().contains("127.0.0.1".parse().unwrap()));
    }

    proptest! {
        /// The sorted set answers as a walk over the list would.
        #[test]
        fn agrees_with_a_walk(
            list in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..20), at in any::<u32>(), near in any::<prop::sample::Index>(),
        ) {
            let list: Vec<IpNet> =
                list.into_iter().map(|(bits, len)| IpNet::new(IpAddr::V4(bits.into()), len).unwrap().trunc()).collect();
            let set = Networks::new(list.iter().copied());
            let mut addresses = vec![IpAddr::V4(at.into())];
            if !list.is_empty() {
                let network = list[near.index(list.len())];
                addresses.extend([network.network(), network.broadcast()]);
            }
            for address in addresses {
                prop_assert_eq!(set.contains(address), list.iter().any(|network| network.contains(&address)));
            }
        }
    }
}
