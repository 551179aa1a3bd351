//! What became of services, for people and programs.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::base::diagnostic::{DIAGNOSTICS_OF_ROW_MAX as PROBLEMS_MAX, Diagnostic, Severity};
use crate::base::origin::{Origin, Sources};

/// Services of which warnings are kept.
const WARNED_MAX: usize = 1000;

/// What became of the services of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Which state of them this is; `None` if they were never read.
    pub number: Option<i64>,
    /// Those that are served, the oldest first.
    pub applied: Vec<String>,
    /// Those that are switched off.
    pub disabled: Vec<String>,
    /// Those that are not served, because something is wrong with them.
    pub left_out: Vec<LeftOut>,
    /// What is doubtful, by service.
    pub warnings: BTreeMap<String, Vec<Problem>>,
}

/// A service that is not served.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why.
    pub problems: Vec<Problem>,
}

/// Something wrong with a service.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Stable machine code.
    pub code: &'static str,
    /// Where in the row: `endpoints[0].url`; empty = all of it.
    pub column: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Another place that belongs to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<String>,
}

impl Problem {
    pub(super) fn new(code: &'static str, column: &str, message: String) -> Self {
        Self { code, column: column.to_owned(), message, hint: None, related: None }
    }

    /// The problem of a diagnostic that is about a row.
    pub(super) fn of(item: &Diagnostic, sources: &Sources) -> Self {
        let column = match &item.origin {
            Origin::Row { column, .. } => column.to_string(),
            _ => String::new(),
        };
        let related = item.related.as_ref().map(|(origin, note)| match origin {
            Origin::Default => note.clone(),
            origin => format!("{note}: {}", sources.describe(origin)),
        });
        Self { code: item.code, column, message: item.message.clone(), hint: item.hint.clone(), related }
    }

    /// The problem in lines for people.
    pub fn text(&self, word: &str) -> String {
        let place = if self.column.is_empty() { String::new() } else { format!("{}: ", self.column) };
        let mut text = format!("{word}[{}]: {place}{}\n", self.code, printable(&self.message));
        for (word, note) in [("note", &self.related), ("hint", &self.hint)] {
            if let Some(note) = note {
                text.push_str(&format!("  {word}: {}\n", printable(note)));
            }
        }
        text
    }

    /// The problem in one line, for logs.
    pub fn line(&self) -> String {
        let place = if self.column.is_empty() { String::new() } else { format!("{}: ", self.column) };
        format!("{place}{}", printable(&self.message))
    }
}

/// What others have written may hold anything.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Report {
    pub(super) fn leave_out(&mut self, name: &str, mut problems: Vec<Problem>) {
        problems.truncate(PROBLEMS_MAX);
        self.left_out.push(LeftOut { name: name.to_owned(), problems });
    }

    /// Keeps the warnings among `items`.
    pub(super) fn warn(&mut self, items: &[Diagnostic], sources: &Sources) {
        for item in items {
            let Some(name) = super::service_of(&item.origin) else { continue };
            if item.severity == Severity::Warning
                && (self.warnings.len() < WARNED_MAX || self.warnings.contains_key(name))
            {
                let known = self.warnings.entry(name.to_owned()).or_default();
                if known.len() < PROBLEMS_MAX {
                    known.push(Problem::of(item, sources));
                }
            }
        }
    }

    /// Why the service of this name is not served, if something is wrong with it.
    pub fn problems_of(&self, name: &str) -> Option<&[Problem]> {
        self.left_out.iter().find(|left| left.name == name).map(|left| left.problems.as_slice())
    }

    /// The same for many questions.
    pub fn by_name(&self) -> ByName<'_> {
        ByName {
            applied: self.applied.iter().map(String::as_str).collect(),
            left_out: self.left_out.iter().map(|left| (left.name.as_str(), left)).collect(),
        }
    }

    /// One line: how many are served and how many not.
    pub fn summary(&self) -> String {
        let mut text = format!("{} served", self.applied.len());
        for (count, what) in [(self.left_out.len(), "left out"), (self.disabled.len(), "switched off")] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        text
    }
}

/// What became of services, by name.
#[derive(Debug)]
pub struct ByName<'r> {
    /// Those that are served.
    pub applied: HashSet<&'r str>,
    /// Those that are not, because something is wrong with them.
    pub left_out: HashMap<&'r str, &'r LeftOut>,
}
