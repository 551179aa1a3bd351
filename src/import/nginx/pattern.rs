//! Paths and regexes of nginx as path patterns of Edgeward.
//!
//! nginx compares the decoded path, Edgeward the percent-encoded one: literals are encoded here. Edgeward's regexes know
//! no look-ahead, so the usual `(?!literal)` becomes "anything that does not begin with the literal", spelled out.

use crate::routing::escape::push_segment;
use crate::routing::{PATTERN_BYTES_MAX, PathPattern};

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
    if source.len() > PATTERN_BYTES_MAX {
        return Translated::None;
    }
    let Some((encoded, same)) = encode_literals(source) else { return Translated::None };
    if valid(&encoded) {
        return if same { Translated::Same(flagged(&encoded)) } else { Translated::Wider(flagged(&encoded)) };
    }
    if let Some(spelled) = without_lookahead(&encoded).filter(|spelled| same && valid(spelled)) {
        return Translated::Same(flagged(&spelled));
    }
    match without_lookaround(&encoded).map(|wider| without_references(&wider)).filter(|wider| valid(wider)) {
        Some(wider) => Translated::Wider(flagged(&wider)),
        None => Translated::None,
    }
}

/// Characters that are in no normal path as they are, percent-encoded; the regex is otherwise left alone. Whether it
/// matches the same; `None` where it would match less.
fn encode_literals(source: &str) -> Option<(String, bool)> {
    // What may be escaped in a regex and is encoded in a path.
    const ESCAPED: &str = "?#[]{}^|\\";
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '%' | '`');
    let mut out = String::with_capacity(source.len());
    let push = |out: &mut String, c: char| push_segment(out, c.encode_utf8(&mut [0; 4]).as_bytes());
    let mut chars = source.chars().peekable();
    let mut same = true;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                's' => out.push_str("%(?:20|09|0A|0D)"),
                next if ESCAPED.contains(next) => push_group(&mut out, next),
                next if plain(next) => out.extend(['\\', next]),
                next => push_group(&mut out, next),
            },
            '[' => {
                let mut class = String::new();
                let mut more = Vec::new();
                let negated = chars.next_if_eq(&'^').is_some();
                if let Some(first) = chars.next_if_eq(&']') {
                    class.extend(['\\', first]);
                }
                loop {
                    match chars.next()? {
                        ']' => break,
                        // A class of POSIX, or what the two dialects read differently.
                        '[' if chars.peek() == Some(&':') => {
                            class.push('[');
                            loop {
                                let inner = chars.next()?;
                                class.push(inner);
                                if inner == ']' {
                                    break;
                                }
                            }
                        }
                        '[' => class.push_str("\\["),
                        '\\' => match chars.next()? {
                            's' => more.extend([' ', '\t', '\n', '\r']),
                            next if plain(next) => class.extend(['\\', next]),
                            next => more.push(next),
                        },
                        next if plain(next) => class.push(next),
                        // The end of a range: nobody knows.
                        _ if class.ends_with('-') || chars.peek() == Some(&'-') => return None,
                        next => more.push(next),
                    }
                }
                let one = match (class.is_empty(), negated) {
                    (true, true) => "(?s:.)".to_owned(),
                    (true, false) => String::new(),
                    (false, true) => format!("[^{class}]"),
                    (false, false) => format!("[{class}]"),
                };
                if more.is_empty() || negated {
                    // What is excluded is never there as it is, and encoded it is let through.
                    same &= more.is_empty();
                    out.push_str(&one);
                } else {
                    let mut ways: Vec<String> = Vec::new();
                    if !one.is_empty() {
                        ways.push(one);
                    }
                    for c in more {
                        let mut way = String::new();
                        push(&mut way, c);
                        ways.push(way);
                    }
                    out.push_str(&format!("(?:{})", ways.join("|")));
                }
            }
            _ if plain(c) => out.push(c),
            // What repeats repeats all of it.
            _ if matches!(chars.peek(), Some('*' | '+' | '?' | '{')) => push_group(&mut out, c),
            _ => push(&mut out, c),
        }
    }
    Some((out, same))
}

/// An encoded character that may be repeated.
fn push_group(out: &mut String, c: char) {
    out.push_str("(?:");
    push_segment(out, c.encode_utf8(&mut [0; 4]).as_bytes());
    out.push(')');
}

/// Lets references to groups match anything.
fn without_references(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut chars = source.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some('1'..='9')) => {
                chars.next();
                out.push_str(".*");
            }
            ('\\', Some(next)) => {
                chars.next();
                out.extend(['\\', next]);
            }
            _ => out.push(c),
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

/// The same of a path that may hold percent-encoded characters, which stay.
pub(super) fn encode_written(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(&encode_path(before));
        let code = after.get(..2).filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()));
        out.push('%');
        out.push_str(code.unwrap_or("25"));
        rest = if code.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    out.push_str(&encode_path(rest));
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
    // Too long for a path: whoever writes it finds out.
    if let Some(long) = longer.iter().find(|path| path.len() > PATTERN_BYTES_MAX) {
        return format!("^{}", escape(long));
    }
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

