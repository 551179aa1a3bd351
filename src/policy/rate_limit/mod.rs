//! `[rate_limits]`: how many requests pass, counted by what.
//!
//! ```text
//! Key ─► KeyHash ─► Store (64 shards, one lock each) ─► Table ─► Slots: a bucket, a ring for each longer window, requests under way
//! ```
//!
//! - **The law.** The shortest window is a token bucket: in any time t at most `burst + rate x t` requests pass. Of a longer
//!   window of length w at most its number pass in any time w. All windows are looked at before any is counted, in one step.
//!   Errors are to the strict side: a longer window forgets a request up to a tenth of its length late.
//! - **Missing is not unlimited.** A request without the value that it is to be counted by counts by its address.
//! - **Memory is bounded** and nobody's counter is lost for it: see [`store`].
//!
//! A limit decides and remembers; who asks it answers, waits, and tells it when the request has ended ([`Met`]).

mod answer;
mod basis;
mod bucket;
mod carry;
mod config;
mod cost;
mod key;
mod live;
mod look;
mod quota;
mod ring;
mod rules;
mod shared;
mod slots;
pub mod store;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::HeaderValue;
use smallvec::SmallVec;

pub use answer::Modes;
pub use carry::BYTES_MAX as CARRIED_BYTES_MAX;
pub use config::{ModesRaw, RateLimitRaw};
pub use cost::{Cost, CostRaw, Work};
pub use key::{Facts, Key, KeyHash, Part};
pub use live::Live;
pub use look::Question;
pub use quota::{QuotaPolicy, QuotaStand};
pub use rules::{BucketRule, COUNT_MAX, LONGER_WINDOWS_MAX, Rules, WindowRule};
pub use shared::{OnStoreFailure, is_pending, settle};

use answer::{Stand, Told};
use live::Handle;
use shared::{Asked, Shared};
use store::{Holding, Store, Taken};
use table::Standing;

use super::networks::Networks;
use crate::base::clock;
use crate::base::origin::Origin;
use crate::base::problem::{Problem, Quota};
use crate::base::reason::Reason;
use crate::cluster::counters::Counters;
use crate::telemetry::metrics::LimitMetrics;

/// Everything the configuration says about one limit, checked.
#[derive(Debug)]
pub struct Settings {
    /// Its name: visible ASCII.
    pub name: Arc<str>,
    /// Where it was written.
    pub origin: Origin,
    /// What requests are counted by.
    pub key: Key,
    /// How many pass.
    pub rules: Rules,
    /// What one request counts for.
    pub cost: Cost,
    /// Which requests do not count once they have ended.
    pub skip: Skip,
    /// Addresses that are not counted.
    pub allow: Networks,
    /// Consumers that are not counted.
    pub allow_consumers: Box<[Box<str>]>,
    /// In which forms answers tell of it.
    pub modes: Modes,
    /// The detail of a refusal; `None` = the usual one.
    pub message: Option<Arc<str>>,
    /// The status of a refusal: 429 or 503.
    pub status: u16,
    /// Keys that may have an entry of their own.
    pub keys_max: usize,
    /// What is done while the counters that instances share cannot be asked.
    pub on_store_failure: OnStoreFailure,
}

/// Which requests do not count once they have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Skip {
    /// Those answered with 400 and above.
    pub failed: bool,
    /// Those answered below 400.
    pub successful: bool,
}

/// One limit.
#[derive(Debug)]
pub struct RateLimit {
    settings: Settings,
    rules: Arc<Rules>,
    counters: Arc<Handle>,
    /// What it shares with other instances.
    shared: Option<Shared>,
    /// Whether there are other instances.
    is_clustered: bool,
    told: Told,
    metrics: Arc<LimitMetrics>,
    /// Requests that wait for their place.
    waiting: AtomicUsize,
}

/// Requests that may wait for their place under one limit. Each holds its connection and its head.
const WAITING_MAX: usize = 4096;

