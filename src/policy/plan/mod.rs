//! `[plans]`: what a consumer or an API key may use, as a rate and as a quota.
//!
//! ```text
//! who it is ─► its plan: the key's, the consumer's, the route's ─► quota (looked at) ─► rate ─► limits, body ─► quota (counted)
//! ```
//!
//! - **Whose it is.** A key with a plan of its own is counted by itself; else the consumer. Who is no consumer, under a plan
//!   that the route names, is counted by subject, and who shows nothing by address: nobody is bounded by nothing.
//! - **What is refused costs nothing.** The quota is looked at first and counted last, when nothing else refuses any more.
//! - **A plan that nobody knows is closed.** In the configuration it is an error. A row of the store may name any: then
//!   whoever has it is refused, and the log says so.
//!
//! The rate is a rate limit like others (see [`rate_limit`]), shared over `[cluster]` like them. The quota is counted by
//! [`crate::identity::usage`]. Handles are found when a consumer first asks, and held with it.

mod config;
mod look;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use config::{PlanRaw, QuotaFrom, Settings, is_from_anniversary};

use super::networks::Networks;
use super::rate_limit::{
    self, Cost, Facts, Key, OnStoreFailure, Part, QuotaPolicy, QuotaStand, RateLimit, Rules, Skip,
};
use crate::base::clock;
use crate::base::origin::Origin;
use crate::base::problem;
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::base::seldom::Seldom;
use crate::cluster::counters::Counters;
use crate::identity::consumers::CERTIFICATES;
use crate::identity::principal::{Principal, Proof};
use crate::identity::usage::{Account, AccountId, Every, Full, Ledger, Owner, PlanId, Quota, Span, Standing};
use crate::store::OwnerKind;
use crate::telemetry::metrics::PlanMetrics;

/// One plan.
#[derive(Debug)]
pub struct Plan {
    name: Arc<str>,
    id: PlanId,
    origin: Origin,
    rate: Option<RateLimits>,
    quota: Option<QuotaLimit>,
    message: Option<Arc<str>>,
    on_store_failure: OnStoreFailure,
    metrics: Arc<PlanMetrics>,
    ledger: Arc<Ledger>,
}

/// The rate, counted by whatever it is that is known of somebody: each has counters of its own.
#[derive(Debug)]
struct RateLimits {
    by_consumer: Arc<RateLimit>,
    by_key: Arc<RateLimit>,
    by_subject: Arc<RateLimit>,
}

#[derive(Debug)]
struct QuotaLimit {
    quota: Quota,
    from: QuotaFrom,
    /// For periods of each length there is: months have four.
    told: Vec<(u64, QuotaPolicy)>,
}

/// What plans are made with beside their settings.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Has the counters of earlier configurations.
    pub limits: &'a rate_limit::Live,
    /// Has those that all instances share.
    pub cluster: Option<&'a Arc<Counters>>,
    /// Has what was used.
    pub ledger: &'a Arc<Ledger>,
    /// Counts configurations.
    pub generation: u64,
}

/// Keys that rates have counters for; see [`rate_limit::store`].
const KEYS_MAX: usize = 1_000_000;
/// Leading bits of an IPv6 address by which somebody unknown is counted.
const IPV6_PREFIX: u8 = 56;
/// What a client is told to wait for where only what is known elsewhere could help.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often it is said that a plan is missing.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
const DAY: u64 = 86_400;

