//! Joins included files to the main one and lays `[defaults]` under routes and `[upstream_defaults]` under upstreams.
//!
//! Works on trees, before decoding, so that every effective value still knows where it was written. One rule: a table
//! merges key by key, anything else replaces; `false` takes an inherited table or entry away.

use crate::base::decode::{
    Decoder, Entry, Key, Keys, Kind, Node, Shape, Table, TableShape, Value, check_partial, quote,
};
use crate::base::names::nearest;
use crate::base::origin::Origin;

use super::files::Files;
use super::raw::{ConfigRaw, ROUTE_DEFAULT_KEYS, UPSTREAM_DEFAULT_KEYS};
use super::route::{RouteRaw, TARGETS};
use crate::upstream::config::UpstreamRaw;

/// What an included file may hold. Anything else would let a team's file open the process.
const INCLUDABLE: &[&str] =
    &["upstreams", "brokers", "rate_limits", "plans", "consumers", "identity", "routes", "defaults"];

/// What lies under the routes and upstreams of the main file: under those that stand in no file as well.
#[derive(Debug, Default, Clone)]
pub(super) struct Under {
    /// `[defaults]`.
    pub(super) routes: Option<Table>,
    /// `[upstream_defaults]`.
    pub(super) upstreams: Option<Table>,
}

impl Under {
    /// Lays the defaults under a route and under upstreams.
    pub(super) fn lay(&self, route: &mut Node, upstreams: &mut [(String, Node)]) {
        lay_under(route, self.routes.as_ref(), &RouteRaw::shape());
        let shape = UpstreamRaw::shape();
        upstreams.iter_mut().for_each(|(_, node)| lay_under(node, self.upstreams.as_ref(), &shape));
    }
}

/// One root table of all files, with defaults applied; problems are reported to `cx`.
pub(super) fn merge(files: Files, cx: &mut Decoder<'_>) -> (Node, Under) {
    let Files { main, included } = files;
    let origin = main.origin.clone();
    let Kind::Table(mut root) = main.kind else {
        return (Node { origin, kind: Kind::Table(Table::new()) }, Under::default());
    };

    let (route_shape, upstream_shape) = (RouteRaw::shape(), UpstreamRaw::shape());
    let defaults = checked_defaults(&root, "defaults", &ROUTE_DEFAULT_KEYS, cx);
    let upstream_defaults = checked_defaults(&root, "upstream_defaults", &UPSTREAM_DEFAULT_KEYS, cx);

    let mut routes = take_routes(&mut root, cx);
    for (index, route) in routes.iter_mut().enumerate() {
        refuse_unused(route, index, cx);
        lay_under(route, defaults.as_ref(), &route_shape);
    }
    for file in included {
        let Kind::Table(mut table) = file.kind else { continue };
        // The file's own defaults lie on top of the main file's.
        let own = checked_defaults(&table, "defaults", &ROUTE_DEFAULT_KEYS, cx);
        let both = match (own, &defaults) {
            (Some(mut own), Some(defaults)) => {
                lay_table_under(&mut own, defaults, &route_shape);
                Some(own)
            }
            (own, defaults) => own.or_else(|| defaults.clone()),
        };
        for mut route in take_routes(&mut table, cx) {
            refuse_unused(&route, routes.len(), cx);
            lay_under(&mut route, both.as_ref(), &route_shape);
            routes.push(route);
        }
        adopt(&mut root, table, cx);
    }
    if let Some(Entry { node: Node { kind: Kind::Table(upstreams), .. }, .. }) = root.get_mut("upstreams") {
        for upstream in upstreams.values_mut() {
            lay_under(&mut upstream.node, upstream_defaults.as_ref(), &upstream_shape);
        }
    }
    if !routes.is_empty() {
        let node = Node { origin: origin.clone(), kind: Kind::Array(routes) };
        root.insert("routes".to_owned(), Entry { key: origin.clone(), node });
    }
    // Checked above, where what `false` takes away is still known.
    root.shift_remove("upstream_defaults");
    match &defaults {
        Some(defaults) => {
            let node = Node { origin: origin.clone(), kind: Kind::Table(defaults.clone()) };
            root.insert("defaults".to_owned(), Entry { key: origin.clone(), node });
        }
        None => drop(root.shift_remove("defaults")),
    }
    (Node { origin, kind: Kind::Table(root) }, Under { routes: defaults, upstreams: upstream_defaults })
}

