//! A TOML text as a tree whose every key and value knows where it was written.
//!
//! Built on toml's recoverable parse: all syntax errors are reported, and what could be read is still checked.

use std::ops::Range;

use indexmap::IndexMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml_parser::lexer::TokenKind;

use super::syntax;
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::{FileId, Origin};

/// Largest file read, in bytes. A route takes some 300 bytes, so this holds 50,000 of them.
pub const FILE_BYTES_MAX: usize = 16 << 20;

/// Deepest nesting accepted, dotted keys included. Every recursion over a tree is bounded by it.
pub const NESTING_MAX: usize = 64;

/// Syntax errors shown of one file: past these, a file is no TOML at all.
const SYNTAX_ERRORS_MAX: usize = 20;

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The bytes of the value; of a table its header, its braces, or its first dotted key.
    pub origin: Origin,
    /// The value.
    pub kind: Kind,
}

/// What a [`Node`] holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `[header]`, `{ inline = true }`, or made by dotted keys.
    Table(Table),
    /// `[1, 2]` or the `[[entries]]` of one name.
    Array(Vec<Node>),
    /// A string, after substitution of variables.
    String {
        /// Its value.
        text: String,
        /// Whether a `${NAME}` was replaced in it: then it may stand for a number, a boolean or a list.
        substituted: bool,
    },
    /// An integer.
    Integer(i64),
    /// A floating point number.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A date or a time, as written.
    Datetime(String),
    /// Something unreadable that was reported already. Decodes to nothing, silently.
    Broken,
}

/// The entries of a table in the order written.
pub type Table = IndexMap<String, Entry>;

/// One `key = value` of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where the key was written.
    pub key: Origin,
    /// The value.
    pub node: Node,
}

impl Node {
    /// A table with nothing in it, written nowhere.
    pub fn empty_table() -> Self {
        Self { origin: Origin::Default, kind: Kind::Table(Table::new()) }
    }

    /// A string, not substituted.
    pub fn string(text: impl Into<String>, origin: Origin) -> Self {
        Self { origin, kind: Kind::String { text: text.into(), substituted: false } }
    }

    /// The entries, if this is a table.
    pub fn as_table(&self) -> Option<&Table> {
        if let Kind::Table(table) = &self.kind { Some(table) } else { None }
    }

    /// The elements, if this is an array.
    pub fn as_array(&self) -> Option<&[Node]> {
        if let Kind::Array(nodes) = &self.kind { Some(nodes) } else { None }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Kind::String { text, .. } = &self.kind { Some(text) } else { None }
    }

    /// The boolean, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Kind::Boolean(value) = self.kind { Some(value) } else { None }
    }

    /// The value under `key`, if this is a table that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        Some(&self.as_table()?.get(key)?.node)
    }

    /// What it is, in words that complete "found …".
    pub fn what(&self) -> &'static str {
        match self.kind {
            Kind::Table(_) => "a table",
            Kind::Array(_) => "a list",
            Kind::String { .. } => "a string",
            Kind::Integer(_) => "an integer",
            Kind::Float(_) => "a number",
            Kind::Boolean(_) => "a boolean",
            Kind::Datetime(_) => "a date",
            Kind::Broken => "something unreadable",
        }
    }

    /// The same value as JSON; dates become strings, what JSON cannot hold becomes null.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.kind {
            Kind::Table(table) => {
                table.iter().map(|(key, entry)| (key.clone(), entry.node.to_json())).collect()
            }
            Kind::Array(nodes) => nodes.iter().map(Node::to_json).collect(),
            Kind::String { text, .. } | Kind::Datetime(text) => Value::String(text.clone()),
            Kind::Integer(value) => (*value).into(),
            Kind::Float(value) => (*value).into(),
            Kind::Boolean(value) => (*value).into(),
            Kind::Broken => Value::Null,
        }
    }
}

