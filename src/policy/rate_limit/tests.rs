//! The law, held against every interleaving of requests, clock steps, evictions and reloads; and what clients are told.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::HeaderMap;

use super::*;
use crate::base::origin::Origin;
use crate::routing::Expression;
use crate::routing::expression::{Failed, Stage};
use crate::telemetry::metrics::Metrics;

const SECOND: u64 = 1_000_000_000;

pub(super) fn settings(rules: Rules) -> Settings {
    Settings {
        name: "per_client".into(),
        origin: Origin::Default,
        key: Key::new([Part::Ip], 56),
        rules,
        cost: Cost::Fixed(1),
        skip: Skip::default(),
        allow: Networks::default(),
        allow_consumers: Box::default(),
        modes: Modes { draft: true, ..Modes::default() },
        message: None,
        status: 429,
        keys_max: 1000,
        on_store_failure: OnStoreFailure::Local,
    }
}

pub(super) fn rules(count: u64, per: u64, burst: u64, longer: &[(u64, u64)]) -> Rules {
    Rules {
        generation: 1,
        bucket: Some(BucketRule { count, per: per * SECOND, burst, queue: 0 }),
        windows: longer.iter().map(|(count, per)| WindowRule { count: *count, per: per * SECOND }).collect(),
        ..Rules::default()
    }
}

pub(super) fn limit_in(live: &Live, settings: Settings) -> Arc<RateLimit> {
    RateLimit::new(settings, live, None, Metrics::new().limit("per_client"))
}

fn limit(settings: Settings) -> Arc<RateLimit> {
    limit_in(&Live::default(), settings)
}

fn client(number: u32) -> Facts<'static> {
    Facts::of(IpAddr::V4(number.into()))
}

fn passes(limit: &Arc<RateLimit>, number: u32, now: Instant) -> bool {
    limit.check(&client(number), now).unwrap().refusal().is_none()
}

/// What one key let pass.
#[derive(Default)]
struct History {
    /// When, for how much, and under which of the rules there were: the first and last that it may have been.
    passed: Vec<(u64, u64, (usize, usize))>,
}

impl History {
    /// Whether all that passed obeys the rules of its time.
    fn check(&self, reigns: &[Rules], seed: u64) {
        for (at, (to, _, last)) in self.passed.iter().enumerate() {
            let (mut sum, (mut first, mut last)) = (0, *last);
            for (from, cost, reign) in self.passed[..=at].iter().rev() {
                sum += cost;
                (first, last) = (first.min(reign.0), last.max(reign.1));
                let between = &reigns[first..=last];
                // The largest burst, and the highest rate, of those that held in between.
                let burst = between.iter().filter_map(|rules| Some(rules.bucket?.burst)).max().unwrap();
                let drained = between
                    .iter()
                    .filter_map(|rules| {
                        let rule = rules.bucket?;
                        Some(u128::from(to - from) * u128::from(rule.count) / u128::from(rule.per))
                    })
                    .max()
                    .unwrap();
                // Also over several reloads: what a smaller burst forgives a larger one asks for again.
                assert!(
                    u128::from(sum) <= u128::from(burst) + drained,
                    "seed {seed}: {sum} from {from} to {to}, burst {burst}, drained {drained}"
                );
                for rules in between {
                    for window in &rules.windows {
                        // Under other numbers in between the larger holds.
                        let number = between
                            .iter()
                            .filter_map(|rules| rules.windows.iter().find(|other| other.per == window.per))
                            .map(|window| window.count)
                            .max()
                            .unwrap();
                        let all_have_it = between
                            .iter()
                            .all(|rules| rules.windows.iter().any(|other| other.per == window.per));
                        assert!(
                            to - from >= window.per || sum <= number || !all_have_it,
                            "seed {seed}: {sum} from {from} to {to} in a window of {number}"
                        );
                    }
                }
            }
        }
    }
}

/// The law, whatever happens: requests of several keys and costs, a clock that leaps and steps back, a table that
/// overflows, entries that go, new numbers and new windows.
#[test]
fn nothing_lets_more_through_than_the_law() {
    let first = fastrand::u64(..1 << 40);
    for seed in (first..first + 150).chain(0..50) {
        run_once(seed);
    }
}