/// Reports a `request` of the route's own where nothing is sent on; an inherited one simply does nothing there. Said
/// here, as later nobody knows whose it is.
fn refuse_unused(route: &Node, index: usize, cx: &mut Decoder<'_>) {
    let Some(table) = route.as_table() else { return };
    let local = TARGETS.iter().find(|target| **target != "upstream" && table.contains_key(**target));
    let (Some(target), Some(request)) = (local, table.get("request")) else { return };
    if request.node.kind == Kind::Boolean(false) {
        return;
    }
    let message = format!("\"request\" does nothing beside \"{target}\"");
    cx.key("routes", |cx| {
        cx.index(index, |cx| {
            cx.key_error("unused-key", &request.key, "request", message)
                .hint("it is for routes with `upstream`");
        });
    });
}

/// Lays `below` under `node`. Afterwards no `false` is left that stands for "not this table".
pub(super) fn lay_under(node: &mut Node, below: Option<&Table>, shape: &Shape) {
    if let Kind::Table(table) = &mut node.kind {
        if let Some(below) = below {
            lay_table_under(table, below, shape);
        }
        drop_false(table, shape);
    }
}

fn lay_table_under(table: &mut Table, below: &Table, shape: &Shape) {
    let is_map = matches!(shape, Shape::Map { .. });
    let any_case = matches!(shape, Shape::Map { any_case: true, .. });
    for (name, entry) in below {
        // A header is the same one in any case, also where a route takes it away.
        let same =
            any_case.then(|| table.keys().find(|own| own.eq_ignore_ascii_case(name)).cloned()).flatten();
        let name = same.as_ref().unwrap_or(name);
        let Some(own) = table.get_mut(name) else {
            table.insert(name.clone(), entry.clone());
            continue;
        };
        let Some(inner) = shape.under(name) else { continue };
        match (&mut own.node.kind, &entry.node.kind) {
            (Kind::Boolean(false), _) if !inner.takes_false() && (is_map || inner.is_table()) => {
                table.shift_remove(name);
            }
            (Kind::Table(own), Kind::Table(inherited)) if inner.merges() => {
                lay_table_under(own, inherited, &inner);
            }
            _ => {}
        }
    }
}

/// Drops every `false` for a table, or for an entry of a table of names: with nothing inherited that it could take away it
/// says what is so anyway. Anywhere else it is no value, and decoding says so.
fn drop_false(table: &mut Table, shape: &Shape) {
    let is_map = matches!(shape, Shape::Map { .. });
    table.retain(|name, entry| {
        let Some(inner) = shape.under(name) else { return true };
        match &mut entry.node.kind {
            Kind::Boolean(false) => inner.takes_false() || !(is_map || inner.is_table()),
            Kind::Table(own) if inner.merges() => {
                drop_false(own, &inner);
                true
            }
            _ => true,
        }
    });
}

/// The entries of a table of defaults that may stand there; the others are reported.
fn checked_defaults(root: &Table, name: &str, keys: &'static [Key], cx: &mut Decoder<'_>) -> Option<Table> {
    let entry = root.get(name)?;
    let mut checked = entry.node.clone();
    if let Kind::Table(table) = &mut checked.kind {
        drop_false(table, &Shape::Table(TableShape { doc: &[], keys }));
    }
    cx.key(name, |cx| check_partial(&checked, keys, cx));
    let table = entry.node.as_table()?;
    let allowed = table.iter().filter(|(name, _)| keys.iter().any(|key| key.name == *name));
    Some(allowed.map(|(name, entry)| (name.clone(), entry.clone())).collect())
}

