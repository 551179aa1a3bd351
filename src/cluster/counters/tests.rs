//! Against a real Redis: the law, exactness over instances, what happens to nonsense.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use smallvec::{SmallVec, smallvec};

use super::{Ask, BucketLaw, Counters, Failure, Law, Room, SharedKey, SharedLimit, WindowLaw};
use crate::base::clock;
use crate::cluster::Cluster;
use crate::cluster::testing::{Server, eventually, run, started};

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;

fn bucket(count: u64, per: u64, burst: u64) -> Law {
    Law { bucket: Some(BucketLaw { count, per, burst, queue: 0 }), windows: SmallVec::new() }
}

fn key(name: &str) -> SharedKey {
    SharedKey::new("ip/56", name.as_bytes())
}

async fn take(
    counters: &Arc<Counters>,
    limit: &Arc<SharedLimit>,
    name: &str,
) -> Result<super::Answer, Failure> {
    counters.take(&[Ask { limit, key: key(name), cost: 1 }]).await
}

async fn admitted(counters: &Arc<Counters>, limit: &Arc<SharedLimit>, name: &str) -> bool {
    take(counters, limit, name).await.unwrap().admitted
}

fn at(counters: &Counters, micros: u64) {
    counters.moment.store(micros, Ordering::SeqCst);
}

/// Some moment of this century, in microseconds.
const T0: u64 = 1_800_000_000_000_000;

#[test]
fn a_burst_then_the_rate_with_what_is_left() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        let counters = cluster.counters();
        let limit = counters.limit("few", &bucket(10, SECOND, 3));
        at(counters, T0);
        for left in (1..=3).rev() {
            let answer = take(counters, &limit, "a").await.unwrap();
            assert!(answer.admitted);
            assert_eq!(
                (
                    answer.standings[0].as_ref().unwrap().rooms[0].left,
                    answer.standings[0].as_ref().unwrap().rooms[0].wait
                ),
                (left, 0)
            );
        }
        let refused = take(counters, &limit, "a").await.unwrap();
        let room = Room { left: 0, wait: SECOND / 10, empty_in: 3 * SECOND / 10 };
        assert!(!refused.admitted && refused.standings[0].as_ref().unwrap().rooms.as_slice() == [room]);
        at(counters, T0 + 99_999);
        assert_eq!(
            take(counters, &limit, "a").await.unwrap().standings[0].as_ref().unwrap().rooms[0].wait,
            1000
        );
        at(counters, T0 + 100_000);
        assert!(admitted(counters, &limit, "a").await);
        assert!(!admitted(counters, &limit, "a").await);
        // Others have their own.
        assert!(admitted(counters, &limit, "b").await);
    });
}

#[test]
fn all_limits_admit_or_none_counts() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        let counters = cluster.counters();
        let (wide, narrow) = (
            counters.limit("wide", &bucket(10, SECOND, 10)),
            counters.limit("narrow", &bucket(1, MINUTE, 1)),
        );
        at(counters, T0);
        let both =
            [Ask { limit: &wide, key: key("a"), cost: 1 }, Ask { limit: &narrow, key: key("a"), cost: 1 }];
        assert!(counters.take(&both).await.unwrap().admitted);
        for _ in 0..20 {
            let refused = counters.take(&both).await.unwrap();
            assert!(!refused.admitted);
            assert_eq!(
                refused.standings.iter().flatten().map(|one| one.admitted).collect::<Vec<_>>(),
                [true, false]
            );
            assert_eq!(refused.standings[0].as_ref().unwrap().rooms[0].left, 9);
        }
    });
}

#[test]
fn a_longer_window_holds_its_number_for_at_least_its_length() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        let counters = cluster.counters();
        let law = Law {
            bucket: Some(BucketLaw { count: 100, per: SECOND, burst: 100, queue: 0 }),
            windows: smallvec![WindowLaw { count: 5, per: MINUTE }],
        };
        let limit = counters.limit("two", &law);
        // At the very end of a step of 6 s.
        let began = T0 / 6_000_000 * 6_000_000 + 5_999_999;
        at(counters, began);
        for _ in 0..5 {
            assert!(admitted(counters, &limit, "a").await);
        }
        let refused = take(counters, &limit, "a").await.unwrap();
        assert_eq!(refused.standings[0].as_ref().unwrap().rooms[1].left, 0);
        assert_eq!(refused.standings[0].as_ref().unwrap().rooms[1].wait, 60_000_001 * 1000);
        at(counters, began + 60_000_000);
        assert!(!admitted(counters, &limit, "a").await);
        at(counters, began + 60_000_001);
        assert!(admitted(counters, &limit, "a").await);
    });
}

