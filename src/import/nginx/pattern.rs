//! Paths and regexes of nginx as path patterns of Edgeward.
//!
//! nginx compares the decoded path, Edgeward the percent-encoded one: literals are encoded here. Edgeward's regexes know
//! no look-ahead, so the usual `(?!literal)` becomes "anything that does not begin with the literal", spelled out.

use crate::routing::PathPattern;
use crate::routing::escape::push_segment;

/// A regex as it was translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Translated {
    /// Matches the same paths.
    Same(String),
    /// Matches these and more: good enough to keep people out, not to let them in.
    Wider(String),
    /// There is none.
    None,
}

/// The regex of a `location ~` or `~*`, for paths.
pub(super) fn path_regex(source: &str, any_case: bool) -> Translated {
    let flagged = |regex: &str| if any_case { format!("(?i){regex}") } else { regex.to_owned() };
    let valid = |regex: &str| PathPattern::regex(&flagged(regex)).is_ok();
    if valid(source) {
        return Translated::Same(flagged(source));
    }
    let encoded = encode_literals(source);
    if valid(&encoded) {
        return Translated::Same(flagged(&encoded));
    }
    if let Some(spelled) = without_lookahead(&encoded).filter(|spelled| valid(spelled)) {
        return Translated::Same(flagged(&spelled));
    }
    match without_lookaround(&encoded).filter(|wider| valid(wider)) {
        Some(wider) => Translated::Wider(flagged(&wider)),
        None => Translated::None,
    }
}

