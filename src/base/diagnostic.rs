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
///
/// The same problem at the same place is kept once: what `[defaults]` gets wrong, every route would report again.
#[derive(Debug, Default, Clone)]
pub struct Diagnostics {
    items: Vec<Diagnostic>,
    /// Where a problem goes that is not kept, so that its hints have something to be added to.
    unkept: Option<Box<Diagnostic>>,
    /// Problems past [`DIAGNOSTICS_MAX`].
    dropped: usize,
    has_errors: bool,
    /// How many more than [`DIAGNOSTICS_MAX`] are kept.
    room: usize,
}

/// Problems kept; further ones are only counted. A broken generator must not fill a terminal or memory.
pub const DIAGNOSTICS_MAX: usize = 1000;
/// Errors kept of one row of a database, and as many warnings: anybody may have written there, anything.
pub const DIAGNOSTICS_OF_ROW_MAX: usize = 16;

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
        self.has_errors |= severity == Severity::Error;
        let item =
            Diagnostic { severity, code, message, origin: origin.clone(), path, hint: None, related: None };
        let row_is_full = self.of_row(severity, origin) >= DIAGNOSTICS_OF_ROW_MAX;
        let mut full = row_is_full || self.items.len() >= self.most();
        if full
            && !row_is_full
            && severity == Severity::Error
            && let Some(at) = self.items.iter().rposition(|known| known.severity == Severity::Warning)
        {
            // Whoever looks for what keeps a configuration from working must find it.
            self.items.remove(at);
            self.dropped += 1;
            full = false;
        }
        if full || self.items.iter().any(|known| known.is_same(&item)) {
            self.dropped += usize::from(full);
            let unkept = self.unkept.get_or_insert_with(|| Box::new(item.clone()));
            **unkept = item;
            return unkept;
        }
        self.items.push(item);
        let last = self.items.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "pushed just above")]
        &mut self.items[last]
    }

    /// How many there are of this severity in the row of `origin`, if it is in one.
    fn of_row(&self, severity: Severity, origin: &Origin) -> usize {
        let Origin::Row { name, .. } = origin else { return 0 };
        let is_same = |known: &&Diagnostic| match &known.origin {
            Origin::Row { name: other, .. } => known.severity == severity && other == name,
            _ => false,
        };
        self.items.iter().filter(is_same).count()
    }

    fn most(&self) -> usize {
        DIAGNOSTICS_MAX.saturating_add(self.room)
    }

    /// Keeps `more` than [`DIAGNOSTICS_MAX`]: of rows each may have a problem, and whoever looks for the bad ones wants
    /// all at once.
    pub fn make_room(&mut self, more: usize) {
        self.room = more;
    }

    /// Makes warnings of the errors whose code begins with one of `prefixes`.
    pub fn forgive(&mut self, prefixes: &[&str]) {
        let is_meant = |item: &&mut Diagnostic| prefixes.iter().any(|prefix| item.code.starts_with(prefix));
        for item in self.items.iter_mut().filter(is_meant) {
            item.severity = Severity::Warning;
        }
        // Of those that were dropped nobody knows what they were.
        let is_error = |item: &Diagnostic| item.severity == Severity::Error;
        self.has_errors = self.has_errors && (self.dropped > 0 || self.items.iter().any(is_error));
    }

    /// Adds `hint` to the problem of `code` with `path` and `message`, if there is one: what is to be done about it may be
    /// known only when the rest has been read.
    pub fn advise(&mut self, code: &str, path: &str, message: &str, hint: &str) {
        let is_meant =
            |item: &&mut Diagnostic| item.code == code && item.path == path && item.message == message;
        if let Some(item) = self.items.iter_mut().find(is_meant) {
            item.hint = Some(hint.to_owned());
        }
    }

    /// Takes away `hint` from problems whose place does not call for it.
    pub fn drop_hint(&mut self, hint: &str, is_due: impl Fn(&Origin) -> bool) {
        for item in &mut self.items {
            if item.hint.as_deref() == Some(hint) && !is_due(&item.origin) {
                item.hint = None;
            }
        }
    }

    /// Whether there is an error among them, or among those dropped.
    pub fn has_errors(&self) -> bool {
        self.has_errors
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

    /// How many more there were than are kept.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Takes over all of `other`.
    pub fn extend(&mut self, other: Diagnostics) {
        self.has_errors |= other.has_errors;
        self.dropped += other.dropped;
        for item in other.items {
            if self.items.len() >= self.most() {
                self.dropped += 1;
            } else if !self.items.iter().any(|known| known.is_same(&item)) {
                self.items.push(item);
            }
        }
    }

    /// Takes out those that are `meant`. What is left has errors only if one of them is.
    pub fn take(&mut self, meant: impl Fn(&Diagnostic) -> bool) -> Vec<Diagnostic> {
        let taken = self.items.extract_if(.., |item| meant(item)).collect();
        self.has_errors = self.items.iter().any(|item| item.severity == Severity::Error);
        taken
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
    /// The same words about the same place; without a place, about the same path.
    fn is_same(&self, other: &Self) -> bool {
        self.origin == other.origin
            && self.code == other.code
            && self.message == other.message
            && (matches!(self.origin, Origin::File { .. } | Origin::Row { .. }) || self.path == other.path)
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::origin::FileId;

    #[test]
    fn the_same_problem_at_the_same_place_is_kept_once() {
        let mut out = Diagnostics::default();
        let place = Origin::file(FileId(0), 3..5);
        out.error("wrong-type", &place, "routes[0].timeout", "expected").hint("first");
        out.error("wrong-type", &place, "routes[1].timeout", "expected").hint("second");
        out.error("wrong-type", &Origin::Default, "a", "expected");
        out.error("wrong-type", &Origin::Default, "b", "expected");
        assert_eq!(out.len(), 3);
        assert_eq!(out.iter().next().unwrap().hint.as_deref(), Some("first"));
    }

    /// An error must stop a start even when a thousand warnings stand before and after it.
    #[test]
    fn an_error_past_the_bound_still_counts() {
        let mut out = Diagnostics::default();
        for at in 0..DIAGNOSTICS_MAX + 5 {
            out.warning("w", &Origin::file(FileId(0), at..at), "", "w");
        }
        assert!(!out.has_errors());
        out.error("e", &Origin::Default, "", "e");
        assert!(out.has_errors());
        assert_eq!((out.len(), out.dropped()), (DIAGNOSTICS_MAX, 6));
        assert_eq!(out.iter().filter(|item| item.severity == Severity::Error).count(), 1, "and is shown");
        let mut other = Diagnostics::default();
        other.extend(out);
        assert!(other.has_errors());
    }

    #[test]
    fn a_row_fills_nothing_but_its_own_place() {
        let row = |name: &str, at: usize| Origin::Row { name: name.into(), column: format!("c{at}").into() };
        let mut out = Diagnostics::default();
        for at in 0..50 {
            out.warning("b", &row("one", at), "", "doubtful");
            out.error("a", &row("one", at), "", "wrong");
        }
        out.error("a", &row("two", 0), "", "wrong");
        assert_eq!(
            (out.len(), out.dropped()),
            (2 * DIAGNOSTICS_OF_ROW_MAX + 1, 2 * (50 - DIAGNOSTICS_OF_ROW_MAX))
        );
        let mut out = Diagnostics::default();
        out.make_room(10);
        for at in 0..DIAGNOSTICS_MAX + 11 {
            out.error("a", &row(&format!("r{at}"), 0), "", "wrong");
        }
        assert_eq!((out.len(), out.dropped()), (DIAGNOSTICS_MAX + 10, 1));
    }
}