#[test]
fn who_waits_is_counted_where_it_goes_on() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        let counters = cluster.counters();
        let law = Law {
            bucket: Some(BucketLaw { count: 10, per: SECOND, burst: 1, queue: 2 * SECOND / 10 }),
            windows: SmallVec::new(),
        };
        let limit = counters.limit("queued", &law);
        at(counters, T0);
        let mut delays = Vec::new();
        for _ in 0..3 {
            let answer = take(counters, &limit, "a").await.unwrap();
            assert!(answer.admitted);
            delays.push(answer.standings[0].as_ref().unwrap().delay);
        }
        assert_eq!(delays, [0, SECOND / 10, 2 * SECOND / 10]);
        assert!(!admitted(counters, &limit, "a").await);
    });
}

/// A place in the queue is given back as long as nobody waits behind it: the order stays, and nobody goes on beside another.
#[test]
fn a_place_before_others_is_not_given_back() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        let counters = cluster.counters();
        let law = Law {
            bucket: Some(BucketLaw { count: 10, per: SECOND, burst: 1, queue: 5 * SECOND / 10 }),
            windows: smallvec![WindowLaw { count: 100, per: MINUTE }],
        };
        let limit = counters.limit("queued", &law);
        let ask = Ask { limit: &limit, key: key("a"), cost: 1 };
        let name = limit.key(key("a"));
        let come = async || {
            let answer = take(counters, &limit, "a").await.unwrap();
            assert!(answer.admitted);
            let standing = answer.standings[0].as_ref().unwrap();
            (standing.delay / (SECOND / 10), standing.receipt)
        };
        let is_counted = async |count: u64| {
            let counted =
                || server.ask::<String>(&["HGET", &name, "60000000"]).contains(&format!(" {count},0"));
            eventually("the longer window to be given back to", counted).await;
        };
        at(counters, T0);
        assert_eq!(come().await.0, 0);
        let (one, first) = come().await;
        let (two, second) = come().await;
        assert_eq!((one, two), (1, 2));
        // The second waits behind the first: only the longer window forgets that one.
        counters.give_back(&ask, first);
        is_counted(2).await;
        let (three, third) = come().await;
        assert_eq!(three, 3);
        // The last leaves: whoever comes next has its place, also a moment later.
        counters.give_back(&ask, third);
        is_counted(2).await;
        at(counters, T0 + 50_000);
        let (delay, fourth) = come().await;
        assert_eq!(delay, 2, "from 50 ms to 300 ms");
        counters.give_back(&ask, second);
        is_counted(2).await;
        counters.give_back(&ask, fourth);
        is_counted(1).await;
        let answer = take(counters, &limit, "a").await.unwrap();
        let delay = answer.standings[0].as_ref().unwrap().delay;
        assert_eq!(delay, 250_000_000, "its place again");
    });
}

/// The shortest window becomes a longer one when a shorter is written beside it, and the reverse: nothing is forgotten.
#[test]
fn a_window_goes_on_in_another_place() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        let counters = cluster.counters();
        let alone = counters.limit("a", &bucket(5, MINUTE, 5));
        let beside = Law {
            bucket: Some(BucketLaw { count: 2, per: SECOND, burst: 2, queue: 0 }),
            windows: smallvec![WindowLaw { count: 5, per: MINUTE }],
        };
        let beside = counters.limit("a", &beside);
        at(counters, T0);
        for _ in 0..3 {
            assert!(admitted(counters, &alone, "a").await);
        }
        assert_eq!(
            take(counters, &beside, "a").await.unwrap().standings[0].as_ref().unwrap().rooms[1].left,
            2
        );
        assert_eq!(
            take(counters, &alone, "a").await.unwrap().standings[0].as_ref().unwrap().rooms[0].left,
            1
        );
        assert!(!admitted(counters, &beside, "a").await && !admitted(counters, &alone, "a").await);
    });
}