/// Parses `text`, the content of `file`, into its root table.
///
/// Every syntax error becomes a diagnostic; what could be read around them is in the tree. A text that is too large or
/// nested too deeply is reported and gives an empty table.
pub fn parse(file: FileId, text: &str, out: &mut Diagnostics) -> Node {
    let root = Origin::file(file, 0..0);
    if text.len() > FILE_BYTES_MAX {
        out.error(
            "file-too-large",
            &root,
            "",
            format!("the file is larger than {} MiB", FILE_BYTES_MAX >> 20),
        );
        return Node { origin: root, kind: Kind::Table(Table::new()) };
    }
    if let Some(at) = nested_too_deeply(text) {
        out.error(
            "nested-too-deeply",
            &Origin::file(file, at),
            "",
            format!("nested deeper than {NESTING_MAX} levels"),
        )
        .hint("the file was not read any further");
        return Node { origin: root, kind: Kind::Table(Table::new()) };
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    let valueless: Vec<_> = errors.iter().filter(|error| error.message().starts_with(VALUELESS)).collect();
    if valueless.is_empty() {
        return build(file, text, &document, &errors, out);
    }
    // toml builds nothing from behind a key without `=`. Blanked, such a line hides nothing.
    let blanked = blank(text, valueless.iter().filter_map(|error| error.span()));
    let (document, others) = DeTable::parse_recoverable(&blanked);
    let errors: Vec<_> = valueless.into_iter().chain(&others).cloned().collect();
    build(file, text, &document, &errors, out)
}

/// How toml's complaint about a key without `=` begins.
const VALUELESS: &str = "key with no value";

/// `text` with spaces in place of the lines in which `spans` begin; everything else stays where it is.
fn blank(text: &str, spans: impl Iterator<Item = Range<usize>>) -> String {
    let mut blanked = String::with_capacity(text.len());
    for span in spans.filter(|span| span.start <= text.len()) {
        // One line may hold several of them.
        if span.start >= blanked.len() {
            let line = line_around(text, span.start);
            blanked.push_str(text.get(blanked.len()..line.start).unwrap_or(""));
            blanked.push_str(&" ".repeat(line.end.saturating_sub(blanked.len())));
        }
    }
    blanked.push_str(text.get(blanked.len()..).unwrap_or(""));
    blanked
}

/// The root table of what toml made of `text`, with its complaints reported.
fn build(
    file: FileId,
    text: &str,
    document: &Spanned<DeTable<'_>>,
    errors: &[toml::de::Error],
    out: &mut Diagnostics,
) -> Node {
    let root = Origin::file(file, 0..0);
    let mut broken: Vec<(Range<usize>, &str)> = Vec::new();
    let mut duplicates = Vec::new();
    for error in errors {
        let span = widen(text, error.span().unwrap_or(text.len()..text.len()));
        if error.message() == "duplicate key" {
            duplicates.push(span);
        } else {
            broken.push((span, error.message()));
        }
    }
    broken.sort_by_key(|(span, _)| span.start);
    let mut converter = Converter { file, broken: &broken, out };
    let table = converter.table(document.get_ref());
    // What follows on the same line is mostly the parser finding its feet again.
    let mut line = 0..0;
    broken.retain(|(span, _)| {
        let first = span.start > line.end || line.is_empty();
        if first {
            line = line_around(text, span.start);
        }
        first
    });
    for (span, message) in broken.iter().take(SYNTAX_ERRORS_MAX) {
        let (message, hint) = syntax::explain(message, text, span);
        out.error("syntax", &Origin::file(file, span.clone()), "", message).hint = hint;
    }
    duplicates.sort_by_key(|span| span.start);
    let more =
        broken.len().saturating_sub(SYNTAX_ERRORS_MAX) + duplicates.len().saturating_sub(SYNTAX_ERRORS_MAX);
    duplicates.truncate(SYNTAX_ERRORS_MAX);
    if more > 0 {
        out.error("syntax", &root, "", format!("{more} further syntax errors in this file"));
    }
    report_duplicates(file, text, &table, &duplicates, out);
    Node { origin: root, kind: Kind::Table(table) }
}

/// An empty span gets the character it stands before, so that a caret has something to point at.
fn widen(text: &str, span: Range<usize>) -> Range<usize> {
    let start = span.start.min(text.len());
    if span.end > start {
        return start..span.end.min(text.len());
    }
    match text.get(start..).and_then(|rest| rest.chars().next()) {
        Some(next) if next != '\n' && next != '\r' => start..start + next.len_utf8(),
        _ => start..start,
    }
}

/// The place where `text` nests deeper than [`NESTING_MAX`], if there is one.
///
/// Works on the tokens that the parser itself reads, before it builds anything: toml bounds nested brackets, but not dotted
/// keys, and a tree a million levels deep overflows the stack when it is dropped. Errs to the deep side in broken texts.
fn nested_too_deeply(text: &str) -> Option<Range<usize>> {
    // (what opened it, levels outside it)
    let mut open: Vec<(TokenKind, usize)> = Vec::new();
    let mut outside = 0_usize;
    let mut dots = 0_usize;
    for token in toml_parser::Source::new(text).lex() {
        match token.kind() {
            TokenKind::Dot => dots += 1,
            kind @ (TokenKind::LeftCurlyBracket | TokenKind::LeftSquareBracket) => {
                open.push((kind, outside));
                outside += dots + 1;
                dots = 0;
            }
            kind @ (TokenKind::RightCurlyBracket | TokenKind::RightSquareBracket) => {
                let opener = if kind == TokenKind::RightCurlyBracket {
                    TokenKind::LeftCurlyBracket
                } else {
                    TokenKind::LeftSquareBracket
                };
                if let Some((_, before)) = open.pop_if(|(opened, _)| *opened == opener) {
                    outside = before;
                }
                dots = 0;
            }
            TokenKind::Comma | TokenKind::Newline => dots = 0,
            _ => {}
        }
        if outside + dots > NESTING_MAX {
            return Some(token.span().start()..token.span().end());
        }
    }
    None
}

struct Converter<'a> {
    file: FileId,
    /// The syntax errors, by start.
    broken: &'a [(Range<usize>, &'a str)],
    out: &'a mut Diagnostics,
}

