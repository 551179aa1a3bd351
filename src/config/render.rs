//! Diagnostics as people and programs read them.

use std::fmt::Write;
use std::ops::Range;

use unicode_width::UnicodeWidthChar;

use crate::base::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::base::origin::{Origin, Source, Sources};

/// Columns of an excerpt; a longer line is cut around the place it is about.
const EXCERPT_COLUMNS_MAX: usize = 160;
/// Columns kept before the place when a line is cut.
const BEFORE_COLUMNS: usize = 60;
/// Bytes looked at on either side of the place: enough for the columns shown, however wide their characters are.
const WINDOW_BYTES: usize = 2048;
/// What a tab is shown as: the caret below must know its width.
const TAB: &str = "    ";

/// All problems with excerpts, errors before warnings, each by place, and a closing line that counts them.
///
/// Empty if there are none. `colour` adds ANSI colours: only for terminals.
pub fn text(diagnostics: &Diagnostics, sources: &Sources, colour: bool) -> String {
    let mut out = String::new();
    let style = Style { colour };
    let sorted = sorted(diagnostics);
    for item in &sorted {
        one(&mut out, item, sources, style);
    }
    if let Some(summary) = summary(diagnostics) {
        let bold = style.paint(BOLD, &summary);
        out.push_str(&bold);
        out.push('\n');
    }
    out
}

/// `3 errors, 1 warning`; `None` if there are no problems.
pub fn summary(diagnostics: &Diagnostics) -> Option<String> {
    if diagnostics.is_empty() {
        return None;
    }
    let count = |severity| diagnostics.iter().filter(|item| item.severity == severity).count();
    let several = |number: usize, word: &str| {
        if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let mut parts = Vec::new();
    if errors > 0 {
        parts.push(several(errors, "error"));
    }
    if warnings > 0 {
        parts.push(several(warnings, "warning"));
    }
    if diagnostics.dropped() > 0 {
        parts.push(format!("{} more not shown", diagnostics.dropped()));
    }
    Some(parts.join(", "))
}

/// `[{severity, code, file, line, column, end_column, path, message, hint}]`, one object a line.
///
/// Lines and columns count from 1, columns in characters, `end_column` is the one after the last of that line. What is
/// not in a file has nulls there.
pub fn json(diagnostics: &Diagnostics, sources: &Sources) -> String {
    let items: Vec<String> = sorted(diagnostics)
        .into_iter()
        .filter_map(|item| serde_json::to_string(&Record::new(item, sources)).ok())
        .collect();
    if items.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", items.join(",\n")) }
}

#[derive(serde::Serialize)]
struct Record<'a> {
    severity: Severity,
    code: &'a str,
    file: Option<String>,
    line: Option<usize>,
    column: Option<usize>,
    end_column: Option<usize>,
    path: &'a str,
    message: &'a str,
    hint: Option<&'a str>,
}

impl<'a> Record<'a> {
    fn new(item: &'a Diagnostic, sources: &Sources) -> Self {
        let place = Place::of(&item.origin, sources);
        Self {
            severity: item.severity,
            code: item.code,
            file: place.as_ref().map(|place| place.source.path.display().to_string()),
            line: place.as_ref().map(|place| place.line),
            column: place.as_ref().map(|place| place.column(place.in_line.start)),
            end_column: place.as_ref().map(|place| place.column(place.in_line.end)),
            path: &item.path,
            message: &item.message,
            hint: item.hint.as_deref(),
        }
    }
}

fn sorted(diagnostics: &Diagnostics) -> Vec<&Diagnostic> {
    let mut items: Vec<&Diagnostic> = diagnostics.iter().collect();
    items.sort_by_key(|item| {
        let place = match &item.origin {
            Origin::File { file, span } => Some((*file, span.start)),
            _ => None,
        };
        (item.severity, place)
    });
    items
}

/// A span in one line of a file.
struct Place<'a> {
    source: &'a Source,
    line: usize,
    text: &'a str,
    /// Bytes of `text`.
    in_line: Range<usize>,
}

impl<'a> Place<'a> {
    fn of(origin: &Origin, sources: &'a Sources) -> Option<Self> {
        let Origin::File { file, span } = origin else { return None };
        let source = sources.get(*file)?;
        let position = source.position(span.start);
        let text = source.line(position.line);
        let start = text.char_indices().nth(position.column - 1).map_or(text.len(), |(at, _)| at);
        let length = span.end.saturating_sub(span.start);
        // A span over several lines is shown to the end of its first.
        let mut end = (start + length).min(text.trim_end().len()).max(start);
        while !text.is_char_boundary(end) {
            end += 1;
        }
        Some(Self { source, line: position.line, text, in_line: start..end })
    }

