//! Key sets that change, disappear and come back, on a made-up clock; and one that is fetched for real.

use std::sync::atomic::AtomicBool;
use std::time::UNIX_EPOCH;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::schedule::{COOLDOWN, FRESH_DEFAULT, FRESH_MAX, FRESH_MIN, STALE_MAX};
use super::*;
use crate::base::clock::Moment;
use crate::identity::jwt::algorithm::Algorithm;
use crate::identity::jwt::{Rules, algorithm::Algorithms};
use crate::identity::provider::{Keys, Provider, Providers, Settings, Verified};
use crate::identity::signing::{Issuer, SigningKey};
use crate::telemetry::metrics::Metrics;

const MINUTE: Duration = Duration::from_secs(60);

fn issuer() -> Issuer {
    let key = SigningKey::generate(Algorithm::Es256).unwrap().0;
    Issuer::new(key, Algorithm::Es256, &[]).unwrap()
}

fn token(issuer: &Issuer) -> String {
    let claims = json!({ "iss": "idp", "aud": "shop", "exp": 4_000_000_000_u32, "n": fastrand::u64(..) });
    issuer.issue(claims.as_object().unwrap()).unwrap()
}

fn set(issuers: &[&Issuer]) -> Bytes {
    let keys: Vec<Value> = issuers
        .iter()
        .flat_map(|issuer| {
            let set: Value = serde_json::from_slice(&issuer.jwks()).unwrap();
            set["keys"].as_array().unwrap().clone()
        })
        .collect();
    json!({ "keys": keys }).to_string().into()
}

fn good(body: Bytes) -> Result<Document, FetchError> {
    Ok(Document { body, max_age: None })
}

fn down() -> Result<Document, FetchError> {
    Err(FetchError::new("connect", "connection refused"))
}

fn providers(remote: &Arc<Remote>) -> Providers {
    let rules = Rules {
        issuer: Some("idp".into()),
        audience: ["shop".into()].into(),
        typ: None,
        leeway: 0,
        require: ["exp".into()].into(),
        roles_claim: "roles".into(),
    };
    let algorithms: Algorithms = [Algorithm::Es256].into_iter().collect();
    Providers::new([Arc::new(Provider::new(Settings {
        name: "idp".into(),
        rules,
        algorithms,
        keys: Keys::Fetched(remote.clone()),
        issuer: None,
        consumer: None,
        generated: None,
    }))])
}

/// A gateway and an identity provider on a clock of their own.
struct World {
    now: Instant,
    start: Instant,
    remote: Arc<Remote>,
    providers: Providers,
    /// What the identity provider answers.
    answer: Result<Document, FetchError>,
    fetches: usize,
}

impl World {
    fn new(answer: Result<Document, FetchError>) -> Self {
        let now = clock::now();
        let url = JwksUrl::parse("https://idp.example/jwks").unwrap();
        let metrics = Metrics::new().key_set("idp");
        let remote = Arc::new(Remote::new("idp".into(), url, Arc::new(Offline), metrics, now));
        let providers = providers(&remote);
        Self { now, start: now, remote, providers, answer, fetches: 0 }
    }

    /// Lets `time` pass, in which whatever is due is fetched.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let next = self.remote.schedule.lock().next(self.now);
            match next {
                Next::Fetch => self.fetch(),
                Next::At(due) if due <= until => self.now = due,
                Next::At(_) => break,
            }
        }
        self.now = until;
    }

    fn fetch(&mut self) {
        self.fetches += 1;
        self.remote.schedule.lock().begin(self.now);
        self.remote.settle(self.answer.clone(), self.now);
    }

    fn judge(&self, token: &str) -> Verified {
        let wall = UNIX_EPOCH + Duration::from_secs(1_800_000_000) + (self.now - self.start);
        self.providers.verify(token, &Moment { now: self.now, wall })
    }

    /// What becomes of `token` if it waits where it is told to, as requests do: accepted, or why not.
    fn settle(&mut self, token: &str) -> Option<Reason> {
        for _ in 0..3 {
            match self.judge(token) {
                Verified::Ok(_) => return None,
                Verified::Refused(refusal) => return Some(refusal.reason),
                Verified::Wait(_) => {
                    let next = self.remote.schedule.lock().next(self.now);
                    if let Next::At(due) = next {
                        self.now = due;
                    }
                    self.fetch();
                }
            }
        }
        panic!("it waits for ever");
    }
}

#[test]
fn tokens_wait_for_the_first_keys_and_are_told_when_there_are_none() {
    let key = issuer();
    let mut world = World::new(down());
    let token = token(&key);
    assert!(matches!(world.judge(&token), Verified::Wait(_)), "the first fetch is about to begin");
    world.pass(Duration::ZERO);
    let Verified::Refused(refusal) = world.judge(&token) else { panic!() };
    assert_eq!(refusal.reason, Reason::KeysUnavailable);
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(1)));
    assert!(refusal.detail.contains("connection refused"), "{}", refusal.detail);
    world.pass(MINUTE);
    assert_eq!(world.settle(&token), Some(Reason::KeysUnavailable));
    assert!((7..=12).contains(&world.fetches), "{} tries in the first minute", world.fetches);
    world.answer = good(set(&[&key]));
    world.pass(Duration::from_secs(10));
    assert_eq!(world.settle(&token), None);
}

