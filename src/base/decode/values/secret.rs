//! Secrets: from a file, from the environment, or (for trying things out) in place.

use super::super::{Decoder, Kind, Node, Shape, Value};
use crate::base::secret::Secret;

/// Largest secret read from a file, in bytes.
const SECRET_BYTES_MAX: usize = 64 << 10;

crate::keys! {
    /// A secret kept outside the configuration: one of the two keys.
    struct SecretSource {
        /// A file that holds it; one trailing newline is dropped.
        file: optional super::ConfigPath,
        /// A variable of the environment that holds it.
        env: optional String,
    }
}

impl Value for Secret {
    fn shape() -> Shape {
        Shape::OneOf(vec![SecretSource::shape(), String::shape()])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let secret = Self::decode_url(node, cx)?;
        if matches!(node.kind, Kind::String { substituted: false, .. }) {
            let message =
                "this secret stands in the configuration, for whoever reads it, its backups and diffs";
            cx.warning("literal-secret", &node.origin, message)
                .hint("keep it elsewhere: { file = \"path\" } or { env = \"NAME\" }");
        }
        Some(secret)
    }

    fn render(&self) -> String {
        "\"***\"".to_owned()
    }
}

impl Secret {
    /// Reads what may hold a secret and need not, such as a URL: written in place it is nothing to be warned of.
    pub(crate) fn decode_url(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        if !matches!(node.kind, Kind::Table(_)) {
            cx.sources().hide(&node.origin);
        }
        match &node.kind {
            Kind::String { text, .. } if text.is_empty() => {
                cx.error("invalid-value", &node.origin, "the secret is empty");
                None
            }
            Kind::String { text, .. } => Some(Self::new(text.clone())),
            Kind::Table(_) => from_source(&SecretSource::decode(node, cx)?, node, cx),
            _ => cx.expected(node, "{ file = \"path\" } or { env = \"NAME\" }"),
        }
    }
}

fn from_source(source: &SecretSource, node: &Node, cx: &mut Decoder<'_>) -> Option<Secret> {
    let (value, what, origin) = match (&source.file, &source.env) {
        (Some(file), None) => {
            let what = format!("the file {}", file.display());
            let bytes = match (cx.surroundings.read)(file) {
                Ok(bytes) => bytes,
                Err(error) => {
                    cx.error("unreadable-file", &file.origin, format!("cannot read {what}: {error}"));
                    return None;
                }
            };
            let Some(text) =
                Some(bytes).filter(|bytes| bytes.len() <= SECRET_BYTES_MAX).map(String::from_utf8)
            else {
                cx.error("unreadable-file", &file.origin, format!("{what} is too large for a secret"));
                return None;
            };
            let Ok(text) = text else {
                cx.error("unreadable-file", &file.origin, format!("{what} is not text"));
                return None;
            };
            let text =
                text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text)).unwrap_or(&text);
            (text.to_owned(), what, &file.origin)
        }
        (None, Some(name)) => {
            let what = format!("the variable {}", name.value);
            let Some(value) = (cx.surroundings.env)(name).filter(|value| !value.is_empty()) else {
                cx.error("unset-variable", &name.origin, format!("{what} is not set"));
                return None;
            };
            (value, what, &name.origin)
        }
        _ => {
            // A broken key was reported; nothing or both were not.
            if node.as_table().is_some_and(|table| table.len() != 1) {
                let message = "a secret is either { file = \"path\" } or { env = \"NAME\" }";
                cx.error("invalid-value", &node.origin, message);
            }
            return None;
        }
    };
    if value.is_empty() {
        cx.error("invalid-value", origin, format!("{what} is empty"));
        return None;
    }
    Some(Secret::new(value))
}
