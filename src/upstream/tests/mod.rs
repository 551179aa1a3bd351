//! An upstream as its callers see it: no sockets but where a check needs one, no clock but the one passed in.

mod checks;
mod discovery;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http::Method;

use super::breaker::Trip;
use super::discovery::{Answer, Resolve, TTL_MIN};
use super::*;
use crate::base::reason::Reason;
use crate::telemetry::metrics::Metrics;

const SECOND: Duration = Duration::from_secs(1);

/// Answers what the test put in; anything else does not exist.
#[derive(Debug, Default)]
struct Zone(Mutex<HashMap<String, Vec<IpAddr>>>);

impl Zone {
    fn set(&self, host: &str, addresses: &[[u8; 4]]) {
        self.0.lock().insert(host.to_owned(), addresses.iter().map(|octets| IpAddr::from(*octets)).collect());
    }
}

#[async_trait]
impl Resolve for Zone {
    async fn resolve(&self, host: &str) -> Result<Answer, String> {
        let addresses = self.0.lock().get(host).cloned().ok_or("no such name")?;
        Ok(Answer { addresses, ttl: TTL_MIN })
    }
}

fn live() -> Arc<Live> {
    Live::new(Metrics::new(), Arc::new(Zone::default()))
}

fn server(text: &str) -> ServerSettings {
    ServerSettings { target: Target::parse(text, 80).unwrap(), weight: 1, backup: false }
}

fn settings(servers: &[&str]) -> Settings {
    Settings {
        name: "users".into(),
        servers: servers.iter().map(|text| server(text)).collect(),
        balance: Balance::RoundRobin,
        tls: None,
        http2: false,
        host: HostSent::Client,
        proxy_protocol: false,
        timeouts: Timeouts::default(),
        check: None,
        retry: RetryPolicy::default(),
        max_requests: 0,
        breaker: None,
        fallback: None,
    }
}

fn breaker_after(failures: u32) -> Option<BreakerSettings> {
    Some(BreakerSettings { trip: Trip::Consecutive(failures), open_for: 10 * SECOND })
}

fn upstream(settings: Settings) -> Arc<Upstream> {
    Upstream::new(settings, &live(), clock::now())
}

fn first(upstream: &Upstream, now: Instant) -> Result<Attempt, NoServer> {
    upstream.attempt(&mut Tried::default(), 0, None, now)
}

/// One request that ends so; returns the server it met.
fn request(upstream: &Upstream, outcome: Outcome, now: Instant) -> String {
    let mut attempt = first(upstream, now).expect("a server");
    attempt.finish(outcome, now);
    attempt.close(now).server.to_string()
}

fn in_flight(upstream: &Upstream) -> u32 {
    upstream.servers().iter().map(|server| server.in_flight()).sum()
}

fn states(upstream: &Upstream, now: Instant) -> Vec<&'static str> {
    upstream.status(now).servers.iter().map(|server| server.state).collect()
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}

#[test]
fn weights_share_the_requests() {
    let mut settings = settings(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    settings.servers[0].weight = 3;
    let (upstream, now) = (upstream(settings), clock::now());
    let mut counts = HashMap::<String, u32>::new();
    for _ in 0..50 {
        *counts.entry(request(&upstream, Outcome::Answered(200), now)).or_default() += 1;
    }
    assert_eq!((counts["10.0.0.1:80"], counts["10.0.0.2:80"], counts["10.0.0.3:80"]), (30, 10, 10));
}

#[test]
fn least_connections_prefers_the_idle_server() {
    let settings = Settings { balance: Balance::LeastConnections, ..settings(&["10.0.0.1", "10.0.0.2"]) };
    let (upstream, now) = (upstream(settings), clock::now());
    let slow = first(&upstream, now).unwrap();
    for _ in 0..5 {
        assert_ne!(request(&upstream, Outcome::Answered(200), now), slow.record().server.to_string());
    }
}

#[test]
fn hash_keeps_a_client_on_its_server() {
    let balance = Balance::Hash(HashSource::Header(http::HeaderName::from_static("x-user")));
    let upstream = upstream(Settings { balance, ..settings(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]) });
    let (client, now) = (IpAddr::from([192, 0, 2, 1]), clock::now());
    let mut met = std::collections::HashSet::new();
    for user in 0..50 {
        let headers =
            HeaderMap::from_iter([(http::HeaderName::from_static("x-user"), HeaderValue::from(user))]);
        let key = upstream.hash_key(client, &headers);
        let server = |_| upstream.attempt(&mut Tried::default(), key, None, now).unwrap().close(now).server;
        let servers: std::collections::HashSet<_> = (0..3).map(server).collect();
        assert_eq!(servers.len(), 1);
        met.extend(servers);
    }
    assert_eq!(met.len(), 3, "keys spread over all servers");
    assert_eq!(upstream.hash_key(client, &HeaderMap::new()), ring::hash_key(&[192, 0, 2, 1]));
}

