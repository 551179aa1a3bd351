//! What became of each directive: the table that a translation ends with.

use std::collections::BTreeMap;

/// What became of a directive; the later of two weighs more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It means the same, or Edgeward does so by itself.
    Translated,
    /// It means something near; the note says what differs.
    Approximated,
    /// It is missing; the note says why.
    Dropped,
}

impl Verdict {
    const ALL: [Self; 3] = [Self::Translated, Self::Approximated, Self::Dropped];

    /// The word in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Translated => "translated",
            Self::Approximated => "approximated",
            Self::Dropped => "dropped",
        }
    }
}

/// One directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The file it stands in.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
    /// As it is written, on one line.
    pub text: String,
    /// What became of it.
    pub verdict: Verdict,
    /// How, or why not; may be empty for what was translated.
    pub note: String,
}

/// A row for every directive, in the order they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The rows.
    pub rows: Vec<Row>,
}

/// Widest a directive is shown.
const TEXT_CHARS_MAX: usize = 48;

impl Report {
    /// How many directives ended so.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == verdict).count()
    }

    /// The table: what was translated first, what was dropped last, where it is read first.
    pub fn table(&self) -> String {
        let cut = |text: &str| -> String {
            if text.chars().count() <= TEXT_CHARS_MAX {
                return text.to_owned();
            }
            text.chars().take(TEXT_CHARS_MAX - 1).chain(['…']).collect()
        };
        let place = |row: &Row| format!("{}:{}", row.file, row.line);
        let width = |of: &dyn Fn(&Row) -> String| {
            self.rows.iter().map(|row| of(row).chars().count()).max().unwrap_or_default()
        };
        let (place_width, text_width) = (width(&place), width(&|row| cut(&row.text)));
        let mut table = String::new();
        for verdict in Verdict::ALL {
            for row in self.rows.iter().filter(|row| row.verdict == verdict) {
                let line = format!(
                    "{:12}  {:place_width$}  {:text_width$}  {}",
                    verdict.word(),
                    place(row),
                    cut(&row.text),
                    row.note
                );
                table.push_str(line.trim_end());
                table.push('\n');
            }
        }
        let counts = Verdict::ALL.map(|verdict| format!("{} {}", self.count(verdict), verdict.word()));
        table.push_str(&counts.join(", "));
        table.push('\n');
        table
    }
}

/// Collects verdicts by the number of a directive while a translation goes on.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    given: BTreeMap<u32, (Verdict, Vec<String>)>,
}

impl Verdicts {
    /// Notes what became of the directive `id`. Of several verdicts the weightiest counts; its notes are kept.
    pub(super) fn note(&mut self, id: u32, verdict: Verdict, note: impl Into<String>) {
        let note = note.into();
        let entry = self.given.entry(id).or_insert_with(|| (verdict, Vec::new()));
        if verdict > entry.0 {
            *entry = (verdict, Vec::new());
        }
        if verdict == entry.0 && !note.is_empty() && !entry.1.contains(&note) && entry.1.len() < NOTES_MAX {
            entry.1.push(note);
        }
    }

    /// What was noted of `id`.
    pub(super) fn of(&self, id: u32) -> Option<(Verdict, String)> {
        self.given.get(&id).map(|(verdict, notes)| (*verdict, notes.join("; ")))
    }
}

/// Different notes kept of one directive, which many routes may inherit.
const NOTES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weightiest_verdict_counts() {
        let mut verdicts = Verdicts::default();
        verdicts.note(1, Verdict::Translated, "a");
        verdicts.note(1, Verdict::Approximated, "b");
        verdicts.note(1, Verdict::Approximated, "b");
        verdicts.note(1, Verdict::Translated, "c");
        verdicts.note(1, Verdict::Approximated, "d");
        assert_eq!(verdicts.of(1), Some((Verdict::Approximated, "b; d".to_owned())));
        assert_eq!(verdicts.of(2), None);
    }

    #[test]
    fn long_directives_are_cut_and_columns_aligned() {
        let row = |line, text: &str, verdict, note: &str| Row {
            file: "nginx.conf".to_owned(),
            line,
            text: text.to_owned(),
            verdict,
            note: note.to_owned(),
        };
        let report = Report {
            rows: vec![
                row(9, "gzip on", Verdict::Dropped, "no compression"),
                row(10, "listen 80", Verdict::Translated, ""),
                row(11, &"x".repeat(80), Verdict::Approximated, "y"),
            ],
        };
        let table = report.table();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[0], "translated    nginx.conf:10  listen 80");
        assert!(lines[1].ends_with("xxx…  y"), "{}", lines[1]);
        assert_eq!(
            lines[2].find("no compression"),
            lines[1].char_indices().rev().find(|(_, c)| *c == 'y').map(|(at, _)| at - 2)
        );
        assert_eq!(lines[3], "1 translated, 1 approximated, 1 dropped");
    }
}
