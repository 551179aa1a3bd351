//! `request.query`: parameters that are taken out or get another value.

use crate::routing::escape::{push_query, query_means};
use crate::routing::template::{Template, Values};

/// What becomes of a query.
#[derive(Debug, Default)]
pub struct QueryEdits {
    pub(super) remove: Vec<Box<str>>,
    pub(super) set: Vec<QueryRule>,
}

/// One parameter and its value.
#[derive(Debug)]
pub(super) struct QueryRule {
    pub(super) name: Box<str>,
    pub(super) value: Template,
}

impl QueryEdits {
    /// The query to forward, without `?`; empty if nothing is left.
    ///
    /// What is not named stays byte by byte and in order; values that are set come after it, encoded so that none adds a
    /// parameter. One whose value is missing is not sent, nor the client's.
    pub fn apply(&self, query: Option<&str>, values: &Values<'_>) -> String {
        let query = query.unwrap_or_default();
        let names = || self.remove.iter().chain(self.set.iter().map(|rule| &rule.name));
        let mut out = String::with_capacity(query.len() + 32);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            if !names().any(|named| query_means(name, named.as_bytes())) {
                push_pair(&mut out, |out| out.push_str(pair));
            }
        }
        for QueryRule { name, value } in &self.set {
            if let Some(value) = value.expand_value(values) {
                push_pair(&mut out, |out| {
                    push_query(out, name.as_bytes());
                    out.push('=');
                    push_query(out, &value);
                });
            }
        }
        out
    }
}

fn push_pair(out: &mut String, push: impl FnOnce(&mut String)) {
    if !out.is_empty() {
        out.push('&');
    }
    push(out);
}