    /// Column of byte `at` of the line, from 1, in characters.
    fn column(&self, at: usize) -> usize {
        self.text.get(..at).map_or(0, |before| before.chars().count()) + 1
    }

    fn name(&self) -> String {
        format!("{}:{}:{}", self.source.path.display(), self.line, self.column(self.in_line.start))
    }
}

const BOLD: &str = "1";
const RED: &str = "1;31";
const YELLOW: &str = "1;33";
const BLUE: &str = "1;34";

#[derive(Clone, Copy)]
struct Style {
    colour: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn one(out: &mut String, item: &Diagnostic, sources: &Sources, style: Style) {
    let (word, colour) = match item.severity {
        Severity::Error => ("error", RED),
        Severity::Warning => ("warning", YELLOW),
    };
    let head = style.paint(colour, &format!("{word}[{}]", item.code));
    let message = style.paint(BOLD, &format!(": {}", printable(&item.message)));
    line(out, format_args!("{head}{message}"));

    let place = Place::of(&item.origin, sources);
    let related = item.related.as_ref().map(|(origin, note)| (Place::of(origin, sources), note));
    let last_line = place.as_ref().map_or(0, |place| place.line);
    let last_line =
        last_line.max(related.as_ref().and_then(|(place, _)| place.as_ref()).map_or(0, |p| p.line));
    let gutter = Gutter { width: last_line.max(1).to_string().len(), style };

    match &place {
        Some(place) => gutter.excerpt(out, "-->", place, '^', colour, ""),
        None if matches!(item.origin, Origin::Row { .. }) => {
            let place = sources.describe(&item.origin);
            line(out, format_args!("{}{} {}", gutter.blank(), style.paint(BLUE, "-->"), printable(&place)));
        }
        None if !item.path.is_empty() => {
            line(
                out,
                format_args!("{}{} {}", gutter.blank(), style.paint(BLUE, "-->"), printable(&item.path)),
            );
        }
        None => {}
    }
    match related {
        Some((Some(place), note)) => gutter.excerpt(out, ":::", &place, '-', BLUE, note),
        Some((None, note)) => match &item.related {
            Some((origin @ Origin::Row { .. }, _)) => {
                gutter.note(out, "note", &format!("{note}: {}", sources.describe(origin)));
            }
            _ => gutter.note(out, "note", note),
        },
        None => {}
    }
    if let Some(hint) = &item.hint {
        gutter.note(out, "hint", hint);
    }
    out.push('\n');
}

/// The column of line numbers.
#[derive(Clone, Copy)]
struct Gutter {
    width: usize,
    style: Style,
}

impl Gutter {
    fn blank(&self) -> String {
        " ".repeat(self.width)
    }

    fn bar(&self, number: &str) -> String {
        self.style.paint(BLUE, &format!("{number:>width$} |", width = self.width))
    }

    fn excerpt(
        &self,
        out: &mut String,
        arrow: &str,
        place: &Place<'_>,
        mark: char,
        colour: &str,
        note: &str,
    ) {
        line(
            out,
            format_args!("{}{} {}", self.blank(), self.style.paint(BLUE, arrow), printable(&place.name())),
        );
        let shown = Excerpt::of(place);
        line(out, format_args!("{}", self.bar("")));
        line(out, format_args!("{} {}", self.bar(&place.line.to_string()), shown.text));
        let marks = mark.to_string().repeat(shown.marks);
        let marks = if note.is_empty() { marks } else { format!("{marks} {}", printable(note)) };
        let marks = self.style.paint(colour, &marks);
        line(out, format_args!("{} {}{marks}", self.bar(""), " ".repeat(shown.before)));
    }

