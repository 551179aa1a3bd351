//! A process that shares over Redis: started with and without it, told of it, kept over reloads.

use edgeward::identity::directory::hash_key;
use edgeward::store::{NewKey, Store, StoreUrl};

use crate::support::*;

/// A gateway that shares over the Redis at `url`. A machine that is busy with other tests is not to look like a slow Redis.
fn sharing(url: &str) -> GatewayBuilder {
    gateway(&format!(
        "[server]\ncontrol_socket = \"run/control.sock\"\n[cluster]\nredis = \"{url}\"\ntimeout = \"2s\"\n\
         [[routes]]\npath = \"/*\"\nrespond = {{ text = \"ok\" }}\n"
    ))
}

/// The line about it in the report of readiness, once it begins with `sign`; the process is ready in any case.
async fn reported(gw: &Gateway, sign: &str) -> String {
    eventually("the report says so", async || {
        let report = gw.admin().get("/readyz?verbose").await;
        assert_eq!(report.status, 200);
        let text = report.text();
        let line = text.lines().find(|line| line.starts_with(&format!("[{sign}] cluster: ")))?;
        Some(line.to_owned())
    })
    .await
}

#[tokio::test]
async fn a_redis_that_comes_goes_and_comes_back() {
    let mut redis = Redis::start().await;
    redis.kill();
    let gw = sharing(&redis.url()).start().await;
    assert_eq!(gw.get("/").await.text(), "ok");
    assert!(reported(&gw, "-").await.contains("away for"));
    gw.metric_is("edgeward_cluster_up", &[], 0.0).await;
    for _ in 0..2 {
        redis.again().await;
        let line = reported(&gw, "+").await;
        assert!(line.contains(&redis.url()) && line.contains("up for"), "{line}");
        gw.metric_is("edgeward_cluster_up", &[], 1.0).await;
        redis.kill();
        reported(&gw, "-").await;
    }
    gw.stop().await;
}

#[tokio::test]
async fn a_reload_keeps_it_and_cannot_change_it() {
    let redis = Redis::start().await;
    let gw = sharing(&redis.url()).start().await;
    reported(&gw, "+").await;
    gw.rewrite("edgeward.toml", |text| text.replace("\"ok\"", "\"other\""));
    let ran = gw.order("reload").await;
    assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(gw.get("/").await.text(), "other");
    reported(&gw, "+").await;
    gw.rewrite("edgeward.toml", |text| text.replace("redis://", "redis://:secret@"));
    let ran = gw.order("reload").await;
    let said = ran.stdout + &ran.stderr;
    assert!(ran.status == 1 && said.contains("needs an upgrade: cluster.redis was"), "{said}");
    assert!(!said.contains("secret"), "{said}");
    gw.stop().await;
}

/// A gateway that limits each address, together with all others at the Redis of `url`.
fn limiting(url: &str, limit: &str) -> GatewayBuilder {
    sharing(url).and(&format!(
        "[rate_limits.shared]\nkey = \"ip\"\n{limit}\n[defaults]\nrate_limits = [\"shared\"]\n"
    ))
}

#[tokio::test]
async fn instances_count_together() {
    let redis = Redis::start().await;
    let limit = "limits = [\"4/h\"]";
    let (one, two) = (limiting(&redis.url(), limit), limiting(&redis.url(), limit));
    let (one, two) = (one.start().await, two.start().await);
    for gw in [&one, &two] {
        reported(gw, "+").await;
    }
    for left in [3, 1] {
        let first = one.get("/").await.expect_status(200);
        assert!(
            first.header("ratelimit").unwrap().starts_with(&format!("\"shared\";r={left};")),
            "{first:?}"
        );
        two.get("/").await.expect_status(200);
    }
    for gw in [&one, &two] {
        let refused = gw.get("/").await.expect_problem(429, "limit.exceeded");
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((880..=900).contains(&wait), "{wait}");
    }
    // Also what no route takes, and what is refused for another reason, counts for its address.
    assert_eq!(one.get("/absent").await.status, 429);
    // `explain` asks Redis through the running process, and counts nothing.
    for (gw, client, left) in [(&one, "127.0.0.1", 0), (&two, "127.0.0.1", 0), (&two, "192.0.2.1", 4)] {
        let told = gw.ran(&["explain", "--client", client, "GET", "http://localhost/"]).await.stdout;
        assert!(told.contains("counted by all instances together, over Redis\n"), "{told}");
        assert!(told.contains(&format!("left: {left} of 4 (4/h")), "{told}");
    }
}

#[tokio::test]
async fn without_redis_a_limit_does_as_it_says() {
    let mut redis = Redis::start().await;
    for (word, answers) in [("local", [200, 429]), ("allow", [200, 200]), ("deny", [503, 503])] {
        let limit = format!("limits = [\"2/h\"]\non_store_failure = \"{word}\"");
        let gw = limiting(&redis.url(), &limit).start().await;
        reported(&gw, "+").await;
        gw.get("/").await.expect_status(200);
        redis.kill();
        reported(&gw, "-").await;
        // One was let through by this instance already.
        for status in answers {
            assert_eq!(gw.get("/").await.status, status, "{word}");
        }
        redis.again().await;
        gw.stop().await;
    }
}

/// 64 clients at full speed over three processes: within one of what a single one would let pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_keep_one_law() {
    held_to_the_law(100, 20, 0).await;
}

/// The same where permits are taken in batches of a hundredth of a second: each process may be ahead by one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_in_batches_keep_the_law_within_a_batch_each() {
    held_to_the_law(1200, 100, 3 * 12).await;
}