impl Plan {
    /// The plan called `name` that `settings` describe, written at `origin`.
    pub fn new(
        name: &str,
        origin: &Origin,
        settings: Settings,
        around: Surroundings<'_>,
        metrics: Arc<PlanMetrics>,
    ) -> Arc<Self> {
        let Settings { rate, quota, quota_from, modes, message, on_store_failure } = settings;
        let message: Option<Arc<str>> = message.map(Arc::from);
        // No rate limit can have the name: theirs hold no spaces.
        let shown = format!("plan {name}");
        let by = |part: Part| {
            let settings = rate_limit::Settings {
                name: shown.as_str().into(),
                origin: origin.clone(),
                key: Key::new([part], IPV6_PREFIX),
                rules: Rules { generation: around.generation, bucket: rate, ..Rules::default() },
                cost: Cost::Fixed(1),
                skip: Skip::default(),
                allow: Networks::default(),
                allow_consumers: Box::default(),
                modes,
                message: message.clone(),
                status: 429,
                keys_max: KEYS_MAX,
                on_store_failure,
            };
            RateLimit::new(settings, around.limits, around.cluster, metrics.limit().clone())
        };
        let rate = rate.map(|_| RateLimits {
            by_consumer: by(Part::Consumer),
            by_key: by(Part::ApiKey),
            by_subject: by(Part::Subject),
        });
        let quota = quota.map(|quota| {
            let days = match quota.every {
                Every::Day => 1..=1,
                Every::Week => 7..=7,
                Every::Month => 28..=31,
            };
            let name = format!("{shown}/{}", quota.every.as_str());
            let told = days.map(|days| {
                let seconds = days * DAY;
                (seconds, QuotaPolicy::new(&name, quota.count, seconds, modes))
            });
            QuotaLimit { quota, from: quota_from, told: told.collect() }
        });
        let id = around.ledger.plan(name);
        let origin = origin.clone();
        let ledger = around.ledger.clone();
        Arc::new(Self {
            name: name.into(),
            id,
            origin,
            rate,
            quota,
            message,
            on_store_failure,
            metrics,
            ledger,
        })
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Where it was written.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What it says, in words.
    pub fn describe(&self) -> String {
        let rate = self.rate.as_ref().map(|rate| {
            let text = rate.by_consumer.describe();
            text.replace(" by consumer", "")
        });
        let quota = self.quota.as_ref().map(|QuotaLimit { quota, from, .. }| {
            let from = match from {
                QuotaFrom::Calendar => "",
                QuotaFrom::Anniversary => " from its anniversary",
            };
            format!("{} a {}{from}", quota.count, quota.every.as_str())
        });
        let parts: Vec<String> = rate.into_iter().chain(quota).collect();
        parts.join(", and ")
    }

    /// What becomes of requests while its rate cannot be counted together with other instances; `None` where it is not.
    pub fn rate_alone(&self) -> Option<OnStoreFailure> {
        self.rate.as_ref()?.by_consumer.alone()
    }

    /// What becomes of requests while the store does not tell what of its quota was used; `None` where there is none.
    pub fn quota_alone(&self) -> Option<OnStoreFailure> {
        self.quota.as_ref().map(|_| self.on_store_failure)
    }
}

impl QuotaLimit {
    fn since(&self, owner: Option<i64>) -> Option<i64> {
        owner.filter(|_| self.from == QuotaFrom::Anniversary)
    }

    fn told(&self, span: Span) -> Option<&QuotaPolicy> {
        let seconds = span.seconds();
        self.told.iter().find(|(length, _)| *length == seconds).or(self.told.first()).map(|(_, told)| told)
    }
}

/// All plans of a configuration, found by what stands for their names.
#[derive(Debug)]
pub struct Plans {
    by_id: Vec<Option<Arc<Plan>>>,
    ledger: Arc<Ledger>,
    complaints: Seldom,
}

impl Plans {
    /// These, whose usage is in `ledger`.
    pub fn new<'a>(plans: impl IntoIterator<Item = &'a Arc<Plan>>, ledger: &Arc<Ledger>) -> Arc<Self> {
        let mut by_id: Vec<Option<Arc<Plan>>> = Vec::new();
        for plan in plans {
            let at = plan.id.index();
            if by_id.len() <= at {
                by_id.resize(at.saturating_add(1), None);
            }
            if let Some(place) = by_id.get_mut(at) {
                *place = Some(plan.clone());
            }
        }
        Arc::new(Self { by_id, ledger: ledger.clone(), complaints: Seldom::default() })
    }

    fn get(&self, id: PlanId) -> Option<&Arc<Plan>> {
        self.by_id.get(id.index())?.as_ref()
    }

    fn complain(&self, whose: &str, name: &str) {
        if self.complaints.now(clock::now(), COMPLAIN_EVERY).is_some() {
            tracing::error!(
                plan = name,
                "{whose} has a plan that the configuration does not define: its requests are refused"
            );
        }
    }
}

/// The plans of one route's requests.
#[derive(Debug, Clone)]
pub struct Gate {
    plans: Arc<Plans>,
    /// Of those who name none.
    default: Option<Arc<Plan>>,
}

/// Who is counted, under which plan.
struct Counted<'a> {
    plan: &'a Arc<Plan>,
    rate: fn(&RateLimits) -> &Arc<RateLimit>,
    account: Arc<Account>,
    since: Option<i64>,
}