#[test]
fn keys_hide_their_values_and_expire() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        let counters = cluster.counters();
        let limit = counters.limit("few", &bucket(10, SECOND, 5));
        assert!(admitted(counters, &limit, "192.0.2.7").await);
        let keys: Vec<String> = server.ask(&["KEYS", "test:limit:*"]);
        let [name] = keys.as_slice() else { panic!("{keys:?}") };
        assert!(name.starts_with("test:limit:few:") && !name.contains("192"), "{name}");
        // One request has drained after 100 ms.
        let left: i64 = server.ask(&["PTTL", name]);
        assert!((-2..=101).contains(&left), "{left}");
        eventually("the key is gone", || server.ask::<Vec<String>>(&["KEYS", "test:limit:*"]).is_empty())
            .await;
        // Other kinds of keys never meet.
        assert_ne!(SharedKey::new("ip/56", b"a"), SharedKey::new("ip/64", b"a"));
        assert_ne!(SharedKey::new("ip", b"a"), SharedKey::new("i", b"pa"));
    });
}

#[test]
fn a_server_that_forgot_the_script_is_told_it_again() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        let counters = cluster.counters();
        let limit = counters.limit("few", &bucket(10, SECOND, 5));
        for _ in 0..2 {
            assert!(admitted(counters, &limit, "a").await);
            let () = server.ask(&["SCRIPT", "FLUSH"]);
        }
    });
}

/// What somebody wrote by hand is neither an empty counter nor a full one, and gone after a while.
#[test]
fn nonsense_is_no_free_pass() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        let counters = cluster.counters();
        let law = Law {
            bucket: Some(BucketLaw { count: 1, per: SECOND, burst: 1, queue: 0 }),
            windows: smallvec![WindowLaw { count: 5, per: 2 * SECOND }],
        };
        let limit = counters.limit("few", &law);
        let name = limit.key(key("a"));
        let future = format!("b 0 {}", T0 * 2);
        let (bucket_field, ring_field) = ("1000000", "2000000");
        let nonsense: Vec<Vec<&str>> = vec![
            vec!["SET", &name, "1"],
            vec!["RPUSH", &name, "a", "b"],
            vec!["HSET", &name, bucket_field, "banana"],
            vec!["HSET", &name, bucket_field, ""],
            vec!["HSET", &name, bucket_field, "b -1000000000 1"],
            vec!["HSET", &name, bucket_field, "b 1e300 1"],
            vec!["HSET", &name, bucket_field, "b nan 1"],
            vec!["HSET", &name, bucket_field, "b 99999999999999999999 1"],
            vec!["HSET", &name, bucket_field, &future],
            vec!["HSET", &name, bucket_field, "b 0 1 5"],
            vec!["HSET", &name, bucket_field, "b 0 1 5 -5"],
            vec!["HSET", &name, bucket_field, "b 0 1 99999999999999999999 1"],
            vec!["HSET", &name, ring_field, "r 1 1,2,3"],
            vec!["HSET", &name, ring_field, "r 1 -9,0,0,0,0,0,0,0,0,0,0"],
            vec!["HSET", &name, ring_field, "r 9999999999999999 0,0,0,0,0,0,0,0,0,0,0"],
            vec!["HSET", &name, ring_field, "r 1 0,0,0,0,0,0,0,0,0,0,0,0"],
        ];
        for command in &nonsense {
            let () = server.ask(&["DEL", &name]);
            let _: redis::Value = server.ask(command);
            for _ in 0..2 {
                let answer = take(counters, &limit, "a").await;
                assert!(matches!(answer, Err(Failure::Nonsense(_))), "{command:?}: {answer:?}");
            }
            let left: i64 = server.ask(&["PTTL", &name]);
            assert!((0..=2_200).contains(&left), "{command:?}: {left}");
        }
        eventually("it is gone", || server.ask::<i64>(&["EXISTS", &name]) == 0).await;
        assert!(admitted(counters, &limit, "a").await);
        assert!(!admitted(counters, &limit, "a").await);
    });
}

