//! Problems in what an operator wrote, collected and shown all at once.

use super::origin::Origin;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is started or swapped.
    Error,
    /// Works, but probably not as meant.
    Warning,
}

/// One problem: what is wrong, where, and what to do.
///
/// `message` is a fragment: lowercase, no full stop, no implementation detail. `hint` is something the reader can do.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Stable machine code, such as `unknown-key`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// Where: the caret points here.
    pub origin: Origin,
    /// The configuration path, such as `routes[2].upstream`; empty when it is the whole file.
    pub path: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Another place that belongs to the problem, with a word about it (`first defined here`).
    pub related: Option<(Origin, String)>,
}

/// All problems of one configuration.
#[derive(Debug, Default, Clone)]
pub struct Diagnostics {
    items: Vec<Diagnostic>,
}

/// Problems kept; further ones are only counted. A broken generator must not fill a terminal or memory.
pub const DIAGNOSTICS_MAX: usize = 1000;

impl Diagnostics {
    /// Adds an error at `origin`; `path` is the configuration path.
    pub fn error(
        &mut self,
        code: &'static str,
        origin: &Origin,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.push(Severity::Error, code, origin, path.into(), message.into())
    }

    /// Adds a warning at `origin`; `path` is the configuration path.
    pub fn warning(
        &mut self,
        code: &'static str,
        origin: &Origin,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.push(Severity::Warning, code, origin, path.into(), message.into())
    }

    fn push(
        &mut self,
        severity: Severity,
        code: &'static str,
        origin: &Origin,
        path: String,
        message: String,
    ) -> &mut Diagnostic {
        if self.items.len() >= DIAGNOSTICS_MAX {
            self.items.pop();
        }
        self.items.push(Diagnostic {
            severity,
            code,
            message,
            origin: origin.clone(),
            path,
            hint: None,
            related: None,
        });
        let last = self.items.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "pushed just above")]
        &mut self.items[last]
    }

    /// Whether there is an error among them.
    pub fn has_errors(&self) -> bool {
        self.items.iter().any(|item| item.severity == Severity::Error)
    }

    /// All of them, in the order found.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.items.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Takes over all of `other`.
    pub fn extend(&mut self, other: Diagnostics) {
        self.items.extend(other.items);
        self.items.truncate(DIAGNOSTICS_MAX);
    }

    /// Sorts by place: files in the order read, then position; errors and warnings together.
    pub fn sort(&mut self) {
        self.items.sort_by_key(|item| match &item.origin {
            Origin::File { file, span } => (Some(*file), span.start),
            _ => (None, 0),
        });
    }
}

impl Diagnostic {
    /// Adds what to do about it.
    pub fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds `did you mean "name"?` when there is a near name.
    pub fn suggest(&mut self, nearest: Option<&str>) -> &mut Self {
        if let Some(name) = nearest {
            self.hint = Some(format!("did you mean \"{name}\"?"));
        }
        self
    }

    /// Adds another place that belongs to the problem.
    pub fn related(&mut self, origin: &Origin, note: impl Into<String>) -> &mut Self {
        self.related = Some((origin.clone(), note.into()));
        self
    }
}