/// Takes the list of routes out of a file's root table.
fn take_routes(root: &mut Table, cx: &mut Decoder<'_>) -> Vec<Node> {
    match root.shift_remove("routes") {
        None => Vec::new(),
        Some(Entry { node: Node { kind: Kind::Array(routes), .. }, .. }) => routes,
        Some(Entry { node, .. }) => {
            let hint = "each route begins with [[routes]]".to_owned();
            cx.key("routes", |cx| cx.expected_or::<()>(&node, "a list", Some(hint)));
            Vec::new()
        }
    }
}

/// Moves what an included file may hold into the root table and reports the rest.
fn adopt(root: &mut Table, table: Table, cx: &mut Decoder<'_>) {
    for (name, entry) in table {
        match name.as_str() {
            "defaults" => {}
            "identity" => adopt_identity(root, entry, cx),
            "upstreams" | "brokers" | "consumers" | "rate_limits" | "plans" => {
                adopt_named(root, name, entry, cx)
            }
            "include" => {
                let message = "an included file cannot include files";
                cx.key_error("not-in-included-file", &entry.key, "include", message)
                    .hint("list the file in the main file's include");
            }
            other => refuse(other, &entry.key, cx),
        }
    }
}

fn refuse(name: &str, origin: &Origin, cx: &mut Decoder<'_>) {
    if INCLUDABLE.contains(&name) {
        let message = format!("{} is not available in this version", quote(name));
        cx.key_error("not-available", origin, name, message);
    } else if ConfigRaw::KEYS.iter().any(|key| key.name == name) {
        let message = format!("{} cannot stand in an included file", quote(name));
        cx.key_error("not-in-included-file", origin, name, message)
            .hint("it belongs in the main file: an included file holds upstreams, consumers, limits, plans, routes and their defaults");
    } else {
        let known = ["upstreams", "brokers", "consumers", "rate_limits", "plans", "routes", "defaults"];
        let message = format!("unknown key {}", quote(name));
        cx.key_error("unknown-key", origin, name, message).suggest(nearest(name, known));
    }
}

/// Of `identity` an included file may hold providers alone.
fn adopt_identity(root: &mut Table, entry: Entry, cx: &mut Decoder<'_>) {
    cx.key("identity", |cx| {
        let Kind::Table(found) = entry.node.kind else {
            cx.expected::<()>(&entry.node, "a table");
            return;
        };
        let identity = root.entry("identity".to_owned()).or_insert_with(|| Entry {
            key: entry.key,
            node: Node { origin: entry.node.origin, kind: Kind::Table(Table::new()) },
        });
        for (name, entry) in found {
            match (name.as_str(), &mut identity.node.kind) {
                ("providers", Kind::Table(identity)) => adopt_named(identity, name, entry, cx),
                ("providers", _) => {}
                _ => {
                    let message = format!("{} cannot stand in an included file", quote(&name));
                    cx.key_error("not-in-included-file", &entry.key, &name, message)
                        .hint("of [identity] an included file holds providers");
                }
            }
        }
    });
}

/// Adds named tables; a name that is there already is reported with both places.
fn adopt_named(root: &mut Table, name: String, entry: Entry, cx: &mut Decoder<'_>) {
    let Kind::Table(found) = entry.node.kind else {
        cx.key(&name, |cx| cx.expected::<()>(&entry.node, "a table"));
        return;
    };
    let known = root.entry(name.clone()).or_insert_with(|| Entry {
        key: entry.key.clone(),
        node: Node { origin: entry.node.origin.clone(), kind: Kind::Table(Table::new()) },
    });
    // Of the wrong type in the main file: reported when that is decoded.
    let Kind::Table(known) = &mut known.node.kind else { return };
    for (inner, entry) in found {
        match known.get(&inner) {
            None => {
                known.insert(inner, entry);
            }
            Some(first) => {
                let message = format!("{} is defined twice in {name}", quote(&inner));
                cx.key(&name, |cx| {
                    cx.entry(&inner, |cx| {
                        cx.error("duplicate-name", &entry.key, message)
                            .related(&first.key, "first defined here");
                    });
                });
            }
        }
    }
}