/// The paths below a prefix that a regex finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Below {
    /// Exactly these.
    Exact(String),
    /// There are none.
    Never,
    /// It cannot be said.
    Unsaid,
}

/// The paths below `prefix` (encoded) that `regex` finds.
///
/// The regex may begin to match inside the prefix; as far as its own literal start tells, that is taken into account.
pub(super) fn below(prefix: &str, regex: &str) -> Below {
    // Every path is below it.
    if prefix == "/" {
        return Below::Exact(regex.to_owned());
    }
    let (any_case, body) = match regex.strip_prefix("(?i)") {
        Some(body) => (true, body),
        None => (false, regex),
    };
    let begins = |text: &str, start: &str| {
        text.get(..start.len())
            .is_some_and(|begin| begin == start || any_case && begin.eq_ignore_ascii_case(start))
    };
    if let Some(start) = simple_prefix(body).filter(|_| !any_case) {
        return if start.starts_with(prefix) {
            Below::Exact(regex.to_owned())
        } else if prefix.starts_with(&start) {
            Below::Exact(format!("^{}", escape(prefix)))
        } else {
            Below::Never
        };
    }
    if top_level_alternatives(body) || (body.contains("(?") && body.replace("(?:", "").contains("(?i")) {
        return Below::Unsaid;
    }
    // Where the searched part may begin at the earliest, after what is anchored.
    let (mut searched, mut from) = (body, 0);
    if let Some(anchored) = body.strip_prefix('^') {
        let literal = literal_start(anchored);
        if literal.starts_with(prefix) {
            return Below::Exact(regex.to_owned());
        }
        if begins(&literal, prefix) {
            return Below::Unsaid;
        }
        if !begins(prefix, &literal) {
            return Below::Never;
        }
        let Some(rest) = anchored.strip_prefix(escaped_start(anchored, &literal)) else {
            return Below::Unsaid;
        };
        if let Some(rest) = rest.strip_prefix(".*") {
            (searched, from) = (rest, literal.len());
        } else if let Some(rest) = rest.strip_prefix(".+") {
            (searched, from) = (rest, literal.len() + 1);
        } else {
            return Below::Unsaid;
        }
        if from > prefix.len() || searched.starts_with(['?', '+', '*']) {
            return Below::Unsaid;
        }
    }
    let literal = literal_start(searched);
    let mut befores = vec![format!("{}.*", escape(prefix))];
    for (at, _) in prefix.char_indices().filter(|(at, _)| *at >= from) {
        let (before, inside) = prefix.split_at_checked(at).unwrap_or((prefix, ""));
        if begins(&literal, inside) {
            // Found in any case it might not be the prefix.
            if any_case && inside.contains(|c: char| c.is_ascii_alphabetic()) {
                return Below::Unsaid;
            }
            befores.push(escape(before));
        } else if begins(inside, &literal) {
            // It could go on through the rest of the prefix: nobody knows.
            return Below::Unsaid;
        }
    }
    let searched = if any_case { format!("(?i:{searched})") } else { format!("(?:{searched})") };
    Below::Exact(match befores.as_slice() {
        [only] => format!("^{only}{searched}"),
        several => format!("^(?:{}){searched}", several.join("|")),
    })
}

/// The literal that all paths of the regex begin with, where it asks for nothing else.
fn simple_prefix(regex: &str) -> Option<String> {
    let anchored = regex.strip_prefix('^')?;
    let literal = literal_start(anchored);
    let rest = anchored.strip_prefix(escaped_start(anchored, &literal))?;
    (!literal.is_empty() && matches!(rest, "" | ".*" | ".*$")).then_some(literal)
}

/// The literal that a regex (without `^`) is, if it is one.
pub(super) fn unescaped(regex: &str) -> Option<String> {
    let literal = literal_start(regex);
    (!literal.is_empty() && escaped_start(regex, &literal) == regex).then_some(literal)
}

/// How the literal start of a regex is written in it.
fn escaped_start<'r>(regex: &'r str, literal: &str) -> &'r str {
    let mut end = 0;
    let mut chars = regex.char_indices();
    for wanted in literal.chars() {
        let Some((mut at, mut c)) = chars.next() else { break };
        if c == '\\' && wanted != '\\' {
            match chars.next() {
                Some(next) => (at, c) = next,
                None => break,
            }
        }
        end = at + c.len_utf8();
    }
    regex.get(..end).unwrap_or_default()
}