impl Converter<'_> {
    fn table(&mut self, table: &DeTable<'_>) -> Table {
        table
            .iter()
            .map(|(key, value)| {
                let entry = Entry { key: Origin::file(self.file, key.span()), node: self.node(value) };
                (key.get_ref().to_string(), entry)
            })
            .collect()
    }

    fn node(&mut self, value: &Spanned<DeValue<'_>>) -> Node {
        let span = value.span();
        let origin = Origin::file(self.file, span.clone());
        let kind = match value.get_ref() {
            // Also of lists and tables: what is in them is a guess, and a guess draws further complaints.
            _ if self.is_broken(&span) => Kind::Broken,
            DeValue::Table(table) => Kind::Table(self.table(table)),
            DeValue::Array(array) => Kind::Array(array.iter().map(|item| self.node(item)).collect()),
            DeValue::String(text) => Kind::String { text: text.to_string(), substituted: false },
            DeValue::Boolean(value) => Kind::Boolean(*value),
            DeValue::Datetime(value) => Kind::Datetime(value.to_string()),
            DeValue::Integer(value) => match i64::from_str_radix(value.as_str(), value.radix()) {
                Ok(value) => Kind::Integer(value),
                Err(_) => {
                    self.out.error("invalid-value", &origin, "", "this integer does not fit into 64 bits");
                    Kind::Broken
                }
            },
            DeValue::Float(value) => match value.as_str().parse() {
                Ok(value) => Kind::Float(value),
                Err(_) => {
                    self.out.error("invalid-value", &origin, "", "this is not a number");
                    Kind::Broken
                }
            },
        };
        Node { origin, kind }
    }

    /// Whether a syntax error lies in or at the end of `span`. The parser's stand-in for a missing value is empty.
    fn is_broken(&self, span: &Range<usize>) -> bool {
        span.is_empty() || {
            let from = self.broken.partition_point(|(error, _)| error.start < span.start);
            let near = self.broken.get(from.saturating_sub(1)..).unwrap_or(&[]);
            near.iter()
                .take_while(|(error, _)| error.start < span.end)
                .any(|(error, _)| error.end.max(error.start + 1) > span.start)
        }
    }
}