impl RateLimit {
    /// The limit that `settings` describe, with the counters that `live` has for it, and those of `cluster` that all
    /// instances have.
    pub fn new(
        settings: Settings,
        live: &Live,
        cluster: Option<&Arc<Counters>>,
        metrics: Arc<LimitMetrics>,
    ) -> Arc<Self> {
        let shared = cluster.and_then(|counters| Shared::new(counters, &settings));
        let mut rules = settings.rules.clone();
        // Here only reserved until all instances have been asked.
        rules.counted_at_end |= shared.is_some();
        let rules = Arc::new(rules);
        let counters = live.store(&settings.name, settings.key.kind(), &rules, settings.keys_max);
        let told = Told::new(&settings.name, &rules, settings.modes);
        Arc::new(Self {
            settings,
            rules,
            counters,
            shared,
            is_clustered: cluster.is_some(),
            told,
            metrics,
            waiting: AtomicUsize::new(0),
        })
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    /// What it was made from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What it says, in words.
    pub fn describe(&self) -> String {
        let Rules { bucket, windows, concurrent, .. } = &*self.rules;
        let shortest = bucket.iter().map(|rule| (rule.count, rule.per));
        let all = shortest.chain(windows.iter().map(|rule| (rule.count, rule.per)));
        let mut parts: Vec<String> = all.map(|(count, per)| answer::rate(count, per)).collect();
        parts.extend(concurrent.map(|most| format!("{most} at once")));
        let mut text = format!("{} by {}", parts.join(" and "), self.settings.key.words());
        if let Some(rule) = bucket.filter(|rule| rule.burst != rule.count) {
            text.push_str(&format!(", {} after a rest", rule.burst));
        }
        match &self.settings.cost {
            Cost::Fixed(1) => {}
            Cost::Fixed(cost) => text.push_str(&format!(", each counts for {cost}")),
            Cost::Worked(expression) => text.push_str(&format!(", each counts for {}", expression.text())),
        }
        text
    }

    /// Its counters.
    pub fn store(&self) -> &Arc<Store> {
        &self.counters.0
    }

    /// Asks whether a request may pass, and counts it if so. `None`: it is not for this limit.
    ///
    /// A request that passes is counted whatever comes of it, unless the limit skips what ends so: keep the result until
    /// it has ended, and tell it how ([`Met::ended`]).
    pub fn check(self: &Arc<Self>, facts: &Facts<'_>, now: Instant) -> Option<Met> {
        self.check_by(None, facts, now)
    }

    /// The same, by the key of `facts` if that is known already.
    fn check_by(self: &Arc<Self>, key: Option<KeyHash>, facts: &Facts<'_>, now: Instant) -> Option<Met> {
        if self.is_exempt(facts) {
            return None;
        }
        let cost = self.cost(facts);
        if cost == 0 && self.rules.concurrent.is_none() {
            return None;
        }
        let in_time = |delay| {
            let left = facts.deadline.map(|deadline| deadline.saturating_duration_since(now));
            left.is_none_or(|left| left > Duration::from_nanos(delay))
        };
        let may_wait = |delay| in_time(delay) && self.may_wait();
        let key = key.unwrap_or_else(|| self.settings.key.of(facts));
        let Taken { standing, admitted, newer, wait, key, .. } =
            self.store().take(&self.rules, key, cost, now, &may_wait);
        if store::is_overflow(key) {
            self.metrics.overflowed();
        }
        // Of what it was admitted by: a newer configuration may hold what this one does not.
        let rules = newer.as_ref().unwrap_or(&self.rules);
        // Those under way are this instance's own in any case.
        let is_full = standing.as_ref().is_some_and(|standing| standing.slots_left == Some(0));
        let passes = !admitted && !is_full && self.shared.as_ref().is_some_and(Shared::lets_all_pass);
        let held = (admitted && rules.holds()).then(|| Held {
            store: self.store().clone(),
            rules: rules.clone(),
            key,
            holding: Holding {
                requests: rules.concurrent.is_some().into(),
                reserved: if rules.counted_at_end { cost } else { 0 },
                // Unless somebody says otherwise.
                counts: rules.counted_at_end,
            },
        });
        let asked = self.shared.as_ref().filter(|_| admitted && cost > 0);
        let asked = asked.map(|shared| Asked::Pending(shared.key(&self.settings.key, facts)));
        let wait = Duration::from_nanos(wait);
        let verdict = match (admitted, wait) {
            _ if passes => Passage::Free,
            (true, Duration::ZERO) => Passage::Free,
            // It has taken its place.
            (true, wait) => Passage::After(wait, Waiting(self.clone())),
            (false, wait) => {
                self.metrics.refused();
                Passage::Refused(wait)
            }
        };
        // Nobody is asked about who is refused here.
        let asked = asked.filter(|_| !matches!(verdict, Passage::Refused(_)));
        if asked.is_none() && matches!(verdict, Passage::Free) {
            self.metrics.passed();
        }
        Some(Met { limit: self.clone(), standing, cost, verdict, held, asked })
    }

    /// The key of `facts`, what is kept of which is on its way from memory then: it is about to be asked for.
    fn fetch(&self, facts: &Facts<'_>) -> KeyHash {
        let key = self.settings.key.of(facts);
        self.store().fetch(key);
        key
    }

    /// What the request counts for.
    fn cost(&self, facts: &Facts<'_>) -> u64 {
        self.settings.cost.of(facts.work).unwrap_or_else(|failed| {
            if let Some(failed) = failed {
                tracing::debug!(limit = %self.settings.name, "the cost of a request: {failed}");
            }
            self.metrics.cost_failed();
            self.rules.bucket.map_or(1, |bucket| bucket.burst)
        })
    }

    fn is_exempt(&self, facts: &Facts<'_>) -> bool {
        let Settings { allow, allow_consumers, .. } = &self.settings;
        let consumer = || facts.principal.and_then(|principal| principal.consumer.as_ref());
        !allow.is_empty() && allow.contains(facts.client)
            || !allow_consumers.is_empty()
                && consumer()
                    .is_some_and(|consumer| allow_consumers.iter().any(|name| **name == *consumer.name))
    }

    /// Takes one of the places for those who wait.
    fn may_wait(&self) -> bool {
        let more = |waiting| (waiting < WAITING_MAX).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, more).is_ok()
    }
}

