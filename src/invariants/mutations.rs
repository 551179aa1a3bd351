//! Ten thousand inputs that somebody got wrong, through the doors that real ones take: files that are read and compiled as
//! for a reload, key sets as they are fetched, rows as they stand in the store.

use std::path::Path;
use std::sync::Arc;

use super::mutate::Mutator;
use crate::base::decode::Surroundings;
use crate::config::{self, Runtime};
use crate::identity::jwt::Algorithm;
use crate::identity::signing::{Issuer, SigningKey};
use crate::store::ServiceRow;

/// What the examples take from the environment.
fn surroundings() -> Surroundings<'static> {
    let env = &|name: &str| match name {
        "BROKER_URL" => Some("amqp://guest:guest@127.0.0.1:5672/%2f".to_owned()),
        "JWT_SECRET" | "MOBILE_KEY" | "SHOP_KEY" => Some("0123456789abcdef0123456789abcdef".to_owned()),
        _ => None,
    };
    Surroundings { env, read: &|path| std::fs::read(path) }
}

/// The configurations that come with the program, the reference file aside: it is long, and mutations of it are slow.
fn examples() -> Vec<String> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/examples");
    let mut files: Vec<_> = std::fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// How many were taken, and how many refused.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    taken: usize,
    refused: usize,
}

fn configurations(seeds: std::ops::Range<u64>) -> Tally {
    let examples = examples();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("edgeward.toml");
    let mut tally = Tally::default();
    for seed in seeds {
        let mut mutator = Mutator::new(seed);
        let example = mutator.one_of(&examples).clone();
        let text = mutator.toml(&example);
        std::fs::write(&file, &text).unwrap();
        let whole = std::panic::catch_unwind(|| {
            let compiled = config::load(&file, surroundings()).compile(&Runtime::detached());
            let shown = config::render::text(&compiled.diagnostics, &compiled.sources, false);
            let json = config::render::json(&compiled.diagnostics, &compiled.sources);
            assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
            assert_eq!(compiled.snapshot.is_none(), compiled.diagnostics.has_errors());
            assert_eq!(compiled.snapshot.is_none(), shown.contains("error["), "what is refused is told");
            compiled.snapshot.is_some()
        });
        match whole {
            Ok(true) => tally.taken += 1,
            Ok(false) => tally.refused += 1,
            Err(_) => panic!("seed {seed}:\n{}", String::from_utf8_lossy(&text)),
        }
    }
    tally
}

// In parts, so that several run at once.

#[test]
fn of_configurations_first() {
    let tally = configurations(0..2000);
    assert!(tally.taken > 100 && tally.refused > 1000, "{tally:?}");
}

#[test]
fn of_configurations_second() {
    let tally = configurations(2000..4000);
    assert!(tally.taken > 100 && tally.refused > 1000, "{tally:?}");
}

#[test]
fn of_key_sets() {
    let keys = Algorithm::ALL.iter().filter_map(|algorithm| {
        let (key, _) = SigningKey::generate(*algorithm).ok()?;
        let set = Issuer::new(key, *algorithm, &[])?.jwks();
        let set: serde_json::Value = serde_json::from_slice(&set).unwrap();
        Some(set["keys"][0].clone())
    });
    let set = serde_json::json!({ "keys": keys.collect::<Vec<_>>() });
    assert!(set["keys"].as_array().unwrap().len() > 2);
    let text = set.to_string();
    let mut tally = Tally::default();
    for seed in 0..4000 {
        let text = Mutator::new(seed).json(&text);
        let judge = || {
            super::key_set(&text);
            crate::identity::keys::jwk::parse_set(
                &text,
                crate::identity::keys::jwk::Secrets::Refused,
                &mut Vec::new(),
            )
        };
        match std::panic::catch_unwind(judge) {
            Ok(Ok(set)) if !set.keys().is_empty() => tally.taken += 1,
            Ok(_) => tally.refused += 1,
            Err(_) => panic!("seed {seed}: {}", String::from_utf8_lossy(&text)),
        }
    }
    assert!(tally.taken > 300 && tally.refused > 1000, "{tally:?}");
}

/// A column of a row, as anybody may have written it.
fn column(mutator: &mut Mutator, good: &str) -> String {
    if *mutator.one_of(&[true, false, false]) {
        return String::from_utf8_lossy(&mutator.json(good)).chars().take(70_000).collect();
    }
    good.to_owned()
}

/// Two thousand rows, ten at a time: one broken row leaves out that row.
#[test]
fn of_rows_of_services() {
    for set in 0..200_u64 {
        let mut mutator = Mutator::new(set);
        let rows = (0..10).map(|number| {
            let path = format!("/s{number}/{{id}}");
            let endpoints = r#"[{"type":"http-get","url":"http://127.0.0.1:3/x","group":"g"},{"type":"amqp","url":"main/queue","required":true}]"#;
            ServiceRow {
                name: format!("row-{number}"),
                path: column(&mut mutator, &path),
                endpoints: column(&mut mutator, endpoints),
                methods: column(&mut mutator, "[\"GET\"]"),
                hosts: column(&mut mutator, "[\"a.example\",\"*.b.example\"]"),
                roles: column(&mut mutator, "[\"admin\"]"),
                enabled: *mutator.one_of(&[true, true, true, false]),
                ..ServiceRow::default()
            }
        });
        let rows: Vec<ServiceRow> = rows.collect();
        let shown = Arc::new(rows.clone());
        if std::panic::catch_unwind(|| super::rows(rows)).is_err() {
            panic!("set {set}: {shown:?}");
        }
    }
}
