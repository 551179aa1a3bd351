//! Lists and maps.

use std::hash::Hash;

use http::HeaderName;
use indexmap::IndexMap;

use super::super::{Decoder, Kind, Node, Setting, Shape, Value, decode_at, join_key, quote};
use crate::base::origin::{At, Origin};

impl<T: Value> Value for At<T> {
    fn shape() -> Shape {
        T::shape()
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        decode_at(node, cx)
    }

    fn render(&self) -> String {
        self.value.render()
    }

    fn settings(&self, key: &str, _: &Origin, out: &mut Vec<Setting>) {
        self.value.settings(key, &self.origin, out);
    }
}

impl<T: Value> Value for Box<T> {
    fn shape() -> Shape {
        T::shape()
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        T::decode(node, cx).map(Box::new)
    }

    fn render(&self) -> String {
        T::render(self)
    }

    fn settings(&self, key: &str, origin: &Origin, out: &mut Vec<Setting>) {
        T::settings(self, key, origin, out);
    }
}

/// A list; elements that cannot be read are reported and left out. A variable may hold one: `a, b` or `["a", "b"]`.
impl<T: Value> Value for Vec<T> {
    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let split;
        let nodes = match &node.kind {
            Kind::Array(nodes) => nodes,
            Kind::String { text, substituted: true } => {
                split = split_list(text, &node.origin);
                &split
            }
            Kind::String { text, .. } => {
                return cx.expected_or(node, "a list", Some(format!("write [{}]", quote(text))));
            }
            Kind::Table(_) if matches!(T::shape(), Shape::Table(_)) => {
                let hint = format!("write [[{}]] for each of them", cx.path());
                return cx.expected_or(node, "a list", Some(hint));
            }
            _ => return cx.expected(node, "a list"),
        };
        let decode = |(index, node)| cx.index(index, |cx| T::decode(node, cx));
        Some(nodes.iter().enumerate().filter_map(decode).collect())
    }

    fn render(&self) -> String {
        format!("[{}]", self.iter().map(Value::render).collect::<Vec<_>>().join(", "))
    }
}

/// The elements of a list that came from a variable: brackets and quotes may be there or not.
fn split_list(text: &str, origin: &Origin) -> Vec<Node> {
    let text = text.trim();
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let unquoted = |item: &str| {
        let strip = |quote| item.strip_prefix(quote).and_then(|item| item.strip_suffix(quote));
        strip('"').or_else(|| strip('\'')).unwrap_or(item).to_owned()
    };
    inner
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| Node {
            origin: origin.clone(),
            kind: Kind::String { text: unquoted(item), substituted: true },
        })
        .collect()
}

/// What can be the name of a map's entry.
pub trait MapKey: Sized + Eq + Hash {
    /// Whether names that differ only in case are one.
    const ANY_CASE: bool = false;

    /// Reads a name; the error completes "`name` …".
    fn from_key(key: &str) -> Result<Self, String>;
    /// The name as written.
    fn as_key(&self) -> &str;
}

impl MapKey for String {
    fn from_key(key: &str) -> Result<Self, String> {
        Ok(key.to_owned())
    }

    fn as_key(&self) -> &str {
        self
    }
}

impl MapKey for HeaderName {
    const ANY_CASE: bool = true;

    fn from_key(key: &str) -> Result<Self, String> {
        key.parse().map_err(|_| "is not a header name".to_owned())
    }

    fn as_key(&self) -> &str {
        self.as_str()
    }
}

/// A table whose keys are names; entries that cannot be read are reported and left out.
impl<K: MapKey, T: Value> Value for IndexMap<K, At<T>> {
    fn shape() -> Shape {
        Shape::Map { of: Box::new(T::shape()), any_case: K::ANY_CASE }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Kind::Table(table) = &node.kind else { return cx.expected(node, "a table") };
        let mut map = Self::with_capacity(table.len());
        for (name, entry) in table {
            let value = cx.entry(name, |cx| decode_at(&entry.node, cx));
            match K::from_key(name) {
                Err(why) => {
                    cx.error("invalid-value", &entry.key, format!("{} {why}", quote(name)));
                }
                Ok(key) => {
                    // Names that differ as text may be one as keys: `X-A` and `x-a`.
                    if map.contains_key(&key) {
                        cx.error("duplicate-key", &entry.key, format!("{} is given twice", quote(name)));
                    } else if let Some(value) = value {
                        map.insert(key, value);
                    }
                }
            }
        }
        Some(map)
    }

    fn render(&self) -> String {
        let entries: Vec<(String, Option<String>)> =
            self.iter().map(|(key, at)| (quote(key.as_key()), Some(at.value.render()))).collect();
        let entries: Vec<(&str, Option<String>)> =
            entries.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        super::super::render_table(&entries)
    }

    /// Entry by entry: each may have been written elsewhere.
    fn settings(&self, key: &str, _: &Origin, out: &mut Vec<Setting>) {
        for (name, at) in self {
            at.value.settings(&join_key(key, name.as_key()), &at.origin, out);
        }
    }
}