/// Characters that are in no path as they are, percent-encoded; the regex is otherwise left alone.
fn encode_literals(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    for c in source.chars() {
        if c.is_ascii() && c != ' ' {
            out.push(c);
        } else {
            push_segment(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    out
}

/// The normal, percent-encoded form of a literal path as nginx has it, decoded.
pub(super) fn encode_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        push_segment(&mut out, segment.as_bytes());
    }
    out
}

/// A literal inside a regex.
pub(super) fn escape(literal: &str) -> String {
    let mut out = String::with_capacity(literal.len());
    for c in literal.chars() {
        if "\\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The regex of all paths that begin with `prefix` (encoded) but with none of `longer`, which all begin with it.
pub(super) fn prefix_without(prefix: &str, longer: &[String]) -> String {
    let rests: Vec<&str> = longer.iter().filter_map(|path| path.strip_prefix(prefix)).collect();
    let tail = if rests.is_empty() { String::new() } else { beginning_otherwise(&rests) };
    format!("^{}{tail}", escape(prefix))
}

/// A regex for whatever begins with none of `literals`: it matches up to the first character that tells.
fn beginning_otherwise(literals: &[&str]) -> String {
    let mut firsts: Vec<char> = literals.iter().filter_map(|literal| literal.chars().next()).collect();
    firsts.sort_unstable();
    firsts.dedup();
    let class: String = firsts
        .iter()
        .map(|c| if "\\]^-[&~".contains(*c) { format!("\\{c}") } else { c.to_string() })
        .collect();
    let mut ways = vec!["$".to_owned(), format!("[^{class}]")];
    for first in firsts {
        let rests: Vec<&str> = literals.iter().filter_map(|literal| literal.strip_prefix(first)).collect();
        if !rests.contains(&"") {
            ways.push(format!("{}{}", escape(&first.to_string()), beginning_otherwise(&rests)));
        }
    }
    format!("(?:{})", ways.join("|"))
}

/// The paths below `prefix` (encoded) that `regex` matches, and whether these are exactly they.
///
/// The regex may begin to match inside the prefix; as far as its own literal start tells, that is taken into account.
pub(super) fn below(prefix: &str, regex: &str) -> (String, bool) {
    if let Some(anchored) = regex.strip_prefix('^') {
        // What begins with the prefix is below it already; another start can never be.
        let literal = literal_start(anchored);
        if literal.starts_with(prefix) || (prefix.starts_with(&literal) && prefix == "/") {
            return (regex.to_owned(), true);
        }
        return (regex.to_owned(), false);
    }
    let literal = literal_start(regex);
    let escaped = escape(prefix);
    let mut ways = vec![format!("{escaped}.*(?:{regex})")];
    let mut exact = true;
    // Groups may stand once only.
    let grouped = regex.replace("(?:", "").contains('(');
    for (at, _) in prefix.char_indices() {
        let (before, inside) = prefix.split_at_checked(at).unwrap_or((prefix, ""));
        if literal.starts_with(inside) && !literal.is_empty() {
            if grouped {
                exact = false;
                continue;
            }
            ways.push(format!("{}(?:{regex})", escape(before)));
        } else if inside.starts_with(literal.as_str()) {
            // It could go on through the rest of the prefix: nobody knows.
            exact = false;
        }
    }
    match ways.as_slice() {
        [only] => (format!("^{only}"), exact),
        several => (format!("^(?:{})", several.join("|")), exact),
    }
}

/// The literal text that a regex begins with.
fn literal_start(regex: &str) -> String {
    let mut literal = String::new();
    let mut chars = regex.chars().peekable();
    while let Some(next) = chars.next() {
        let one = match next {
            '\\' => match chars.next() {
                Some(escaped) if !escaped.is_ascii_alphanumeric() => escaped,
                _ => break,
            },
            '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => break,
            plain => plain,
        };
        if matches!(chars.peek(), Some('*' | '?' | '{' | '|')) {
            break;
        }
        literal.push(one);
    }
    // One alternative among several is not what all begin with.
    if top_level_alternatives(regex) { String::new() } else { literal }
}

fn top_level_alternatives(regex: &str) -> bool {
    let (mut depth, mut escaped, mut class) = (0_i32, false, false);
    for c in regex.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ']' if class => class = false,
            _ if class => {}
            '[' => class = true,
            '(' => depth += 1,
            ')' => depth -= 1,
            '|' if depth == 0 => return true,
            _ => {}
        }
    }
    false
}

/// Replaces `(?!a|b)` by what it means, where it holds literals and only "anything" follows.
fn without_lookahead(source: &str) -> Option<String> {
    let (before, after) = source.split_once("(?!")?;
    let (inner, rest) = after.split_once(')')?;
    if !matches!(rest, "" | ")" | ".*" | ".*)" | ".*$" | ".*)$") {
        return None;
    }
    let literals: Option<Vec<String>> = inner
        .split('|')
        .map(|way| {
            let literal = literal_start(way);
            (!literal.is_empty()
                && escape(&literal).len() >= way.replace("\\/", "/").replace("\\-", "-").len())
            .then_some(literal)
        })
        .collect();
    let literals = literals?;
    let literals: Vec<&str> = literals.iter().map(String::as_str).collect();
    // `.*` can give back what the spelled-out form takes.
    Some(format!("{before}{}{rest}", beginning_otherwise(&literals)))
}

/// Takes look-around away, so that more is matched.
fn without_lookaround(source: &str) -> Option<String> {
    let mut out = source.to_owned();
    for opening in ["(?!", "(?=", "(?<!", "(?<="] {
        while let Some((before, after)) = out.split_once(opening) {
            let mut depth = 1_i32;
            let mut escaped = false;
            let end = after.char_indices().find(|(_, c)| {
                match c {
                    _ if escaped => escaped = false,
                    '\\' => escaped = true,
                    '(' => depth += 1,
                    ')' => depth -= 1,
                    _ => {}
                }
                depth == 0
            })?;
            out = format!("{before}{}", after.get(end.0 + 1..)?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn fits(regex: &str, path: &str) -> bool {
        Regex::new(regex).unwrap().is_match(path)
    }

    #[test]
    fn look_ahead_is_spelled_out() {
        let Translated::Same(regex) = path_regex(r"/\.(?!well-known)", false) else { panic!() };
        for (path, expected) in [
            ("/.git/config", true),
            ("/a/.w", true),
            ("/.well", true),
            ("/.well-known/acme", false),
            ("/.well-knowx", true),
            ("/a", false),
        ] {
            assert_eq!(fits(&regex, path), expected, "{path} {regex}");
        }
        let Translated::Same(regex) = path_regex(r"^/(?!api|static/).*$", false) else { panic!() };
        assert!(fits(&regex, "/x/y") && fits(&regex, "/ap") && fits(&regex, "/static"));
        assert!(!fits(&regex, "/apis") && !fits(&regex, "/static/"));
    }

    #[test]
    fn what_cannot_be_said_is_widened_or_nothing() {
        assert_eq!(path_regex(r"^/(?!a[0-9]).*x$", false), Translated::Wider("^/.*x$".to_owned()));
        assert_eq!(path_regex(r"^/(.)\1$", false), Translated::None);
        assert_eq!(path_regex(r"\.(gif|jpg)$", true), Translated::Same(r"(?i)\.(gif|jpg)$".to_owned()));
        assert_eq!(path_regex("^/größe", false), Translated::Same("^/gr%C3%B6%C3%9Fe".to_owned()));
    }

    #[test]
    fn a_nested_regex_is_held_to_its_prefix() {
        for (prefix, regex, exact) in
            [("/wp/", r"\.php$", true), ("/a/b/", r"/\.ht", true), ("/a/", r"[a-z]$", false)]
        {
            assert_eq!(below(prefix, regex).1, exact, "{prefix} {regex}");
        }
        let (regex, _) = below("/a/b/", r"/\.ht");
        for (path, expected) in
            [("/a/b/.ht", true), ("/a/b/c/.ht", true), ("/a/.ht", false), ("/x/a/b/.ht", false)]
        {
            assert_eq!(fits(&regex, path), expected, "{path} {regex}");
        }
        assert_eq!(below("/a/", "^/a/x"), ("^/a/x".to_owned(), true));
    }

    #[test]
    fn literal_starts_stop_where_it_is_open() {
        for (regex, literal) in
            [(r"\.php$", ".php"), ("ab*", "a"), ("a|b", ""), ("/x/(y)", "/x/"), (r"\d", "")]
        {
            assert_eq!(literal_start(regex), literal, "{regex}");
        }
    }

    proptest! {
        #[test]
        fn prefixes_leave_out_exactly_the_longer_ones(
            longer in proptest::collection::vec("[ab/.-]{1,4}", 0..4),
            path in "[ab/.-]{0,6}",
        ) {
            let longer: Vec<String> = longer.into_iter().map(|rest| format!("/p/{rest}")).collect();
            let regex = prefix_without("/p/", &longer);
            for path in [format!("/p/{path}"), path] {
                let expected = path.starts_with("/p/") && !longer.iter().any(|longer| path.starts_with(longer.as_str()));
                prop_assert_eq!(fits(&regex, &path), expected, "{} {}", regex, path);
            }
        }

        /// Below a prefix, said to be exact, means: begins with it, and the regex is found.
        #[test]
        fn an_exact_intersection_is_one(
            prefix in "/[ab.]{0,2}(/|)",
            regex in "(/|a|b|\\\\\\.)(a|b|\\.|\\[ab\\]|a\\*){0,3}\\$?",
            path in "[ab/.]{0,6}",
        ) {
            let (both, exact) = below(&prefix, &regex);
            if exact {
                for path in [format!("{prefix}{path}"), format!("/{path}")] {
                    let expected = path.starts_with(&prefix) && fits(&regex, &path);
                    prop_assert_eq!(fits(&both, &path), expected, "{} {} {}", both, regex, path);
                }
            }
        }

        #[test]
        fn no_regex_panics(source in "([a-z/]|\\(\\?!|\\(\\?<=|\\)|\\||\\.\\*|\\\\|\\[|\\]|\\$|ä){0,16}") {
            let _ = path_regex(&source, true);
            let _ = below("/a/", &source);
        }
    }
}