/// Whether a regex may find a path that begins with `start` and, if anything follows, ends with `end`: `false` only
/// where it surely does not.
pub(super) fn may_find(regex: &str, start: &str, end: &str) -> bool {
    let (any_case, body) = match regex.strip_prefix("(?i)") {
        Some(body) => (true, body.to_ascii_lowercase()),
        None => (false, regex.to_owned()),
    };
    if top_level_alternatives(&body) {
        return true;
    }
    let fold = |text: &str| if any_case { text.to_ascii_lowercase() } else { text.to_owned() };
    let (start, end) = (fold(start), fold(end));
    if let Some(anchored) = body.strip_prefix('^') {
        let literal = literal_start(anchored);
        return literal.starts_with(&start) || start.starts_with(&literal);
    }
    // A literal at the end.
    if let Some(ending) = body.strip_suffix('$') {
        let literal = literal_start(ending);
        if !literal.is_empty() && escaped_start(ending, &literal) == ending && !end.is_empty() {
            return literal.ends_with(&end) || end.ends_with(&literal);
        }
    }
    true
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
        assert_eq!(path_regex(r"^/(.)\1$", false), Translated::Wider("^/(.).*$".to_owned()));
        assert_eq!(path_regex("^/(", false), Translated::None);
        assert_eq!(path_regex(r"\.(gif|jpg)$", true), Translated::Same(r"(?i)\.(gif|jpg)$".to_owned()));
        assert_eq!(path_regex("^/größe", false), Translated::Same("^/gr%C3%B6%C3%9Fe".to_owned()));
    }

    #[test]
    fn a_nested_regex_is_held_to_its_prefix() {
        let exact = |prefix: &str, regex: &str| match below(prefix, regex) {
            Below::Exact(regex) => regex,
            other => panic!("{prefix} {regex}: {other:?}"),
        };
        for (prefix, regex) in [
            ("/wp/", r"\.php$"),
            ("/a/b/", r"/\.ht"),
            ("/", r"(?i)/\.git"),
            ("/a/", r"(?i)/\.git"),
            ("/a/", r"\.(js|css)$"),
        ] {
            exact(prefix, regex);
        }
        assert_eq!(below("/a/", "/(b|c)$"), Below::Unsaid, "it could begin before the prefix ends");
        assert_eq!(below("/a/", r"[a-z]$"), Below::Unsaid);
        assert_eq!(below("/a/", r"^/b/.*x$"), Below::Never);
        let found = exact("/a/b/", r"/\.ht");
        for (path, expected) in
            [("/a/b/.ht", true), ("/a/b/c/.ht", true), ("/a/.ht", false), ("/x/a/b/.ht", false)]
        {
            assert_eq!(fits(&found, path), expected, "{path} {found}");
        }
        let found = exact("/a/", r"(?i)/\.git");
        for (path, expected) in
            [("/a/.git/config", true), ("/a/b/.GIT", true), ("/A/.git", false), ("/.git", false)]
        {
            assert_eq!(fits(&found, path), expected, "{path} {found}");
        }
        let found = exact("/static/", r"^.+\.css$");
        for (path, expected) in [("/static/a.css", true), ("/a.css", false), ("/static/.css", true)] {
            assert_eq!(fits(&found, path), expected, "{path} {found}");
        }
        assert_eq!(exact("/a/", "^/a/x"), "^/a/x");
    }

    #[test]
    fn what_is_encoded_in_paths_is_encoded_in_regexes() {
        for (source, path, expected) in [
            ("^/my file", "/my%20file", true),
            (r"^/a\sb$", "/a%20b", true),
            (r"^/a[ b]c$", "/a%20c", true),
            (r"^/a[ b]c$", "/abc", true),
            (r"^/100%$", "/100%25", true),
            (r"^/a\?b$", "/a%3Fb", true),
            (r"^/ü+$", "/%C3%BC%C3%BC", true),
            (r"^/[[:alpha:]]+$", "/abc", true),
            ("^/a\u{5}*[b\u{7f}]$", "/a%05%05%7F", true),
        ] {
            let Translated::Same(regex) = path_regex(source, false) else { panic!("{source}") };
            assert_eq!(fits(&regex, path), expected, "{source} {regex} {path}");
        }
        assert!(matches!(path_regex("^/[^ ]+$", false), Translated::Wider(_)));
        assert_eq!(path_regex("^/[ä-ü]+$", false), Translated::None);
    }

    #[test]
    fn what_a_regex_surely_does_not_find_is_told() {
        assert!(!may_find("^/admin/", "/app/", ""));
        assert!(may_find("^/app/x", "/app/", ""));
        assert!(!may_find(r"\.php$", "/app/", ".html"));
        assert!(may_find(r"(?i)\.php$", "/app/", "index.PHP"));
        assert!(may_find(r"/\.", "/app/", ""));
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
            regex in "(\\^/?|\\^\\.\\+|\\^/\\.\\*|/|a|b|\\\\\\.)(a|b|\\.|\\[ab\\]|a\\*){0,3}\\$?",
            path in "[ab/.]{0,6}",
        ) {
            let found = below(&prefix, &regex);
            for path in [format!("{prefix}{path}"), format!("/{path}")] {
                let expected = path.starts_with(&prefix) && fits(&regex, &path);
                match &found {
                    // Below "/" is every path.
                    Below::Exact(both) => prop_assert_eq!(fits(both, &path), expected, "{} {} {}", both, regex, path),
                    Below::Never => prop_assert!(!expected, "{} {}", regex, path),
                    Below::Unsaid => {}
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
