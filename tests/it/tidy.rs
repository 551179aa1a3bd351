//! Reads the sources and holds what `ARCHITECTURE.md` says of them: which way imports point, and what may stand where.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use regex::Regex;

/// The layers, lowest first. A module may name modules of lower layers, and itself; none beside it.
const LAYERS: &[&[&str]] = &[
    &["base"],
    &["telemetry", "demo"],
    // Policies and uses of it read its templates; it knows none of them.
    &["routing"],
    // What identity, limits, services, usage, legs and the log bus share.
    &["store", "cluster", "broker"],
    &["identity"],
    &["policy", "upstream", "files"],
    // Its calls go through upstreams; the headers it may send are those that rules may set.
    &["subrequest"],
    &["config"],
    // The proxy's hooks ask `ingress` for the connection they run on; not the other way round.
    &["ingress", "import"],
    &["proxy", "admin"],
    &["app"],
    &["cli"],
    // What fuzzers and property tests run: of all the others, and part of nothing.
    &["invariants"],
];

/// The only places that may name Pingora.
const PINGORA: &[&str] = &["app", "ingress", "proxy", "upstream"];

/// What only one place may do: pattern, the places, and what to do instead.
const ONE_PLACE: &[(&str, &[&str], &str)] = &[
    (r"\bInstant::now\b|\bSystemTime::now\b", &["base/clock.rs"], "take `now`, or ask base::clock"),
    (r"\btokio::(task::)?spawn\b|\bspawn_local\b", &["base/task.rs"], "use base::task::spawn"),
    (
        r"\.headers\.(insert|append|remove)\(|\b(insert|append|remove)_header\(",
        // The last four make heads of their own and pass none on.
        &[
            "proxy/edit.rs",
            "proxy/edit/",
            "proxy/phases/respond.rs",
            "ingress/plain.rs",
            "upstream/client/",
            "proxy/direct/judged.rs",
        ],
        "headers of requests and answers that pass through are edited in proxy/edit",
    ),
    (r"\bset_var\(|\bprocess::exit\(", &[], "nothing may"),
    (r"\bunbounded_channel\b|\bmpsc::channel\(\)", &[], "every queue has a bound"),
    (r"\btodo!|\bunimplemented!|\bTODO\b|\bFIXME\b", &[], "finish it"),
];

/// Lines a source file may have, tests of their own file aside.
const LINES_MAX: usize = 600;