fn run_once(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let live = Live::default();
    let metrics = Metrics::new();
    let keys = random.u32(1..40);
    let keys_max = random.usize(1..50);
    // With numbers that a packed ring does not hold, too.
    let scale = if random.u8(..3) == 0 { 300_000 } else { 1 };
    let some_rules = |random: &mut fastrand::Rng, generation: u64| {
        let count = random.u64(1..8) * scale;
        let burst = random.u64(1..8) * scale;
        let longer: &[(u64, u64)] = match random.u8(..4) {
            0 => &[],
            1 => &[(9, 10)],
            2 => &[(12, 10), (20, 60)],
            _ => &[(15, 60)],
        };
        let longer: Vec<_> = longer.iter().map(|(number, per)| (number * scale, *per)).collect();
        Rules { generation, ..rules(count, random.u64(1..3), burst, &longer) }
    };
    let mut generation = 1;
    // One length of the shortest window throughout: another one is another counter.
    let per = SECOND * random.u64(1..3);
    let make = |random: &mut fastrand::Rng, generation: u64, live: &Live| {
        let mut rules = some_rules(random, generation);
        if let Some(bucket) = &mut rules.bucket {
            bucket.per = per;
        }
        let settings = Settings { keys_max, ..settings(rules.clone()) };
        (RateLimit::new(settings, live, None, metrics.limit("x")), rules)
    };
    let (mut current, rules) = make(&mut random, generation, &live);
    let mut older: Option<Arc<RateLimit>> = None;
    let base = clock::now();
    // The clock as it is shown, and the latest that was shown: between the two is the moment that counts.
    let (mut shown, mut latest) = (20 * SECOND, 20 * SECOND);
    let mut reigns = vec![rules];
    let mut histories: HashMap<u32, History> = HashMap::new();
    for _ in 0..random.usize(50..400) {
        match random.u8(..40) {
            0 => shown += random.u64(..70 * SECOND),
            1 => shown = shown.saturating_sub(random.u64(..10 * SECOND)),
            2..=20 => shown += random.u64(..SECOND / 2),
            21 => {
                generation += 1;
                let (next, rules) = make(&mut random, generation, &live);
                reigns.push(rules);
                older = Some(std::mem::replace(&mut current, next));
            }
            22 => {
                // One that is compiled and never comes into force.
                drop(make(&mut random, generation, &live));
            }
            _ => {}
        }
        latest = latest.max(shown);
        let number = random.u32(..keys);
        let cost = if random.u8(..5) == 0 { 2 * scale } else { scale };
        // Now and then a request of the configuration before.
        let limit = match &older {
            Some(older) if random.u8(..10) == 0 => older.clone(),
            _ => current.clone(),
        };
        // Where no newer request has come yet an older one counts by its own rules, else by the newer.
        let newest = reigns.len() - 1;
        let reign = (newest - usize::from(!Arc::ptr_eq(&limit, &current)), newest);
        let facts = client(number);
        let key = limit.settings.key.of(&facts);
        let taken =
            limit.store().take(&limit.rules, key, cost, base + Duration::from_nanos(shown), &|_| true);
        // Counted from the store's own beginning.
        let at = taken.at - basis::nanos(base);
        assert!(at >= shown && at <= latest, "seed {seed}");
        if taken.admitted {
            histories.entry(number).or_default().passed.push((at, cost, reign));
        }
        assert!(current.store().keys() <= keys_max.max(keys as usize), "seed {seed}");
    }
    for history in histories.values() {
        history.check(&reigns, seed);
    }
}

/// However many keys there are, also right after a table has grown for one of them.
#[test]
fn a_key_takes_few_bytes() {
    for (longer, most) in [(&[][..], 50), (&[(1_000_000, 3600)][..], 100)] {
        let limit = limit(Settings { keys_max: 100_000, ..settings(rules(5, 1, 5, longer)) });
        let now = clock::now();
        for number in 1..=10_000 {
            assert!(passes(&limit, number, now));
            if number >= 1000 && number % 100 == 0 {
                let bytes = limit.store().bytes();
                assert!(bytes < most * number as usize, "{bytes} for {number} keys");
            }
        }
    }
}

/// What flooded it goes, and so does the memory that it took.
#[test]
fn a_flood_that_is_over_leaves_memory_free() {
    let limit = limit(Settings { keys_max: 50_000, ..settings(rules(5, 1, 5, &[(1000, 60)])) });
    let base = clock::now();
    (0..10_000).for_each(|number| assert!(passes(&limit, number, base)));
    let flooded = limit.store().bytes();
    // Each newcomer looks at two of them; a hundred newcomers at most count at a time.
    for number in 10_000..24_000 {
        assert!(passes(&limit, number, base + Duration::from_secs(u64::from(number) - 9_900)));
    }
    assert!(limit.store().keys() < 2000, "{}", limit.store().keys());
    let left = limit.store().bytes();
    assert!(left < flooded / 5, "{left} of {flooded}");
}

