//! Whose plan it is, what it costs, and what is told of it.

use std::collections::BTreeMap;

use super::*;
use crate::base::decode::decode_str;
use crate::base::diagnostic::Diagnostics;
use crate::identity::consumer::{ApiKey, Consumer};
use crate::identity::token::Token;
use crate::policy::body_limit::BodyLimit;
use crate::policy::{Chain, RequestFacts, Verdict};
use crate::telemetry::metrics::Metrics;

/// 2026-02-14T12:00:00Z, a Saturday.
const NOW: i64 = 1_771_070_400;
const DAY: i64 = 86_400;

struct Case {
    ledger: Arc<Ledger>,
    limits: rate_limit::Live,
    metrics: Arc<Metrics>,
    now: Instant,
}

impl Case {
    fn new() -> Self {
        let (ledger, limits) = (Arc::default(), rate_limit::Live::default());
        Self { ledger, limits, metrics: Metrics::new(), now: clock::now() }
    }

    fn plan(&self, name: &str, text: &str) -> Arc<Plan> {
        let mut out = Diagnostics::default();
        let (raw, _) = decode_str::<PlanRaw>(text);
        let settings = raw.unwrap().compile(name, "plans.x", &Origin::Default, &mut out);
        assert!(out.is_empty(), "{:?}", out.iter().map(|problem| &problem.message).collect::<Vec<_>>());
        let around =
            Surroundings { limits: &self.limits, cluster: None, ledger: &self.ledger, generation: 1 };
        Plan::new(name, &Origin::Default, settings, around, self.metrics.plan(name))
    }

    fn gate(&self, plans: &[Arc<Plan>], default: Option<&Arc<Plan>>) -> Gate {
        Gate::new(Plans::new(plans, &self.ledger), default.cloned())
    }

    /// What becomes of a request at `unix`; what the client is told.
    fn ask(&self, gate: &Gate, who: Option<&Principal>, unix: i64) -> Asked {
        let client = "192.0.2.1".parse().unwrap();
        let facts = Facts { route: "r", principal: who, ..Facts::of(client) };
        let (mut met, mut mine) = (Vec::new(), None);
        let refused = gate.check(&facts, (self.now, || unix), &mut met, &mut mine);
        let refused = refused.or_else(|| mine.as_mut().and_then(|mine| mine.count(|| unix).err()));
        let mut told = BTreeMap::new();
        rate_limit::fields(&met, mine.as_ref().and_then(Met::told), 0, |(name, value)| {
            told.insert(name, value.to_str().unwrap().to_owned());
        });
        Asked { reason: refused.as_ref().map(|problem| problem.reason), problem: refused, told }
    }

    fn passing(&self, gate: &Gate, who: Option<&Principal>, unix: i64, requests: usize) -> usize {
        (0..requests).filter(|_| self.ask(gate, who, unix).reason.is_none()).count()
    }
}

struct Asked {
    reason: Option<Reason>,
    problem: Option<Problem>,
    told: BTreeMap<&'static str, String>,
}

fn consumer(name: &str, plan: Option<&str>) -> Arc<Consumer> {
    Arc::new(Consumer { name: name.into(), plan: plan.map(Box::from), ..Consumer::default() })
}

fn by_key(consumer: &Arc<Consumer>, id: &str, plan: Option<&str>) -> Principal {
    let key = ApiKey {
        id: id.into(),
        consumer: consumer.clone(),
        plan: plan.map(Box::from),
        since: Some(NOW - 40 * DAY),
        ..ApiKey::default()
    };
    Principal { proof: Proof::ApiKey(Arc::new(key)), consumer: Some(consumer.clone()), until: None }
}

fn by_token(subject: Option<&str>) -> Principal {
    let token = Token {
        provider: "local".into(),
        subject: subject.map(Into::into),
        id: None,
        issued_at: None,
        expires_at: None,
        roles: Box::default(),
        scopes: Box::default(),
        claims: Default::default(),
        payload: Box::default(),
        forms: Default::default(),
    };
    Principal { proof: Proof::Token(Arc::new(token)), consumer: None, until: None }
}

