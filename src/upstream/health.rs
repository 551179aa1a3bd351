//! What active checks say about one server: pure thresholds.

/// How many checks in a row change the mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Passed checks until an unhealthy server counts as healthy; at least 1.
    pub healthy_after: u32,
    /// Failed checks until a healthy server counts as unhealthy; at least 1.
    pub unhealthy_after: u32,
}

/// Health of one server as active checks see it.
///
/// The very first check decides at once: nothing is known that it could contradict, and a server that is down when the
/// process starts must not cost `unhealthy_after` rounds of failing requests. Until then a server counts as healthy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    state: State,
    /// Checks in a row that contradict `state`.
    against: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unknown,
    Healthy,
    Unhealthy,
}

impl Health {
    /// Whether the server may be used as far as checks know.
    pub fn is_healthy(&self) -> bool {
        self.state != State::Unhealthy
    }

    /// Whether a check has ever ended.
    pub fn is_known(&self) -> bool {
        self.state != State::Unknown
    }

    /// Takes in one check; `Some(healthy)` when the mind changed.
    pub fn observe(&mut self, passed: bool, thresholds: Thresholds) -> Option<bool> {
        let (state, needed) = if passed {
            (State::Healthy, thresholds.healthy_after)
        } else {
            (State::Unhealthy, thresholds.unhealthy_after)
        };
        if self.state == state {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let first = self.state == State::Unknown;
        if !first && self.against < needed {
            return None;
        }
        *self = Self { state, against: 0 };
        // From unknown to healthy nothing changed for anybody: the server was in use already.
        (!first || !passed).then_some(passed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { healthy_after: 2, unhealthy_after: 3 };

    #[test]
    fn needs_a_row_of_checks_both_ways() {
        let mut health = Health::default();
        assert!(health.is_healthy() && !health.is_known());
        let checks = [true, false, false, true, false, false, false, true, false, true, true];
        let changes: Vec<_> = checks.iter().map(|passed| health.observe(*passed, THRESHOLDS)).collect();
        assert_eq!(changes, [None, None, None, None, None, None, Some(false), None, None, None, Some(true)]);
        assert!(health.is_healthy());
    }

    #[test]
    fn first_check_decides() {
        let mut health = Health::default();
        assert_eq!(health.observe(false, THRESHOLDS), Some(false));
        assert!(!health.is_healthy());
    }

    proptest! {
        /// The state follows the plain definition: it flips exactly when the last N checks agree against it.
        #[test]
        fn flips_exactly_after_a_full_row(
            checks in proptest::collection::vec(any::<bool>(), 1..100),
            healthy_after in 1_u32..5,
            unhealthy_after in 1_u32..5,
        ) {
            let thresholds = Thresholds { healthy_after, unhealthy_after };
            let mut health = Health::default();
            let mut expected = true;
            for end in 1..=checks.len() {
                let passed = checks[end - 1];
                let row = checks[..end].iter().rev().take_while(|check| **check == passed).count();
                let needed = if passed { healthy_after } else { unhealthy_after } as usize;
                let flips = passed != expected && (end == 1 || row >= needed);
                let change = health.observe(passed, thresholds);
                prop_assert_eq!(change, flips.then_some(passed));
                if flips { expected = passed; }
                prop_assert_eq!(health.is_healthy(), expected);
            }
        }
    }
}
