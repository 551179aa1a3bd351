//! Limits of several instances, as requests meet them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::super::{
    BucketRule, Cost, Facts, Key, Limits, Live, Met, Modes, Networks, OnStoreFailure, Part, RateLimit, Rules,
    Settings, Skip, WindowRule, is_pending, settle,
};
use crate::base::clock;
use crate::base::origin::Origin;
use crate::base::reason::Reason;
use crate::cluster::Cluster;
use crate::cluster::testing::{Server, cluster, eventually, run, settings as of, started};
use crate::telemetry::metrics::Metrics;

const SECOND: u64 = 1_000_000_000;

fn settings(count: u64, per: u64, burst: u64) -> Settings {
    let bucket = Some(BucketRule { count, per: per * SECOND, burst, queue: 0 });
    Settings {
        name: "shared".into(),
        origin: Origin::Default,
        key: Key::new([Part::Ip], 56),
        rules: Rules { generation: 1, bucket, ..Rules::default() },
        cost: Cost::Fixed(1),
        skip: Skip::default(),
        allow: Networks::default(),
        allow_consumers: Box::default(),
        modes: Modes::default(),
        message: None,
        status: 429,
        keys_max: 1000,
        on_store_failure: OnStoreFailure::Local,
    }
}

/// The limit at one instance.
fn at(cluster: &Arc<Cluster>, settings: Settings) -> Arc<RateLimit> {
    let metrics = Metrics::new().limit("shared");
    RateLimit::new(settings, &Live::default(), Some(cluster.counters()), metrics)
}

/// One request: what it was told, and why it was refused.
async fn request(limits: &[&Arc<RateLimit>], client: u32) -> (Vec<Met>, Option<Reason>) {
    let limits = Limits(limits.iter().map(|limit| (*limit).clone()).collect());
    let mut met = Vec::new();
    let refused = limits.check(&Facts::of(IpAddr::V4(client.into())), clock::now(), &mut met);
    if let Some(refused) = refused {
        return (met, Some(refused.reason));
    }
    let refused = settle(&mut met).await.map(|problem| problem.reason);
    assert!(!is_pending(&met));
    (met, refused)
}

async fn reason(limit: &Arc<RateLimit>, client: u32) -> Option<Reason> {
    let (mut met, refused) = request(&[limit], client).await;
    met.iter_mut().for_each(|met| met.ended(Some(200)));
    refused
}

#[test]
fn what_one_instance_lets_pass_the_other_knows() {
    let server = Server::start();
    run(async {
        let (one, two) = (server.instance().await, server.instance().await);
        let (one, two) = (at(&one, settings(1, 3600, 4)), at(&two, settings(1, 3600, 4)));
        for _ in 0..2 {
            assert_eq!(reason(&one, 1).await, None);
            assert_eq!(reason(&two, 1).await, None);
        }
        for limit in [&one, &two] {
            let (met, refused) = request(&[limit], 1).await;
            assert_eq!(refused, Some(Reason::RateLimited));
            let standing = met[0].standing.as_ref().unwrap();
            assert!(standing.rooms[0].left == 0 && standing.rooms[0].wait > 3000 * SECOND, "{standing:?}");
            assert_eq!(reason(limit, 2).await, None, "another client");
        }
    });
}