/// A level higher than there can be is a full bucket: so much was used under an earlier, larger burst.
#[test]
fn a_smaller_burst_takes_over() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        let counters = cluster.counters();
        let (large, small) =
            (counters.limit("a", &bucket(10, SECOND, 900)), counters.limit("a", &bucket(10, SECOND, 3)));
        at(counters, T0);
        let all = Ask { limit: &large, key: key("a"), cost: 900 };
        assert!(counters.take(&[all]).await.unwrap().admitted);
        let refused = take(counters, &small, "a").await.unwrap();
        assert_eq!(
            refused.standings[0].as_ref().unwrap().rooms[0],
            Room { left: 0, wait: SECOND / 10, empty_in: 3 * SECOND / 10 }
        );
    });
}

/// Reloads back and forth between a small and a large burst: no more than the large one alone.
#[test]
fn reloads_forgive_nothing_for_good() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        let counters = cluster.counters();
        let (large, small) =
            (counters.limit("a", &bucket(1, SECOND, 50)), counters.limit("a", &bucket(1, SECOND, 2)));
        let mut passed = 0;
        for turn in 1..200 {
            at(counters, T0 + turn * 100_000);
            let limit = if turn % 2 == 0 { &small } else { &large };
            while admitted(counters, limit, "a").await {
                passed += 1;
            }
        }
        // 50 at once, and 19 in the 19 seconds since.
        assert!((68..=69).contains(&passed), "{passed}");
        // And it drains as if it had never been forgiven, also while nobody asks.
        at(counters, T0 + 60_000_000);
        let room = take(counters, &large, "a").await.unwrap().standings[0].as_ref().unwrap().rooms[0];
        assert!((39..=41).contains(&room.left), "{room:?}");
    });
}

#[test]
fn what_does_not_count_is_given_back() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        let counters = cluster.counters();
        let law = Law {
            bucket: Some(BucketLaw { count: 1, per: MINUTE, burst: 3, queue: 0 }),
            windows: smallvec![WindowLaw { count: 3, per: 10 * MINUTE }],
        };
        let limit = counters.limit("logins", &law);
        let mut receipts = Vec::new();
        for _ in 0..3 {
            receipts.push(take(counters, &limit, "a").await.unwrap().standings[0].as_ref().unwrap().receipt);
        }
        assert!(!admitted(counters, &limit, "a").await);
        let ask = Ask { limit: &limit, key: key("a"), cost: 1 };
        counters.give_back(&ask, receipts[1]);
        let name = limit.key(key("a"));
        eventually("it is given back", || {
            server.ask::<String>(&["HGET", &name, "600000000"]).contains(" 2,0")
        })
        .await;
        // The bucket drained for a moment since: that is not given back twice, so it is not quite a request yet.
        let room = take(counters, &limit, "a").await.unwrap().standings[0].as_ref().unwrap().clone();
        assert!(room.rooms[0].wait < SECOND, "{room:?}");
        assert_eq!(room.rooms[1].left, 1);
    });
}

// --- the law, by a model -------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    /// A request of some cost for one of three keys; whether it is given back later.
    Request { key: u8, cost: u64, is_given_back: bool },
    /// The clock moves, perhaps back.
    Pass { micros: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..3, 1_u64..4, prop::bool::weighted(0.2))
            .prop_map(|(key, cost, is_given_back)| Step::Request { key, cost, is_given_back }),
        // Whole units of a window of a minute: 30 microseconds.
        2 => (0_i64..2_000).prop_map(|units| Step::Pass { micros: units * 30 }),
        1 => (0_i64..500_000).prop_map(|units| Step::Pass { micros: units * 300 }),
        1 => (-10_000_i64..0).prop_map(|units| Step::Pass { micros: units * 300 }),
    ]
}

fn a_law() -> impl Strategy<Value = Law> {
    let per = prop_oneof![Just(SECOND), Just(MINUTE)];
    (per, 1_u64..30, 1_u64..20, prop::option::of(1_u64..40)).prop_map(|(per, count, burst, window)| Law {
        bucket: Some(BucketLaw { count, per, burst, queue: 0 }),
        windows: window.map(|count| WindowLaw { count, per: per * 5 }).into_iter().collect(),
    })
}

