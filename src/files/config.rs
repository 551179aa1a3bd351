//! What a route writes under `files`, and what becomes of it.

use std::io::ErrorKind;

use super::Site;
use super::path::is_below;
use crate::base::decode::{Decoder, Kind, Node, ServedDirectory, Shape, Value, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::At;
use crate::keys;
use crate::routing::PathPattern;

keys! {
    /// Files below a directory: the root, then the path after `rewrite`.
    pub struct FilesRaw {
        /// The directory. Links in it may lead to other places in it, not out of it.
        root: required ServedDirectory,
        /// What is sent for a directory: a name, or several of which the first that is there counts; `[]` = none.
        index: IndexRaw = IndexRaw(vec!["index.html".to_owned()]),
        /// A file of the root that is sent, with 200, for a path that names none: `"index.html"` of a single-page app.
        fallback: optional String,
        /// Whether a directory without index is listed: HTML, or JSON where a client asks for it.
        listing: bool = false,
    }
}

/// A name or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexRaw(pub Vec<String>);

impl Value for IndexRaw {
    fn shape() -> Shape {
        Shape::OneOf(vec![String::shape(), Vec::<String>::shape()])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match &node.kind {
            Kind::String { text, .. } => Some(Self(vec![text.clone()])),
            Kind::Array(_) => Vec::<String>::decode(node, cx).map(Self),
            _ => cx.expected(node, "a file name such as \"index.html\", or a list of them"),
        }
    }

    fn render(&self) -> String {
        match self.0.as_slice() {
            [one] => quote(one),
            several => several.to_vec().render(),
        }
    }
}

impl FilesRaw {
    /// The site of a route for `pattern`. `path` is the configuration path of the table.
    pub fn compile(&self, path: &str, pattern: &PathPattern, out: &mut Diagnostics) -> Option<Site> {
        self.check_root(&format!("{path}.root"), out);
        let mut index = Vec::with_capacity(self.index.0.len());
        for name in &self.index.0 {
            if is_below(name) {
                index.push(name.as_bytes().into());
            } else {
                let message = format!("{} is not the name of a file in a directory", quote(name));
                out.error("invalid-value", &self.index.origin, format!("{path}.index"), message);
            }
        }
        let fallback = self.fallback.as_ref().and_then(|fallback| self.fallback(fallback, path, out));
        Some(Site {
            root: self.root.0.clone(),
            index,
            fallback: fallback.map(|name| name.as_bytes().into()),
            listing: *self.listing,
            redirects: pattern.may_end_in_slash(),
        })
    }

    /// The path of the fallback below the root. As in URLs it may begin with a slash.
    fn fallback<'f>(&self, fallback: &'f At<String>, path: &str, out: &mut Diagnostics) -> Option<&'f str> {
        let name = fallback.strip_prefix('/').unwrap_or(fallback);
        if is_below(name) {
            return Some(name);
        }
        let message = format!("{} is not the path of a file below the root", quote(fallback));
        out.error("invalid-value", &fallback.origin, format!("{path}.fallback"), message);
        None
    }

    /// A root that is not there may be mounted later; one that is a file will never be a directory.
    fn check_root(&self, path: &str, out: &mut Diagnostics) {
        let shown = self.root.0.display();
        match std::fs::metadata(&self.root.0) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                out.error("not-a-directory", &self.root.origin, path, format!("{shown} is not a directory"))
                    .hint("for one file use `respond = { file = … }`");
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let message = format!("there is no directory {shown}");
                out.warning("missing-directory", &self.root.origin, path, message)
                    .hint("until there is, requests get 404");
            }
            Err(error) => {
                let message = format!("cannot look at {shown}: {error}");
                out.warning("missing-directory", &self.root.origin, path, message)
                    .hint("until that is so, requests get an error");
            }
        }
    }
}
