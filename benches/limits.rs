//! What it costs to count a request: by its address, by its address and its subject, by two limits of one list, and by a plan;
//! among 1, 1,000 and 1,000,000 keys.
//!
//! `cargo bench --bench limits`. "Address and subject" are asked one after the other, as before and after authentication, the
//! subjects being a thousand of so many; "together" are two limits of one list, each with so many keys in use. After the measurements it prints the bytes that a key takes, and floods a limit with forged values.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark ends when its own data is wrong, and prints"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group};
use edgeward::base::clock;
use edgeward::base::origin::Origin;
use edgeward::identity::consumer::Consumer;
use edgeward::identity::principal::{Principal, Proof};
use edgeward::identity::token::Token;
use edgeward::identity::usage::{Every, Ledger, Quota};
use edgeward::policy::networks::Networks;
use edgeward::policy::plan::{self, Gate, Plan, Plans, QuotaFrom, Surroundings};
use edgeward::policy::rate_limit::{
    BucketRule, Cost, Facts, Key, Limits, Live, Modes, OnStoreFailure, Part, RateLimit, Rules, Settings,
    Skip, WindowRule,
};
use edgeward::telemetry::metrics::Metrics;

const SIZES: [u32; 3] = [1, 1_000, 1_000_000];

const BUCKET: BucketRule = BucketRule { count: 1_000_000, per: 1_000_000_000, burst: 1_000_000, queue: 0 };

fn limit(part: Part, longer: &[(u64, u64)]) -> Arc<RateLimit> {
    limit_of(&[part], BUCKET, longer, 2_000_000)
}

fn limit_of(parts: &[Part], bucket: BucketRule, longer: &[(u64, u64)], keys_max: usize) -> Arc<RateLimit> {
    let nanos = 1_000_000_000;
    let rules = Rules {
        generation: 1,
        bucket: Some(bucket),
        windows: longer
            .iter()
            .map(|(count, seconds)| WindowRule { count: *count, per: seconds * nanos })
            .collect(),
        ..Rules::default()
    };
    let settings = Settings {
        name: "bench".into(),
        origin: Origin::Default,
        key: Key::new(parts.iter().cloned(), 56),
        rules,
        cost: Cost::Fixed(1),
        skip: Skip::default(),
        allow: Networks::default(),
        allow_consumers: Box::default(),
        modes: Modes { draft: true, ..Modes::default() },
        message: None,
        status: 429,
        keys_max,
        on_store_failure: OnStoreFailure::Local,
    };
    RateLimit::new(settings, &Live::default(), None, Metrics::new().limit("bench"))
}

fn principal(number: u32) -> Principal {
    let token = Token {
        provider: "local".into(),
        subject: Some(format!("user-{number:07}").into()),
        id: None,
        issued_at: None,
        expires_at: None,
        roles: Box::default(),
        scopes: Box::default(),
        claims: serde_json::Map::new(),
        payload: Box::default(),
        forms: Default::default(),
    };
    Principal { proof: Proof::Token(Arc::new(token)), consumer: None, until: None }
}

fn facts<'a>(number: u32, principal: Option<&'a Principal>) -> Facts<'a> {
    let client = IpAddr::V4(Ipv4Addr::from(number));
    Facts { route: "route", principal, ..Facts::of(client) }
}

/// Keys in an order that no cache guesses.
fn scattered(turn: &mut u32, size: u32) -> u32 {
    *turn = turn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    *turn % size
}

