//! The one form of a request path: what is matched is what is forwarded, so that no two readers see two paths.

use std::borrow::Cow;

use super::escape::{hex_pair, is_segment_byte, is_unreserved, push_escaped};

/// Why a path has no normal form. Displays as a fragment that completes "the path …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It does not begin at the root.
    #[error("does not start with `/`")]
    NotRooted,
    /// Percent-encoding that encodes nothing (RFC 3986 section 2.1).
    #[error("has a `%` that two hex digits do not follow")]
    BadEscape,
    /// A raw control byte, or NUL however it is written.
    #[error("holds a control character")]
    Control,
    /// `?` or `#`: the path ended before it.
    #[error("holds `?` or `#`")]
    Delimiter,
    /// More `..` than there are segments to leave.
    #[error("climbs above the root with `..`")]
    AboveRoot,
    /// A `.` or `..` where none may be: only told by [`check_built`].
    #[error("holds a segment of dots")]
    Dots,
}

/// Brings the path of a request target into its one form; borrows when it already has it.
///
/// Repeated slashes become one; `.` and `..` are resolved, however they are encoded; what is encoded without need is
/// decoded, and what may not stand raw is encoded, with hex digits in upper case (RFC 3986 section 6.2.2). `%2F` and
/// `%5C` stay inside their segment, a raw backslash becomes `%5C`. A slash at the end is kept; a path that ends in a
/// dot segment gets one. The result is ASCII. `*` (RFC 9112 section 3.2.4) is its own form: that only OPTIONS may have
/// it is for the caller to check; no pattern matches it.
pub fn normalise(raw: &[u8]) -> Result<Cow<'_, str>, BadPath> {
    if raw == b"*" {
        return Ok(Cow::Borrowed("*"));
    }
    if is_normal(raw)
        && let Ok(text) = std::str::from_utf8(raw)
    {
        return Ok(Cow::Borrowed(text));
    }
    rebuild(raw, Dots::Resolve).map(Cow::Owned)
}

/// Brings a path that was put together from values into its one form, and refuses it if it holds a dot segment: a
/// value must not be able to take away the segment before it.
pub fn check_built(path: String) -> Result<String, BadPath> {
    if is_normal(path.as_bytes()) { Ok(path) } else { rebuild(path.as_bytes(), Dots::Refuse) }
}

/// Appends one segment in its normal form.
///
/// Fails as [`normalise`] does; what it appended by then stays. A slash in `raw` is the caller's mistake and is encoded.
pub(super) fn push_normal_segment(out: &mut String, raw: &[u8]) -> Result<(), BadPath> {
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let [high, low, after @ ..] = after else { return Err(BadPath::BadEscape) };
                match hex_pair(*high, *low).ok_or(BadPath::BadEscape)? {
                    0 => return Err(BadPath::Control),
                    decoded if is_unreserved(decoded) => out.push(char::from(decoded)),
                    decoded => push_escaped(out, decoded),
                }
                rest = after;
            }
            b'?' | b'#' => return Err(BadPath::Delimiter),
            _ if is_segment_byte(byte) => out.push(char::from(byte)),
            _ if byte.is_ascii_control() => return Err(BadPath::Control),
            _ => push_escaped(out, byte),
        }
    }
    Ok(())
}

/// One scan, no allocation: whether [`rebuild`] would change nothing. Says no when in doubt.
fn is_normal(raw: &[u8]) -> bool {
    let Some((b'/', mut rest)) = raw.split_first() else { return false };
    // One turn per segment.
    loop {
        let mut left = rest;
        while let Some((&byte, after)) = left.split_first() {
            left = match byte {
                byte if is_segment_byte(byte) => after,
                b'%' => match after {
                    [high, low, after @ ..] if is_needed_escape(*high, *low) => after,
                    _ => return false,
                },
                b'/' => break,
                _ => return false,
            };
        }
        let (segment, after) = rest.split_at_checked(rest.len() - left.len()).unwrap_or((rest, &[]));
        let last = after.is_empty();
        if matches!(segment, b"." | b"..") || (segment.is_empty() && !last) {
            return false;
        }
        match after.split_first() {
            Some((_, after)) => rest = after,
            None => return true,
        }
    }
}

/// Whether `%` and these two digits are how a byte has to be written.
fn is_needed_escape(high: u8, low: u8) -> bool {
    let upper = |digit: u8| matches!(digit, b'0'..=b'9' | b'A'..=b'F');
    upper(high) && upper(low) && hex_pair(high, low).is_some_and(|byte| byte != 0 && !is_unreserved(byte))
}

#[derive(Clone, Copy, PartialEq)]
enum Dots {
    Resolve,
    Refuse,
}