/// What is left is told to whoever asks with the question of the same request, and nothing is counted by that.
#[tokio::test]
async fn what_is_left_is_told_and_not_counted() {
    let case = Case::new();
    let plans = [case.plan("gold", "rate = '5/h'\nquota = '9/day'"), case.plan("trial", "quota = '1/day'")];
    let gate = case.gate(&plans, Some(&plans[1]));
    let mobile = by_key(&consumer("mobile", Some("gold")), "ew_1", None);
    assert_eq!(case.passing(&gate, Some(&mobile), NOW, 3), 3);
    let left = async |who: Option<&Principal>| {
        let facts = Facts { principal: who, ..Facts::of("192.0.2.1".parse().unwrap()) };
        let mut told = Vec::new();
        for question in gate.questions(&facts) {
            for plan in &plans {
                told.extend(plan.answer(&question, (case.now, NOW)).await);
            }
        }
        told.into_iter().collect::<Result<Vec<_>, _>>().unwrap()
    };
    for _ in 0..2 {
        let told = left(Some(&mobile)).await;
        assert!(told[0].starts_with("2 of 5 (5/h; all in "), "{told:?}");
        assert_eq!(told[1..], ["6 of 9 a day (anew in 12h)"]);
    }
    // By address, of the route's; used up.
    assert_eq!(left(None).await, ["1 of 1 a day (anew in 12h)"]);
    assert_eq!(case.passing(&gate, None, NOW, 3), 1);
    assert_eq!(left(None).await, ["0 of 1 a day (anew in 12h)"]);
    // Another owner has an account of his own, and nonsense none.
    assert_eq!(left(Some(&by_token(Some("alice")))).await, ["1 of 1 a day (anew in 12h)"]);
    let question = rate_limit::Question::new("plan gold/day".to_owned(), "x".to_owned(), b"- mobile");
    assert!(plans[0].answer(&question, (case.now, NOW)).await.unwrap().is_err());
}

/// What is wrong with one plan does not keep another one's problems back, whatever their names begin with.
#[test]
fn a_plan_is_judged_by_its_own_problems() {
    let mut out = Diagnostics::default();
    out.error("invalid-value", &Origin::Default, "plans.silver.rate", "it is no rate");
    let judge = |text: &str, out: &mut Diagnostics| {
        let (raw, _) = decode_str::<PlanRaw>(text);
        raw.unwrap().compile("s", "plans.s", &Origin::Default, out);
        out.iter().filter(|problem| problem.path.starts_with("plans.s.") || problem.path == "plans.s").count()
    };
    assert_eq!(judge("", &mut out), 1, "it bounds nothing");
    out.error("invalid-value", &Origin::Default, "plans.s.rate", "it is no rate");
    assert_eq!(judge("", &mut out), 2, "what is broken is not absent");
}

#[test]
fn a_plan_is_the_keys_else_the_consumers_else_the_routes() {
    let case = Case::new();
    let plans = [
        case.plan("gold", "quota = '5/day'"),
        case.plan("basic", "quota = '2/day'"),
        case.plan("trial", "quota = '1/day'"),
    ];
    let gate = case.gate(&plans, Some(&plans[1]));
    let (mobile, web) = (consumer("mobile", Some("gold")), consumer("web", None));
    let (one, other) = (by_key(&mobile, "ew_1", None), by_key(&mobile, "ew_2", None));
    // Keys without a plan of their own are counted together, by the consumer.
    assert_eq!(case.passing(&gate, Some(&one), NOW, 3), 3);
    assert_eq!(case.passing(&gate, Some(&other), NOW, 9), 2);
    // One with a plan of its own is counted by itself.
    let (third, fourth) = (by_key(&mobile, "ew_3", Some("trial")), by_key(&mobile, "ew_4", Some("trial")));
    assert_eq!(case.passing(&gate, Some(&third), NOW, 9), 1);
    assert_eq!(case.passing(&gate, Some(&fourth), NOW, 9), 1);
    assert_eq!(case.passing(&gate, Some(&by_key(&web, "ew_5", None)), NOW, 9), 2);
    // The same consumer, known anew after a reload: its usage stays.
    let again = by_key(&consumer("mobile", Some("gold")), "ew_1", None);
    assert_eq!(case.passing(&case.gate(&plans, None), Some(&again), NOW, 9), 0);
    // Where the route names none, nothing bounds who has none.
    let open = case.gate(&plans, None);
    assert_eq!(case.passing(&open, Some(&by_key(&web, "ew_5", None)), NOW, 9), 9);
}

/// Who is no consumer is bounded by the route's plan as well: by subject, else by address.
#[test]
fn strangers_are_bounded_by_the_plan_of_the_route() {
    let case = Case::new();
    let plan = case.plan("basic", "quota = '2/day'");
    let gate = case.gate(std::slice::from_ref(&plan), Some(&plan));
    assert_eq!(case.passing(&gate, Some(&by_token(Some("alice"))), NOW, 9), 2);
    assert_eq!(case.passing(&gate, Some(&by_token(Some("bob"))), NOW, 9), 2);
    assert_eq!(case.passing(&gate, None, NOW, 9), 2);
    assert_eq!(case.passing(&gate, Some(&by_token(None)), NOW, 9), 0, "the same address");
    assert_eq!(*network("2001:db8:0:1fff::1".parse().unwrap()), *"2001:db8:0:1f00::");
    assert_eq!(*network("::ffff:192.0.2.1".parse().unwrap()), *"192.0.2.1");
}

