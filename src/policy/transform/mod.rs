//! `[routes.request]` and `[routes.response]`: headers and parameters that a route changes on the way.
//!
//! Rules are pure: they say what is to be done with which header; [`crate::policy`] never sees a head. A value can never
//! become a second header or a second line: what cannot stand in a header is not sent at all, and neither is what the
//! other side sent under that name.

mod config;
mod query;
#[cfg(test)]
mod tests;

use http::header::{self, HeaderName, HeaderValue};

use crate::base::authority::is_authority;
use crate::routing::template::{Template, Values};

pub use config::{OF_THE_HOP, QueryEditsRaw, RequestName, RequestRaw, ResponseRaw};
pub use query::QueryEdits;

/// What becomes of a request.
#[derive(Debug)]
pub struct RequestRules {
    /// Its headers.
    pub headers: Rules,
    /// Its query.
    pub query: Option<QueryEdits>,
}

/// What becomes of the headers of a message: removals, then values that replace, then values that are added.
#[derive(Debug, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Debug)]
enum Rule {
    Remove(HeaderName),
    Set(HeaderName, Value),
    Add(HeaderName, Value),
}

#[derive(Debug)]
enum Value {
    Constant(HeaderValue),
    Template(Template),
}

/// What is to be done with one header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step<'r> {
    /// The header.
    pub name: &'r HeaderName,
    /// What to do.
    pub action: Action,
    /// The request made a value that no header can hold; for the log.
    pub unusable: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// All of that name go.
    Remove,
    /// All of that name go, this one comes.
    Set(HeaderValue),
    /// One more.
    Add(HeaderValue),
    /// Nothing: there is no value to add, or no `Host` to send instead.
    Keep,
}

impl Rules {
    /// Whether any value depends on the request.
    pub fn asks(&self) -> bool {
        self.0
            .iter()
            .any(|rule| matches!(rule, Rule::Set(_, Value::Template(_)) | Rule::Add(_, Value::Template(_))))
    }

    /// What to do for a request, in order. Without `values`, where nothing is known of a request, all that depends on it
    /// is missing.
    pub fn steps<'r>(&'r self, values: Option<&'r Values<'_>>) -> impl Iterator<Item = Step<'r>> {
        self.0.iter().map(move |rule| match rule {
            Rule::Remove(name) => Step { name, action: Action::Remove, unusable: false },
            Rule::Set(name, value) => match value.expand(name, values) {
                Ok(Some(value)) => Step { name, action: Action::Set(value), unusable: false },
                // A request without `Host` is none: it keeps the one that the upstream says.
                wrong if *name == header::HOST => {
                    Step { name, action: Action::Keep, unusable: wrong.is_err() }
                }
                wrong => Step { name, action: Action::Remove, unusable: wrong.is_err() },
            },
            Rule::Add(name, value) => match value.expand(name, values) {
                Ok(Some(value)) => Step { name, action: Action::Add(value), unusable: false },
                wrong => Step { name, action: Action::Keep, unusable: wrong.is_err() },
            },
        })
    }
}

/// `value` without the spaces and tabs around it; a line break is none of them, and no value.
fn trim(value: &[u8]) -> &[u8] {
    let text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let start = value.iter().position(text).unwrap_or(value.len());
    let end = value.iter().rposition(text).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

/// Bytes that cannot stand where a value lands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unusable;

impl Value {
    /// The value, `None` if there is none. Spaces around it go: HTTP/2 has none there (RFC 9113 section 8.2.1).
    fn expand(
        &self,
        name: &HeaderName,
        values: Option<&Values<'_>>,
    ) -> Result<Option<HeaderValue>, Unusable> {
        let template = match self {
            Self::Constant(value) => return Ok(Some(value.clone())),
            Self::Template(template) => template,
        };
        let Some(value) = values.and_then(|values| template.expand_value(values)) else { return Ok(None) };
        let value = trim(&value);
        if value.is_empty() {
            return Ok(None);
        }
        if *name == header::HOST && !is_authority(value) {
            return Err(Unusable);
        }
        HeaderValue::from_bytes(value).map(Some).map_err(|_| Unusable)
    }
}