/// What a limit said to one request.
#[derive(Debug)]
pub struct Met {
    limit: Arc<RateLimit>,
    /// `None` where a newer configuration has taken over meanwhile.
    standing: Option<Standing>,
    cost: u64,
    verdict: Passage,
    held: Option<Held>,
    /// Of the counters that instances share.
    asked: Option<Asked>,
}

#[derive(Debug)]
enum Passage {
    Free,
    /// The place is given back when it is dropped.
    After(Duration, Waiting),
    Refused(Duration),
    /// Nobody can say.
    Unavailable,
}

/// One of the places for those who wait.
#[derive(Debug)]
struct Waiting(Arc<RateLimit>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Met {
    /// How long the request has to wait before it goes on.
    pub fn delay(&self) -> Duration {
        match self.verdict {
            Passage::After(delay, _) => delay,
            Passage::Free | Passage::Refused(_) | Passage::Unavailable => Duration::ZERO,
        }
    }

    /// The request has waited.
    pub fn waited(&mut self) {
        if matches!(self.verdict, Passage::After(..)) {
            self.limit.metrics.delayed();
            self.verdict = Passage::Free;
        }
    }

    /// There are only `left` until the request is over: where it would wait as long, it is refused as without a queue.
    pub fn give_up(&mut self, left: Duration) {
        let Passage::After(delay, _) = self.verdict else { return };
        if delay >= left {
            self.verdict = Passage::Refused(delay);
            self.limit.metrics.refused();
            self.give_back();
            self.forget();
        }
    }

    /// Why the request does not pass; `None` if it does.
    pub fn refusal(&self) -> Option<Problem> {
        let wait = match self.verdict {
            Passage::Refused(wait) => wait,
            Passage::Unavailable => return Some(Passage::unavailable()),
            Passage::Free | Passage::After(..) => return None,
        };
        let RateLimit { settings, told, .. } = &*self.limit;
        let violated = self.standing.as_ref().map(|standing| told.violated(standing));
        let mut violated: Vec<Box<str>> = violated.into_iter().flatten().map(Box::from).collect();
        if violated.is_empty() {
            violated.push((*settings.name).into());
        }
        let too_many_at_once = self.standing.as_ref().is_some_and(|standing| {
            standing.slots_left == Some(0) && standing.rooms.iter().all(|room| room.wait == 0)
        });
        let reason = if too_many_at_once { Reason::ConcurrencyExceeded } else { Reason::RateLimited };
        let quota = Quota { violated, message: settings.message.clone(), status: settings.status };
        let problem = Problem { quota: Some(Box::new(quota)), ..Problem::new(reason) };
        // What counts for more than ever fits is told nothing to wait for.
        Some(if self.limit.rules.ever_admit(self.cost) { problem.retry_after(wait) } else { problem })
    }

    /// The request has ended with `status`: it counts from now on, or does not count at all. `None`: it ended without an
    /// answer, or its client did not wait for the end of it. That counts in any case, or who hangs up would go uncounted.
    pub fn ended(&mut self, status: Option<u16>) {
        let Skip { failed, successful } = self.limit.settings.skip;
        let skipped = match status {
            Some(400..) => failed,
            Some(_) => successful,
            None => false,
        };
        if let Some(held) = &mut self.held {
            held.holding.counts &= !skipped;
        }
        if skipped {
            self.give_back();
        }
        self.held = None;
    }
}

/// A refusal that comes from a limit alone: for whoever asks one outside of a route's policies.
pub fn refusal(met: &[Met]) -> Option<Problem> {
    met.iter().find_map(Met::refusal)
}

/// The fields of an answer that tell of the limits that a request met, and of a quota beside them; `unix` is the time in
/// seconds since 1970.
pub fn fields(
    met: &[Met],
    quota: Option<(&QuotaPolicy, &QuotaStand)>,
    unix: u64,
    add: impl FnMut((&'static str, HeaderValue)),
) {
    let stands = met.iter().filter_map(|met| {
        let (told, cost) = (&met.limit.told, met.cost);
        Some(Stand { told, standing: met.standing.as_ref()?, cost })
    });
    let quota = quota.map(|(policy, stand)| policy.stand(stand));
    let stands: SmallVec<[Stand<'_>; 2]> = stands.chain(quota).collect();
    if !stands.is_empty() {
        answer::fields(&stands, unix, add);
    }
}

/// What a request under way holds: given back exactly once, also when its task is dropped.
#[derive(Debug)]
struct Held {
    store: Arc<Store>,
    rules: Arc<Rules>,
    key: KeyHash,
    holding: Holding,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.store.end(&self.rules, self.key, self.holding, clock::now());
    }
}

/// The limits of one route in one place of the order.
#[derive(Debug, Clone, Default)]
pub struct Limits(pub Vec<Arc<RateLimit>>);

impl Limits {
    /// All forms in which answers tell of them.
    pub fn modes(&self) -> Modes {
        self.0.iter().fold(Modes::default(), |modes, limit| modes.union(limit.settings.modes))
    }

    /// Asks one limit after the other; the first refusal is the answer, and later limits do not count the request.
    pub fn check(&self, facts: &Facts<'_>, now: Instant, met: &mut Vec<Met>) -> Option<Problem> {
        // Among many keys most of the time is spent waiting for memory: for all of them at once.
        let several = if self.0.len() > 1 { self.0.as_slice() } else { &[] };
        let keys: SmallVec<[KeyHash; 4]> = several.iter().map(|limit| limit.fetch(facts)).collect();
        for (at, limit) in self.0.iter().enumerate() {
            let Some(said) = limit.check_by(keys.get(at).copied(), facts, now) else { continue };
            let refusal = said.refusal();
            met.push(said);
            if refusal.is_some() {
                return refusal;
            }
        }
        None
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
