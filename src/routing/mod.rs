//! Pure: patterns, matcher, table, rewrite. Knows a route only by its `RouteId`.
//!
//! What a client sends is brought into one form first ([`path::normalise`], [`host::normalise`]), then compared with
//! what an operator wrote, which was brought into the same form when it was compiled.

pub mod config;
pub mod escape;
pub mod explain;
pub mod expression;
pub mod host;
mod index;
pub mod method;
pub mod overlap;
pub mod path;
pub mod pattern;
pub mod predicate;
pub mod rewrite;
mod shadow;
pub mod table;
pub mod template;

use std::ops::Range;

pub use expression::Expression;
pub use host::HostPattern;
pub use method::MethodSet;
pub use pattern::{Captures, PATTERN_BYTES_MAX, PathPattern};
pub use predicate::ValueMatch;
pub use rewrite::Rewrite;
pub use table::{Around, ListenerSet, Outcome, RequestView, RouteId, RouteSpec, Table};
pub use template::{ExpandError, Template, Values, Who};

/// What is wrong with a text an operator wrote: a pattern, a template, a predicate.
///
/// Displays as the message alone: a fragment, lowercase, without a full stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Mistake {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The bytes of the text it is about.
    pub at: Range<usize>,
}

impl Mistake {
    pub(crate) fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, at }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same mistake in a longer text, in which the present one begins at byte `by`.
    pub(crate) fn shifted(mut self, by: usize) -> Self {
        self.at = self.at.start + by..self.at.end + by;
        self
    }
}

#[cfg(test)]
mod tests;
