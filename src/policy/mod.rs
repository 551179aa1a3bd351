//! What a route asks of a request before it is dispatched: one folder a policy.
//!
//! Policies are pure: they see facts and give a [`Verdict`]; who calls them answers, logs and counts.

pub mod auth;
pub mod body_limit;
pub mod cors;
pub mod envelope;
pub mod ip;
pub mod networks;
pub mod plan;
pub mod rate_limit;
pub mod transform;
pub mod trusted;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;

use crate::base::clock;
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::identity::principal::Principal;
use auth::Auth;
use body_limit::BodyLimit;
use cors::Cors;
use ip::IpRules;
use rate_limit::{Limits, Met};

/// The policies of one route, in the order they run. The order is part of the security model: it is fixed, and each
/// field says why it stands where it does.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    /// First: costs two comparisons, and who may not come in learns nothing about what comes after.
    pub ip: Option<IpRules>,
    /// Before anything that asks for credentials or counts: preflights carry none, and browsers must be able to read a 401.
    pub cors: Option<Arc<Cors>>,
    /// Limits keyed by the address alone. Before authentication: checking signatures and passwords is what an attacker would
    /// have us repeat, and whoever guesses credentials is stopped by his address.
    pub address_limits: Limits,
    /// Before anything that is done for the one who asks: what a stranger may not use costs him nothing to try.
    pub auth: Option<Auth>,
    /// What consumers and keys may use. After authentication, which says whose it is; before other limits, as whoever has used
    /// up a quota has nothing to wait for there. It is counted when nothing else refuses ([`plan::Met::count`]).
    pub plan: Option<plan::Gate>,
    /// All other limits. After authentication, which says whose counter it is, and after authorization: what somebody may not
    /// do at all uses up nothing of what he may.
    pub limits: Limits,
    /// Last, right before the body is touched: what other policies refuse is told so, whatever it would have sent.
    pub body: Option<BodyLimit>,
}

/// What policies may know of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// The client, after trusted proxies.
    pub client: IpAddr,
    /// `Content-Length`, if the request has one.
    pub content_length: Option<u64>,
    /// Who the request is from, once that is proved.
    pub principal: Option<&'a Principal>,
    /// The route's name.
    pub route: &'a str,
    /// The head's fields.
    pub headers: Option<&'a HeaderMap>,
    /// Whether a browser asks beforehand what it may send.
    pub preflight: bool,
    /// The moment.
    pub now: Instant,
    /// By when it must have gone on.
    pub deadline: Option<Instant>,
    /// Works out what it costs, where a limit has an expression for that.
    pub work: Option<rate_limit::Work<'a>>,
}

impl<'a> RequestFacts<'a> {
    /// What limits may know of it.
    fn of_limits(&self) -> rate_limit::Facts<'a> {
        let Self { client, route, headers, principal, deadline, work, .. } = *self;
        rate_limit::Facts { client, route, headers, principal, account: None, work, deadline }
    }
}

/// What a policy decides.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// On to the next.
    Pass,
    /// Answered here; nothing after it runs.
    Refuse(Problem),
    /// A preflight, answered by the route's [`Cors`]; nothing after it runs.
    Preflight,
}

impl Verdict {
    /// Refuses for `reason`, with nothing to add.
    pub fn refuse(reason: Reason) -> Self {
        Self::Refuse(Problem::new(reason))
    }

    /// Why it refuses; `None` if it passes.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Pass | Self::Preflight => None,
            Self::Refuse(problem) => Some(problem.reason),
        }
    }
}

/// By reason: whether a request passes, and if not why.
impl PartialEq for Verdict {
    fn eq(&self, other: &Self) -> bool {
        let preflight = |verdict: &Self| matches!(verdict, Self::Preflight);
        self.reason() == other.reason() && preflight(self) == preflight(other)
    }
}