/// Of several limits in one place each counts by its own key, and what one refuses the next does not count.
#[test]
fn several_limits_in_one_place() {
    let by = |key: Part, burst| {
        let key = Key::new([key], 56);
        limit(Settings { key, keys_max: 100_000, ..settings(rules(1, 3600, burst, &[])) })
    };
    let (address, header, all) =
        (by(Part::Ip, 3), by(Part::Header("x-tenant".parse().unwrap()), 5), by(Part::Global, 8));
    let now = clock::now();
    // So many that they are fetched beforehand.
    (10..10_000).for_each(|number| assert!(passes(&address, number, now)));
    let limits = Limits(vec![address, header, all]);
    let ask = |number: u32, tenant: &str| {
        let headers: HeaderMap =
            [("x-tenant".parse().unwrap(), tenant.parse().unwrap())].into_iter().collect();
        let mut met = Vec::new();
        let refused = limits.check(&Facts { headers: Some(&headers), ..client(number) }, now, &mut met);
        assert_eq!(refused.is_some(), met.last().unwrap().refusal().is_some());
        (refused.is_none(), met.len())
    };
    for _ in 0..3 {
        assert_eq!(ask(1, "a"), (true, 3));
    }
    assert_eq!(ask(1, "a"), (false, 1));
    assert_eq!(ask(2, "a"), (true, 3));
    assert_eq!(ask(2, "a"), (true, 3));
    // Five of the tenant, and five in all.
    assert_eq!(ask(2, "a"), (false, 2));
    for number in 3..6 {
        assert_eq!(ask(number, "b"), (true, 3));
    }
    assert_eq!(ask(6, "b"), (false, 3));
}

/// Reloads back and forth between a small and a large burst: no more than the large one alone.
#[test]
fn reloads_forgive_nothing_for_good() {
    let (live, metrics) = (Live::default(), Metrics::new());
    let base = clock::now();
    let (mut passed, mut limits) = (0, Vec::new());
    for generation in 1..200 {
        let burst = if generation % 2 == 0 { 2 } else { 50 };
        let rules = Rules { generation, ..rules(1, 1, burst, &[]) };
        let limit = RateLimit::new(settings(rules), &live, None, metrics.limit("x"));
        let now = base + Duration::from_millis(generation * 100);
        passed += (0..60).filter(|_| passes(&limit, 1, now)).count();
        limits.push(limit);
    }
    // 50 at once, and 19 in the 19 seconds since.
    assert!((68..=69).contains(&passed), "{passed}");
}

/// The cost of each is what the expression says: nothing, more than ever passes, and where it fails as much as passes.
#[test]
fn what_a_request_costs_may_be_worked_out() {
    let stage = Stage::Counting { knows_who: false };
    let expression = Expression::parse_number("int(header.cost)", stage, 10).unwrap();
    let limit =
        limit(Settings { cost: Cost::Worked(Box::new(expression)), ..settings(rules(1, 1, 10, &[])) });
    let base = clock::now();
    let ask = |cost: Result<u64, ()>| {
        let failed = || Failed::new("no such header");
        let work = |_: &Expression| cost.map_err(|()| failed());
        let facts = Facts { work: Some(Work(&work)), ..client(1) };
        let met = limit.check(&facts, base)?;
        if let Some(problem) = met.refusal() {
            // Whoever asks for more than there ever is is not told to come back.
            let never = cost.is_ok_and(|cost| cost > 10);
            assert_eq!(problem.retry_after.is_none(), never, "{cost:?}");
        }
        Some((met.refusal().is_none(), met.standing.as_ref().unwrap().rooms[0].left))
    };
    assert_eq!(ask(Ok(3)), Some((true, 7)));
    assert_eq!(ask(Ok(0)), None);
    // Neither now nor ever, whatever is left; and nothing of it counts.
    for cost in [11, COUNT_MAX, u64::MAX] {
        assert_eq!(ask(Ok(cost)), Some((false, 7)), "{cost}");
    }
    // As much as ever passes: not beside what was counted already.
    assert_eq!(ask(Err(())), Some((false, 7)));
    assert_eq!(ask(Ok(7)), Some((true, 0)));
    assert_eq!(ask(Ok(0)), None);
    assert_eq!(ask(Ok(1)), Some((false, 0)));
}

