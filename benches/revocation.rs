//! What it costs a request to ask whether its token was revoked: of none, and of a million.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use edgeward::identity::directory::Directory;
use edgeward::identity::token::Token;

/// After all that is revoked here has expired.
const FAR: i64 = 4_000_000_000;

fn token(number: u32) -> Token {
    Token {
        provider: "local".into(),
        subject: Some(format!("subject-{number}").into()),
        id: Some(format!("0198c1f2-7e1a-7b7e-8d4c-{number:012x}").into()),
        issued_at: Some(1_800_000_000),
        expires_at: Some(1_800_003_600),
        roles: Box::default(),
        scopes: Box::default(),
        claims: serde_json::Map::new(),
        payload: Box::default(),
        forms: Default::default(),
    }
}

/// Asks of tokens that are not revoked, each another one, so that nothing of theirs is in the cache.
fn ask(c: &mut Criterion, name: &str, directory: &Directory) {
    let tokens: Vec<Token> = (2_000_000..2_010_000).map(token).collect();
    let mut next = tokens.iter().cycle();
    c.bench_function(name, |b| b.iter(|| next.next().map(|token| directory.is_revoked(black_box(token)))));
}

fn revocation(c: &mut Criterion) {
    let directory = Directory::default();
    ask(c, "revocation/none", &directory);
    for number in 0..1_000_000 {
        let token = token(number);
        directory.revoke_token("local", token.id.as_deref().unwrap_or_default(), FAR);
    }
    ask(c, "revocation/1,000,000 tokens", &directory);
    for number in 0..1_000_000 {
        directory.revoke_subject("local", &format!("subject-{number}"), 1_700_000_000, FAR);
    }
    ask(c, "revocation/1,000,000 tokens and subjects", &directory);
}

criterion_group!(benches, revocation);
criterion_main!(benches);