/// Never unlimited: a row that names a plan which is gone closes.
#[test]
fn a_plan_that_nobody_defined_refuses() {
    let case = Case::new();
    let plan = case.plan("basic", "quota = '2/day'");
    let gate = case.gate(std::slice::from_ref(&plan), Some(&plan));
    for who in [
        by_key(&consumer("mobile", Some("gold")), "ew_1", None),
        by_key(&consumer("web", Some("basic")), "ew_2", Some("golden")),
    ] {
        let asked = case.ask(&gate, Some(&who), NOW);
        assert_eq!(asked.reason, Some(Reason::PlanUnknown));
        assert_eq!(asked.problem.unwrap().status(), 403);
        // Once a configuration defines it, it holds for the same consumer.
        let name = gate.plan_of(Some(&who)).unwrap_err().to_owned();
        let later = case.plan(&name, "quota = '1/day'");
        assert_eq!(case.passing(&case.gate(&[later], None), Some(&who), NOW, 9), 1);
    }
}

/// Refused by its rate, a request uses up nothing of the quota; refused by its quota, nothing of the rate.
#[test]
fn what_is_refused_costs_nothing() {
    let mut case = Case::new();
    let plan = case.plan("basic", "rate = '1/s'\nburst = 2\nquota = '3/day'");
    let gate = case.gate(std::slice::from_ref(&plan), None);
    let who = by_key(&consumer("mobile", Some("basic")), "ew_1", None);
    assert_eq!(case.passing(&gate, Some(&who), NOW, 2), 2);
    for _ in 0..5 {
        assert_eq!(case.ask(&gate, Some(&who), NOW).reason, Some(Reason::RateLimited));
    }
    case.now += Duration::from_secs(5);
    assert_eq!(case.passing(&gate, Some(&who), NOW, 1), 1);
    for _ in 0..5 {
        assert_eq!(case.ask(&gate, Some(&who), NOW).reason, Some(Reason::QuotaExceeded));
    }
    // On the next day the bucket is as it was, with one used.
    assert_eq!(case.passing(&gate, Some(&who), NOW + DAY, 9), 1);
    // A request that something else refuses afterwards is not counted.
    case.now += Duration::from_secs(5);
    let facts = Facts { route: "r", principal: Some(&who), ..Facts::of("192.0.2.1".parse().unwrap()) };
    for _ in 0..2 {
        let refused = gate.check(&facts, (case.now, || NOW + DAY), &mut Vec::new(), &mut None);
        assert!(refused.is_none());
    }
    case.now += Duration::from_secs(5);
    assert_eq!(case.passing(&gate, Some(&who), NOW + DAY, 9), 2);
}

/// In the order of the chain: whoever has used up a quota hears that, whatever he would have sent; and what is refused for
/// its body is not counted.
#[test]
fn plans_before_bodies() {
    let case = Case::new();
    let plan = case.plan("basic", "quota = '2/day'");
    let gate = case.gate(std::slice::from_ref(&plan), None);
    let who = by_key(&consumer("mobile", Some("basic")), "ew_1", None);
    let chain = Chain { plan: Some(gate.clone()), body: Some(BodyLimit::new(10)), ..Chain::default() };
    assert_eq!(chain.names().collect::<Vec<_>>(), ["plan", "body_bytes"]);
    let judge = |content_length| {
        let facts = RequestFacts {
            client: "192.0.2.1".parse().unwrap(),
            content_length: Some(content_length),
            principal: Some(&who),
            route: "r",
            headers: None,
            preflight: false,
            now: case.now,
            deadline: None,
            work: None,
        };
        let mut planned = None;
        let verdict = chain.after_auth(&facts, &mut Vec::new(), &mut planned);
        if verdict == Verdict::Pass {
            planned.unwrap().count(clock::unix_now).unwrap();
        }
        verdict.reason()
    };
    for _ in 0..5 {
        assert_eq!(judge(11), Some(Reason::BodyTooLarge));
    }
    assert_eq!([judge(10), judge(10)], [None, None]);
    assert_eq!(judge(11), Some(Reason::QuotaExceeded));
}