impl Gate {
    /// One for requests that are bounded by `plans`, those who name none by `default`.
    pub fn new(plans: Arc<Plans>, default: Option<Arc<Plan>>) -> Self {
        Self { plans, default }
    }

    /// The plan of consumers that name none.
    pub fn default_plan(&self) -> Option<&Arc<Plan>> {
        self.default.as_ref()
    }

    /// The plan of a request from `principal`; `Err` is the name of one that nobody defined.
    pub fn plan_of<'g>(&'g self, principal: Option<&'g Principal>) -> Result<Option<&'g Arc<Plan>>, &'g str> {
        let key = match principal.map(|principal| &principal.proof) {
            Some(Proof::ApiKey(key)) => Some(key),
            _ => None,
        };
        let consumer = principal.and_then(|principal| principal.consumer.as_ref());
        let (name, accounts) = match (key, consumer) {
            (Some(key), _) if key.plan.is_some() => (key.plan.as_deref(), Some(&key.accounts)),
            (_, Some(consumer)) => (consumer.plan.as_deref(), Some(&consumer.accounts)),
            _ => (None, None),
        };
        match name.zip(accounts) {
            Some((name, accounts)) => {
                let id = accounts.own_plan(|| self.plans.ledger.plan(name));
                self.plans.get(id).map(Some).ok_or(name)
            }
            None => Ok(self.default.as_ref()),
        }
    }

    /// Whether a request may pass: its quota is looked at, and its rate counted. `met` gets what the rate says, `mine` what is
    /// to be counted once nothing refuses any more ([`Met::count`]). `unix` is the time in Unix seconds.
    pub fn check(
        &self,
        facts: &Facts<'_>,
        (now, unix): (Instant, impl FnOnce() -> i64),
        met: &mut Vec<rate_limit::Met>,
        mine: &mut Option<Met>,
    ) -> Option<Problem> {
        let counted = match self.counted(facts) {
            Ok(counted) => counted?,
            Err(problem) => return Some(*problem),
        };
        let Counted { plan, rate, account, since } = counted;
        let mine = mine.insert(Met {
            plan: plan.clone(),
            ledger: self.plans.ledger.clone(),
            account,
            since,
            stand: None,
        });
        if let Some(quota) = &plan.quota
            && let Some(problem) = mine.look(quota, unix())
        {
            return Some(problem);
        }
        let said = plan.rate.as_ref().and_then(|limits| rate(limits).check(facts, now))?;
        let refusal = said.refusal();
        met.push(said);
        refusal
    }

    /// `None`: no plan.
    fn counted<'g>(&'g self, facts: &'g Facts<'_>) -> Result<Option<Counted<'g>>, Box<Problem>> {
        let principal = facts.principal;
        let plan = match self.plan_of(principal) {
            Ok(Some(plan)) => plan,
            Ok(None) => return Ok(None),
            Err(name) => {
                let whose = principal.and_then(|principal| principal.consumer.as_ref());
                let whose = whose.map_or("somebody", |consumer| &consumer.name);
                self.plans.complain(whose, name);
                return Err(Box::new(Problem::new(Reason::PlanUnknown)));
            }
        };
        let ledger = &self.plans.ledger;
        let find = |owner| ledger.account(AccountId { plan: (*plan.name).into(), owner });
        let known = |kind, name: &str| find(Owner::Known(kind, name.into()));
        let consumer = principal.and_then(|principal| principal.consumer.as_ref());
        let counted = match (principal.map(|principal| &principal.proof), consumer) {
            (Some(Proof::ApiKey(key)), _) if key.plan.is_some() => Counted {
                plan,
                rate: |limits| &limits.by_key,
                account: key.accounts.under(plan.id, || known(OwnerKind::Key, &key.id)),
                since: key.since,
            },
            (_, Some(consumer)) => Counted {
                plan,
                rate: |limits| &limits.by_consumer,
                account: consumer.accounts.under(plan.id, || known(OwnerKind::Consumer, &consumer.name)),
                since: consumer.since,
            },
            (proof, None) => Counted {
                plan,
                rate: |limits| &limits.by_subject,
                account: match proof.and_then(subject) {
                    Some(subject) => known(OwnerKind::Subject, &subject),
                    None => find(Owner::Address(network(facts.client))),
                },
                since: None,
            },
        };
        Ok(Some(counted))
    }
}