/// Who would have to wait for longer than his request may take has no place, and leaves it to others.
#[test]
fn nobody_has_a_place_that_comes_too_late() {
    let mut rules = rules(1, 1, 1, &[]);
    rules.bucket.as_mut().unwrap().queue = 10 * SECOND;
    let limit = limit(settings(rules));
    let base = clock::now();
    let ask = |seconds: u64| {
        let facts = Facts { deadline: Some(base + Duration::from_secs(seconds)), ..client(1) };
        limit.check(&facts, base).unwrap()
    };
    assert_eq!(ask(5).delay(), Duration::ZERO);
    let first = ask(2);
    assert_eq!(first.delay(), Duration::from_secs(1));
    for _ in 0..5 {
        assert!(ask(2).refusal().is_some());
    }
    assert_eq!(ask(3).delay(), Duration::from_secs(2));
}

/// What stands is told without being counted, of who is known, of a newcomer, and where newcomers share a counter.
#[test]
fn looking_counts_nothing() {
    let limit = limit(Settings { keys_max: 16, ..settings(rules(1, 1, 5, &[(9, 60)])) });
    let base = clock::now();
    let look = |number: u32| {
        let (standing, overflow) =
            limit.store().look(&limit.rules, limit.settings.key.of(&client(number)), base).unwrap();
        (standing.rooms.iter().map(|room| room.left).collect::<Vec<_>>(), overflow)
    };
    assert!(passes(&limit, 1, base) && passes(&limit, 1, base));
    for _ in 0..3 {
        assert_eq!(look(1), (vec![3, 7], false));
        assert_eq!(look(2), (vec![5, 9], false));
    }
    for number in 10..30 {
        passes(&limit, number, base);
    }
    assert!(look(99).1);
    assert_eq!(look(1), (vec![3, 7], false));
}

/// And it is no stricter than it says: whoever waits as long as he is told passes.
#[test]
fn whoever_waits_as_told_passes() {
    let mut random = fastrand::Rng::with_seed(7);
    let base = clock::now();
    for _ in 0..100 {
        let limit = limit(settings(rules(random.u64(1..9), random.u64(1..4), random.u64(1..6), &[(10, 60)])));
        let mut now = base;
        for _ in 0..200 {
            now += Duration::from_millis(random.u64(..300));
            let said = limit.check(&client(1), now).unwrap();
            if let Some(problem) = said.refusal() {
                let wait = problem.retry_after.unwrap();
                assert!(wait > Duration::ZERO && wait <= Duration::from_secs(67), "{wait:?}");
                assert!(!passes(&limit, 1, now + wait - Duration::from_micros(1)));
                now += wait;
                assert!(passes(&limit, 1, now), "{wait:?}");
            }
        }
    }
}