#[test]
fn answers_tell_of_rate_and_quota() {
    let mut case = Case::new();
    let plan = case.plan("basic", "rate = 10\nburst = 2\nquota = 2\nperiod = 'MONTH'\nmessage = 'Buy more.'");
    assert_eq!(plan.describe(), "10/s, 2 after a rest, and 2 a month");
    let gate = case.gate(std::slice::from_ref(&plan), None);
    let who = by_key(&consumer("mobile", Some("basic")), "ew_1", None);
    // February has 28 days, of which 14.5 are left.
    let policy = "\"plan basic\";q=10;w=1, \"plan basic/month\";q=2;w=2419200";
    let first = case.ask(&gate, Some(&who), NOW);
    assert_eq!(first.told["RateLimit-Policy"], policy);
    assert_eq!(first.told["RateLimit"], "\"plan basic\";r=1;t=1, \"plan basic/month\";r=1;t=1252800");
    assert_eq!(case.passing(&gate, Some(&who), NOW, 1), 1);
    let last = case.ask(&gate, Some(&who), NOW + 1);
    assert_eq!(last.told["RateLimit"], "\"plan basic/month\";r=0;t=1252799");
    let problem = last.problem.unwrap();
    assert_eq!((problem.status(), problem.retry_after_seconds()), (429, Some(1_252_799)));
    assert_eq!(problem.detail(), "Buy more.");
    assert_eq!(problem.quota.unwrap().violated, [Box::from("plan basic/month")]);
    // In March it is longer.
    case.now += Duration::from_secs(5);
    let march = case.ask(&gate, Some(&who), NOW + 28 * DAY);
    assert!(march.told["RateLimit-Policy"].contains("q=2;w=2678400"), "{:?}", march.told);
    let text = case.metrics.render(true);
    for line in [
        "edgeward_plan_requests_total{plan=\"basic\",outcome=\"passed\"} 3",
        "edgeward_plan_requests_total{plan=\"basic\",outcome=\"quota_exceeded\"} 1",
        "edgeward_plan_requests_total{plan=\"basic\",outcome=\"limited\"} 0",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

/// From the anniversary of the key: its 40 days began a period 9 days ago, on the 5th.
#[test]
fn quotas_may_begin_on_anniversaries() {
    let case = Case::new();
    let plan = case.plan("basic", "quota = '2/month'\nquota_from = 'anniversary'");
    let gate = case.gate(std::slice::from_ref(&plan), None);
    let who = by_key(&consumer("mobile", None), "ew_1", Some("basic"));
    assert_eq!(case.passing(&gate, Some(&who), NOW, 9), 2);
    let next = Every::Month.around(NOW, Some(NOW - 40 * DAY)).ends;
    assert_eq!(next, NOW + 19 * DAY, "from the 5th of February to the 5th of March");
    assert_eq!(case.passing(&gate, Some(&who), next - 1, 9), 0);
    assert_eq!(case.passing(&gate, Some(&who), next, 9), 2);
}

/// While the store was never read, or is away.
#[test]
fn without_the_store_plans_do_as_they_say() {
    let case = Case::new();
    case.ledger.await_store();
    for (word, passing, reason) in [
        ("local", 2, Reason::QuotaExceeded),
        ("deny", 0, Reason::LimitUnavailable),
        ("allow", 9, Reason::QuotaExceeded),
    ] {
        let text = format!("quota = '2/day'\non_store_failure = '{word}'");
        let plan = case.plan(word, &text);
        let gate = case.gate(std::slice::from_ref(&plan), None);
        let who = by_key(&consumer("mobile", Some(word)), "ew_1", None);
        assert_eq!(case.passing(&gate, Some(&who), NOW, 9), passing, "{word}");
        if word != "allow" {
            assert_eq!(case.ask(&gate, Some(&who), NOW).reason, Some(reason), "{word}");
        }
    }
}

#[test]
fn no_more_is_counted_in_memory_than_may_be() {
    let case = Case::new();
    let plan = case.plan("basic", "quota = '100/day'\nmax_unsaved = 3");
    let gate = case.gate(std::slice::from_ref(&plan), None);
    let who = by_key(&consumer("mobile", Some("basic")), "ew_1", None);
    assert_eq!(case.passing(&gate, Some(&who), NOW, 9), 9, "nothing is kept at all");
    case.ledger.await_store();
    assert_eq!(case.passing(&gate, Some(&who), NOW, 9), 3);
    let asked = case.ask(&gate, Some(&who), NOW);
    assert_eq!(asked.reason, Some(Reason::LimitUnavailable));
    assert_eq!(asked.problem.unwrap().retry_after_seconds(), Some(1));
}

/// However many ask at once, exactly so many pass.
#[test]
fn a_quota_is_exact_under_contention() {
    let case = Case::new();
    let plan = case.plan("basic", "quota = '10000/day'");
    let gate = case.gate(std::slice::from_ref(&plan), None);
    let consumer = consumer("mobile", Some("basic"));
    let passed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|at| {
                let (case, gate, consumer) = (&case, &gate, &consumer);
                scope.spawn(move || {
                    let who = by_key(consumer, &format!("ew_{at}"), None);
                    case.passing(gate, Some(&who), NOW, 4_000)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!(passed, 10_000);
}