struct Source {
    /// Below `src/`, with `/`.
    path: String,
    text: String,
    /// Without comments and without its tests, line by line.
    code: Vec<String>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    for path in rust_files(&root) {
        let text = std::fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        let is_test = path.ends_with("tests.rs") || path.contains("/tests/");
        let tests = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
        let code = if is_test { "" } else { &text[..tests] };
        let code = code.lines().map(|line| without_strings(&without_comment(line))).collect();
        sources.push(Source { path, text, code });
    }
    assert!(sources.len() > 20, "where are the sources?");
    sources
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The line up to `//`, unless that stands in a string such as a URL.
fn without_comment(line: &str) -> String {
    let at = line.match_indices("//").find(|(at, _)| line[..*at].matches('"').count().is_multiple_of(2));
    line[..at.map_or(line.len(), |(at, _)| at)].to_owned()
}

/// What stands between quotes is text, not code. Good enough line by line: raw and multi-line strings stay.
fn without_strings(line: &str) -> String {
    line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The module a file belongs to; `None` for `lib.rs` and `main.rs`.
fn module(path: &str) -> Option<&str> {
    path.split_once('/').map(|(module, _)| module)
}

fn report(faults: String) {
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn imports_point_one_way() {
    // `super::super::` from a file directly in a module's folder reaches the crate's root as well.
    let names = Regex::new(r"\b(?:crate|super::super)::(?:\{|(\w+))").unwrap();
    let grouped = Regex::new(r"\bcrate::\{([^}]*)\}").unwrap();
    let mut faults = String::new();
    for source in sources() {
        let Some(own) = module(&source.path) else { continue };
        let own_layer = layer(own).unwrap_or_else(|| panic!("src/{own} has no layer in this test"));
        let code = source.code.join("\n");
        let single = names.captures_iter(&code).filter_map(|found| found.get(1).map(|name| name.as_str()));
        let several = grouped.captures_iter(&code).flat_map(|found| {
            let list = found.get(1).unwrap().as_str();
            list.split(',').map(|item| item.trim().split("::").next().unwrap()).collect::<Vec<_>>()
        });
        for name in single.chain(several) {
            if let Some(other) = layer(name)
                && name != own
                && other >= own_layer
            {
                writeln!(faults, "src/{}: {own} must not know {name}", source.path).unwrap();
            }
        }
    }
    report(faults);
}

#[test]
fn pingora_is_named_where_it_belongs() {
    let names = Regex::new(r"\bpingora\w*::|\buse pingora").unwrap();
    let mut faults = String::new();
    for source in sources() {
        if module(&source.path).is_some_and(|module| PINGORA.contains(&module)) {
            continue;
        }
        for (line, code) in source.code.iter().enumerate().filter(|(_, code)| names.is_match(code)) {
            writeln!(faults, "src/{}:{}: {}", source.path, line + 1, code.trim()).unwrap();
        }
    }
    report(faults);
}

#[test]
fn what_belongs_to_one_place_stands_there() {
    let mut faults = String::new();
    let sources = sources();
    for (pattern, places, instead) in ONE_PLACE {
        let pattern = Regex::new(pattern).unwrap();
        for source in &sources {
            let excused = places.iter().any(|place| source.path.starts_with(place));
            for (line, code) in source.code.iter().enumerate() {
                if !excused && pattern.is_match(code) {
                    let (path, code) = (&source.path, code.trim());
                    writeln!(faults, "src/{path}:{}: {code}\n    {instead}", line + 1).unwrap();
                }
            }
        }
    }
    report(faults);
}

#[test]
fn files_say_what_they_are_and_stay_readable() {
    let mut faults = String::new();
    for source in sources() {
        let is_test = source.path.ends_with("tests.rs") || source.path.contains("/tests/");
        if !is_test && !source.text.starts_with("//!") {
            writeln!(faults, "src/{}: does not begin with what it is for (`//!`)", source.path).unwrap();
        }
        if source.code.len() > LINES_MAX {
            let lines = source.code.len();
            writeln!(faults, "src/{}: {lines} lines; look for the two things it does", source.path).unwrap();
        }
    }
    report(faults);
}

/// A sleep in a test is a guess about a machine; the one in `eventually` is the interval between two looks.
#[test]
fn scenarios_do_not_sleep() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let pattern = Regex::new(r"\bsleep\(").unwrap();
    let mut faults = String::new();
    for path in rust_files(&root).iter().filter(|path| !path.ends_with("support/mod.rs")) {
        let text = std::fs::read_to_string(path).unwrap();
        for (line, code) in text.lines().map(without_comment).enumerate() {
            if pattern.is_match(&code) && !code.contains("Regex::new") {
                writeln!(faults, "{}:{}: {}", path.display(), line + 1, code.trim()).unwrap();
            }
        }
    }
    report(faults);
}

/// What panics is denied where requests are served, and a panic unwinds in every profile.
#[test]
fn panics_are_denied_and_unwind() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let lints = manifest["lints"]["clippy"].as_table().unwrap();
    for lint in ["unwrap_used", "expect_used", "panic", "todo", "unimplemented", "indexing_slicing"] {
        assert_eq!(lints[lint].as_str(), Some("deny"), "{lint}");
    }
    let library = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).unwrap();
    assert!(library.contains("deny(clippy::get_unwrap, clippy::string_slice, clippy::unreachable)"));
    for (name, profile) in manifest["profile"].as_table().unwrap() {
        assert!(profile.get("panic").is_none(), "profile {name}");
    }
    // Whoever lets one pass says why.
    let denied = Regex::new(r"(allow|expect)\((\s*clippy::\w+,)*\s*clippy::\w+\s*\)").unwrap();
    let found: Vec<_> = sources().into_iter().filter(|source| denied.is_match(&source.text)).collect();
    assert!(
        found.is_empty(),
        "without a reason: {:?}",
        found.iter().map(|source| &source.path).collect::<Vec<_>>()
    );
}
