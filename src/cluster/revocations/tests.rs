//! Revocations over a real Redis.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use super::Revocation;
use crate::base::clock::{self, unix_now};
use crate::cluster::testing::{Gate, Server, cluster, eventually, run};
use crate::cluster::{Cluster, ClusterSettings};

/// An instance that remembers what it heard.
struct Instance {
    cluster: Arc<Cluster>,
    heard: Arc<Mutex<Vec<Revocation>>>,
}

impl Instance {
    async fn new(settings: ClusterSettings) -> Self {
        let instance = Self { cluster: cluster(settings), heard: Arc::default() };
        instance.start();
        instance.listens().await;
        instance
    }

    fn start(&self) {
        let heard = self.heard.clone();
        self.cluster.start(Arc::new(move |revocation| heard.lock().push(revocation.clone())));
    }

    async fn listens(&self) {
        eventually("it follows", || self.cluster.revocations().is_heard()).await;
    }

    fn revoke(&self, id: &str) {
        self.cluster.revocations().publish(token(id)).unwrap();
    }

    fn has_heard(&self, id: &str) -> bool {
        self.heard.lock().contains(&token(id))
    }

    fn readings(&self) -> usize {
        self.cluster.revocations().readings.load(Ordering::Relaxed)
    }
}

fn token(id: &str) -> Revocation {
    Revocation::Token { provider: "local".to_owned(), id: id.to_owned(), until: 4_000_000_000 }
}

fn subject(name: &str) -> Revocation {
    let (provider, subject) = (String::new(), name.to_owned());
    Revocation::Subject { provider, subject, issued_before: 1_800_000_000, until: 4_000_000_000 }
}

#[test]
fn texts_are_read_again() {
    let key = Revocation::Key { id: "ew_a".to_owned(), ends_at: 1_800_000_000, until: 4_000_000_000 };
    let (name, until) = ("a \"b\"".to_owned(), 4_000_000_000);
    let consumer = Revocation::Consumer { name, removed_at: 1_800_000_000, until };
    for revocation in [token("a"), token("\u{1f511} \" \\"), subject("alice"), subject(""), key, consumer] {
        let until = revocation.until();
        assert_eq!(Revocation::read(revocation.text().as_bytes(), until), Some(revocation));
    }
    for wrong in [
        "",
        "{",
        "null",
        "[]",
        r#"{"token":"a"}"#,
        r#"{"token":1,"provider":""}"#,
        r#"{"token":"a","subject":"b","provider":""}"#,
        r#"{"subject":"b","provider":"","issued_before":"x"}"#,
        r#"{"subject":"b","provider":""}"#,
        r#"{"key":"a"}"#,
        r#"{"key":"a","ends_at":"1"}"#,
        r#"{"key":"a","ends_at":1,"consumer":"b","removed_at":1}"#,
        r#"{"consumer":"b"}"#,
        r#"{"consumer":1,"removed_at":1}"#,
    ] {
        assert_eq!(Revocation::read(wrong.as_bytes(), 1), None, "{wrong}");
    }
    let long = token(&"x".repeat(20_000));
    assert_eq!(Revocation::read(long.text().as_bytes(), 1), None);
}