async fn held_to_the_law(rate: u64, burst: u64, slack: u64) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    let redis = Redis::start().await;
    let mut gateways = Vec::new();
    for _ in 0..3 {
        let limit = format!("limits = [\"{rate}/s\"]\nburst = {burst}");
        gateways.push(limiting(&redis.url(), &limit).start().await);
    }
    for gw in &gateways {
        reported(gw, "+").await;
    }
    let began = Instant::now();
    let micros = move || u64::try_from(began.elapsed().as_micros()).unwrap();
    let (passed, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    // When the first request had its answer, and the last one began; and what went by while nobody asked, beyond the time
    // in which a burst comes together: a machine that is busy with other tests may keep all clients waiting.
    let (first, last) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicU64::new(0)));
    let lost = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..64)
        .map(|number| {
            let client = gateways[number % 3].client();
            let (passed, refused) = (passed.clone(), refused.clone());
            let (first, last, lost) = (first.clone(), last.clone(), lost.clone());
            tokio::spawn(async move {
                let connection = client.connect().await;
                while began.elapsed() < Duration::from_secs(3) {
                    let now = micros();
                    let before = last.fetch_max(now, Ordering::Relaxed);
                    let silence = now.saturating_sub(if before == 0 { now } else { before });
                    lost.fetch_add(silence.saturating_sub(burst * 1_000_000 / rate), Ordering::Relaxed);
                    let answer = connection.get("/").await;
                    first.fetch_min(micros(), Ordering::Relaxed);
                    match answer.status {
                        200 => passed.fetch_add(1, Ordering::Relaxed),
                        429 => refused.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{other}"),
                    };
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let law = |micros: u64| burst + micros * rate / 1_000_000;
    let most = law(micros()) + slack;
    let lost = lost.load(Ordering::Relaxed) * rate / 1_000_000;
    let least =
        law(last.load(Ordering::Relaxed) - first.load(Ordering::Relaxed)).saturating_sub(slack + lost + 1);
    let (passed, refused) = (passed.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    assert!(passed <= most, "{passed} are more than {most}");
    // Clients that were too slow to meet the limit say nothing about its lower side.
    assert!(refused == 0 || passed >= least, "{passed} are fewer than {least}");
}

const KEYS: &str = "[store]\nurl = \"sqlite:keys.db\"\n[[routes]]\npath = \"/keys\"\nrespond = {}\n\
    auth = { with = [\"api_key\"] }\n";

/// What is revoked in the store of one instance holds at none, though the store of the other knows nothing of it: at once,
/// after a restart, and when it was missed.
#[tokio::test]
async fn keys_and_consumers_end_at_all_instances() {
    let mut redis = Redis::start().await;
    let (one, mut two) =
        (sharing(&redis.url()).and(KEYS).start().await, sharing(&redis.url()).and(KEYS).start().await);
    let owners =
        [("ew_first", "partner"), ("ew_second", "partner"), ("ew_third", "other"), ("ew_fourth", "partner")];
    for gw in [&one, &two] {
        reported(gw, "+").await;
        let store = Store::new(StoreUrl::Sqlite(gw.directory().join("keys.db")));
        for consumer in ["partner", "other"] {
            store.add_consumer(consumer, &[], None, 1).await.unwrap();
        }
        for (id, consumer) in owners {
            let hash = hash_key(&format!("{id}_whole"));
            store
                .add_key(&NewKey { id, consumer, hash: &hash, expires_at: None, plan: None }, 1)
                .await
                .unwrap();
        }
    }
    let show = async |gw: &Gateway, id: &str| {
        gw.get("/keys").header("x-api-key", &format!("{id}_whole")).await.status
    };
    let comes_to = async |gw: &Gateway, id: &str, status: u16| {
        let what = format!("{id} gets {status}");
        eventually(&what, async || (show(gw, id).await == status).then_some(())).await;
    };
    for (id, _) in owners {
        for gw in [&one, &two] {
            comes_to(gw, id, 200).await;
        }
    }
    let edgeward = async |arguments: &[&str]| {
        let ran = run(command(&one.directory(), &[arguments, &["-c", "edgeward.toml"]].concat())).await;
        assert_eq!(ran.status, 0, "{}", ran.stderr);
    };

    edgeward(&["key", "revoke", "ew_first"]).await;
    let began = std::time::Instant::now();
    assert_eq!(show(&one, "ew_first").await, 401);
    comes_to(&two, "ew_first", 401).await;
    assert!(began.elapsed() < std::time::Duration::from_secs(1), "{:?}", began.elapsed());
    edgeward(&["consumer", "remove", "other"]).await;
    comes_to(&two, "ew_third", 401).await;
    assert_eq!(show(&two, "ew_second").await, 200);

    // Who starts later knows from its first request on.
    assert_eq!(two.order("upgrade").await.status, 0);
    assert!(two.exit().await.success());
    for (id, status) in [("ew_first", 401), ("ew_second", 200), ("ew_third", 401)] {
        assert_eq!(show(&two, id).await, status, "{id}");
    }

    // Told while Redis is away, and heard when it is back: with nothing left of what it had.
    redis.kill();
    for gw in [&one, &two] {
        reported(gw, "-").await;
    }
    edgeward(&["key", "revoke", "ew_second"]).await;
    assert_eq!((show(&one, "ew_second").await, show(&two, "ew_second").await), (401, 200));
    redis.again().await;
    comes_to(&two, "ew_second", 401).await;
    for (id, status) in [("ew_first", 401), ("ew_third", 401), ("ew_fourth", 200)] {
        assert_eq!(show(&two, id).await, status, "{id}");
    }
}