    fn note(&self, out: &mut String, word: &str, text: &str) {
        let equals = self.style.paint(BLUE, "=");
        line(
            out,
            format_args!("{} {equals} {}: {}", self.blank(), self.style.paint(BOLD, word), printable(text)),
        );
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    if writeln!(out, "{text}").is_err() {
        out.push('\n');
    }
}

/// A line as shown, with the columns to mark.
struct Excerpt {
    text: String,
    /// Columns before the mark.
    before: usize,
    /// Columns marked, at least one.
    marks: usize,
}

impl Excerpt {
    fn of(place: &Place<'_>) -> Self {
        // Of a very long line only what can be seen is looked at.
        let mut begin = place.in_line.start.saturating_sub(WINDOW_BYTES);
        while !place.text.is_char_boundary(begin) {
            begin += 1;
        }
        let mut end = (place.in_line.start + WINDOW_BYTES).min(place.text.len());
        while !place.text.is_char_boundary(end) {
            end += 1;
        }
        // Each character as shown, with its width and where it begins in the line.
        let seen = place.text.get(begin..end).unwrap_or("");
        let hidden = place.source.hidden(place.line);
        let shown: Vec<(usize, Glyph)> = seen
            .char_indices()
            .map(|(at, c)| (begin + at, c))
            .filter_map(|(at, c)| match hidden.iter().find(|span| span.contains(&at)) {
                None => Some((at, Glyph::of(c))),
                // One for all of them, or their number would be told.
                Some(span) => (at == span.start.max(begin)).then_some((at, Glyph::SECRET)),
            })
            .collect();
        let width = |range: Range<usize>| -> usize {
            shown.iter().filter(|(at, _)| range.contains(at)).map(|(_, glyph)| glyph.width).sum()
        };
        let whole = width(begin..end);
        let start = width(begin..place.in_line.start);
        let mut marks = width(place.in_line.clone()).max(1);
        let cut = whole > EXCERPT_COLUMNS_MAX || begin > 0;
        let from = if cut { start.saturating_sub(BEFORE_COLUMNS) } else { 0 };
        let to = from + EXCERPT_COLUMNS_MAX;

        let mut text = String::new();
        let mut column = 0;
        let mut before = 0;
        if from > 0 || begin > 0 {
            text.push('…');
            before += 1;
        }
        for (at, glyph) in &shown {
            if column >= from && column < to {
                glyph.push(&mut text);
                before += if *at < place.in_line.start { glyph.width } else { 0 };
            }
            column += glyph.width;
        }
        if whole > to {
            text.push('…');
            marks = marks.min(to.saturating_sub(start)).max(1);
        }
        text.truncate(text.trim_end().len());
        Self { text, before, marks }
    }
}

/// A character as a terminal shows it.
struct Glyph {
    c: char,
    width: usize,
}

impl Glyph {
    /// In place of a secret.
    const SECRET: Self = Self { c: '\0', width: MASK.len() };

    fn of(c: char) -> Self {
        match c {
            '\t' => Self { c, width: TAB.len() },
            c if is_hidden(c) => Self { c: char::REPLACEMENT_CHARACTER, width: 1 },
            c => Self { c, width: c.width().unwrap_or(0) },
        }
    }

    fn push(&self, text: &mut String) {
        match self.c {
            '\t' => text.push_str(TAB),
            '\0' => text.push_str(MASK),
            c => text.push(c),
        }
    }
}

/// How a secret is shown.
const MASK: &str = "***";

/// Characters that would command the terminal or turn the order of the text around.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A text without what would command the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn show(text_: &str, span: Range<usize>) -> String {
        let mut sources = Sources::default();
        let file = sources.add("conf/a.toml".into(), text_.to_owned());
        let mut out = Diagnostics::default();
        out.error("unknown-key", &Origin::file(file, span), "a", "unknown key").hint("did you mean \"x\"?");
        text(&out, &sources, false)
    }

    #[test]
    fn secrets_are_masked_whatever_the_problem_is_about() {
        let written = "a = { key = \"s3cret\", b = 1 }\nc = \"\"\"s3cr\nets\"\"\"";
        let mut sources = Sources::default();
        let file = sources.add("a.toml".into(), written.to_owned());
        let at = |start: usize, end: usize| Origin::file(file, start..end);
        sources.hide(&at(12, 20));
        sources.hide(&at(34, written.len()));
        let mut out = Diagnostics::default();
        out.error("one", &at(22, 23), "b", "beside it");
        out.error("two", &at(12, 20), "key", "itself").related(&at(34, written.len()), "over two lines");
        let shown = text(&out, &sources, false);
        assert!(!shown.contains("s3cr") && !shown.contains("ets"), "{shown}");
        for line in
            ["1 | a = { key = ***, b = 1 }", "  |                  ^", "  |             ^^^", "2 | c = ***"]
        {
            assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
        }
    }