#[test]
fn every_instance_hears_within_a_second() {
    let server = Server::start();
    run(async {
        let (one, two) = (Instance::new(server.settings()).await, Instance::new(server.settings()).await);
        let began = clock::now();
        one.revoke("a");
        two.cluster.revocations().publish(subject("alice")).unwrap();
        for instance in [&one, &two] {
            eventually("both are heard", || {
                instance.has_heard("a") && instance.heard.lock().contains(&subject("alice"))
            })
            .await;
        }
        let took = clock::now().saturating_duration_since(began);
        println!("heard after {took:?}");
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn who_starts_later_hears_what_still_matters() {
    let server = Server::start();
    run(async {
        let one = Instance::new(server.settings()).await;
        one.revoke("a");
        let over =
            Revocation::Token { provider: String::new(), id: "over".to_owned(), until: unix_now() - 4000 };
        one.cluster.revocations().publish(over).unwrap();
        one.revoke("b");
        eventually("all are sent", || one.cluster.revocations().waiting() == 0).await;
        let two = Instance::new(server.settings()).await;
        assert_eq!(two.heard.lock().clone().len(), 2);
        assert!(two.has_heard("a") && two.has_heard("b"));
        // What is over is not kept.
        assert_eq!(server.ask::<i64>(&["ZCARD", "test:revoked"]), 2);
    });
}

#[test]
fn what_was_missed_is_caught_up() {
    let server = Server::start();
    run(async {
        let gate = Gate::before(&server).await;
        let (one, two) = (Instance::new(server.settings()).await, Instance::new(gate.settings()).await);
        one.revoke("before");
        eventually("it is heard", || two.has_heard("before")).await;
        let readings = two.readings();
        gate.shut().await;
        eventually("nobody is heard", || !two.cluster.revocations().is_heard()).await;
        for number in 0..50 {
            one.revoke(&number.to_string());
        }
        two.revoke("waits");
        eventually("all are sent", || one.cluster.revocations().waiting() == 0).await;
        assert!(two.heard.lock().len() == 1 && !one.has_heard("waits"));
        gate.open();
        eventually("all are caught up", || (0..50).all(|number| two.has_heard(&number.to_string()))).await;
        eventually("what waited is told", || one.has_heard("waits")).await;
        // By the stream alone.
        assert_eq!(two.readings(), readings);
        assert_eq!(two.heard.lock().iter().filter(|one| **one == token("before")).count(), 1);
    });
}

#[test]
fn what_the_stream_no_longer_has_is_in_the_set() {
    let server = Server::start();
    run(async {
        let gate = Gate::before(&server).await;
        let (one, two) = (Instance::new(server.settings()).await, Instance::new(gate.settings()).await);
        one.revoke("before");
        eventually("it is heard", || two.has_heard("before")).await;
        gate.shut().await;
        eventually("nobody is heard", || !two.cluster.revocations().is_heard()).await;
        for number in 0..11_000 {
            one.revoke(&number.to_string());
        }
        eventually("all are sent", || one.cluster.revocations().waiting() == 0).await;
        let kept: usize = server.ask(&["XLEN", "test:revocations"]);
        assert!(kept < 10_200, "{kept}");
        let readings = two.readings();
        gate.open();
        let all = |instance: &Instance| {
            let heard = instance.heard.lock();
            let ids = heard.iter().map(|one| match one {
                Revocation::Token { id, .. } => id.clone(),
                _ => panic!("no such case"),
            });
            ids.collect::<BTreeSet<_>>().len()
        };
        eventually("all are heard", || all(&two) == 11_001).await;
        eventually("the set was read to its end", || two.readings() == readings + 1).await;
        two.listens().await;
    });
}

#[test]
fn a_redis_that_lost_everything_is_told_again() {
    let mut server = Server::start();
    run(async {
        let one = Instance::new(server.settings()).await;
        one.revoke("a");
        eventually("it is heard", || one.has_heard("a")).await;
        server.restart();
        eventually("it is there again", || server.ask::<i64>(&["ZCARD", "test:revoked"]) == 1).await;
        let two = Instance::new(server.settings()).await;
        eventually("it is heard by others", || two.has_heard("a")).await;
        // Lost while everybody is connected, too.
        let () = server.ask(&["FLUSHALL"]);
        eventually("it is told again", || server.ask::<i64>(&["ZCARD", "test:revoked"]) == 1).await;
        two.revoke("b");
        eventually("others are still heard", || one.has_heard("b")).await;
    });
}

#[test]
fn what_is_told_while_redis_is_away_waits() {
    let mut server = Server::start();
    let settings = server.settings();
    server.kill();
    run(async {
        let one = Instance { cluster: cluster(settings.clone()), heard: Arc::default() };
        one.start();
        for number in 0..300 {
            one.revoke(&number.to_string());
        }
        assert_eq!(one.cluster.revocations().waiting(), 300);
        server.restart();
        eventually("all are heard", || (0..300).all(|number| one.has_heard(&number.to_string()))).await;
        eventually("nothing waits", || one.cluster.revocations().waiting() == 0).await;
        let mut full = 0;
        let stopped = cluster(settings);
        for _ in 0..100_001 {
            full += u32::from(stopped.revocations().publish(token("x")).is_err());
        }
        assert_eq!(full, 1);
    });
}

#[test]
fn what_others_wrote_there_is_passed_over() {
    let server = Server::start();
    let _: redis::Value = server.ask(&["XADD", "test:revocations", "*", "other", "thing"]);
    let _: redis::Value = server.ask(&["ZADD", "test:revoked", "inf", "banana"]);
    let _: redis::Value =
        server.ask(&["ZADD", "test:revoked", "4000000000", r#"{"token":"kept","provider":"local"}"#]);
    run(async {
        let one = Instance::new(server.settings()).await;
        assert!(one.has_heard("kept"));
        let _: redis::Value = server.ask(&["XADD", "test:revocations", "*", "r", "{", "until", "1"]);
        let _: redis::Value = server.ask(&["XADD", "test:revocations", "*", "r", "x"]);
        one.revoke("a");
        eventually("the next is heard", || one.has_heard("a")).await;
        // What has become something else altogether is a status, and heals by itself.
        let _: redis::Value = server.ask(&["DEL", "test:revocations", "test:revoked"]);
        let _: redis::Value = server.ask(&["SET", "test:revocations", "1"]);
        eventually("it is not followed", || !one.cluster.revocations().is_heard()).await;
        one.revoke("b");
        let _: redis::Value = server.ask(&["DEL", "test:revocations"]);
        eventually("it is followed again", || one.has_heard("b")).await;
    });
}