/// 64 threads as fast as they can against 100 a second and a burst of 20, on a clock that they move together: what passes
/// is within one of the law.
#[test]
fn many_threads_are_within_one_of_the_law() {
    let limit = limit(settings(rules(100, 1, 20, &[])));
    let base = clock::now();
    let nanos = AtomicU64::new(0);
    let passed = AtomicU64::new(0);
    let end = 10 * SECOND;
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                loop {
                    let at = nanos.fetch_add(100_000, Relaxed);
                    if at > end {
                        break;
                    }
                    if passes(&limit, 1, base + Duration::from_nanos(at)) {
                        passed.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    let passed = passed.into_inner();
    assert!((1019..=1020).contains(&passed), "{passed}");
}

/// Many values, more than there is room for: memory is bounded, a key that is there keeps its counter, those that are
/// not share one, and when the flood is over all are as before.
#[test]
fn a_flood_of_keys_frees_nobody() {
    let limit = limit(Settings { keys_max: 1000, ..settings(rules(1, 1, 3, &[(10, 60)])) });
    let base = clock::now();
    let victim = 0xffff_ffff;
    for _ in 0..3 {
        assert!(passes(&limit, victim, base));
    }
    let through = (0..200_000).filter(|number| passes(&limit, *number, base)).count();
    // Each of those that got an entry once, and the burst of the shared one.
    assert!((999..=1000 + 3).contains(&through), "{through}");
    assert_eq!(limit.store().keys(), 1000);
    assert!(limit.store().bytes() < 1000 * 600, "{}", limit.store().bytes());
    assert!(!passes(&limit, victim, base));
    // Whoever was refused under the shared entry has used that up for himself, too.
    let later = base + Duration::from_secs(1);
    assert!(passes(&limit, 150_000, later) && !passes(&limit, 150_001, later));
    let much_later = base + Duration::from_secs(70);
    for number in 300_000..300_500 {
        assert!(passes(&limit, number, much_later), "{number}");
    }
}

/// A /48 of IPv6 addresses is 256 clients, whatever the addresses.
#[test]
fn a_site_of_ipv6_is_as_many_clients_as_it_has_customers() {
    let limit = limit(settings(rules(1, 60, 1, &[])));
    let base = clock::now();
    let mut random = fastrand::Rng::with_seed(1);
    let site = 0x2001_0db8_0042_u128 << 80;
    let through = (0..100_000).filter(|_| {
        let address = site | (random.u128(..) >> 48);
        limit.check(&Facts::of(IpAddr::V6(address.into())), base).unwrap().refusal().is_none()
    });
    assert_eq!(through.count(), 256);
    assert_eq!(limit.store().keys(), 256);
}

#[test]
fn memory_per_key_is_under_a_hundred_bytes() {
    for (longer, most) in [(&[][..], 50), (&[(10_000, 3600)][..], 100)] {
        let limit = limit(Settings { keys_max: 1_000_000, ..settings(rules(5, 1, 5, longer)) });
        let base = clock::now();
        let keys = 200_000;
        for number in 0..keys {
            assert!(passes(&limit, number, base));
        }
        assert_eq!(limit.store().keys(), keys as usize);
        let each = limit.store().bytes() / keys as usize;
        assert!(each < most, "{each} bytes a key");
    }
}

/// Entries that are as good as new ones make room, and the memory is used again.
#[test]
fn idle_keys_make_room() {
    let limit = limit(Settings { keys_max: 100_000, ..settings(rules(5, 1, 5, &[])) });
    let base = clock::now();
    for round in 0..20 {
        for number in 0..1000 {
            assert!(passes(&limit, round * 1000 + number, base + Duration::from_secs(round.into())));
        }
    }
    assert!(limit.store().keys() < 3000, "{}", limit.store().keys());
}

/// In flight: counted while held, free when dropped, once.
#[test]
fn requests_under_way_are_given_back_once() {
    let rules = Rules { generation: 1, concurrent: Some(2), ..Rules::default() };
    let limit = limit(settings(rules));
    let now = clock::now();
    let one = limit.check(&client(1), now).unwrap();
    let mut two = limit.check(&client(1), now).unwrap();
    assert!(one.refusal().is_none() && two.refusal().is_none());
    let three = limit.check(&client(1), now).unwrap();
    let problem = three.refusal().unwrap();
    assert_eq!((problem.reason, problem.retry_after_seconds()), (Reason::ConcurrencyExceeded, Some(1)));
    assert_eq!(problem.quota.unwrap().violated, vec![Box::from("per_client")]);
    drop(three);
    assert!(limit.check(&client(1), now).unwrap().refusal().is_some());
    two.ended(Some(200));
    let again = limit.check(&client(1), now).unwrap();
    assert!(again.refusal().is_none());
    drop(two);
    assert!(limit.check(&client(1), now).unwrap().refusal().is_some());
    drop((one, again));
    assert_eq!(
        told(&[limit.check(&client(1), now).unwrap()]),
        [
            ("RateLimit-Policy", r#""per_client";q=2;qu="concurrent-requests""#.to_owned()),
            ("RateLimit", r#""per_client";r=1"#.to_owned()),
        ]
    );
}

/// Requests under way stay so over a reload that changes everything but the name and the key.
#[test]
fn requests_under_way_survive_a_reload() {
    let live = Live::default();
    let make = |generation, concurrent, longer: &[(u64, u64)]| {
        let rules = Rules { generation, concurrent: Some(concurrent), ..rules(100, 1, 100, longer) };
        RateLimit::new(settings(rules), &live, None, Metrics::new().limit("x"))
    };
    let now = clock::now();
    let before = make(1, 2, &[]);
    let held: Vec<_> = (0..2).map(|_| before.check(&client(1), now).unwrap()).collect();
    let after = make(2, 3, &[(500, 60)]);
    drop(before);
    let last = after.check(&client(1), now).unwrap();
    assert!(last.refusal().is_none());
    assert!(after.check(&client(1), now).unwrap().refusal().is_some());
    drop(held);
    assert!(after.check(&client(1), now).unwrap().refusal().is_none());
    drop(last);
}

/// Of a login only the failures count, and what is not known yet keeps its place.
#[test]
fn successes_are_skipped_when_they_have_ended() {
    let rules = Rules { counted_at_end: true, ..rules(2, 60, 2, &[(5, 3600)]) };
    let skip = Skip { successful: true, failed: false };
    let limit = limit(Settings { skip, ..settings(rules) });
    let now = clock::now();
    for _ in 0..20 {
        limit.check(&client(1), now).unwrap().ended(Some(200));
    }
    let mut one = limit.check(&client(1), now).unwrap();
    let two = limit.check(&client(1), now).unwrap();
    assert!(limit.check(&client(1), now).unwrap().refusal().is_some());
    one.ended(Some(401));
    drop(two);
    // One failed, of the other nobody said how it ended: both count.
    assert!(limit.check(&client(1), now).unwrap().refusal().is_some());
    limit.check(&client(2), now).unwrap().ended(Some(200));
    assert!(passes(&limit, 2, now));
}

/// Who hangs up before the answer is whole was served all the same, whichever requests are skipped.
#[test]
fn who_hangs_up_is_counted() {
    for skip in [Skip { successful: true, failed: false }, Skip { successful: false, failed: true }] {
        let rules = Rules { counted_at_end: true, ..rules(2, 60, 2, &[]) };
        let limit = limit(Settings { skip, ..settings(rules) });
        let now = clock::now();
        for _ in 0..5 {
            limit.check(&client(1), now).unwrap().ended(Some(if skip.failed { 404 } else { 200 }));
        }
        for _ in 0..2 {
            let mut met = limit.check(&client(1), now).unwrap();
            assert!(met.refusal().is_none());
            met.ended(None);
        }
        assert!(!passes(&limit, 1, now), "{skip:?}");
    }
}

#[test]
fn whoever_is_allowed_is_not_counted() {
    let allow = Networks::new(["10.0.0.0/8".parse().unwrap()]);
    let limit = limit(Settings { allow, ..settings(rules(1, 1, 1, &[])) });
    let now = clock::now();
    assert!(limit.check(&Facts::of("10.1.2.3".parse().unwrap()), now).is_none());
    assert!(limit.check(&Facts::of("11.1.2.3".parse().unwrap()), now).is_some());
}

/// With a queue, who comes too early goes on later, in the order of coming; who would wait too long is refused.
#[test]
fn a_queue_delays_before_it_refuses() {
    let mut rules = rules(10, 1, 1, &[]);
    if let Some(bucket) = &mut rules.bucket {
        bucket.queue = SECOND / 5;
    }
    let limit = limit(settings(rules));
    let now = clock::now();
    let said: Vec<_> = (0..4).map(|_| limit.check(&client(1), now).unwrap()).collect();
    let delays: Vec<_> = said.iter().map(|said| said.delay().as_millis()).collect();
    assert_eq!(delays, [0, 100, 200, 0]);
    assert!(said[2].refusal().is_none() && said[3].refusal().is_some());
    assert_eq!(limit.waiting.load(Relaxed), 2);
    drop(said);
    assert_eq!(limit.waiting.load(Relaxed), 0);
    assert!(limit.check(&client(1), now + Duration::from_millis(100)).unwrap().refusal().is_none());
}

/// Who finds no place to wait in is refused, and has used up nothing.
#[test]
fn who_finds_no_place_to_wait_is_not_counted() {
    let mut rules = rules(10, 1, 1, &[(3, 60)]);
    if let Some(bucket) = &mut rules.bucket {
        bucket.queue = SECOND;
    }
    let limit = limit(settings(rules));
    let now = clock::now();
    assert!(passes(&limit, 1, now));
    limit.waiting.store(WAITING_MAX, Relaxed);
    for _ in 0..20 {
        let said = limit.check(&client(1), now).unwrap();
        assert!(said.refusal().is_some() && said.delay().is_zero());
    }
    limit.waiting.store(0, Relaxed);
    let said: Vec<_> = (0..2).map(|_| limit.check(&client(1), now).unwrap()).collect();
    assert_eq!(said.iter().map(|said| said.delay().as_millis()).collect::<Vec<_>>(), [100, 200]);
    assert_eq!(limit.waiting.load(Relaxed), 2);
}

/// A request that still runs under the configuration before gives back what the newer one had it hold.
#[test]
fn an_older_request_gives_back_what_newer_rules_hold() {
    let live = Live::default();
    let make = |generation, counted_at_end, concurrent| {
        let rules = Rules { generation, concurrent, counted_at_end, ..rules(20, 60, 20, &[]) };
        RateLimit::new(settings(rules), &live, None, Metrics::new().limit("x"))
    };
    let now = clock::now();
    let before = make(1, false, None);
    let after = make(2, true, Some(1));
    assert!(passes(&after, 2, now));
    for _ in 0..10 {
        let late = before.check(&client(2), now).unwrap();
        assert!(late.refusal().is_none());
        assert!(!passes(&after, 2, now), "one at once");
    }
    // Eleven have counted, and nothing is reserved any more.
    assert_eq!((0..20).filter(|_| passes(&after, 2, now)).count(), 9);
}

/// Nor does it take anything of what was counted under a larger burst meanwhile, when it has ended.
#[test]
fn an_older_request_takes_nothing_from_what_newer_rules_counted() {
    let live = Live::default();
    let make = |generation, burst| {
        let rules = Rules { generation, counted_at_end: true, ..rules(1, 3600, burst, &[]) };
        let skip = Skip { failed: true, successful: false };
        RateLimit::new(Settings { skip, ..settings(rules) }, &live, None, Metrics::new().limit("x"))
    };
    let now = clock::now();
    let before = make(1, 3);
    let mut held = before.check(&client(1), now).unwrap();
    let after = make(2, 100);
    assert_eq!((0..90).filter(|_| passes(&after, 1, now)).count(), 90);
    held.ended(Some(200));
    assert_eq!((0..100).filter(|_| passes(&after, 1, now)).count(), 9);
}

/// Where successes do not count, and after a reload do: what is under way then is not forgotten.
#[test]
fn what_is_reserved_counts_where_nothing_is_any_more() {
    let live = Live::default();
    let make = |generation, counted_at_end| {
        let rules = Rules { generation, counted_at_end, ..rules(1, 3600, 3, &[(4, 7200)]) };
        RateLimit::new(settings(rules), &live, None, Metrics::new().limit("x"))
    };
    let now = clock::now();
    let before = make(1, true);
    let held: Vec<_> = (0..3).map(|_| before.check(&client(1), now).unwrap()).collect();
    assert!(held.iter().all(|met| met.refusal().is_none()));
    let after = make(2, false);
    assert!(!passes(&after, 1, now));
    drop(held);
    assert!(!passes(&after, 1, now) && passes(&after, 2, now));
}

/// Counters go on after a reload, clamped to the new burst, by the name and the kind of key.
#[test]
fn a_reload_keeps_counters() {
    let live = Live::default();
    let make = |generation, name: &str, key: Key, count, burst| {
        let rules = Rules { generation, ..rules(count, 60, burst, &[]) };
        let settings = Settings { name: name.into(), key, ..settings(rules) };
        RateLimit::new(settings, &live, None, Metrics::new().limit("x"))
    };
    let ip = || Key::new([Part::Ip], 56);
    let now = clock::now();
    let before = make(1, "a", ip(), 60, 10);
    for _ in 0..10 {
        assert!(passes(&before, 1, now));
    }
    let smaller = make(2, "a", ip(), 60, 2);
    assert!(!passes(&smaller, 1, now));
    // A full bucket of two empties in two seconds, not in the ten of the old one.
    assert!(passes(&smaller, 1, now + Duration::from_secs(1)));
    assert!(!passes(&smaller, 1, now + Duration::from_secs(1)));
    // One that is larger again finds what the smaller one has forgiven.
    let larger = make(3, "a", ip(), 60, 5);
    assert!(!passes(&larger, 1, now + Duration::from_secs(1)));
    assert!(passes(&larger, 1, now + Duration::from_secs(2)));
    assert!(!passes(&larger, 1, now + Duration::from_secs(2)));
    for other in [make(3, "b", ip(), 60, 10), make(3, "a", Key::new([Part::Route], 56), 60, 10)] {
        assert!(passes(&other, 1, now));
    }
}

fn told(met: &[Met]) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    fields(met, None, 1_700_000_000, |(name, value)| all.push((name, value.to_str().unwrap().to_owned())));
    all
}

/// The fields in each form, byte for byte.
#[test]
fn answers_tell_of_it_in_every_form() {
    let all = |modes: Modes, longer: &[(u64, u64)], requests: u32| {
        let limit = limit(Settings { modes, ..settings(rules(100, 60, 100, longer)) });
        let now = clock::now();
        let mut last = None;
        for _ in 0..requests {
            last = limit.check(&client(1), now);
        }
        told(&[last.unwrap()])
    };
    let none = Modes::default();
    let owned = |fields: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    };
    let draft = Modes { draft: true, ..none };
    assert_eq!(
        all(draft, &[], 50),
        owned(&[
            ("RateLimit-Policy", r#""per_client";q=100;w=60"#),
            ("RateLimit", r#""per_client";r=50;t=30"#)
        ])
    );
    assert_eq!(
        all(draft, &[], 101),
        owned(&[
            ("RateLimit-Policy", r#""per_client";q=100;w=60"#),
            ("RateLimit", r#""per_client";r=0;t=1"#),
        ])
    );
    assert_eq!(
        all(draft, &[(1000, 3600)], 50)[0].1,
        r#""per_client";q=100;w=60, "per_client/h";q=1000;w=3600"#
    );
    let hour = all(draft, &[(1000, 3600)], 50)[1].1.clone();
    assert!(hour.starts_with(r#""per_client";r=50;t=30, "per_client/h";r=950;t="#), "{hour}");
    // A refusal tells of what refuses alone.
    assert_eq!(all(draft, &[(1000, 3600)], 101)[1].1, r#""per_client";r=0;t=1"#);
    assert_eq!(
        all(Modes { draft_7: true, ..none }, &[], 50),
        owned(&[("RateLimit-Policy", "100;w=60"), ("RateLimit", "limit=100, remaining=50, reset=30")])
    );
    assert_eq!(
        all(Modes { draft_6: true, ..none }, &[], 50),
        owned(&[
            ("RateLimit-Policy", "100;w=60"),
            ("RateLimit-Limit", "100"),
            ("RateLimit-Remaining", "50"),
            ("RateLimit-Reset", "30"),
        ])
    );
    assert_eq!(
        all(Modes { legacy: true, ..none }, &[], 50),
        owned(&[
            ("X-RateLimit-Limit", "100"),
            ("X-RateLimit-Remaining", "50"),
            ("X-RateLimit-Reset", "1700000030"),
        ])
    );
    assert_eq!(
        all(Modes { kong: true, ..none }, &[(1000, 3600)], 101),
        owned(&[
            ("RateLimit-Limit", "100"),
            ("RateLimit-Remaining", "0"),
            ("RateLimit-Reset", "1"),
            ("X-RateLimit-Limit-Hour", "1000"),
            ("X-RateLimit-Remaining-Hour", "900"),
            ("X-RateLimit-Limit-Minute", "100"),
            ("X-RateLimit-Remaining-Minute", "0"),
        ])
    );
    assert_eq!(all(none, &[], 1), []);
}

/// Two limits are told as one list; of forms with one number the tighter one's.
#[test]
fn several_limits_are_told_together() {
    let named = |name: &str, count: u64, modes: Modes| {
        limit(Settings { name: name.into(), modes, ..settings(rules(count, 60, count, &[])) })
    };
    let modes = Modes { draft: true, legacy: true, ..Modes::default() };
    let now = clock::now();
    let (wide, tight) = (named("wide", 100, modes), named("tight", 10, modes));
    let met = [&wide, &tight].map(|limit| limit.check(&client(1), now).unwrap());
    let fields = told(&met);
    assert_eq!(fields[0].1, r#""wide";q=100;w=60, "tight";q=10;w=60"#);
    assert_eq!(fields[1].1, r#""wide";r=99;t=1, "tight";r=9;t=6"#);
    assert_eq!(fields[2], ("X-RateLimit-Limit", "10".to_owned()));
}

/// A header that is forged costs no more than a place in the table; one that is missing counts by the address.
#[test]
fn forged_headers_share_when_there_are_too_many() {
    let key = Key::new([Part::Header("x-tenant".parse().unwrap())], 56);
    let limit = limit(Settings { key, keys_max: 100, ..settings(rules(1, 60, 1, &[])) });
    let now = clock::now();
    let mut through = 0;
    for number in 0..10_000 {
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", number.to_string().parse().unwrap());
        let facts = Facts { headers: Some(&headers), ..client(1) };
        through += u32::from(limit.check(&facts, now).unwrap().refusal().is_none());
    }
    assert_eq!(through, 101);
    assert_eq!(limit.store().keys(), 100);
}

#[test]
fn a_limit_describes_itself() {
    let both = Rules { concurrent: Some(20), ..rules(5, 1, 9, &[(10_000, 3600), (20_000, 86_400)]) };
    let key = Key::new([Part::Subject, Part::Route], 56);
    let text = limit(Settings { key, ..settings(both) }).describe();
    assert_eq!(text, "5/s and 10000/h and 20000/day and 20 at once by subject + route, 9 after a rest");
    assert_eq!(limit(settings(rules(10, 900, 10, &[]))).describe(), "10/15min by ip");
}