/// One of two servers is dead: every request meets the other one at the second try, and soon at the first.
#[test]
fn a_dead_server_is_ejected_and_tried_again_later() {
    let (upstream, start) = (upstream(settings(&["10.0.0.1", "10.0.0.2"])), clock::now());
    let mut wasted = 0;
    for _ in 0..20 {
        let mut tried = Tried::default();
        loop {
            let mut attempt = upstream.attempt(&mut tried, 0, None, start).unwrap();
            if attempt.server().address().as_ref() == "10.0.0.2:80" {
                attempt.finish(Outcome::Answered(200), start);
                break;
            }
            attempt.finish(Outcome::ConnectFailed, start);
            wasted += 1;
        }
        assert!(tried.attempts() <= 2);
    }
    assert_eq!(wasted, ejection::EJECT_AFTER_FAILURES);
    assert_eq!(states(&upstream, start), ["ejected", "up"]);

    let later = start + ejection::EJECT_FIRST;
    let met: Vec<_> = (0..2).map(|_| request(&upstream, Outcome::Answered(200), later)).collect();
    assert!(met.contains(&"10.0.0.1:80".to_owned()));
    assert_eq!(states(&upstream, later), ["up", "up"]);
}

/// Passive ejection is a guess: with every server ejected they are used all the same.
#[test]
fn ejection_never_takes_the_last_server() {
    let (upstream, now) = (upstream(settings(&["10.0.0.1", "10.0.0.2"])), clock::now());
    for _ in 0..20 {
        request(&upstream, Outcome::ConnectFailed, now);
    }
    assert_eq!(states(&upstream, now), ["ejected", "ejected"]);
    request(&upstream, Outcome::Answered(200), now);
    assert!(states(&upstream, now).contains(&"up"), "an answer ends the ejection");
}

#[test]
fn backups_serve_only_when_no_primary_can() {
    let mut settings = settings(&["10.0.0.1", "10.0.0.2"]);
    settings.servers[1].backup = true;
    let (upstream, now) = (upstream(settings), clock::now());
    for _ in 0..3 {
        assert_eq!(request(&upstream, Outcome::ConnectFailed, now), "10.0.0.1:80");
    }
    assert_eq!(request(&upstream, Outcome::Answered(200), now), "10.0.0.2:80");
    assert_eq!(request(&upstream, Outcome::Answered(200), now + ejection::EJECT_FIRST), "10.0.0.1:80");
}

