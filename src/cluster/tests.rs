//! Redis slow, dead, back, locked, encrypted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

use super::connection::Redis;
use super::counters::{Ask, BucketLaw, Law, SharedKey};
use super::testing::{Gate, Server, cluster, eventually, run, settings, started};
use super::{Cluster, Failure};
use crate::base::{clock, task};
use crate::telemetry::metrics::ClusterMetrics;

const SECOND: u64 = 1_000_000_000;

fn law() -> Law {
    Law {
        bucket: Some(BucketLaw { count: 100, per: SECOND, burst: 100, queue: 0 }),
        windows: SmallVec::new(),
    }
}

async fn ask(cluster: &Arc<Cluster>) -> Result<bool, Failure> {
    let limit = cluster.counters().limit("x", &law());
    let key = SharedKey::new("ip/56", b"192.0.2.1");
    let answer = cluster.counters().take(&[Ask { limit: &limit, key, cost: 1 }]).await?;
    Ok(answer.admitted)
}

#[test]
fn a_redis_that_is_not_there_costs_nothing() {
    run(async {
        // Nobody listens there.
        let cluster = cluster(settings("redis://127.0.0.1:1"));
        assert_eq!(ask(&cluster).await, Err(Failure::Down));
        cluster.start(Arc::new(|_| {}));
        eventually("it is known to be away", || cluster.status().1.contains("away")).await;
        let began = clock::now();
        for _ in 0..1000 {
            assert_eq!(ask(&cluster).await, Err(Failure::Down));
        }
        // By a wide margin less than one time-out of 5 s.
        assert!(clock::now().saturating_duration_since(began) < Duration::from_secs(3));
        assert!(!cluster.ready(Duration::from_millis(10)).await);
    });
}

#[test]
fn a_slow_redis_is_waited_for_briefly_then_not_at_all_until_it_is_quick_again() {
    let server = Server::start();
    run(async {
        let mut settings = server.settings();
        settings.timeout = Duration::from_millis(200);
        let cluster = started(settings).await;
        assert_eq!(ask(&cluster).await, Ok(true));
        server.pause(Duration::from_secs(4));
        let began = clock::now();
        let mut failures = Vec::new();
        while failures.last() != Some(&Failure::Down) {
            failures.push(ask(&cluster).await.expect_err("Redis is paused"));
        }
        let took = clock::now().saturating_duration_since(began);
        assert!(
            failures.len() <= 4 && failures[..failures.len() - 1].iter().all(|one| *one == Failure::Slow),
            "{failures:?}"
        );
        assert!(took < Duration::from_millis(1500), "{took:?} for {failures:?}");
        assert!(!cluster.counters().is_up() && cluster.status().1.contains("away"), "{:?}", cluster.status());
        // By itself.
        eventually("it is asked again", || cluster.counters().is_up()).await;
        assert_eq!(ask(&cluster).await, Ok(true));
    });
}

/// What came late over a connection that was given up since says nothing about the next one.
#[test]
fn an_answer_of_the_last_connection_does_not_end_the_next() {
    let server = Server::start();
    run(async {
        let cluster = started(server.settings()).await;
        let ping = redis::cmd("PING");
        let link = async || {
            let answer = cluster.redis.call(&ping, Duration::from_secs(5)).await;
            answer.map(|answer| answer.link)
        };
        let first = link().await.unwrap();
        cluster.redis.distrust(first);
        let second = loop {
            match link().await {
                Ok(second) => break second,
                Err(failure) => assert_eq!(failure, Failure::Down),
            }
            tokio::task::yield_now().await;
        };
        assert_ne!(second, first);
        cluster.redis.distrust(first);
        assert_eq!(link().await, Ok(second));
        assert!(cluster.status().0, "{:?}", cluster.status());
    });
}

#[test]
fn a_redis_killed_and_started_again_under_load() {
    let mut server = Server::start();
    run(async {
        let mut settings = server.settings();
        settings.timeout = Duration::from_millis(500);
        let instances = [started(settings.clone()).await, started(settings).await];
        let stop = Arc::new(AtomicBool::new(false));
        let (answered, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut clients = Vec::new();
        for client in 0..16 {
            let (cluster, stop) = (instances[client % 2].clone(), stop.clone());
            let (answered, failed) = (answered.clone(), failed.clone());
            clients.push(crate::base::task::spawn("client", async move {
                while !stop.load(Ordering::Relaxed) {
                    let counted = if ask(&cluster).await.is_ok() { &answered } else { &failed };
                    counted.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            }));
        }
        for _ in 0..2 {
            let so_far = answered.load(Ordering::Relaxed);
            eventually("it answers", || answered.load(Ordering::Relaxed) > so_far + 100).await;
            server.kill();
            let so_far = failed.load(Ordering::Relaxed);
            eventually("it does not", || failed.load(Ordering::Relaxed) > so_far + 100).await;
            server.restart();
        }
        let so_far = answered.load(Ordering::Relaxed);
        eventually("it answers again", || answered.load(Ordering::Relaxed) > so_far + 100).await;
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }
    });
}

#[test]
fn what_answers_something_else_is_not_redis() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(crate::base::task::spawn("web", async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                drop(crate::base::task::spawn("web", async move {
                    use tokio::io::{AsyncReadExt, AsyncWriteExt};
                    let mut request = [0; 512];
                    while stream.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
                        if stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.is_err() {
                            break;
                        }
                    }
                }));
            }
        }));
        let cluster = cluster(settings(&format!("redis://127.0.0.1:{port}")));
        cluster.start(Arc::new(|_| {}));
        eventually("it is known", || cluster.status().1.contains("away")).await;
        assert_eq!(ask(&cluster).await, Err(Failure::Down));
    });
}