/// What the law says, as plainly as it can be said: a level in requests times microseconds, and a list of what was counted.
#[derive(Debug, Default)]
struct Model {
    level: u128,
    at: u64,
    counted: Vec<(u64, u64)>,
    newest: u64,
}

impl Model {
    fn admits(&mut self, law: &Law, cost: u64, now: u64) -> bool {
        let rule = law.bucket.unwrap();
        let per = u128::from(rule.per / 1000);
        let passed = u128::from(now.saturating_sub(self.at)) * u128::from(rule.count);
        let level = self.level.saturating_sub(passed) + u128::from(cost) * per;
        let mut admits = level <= u128::from(rule.burst) * per;
        for window in &law.windows {
            let step = window.per / 1000 / 10;
            let newest = (now / step).max(self.newest);
            let held: u64 =
                self.counted.iter().filter(|(at, _)| at / step + 10 >= newest).map(|(_, cost)| cost).sum();
            admits &= held + cost <= window.count;
        }
        if admits {
            (self.level, self.at) = (level, self.at.max(now));
            if let Some(window) = law.windows.first() {
                let step = window.per / 1000 / 10;
                self.newest = self.newest.max(now / step);
                self.counted.push((now.max(self.newest * step), cost));
            }
        }
        admits
    }
}

/// Whether no interval holds more than the law says: `admitted` by the time at which each was counted.
fn is_lawful(law: &Law, admitted: &[(u64, u64)]) -> Result<(), String> {
    let rule = law.bucket.unwrap();
    for (from, &(began, _)) in admitted.iter().enumerate() {
        let mut sum = 0;
        for &(ended, cost) in &admitted[from..] {
            sum += cost;
            let passed = ended.saturating_sub(began);
            let most = rule.burst * (rule.per / 1000) + passed * rule.count;
            if sum * (rule.per / 1000) > most {
                return Err(format!("{sum} within {passed} us under {rule:?}"));
            }
            for window in &law.windows {
                if passed < window.per / 1000 && sum > window.count {
                    return Err(format!("{sum} within {passed} us under {window:?}"));
                }
            }
        }
    }
    Ok(())
}

/// One Redis for all cases: starting one takes longer than a case.
static CASES: LazyLock<AtomicU64> = LazyLock::new(AtomicU64::default);

#[test]
fn the_script_admits_what_the_law_says() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        let counters = cluster.counters().clone();
        let handle = tokio::runtime::Handle::current();
        let work = move || {
            let config = Config { cases: 256, failure_persistence: None, ..Config::default() };
            TestRunner::new(config)
                .run(&(a_law(), prop::collection::vec(step(), 1..60)), |(law, steps)| {
                    handle.block_on(a_case(&counters, &law, &steps)).map_err(TestCaseError::fail)
                })
                .unwrap();
        };
        crate::base::task::blocking(work).await.unwrap();
    });
}

/// Without giving back the model and the script agree on every request; with it, what remains counted is lawful.
async fn a_case(counters: &Arc<Counters>, law: &Law, steps: &[Step]) -> Result<(), String> {
    let case = CASES.fetch_add(1, Ordering::Relaxed);
    let limit = counters.limit(&format!("case{case}"), law);
    let gives_back = case.is_multiple_of(2);
    let mut now = T0 + case * 3_600_000_000;
    let mut latest: HashMap<u8, u64> = HashMap::new();
    let mut models: HashMap<u8, Model> = HashMap::new();
    let mut lawful: HashMap<u8, Vec<(u64, u64)>> = HashMap::new();
    for step in steps {
        match step {
            // Further back than anything is remembered, what was counted is nonsense: see above.
            Step::Pass { micros } => {
                let earliest = latest.values().max().map_or(0, |at| at - law.bucket.unwrap().per / 1000);
                now = now.saturating_add_signed(*micros).max(earliest);
            }
            Step::Request { key, cost, is_given_back } => {
                at(counters, now);
                let ask = Ask { limit: &limit, key: SharedKey::new("case", &[*key]), cost: *cost };
                let answer = counters.take(&[ask]).await.map_err(|failure| failure.to_string())?;
                // Time never runs backwards for who was counted.
                let counted_at = latest.get(key).copied().unwrap_or(0).max(now);
                if answer.admitted {
                    latest.insert(*key, counted_at);
                }
                if gives_back {
                    if answer.admitted && *is_given_back {
                        give_back_now(counters, &ask, answer.standings[0].as_ref().unwrap().receipt).await;
                    } else if answer.admitted {
                        lawful.entry(*key).or_default().push((counted_at, *cost));
                    }
                    continue;
                }
                let expected = models.entry(*key).or_default().admits(law, *cost, now);
                if answer.admitted != expected {
                    return Err(format!(
                        "{step:?} at {now}: {answer:?}, but {expected} by {:?}",
                        models[key]
                    ));
                }
                if answer.admitted {
                    lawful.entry(*key).or_default().push((counted_at, *cost));
                }
            }
        }
    }
    for admitted in lawful.values() {
        is_lawful(law, admitted)?;
    }
    Ok(())
}

