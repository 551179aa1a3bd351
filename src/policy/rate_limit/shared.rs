//! Limits that instances share: the local counters first, then those of all instances.
//!
//! A request is counted here before anybody is asked, so whoever is over the limit at this instance alone is refused at
//! once: Redis is not asked, and nothing else is done for it. What passes is asked for in one round trip for all shared
//! limits on the request's way ([`settle`]), and counts here as it counts there. So when there is nobody to ask, the local
//! counters already know what this instance has let through.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::bucket::Room;
use super::table::Standing;
use super::{Facts, Held, Key, Met, Passage, RateLimit, Rules, Settings, Waiting};
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::cluster::counters::{
    self, Ask, BucketLaw, Counters, Law, Receipt, SharedKey, SharedLimit, WindowLaw,
};
use crate::enum_value;

enum_value! {
    /// What a shared limit does while there is nobody to ask.
    pub enum OnStoreFailure {
        /// Each instance counts for itself.
        Local = "local",
        /// Everything passes.
        Allow = "allow",
        /// Nothing passes.
        Deny = "deny",
    }
}

/// What a client is told to wait for when there is nobody to ask.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The part of a limit that instances share.
#[derive(Debug)]
pub(super) struct Shared {
    counters: Arc<Counters>,
    limit: Arc<SharedLimit>,
    kind: Box<str>,
    on_failure: OnStoreFailure,
}

impl Shared {
    /// `None` where there is nothing that could be shared: requests under way are each instance's own.
    pub(super) fn new(counters: &Arc<Counters>, settings: &Settings) -> Option<Self> {
        let law = law(&settings.rules);
        law.bucket?;
        Some(Self {
            counters: counters.clone(),
            limit: counters.limit(&settings.name, &law),
            kind: settings.key.kind().into(),
            on_failure: settings.on_store_failure,
        })
    }

    /// Whether everything passes at the moment, whatever the local counters say.
    pub(super) fn lets_all_pass(&self) -> bool {
        self.on_failure == OnStoreFailure::Allow && !self.counters.is_up()
    }

    /// How all instances together stand for `key`; `None` if there is nobody to ask.
    pub(super) async fn look(&self, key: SharedKey) -> Option<SmallVec<[Room; 2]>> {
        let told = self.counters.look(&self.limit, key).await.ok()?;
        let room = |room: &counters::Room| Room { left: room.left, wait: room.wait, empty_in: room.empty_in };
        Some(told.rooms.iter().map(room).collect())
    }

    /// Permits that this instance may hold at once; 0 = each request is asked for.
    pub(super) fn batch_max(&self) -> u64 {
        self.limit.batch_max()
    }

    /// What the request is counted by on all instances.
    pub(super) fn key(&self, key: &Key, facts: &Facts<'_>) -> SharedKey {
        SharedKey::new(&self.kind, &key.values(facts))
    }
}

fn law(rules: &Rules) -> Law {
    let bucket = rules.bucket.map(|rule| BucketLaw {
        count: rule.count,
        per: rule.per,
        burst: rule.burst,
        queue: rule.queue,
    });
    let windows = rules.windows.iter().map(|rule| WindowLaw { count: rule.count, per: rule.per });
    Law { bucket, windows: windows.collect() }
}

/// What a request still has to ask, or has asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    /// Not yet.
    Pending(SharedKey),
    /// And was counted.
    Counted(SharedKey, Receipt),
}

/// A limit that has still to be asked: its place among those met, and what is asked of it.
type Pending = (usize, Arc<RateLimit>, SharedKey, u64);

/// Whether any of these limits has still to be asked elsewhere: [`settle`].
pub fn is_pending(met: &[Met]) -> bool {
    met.iter().any(|met| matches!(met.asked, Some(Asked::Pending(_))))
}