#[test]
fn more_calls_than_can_be_answered_are_turned_away() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        server.pause(Duration::from_secs(1));
        let calls = (0..1200).map(|_| ask(&cluster));
        let answers = futures_util::future::join_all(calls).await;
        let busy = answers.iter().filter(|answer| **answer == Err(Failure::Busy)).count();
        let answered = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!((170..=180).contains(&busy), "{busy} turned away");
        assert_eq!(busy + answered, 1200);
    });
}

#[test]
fn a_password_is_sent_and_never_shown() {
    let server = Server::start();
    let () = server.ask(&["CONFIG", "SET", "requirepass", "s3cret"]);
    run(async {
        let right = started(settings(&format!("redis://:s3cret@127.0.0.1:{}", server.port))).await;
        assert_eq!(ask(&right).await, Ok(true));
        assert!(!format!("{right:?} {:?}", right.status()).contains("s3cret"));
        let wrong = cluster(settings(&format!("redis://:wr0ng@127.0.0.1:{}", server.port)));
        wrong.start(Arc::new(|_| {}));
        eventually("it is refused", || wrong.status().1.contains("away")).await;
        let status = wrong.status().1;
        assert!(status.contains("WRONGPASS") || status.to_lowercase().contains("auth"), "{status}");
        assert!(!format!("{wrong:?} {status}").contains("wr0ng"), "{wrong:?}");
    });
}

#[test]
fn a_connection_with_tls_knows_whom_it_talks_to() {
    let _installed_by_another_test = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let _server = Server::with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        cert.to_str().unwrap(),
        "--tls-key-file",
        key.to_str().unwrap(),
        "--tls-auth-clients",
        "no",
    ]);
    run(async {
        let mut with_ca = settings(&format!("rediss://localhost:{port}"));
        with_ca.ca = Some(made.cert.pem().into_bytes());
        let known = started(with_ca.clone()).await;
        assert_eq!(ask(&known).await, Ok(true));
        let stranger = cluster(super::ClusterSettings { ca: None, ..with_ca });
        stranger.start(Arc::new(|_| {}));
        eventually("it is not believed", || stranger.status().1.contains("away")).await;
        assert!(stranger.status().1.to_lowercase().contains("certificate"), "{:?}", stranger.status());
    });
}

/// Instances that share nothing else do share this; other prefixes are other groups.
#[test]
fn a_prefix_is_a_group_of_instances() {
    let server = Server::start();
    run(async {
        let one = server.instance().await;
        let mut settings = server.settings();
        settings.prefix = "other:".to_owned();
        let other = started(settings).await;
        let limit = |cluster: &Arc<Cluster>| {
            let bucket = BucketLaw { count: 1, per: 3600 * SECOND, burst: 1, queue: 0 };
            cluster.counters().limit("x", &Law { bucket: Some(bucket), windows: SmallVec::new() })
        };
        for (cluster, expected) in [(&one, true), (&one, false), (&other, true)] {
            let limit = limit(cluster);
            let key = SharedKey::new("ip", b"a");
            let answer = cluster.counters().take(&[Ask { limit: &limit, key, cost: 1 }]).await.unwrap();
            assert_eq!(answer.admitted, expected);
        }
    });
}

/// It connects, and refuses what is written: as good as away, and not tried without end.
#[test]
fn a_redis_that_takes_nothing_is_away() {
    let server = Server::start();
    run(async {
        let cluster = server.instance().await;
        assert_eq!(ask(&cluster).await, Ok(true));
        let () = server.ask(&["REPLICAOF", "127.0.0.1", "1"]);
        while cluster.counters().is_up() {
            assert!(ask(&cluster).await.is_err());
        }
        eventually("it is known why", || cluster.status().1.to_lowercase().contains("read only")).await;
        assert_eq!(ask(&cluster).await, Err(Failure::Down));
        let () = server.ask(&["REPLICAOF", "NO", "ONE"]);
        eventually("it is back", || cluster.counters().is_up()).await;
        assert_eq!(ask(&cluster).await, Ok(true));
    });
}

#[test]
fn a_broken_connection_is_made_again() {
    let server = Server::start();
    run(async {
        let gate = Gate::before(&server).await;
        let cluster = started(gate.settings()).await;
        assert_eq!(ask(&cluster).await, Ok(true));
        gate.shut().await;
        // Noticed by the sign of life, without any request.
        eventually("it is known to be away", || !cluster.counters().is_up()).await;
        gate.open();
        eventually("it is back", || cluster.counters().is_up()).await;
        assert_eq!(ask(&cluster).await, Ok(true));
    });
}

#[test]
fn instances_that_lose_redis_together_do_not_come_back_in_step() {
    run(task::testing::come_back_one_by_one(|address| {
        let settings = settings(&format!("redis://{address}"));
        let redis = Redis::new(&settings, Arc::new(ClusterMetrics::default()));
        drop(task::spawn("redis", Arc::new(redis).keep()));
    }));
}