/// Who somebody is that is no consumer: `PROVIDER:sub`.
fn subject(proof: &Proof) -> Option<String> {
    match proof {
        Proof::Token(token) => token.subject.as_ref().map(|subject| format!("{}:{subject}", token.provider)),
        Proof::Certificate(certificate) => {
            let name = certificate.principal()?.to_str().ok()?;
            Some(format!("{CERTIFICATES}:{name}"))
        }
        Proof::ApiKey(_) => None,
    }
}

fn network(address: IpAddr) -> Box<str> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string().into(),
        IpAddr::V6(address) => {
            let cut = 128 - u32::from(IPV6_PREFIX);
            let network = std::net::Ipv6Addr::from(u128::from(address) >> cut << cut);
            network.to_string().into()
        }
    }
}

/// The plan of one request, and what it says.
#[derive(Debug)]
pub struct Met {
    plan: Arc<Plan>,
    ledger: Arc<Ledger>,
    account: Arc<Account>,
    since: Option<i64>,
    /// How its quota stands, if it has one.
    stand: Option<(Span, QuotaStand)>,
}

impl Met {
    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// What answers tell of the quota.
    pub fn told(&self) -> Option<(&QuotaPolicy, &QuotaStand)> {
        let (span, stand) = self.stand.as_ref()?;
        Some((self.plan.quota.as_ref()?.told(*span)?, stand))
    }

    /// Whether there is room for the request.
    fn look(&mut self, quota: &QuotaLimit, unix: i64) -> Option<Problem> {
        if self.ledger.is_away() {
            match self.plan.on_store_failure {
                OnStoreFailure::Local => {}
                OnStoreFailure::Allow => return None,
                OnStoreFailure::Deny => {
                    self.plan.metrics.unavailable();
                    return Some(Problem::new(Reason::LimitUnavailable).retry_after(RETRY_AFTER));
                }
            }
        }
        let looked = self.account.look(&quota.quota, quota.since(self.since), unix);
        self.take(quota, looked, unix)
    }

    /// Counts the request: nothing else refuses it. `unix` is the time in Unix seconds.
    ///
    /// # Errors
    /// Others have used up meanwhile what was left: it is not counted.
    pub fn count(&mut self, unix: impl FnOnce() -> i64) -> Result<(), Problem> {
        let plan = self.plan.clone();
        if let Some(quota) = &plan.quota {
            let unix = unix();
            let since = quota.since(self.since);
            let passes = plan.on_store_failure == OnStoreFailure::Allow && self.ledger.is_away();
            // What passes whatever was used is counted all the same, if it can be.
            let terms = if passes {
                Quota { count: u64::MAX, unsaved_max: None, ..quota.quota }
            } else {
                quota.quota
            };
            let counted = self.ledger.count(&self.account, &terms, since, unix);
            if let Some(problem) = self.take(quota, counted, unix).filter(|_| !passes) {
                return Err(problem);
            }
        }
        plan.metrics.passed();
        Ok(())
    }

    /// Remembers how the quota stands, and refuses if there is no room.
    fn take(&mut self, quota: &QuotaLimit, said: Result<Standing, Full>, unix: i64) -> Option<Problem> {
        let (Standing { left, span }, full) = match said {
            Ok(standing) => (standing, None),
            Err(full @ (Full::Used(standing) | Full::Unsaved(standing))) => (standing, Some(full)),
        };
        let left = left.min(quota.quota.count);
        let is_used = matches!(full, Some(Full::Used(_)));
        self.stand = Some((span, QuotaStand::new(left, span.left(unix), !is_used)));
        match full? {
            Full::Used(_) => {
                self.plan.metrics.quota_exceeded();
                let violated = self.told().map(|(policy, _)| policy.name().into()).into_iter().collect();
                let message = self.plan.message.clone();
                let quota = problem::Quota { violated, message, status: 429 };
                let wait = Duration::from_secs(span.left(unix));
                let problem = Problem::new(Reason::QuotaExceeded).retry_after(wait);
                Some(Problem { quota: Some(Box::new(quota)), ..problem })
            }
            Full::Unsaved(_) => {
                self.plan.metrics.unavailable();
                Some(Problem::new(Reason::LimitUnavailable).retry_after(RETRY_AFTER))
            }
        }
    }
}