/// An identity provider that is down for an hour, and for a day, costs no valid token anything.
#[test]
fn an_identity_provider_that_is_down_costs_nobody_anything() {
    let key = issuer();
    let mut world = World::new(good(set(&[&key])));
    world.pass(Duration::ZERO);
    for broken in [
        down(),
        good("<html>Bad gateway</html>".into()),
        good(json!({ "keys": [] }).to_string().into()),
        good(json!({ "keys": [{ "kty": "EC" }] }).to_string().into()),
    ] {
        world.answer = broken;
        for _ in 0..60 {
            world.pass(MINUTE);
            assert_eq!(world.settle(&token(&key)), None);
        }
    }
    let fetches = world.fetches;
    assert!(fetches < 300, "{fetches} fetches in four hours");
    world.answer = good(set(&[&key]));
    world.pass(MINUTE);
    assert!(world.remote.status(world.now).ends_with("ago"), "{}", world.remote.status(world.now));
    // Not for ever: whoever can keep us from asking must not keep a withdrawn key alive.
    world.answer = down();
    world.pass(FRESH_DEFAULT + STALE_MAX);
    assert_eq!(world.settle(&token(&key)), Some(Reason::KeysUnavailable));
}

/// Keys change every few minutes, the new one signs from the moment it is published, the old one's tokens are shown for a
/// while longer; all the time somebody sends tokens with made-up keys. No valid token is refused.
#[test]
fn rotation_costs_no_valid_token_anything() {
    let (mut old, mut new) = (issuer(), issuer());
    let mut world = World::new(good(set(&[&old, &new])));
    world.pass(Duration::ZERO);
    let mut made_up = json!({ "alg": "ES256", "kid": "" });
    for round in 0..20 {
        (old, new) = (new, issuer());
        world.answer = good(set(&[&old, &new]));
        for second in 0..60 {
            made_up["kid"] = json!(format!("{round} {second}"));
            let header = base64::Engine::encode(
                &base64::engine::general_purpose::URL_SAFE_NO_PAD,
                made_up.to_string(),
            );
            let good = token(&new);
            let bad = format!("{header}.{}", good.split_once('.').unwrap().1);
            drop(world.judge(&bad));
            assert_eq!(world.settle(&good), None);
            assert_eq!(world.settle(&token(&old)), None);
            world.pass(Duration::from_secs(1));
        }
    }
    let seconds = (world.now - world.start).as_secs();
    let most = seconds / COOLDOWN.as_secs() + seconds / 480 + 2;
    assert!(world.fetches as u64 <= most, "{} fetches in {seconds} s", world.fetches);
}

/// A key that was withdrawn is good for as long as the set that had it, and no longer; its tokens are forgotten.
#[test]
fn a_withdrawn_key_is_gone_with_the_next_set() {
    let (old, new) = (issuer(), issuer());
    let mut world = World::new(good(set(&[&old, &new])));
    world.pass(Duration::ZERO);
    let token = token(&old);
    assert_eq!(world.settle(&token), None);
    world.answer = good(set(&[&new]));
    world.pass(FRESH_DEFAULT * 4 / 5 - Duration::from_secs(1));
    assert_eq!(world.settle(&token), None, "still kept");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.fetches, 2);
    assert_eq!(world.settle(&token), Some(Reason::TokenInvalid));
}

#[test]
fn a_key_that_nobody_has_is_asked_for_once() {
    let (key, stranger) = (issuer(), issuer());
    let mut world = World::new(good(set(&[&key])));
    world.pass(MINUTE);
    let strange = token(&stranger);
    assert_eq!(world.settle(&strange), Some(Reason::TokenInvalid));
    assert_eq!(world.fetches, 2);
    for _ in 0..100 {
        assert!(matches!(world.judge(&strange), Verified::Refused(_)), "it is known not to be there");
    }
    let Verified::Wait(wait) = world.judge(&token(&issuer())) else { panic!("another may wait") };
    assert_eq!(wait.refusal().reason, Reason::TokenInvalid);
    let next = world.remote.schedule.lock().next(world.now);
    assert_eq!(next, Next::At(world.now + COOLDOWN), "but not before the pause is over");
    // More than may wait are told to come again.
    let waiting: Vec<_> = (1..WAITING_MAX).map(|_| world.judge(&token(&issuer()))).collect();
    assert!(waiting.iter().all(|verified| matches!(verified, Verified::Wait(_))));
    let Verified::Refused(refusal) = world.judge(&token(&issuer())) else { panic!() };
    assert_eq!(refusal.reason, Reason::KeysUnavailable);
    drop(waiting);
    assert!(matches!(world.judge(&token(&issuer())), Verified::Wait(_)), "places are given back");
}

