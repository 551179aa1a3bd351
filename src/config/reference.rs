//! `conf/edgeward.toml` shows every key, and its default where it has one.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Runtime, load, load_text, raw::ConfigRaw, render, surroundings};
use crate::base::decode::{Node, Presence, Shape, Value, parse, tables};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::FileId;
use crate::base::units::parse_duration;

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/edgeward.toml")
}

/// The reference with its absent keys written: each line that begins with `#` and a key.
fn written_out() -> String {
    let text = std::fs::read_to_string(path()).unwrap();
    let absent = |line: &str| {
        let key = line.strip_prefix('#')?;
        key.starts_with(|c: char| c.is_ascii_lowercase()).then(|| key.to_owned())
    };
    text.lines().map(|line| absent(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

/// All values under `key` of the tables at `place`; `*` and lists stand for each of theirs.
fn find<'n>(node: &'n Node, place: &[&str], key: &str, found: &mut Vec<&'n Node>) {
    if let Some(nodes) = node.as_array() {
        nodes.iter().for_each(|inner| find(inner, place, key, found));
        return;
    }
    match place {
        [] => found.extend(node.get(key)),
        ["*", rest @ ..] => {
            for entry in node.as_table().into_iter().flat_map(|table| table.values()) {
                find(&entry.node, rest, key, found);
            }
        }
        [name, rest @ ..] => node.get(name).into_iter().for_each(|inner| find(inner, rest, key, found)),
    }
}

/// Whether both say the same: "75s" is "1m15s".
fn same(one: &Node, two: &Node) -> bool {
    let duration = |node: &Node| node.as_str().and_then(|text| parse_duration(text).ok());
    match (duration(one), duration(two)) {
        (Some(one), Some(two)) => one == two,
        _ => one.render() == two.render(),
    }
}

#[test]
fn the_reference_is_a_configuration_without_a_doubt() {
    let compiled = load(&path(), surroundings()).compile(&Runtime::detached());
    assert!(
        compiled.diagnostics.is_empty(),
        "{}",
        render::text(&compiled.diagnostics, &compiled.sources, false)
    );
}

#[test]
fn the_reference_shows_every_key_with_its_default() {
    let text = written_out();
    let mut out = Diagnostics::default();
    let root = parse(FileId(0), &text, &mut out);
    assert!(out.is_empty(), "{out:?}");
    let mut missing = BTreeSet::new();
    for place in tables(&ConfigRaw::shape()) {
        // Their keys are those of routes and upstreams.
        if ["defaults", "upstream_defaults"].iter().any(|table| place.path.starts_with(table)) {
            continue;
        }
        let parts: Vec<&str> = place.path.split('.').filter(|part| !part.is_empty()).collect();
        for key in place.keys {
            let mut found = Vec::new();
            find(&root, &parts, key.name, &mut found);
            let name = format!("[{}] {}", place.path, key.name);
            if found.is_empty() {
                missing.insert(name);
                continue;
            }
            // Tables show their defaults key by key.
            let Presence::Default(render) = key.presence else { continue };
            let shape = (key.shape)();
            if shape.is_table() || matches!(&shape, Shape::List(inner) if inner.is_table()) {
                continue;
            }
            let default = parse(FileId(0), &format!("value = {}", render()), &mut out);
            let default = default.get("value").unwrap();
            if !found.iter().any(|node| same(node, default)) {
                missing.insert(format!("{name} = {}", render()));
            }
        }
    }
    // A fallback is one of two tables; its other form has the keys of `respond`, which are shown there.
    missing.retain(|name| !name.starts_with("[upstreams.*.fallback]"));
    // Where a secret is kept: a file or a variable that is not there while this is read. The comment beside it says so.
    missing.retain(|name| !name.ends_with("secret] file") && !name.ends_with("secret] env"));
    missing.retain(|name| !name.starts_with("[store.url]") && !name.starts_with("[consumers.*.api_keys]"));
    missing.retain(|name| !name.starts_with("[cluster.redis] ") && !name.starts_with("[brokers.*.url] "));
    missing.retain(|name| !name.starts_with("[admin.token] "));
    assert!(missing.is_empty(), "conf/edgeward.toml lacks {missing:#?}");
}

/// What is commented out must be right, too: it is what readers copy.
#[test]
fn what_the_reference_leaves_out_is_right_as_well() {
    let text = written_out();
    let loaded = load_text(&path(), &text, surroundings());
    let shown = render::text(&loaded.diagnostics, &loaded.sources, false);
    // What stands there for a secret is one that stands there.
    assert!(loaded.diagnostics.iter().all(|problem| problem.code == "literal-secret"), "{shown}");
}
