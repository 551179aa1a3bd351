//! The configuration as a JSON Schema (draft-07), which TOML editors use for completion and hover.

use serde_json::{Map, Value, json};

use super::raw::ConfigRaw;
use crate::base::decode::{Key, Presence, Shape, TableShape, Value as _, doc_text};

/// Tables nested deeper than this are not described: no declared table is.
const DEPTH_MAX: usize = 16;

/// The schema, indented, with a newline at the end.
pub fn text() -> String {
    format!("{:#}\n", schema())
}

/// The schema.
pub fn schema() -> Value {
    let mut root = Map::new();
    root.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
    root.insert("title".to_owned(), json!("Edgeward"));
    if let Value::Object(described) = describe(&ConfigRaw::shape(), 0) {
        root.extend(described);
    }
    Value::Object(root)
}

fn describe(shape: &Shape, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return json!({});
    }
    match shape {
        Shape::Text { pattern: None, examples: [] } => json!({ "type": "string" }),
        Shape::Text { pattern: None, examples } => json!({ "type": "string", "examples": examples }),
        // A variable may stand anywhere in a string, so a pattern must leave room for it.
        Shape::Text { pattern: Some(pattern), examples } => {
            json!({ "type": "string", "pattern": format!("{pattern}|\\$\\{{"), "examples": examples })
        }
        Shape::Word(words) => json!({ "enum": words }),
        Shape::Integer { min, max } => {
            let mut integer = Map::new();
            integer.insert("type".to_owned(), json!("integer"));
            if *min > i64::MIN {
                integer.insert("minimum".to_owned(), json!(min));
            }
            if *max < i64::MAX {
                integer.insert("maximum".to_owned(), json!(max));
            }
            or_variable(Value::Object(integer))
        }
        Shape::Number => or_variable(json!({ "type": "number" })),
        Shape::Boolean => or_variable(json!({ "type": "boolean" })),
        Shape::Only(value) => json!({ "const": value }),
        Shape::List(inner) => json!({ "type": "array", "items": describe(inner, depth + 1) }),
        Shape::Map { of: inner, .. } => {
            // `false` takes an inherited entry away.
            let mut value = describe(inner, depth + 1);
            if !inner.takes_false() {
                value = json!({ "anyOf": [value, { "const": false }] });
            }
            json!({ "type": "object", "additionalProperties": value })
        }
        Shape::Table(table) => describe_table(table, depth),
        Shape::OneOf(shapes) => {
            json!({ "anyOf": shapes.iter().map(|shape| describe(shape, depth + 1)).collect::<Vec<_>>() })
        }
        Shape::Any => json!({}),
    }
}

/// Where a number or boolean is due, a string holding a variable is read as one.
fn or_variable(value: Value) -> Value {
    json!({ "anyOf": [value, { "type": "string", "pattern": "\\$\\{" }] })
}

fn describe_table(table: &TableShape, depth: usize) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in table.keys {
        properties.insert(key.name.to_owned(), describe_key(key, depth));
        if matches!(key.presence, Presence::Required) {
            required.push(json!(key.name));
        }
    }
    let mut described = Map::new();
    let doc = doc_text(table.doc);
    if !doc.is_empty() {
        described.insert("description".to_owned(), json!(doc));
    }
    described.insert("type".to_owned(), json!("object"));
    described.insert("additionalProperties".to_owned(), json!(false));
    if !required.is_empty() {
        described.insert("required".to_owned(), Value::Array(required));
    }
    described.insert("properties".to_owned(), Value::Object(properties));
    Value::Object(described)
}

fn describe_key(key: &Key, depth: usize) -> Value {
    let shape = (key.shape)();
    let mut value = describe(&shape, depth + 1);
    // `false` takes an inherited table away.
    if shape.is_table() && !shape.takes_false() && depth > 0 {
        value = json!({ "anyOf": [value, { "const": false }] });
    }
    if let Value::Object(described) = &mut value {
        let mut doc = doc_text(key.doc);
        if key.needs_upgrade {
            doc.push_str("\n\nA change needs an upgrade; a reload refuses it.");
        }
        described.insert("description".to_owned(), json!(doc));
        if let Presence::Default(render) = key.presence
            && let Some(default) = default_value(&render())
        {
            described.insert("default".to_owned(), default);
        }
    }
    value
}

/// A rendered default as JSON; `None` for a table of defaults, whose keys have their own.
fn default_value(rendered: &str) -> Option<Value> {
    let mut document: toml::Table = format!("value = {rendered}").parse().ok()?;
    let value = document.remove("value")?;
    if value.is_table() { None } else { serde_json::to_value(value).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
        value.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is missing"))
    }

    #[test]
    fn the_schema_says_what_editors_need() {
        let schema = schema();
        let limits = at(&schema, "/properties/limits/properties");
        assert_eq!(at(limits, "/body_bytes/default"), "10MiB");
        assert_eq!(at(limits, "/connections/default"), 20_000);
        let route = at(&schema, "/properties/routes/items");
        assert_eq!(at(route, "/required"), &json!(["path"]));
        assert_eq!(at(route, "/additionalProperties"), false);
        assert!(schema.pointer("/properties/defaults/properties/path").is_none());
        assert!(schema.pointer("/properties/defaults/properties/body_bytes").is_some());
        let threads = at(&schema, "/properties/server/properties/threads/description");
        assert!(threads.as_str().unwrap().contains("needs an upgrade"));
    }

    /// A default that could not be written down would be missing from editors, and from the reference.
    #[test]
    fn every_default_decodes_to_itself_and_every_key_is_explained() {
        for place in crate::base::decode::tables(&ConfigRaw::shape()) {
            for key in place.keys {
                assert!(!doc_text(key.doc).is_empty(), "{}.{} has no doc", place.path, key.name);
                let Presence::Default(render) = key.presence else { continue };
                let text = format!("value = {}", render());
                let mut out = crate::base::diagnostic::Diagnostics::default();
                let sources = crate::base::origin::Sources::default();
                let root = crate::base::decode::parse(crate::base::origin::FileId(0), &text, &mut out);
                let surroundings = crate::config::surroundings();
                let mut cx = crate::base::decode::Decoder::new(&sources, surroundings, &[], &mut out);
                (key.check)(root.get("value").unwrap(), &mut cx);
                assert!(out.is_empty(), "{}.{} = {}: {out:?}", place.path, key.name, render());
            }
        }
    }
}
