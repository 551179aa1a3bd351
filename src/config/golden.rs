//! Broken configurations and exactly what is said about them: one directory a case under `tests/golden/config`.
//!
//! A case has a `main.toml`, whatever that includes, and `expected.txt`. With a `next.toml` it is a reload: `main.toml` is in
//! force, and what is said is about the next. With a `services.json`, rows of the store, it is about those. After a wanted change of words run the test with
//! `EDGEWARD_BLESS=1` and read the difference.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::base::decode::Surroundings;
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::Sources;
use crate::config::diff::needs_upgrade;
use crate::config::{Runtime, load, render};
use crate::store::{ServiceRow, Services};

/// Codes that no broken file can give: they need a machine that fails or refuses, or a mountain of input, of which
/// `super::mountains` has cases.
const UNREACHABLE_CODES: &[&str] = &[
    "include-too-many",
    "file-too-large",
    "too-many",
    "leg-too-many",
    "tls-unavailable",
    "descriptor-limit",
    "unknown-account",
    "unreadable-file",
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config")
}

fn env(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("8080".to_owned()),
        "WORD" => Some("word".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn check(case: &Path) -> (Sources, Diagnostics) {
    let read = |path: &Path| fs::read(path);
    let compile = |name: &str| {
        load(&case.join(name), Surroundings { env: &env, read: &read }).compile(&Runtime::detached())
    };
    let main = compile("main.toml");
    if !case.join("next.toml").exists() {
        return (main.sources, main.diagnostics);
    }
    let mut next = compile("next.toml");
    let (old, new) = (main.snapshot.unwrap(), next.snapshot.unwrap());
    needs_upgrade(&old, &new, &mut next.diagnostics);
    (next.sources, next.diagnostics)
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    cases
}

/// What becomes of the services of a case, and the codes in that.
fn services(case: &Path) -> Option<(String, BTreeSet<String>)> {
    let text = fs::read_to_string(case.join("services.json")).ok()?;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let text = |row: &serde_json::Value, column: &str| match &row[column] {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        json => json.to_string(),
    };
    let rows = rows.iter().map(|row| ServiceRow {
        name: text(row, "name"),
        path: text(row, "path"),
        methods: text(row, "methods"),
        hosts: text(row, "hosts"),
        endpoints: text(row, "endpoints"),
        roles: text(row, "roles"),
        enabled: row["enabled"] != false,
        ..ServiceRow::default()
    });
    let services = Services { number: 1, rows: rows.collect(), cut: case.ends_with("services-too-many") };
    let read = |path: &Path| fs::read(path);
    let surroundings = Surroundings { env: &env, read: &read };
    let compiled = load(&case.join("main.toml"), surroundings).compile_with(
        &services,
        surroundings,
        &Runtime::detached(),
    );
    assert!(compiled.snapshot.is_some(), "{}", render::text(&compiled.diagnostics, &compiled.sources, false));
    let report = compiled.services;
    let (mut shown, mut codes) = (String::new(), BTreeSet::new());
    for (name, problems) in &report.warnings {
        shown.push_str(&format!("service {name:?}:\n"));
        codes.extend(problems.iter().map(|problem| problem.code.to_owned()));
        problems.iter().for_each(|problem| shown.push_str(&problem.text("warning")));
    }
    for left in &report.left_out {
        shown.push_str(&format!("service {:?}:\n", left.name));
        codes.extend(left.problems.iter().map(|problem| problem.code.to_owned()));
        left.problems.iter().for_each(|problem| shown.push_str(&problem.text("error")));
    }
    shown.push_str(&format!("{}\n", report.summary()));
    Some((shown, codes))
}

#[test]
fn every_mistake_is_told_in_these_words() {
    let bless = std::env::var_os("EDGEWARD_BLESS").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let (sources, diagnostics) = check(&case);
        let of_services = services(&case);
        let shown = render::text(&diagnostics, &sources, false);
        let shown = shown + of_services.as_ref().map_or("", |(shown, _)| shown);
        let shown = shown.replace(&format!("{}/", case.display()), "");
        let expected = case.join("expected.txt");
        if bless {
            fs::write(&expected, &shown).unwrap();
        }
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        if fs::read_to_string(&expected).unwrap_or_default() != shown {
            wrong.push(format!("== {name}\n{shown}"));
        }
        if diagnostics.is_empty() && of_services.is_none() {
            wrong.push(format!("== {name}\nnothing is wrong with it"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every code that the sources name has a case, and there are enough of them.
#[test]
fn every_code_has_a_case() {
    let mut seen = BTreeSet::new();
    for case in cases() {
        seen.extend(check(&case).1.iter().map(|item| item.code.to_owned()));
        seen.extend(services(&case).into_iter().flat_map(|(_, codes)| codes));
    }
    let mut known = BTreeSet::new();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    collect_codes(&sources, &mut known);
    let missing: Vec<_> =
        known.difference(&seen).filter(|code| !UNREACHABLE_CODES.contains(&code.as_str())).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

/// First arguments of `error("…"` and its kin, outside tests.
fn collect_codes(directory: &Path, known: &mut BTreeSet<String>) {
    let call =
        r#"(?:\.(?:error|warning|key_error|warn)\(|Fault::new\([^,()]+,)\s*"([a-z0-9]+(?:-[a-z0-9]+)+)""#;
    let call = regex::Regex::new(call).unwrap();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_codes(&path, known);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
            known.extend(call.captures_iter(text).map(|found| found[1].to_owned()));
        }
    }
}