async fn give_back_now(counters: &Arc<Counters>, ask: &Ask<'_>, receipt: super::Receipt) {
    let before = crate::base::task::running();
    counters.give_back(ask, receipt);
    // The next question is sent after it, over the same connection, once its task has run.
    while crate::base::task::running() > before {
        tokio::task::yield_now().await;
    }
}

// --- several instances ---------------------------------------------------------------------------------------------

struct Load {
    admitted: u64,
    first: u64,
    last: u64,
    seconds: f64,
}

/// 64 clients at full speed for `how_long`, spread over `instances`.
async fn load(instances: &[Arc<Cluster>], name: &str, law: &Law, how_long: Duration) -> Load {
    let (stop, admitted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (first, last) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicU64::new(0)));
    let began = clock::now();
    let mut clients = Vec::new();
    for client in 0..64 {
        let counters = instances[client % instances.len()].counters().clone();
        let limit = counters.limit(name, law);
        let (stop, admitted, first, last) = (stop.clone(), admitted.clone(), first.clone(), last.clone());
        clients.push(crate::base::task::spawn("client", async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = take(&counters, &limit, "everybody").await.unwrap();
                let moment = answer.standings[0].as_ref().unwrap().receipt.at;
                first.fetch_min(moment, Ordering::Relaxed);
                last.fetch_max(moment, Ordering::Relaxed);
                admitted.fetch_add(u64::from(answer.admitted), Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }));
    }
    tokio::time::sleep(how_long).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let seconds = clock::now().saturating_duration_since(began).as_secs_f64();
    let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
    Load { admitted: read(&admitted), first: read(&first), last: read(&last), seconds }
}

#[test]
fn three_instances_keep_one_law() {
    let server = Server::start();
    run(async {
        let instances = [server.instance().await, server.instance().await, server.instance().await];
        let load = load(&instances, "exact", &bucket(100, SECOND, 20), Duration::from_secs(4)).await;
        // By Redis's clock, from the first question to the last.
        let law = 20 + (load.last - load.first) * 100 / 1_000_000;
        println!("admitted {}, by the law {law}, in {:.2} s", load.admitted, load.seconds);
        assert!(load.admitted.abs_diff(law) <= 1, "{} instead of {law}", load.admitted);
    });
}

#[test]
fn batches_stay_within_their_bound() {
    let server = Server::start();
    run(async {
        let instances = [server.instance().await, server.instance().await, server.instance().await];
        let law = bucket(2000, SECOND, 100);
        let limit = instances[0].counters().limit("leased", &law);
        assert_eq!(limit.batch_max(), 20);
        let load = load(&instances, "leased", &law, Duration::from_secs(3)).await;
        let most = 100.0 + 2000.0 * load.seconds + 3.0 * 20.0;
        let asked = evalsha_calls(&server);
        println!(
            "admitted {} of at most {most:.0} in {:.2} s, asked {asked} times",
            load.admitted, load.seconds
        );
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let admitted = load.admitted as f64;
        assert!(admitted <= most, "{admitted} of at most {most}");
        assert!(admitted >= 2000.0 * load.seconds * 0.7, "{admitted} in {} s", load.seconds);
        assert!(asked * 2 < load.admitted, "{asked} round trips for {} requests", load.admitted);
    });
}