#[test]
fn how_long_a_set_is_good_for_is_bounded() {
    let key = issuer();
    for (max_age, expected) in [
        (None, FRESH_DEFAULT),
        (Some(Duration::ZERO), FRESH_MIN),
        (Some(Duration::from_secs(100)), Duration::from_secs(100)),
        (Some(Duration::from_secs(u64::from(u32::MAX))), FRESH_MAX),
    ] {
        let mut world = World::new(Ok(Document { body: set(&[&key]), max_age }));
        world.pass(Duration::ZERO);
        let next = world.remote.schedule.lock().next(world.now);
        assert_eq!(next, Next::At(world.now + expected * 4 / 5));
    }
}

/// What is left out does not keep the rest from working, nor does a mountain of it.
#[test]
fn a_set_with_broken_keys_works_with_the_others() {
    let key = issuer();
    let mut keys: Value = serde_json::from_slice(&set(&[&key])).unwrap();
    let list = keys["keys"].as_array_mut().unwrap();
    list.insert(0, json!({ "kty": "EC", "crv": "P-256", "kid": "x", "x": "AA", "y": "AA" }));
    list.insert(0, json!({ "kty": "oct", "k": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8" }));
    list.push(list[2].clone());
    let mut world = World::new(good(keys.to_string().into()));
    world.pass(Duration::ZERO);
    assert_eq!(world.settle(&token(&key)), None);
    // The same set again does not make anybody verify anew.
    let generation = world.remote.held().generation;
    world.pass(MINUTE * 30);
    assert_eq!((world.remote.held().generation, world.fetches > 2), (generation, true));
}

#[derive(Debug)]
struct Idp {
    body: Mutex<Bytes>,
    fetches: AtomicUsize,
    broken: AtomicBool,
}

#[async_trait]
impl Fetch for Idp {
    async fn fetch(&self, _: &JwksUrl) -> Result<Document, FetchError> {
        self.fetches.fetch_add(1, Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
        if self.broken.load(Relaxed) {
            return down();
        }
        good(self.body.lock().clone())
    }
}

/// On threads, with a task that fetches: a rotation in the middle of the load, and then the provider goes down.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rotation_under_load() {
    let (old, new) = (Arc::new(issuer()), Arc::new(issuer()));
    let body = Mutex::new(set(&[&old]));
    let idp = Arc::new(Idp { body, fetches: AtomicUsize::new(0), broken: AtomicBool::new(false) });
    let url = JwksUrl::parse("http://127.0.0.1/jwks").unwrap();
    let metrics = Metrics::new().key_set("idp");
    let remote = Arc::new(Remote::new("idp".into(), url, idp.clone(), metrics, clock::now()));
    remote.start();
    remote.warm().await;
    let providers = providers(&remote);
    let rotated = Arc::new(AtomicBool::new(false));
    let parts = (old.clone(), new.clone(), rotated.clone(), providers.clone());
    let load = move |_| {
        let (old, new, rotated, providers) = parts.clone();
        async move {
            for round in 0..400 {
                let signer = if rotated.load(Relaxed) && round % 2 == 0 { &new } else { &old };
                let until = Some(clock::now() + Duration::from_secs(30));
                let verified = providers.verify_within(&token(signer), until).await;
                assert!(verified.is_ok(), "{verified:?}");
                tokio::task::yield_now().await;
            }
        }
    };
    let rotate = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        *idp.body.lock() = set(&[&old, &new]);
        rotated.store(true, Relaxed);
    };
    let loads = futures_util::future::join_all((0..8).map(load.clone()));
    tokio::join!(loads, rotate);
    assert_eq!(idp.fetches.load(Relaxed), 2, "all that waited, waited for one fetch");
    idp.broken.store(true, Relaxed);
    load(0).await;
    // Nobody wants the set any more: its task ends.
    let weak = Arc::downgrade(&remote);
    drop((load, remote, providers));
    tokio::time::timeout(Duration::from_secs(10), async {
        while weak.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

proptest! {
    /// Whatever tokens come, the provider is never asked more than once in ten seconds because of them.
    #[test]
    fn made_up_keys_do_not_make_a_flood(
        steps in prop::collection::vec((0_u64..15_000, 0_u8..6, any::<bool>()), 1..200),
    ) {
        let start = clock::now();
        let mut schedule = Schedule::new(start);
        let (mut now, mut asked, mut planned) = (start, Vec::new(), start);
        for (pause, kid, works) in steps {
            now += Duration::from_millis(pause);
            schedule.unknown(&kid.to_string(), now);
            if schedule.next(now) == Next::Fetch {
                if now < planned {
                    asked.push(now);
                }
                schedule.begin(now);
                if works { schedule.succeeded(now, None) } else { schedule.failed(now) }
                planned = match schedule.next(now) {
                    Next::At(due) => due,
                    Next::Fetch => now,
                };
            }
        }
        for pair in asked.windows(2) {
            prop_assert!(pair[1] - pair[0] >= COOLDOWN);
        }
    }
}
