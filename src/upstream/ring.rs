//! Consistent hash: a key keeps its server while servers come and go around it.
//!
//! Ketama as the load-balancing crate has it, so that memcached clients, nginx (`hash … consistent`) and Edgeward agree on
//! where a key belongs.

use std::net::Ipv6Addr;
use std::sync::Arc;

use pingora::protocols::l4::socket::SocketAddr;
use pingora_load_balancing::Backend;
use pingora_load_balancing::selection::consistent::KetamaHashing;
use pingora_load_balancing::selection::{BackendIter, BackendSelection};

/// Sum of weights on a ring; each unit makes 160 points of 8 bytes. Larger weights are scaled down.
const RING_WEIGHT_MAX: u64 = 1024;
const POINTS_PER_WEIGHT: usize = 160;

/// A hash ring over the servers of a group.
pub(super) struct Ring {
    ketama: Arc<KetamaHashing>,
    points: usize,
}

/// A server's index in its group, as the ring carries it.
#[derive(Debug, Clone, Copy)]
struct Index(u16);

impl Ring {
    /// A ring of these backends; their weights must be at least 1 and their addresses different.
    pub(super) fn new<'a>(backends: impl Iterator<Item = &'a Backend> + Clone) -> Self {
        let total: u64 = backends.clone().map(|backend| backend.weight as u64).sum();
        let scale = |weight: usize| match total {
            0..=RING_WEIGHT_MAX => weight,
            _ => usize::try_from(weight as u64 * RING_WEIGHT_MAX / total).unwrap_or(1),
        };
        let members: std::collections::BTreeSet<_> = (0_u16..)
            .zip(backends)
            .map(|(index, backend)| {
                // Zero would panic in there.
                let mut member = Backend {
                    addr: inet(&backend.addr),
                    weight: scale(backend.weight).max(1),
                    ext: Default::default(),
                };
                member.ext.insert(Index(index));
                member
            })
            .collect();
        let points = members.iter().map(|member| member.weight * POINTS_PER_WEIGHT).sum();
        Self { ketama: Arc::new(KetamaHashing::build(&members)), points }
    }

    /// The candidate that `key` belongs to: the first one clockwise from it.
    pub(super) fn pick(&self, candidates: &[u16], key: u64) -> Option<u16> {
        if let [only] = candidates {
            return Some(*only);
        }
        let mut clockwise = self.ketama.iter(&key.to_be_bytes());
        for _ in 0..self.points {
            let Some(Index(index)) = clockwise.next()?.ext.get::<Index>() else { continue };
            if candidates.contains(index) {
                return Some(*index);
            }
        }
        // Every server has points, unless all of its points collided with others'.
        candidates.first().copied()
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("points", &self.points).finish()
    }
}

/// The ring only knows IP addresses: a unix socket is placed as if it were a unique local address made of its path.
fn inet(address: &SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::Inet(_) => address.clone(),
        SocketAddr::Unix(_) => {
            let path = address.to_string();
            let halves = [hash_key(path.as_bytes()), hash_key(&[path.as_bytes(), b"#"].concat())];
            let [high, low] = halves.map(u128::from);
            let bits = (high << 64 | low) & !(0xff << 120) | 0xfd << 120;
            SocketAddr::Inet((Ipv6Addr::from_bits(bits), 1).into())
        }
    }
}

/// The key of what is hashed: FNV-1a, the same in every process and version, so that several gateways agree.
pub fn hash_key(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(count: usize) -> Vec<Backend> {
        (0..count).map(|n| Backend::new_with_weight(&format!("10.0.0.{n}:80"), 1).unwrap()).collect()
    }

    fn everyone(count: u16) -> Vec<u16> {
        (0..count).collect()
    }

    #[test]
    fn key_is_fnv1a() {
        assert_eq!(hash_key(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash_key(b"foobar"), 0x8594_4171_f739_67e8);
    }

    /// Taking one of five servers out moves only its own keys.
    #[test]
    fn keys_stay_when_another_server_leaves() {
        let ring = Ring::new(backends(5).iter());
        for key in 0..1_000_u64 {
            let key = hash_key(&key.to_be_bytes());
            let before = ring.pick(&everyone(5), key).unwrap();
            let after = ring.pick(&[0, 1, 3, 4], key).unwrap();
            assert!(before == 2 || before == after);
            assert_ne!(after, 2);
        }
    }

    #[test]
    fn weights_share_the_keys() {
        let mut members = backends(3);
        members[0].weight = 2;
        let ring = Ring::new(members.iter());
        let mut counts = [0_usize; 3];
        for key in 0..10_000_u64 {
            counts[usize::from(ring.pick(&everyone(3), hash_key(&key.to_be_bytes())).unwrap())] += 1;
        }
        assert!((4_000..6_000).contains(&counts[0]), "{counts:?}");
        assert!(counts[1..].iter().all(|count| (1_800..3_200).contains(count)), "{counts:?}");
    }

    /// Weights add up to far more points than memory should hold; unix sockets have no address.
    #[test]
    fn takes_any_weight_and_sockets() {
        let mut members = backends(2);
        members[0].weight = usize::try_from(u32::MAX).unwrap();
        for path in ["/run/a.sock", "/run/b.sock"] {
            let socket = std::os::unix::net::SocketAddr::from_pathname(path).unwrap();
            members.push(Backend { addr: SocketAddr::Unix(socket), weight: 1, ext: Default::default() });
        }
        let ring = Ring::new(members.iter());
        assert!(ring.points <= (RING_WEIGHT_MAX as usize + 4) * POINTS_PER_WEIGHT);
        let picked: std::collections::HashSet<_> =
            (0..1_000_u64).filter_map(|key| ring.pick(&[2, 3], hash_key(&key.to_be_bytes()))).collect();
        assert_eq!(picked.len(), 2);
        assert_eq!(Ring::new(backends(0).iter()).pick(&[], 7), None);
    }
}