impl Chain {
    /// Asks the policies before `auth`, one after the other; the first refusal is the answer. Then `auth` is asked by
    /// whoever knows what was shown ([`Auth::identify`], [`Auth::authorize`]), then [`Chain::after_auth`]. `met` gets what the
    /// limits on the way said: they are told how the request ends, and it waits for as long as they ask for.
    pub fn before_auth(&self, facts: &RequestFacts<'_>, met: &mut Vec<Met>) -> Verdict {
        // Every field by name: a new policy does not compile until it has its place here.
        let Self { ip, cors, address_limits, auth: _, plan: _, limits: _, body: _ } = self;
        if let Some(ip) = ip
            && let refusal @ Verdict::Refuse(_) = ip.check(facts.client)
        {
            return refusal;
        }
        if facts.preflight && cors.is_some() {
            return Verdict::Preflight;
        }
        let refused = address_limits.check(&facts.of_limits(), facts.now, met);
        refused.map_or(Verdict::Pass, Verdict::Refuse)
    }

    /// Asks the policies after `auth`, which has said who it is. `planned` gets the plan of the request, if it has one: it
    /// is to be counted once nothing refuses any more.
    pub fn after_auth(
        &self,
        facts: &RequestFacts<'_>,
        met: &mut Vec<Met>,
        planned: &mut Option<plan::Met>,
    ) -> Verdict {
        let Self { ip: _, cors: _, address_limits: _, auth: _, plan, limits, body } = self;
        if let Some(plan) = plan
            && let Some(problem) = plan.check(&facts.of_limits(), (facts.now, clock::unix_now), met, planned)
        {
            return Verdict::Refuse(problem);
        }
        if let Some(problem) = limits.check(&facts.of_limits(), facts.now, met) {
            return Verdict::Refuse(problem);
        }
        body.map_or(Verdict::Pass, |body| body.check(facts.content_length))
    }

    /// Whether there is any limit.
    pub fn has_limits(&self) -> bool {
        !(self.address_limits.is_empty() && self.limits.is_empty()) || self.plan.is_some()
    }

    /// The keys of the policies that this route has, in the order they run: for `explain`.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let Self { ip, cors, address_limits, auth, plan, limits, body } = self;
        let names = [
            ip.is_some().then_some("ip"),
            cors.is_some().then_some("cors"),
            (!address_limits.is_empty()).then_some("rate_limits"),
            auth.is_some().then_some("auth"),
            plan.is_some().then_some("plan"),
            (!limits.is_empty()).then_some("rate_limits"),
            body.is_some().then_some("body_bytes"),
        ];
        names.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Moment;
    use crate::base::decode::decode_str;
    use crate::base::diagnostic::Diagnostics;
    use crate::base::origin::Origin;
    use crate::routing::MethodSet;
    use crate::telemetry::metrics::Metrics;
    use auth::{Identified, Shown};
    use networks::Networks;
    use rate_limit::{BucketRule, Key, Live, Modes, Part, RateLimit, Rules, Settings, Skip};

