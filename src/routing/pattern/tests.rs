//! What each kind of pattern takes, and what is no pattern.

use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> PathPattern {
    PathPattern::parse(text).unwrap()
}

fn captured(text: &str, path: &str) -> Option<Vec<(String, Option<String>)>> {
    let pattern = pattern(text);
    let captures = pattern.captures(path)?;
    assert_eq!(captures.len(), pattern.capture_names().count());
    Some(
        pattern
            .capture_names()
            .enumerate()
            .map(|(index, name)| (name.to_owned(), captures.get(path, index).map(str::to_owned)))
            .collect(),
    )
}

fn pairs(pairs: &[(&str, &str)]) -> Option<Vec<(String, Option<String>)>> {
    Some(pairs.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect())
}

#[test]
fn each_kind_takes_what_it_says() {
    for (text, yes, no) in [
        ("/", vec!["/"], vec!["/a", "*", ""]),
        ("/a/b", vec!["/a/b"], vec!["/a/b/", "/a", "/a/b/c", "/A/b"]),
        ("/a/b/", vec!["/a/b/"], vec!["/a/b"]),
        ("/a/{id}", vec!["/a/1", "/a/x%2Fy"], vec!["/a/", "/a", "/a/1/", "/a/1/2"]),
        ("/a/{id}/", vec!["/a/1/"], vec!["/a/1", "/a//"]),
        ("/a/*", vec!["/a", "/a/", "/a/b", "/a/b/c/"], vec!["/ab", "/", "/A/b"]),
        ("/a/{id}/*", vec!["/a/1", "/a/1/", "/a/1/2/3"], vec!["/a", "/a/"]),
        ("/*", vec!["/", "/a", "/a/b/"], vec!["*"]),
        ("~^/a/[0-9]+$", vec!["/a/12"], vec!["/a/", "/a/1x", "/b/a/1"]),
        ("~/x", vec!["/x", "/a/x/b", "/xy"], vec!["/a"]),
        ("/größe x", vec!["/gr%C3%B6%C3%9Fe%20x"], vec!["/größe x"]),
        ("/%7Ea%2fb", vec!["/~a%2Fb"], vec!["/~a/b"]),
    ] {
        let pattern = pattern(text);
        for path in yes {
            assert!(pattern.matches(path) && pattern.captures(path).is_some(), "{text} takes {path}");
        }
        for path in no {
            assert!(!pattern.matches(path) && pattern.captures(path).is_none(), "{text} leaves {path}");
        }
    }
}

#[test]
fn captures_are_what_stood_there() {
    assert_eq!(captured("/a/{id}/b/{x_2}", "/a/1/b/%2F"), pairs(&[("id", "1"), ("x_2", "%2F")]));
    assert_eq!(captured("/a/*", "/a/b/c"), pairs(&[("rest", "b/c")]));
    assert_eq!(captured("/a/*", "/a/"), pairs(&[("rest", "")]));
    assert_eq!(captured("/a/*", "/a"), pairs(&[("rest", "")]));
    assert_eq!(captured("/*", "/"), pairs(&[("rest", "")]));
    assert_eq!(captured("/{t}/*", "/x/y"), pairs(&[("t", "x"), ("rest", "y")]));
    assert_eq!(captured("~^/(a|b)/(?<id>[0-9]+)", "/b/12/x"), pairs(&[("1", "b"), ("id", "12")]));
    assert_eq!(captured("~^/a(/x)?", "/ab"), Some(vec![("1".to_owned(), None)]));
    let regex = pattern("~^/(a|b)/(?<id>[0-9]+)");
    assert_eq!((regex.capture_index("2"), regex.capture_index("id")), (Some(1), Some(1)));
    assert_eq!((regex.capture_index("0"), regex.capture_index("3")), (None, None));
}

#[test]
fn broken_patterns_are_pointed_at() {
    for (text, at, word) in [
        ("a/b", 0..3, "does not start"),
        ("", 0..0, "does not start"),
        ("/a/{id", 3..6, "neither a parameter"),
        ("/a/x{id}", 3..8, "neither a parameter"),
        ("/a/{}", 4..4, "is not a parameter"),
        ("/a/{1}", 4..5, "is not a parameter"),
        ("/a/{b-c}", 4..7, "is not a parameter"),
        ("/{a}/{a}", 5..8, "stands twice"),
        ("/{rest}/*", 0..9, "already"),
        ("/a*", 1..3, "`*` may only"),
        ("/a/*/b", 3..4, "`*` may only"),
        ("/a//b", 2..4, "slashes are merged"),
        ("/a/%2e%2E/b", 3..9, "resolved"),
        ("/a?b=1", 1..6, "`?` or `#`"),
        ("/a/%zz", 3..6, "hex digits"),
        ("~^/a/([0-9]", 1..11, "unclosed group"),
        ("~^/\\w{999}{999}", 1..15, "too large"),
        ("~^/größe", 5..7, "percent-encoded"),
    ] {
        let mistake = PathPattern::parse(text).unwrap_err();
        assert!(mistake.message.contains(word), "{text}: {mistake}");
        assert_eq!(mistake.at, at, "{text}: {mistake}");
        assert!(!mistake.message.contains('\n'));
    }
    assert!(PathPattern::parse(&format!("/{}", "a".repeat(PATTERN_BYTES_MAX))).is_err());
    assert!(PathPattern::parse(&"/a".repeat(PATTERN_SEGMENTS_MAX + 1)).is_err());
}

#[test]
fn names_of_parameters_do_not_tell_patterns_apart() {
    assert!(pattern("/a/{x}").same_paths(&pattern("/a/{y}")));
    assert!(pattern("/ä").same_paths(&pattern("/%c3%a4")));
    assert!(
        !pattern("/a/{x}").same_paths(&pattern("/a/*")) && !pattern("/a/b").same_paths(&pattern("/a/{b}"))
    );
}

#[test]
fn a_regex_tells_how_its_paths_begin() {
    for (source, literal) in [
        ("^/a/[0-9]+$", "/a/"),
        ("^/api/v?", "/api/"),
        ("^/api/v{2}", "/api/"),
        ("^/api/v+", "/api/"),
        ("^/api|/b", ""),
        ("/api", ""),
        ("^(?i)/api", "/"),
        ("^/a\\.b", "/a.b"),
        ("^/a/(b|c)", "/a/"),
        ("^(/a)", ""),
        ("(?m)^/a", ""),
        ("^/a$", "/a"),
    ] {
        assert_eq!(&*literal_start(source), literal, "{source}");
    }
}

proptest! {
    #[test]
    fn no_pattern_panics(text in "[~/]?[/a{}*.%0-9?()|+^$ä]{0,16}", path in "/[/a0.%]{0,8}") {
        if let Ok(pattern) = PathPattern::parse(&text) {
            prop_assert_eq!(pattern.matches(&path), pattern.captures(&path).is_some());
        }
    }

    /// The shortcut through the literal start never changes what a regex matches.
    #[test]
    fn the_literal_start_is_a_must(source in "\\^?/[ab/.?*+{}()|\\[\\]0-9^$]{0,8}", path in "/[ab/0]{0,6}") {
        if let Ok(pattern) = PathPattern::parse(&format!("~{source}"))
            && let Kind::Regex(regex) = &pattern.kind
            && regex.regex.is_match(path.as_bytes())
        {
            prop_assert!(path.starts_with(&*regex.literal), "{} {}", source, path);
        }
    }
}