/// A retry goes to another server, also to a backup, and to the same one only when there is no other.
#[test]
fn retries_go_elsewhere() {
    let mut settings = settings(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    settings.servers[2].backup = true;
    let (upstream, now) = (upstream(settings), clock::now());
    let mut tried = Tried::default();
    let servers: Vec<_> = (0..4)
        .map(|_| upstream.attempt(&mut tried, 0, None, now).unwrap().close(now).server.to_string())
        .collect();
    assert_eq!(servers[..3], ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    assert!(servers[3] != "10.0.0.3:80", "a primary first: {servers:?}");
}

#[test]
fn open_circuit_is_told_apart_and_says_when() {
    let settings = Settings { breaker: breaker_after(2), ..settings(&["10.0.0.1"]) };
    let (upstream, start) = (upstream(settings), clock::now());
    request(&upstream, Outcome::Timeout { body_sent: true }, start);
    request(&upstream, Outcome::Timeout { body_sent: false }, start);
    assert!(first(&upstream, start).is_ok(), "a slow client is not the server's fault");
    request(&upstream, Outcome::Answered(503), start);
    let refused = first(&upstream, start + 3 * SECOND).unwrap_err();
    assert_eq!(refused, NoServer { reason: Reason::CircuitOpen, retry_after: 7 * SECOND });
    assert_eq!(states(&upstream, start), ["circuit_open"]);

    let later = start + 10 * SECOND;
    let mut probe = first(&upstream, later).unwrap();
    assert_eq!(first(&upstream, later).unwrap_err().reason, Reason::CircuitOpen);
    probe.finish(Outcome::Answered(200), later);
    assert!(first(&upstream, later).is_ok(), "closed with the header, not with the end of the answer");
}

/// The client leaves while its request is the probe: the next request gets its place, and nothing counts.
#[test]
fn a_dropped_probe_frees_its_place() {
    let settings = Settings { breaker: breaker_after(1), ..settings(&["10.0.0.1"]) };
    let (upstream, start) = (upstream(settings), clock::now());
    request(&upstream, Outcome::Reset, start);
    let later = start + 10 * SECOND;
    drop(first(&upstream, later).unwrap());
    assert_eq!(states(&upstream, later), ["circuit_half_open"]);
    assert!(first(&upstream, later).is_ok());
}

/// Servers close idle connections when they like; a request that meets such a moment proves nothing.
#[test]
fn a_stale_connection_is_not_a_failure() {
    let settings = Settings { breaker: breaker_after(1), ..settings(&["10.0.0.1"]) };
    let (upstream, now) = (upstream(settings), clock::now());
    let mut attempt = first(&upstream, now).unwrap();
    attempt.connected(true, now);
    attempt.finish(Outcome::Reset, now);
    assert_eq!(states(&upstream, now), ["up"]);
    let mut attempt = first(&upstream, now).unwrap();
    attempt.connected(true, now);
    attempt.finish(Outcome::Answered(200), now);
    attempt.finish(Outcome::Reset, now);
    assert_eq!(states(&upstream, now), ["circuit_open"], "in the middle of an answer it is one");
}

#[test]
fn a_connection_cut_short_by_the_deadline_is_not_a_failure() {
    let settings = Settings { breaker: breaker_after(1), ..settings(&["10.0.0.1"]) };
    let (upstream, now) = (upstream(settings), clock::now());
    let hurried = now + Duration::from_millis(20);
    let mut attempt = upstream.attempt(&mut Tried::default(), 0, Some(hurried), now).unwrap();
    let peer = attempt.peer();
    assert_eq!(peer.options.connection_timeout, Some(Duration::from_millis(20)));
    assert_eq!(peer.options.write_timeout, Some(Duration::from_millis(20)));
    attempt.finish(Outcome::ConnectTimeout, hurried);
    assert_eq!(states(&upstream, now), ["up"]);
}

#[test]
fn records_what_happened_when() {
    let (upstream, start) = (upstream(settings(&["10.0.0.1"])), clock::now());
    let at = |ms| start + Duration::from_millis(ms);
    let mut attempt = first(&upstream, start).unwrap();
    attempt.connected(false, at(5));
    attempt.finish(Outcome::Answered(206), at(20));
    let record = attempt.close(at(50));
    assert_eq!(record.server.as_ref(), "10.0.0.1:80");
    assert_eq!((record.reused, record.status), (Some(false), Some(206)));
    assert_eq!(record.connect, Some(Duration::from_millis(5)));
    assert_eq!(record.header, Some(Duration::from_millis(20)));
    assert_eq!(record.total, Some(Duration::from_millis(50)));
}

#[test]
fn retries_are_paid_for() {
    let (upstream, now) = (upstream(settings(&["10.0.0.1"])), clock::now());
    let situation = Situation {
        method: &Method::GET,
        replayable: true,
        answer_started: false,
        attempts: 1,
        time_left: None,
    };
    for _ in 0..10 {
        request(&upstream, Outcome::Answered(200), now);
    }
    let decisions: Vec<_> = (0..10).map(|_| upstream.retry(Failure::Connect, &situation, now)).collect();
    let retries = decisions.iter().filter(|decision| matches!(decision, Decision::Retry(_))).count();
    assert_eq!(retries, 2 + 3, "a fifth of ten requests, and the floor");
    assert!(decisions.contains(&Decision::GiveUp(GiveUp::Budget)));
}

/// Many threads pick, finish and drop attempts in all ways: no place is lost, none is given back twice.
#[test]
fn places_are_given_back_whatever_happens() {
    let settings = Settings {
        breaker: breaker_after(2),
        balance: Balance::LeastConnections,
        ..settings(&["10.0.0.1", "10.0.0.2", "10.0.0.3"])
    };
    let (upstream, start) = (upstream(settings), clock::now());
    let served = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let (upstream, served) = (&upstream, &served);
            scope.spawn(move || {
                let mut held = Vec::new();
                for step in 0..2_000_u32 {
                    let now = start + Duration::from_millis(u64::from(step) * 10);
                    let Ok(mut attempt) = first(upstream, now) else { continue };
                    served.fetch_add(1, Ordering::Relaxed);
                    match (step + thread) % 7 {
                        0 => attempt.finish(Outcome::Reset, now),
                        1 => attempt.finish(Outcome::Answered(503), now),
                        2 => drop(attempt),
                        3 => held.push(attempt),
                        4 => drop(held.pop()),
                        _ => attempt.finish(Outcome::Answered(200), now),
                    }
                }
            });
        }
    });
    assert!(served.into_inner() > 0);
    assert_eq!(in_flight(&upstream), 0);
    let late = start + 1_000 * SECOND;
    assert!((0..3).all(|_| first(&upstream, late).is_ok()), "no probe's place is lost");
}

