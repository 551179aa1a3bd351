//! Which of several servers takes the next request. Knows weights and loads, nothing of health: the caller passes the
//! candidates (indices into the group), these algorithms only choose among them.

use std::cmp::Ordering;

use parking_lot::Mutex;
use smallvec::SmallVec;

/// Indices of servers that may be chosen. Rarely more than this many servers, so it stays off the heap.
pub type Candidates = SmallVec<[u16; 16]>;

/// Smooth weighted round robin, nginx's algorithm: over a cycle of as many picks as the weights add up to, each server
/// is picked exactly as often as its weight says, and picks of one server are spread as evenly as they can be.
///
/// A server that is no candidate for a while keeps its place and gets no arrears.
#[derive(Debug)]
pub struct SmoothWeighted {
    weights: Box<[u32]>,
    current: Mutex<Box<[i64]>>,
}

impl SmoothWeighted {
    /// For servers of these weights, each at least 1.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let weights: Box<[u32]> = weights.into_iter().collect();
        let current = Mutex::new(vec![0; weights.len()].into_boxed_slice());
        Self { weights, current }
    }

    /// The next server among `candidates`; `None` only if there are none.
    pub fn pick(&self, candidates: &[u16]) -> Option<u16> {
        if let [only] = candidates {
            return Some(*only);
        }
        let mut current = self.current.lock();
        let mut total = 0_i64;
        let mut best: Option<(u16, i64)> = None;
        for index in candidates {
            let at = usize::from(*index);
            let (Some(weight), Some(value)) = (self.weights.get(at), current.get_mut(at)) else { continue };
            let weight = i64::from(*weight);
            total += weight;
            *value = value.saturating_add(weight);
            if best.is_none_or(|(_, most)| *value > most) {
                best = Some((*index, *value));
            }
        }
        let (index, _) = best?;
        if let Some(value) = current.get_mut(usize::from(index)) {
            *value = value.saturating_sub(total);
        }
        Some(index)
    }
}

/// The candidates with the fewest requests in flight for their weight; `load` gives (in flight, weight).
pub fn least_loaded(candidates: &[u16], load: impl Fn(u16) -> (u32, u32)) -> Candidates {
    let mut least = Candidates::new();
    let mut lowest = (0, 1);
    for index in candidates {
        let (in_flight, weight) = load(*index);
        // a/b < c/d without division.
        let order =
            (u64::from(in_flight) * u64::from(lowest.1)).cmp(&(u64::from(lowest.0) * u64::from(weight)));
        match order {
            _ if least.is_empty() => {}
            Ordering::Less => least.clear(),
            Ordering::Equal => {}
            Ordering::Greater => continue,
        }
        lowest = (in_flight, weight);
        least.push(*index);
    }
    least
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(count: usize) -> Candidates {
        (0..u16::try_from(count).expect("few servers")).collect()
    }

    #[test]
    fn spreads_as_nginx_does() {
        let robin = SmoothWeighted::new([5, 1, 1]);
        let picks: Vec<_> = (0..7).map(|_| robin.pick(&[0, 1, 2]).expect("candidates")).collect();
        assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(robin.pick(&[]), None);
    }

    #[test]
    fn least_loaded_weighs() {
        let loads = [(4, 2), (2, 1), (3, 1), (1, 1)];
        let load = |index: u16| loads[usize::from(index)];
        assert_eq!(least_loaded(&[0, 1, 2, 3], load).as_slice(), [3]);
        assert_eq!(least_loaded(&[0, 1, 2], load).as_slice(), [0, 1]);
        assert!(least_loaded(&[], load).is_empty());
    }

    /// Many threads share the cycle: together they still hit each server exactly as often as its weight says.
    #[test]
    fn exact_across_threads() {
        let weights = [3_u32, 1, 2];
        let robin = SmoothWeighted::new(weights);
        let counts: [std::sync::atomic::AtomicU32; 3] = Default::default();
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let index = robin.pick(&[0, 1, 2]).expect("candidates");
                        counts[usize::from(index)].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        let counts = counts.map(std::sync::atomic::AtomicU32::into_inner);
        assert_eq!(counts, weights.map(|weight| weight * 1_000));
    }

    proptest! {
        /// Exact over every cycle, not only the first.
        #[test]
        fn exact_over_a_cycle(weights in proptest::collection::vec(1_u32..20, 1..12)) {
            let robin = SmoothWeighted::new(weights.iter().copied());
            let candidates = all(weights.len());
            for _ in 0..3 {
                let mut counts = vec![0_u32; weights.len()];
                for _ in 0..weights.iter().sum::<u32>() {
                    counts[usize::from(robin.pick(&candidates).expect("candidates"))] += 1;
                }
                prop_assert_eq!(&counts, &weights);
            }
        }

        /// Only candidates are picked, and servers that come and go do not starve the others.
        #[test]
        fn follows_the_candidates(
            weights in proptest::collection::vec(1_u32..20, 2..8),
            masks in proptest::collection::vec(any::<u8>(), 1..100),
        ) {
            let robin = SmoothWeighted::new(weights.iter().copied());
            for mask in masks {
                let candidates: Candidates =
                    all(weights.len()).into_iter().filter(|index| mask & (1 << index) != 0).collect();
                let picked = robin.pick(&candidates);
                prop_assert_eq!(picked.is_some(), !candidates.is_empty());
                prop_assert!(picked.is_none_or(|index| candidates.contains(&index)));
            }
            let everyone = all(weights.len());
            let cycle = weights.iter().sum::<u32>();
            let seen: std::collections::HashSet<_> =
                (0..cycle * 4).filter_map(|_| robin.pick(&everyone)).collect();
            prop_assert_eq!(seen.len(), weights.len());
        }
    }
}