fn counting(criterion: &mut Criterion) {
    let principals: Vec<Principal> = (0..1_000).map(principal).collect();
    for (name, longer) in [("bucket", &[][..]), ("bucket+hour", &[(1_000_000_000, 3600)][..])] {
        let mut group = criterion.benchmark_group(format!("limits/{name}"));
        for size in SIZES {
            let (address, subject) = (limit(Part::Ip, longer), limit(Part::Subject, longer));
            let now = clock::now();
            for number in 0..size {
                black_box(address.check(&facts(number, None), now));
                // As many subjects; those of the requests below are some of them.
                black_box(subject.check(&facts(number, Some(&principal(number))), now));
            }
            let mut turn = 1;
            group.bench_function(BenchmarkId::new("address", size), |bencher| {
                bencher.iter(|| address.check(&facts(scattered(&mut turn, size), None), clock::now()));
            });
            let known = u32::try_from(principals.len()).expect("few").min(size);
            group.bench_function(BenchmarkId::new("address and subject", size), |bencher| {
                bencher.iter(|| {
                    let number = scattered(&mut turn, size);
                    let principal = principals.get((number % known) as usize);
                    let facts = facts(number, principal);
                    let now = clock::now();
                    (address.check(&facts, now), subject.check(&facts, now))
                });
            });
            drop(subject);
            let other = limit_of(&[Part::Ip, Part::Route], BUCKET, longer, 2_000_000);
            for number in 0..size {
                black_box(other.check(&facts(number, None), now));
            }
            let both = Limits(vec![address, other]);
            let mut met = Vec::new();
            group.bench_function(BenchmarkId::new("together", size), |bencher| {
                bencher.iter(|| {
                    met.clear();
                    both.check(&facts(scattered(&mut turn, size), None), clock::now(), &mut met)
                });
            });
        }
        group.finish();
    }
}

/// A request under a plan with a rate and a quota: looked up, counted in both.
fn planned(criterion: &mut Criterion) {
    let ledger: Arc<Ledger> = Arc::default();
    let settings = plan::Settings {
        rate: Some(BUCKET),
        quota: Some(Quota { count: 1_000_000_000_000, every: Every::Month, unsaved_max: None }),
        quota_from: QuotaFrom::Calendar,
        modes: Modes { draft: true, ..Modes::default() },
        message: None,
        on_store_failure: OnStoreFailure::Local,
    };
    let (limits, metrics) = (Live::default(), Metrics::new());
    let around = Surroundings { limits: &limits, cluster: None, ledger: &ledger, generation: 1 };
    let plan = Plan::new("bench", &Origin::Default, settings, around, metrics.plan("bench"));
    let gate = Gate::new(Plans::new([&plan], &ledger), Some(plan.clone()));
    let mut group = criterion.benchmark_group("plans");
    for size in [1_u32, 1_000, 100_000] {
        let consumers: Vec<Principal> = (0..size)
            .map(|number| {
                let consumer = Consumer { name: format!("consumer-{number}").into(), ..Consumer::default() };
                Principal { consumer: Some(Arc::new(consumer)), ..principal(number) }
            })
            .collect();
        let mut turn = 1;
        let mut met = Vec::new();
        group.bench_function(BenchmarkId::new("rate and quota", size), |bencher| {
            bencher.iter(|| {
                met.clear();
                let facts = facts(7, consumers.get(scattered(&mut turn, size) as usize));
                let mut mine = None;
                let refused = gate.check(&facts, (clock::now(), clock::unix_now), &mut met, &mut mine);
                assert!(refused.is_none(), "the plan bounds it");
                mine.map(|mut mine| mine.count(clock::unix_now).is_ok())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, counting, planned);

/// Ten million forged values, a tenth as many places: memory stays bounded, and nobody's counter is freed by them.
fn flood() {
    let limit = limit_of(
        &[Part::Ip],
        BucketRule { count: 1, per: 3_600_000_000_000, burst: 1, queue: 0 },
        &[],
        1_000_000,
    );
    let now = clock::now();
    let passes = |number| limit.check(&facts(number, None), now).is_some_and(|met| met.refusal().is_none());
    let victims = 1_000;
    (0..victims).for_each(|number| assert!(passes(number)));
    let through = (victims..victims + 10_000_000).filter(|number| passes(*number)).count();
    let freed = (0..victims).filter(|number| passes(*number)).count();
    let bytes = limit.store().bytes();
    println!(
        "10,000,000 forged values: {through} through, {bytes} bytes, {freed} of {victims} counters freed"
    );
    assert!(freed == 0 && through <= 1_000_001 && bytes < 100_000_000, "the flood was not held");
}

fn main() {
    benches();
    flood();
    for (name, longer) in [("one window", &[][..]), ("two windows", &[(1_000_000_000, 3600)][..])] {
        for size in SIZES {
            let limit = limit(Part::Ip, longer);
            let now = clock::now();
            for number in 0..size {
                black_box(limit.check(&facts(number, None), now));
            }
            let bytes = limit.store().bytes();
            println!("{name}, {size} keys: {bytes} bytes, {} a key", bytes / size as usize);
        }
    }
}