fn rebuild(raw: &[u8], dots: Dots) -> Result<String, BadPath> {
    let Some((b'/', rest)) = raw.split_first() else { return Err(BadPath::NotRooted) };
    let mut out = String::with_capacity(raw.len() + 16);
    let mut ends_open = false;
    for segment in rest.split(|byte| *byte == b'/') {
        let start = out.len();
        out.push('/');
        push_normal_segment(&mut out, segment)?;
        let climbs = match out.get(start..) {
            Some("/") => false,
            Some("/." | "/..") if dots == Dots::Refuse => return Err(BadPath::Dots),
            Some("/.") => false,
            Some("/..") => true,
            _ => {
                ends_open = false;
                continue;
            }
        };
        ends_open = true;
        out.truncate(start);
        if climbs {
            let parent = out.rfind('/').ok_or(BadPath::AboveRoot)?;
            out.truncate(parent);
        }
    }
    if ends_open {
        out.push('/');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(raw: &str) -> String {
        normalise(raw.as_bytes()).unwrap().into_owned()
    }

    #[test]
    fn one_form_for_every_spelling() {
        for (raw, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b//", "/a/b/"),
            ("/a/./b/../c", "/a/c"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a//../b", "/b"),
            ("/%2e/a/%2E%2e/b", "/b"),
            ("/a/...", "/a/..."),
            ("/a/.b/..c", "/a/.b/..c"),
            ("/%41%7Eb%2d", "/A~b-"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2F..%2Fb", "/a%2F..%2Fb"),
            ("/a\\b%5c", "/a%5Cb%5C"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/größe", "/gr%C3%B6%C3%9Fe"),
            ("/a b\"<>[]^`{|}", "/a%20b%22%3C%3E%5B%5D%5E%60%7B%7C%7D"),
            ("/!$&'()*+,;=:@%21", "/!$&'()*+,;=:@%21"),
            ("*", "*"),
        ] {
            assert_eq!(normal(raw), expected, "{raw}");
        }
    }

    #[test]
    fn what_has_no_form_is_refused() {
        for (raw, error) in [
            ("", BadPath::NotRooted),
            ("a", BadPath::NotRooted),
            ("**", BadPath::NotRooted),
            ("/..", BadPath::AboveRoot),
            ("/a/../..", BadPath::AboveRoot),
            ("/.%2e/", BadPath::AboveRoot),
            ("/%", BadPath::BadEscape),
            ("/%4", BadPath::BadEscape),
            ("/%zz", BadPath::BadEscape),
            ("/%+1", BadPath::BadEscape),
            ("/a%00", BadPath::Control),
            ("/a\u{1}", BadPath::Control),
            ("/a\r\n", BadPath::Control),
            ("/a\u{7f}", BadPath::Control),
            ("/a?b", BadPath::Delimiter),
            ("/a#b", BadPath::Delimiter),
        ] {
            assert_eq!(normalise(raw.as_bytes()), Err(error), "{raw:?}");
        }
        assert_eq!(normalise(b"/\xff").unwrap(), "/%FF");
    }

    #[test]
    fn a_built_path_keeps_its_segments() {
        assert_eq!(check_built("/a/..".to_owned()), Err(BadPath::Dots));
        assert_eq!(check_built("/a/%2e/b".to_owned()), Err(BadPath::Dots));
        assert_eq!(check_built("/a//b ".to_owned()), Ok("/a/b%20".to_owned()));
    }

    /// The usual request costs a scan and no allocation.
    #[test]
    fn a_normal_path_is_borrowed() {
        for path in ["/", "/api/users/42", "/a%2Fb/.well-known/x..y/", "/%C3%9C"] {
            assert!(matches!(normalise(path.as_bytes()), Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    proptest! {
        #[test]
        fn normal_is_final_and_plain(
            raw in "(/|\\.|%2e|%2E|%2f|%5c|%00|%4|%41|[a-c]|\\\\|ä| |\\?|%FF){0,20}",
        ) {
            let raw = format!("/{raw}");
            if let Ok(normal) = normalise(raw.as_bytes()) {
                prop_assert_eq!(normalise(normal.as_bytes()), Ok(Cow::Borrowed(normal.as_ref())));
                prop_assert!(normal.starts_with('/') && normal.is_ascii());
                let inner = normal.strip_prefix('/').unwrap();
                let last = inner.split('/').count() - 1;
                for (index, segment) in inner.split('/').enumerate() {
                    prop_assert!(segment != "." && segment != "..");
                    prop_assert!(!segment.is_empty() || index == last);
                }
                prop_assert!(!normal.contains("%2E") && !normal.contains("%2e") && !normal.contains("%00"));
            }
        }

        #[test]
        fn the_scan_agrees_with_the_rebuilding(raw in "/(/|\\.|%2E|%2F|%2f|%41|[a-c]|%|ä|!){0,12}") {
            let rebuilt = rebuild(raw.as_bytes(), Dots::Resolve);
            prop_assert_eq!(is_normal(raw.as_bytes()), rebuilt.as_deref() == Ok(raw.as_str()));
        }

        #[test]
        fn no_bytes_panic(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(normalise(&raw));
        }
    }
}