/// Asks all shared limits among `met` in one round trip: none counts the request if one refuses it. `Some` is the refusal.
/// Takes no longer than `cluster.timeout`.
pub async fn settle(met: &mut [Met]) -> Option<Problem> {
    let pending = met.iter().enumerate().filter_map(|(at, met)| match met.asked {
        Some(Asked::Pending(key)) => Some((at, met.limit.clone(), key, met.cost)),
        _ => None,
    });
    let pending: SmallVec<[Pending; 2]> = pending.collect();
    let asks: SmallVec<[Ask<'_>; 2]> = pending
        .iter()
        .filter_map(|(_, limit, key, cost)| {
            let shared = limit.shared.as_ref()?;
            Some(Ask { limit: &shared.limit, key: *key, cost: *cost })
        })
        .collect();
    // All are of the one cluster of the process.
    let counters = &pending.first()?.1.shared.as_ref()?.counters;
    let answer = counters.take(&asks).await;
    if let Err(failure) = &answer {
        tracing::debug!("shared limits cannot be asked: {failure}");
    }
    let mut told = answer.as_ref().ok().map(|answer| answer.standings.iter());
    for (at, _, key, _) in &pending {
        let Some(met) = met.get_mut(*at) else { continue };
        let standing = told.as_mut().and_then(Iterator::next);
        match (&answer, standing) {
            (Ok(answer), Some(Some(standing))) => met.answered(*key, standing, answer.admitted),
            (Ok(_), _) => met.not_asked(),
            (Err(_), _) => met.unanswered(),
        }
    }
    met.iter().find_map(Met::refusal)
}

/// How a window stands with the request in it, where it fits: which is how the local counters tell it.
fn with_request(room: counters::Room, cost: u64, emptied: impl Fn(u64) -> u64) -> Room {
    let counters::Room { left, wait, empty_in } = room;
    if wait > 0 {
        return Room { left, wait, empty_in };
    }
    Room { left: left.saturating_sub(cost), wait, empty_in: emptied(empty_in) }
}

/// For each window, when nothing of it counts any more once a request of `cost` is in it, by when nothing would without.
fn emptied_after(rules: &Rules, cost: u64) -> impl Iterator<Item = impl Fn(u64) -> u64> {
    // What is in a bucket drains one after the other; a longer window forgets the last when it is over, a step late at most.
    let drains = rules.bucket.iter().map(move |rule| {
        let time = u128::from(cost) * u128::from(rule.per) / u128::from(rule.count.max(1));
        (u64::try_from(time).unwrap_or(u64::MAX), 0)
    });
    let forgotten = rules.windows.iter().map(|rule| (0, rule.per.saturating_add(rule.per / 10)));
    drains.chain(forgotten).map(|(more, least)| move |empty: u64| empty.saturating_add(more).max(least))
}

impl Met {
    /// Every limit has said something; whether `all` admit the request.
    fn answered(&mut self, key: SharedKey, told: &counters::Standing, all: bool) {
        let empties = emptied_after(&self.limit.settings.rules, self.cost);
        let rooms = told.rooms.iter().zip(empties).map(|(room, empty)| with_request(*room, self.cost, empty));
        let rooms = rooms.collect();
        let slots_left = self.standing.as_ref().and_then(|standing| standing.slots_left);
        let standing = Standing { rooms, slots_left, delay: told.delay, admitted: told.admitted };
        self.standing = Some(standing);
        if all {
            self.asked = Some(Asked::Counted(key, told.receipt));
            self.wait_for(Duration::from_nanos(told.delay));
            if matches!(self.verdict, Passage::Refused(_)) {
                self.give_back();
                self.forget();
            } else {
                self.count();
                self.note_passed();
            }
            return;
        }
        self.asked = None;
        self.forget();
        if !told.admitted {
            let wait = told.rooms.iter().map(|room| room.wait).max().unwrap_or(0);
            self.verdict = Passage::Refused(Duration::from_nanos(wait));
            self.limit.metrics.refused();
        }
    }

    /// Another limit refused before this one was asked: nothing counts, and nothing is told of it.
    fn not_asked(&mut self) {
        self.asked = None;
        self.standing = None;
        self.forget();
    }

    /// There was nobody to ask.
    fn unanswered(&mut self) {
        self.asked = None;
        self.limit.metrics.store_failed();
        match self.limit.shared.as_ref().map(|shared| shared.on_failure) {
            Some(OnStoreFailure::Deny) => {
                self.forget();
                self.verdict = Passage::Unavailable;
                self.limit.metrics.refused();
            }
            Some(OnStoreFailure::Allow) => {
                self.verdict = Passage::Free;
                self.count();
            }
            // As the local counters said.
            Some(OnStoreFailure::Local) | None => self.count(),
        }
        self.note_passed();
    }

    fn note_passed(&self) {
        if matches!(self.verdict, Passage::Free) {
            self.limit.metrics.passed();
        }
    }

    /// Has the request wait for `delay`, as all instances together see it.
    fn wait_for(&mut self, delay: Duration) {
        let before = std::mem::replace(&mut self.verdict, Passage::Free);
        if delay.is_zero() {
            return;
        }
        self.verdict = match before {
            Passage::After(_, place) => Passage::After(delay, place),
            _ if self.limit.may_wait() => Passage::After(delay, Waiting(self.limit.clone())),
            _ => {
                self.limit.metrics.refused();
                Passage::Refused(delay)
            }
        };
    }

    /// Counts here what was only reserved, unless that is to be seen at the end.
    fn count(&mut self) {
        if self.limit.settings.rules.counted_at_end {
            return;
        }
        if let Some(held) = &mut self.held {
            held.count();
        }
    }

    /// Counts nothing here, and holds nothing any more.
    pub(super) fn forget(&mut self) {
        if let Some(held) = &mut self.held {
            held.holding.counts = false;
        }
        self.held = None;
    }

    /// What was counted elsewhere does not count after all.
    pub(super) fn give_back(&mut self) {
        if let (Some(Asked::Counted(key, receipt)), Some(shared)) = (self.asked.take(), &self.limit.shared) {
            shared.counters.give_back(&Ask { limit: &shared.limit, key, cost: self.cost }, receipt);
        }
    }
}

impl Held {
    /// Counts what was reserved; what else is held stays.
    fn count(&mut self) {
        let reserved = std::mem::take(&mut self.holding.reserved);
        let holding = super::Holding { requests: 0, reserved, counts: true };
        self.holding.counts = false;
        self.store.end(&self.rules, self.key, holding, crate::base::clock::now());
    }
}

impl Passage {
    /// What a request is told that nobody could say anything about.
    pub(super) fn unavailable() -> Problem {
        Problem::new(Reason::LimitUnavailable).retry_after(RETRY_AFTER)
    }
}
