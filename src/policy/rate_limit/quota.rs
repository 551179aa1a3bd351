//! What answers tell of a quota, in the same fields as of limits.

use smallvec::smallvec;

use super::answer::{Modes, Stand, Told};
use super::bucket::Room;
use super::rules::{Rules, WindowRule};
use super::table::Standing;

/// What never changes about what is told of one quota: its name, its number, the length of its period.
#[derive(Debug)]
pub struct QuotaPolicy {
    told: Told,
    name: Box<str>,
}

/// How a quota stands for one request.
#[derive(Debug)]
pub struct QuotaStand {
    standing: Standing,
}

const NANOS: u64 = 1_000_000_000;

impl QuotaPolicy {
    /// Of the quota called `name` (visible ASCII and spaces): `count` in a period of `seconds`.
    pub fn new(name: &str, count: u64, seconds: u64, modes: Modes) -> Self {
        let window = WindowRule { count, per: seconds.saturating_mul(NANOS) };
        let rules = Rules { windows: smallvec![window], ..Rules::default() };
        Self { told: Told::new(name, &rules, modes), name: name.into() }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn stand<'a>(&'a self, stand: &'a QuotaStand) -> Stand<'a> {
        Stand { told: &self.told, standing: &stand.standing, cost: 1 }
    }
}

impl QuotaStand {
    /// So many are `left`, the request counted, for `seconds` yet; `admitted`: whether it was counted.
    pub fn new(left: u64, seconds: u64, admitted: bool) -> Self {
        let time = seconds.saturating_mul(NANOS);
        let room = Room { left, wait: if admitted { 0 } else { time }, empty_in: time };
        Self { standing: Standing { rooms: smallvec![room], slots_left: None, delay: 0, admitted } }
    }
}
