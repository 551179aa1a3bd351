//! The parser's complaints in words for people who do not know its grammar.

use std::ops::Range;

use crate::base::veil;

/// What to say instead of `message` about `span` of `text`, and what to do about it.
pub(super) fn explain(message: &str, text: &str, span: &Range<usize>) -> (String, Option<String>) {
    let is_secret =
        veil::secrets(text).iter().any(|hidden| hidden.start < span.end && span.start < hidden.end);
    let shown = text.get(span.clone()).unwrap_or("");
    let rest_of_line = text.get(span.start..).and_then(|rest| rest.lines().next()).unwrap_or("").trim();
    if message.starts_with("string values must be quoted")
        || message.starts_with("invalid ") && is_word(shown)
    {
        if rest_of_line.is_empty() || rest_of_line.starts_with('#') {
            return ("the value is missing".to_owned(), None);
        }
        if is_secret {
            return ("this is no value".to_owned(), Some("strings stand in quotes".to_owned()));
        }
        let hint = match shown.strip_prefix(is_typographic_quote) {
            Some(rest) => {
                format!("quotes are plain: \"{}\"", rest.strip_suffix(is_typographic_quote).unwrap_or(rest))
            }
            None => format!("strings stand in quotes: \"{shown}\""),
        };
        return (format!("{shown} is no value"), Some(hint));
    }
    if message.starts_with("missing escaped value") {
        let hint = "in single quotes backslashes stay as they are: '\\d'".to_owned();
        return ("this is no escape that TOML knows".to_owned(), Some(hint));
    }
    if message.starts_with("invalid basic string") || message.starts_with("invalid literal string") {
        return (
            "this string is never closed".to_owned(),
            Some("it ends on the line it begins on".to_owned()),
        );
    }
    let hint = message
        .starts_with("missing comma between array elements")
        .then(|| "or the list before it was never closed".to_owned());
    (message.replace("expected nothing", "expected one").replace('`', "\""), hint)
}

/// What word processors and web pages make of a quote.
fn is_typographic_quote(c: char) -> bool {
    matches!(c, '\u{2018}'..='\u{201f}' | '\u{ab}' | '\u{bb}')
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}
