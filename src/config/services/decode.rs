//! From a row to what the configuration has of it, and from JSON to a row.

use std::sync::Arc;

use serde_json::Value as Json;

use super::{ENDPOINTS_MAX, NAME_BYTES_MAX, Problem, Row, ServiceRaw, nodes};
use crate::base::decode::{Decoder, Entry, Kind, Node, Surroundings, Table, Value, push_index, push_key};
use crate::base::diagnostic::{Diagnostics, Severity};
use crate::base::origin::{At, Origin, Sources};
use crate::config::Loaded;
use crate::config::route::RouteRaw;
use crate::store::{COLUMN_CHARACTERS_MAX, ServiceRow};
use crate::upstream::config::UpstreamRaw;

/// Columns that hold JSON.
const LISTS: [&str; 4] = ["methods", "hosts", "endpoints", "roles"];

/// Reads a row as far as it can be without the other ones.
pub(super) fn read(
    row: &ServiceRow,
    loaded: &Loaded,
    surroundings: Surroundings<'_>,
) -> Result<Row, Vec<Problem>> {
    let name: Arc<str> = row.name.as_str().into();
    let mut out = Diagnostics::default();
    let read = tree(row, &name, &mut out).and_then(|node| {
        let mut cx = Decoder::new(&loaded.sources, surroundings, &[], &mut out);
        let raw = ServiceRaw::decode(&node, &mut cx)?;
        let mut made = nodes::of(&raw, &node, loaded, &mut out)?;
        loaded.under.lay(&mut made.route, &mut made.upstreams);
        let mut cx = Decoder::new(&loaded.sources, surroundings, &[], &mut out);
        let route = RouteRaw::decode(&made.route, &mut cx)?;
        let origin = made.route.origin.clone();
        let upstreams = made.upstreams.into_iter().map(|(name, node)| {
            let upstream = UpstreamRaw::decode(&node, &mut cx)?;
            Some((name, At::new(upstream, node.origin)))
        });
        let upstreams = upstreams.collect::<Option<Vec<_>>>()?;
        Some(Row { name: name.clone(), route: At::new(route, origin), upstreams })
    });
    finish(read, out, &loaded.sources)
}

fn finish<T>(read: Option<T>, out: Diagnostics, sources: &Sources) -> Result<T, Vec<Problem>> {
    match read {
        Some(read) if !out.has_errors() => Ok(read),
        _ => Err(out
            .iter()
            .filter(|item| item.severity == Severity::Error)
            .map(|item| Problem::of(item, sources))
            .collect()),
    }
}

/// The place `column` of the service `name`.
pub(super) fn at(name: &Arc<str>, column: &str) -> Origin {
    Origin::Row { name: name.clone(), column: column.into() }
}

/// The row as a tree; `None`, reported, if a part of it cannot be read.
fn tree(row: &ServiceRow, name: &Arc<str>, out: &mut Diagnostics) -> Option<Node> {
    check_name(name, out);
    let whole = at(name, "");
    let mut table = Table::new();
    let mut put = |key: &str, node: Node| {
        table.insert(key.to_owned(), Entry { key: node.origin.clone(), node });
    };
    put("name", Node::string(row.name.as_str(), at(name, "name")));
    put("path", Node::string(row.path.as_str(), at(name, "path")));
    let texts = [&row.methods, &row.hosts, &row.endpoints, &row.roles];
    for (column, text) in LISTS.into_iter().zip(texts) {
        if text.chars().count() >= COLUMN_CHARACTERS_MAX {
            let message = format!("the column has more than {} KiB", COLUMN_CHARACTERS_MAX >> 10);
            out.error("invalid-value", &at(name, column), "", message);
            continue;
        }
        let json = match serde_json::from_str::<Json>(if text.trim().is_empty() { "[]" } else { text }) {
            Ok(json) => json,
            Err(error) => {
                out.error("syntax", &at(name, column), "", format!("this is not JSON: {error}"))
                    .hint("write a list, such as [\"GET\"]");
                continue;
            }
        };
        if let Some(node) = node(&json, name, &mut column.to_owned(), out) {
            put(column, node);
        }
    }
    put("enabled", Node { origin: at(name, "enabled"), kind: Kind::Boolean(row.enabled) });
    Some(Node { origin: whole, kind: Kind::Table(table) }).filter(|_| !out.has_errors())
}