    #[test]
    fn a_problem_is_shown_where_it_is() {
        let shown = show("[server]\n\tthreds = 3\n", 10..16);
        assert_eq!(
            shown,
            concat!(
                "error[unknown-key]: unknown key\n",
                " --> conf/a.toml:2:2\n",
                "  |\n",
                "2 |     threds = 3\n",
                "  |     ^^^^^^\n",
                "  = hint: did you mean \"x\"?\n",
                "\n",
                "1 error\n",
            )
        );
    }

    #[test]
    fn wide_and_hidden_characters_keep_the_caret_below_its_place() {
        let line = "名 = \"é\u{1b}[31m\" # x";
        let at = line.find('#').unwrap();
        let shown = show(line, at..at + 1);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[3], "1 | 名 = \"é\u{fffd}[31m\" # x");
        assert_eq!(lines[4], "  |               ^");
        assert!(!shown.contains('\u{1b}'));
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let line = format!("a = [{}, X, {}]", "1, ".repeat(200), "2, ".repeat(200));
        let at = line.find('X').unwrap();
        let shown = show(&line, at..at + 1);
        let lines: Vec<&str> = shown.lines().collect();
        let (excerpt, caret) = (lines[3], lines[4]);
        assert!(excerpt.chars().count() < 170 && excerpt.ends_with('…'), "{excerpt}");
        let column = |line: &str, c| line.chars().position(|found| found == c);
        assert_eq!(column(excerpt, 'X'), column(caret, '^'));
        let whole = show(&line, 0..line.len());
        assert!(whole.lines().all(|line| line.chars().count() < 170));
    }

    #[test]
    fn both_places_errors_first_and_a_count() {
        let mut sources = Sources::default();
        let one = sources.add("a.toml".into(), "x = 1\n".to_owned());
        let two = sources.add("b.toml".into(), "\n".repeat(99) + "x = 2\n");
        let mut out = Diagnostics::default();
        out.warning("w", &Origin::file(one, 0..1), "", "careful");
        out.error("duplicate-name", &Origin::file(two, 99..100), "x", "\"x\" is defined twice")
            .related(&Origin::file(one, 0..1), "first defined here");
        out.error("e", &Origin::Default, "routes[2].upstream", "no place");
        let shown = text(&out, &sources, false);
        assert_eq!(
            shown,
            concat!(
                "error[e]: no place\n",
                " --> routes[2].upstream\n",
                "\n",
                "error[duplicate-name]: \"x\" is defined twice\n",
                "   --> b.toml:100:1\n",
                "    |\n",
                "100 | x = 2\n",
                "    | ^\n",
                "   ::: a.toml:1:1\n",
                "    |\n",
                "  1 | x = 1\n",
                "    | - first defined here\n",
                "\n",
                "warning[w]: careful\n",
                " --> a.toml:1:1\n",
                "  |\n",
                "1 | x = 1\n",
                "  | ^\n",
                "\n",
                "2 errors, 1 warning\n",
            )
        );
        assert!(text(&out, &sources, true).starts_with("\u{1b}[1;31merror[e]\u{1b}[0m"));
    }

    #[test]
    fn json_counts_from_one_and_in_characters() {
        let mut sources = Sources::default();
        let file = sources.add("a.toml".into(), "é = \"x\ny\"".to_owned());
        let mut out = Diagnostics::default();
        out.error("wrong-type", &Origin::file(file, 5..9), "é", "expected");
        out.warning("w", &Origin::Default, "", "careful");
        let items: serde_json::Value = serde_json::from_str(&json(&out, &sources)).unwrap();
        assert_eq!(
            items[0],
            serde_json::json!({
                "severity": "error", "code": "wrong-type", "file": "a.toml", "line": 1, "column": 5, "end_column": 7,
                "path": "é", "message": "expected", "hint": null,
            })
        );
        assert_eq!(items[1]["line"], serde_json::Value::Null);
        assert_eq!(json(&Diagnostics::default(), &sources), "[]\n");
        assert_eq!(text(&Diagnostics::default(), &sources, false), "");
    }

    proptest! {
        #[test]
        fn no_place_panics(text_ in "[a\t\né名\u{301}]{0,300}", start in 0_usize..600, length in 0_usize..600) {
            let mut sources = Sources::default();
            let file = sources.add("a".into(), text_);
            let mut out = Diagnostics::default();
            out.error("e", &Origin::file(file, start..start + length), "", "m");
            prop_assert!(text(&out, &sources, false).ends_with("1 error\n"));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&json(&out, &sources)).is_ok());
        }
    }
}
