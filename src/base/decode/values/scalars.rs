//! Numbers, booleans, strings, paths, and anything at all.

use std::path::{Path, PathBuf};

use super::super::{Decoder, Kind, Node, Shape, Value, quote};

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl Value for $type {
            fn shape() -> Shape {
                Shape::Integer {
                    min: i64::try_from(<$type>::MIN).unwrap_or(i64::MIN),
                    max: i64::try_from(<$type>::MAX).unwrap_or(i64::MAX),
                }
            }

            fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
                let value = match &node.kind {
                    Kind::Integer(value) => *value,
                    Kind::String { text, substituted: true } => match text.trim().parse() {
                        Ok(value) => value,
                        Err(_) => return cx.invalid(node, "is not an integer"),
                    },
                    Kind::String { text, .. } => {
                        let hint = text.parse::<i64>().ok().map(|value| format!("write {value} without quotes"));
                        return cx.expected_or(node, "an integer", hint);
                    }
                    _ => return cx.expected(node, "an integer"),
                };
                match <$type>::try_from(value) {
                    Ok(value) => Some(value),
                    Err(_) => cx.invalid(node, bounds(&Self::shape())),
                }
            }

            fn render(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

integers!(u8 u16 u32 u64 i32 i64 usize);

fn bounds(shape: &Shape) -> String {
    match shape {
        Shape::Integer { min: 0, max: i64::MAX } => "is negative".to_owned(),
        Shape::Integer { min, max } => format!("is not between {min} and {max}"),
        _ => "does not fit".to_owned(),
    }
}

impl Value for f64 {
    fn shape() -> Shape {
        Shape::Number
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let value = match &node.kind {
            #[expect(clippy::cast_precision_loss, reason = "a configured number needs no 53 bits")]
            Kind::Integer(value) => *value as f64,
            Kind::Float(value) => *value,
            Kind::String { text, substituted: true } => match text.trim().parse() {
                Ok(value) => value,
                Err(_) => return cx.invalid(node, "is not a number"),
            },
            _ => return cx.expected(node, "a number"),
        };
        if value.is_finite() { Some(value) } else { cx.invalid(node, "is not a finite number") }
    }

    fn render(&self) -> String {
        format!("{self:?}")
    }
}

impl Value for bool {
    fn shape() -> Shape {
        Shape::Boolean
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Boolean(value) => Some(*value),
            Kind::String { text, substituted: true } => match text.trim() {
                "true" => Some(true),
                "false" => Some(false),
                _ => cx.invalid(node, "is neither true nor false"),
            },
            Kind::String { text, .. } => {
                let hint = match text.to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" | "1" => Some("write true without quotes".to_owned()),
                    "false" | "no" | "off" | "0" => Some("write false without quotes".to_owned()),
                    _ => None,
                };
                cx.expected_or(node, "true or false", hint)
            }
            _ => cx.expected(node, "true or false"),
        }
    }

    fn render(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &[] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match &node.kind {
            Kind::String { text, .. } => Some(text.clone()),
            Kind::Integer(value) => {
                cx.expected_or(node, "a string", Some(format!("write it in quotes: \"{value}\"")))
            }
            _ => cx.expected(node, "a string"),
        }
    }

    fn render(&self) -> String {
        quote(&self.replace("${", "$${"))
    }
}

/// A path of a file: a relative one starts at the directory of the file that names it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigPath(pub PathBuf);

impl std::ops::Deref for ConfigPath {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Value for ConfigPath {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["run/edgeward.pid"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let path = path(node, cx)?;
        cx.names_file(&path);
        Some(Self(path))
    }

    fn render(&self) -> String {
        quote(&self.0.to_string_lossy())
    }
}

fn path(node: &Node, cx: &mut Decoder<'_>) -> Option<PathBuf> {
    let Some(text) = node.as_str() else { return cx.expected(node, "a path") };
    if text.is_empty() {
        return cx.invalid(node, "is no path");
    }
    if text.contains('\0') {
        return cx.invalid(node, "holds a NUL, which no path can");
    }
    Some(cx.resolve(&node.origin, text))
}

/// A path like [`ConfigPath`], of a directory that is served: what is in it is no part of the configuration, and a change
/// there no reason to read that again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServedDirectory(pub PathBuf);

impl Value for ServedDirectory {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["/srv/www"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        path(node, cx).map(Self)
    }

    fn render(&self) -> String {
        quote(&self.0.to_string_lossy())
    }
}

/// Whatever TOML can hold, with its places.
impl Value for Node {
    fn shape() -> Shape {
        Shape::Any
    }

    fn decode(node: &Node, _: &mut Decoder<'_>) -> Option<Self> {
        (node.kind != Kind::Broken).then(|| node.clone())
    }

    fn render(&self) -> String {
        match &self.kind {
            Kind::Table(table) => {
                let entries: Vec<(String, Option<String>)> =
                    table.iter().map(|(key, entry)| (quote(key), Some(entry.node.render()))).collect();
                let entries: Vec<(&str, Option<String>)> =
                    entries.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
                super::super::render_table(&entries)
            }
            Kind::Array(nodes) => {
                format!("[{}]", nodes.iter().map(Value::render).collect::<Vec<_>>().join(", "))
            }
            Kind::String { text, .. } => quote(text),
            Kind::Integer(value) => value.to_string(),
            Kind::Float(value) => format!("{value:?}"),
            Kind::Boolean(value) => value.to_string(),
            Kind::Datetime(text) => text.clone(),
            Kind::Broken => "\"\"".to_owned(),
        }
    }
}

/// Whatever TOML can hold, as JSON.
impl Value for serde_json::Value {
    fn shape() -> Shape {
        Shape::Any
    }

    fn decode(node: &Node, _: &mut Decoder<'_>) -> Option<Self> {
        (node.kind != Kind::Broken).then(|| node.to_json())
    }

    fn render(&self) -> String {
        match self {
            Self::Null => "\"\"".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::String(text) => quote(text),
            Self::Array(items) => {
                format!("[{}]", items.iter().map(Value::render).collect::<Vec<_>>().join(", "))
            }
            Self::Object(entries) => {
                let entries: Vec<String> = entries
                    .iter()
                    .map(|(key, value)| format!("{} = {}", quote(key), value.render()))
                    .collect();
                if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
            }
        }
    }
}