/// Names stand in logs, metrics, paths of the API and on command lines.
fn check_name(name: &Arc<str>, out: &mut Diagnostics) {
    let problem = if name.is_empty() {
        "the name is empty".to_owned()
    } else if name.len() > NAME_BYTES_MAX {
        format!("the name is longer than {NAME_BYTES_MAX} bytes")
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        "a name has letters, digits, \"-\", \"_\" and \".\"".to_owned()
    } else if name.bytes().all(|byte| byte == b'.') {
        "a name is more than dots".to_owned()
    } else {
        return;
    };
    out.error("invalid-value", &at(name, "name"), "", problem);
}

/// JSON as a tree whose values know their column. `None` for null, which says the same as nothing at all.
fn node(json: &Json, name: &Arc<str>, column: &mut String, out: &mut Diagnostics) -> Option<Node> {
    let length = column.len();
    let origin = at(name, column);
    let kind = match json {
        Json::Null => return None,
        Json::Bool(value) => Kind::Boolean(*value),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Kind::Integer(integer),
            None => Kind::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Kind::String { text: text.clone(), substituted: false },
        Json::Array(items) => {
            let mut nodes = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                push_index(column, index);
                match node(item, name, column, out) {
                    Some(node) => nodes.push(node),
                    None => drop(out.error("wrong-type", &at(name, column), "", "null is no value")),
                }
                column.truncate(length);
            }
            Kind::Array(nodes)
        }
        Json::Object(members) => {
            let mut table = Table::with_capacity(members.len());
            for (key, value) in members {
                push_key(column, key);
                if let Some(node) = node(value, name, column, out) {
                    table.insert(key.clone(), Entry { key: node.origin.clone(), node });
                }
                column.truncate(length);
            }
            Kind::Table(table)
        }
    };
    Some(Node { origin, kind })
}

/// See [`super::row_of`].
pub(super) fn row_of(json: &Json, loaded: &Loaded, now: i64) -> Result<ServiceRow, Vec<Problem>> {
    let name: Arc<str> = json.get("name").and_then(Json::as_str).unwrap_or_default().into();
    let mut out = Diagnostics::default();
    let read = node(json, &name, &mut String::new(), &mut out).and_then(|node| {
        let surroundings = crate::config::surroundings();
        let mut cx = Decoder::new(&loaded.sources, surroundings, &[], &mut out);
        let raw = ServiceRaw::decode(&node, &mut cx)?;
        check_name(&name, &mut out);
        check_endpoints(&node, &name, &mut out);
        let column = |key: &str| match node.get(key) {
            Some(node) => node.to_json().to_string(),
            None => "[]".to_owned(),
        };
        let row = ServiceRow {
            name: raw.name.value.clone(),
            path: raw.path.as_str().to_owned(),
            methods: column("methods"),
            hosts: column("hosts"),
            endpoints: column("endpoints"),
            roles: column("roles"),
            enabled: *raw.enabled,
            created_at: now,
            changed_at: now,
        };
        for (key, text) in LISTS.into_iter().zip([&row.methods, &row.hosts, &row.endpoints, &row.roles]) {
            if text.len() >= COLUMN_CHARACTERS_MAX {
                let message = format!("this is larger than {} KiB", COLUMN_CHARACTERS_MAX >> 10);
                out.error("invalid-value", &at(&name, key), "", message);
            }
        }
        Some(row)
    });
    if read.is_none() && !out.has_errors() {
        out.error("wrong-type", &at(&name, ""), "", "expected an object, found null");
    }
    finish(read, out, &loaded.sources)
}

/// There is at least one endpoint, and not more than a request can wait for.
pub(super) fn check_endpoints(node: &Node, name: &Arc<str>, out: &mut Diagnostics) {
    let origin = at(name, "endpoints");
    let Some(endpoints) = node.get("endpoints").and_then(Node::as_array) else { return };
    if endpoints.is_empty() {
        out.error("missing-key", &origin, "", "the service has no endpoints")
            .hint("add one: {\"type\": \"http-get\", \"url\": \"http://host:port/path\"}");
    } else if endpoints.len() > ENDPOINTS_MAX {
        let message = format!("there are {} endpoints, at most {ENDPOINTS_MAX} are allowed", endpoints.len());
        out.error("invalid-value", &origin, "", message);
    }
}

/// See [`super::json_of`].
pub(super) fn json_of(row: &ServiceRow) -> Json {
    let list = |text: &str| match text.trim() {
        "" => Json::Array(Vec::new()),
        text => serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_owned())),
    };
    serde_json::json!({
        "name": row.name,
        "path": row.path,
        "methods": list(&row.methods),
        "hosts": list(&row.hosts),
        "endpoints": list(&row.endpoints),
        "roles": list(&row.roles),
        "enabled": row.enabled,
    })
}