/// Reports keys and tables defined twice, with the first place.
fn report_duplicates(file: FileId, text: &str, root: &Table, found: &[Range<usize>], out: &mut Diagnostics) {
    let mut repeated_table: Option<Range<usize>> = None;
    for span in found {
        let line = line_around(text, span.start);
        let is_header = text.get(line.clone()).is_some_and(|line| line.trim_start().starts_with('['));
        if is_header {
            repeated_table = Some(line.clone());
        } else if let Some(header) = &repeated_table {
            // Keys that clash only because their table was opened twice: one message is enough.
            let between = text.get(header.end..span.start).unwrap_or("");
            if !between.lines().any(|line| line.trim_start().starts_with('[')) {
                continue;
            }
        }
        let name = text.get(span.clone()).unwrap_or("").trim().trim_matches(['"', '\'']);
        let first = if is_header { earlier_header(text, &line) } else { None };
        let first = first.or_else(|| {
            let mut nearest = None;
            nearest_key(root, name, span.start, &mut nearest);
            nearest
        });
        let what = if is_header { "table" } else { "key" };
        let problem = out.error(
            "duplicate-key",
            &Origin::file(file, span.clone()),
            "",
            format!("{what} \"{name}\" is defined twice"),
        );
        if let Some(first) = first {
            problem.related(&Origin::file(file, first), "first defined here");
        }
    }
}

fn line_around(text: &str, at: usize) -> Range<usize> {
    let start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    let end = text.get(at..).and_then(|after| after.find('\n')).map_or(text.len(), |newline| at + newline);
    start..end
}

/// The span of an earlier `[header]` line that names the same table as the one in `line`.
fn earlier_header(text: &str, line: &Range<usize>) -> Option<Range<usize>> {
    let name = |line: &str| -> String {
        let line = line.split('#').next().unwrap_or("");
        line.chars().filter(|c| !c.is_whitespace() && *c != '"' && *c != '\'').collect()
    };
    let wanted = name(text.get(line.clone())?);
    let mut start = 0;
    for candidate in text.get(..line.start)?.split_inclusive('\n') {
        let shown = candidate.trim_end();
        if shown.trim_start().starts_with('[') && name(shown) == wanted {
            let indent = shown.len() - shown.trim_start().len();
            return Some(start + indent..start + shown.len());
        }
        start += candidate.len();
    }
    None
}