fn evalsha_calls(server: &Server) -> u64 {
    let stats: String = server.ask(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap_or("0");
    line.split(',').next().unwrap().parse().unwrap()
}

#[test]
fn what_nobody_used_of_a_batch_is_given_back() {
    let server = Server::start();
    run(async {
        let mut settings = server.settings();
        settings.lease = Duration::from_millis(50);
        let cluster = started(settings).await;
        let counters = cluster.counters();
        let law = Law {
            bucket: Some(BucketLaw { count: 2000, per: SECOND, burst: 2000, queue: 0 }),
            windows: smallvec![WindowLaw { count: 1_000_000, per: 60 * MINUTE }],
        };
        let limit = counters.limit("quiet", &law);
        // Batches grow while they are used up at once.
        let mut admitted_count = 0_u64;
        for _ in 0..200 {
            admitted_count += u64::from(admitted(counters, &limit, "a").await);
        }
        assert_eq!(admitted_count, 200);
        assert!(evalsha_calls(&server) < 100);
        let name = limit.key(key("a"));
        eventually("all but what was used is given back", || {
            let ring: String = server.ask(&["HGET", &name, "3600000000"]);
            let counts = ring.rsplit(' ').next().unwrap();
            counts.split(',').map(|count| count.parse::<u64>().unwrap()).sum::<u64>() == 200
        })
        .await;
    });
}

/// Where a batch refuses, the others are neither asked nor counted.
#[test]
fn a_refusal_from_a_batch_is_the_answer() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        let counters = cluster.counters();
        let leased = counters.limit("leased", &bucket(2000, SECOND, 1));
        let slow = counters.limit("slow", &bucket(1, MINUTE, 5));
        at(counters, T0);
        let ask = |limit| Ask { limit, key: key("a"), cost: 1 };
        assert!(counters.take(&[ask(&slow), ask(&leased)]).await.unwrap().admitted);
        for _ in 0..20 {
            let refused = counters.take(&[ask(&slow), ask(&leased)]).await.unwrap();
            assert!(!refused.admitted && refused.standings[0].is_none());
            let standing = refused.standings[1].as_ref().unwrap();
            assert!(!standing.admitted && standing.rooms[0].wait <= SECOND / 2000, "{standing:?}");
        }
        let rest = counters.take(&[ask(&slow)]).await.unwrap();
        assert_eq!(rest.standings[0].as_ref().unwrap().rooms[0].left, 4);
    });
}

/// A request from a batch that has ended and does not count is given back where it was counted, not to the batch.
#[test]
fn what_ended_does_not_come_back_into_a_batch() {
    let server = Server::start();
    run(async {
        let mut settings = server.settings();
        // Held for ten minutes: nothing comes back by itself.
        settings.lease = Duration::from_secs(60);
        let cluster = started(settings).await;
        let counters = cluster.counters();
        let law = Law {
            bucket: Some(BucketLaw { count: 2000, per: SECOND, burst: 2000, queue: 0 }),
            windows: smallvec![WindowLaw { count: 1_000_000, per: 60 * MINUTE }],
        };
        let limit = counters.limit("ended", &law);
        let receipt = take(counters, &limit, "a").await.unwrap().standings[0].as_ref().unwrap().receipt;
        assert!(receipt.leased);
        counters.give_back(&Ask { limit: &limit, key: key("a"), cost: 1 }, receipt);
        let name = limit.key(key("a"));
        eventually("it is given back", || {
            let ring: String = server.ask(&["HGET", &name, "3600000000"]);
            let counts = ring.rsplit(' ').next().unwrap();
            counts.split(',').map(|count| count.parse::<u64>().unwrap()).sum::<u64>() == 0
        })
        .await;
    });
}

/// A key with few requests is counted one by one: a batch does not wait for it.
#[test]
fn few_requests_take_no_batches() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        let counters = cluster.counters();
        let limit = counters.limit("slow", &bucket(5000, SECOND, 5000));
        for _ in 0..3 {
            assert!(admitted(counters, &limit, "a").await);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        // The first found no script there.
        assert_eq!(evalsha_calls(&server), 3);
    });
}