    fn facts(client: &str, content_length: Option<u64>) -> RequestFacts<'static> {
        RequestFacts {
            client: client.parse().unwrap(),
            content_length,
            principal: None,
            route: "r",
            headers: None,
            preflight: false,
            now: clock::now(),
            deadline: None,
            work: None,
        }
    }

    /// As the hooks ask, of somebody who shows nothing.
    fn check(chain: &Chain, facts: &RequestFacts<'_>, met: &mut Vec<Met>) -> Verdict {
        let before = chain.before_auth(facts, met);
        if before != Verdict::Pass {
            return before;
        }
        let headers = HeaderMap::new();
        let at = Moment { now: facts.now, wall: clock::wall() };
        let shown = Shown { headers: &headers, query: None, certificate: None, at, has_waited: false };
        match chain.auth.as_ref().map(|auth| auth.identify(&shown)) {
            Some(Identified::Refused(denied)) => Verdict::Refuse(denied.problem),
            _ => chain.after_auth(facts, met, &mut None),
        }
    }

    fn judge(chain: &Chain, client: &str, content_length: Option<u64>) -> Option<Reason> {
        check(chain, &facts(client, content_length), &mut Vec::new()).reason()
    }

    fn denied() -> Option<IpRules> {
        Some(IpRules::new(None, Networks::new(["192.0.2.0/24".parse().unwrap()])))
    }

    /// One request a second.
    fn limits(key: Part) -> Limits {
        let bucket = BucketRule { count: 1, per: 1_000_000_000, burst: 1, queue: 0 };
        let settings = Settings {
            name: "one".into(),
            origin: Origin::Default,
            key: Key::new([key], 56),
            rules: Rules { generation: 1, bucket: Some(bucket), ..Rules::default() },
            cost: rate_limit::Cost::Fixed(1),
            skip: Skip::default(),
            allow: Networks::default(),
            allow_consumers: Box::default(),
            modes: Modes::default(),
            message: None,
            status: 429,
            keys_max: 100,
            on_store_failure: rate_limit::OnStoreFailure::Local,
        };
        Limits(vec![RateLimit::new(settings, &Live::default(), None, Metrics::new().limit("one"))])
    }

    #[test]
    fn a_route_without_policies_passes_everything() {
        assert_eq!(judge(&Chain::default(), "192.0.2.1", Some(u64::MAX)), None);
        assert_eq!(Chain::default().names().count(), 0);
    }

    /// Whoever may not come in must not learn how much they could have sent.
    #[test]
    fn addresses_are_judged_before_bodies() {
        let chain = Chain { ip: denied(), body: Some(BodyLimit::new(10)), ..Chain::default() };
        assert_eq!(judge(&chain, "192.0.2.1", Some(11)), Some(Reason::IpDenied));
        assert_eq!(judge(&chain, "198.51.100.1", Some(11)), Some(Reason::BodyTooLarge));
        assert_eq!(judge(&chain, "198.51.100.1", Some(10)), None);
        assert_eq!(judge(&chain, "198.51.100.1", None), None);
        assert_eq!(chain.names().collect::<Vec<_>>(), ["ip", "body_bytes"]);
    }

    /// An address that may not come in is not told that a certificate would help; a stranger not how much he may send.
    #[test]
    fn addresses_before_certificates_before_bodies() {
        let auth = Some(Auth::with_certificate());
        let chain = Chain { ip: denied(), auth, body: Some(BodyLimit::new(10)), ..Chain::default() };
        assert_eq!(judge(&chain, "192.0.2.1", Some(11)), Some(Reason::IpDenied));
        assert_eq!(judge(&chain, "198.51.100.1", Some(11)), Some(Reason::CertificateRequired));
        assert_eq!(chain.names().collect::<Vec<_>>(), ["ip", "auth", "body_bytes"]);
    }

    fn cors() -> Option<Arc<Cors>> {
        let (raw, _) = decode_str::<cors::CorsRaw>("origins = [\"*\"]");
        let mut out = Diagnostics::default();
        raw.unwrap().compile(MethodSet::EMPTY, "cors", &mut out).map(Arc::new)
    }

    /// A browser asks beforehand without credentials, and must get an answer whatever is used up; but not whoever is kept
    /// out by his address.
    #[test]
    fn addresses_before_preflights_before_all_else() {
        let auth = Some(Auth::with_certificate());
        let address_limits = limits(Part::Ip);
        let chain = Chain { ip: denied(), cors: cors(), address_limits, auth, ..Chain::default() };
        let judge = |client, preflight| {
            check(&chain, &RequestFacts { preflight, ..facts(client, None) }, &mut Vec::new())
        };
        assert_eq!(judge("192.0.2.1", true).reason(), Some(Reason::IpDenied));
        for _ in 0..3 {
            assert_eq!(judge("198.51.100.1", true), Verdict::Preflight);
        }
        // They used up nothing, and what is no preflight is asked all the rest.
        assert_eq!(judge("198.51.100.1", false).reason(), Some(Reason::CertificateRequired));
        assert_eq!(judge("198.51.100.1", false).reason(), Some(Reason::RateLimited));
        assert_eq!(chain.names().collect::<Vec<_>>(), ["ip", "cors", "rate_limits", "auth"]);
        // Without the policy it is a request like any other.
        let open = RequestFacts { preflight: true, ..facts("192.0.2.1", None) };
        assert_eq!(check(&Chain::default(), &open, &mut Vec::new()), Verdict::Pass);
    }

    /// An address that is kept out uses up no limit.
    #[test]
    fn addresses_before_limits() {
        let chain = Chain { ip: denied(), address_limits: limits(Part::Global), ..Chain::default() };
        assert_eq!(judge(&chain, "192.0.2.1", None), Some(Reason::IpDenied));
        assert_eq!(judge(&chain, "198.51.100.1", None), None);
        assert_eq!(judge(&chain, "198.51.100.1", None), Some(Reason::RateLimited));
        assert_eq!(chain.names().collect::<Vec<_>>(), ["ip", "rate_limits"]);
    }

    /// Express Gateway's: with one request a second, of two without credentials one is told so, and one to wait.
    #[test]
    fn limits_by_address_before_authentication() {
        let auth = Some(Auth::with_certificate());
        let chain = Chain { auth, address_limits: limits(Part::Ip), ..Chain::default() };
        assert_eq!(judge(&chain, "192.0.2.1", None), Some(Reason::CertificateRequired));
        assert_eq!(judge(&chain, "192.0.2.1", None), Some(Reason::RateLimited));
        assert_eq!(chain.names().collect::<Vec<_>>(), ["rate_limits", "auth"]);
    }

    /// What is refused for want of credentials uses up nothing of a limit by principal.
    #[test]
    fn authentication_before_limits_by_principal() {
        let auth = Some(Auth::with_certificate());
        let chain = Chain { auth, limits: limits(Part::Subject), ..Chain::default() };
        for _ in 0..3 {
            assert_eq!(judge(&chain, "192.0.2.1", None), Some(Reason::CertificateRequired));
        }
        let open = Chain { auth: None, ..chain };
        assert_eq!(judge(&open, "192.0.2.1", None), None);
        assert_eq!(judge(&open, "192.0.2.1", None), Some(Reason::RateLimited));
    }

    /// Whoever asks too often is told that, whatever he would have sent.
    #[test]
    fn limits_before_bodies() {
        let chain = Chain { limits: limits(Part::Ip), body: Some(BodyLimit::new(10)), ..Chain::default() };
        assert_eq!(judge(&chain, "192.0.2.1", Some(11)), Some(Reason::BodyTooLarge));
        assert_eq!(judge(&chain, "192.0.2.1", Some(11)), Some(Reason::RateLimited));
        assert_eq!(chain.names().collect::<Vec<_>>(), ["rate_limits", "body_bytes"]);
    }

    /// By address first: a client that is refused for it uses up nothing of anybody's principal.
    #[test]
    fn limits_by_address_before_others() {
        let (address_limits, others) = (limits(Part::Ip), limits(Part::Global));
        let chain = Chain { address_limits, limits: others, ..Chain::default() };
        let mut met = Vec::new();
        assert_eq!(check(&chain, &facts("192.0.2.1", None), &mut met), Verdict::Pass);
        assert_eq!(met.len(), 2);
        met.clear();
        assert_eq!(check(&chain, &facts("192.0.2.1", None), &mut met).reason(), Some(Reason::RateLimited));
        assert_eq!(met.len(), 1);
        assert_eq!(chain.names().collect::<Vec<_>>(), ["rate_limits", "rate_limits"]);
    }
}
