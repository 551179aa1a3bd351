//! What a token costs: `cold`, when it is seen for the first time and its signature is verified, and `warm`, when it was
//! seen before, for each algorithm. Warm is measured over 1,000 different tokens in turn.
//!
//! `cargo bench --bench jwt`
#![expect(clippy::expect_used, clippy::panic, reason = "a benchmark ends when its own data is wrong")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use edgeward::base::clock::Moment;
use edgeward::identity::jwt::algorithm::{Algorithms, Kind};
use edgeward::identity::jwt::{Algorithm, Rules};
use edgeward::identity::keys::{Key, KeySet};
use edgeward::identity::provider::{Keys, Provider, Providers, Settings, Verified};
use edgeward::identity::signing::{Issuer, SigningKey, verifying};
use serde_json::json;

/// Different tokens taken in turn.
const TOKENS: usize = 1_000;

fn provider(algorithm: Algorithm) -> (Issuer, Box<dyn Fn() -> Providers>) {
    let all: Algorithms = Algorithm::ALL.iter().copied().collect();
    let secret = [7; 64];
    let (issuer, public) = if algorithm.kind() == Kind::Secret {
        (Issuer::with_secret(&secret, algorithm).expect("a secret"), None)
    } else {
        let (key, _) = SigningKey::generate(algorithm).expect("a key");
        let public = key.public().clone();
        (Issuer::new(key, algorithm, &[]).expect("an issuer"), Some(public))
    };
    let make = move || {
        let key = match &public {
            Some(public) => verifying(public, all),
            None => Key::secret(None, &secret, all),
        };
        let provider = Provider::new(Settings {
            name: "local".into(),
            rules: Rules {
                issuer: Some("https://issuer.example/".into()),
                audience: ["shop".into()].into(),
                typ: None,
                leeway: 60,
                require: ["exp".into()].into(),
                roles_claim: "roles".into(),
            },
            algorithms: [algorithm].into_iter().collect(),
            keys: Keys::Fixed(KeySet::new([key])),
            issuer: None,
            consumer: None,
            generated: None,
        });
        Providers::new([Arc::new(provider)])
    };
    (issuer, Box::new(make))
}

/// As identity providers issue them: some seven hundred bytes with RS256.
fn tokens(issuer: &Issuer) -> Vec<String> {
    let token = |number: usize| {
        let claims = json!({
            "iss": "https://issuer.example/", "aud": ["shop"], "exp": 4_000_000_000_u32, "iat": 1_700_000_000,
            "jti": format!("0a1b2c3d-{number:08}"), "sub": format!("auth0|{number:024}"),
            "roles": ["user", "editor"], "scope": "openid profile email",
            "email": format!("somebody-{number}@example.com"),
        });
        issuer.issue(claims.as_object().expect("an object")).expect("a token")
    };
    (0..TOKENS).map(token).collect()
}

fn verify(providers: &Providers, token: &str, at: &Moment) {
    match black_box(providers.verify(token, at)) {
        Verified::Ok(_) => {}
        other => panic!("{other:?}"),
    }
}

fn jwt(criterion: &mut Criterion) {
    let at = Moment::now();
    for algorithm in Algorithm::ALL.iter().copied() {
        let (issuer, make) = provider(algorithm);
        let tokens = tokens(&issuer);
        let mut group = criterion.benchmark_group(algorithm.as_str());
        let mut turn = 0;
        let mut next = || {
            turn = turn % (TOKENS - 1) + 1;
            tokens.get(turn).expect("within").as_str()
        };
        // With a cache that is there already, and that does not know the token.
        let used = || {
            let providers = make();
            verify(&providers, tokens.first().expect("one"), &at);
            providers
        };
        group.bench_function("cold", |bencher| {
            // By reference: taking the table of the cache down again is not part of it.
            bencher.iter_batched_ref(
                &used,
                |providers| verify(providers, next(), &at),
                BatchSize::PerIteration,
            );
        });
        let providers = make();
        tokens.iter().for_each(|token| verify(&providers, token, &at));
        group.bench_function("warm", |bencher| bencher.iter(|| verify(&providers, next(), &at)));
        group.finish();
    }
}

criterion_group!(benches, jwt);
criterion_main!(benches);