/// However many requests come at the moment a circuit may be tried again, one passes.
#[test]
fn half_open_admits_exactly_one_of_many() {
    let settings = Settings { breaker: breaker_after(1), ..settings(&["10.0.0.1"]) };
    let (upstream, start) = (upstream(settings), clock::now());
    for round in 0..50_u32 {
        let now = start + round * 20 * SECOND;
        request(&upstream, Outcome::Reset, now);
        let later = now + 10 * SECOND;
        let barrier = std::sync::Barrier::new(8);
        let probes: Vec<_> = std::thread::scope(|scope| {
            let probe = || {
                barrier.wait();
                first(&upstream, later).ok()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(probe)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(probes.len(), 1);
        for mut probe in probes {
            probe.finish(Outcome::Answered(200), later);
        }
    }
}

/// A reload keeps what is known about servers that stay, whatever else changes about them.
#[test]
fn live_state_survives_a_new_configuration() {
    let (live, now) = (live(), clock::now());
    let before = Upstream::new(
        Settings { breaker: breaker_after(1), ..settings(&["10.0.0.1", "10.0.0.2"]) },
        &live,
        now,
    );
    assert_eq!(request(&before, Outcome::Reset, now), "10.0.0.1:80");
    let busy = first(&before, now).unwrap();

    let mut changed =
        Settings { breaker: breaker_after(5), ..settings(&["10.0.0.3", "10.0.0.2", "10.0.0.1"]) };
    changed.servers[1].weight = 7;
    let after = Upstream::new(changed, &live, now);
    assert_eq!(states(&after, now), ["up", "up", "circuit_open"]);
    assert_eq!(after.status(now).servers[1].in_flight, 1, "the old configuration's request counts");
    drop(busy);
    assert_eq!(in_flight(&after), 0);

    let http2 = Upstream::new(
        Settings { http2: true, breaker: breaker_after(1), ..settings(&["10.0.0.1"]) },
        &live,
        now,
    );
    assert_eq!(states(&http2, now), ["up"], "spoken to differently it is another server");
}

/// A circuit that was open when its breaker was taken out of the configuration must not stay shut for ever.
#[test]
fn state_that_nothing_would_end_does_not_count() {
    let (live, now) = (live(), clock::now());
    let before = Upstream::new(Settings { breaker: breaker_after(1), ..settings(&["10.0.0.1"]) }, &live, now);
    request(&before, Outcome::Answered(500), now);
    assert!(first(&before, now).is_err());
    let after = Upstream::new(settings(&["10.0.0.1"]), &live, now);
    assert!(first(&after, now).is_ok());
    assert_eq!(states(&after, now), ["up"]);
}

#[test]
fn tls_always_has_a_name_to_verify() {
    let tls = |sni: Option<&str>, target: &str| {
        sni_of(Some(&TlsPolicy::new(sni.map(Into::into), None, None)), target)
    };
    assert_eq!(tls(None, "users.internal.:443"), "users.internal");
    assert_eq!(tls(Some("other"), "users.internal:443"), "other");
    assert_eq!(tls(None, "[::1]:443"), "::1");
    assert_eq!(tls(None, "unix:/run/a"), "localhost");
}

fn sni_of(tls: Option<&TlsPolicy>, target: &str) -> String {
    sni(tls, &Target::parse(target, 443).unwrap())
}