/// What this instance alone knows to be too much is not asked about.
#[test]
fn who_is_over_the_limit_here_costs_no_round_trip() {
    let server = Server::start();
    run(async {
        let instance = server.instance().await;
        let limit = at(&instance, settings(1, 3600, 2));
        for _ in 0..2 {
            assert_eq!(reason(&limit, 1).await, None);
        }
        let calls = || {
            server
                .ask::<String>(&["INFO", "commandstats"])
                .lines()
                .filter(|line| line.starts_with("cmdstat_evalsha:"))
                .map(|line| line.split([':', ',']).nth(1).unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let before = calls();
        for _ in 0..50 {
            assert_eq!(reason(&limit, 1).await, Some(Reason::RateLimited));
        }
        assert_eq!(calls(), before);
    });
}

/// What others have used up counts neither there nor here.
#[test]
fn a_refusal_elsewhere_is_not_counted_here() {
    let server = Server::start();
    run(async {
        let (one, two) = (server.instance().await, server.instance().await);
        let (one, two) = (at(&one, settings(1, 3600, 3)), at(&two, settings(1, 3600, 3)));
        for _ in 0..3 {
            assert_eq!(reason(&one, 1).await, None);
        }
        for _ in 0..20 {
            assert_eq!(reason(&two, 1).await, Some(Reason::RateLimited));
        }
        // The counters of all instances are gone: this one alone has let nothing through.
        let () = server.ask(&["FLUSHALL"]);
        for _ in 0..3 {
            assert_eq!(reason(&two, 1).await, None);
        }
        assert_eq!(reason(&two, 1).await, Some(Reason::RateLimited));
    });
}

#[test]
fn two_limits_are_one_question() {
    let server = Server::start();
    run(async {
        let instance = server.instance().await;
        let wide = at(&instance, settings(100, 1, 100));
        let narrow = at(&instance, Settings { name: "narrow".into(), ..settings(1, 3600, 2) });
        for _ in 0..2 {
            assert_eq!(request(&[&wide, &narrow], 1).await.1, None);
        }
        assert_eq!(request(&[&wide, &narrow], 1).await.1, Some(Reason::RateLimited));
        let stats: String = server.ask(&["INFO", "commandstats"]);
        assert!(stats.contains("cmdstat_evalsha:calls=2,"), "{stats}");
    });
}

/// A limit that is counted in batches refuses: it is the one that is named, with its own time, and others count nothing.
#[test]
fn a_refusal_from_a_batch_names_its_limit() {
    let server = Server::start();
    run(async {
        let (one, two) = (server.instance().await, server.instance().await);
        let fast = || {
            let mut fast = Settings { name: "fast".into(), ..settings(2000, 1, 2000) };
            fast.rules.windows.push(WindowRule { count: 5, per: 3600 * SECOND });
            fast
        };
        let used_up = at(&one, fast());
        for _ in 0..5 {
            assert_eq!(reason(&used_up, 1).await, None);
        }
        let (slow, fast) = (at(&two, settings(1, 60, 3)), at(&two, fast()));
        for _ in 0..10 {
            let (met, refused) = request(&[&slow, &fast], 1).await;
            assert_eq!(refused, Some(Reason::RateLimited));
            let problem = met.iter().find_map(Met::refusal).unwrap();
            let wait = problem.retry_after_seconds().unwrap();
            assert!((1..=4000).contains(&wait), "{wait} s");
            assert_eq!(problem.quota.unwrap().violated, vec![Box::from("fast/h")]);
        }
        for _ in 0..3 {
            assert_eq!(reason(&slow, 1).await, None);
        }
    });
}

#[test]
fn without_redis_each_does_as_it_says() {
    let mut server = Server::start();
    run(async {
        let instance = server.instance().await;
        let limit = |on_store_failure, name: &str| {
            at(&instance, Settings { on_store_failure, name: name.into(), ..settings(1, 3600, 2) })
        };
        let local = limit(OnStoreFailure::Local, "local");
        let allow = limit(OnStoreFailure::Allow, "allow");
        let deny = limit(OnStoreFailure::Deny, "deny");
        for limit in [&local, &allow, &deny] {
            assert_eq!(reason(limit, 1).await, None);
        }
        server.kill();
        eventually("it is known", || !instance.counters().is_up()).await;
        // One was let through by this instance already.
        assert_eq!(reason(&local, 1).await, None);
        assert_eq!(reason(&local, 1).await, Some(Reason::RateLimited));
        for _ in 0..5 {
            assert_eq!(reason(&allow, 1).await, None);
        }
        assert_eq!(reason(&deny, 1).await, Some(Reason::LimitUnavailable));
        assert_eq!(reason(&deny, 1).await, Some(Reason::LimitUnavailable));
        server.restart();
        eventually("it is back", || instance.counters().is_up()).await;
        assert_eq!(reason(&deny, 1).await, None);
    });
}

/// It counts for itself from the first request on.
#[test]
fn a_redis_that_never_was_there() {
    run(async {
        let instance = cluster(of("redis://127.0.0.1:1"));
        let limit = at(&instance, settings(1, 3600, 2));
        let passed = {
            let mut passed = 0;
            for _ in 0..5 {
                passed += u32::from(reason(&limit, 1).await.is_none());
            }
            passed
        };
        assert_eq!(passed, 2);
    });
}

/// A login that succeeds does not count, at no instance.
#[test]
fn what_is_skipped_is_given_back_everywhere() {
    let server = Server::start();
    run(async {
        let (one, two) = (server.instance().await, server.instance().await);
        let logins = || {
            // What has drained meanwhile is not given back: the shortest window is one that hardly matters.
            let mut settings = settings(100, 1, 100);
            settings.rules.windows = [WindowRule { count: 2, per: 36_000 * SECOND }].into_iter().collect();
            settings.rules.counted_at_end = true;
            Settings { skip: Skip { successful: true, failed: false }, ..settings }
        };
        let (one, two) = (at(&one, logins()), at(&two, logins()));
        for _ in 0..5 {
            let (mut met, refused) = request(&[&one], 1).await;
            assert_eq!(refused, None);
            met.iter_mut().for_each(|met| met.ended(Some(200)));
            let stats = || server.ask::<Vec<String>>(&["KEYS", "test:limit:*"]);
            eventually("it is given back", || {
                stats().iter().all(|key| {
                    server
                        .ask::<String>(&["HGET", key, "36000000000"])
                        .split([' ', ','])
                        .skip(2)
                        .all(|count| count == "0")
                })
            })
            .await;
        }
        for limit in [&one, &two] {
            let (mut met, refused) = request(&[limit], 1).await;
            assert_eq!(refused, None);
            met.iter_mut().for_each(|met| met.ended(Some(401)));
        }
        for limit in [&one, &two] {
            assert_eq!(request(&[limit], 1).await.1, Some(Reason::RateLimited));
        }
    });
}

/// What came of a request, and who said so.
enum Came {
    Passed,
    /// This instance alone knew that it was too much.
    TooMuchHere,
    /// All instances together.
    TooMuch,
}

async fn came(limit: &Arc<RateLimit>, client: u32) -> Came {
    let limits = Limits(vec![limit.clone()]);
    let mut met = Vec::new();
    let here = limits.check(&Facts::of(IpAddr::V4(client.into())), clock::now(), &mut met);
    let all = if here.is_none() { settle(&mut met).await } else { None };
    met.iter_mut().for_each(|met| met.ended(Some(200)));
    match (here, all) {
        (None, None) => Came::Passed,
        (None, Some(_)) => Came::TooMuch,
        (Some(_), _) => Came::TooMuchHere,
    }
}

/// 64 clients at full speed over three instances, as requests meet the limit: within one of the law.
///
/// Whenever Redis refuses, all that the law allows until then has passed. So the law is counted from the first to the last time
/// that it did: what nobody asked for, at the beginning and at the end, was not refused to anybody. Nor is what gathers beyond a
/// burst while nobody is answered, which happens where the machine is busy with other things.
#[test]
fn three_instances_let_pass_what_one_would() {
    let server = Server::start();
    run(async {
        let mut limits = Vec::new();
        for _ in 0..3 {
            limits.push(at(&started(server.settings()).await, settings(100, 1, 20)));
        }
        let (stop, passed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let began = clock::now();
        let micros =
            move || u64::try_from(clock::now().saturating_duration_since(began).as_micros()).unwrap();
        let refused = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let mut clients = Vec::new();
        for client in 0..64 {
            let (limit, stop, passed) = (limits[client % 3].clone(), stop.clone(), passed.clone());
            let all_refused = refused.clone();
            clients.push(crate::base::task::spawn("client", async move {
                // Between which two moments Redis refused.
                let mut refused = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let from = micros();
                    match came(&limit, 7).await {
                        Came::Passed => {
                            passed.fetch_add(1, Ordering::Relaxed);
                        }
                        Came::TooMuch => refused.push((from, micros())),
                        Came::TooMuchHere => {}
                    }
                    tokio::task::yield_now().await;
                }
                all_refused.lock().extend(refused);
            }));
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }
        let mut refused = std::mem::take(&mut *refused.lock());
        let most = 20 + micros() * 100 / 1_000_000;
        let passed = passed.load(Ordering::Relaxed);
        refused.sort_unstable_by_key(|(_, to)| *to);
        let first = refused[0].1;
        // One after the other, each asked when the one before had its answer. A bucket that refuses is empty after that.
        let empties = 190_000;
        let (mut at, mut silence) = (refused[0], 0);
        for next in refused {
            if next.0 >= at.1 {
                silence += (next.1 - at.0).saturating_sub(empties);
                at = next;
            }
        }
        let last = at.0;
        let unasked = (silence * 100).div_ceil(1_000_000);
        let least = 20 + last.saturating_sub(first) * 100 / 1_000_000;
        println!(
            "passed {passed}, by the law {least} to {most}, of which up to {unasked} may have come to nobody"
        );
        assert!(last.saturating_sub(first) > 3_000_000 && unasked < least / 2, "too little was asked");
        assert!(passed + unasked + 1 >= least && passed <= most, "{passed} is not within {least} and {most}");
    });
}