/// The nearest key called `name` that ends before `before`.
fn nearest_key(table: &Table, name: &str, before: usize, nearest: &mut Option<Range<usize>>) {
    for (key, entry) in table {
        if key == name
            && let Origin::File { span, .. } = &entry.key
            && span.end <= before
            && nearest.as_ref().is_none_or(|known| known.start < span.start)
        {
            *nearest = Some(span.clone());
        }
        match &entry.node.kind {
            Kind::Table(inner) => nearest_key(inner, name, before, nearest),
            Kind::Array(nodes) => {
                for inner in nodes.iter().filter_map(Node::as_table) {
                    nearest_key(inner, name, before, nearest);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Node, Diagnostics) {
        let mut out = Diagnostics::default();
        let node = parse(FileId(0), text, &mut out);
        (node, out)
    }

    fn at<'a>(text: &'a str, origin: &Origin) -> &'a str {
        let Origin::File { span, .. } = origin else { return "" };
        &text[span.clone()]
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let text = "a = 1\n[b]\nc.d = \"x\"\n[[e]]\nf = [true, 1.5]\n";
        let (root, out) = read(text);
        assert!(out.is_empty());
        let table = root.as_table().unwrap();
        assert_eq!(at(text, &table["a"].key), "a");
        assert_eq!(at(text, &table["b"].node.origin), "[b]");
        let d = root.get("b").unwrap().get("c").unwrap().get("d").unwrap();
        assert_eq!((at(text, &d.origin), d.as_str()), ("\"x\"", Some("x")));
        let e = &root.get("e").unwrap().as_array().unwrap()[0];
        assert_eq!(at(text, &e.origin), "[[e]]");
        assert_eq!(e.get("f").unwrap().to_json(), serde_json::json!([true, 1.5]));
    }

    #[test]
    fn all_syntax_errors_are_reported_and_the_rest_is_read() {
        let (root, out) = read("a = \nb = 2\nc = [1,\n[d]\ne = oops\nf = 3\n");
        assert!(out.len() >= 3, "{out:?}");
        assert_eq!(root.get("b").unwrap().kind, Kind::Integer(2));
        assert_eq!(root.get("a").unwrap().kind, Kind::Broken);
        let (root, _) = read("e = oops\nf = 3\n");
        assert_eq!(root.get("e").unwrap().kind, Kind::Broken);
        assert_eq!(root.get("f").unwrap().kind, Kind::Integer(3));
    }

    /// toml itself stops at such a line, and everything behind it would seem to be missing.
    #[test]
    fn a_key_without_a_value_hides_nothing_behind_it() {
        let text = "[a]\nb\nc = 1\nd é 2 # x\n[e]\nf = 3\n";
        let (root, out) = read(text);
        assert_eq!(out.iter().map(|item| item.code).collect::<Vec<_>>(), ["syntax", "syntax"]);
        assert_eq!(root.get("a").unwrap().get("c").unwrap().kind, Kind::Integer(1));
        let f = root.get("e").unwrap().get("f").unwrap();
        assert_eq!((&f.kind, at(text, &f.origin)), (&Kind::Integer(3), "3"));
    }

    #[test]
    fn a_second_definition_shows_the_first() {
        let text = "[a]\nx = 1\nx = 2\n[b]\nx = 1\n[ a ]\nx = 3\n";
        let (_, out) = read(text);
        let found: Vec<_> = out
            .iter()
            .map(|item| {
                let (first, _) = item.related.as_ref().unwrap();
                let Origin::File { span, .. } = first else { panic!() };
                (item.message.as_str(), at(text, &item.origin), span.start)
            })
            .collect();
        assert_eq!(found, [("key \"x\" is defined twice", "x", 4), ("table \"a\" is defined twice", "a", 0)]);
    }

    #[test]
    fn depth_is_bounded_however_it_is_written() {
        let dotted = "a.".repeat(100_000) + "a = 1";
        let braces = "a = ".to_owned() + &"{a = ".repeat(1000) + &"}".repeat(1000);
        let mixed = "a = ".to_owned() + &"{a.a.a.a = ".repeat(20) + "1" + &"}".repeat(20);
        let header = format!("[{}a]", "a.".repeat(70));
        for text in [dotted, braces, mixed, header, "[".repeat(50_000)] {
            let (_, out) = read(&text);
            assert_eq!(out.iter().next().map(|item| item.code), Some("nested-too-deeply"));
        }
        let many = "[[a.b]]\nc.d = [[1.5, 2.5], [1.1, 2.2]]\n".repeat(500);
        assert!(read(&many).1.is_empty());
    }

    #[test]
    fn numbers_that_do_not_fit_are_reported() {
        let (root, out) = read("a = 99999999999999999999\nb = 0xff\nc = 1_000\n");
        assert_eq!(out.iter().map(|item| item.code).collect::<Vec<_>>(), ["invalid-value"]);
        assert_eq!(root.get("b").unwrap().kind, Kind::Integer(255));
        assert_eq!(root.get("c").unwrap().kind, Kind::Integer(1000));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]{}=.,#\"'a-c0-9 \n\\\\$é-]{0,80}") {
            let (root, out) = read(&text);
            if out.is_empty() {
                prop_assert!(text.parse::<toml::Table>().is_ok());
            }
            prop_assert!(root.as_table().is_some());
        }
    }
}
