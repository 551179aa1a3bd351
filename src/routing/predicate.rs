//! What a route asks of headers, query and cookies.

use std::fmt;

use http::header::{COOKIE, HeaderMap, HeaderName};
use regex::bytes::Regex;

use super::Mistake;
use super::escape::{decode_query, query_means, query_pairs};
use super::pattern::compile_regex;

/// What one compiled regex over a value may take. Larger than for paths: values are text, and text has Unicode classes.
const REGEX_BYTES_MAX: usize = 1024 * 1024;
/// Longest value or regex.
const TEXT_BYTES_MAX: usize = 4096;

/// What is asked of a value. Where a name stands several times, one value that fits suffices.
#[derive(Debug, Clone)]
pub enum ValueMatch {
    /// Exactly this.
    Exact(Box<str>),
    /// This regex is found in it; anchored only if it says so.
    Regex(Regex),
    /// Anything, also nothing, as long as the name is there.
    Present,
    /// The name is not there.
    Absent,
}

impl ValueMatch {
    /// Reads `"value"` or `"~regex"`.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Mistake::new(
                0..text.len(),
                format!("value is {} bytes long, at most {TEXT_BYTES_MAX} are allowed", text.len()),
            ));
        }
        match text.strip_prefix('~') {
            Some(source) => compile_regex(source, true, REGEX_BYTES_MAX)
                .map(Self::Regex)
                .map_err(|mistake| mistake.shifted(1)),
            None => Ok(Self::Exact(text.into())),
        }
    }

    /// `true`: present; `false`: absent.
    pub fn presence(present: bool) -> Self {
        if present { Self::Present } else { Self::Absent }
    }

    /// Whether every value that fits `self` fits `other`, too; false when that is not plain.
    pub(super) fn implies(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => true,
            (Self::Absent, _) | (_, Self::Absent) => false,
            (_, Self::Present) => true,
            (Self::Present, _) => false,
            (Self::Exact(one), Self::Exact(two)) => one == two,
            // Any of several values may be the one that fits, but this one is there and fits both.
            (Self::Exact(one), Self::Regex(two)) => two.is_match(one.as_bytes()),
            (Self::Regex(one), Self::Regex(two)) => one.as_str() == two.as_str(),
            (Self::Regex(_), Self::Exact(_)) => false,
        }
    }

    fn fits<V>(
        &self,
        mut values: impl Iterator<Item = V>,
        means: impl Fn(V, &str) -> bool,
        finds: impl Fn(V, &Regex) -> bool,
    ) -> bool {
        match self {
            Self::Exact(wanted) => values.any(|value| means(value, wanted)),
            Self::Regex(regex) => values.any(|value| finds(value, regex)),
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
        }
    }
}

/// As it is written, or `present` or `absent`.
impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "\"{text}\""),
            Self::Regex(regex) => write!(f, "\"~{}\"", regex.as_str()),
            Self::Present => f.write_str("present"),
            Self::Absent => f.write_str("absent"),
        }
    }
}

/// Whether the header `name` is as `wanted`. Values are compared byte by byte.
pub(super) fn header_fits(headers: &HeaderMap, name: &HeaderName, wanted: &ValueMatch) -> bool {
    let values = headers.get_all(name).iter().map(|value| value.as_bytes());
    wanted.fits(values, |value, text| value == text.as_bytes(), |value, regex| regex.is_match(value))
}

/// Whether the parameter `name` is as `wanted`. Names and values are compared decoded.
pub(super) fn query_fits(query: Option<&str>, name: &str, wanted: &ValueMatch) -> bool {
    wanted.fits(
        query_values(query, name),
        |value, wanted| query_means(value, wanted.as_bytes()),
        |value, regex| regex.is_match(&decode_query(value)),
    )
}

/// Whether the cookie `name` is as `wanted`. Values are compared as they are sent, quotes included.
pub(super) fn cookie_fits(headers: &HeaderMap, name: &str, wanted: &ValueMatch) -> bool {
    let values = cookie_values(headers, name);
    wanted.fits(values, |value, text| value == text.as_bytes(), |value, regex| regex.is_match(value))
}

/// The values of the parameter `name`, still encoded.
pub(super) fn query_values<'a>(query: Option<&'a str>, name: &str) -> impl Iterator<Item = &'a str> {
    query_pairs(query.unwrap_or_default())
        .filter(move |(found, _)| query_means(found, name.as_bytes()))
        .map(|(_, value)| value)
}

/// The values of the cookie `name` (RFC 6265 section 5.4), over all `Cookie` lines: HTTP/2 may split them.
pub(super) fn cookie_values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .filter_map(move |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// All cookies, each with its value.
pub(super) fn all_cookies(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).filter_map(|pair| {
        let pair = pair.trim_ascii();
        let (name, value) = pair.split_at_checked(memchr::memchr(b'=', pair)?)?;
        Some((name, value.get(1..)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(text: &str) -> ValueMatch {
        ValueMatch::parse(text).unwrap()
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).fold(
            HeaderMap::new(),
            |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            },
        )
    }

    #[test]
    fn one_of_repeated_headers_suffices() {
        let headers = headers(&[("x-v", "1"), ("x-v", "2")]);
        let name = HeaderName::from_static("x-v");
        assert!(
            header_fits(&headers, &name, &wanted("2")) && header_fits(&headers, &name, &wanted("~^[12]$"))
        );
        assert!(
            !header_fits(&headers, &name, &wanted("3")) && !header_fits(&headers, &name, &wanted("1, 2"))
        );
        assert!(header_fits(&headers, &name, &ValueMatch::Present));
        assert!(!header_fits(&headers, &name, &ValueMatch::Absent));
        assert!(header_fits(&headers, &HeaderName::from_static("x-w"), &ValueMatch::Absent));
    }

    /// A client may ask for a version in `Accept`, as `config.md` shows.
    #[test]
    fn a_media_type_is_found_inside_accept() {
        let headers = headers(&[("accept", "text/html, application/vnd.shop.v2+json;q=0.9")]);
        let name = HeaderName::from_static("accept");
        assert!(header_fits(&headers, &name, &wanted(r"~vnd\.shop\.v2\+json")));
        assert!(!header_fits(&headers, &name, &wanted(r"~vnd\.shop\.v3\+json")));
    }

    #[test]
    fn queries_are_compared_decoded() {
        let query = Some("a=x+y&%76=%32&v=3&flag");
        assert!(query_fits(query, "v", &wanted("2")) && query_fits(query, "v", &wanted("3")));
        assert!(query_fits(query, "a", &wanted("x y")) && query_fits(query, "a", &wanted("~^x\\sy$")));
        assert!(query_fits(query, "flag", &wanted("")) && query_fits(query, "flag", &ValueMatch::Present));
        assert!(query_fits(query, "A", &ValueMatch::Absent) && query_fits(None, "v", &ValueMatch::Absent));
        assert!(!query_fits(Some(""), "v", &ValueMatch::Present));
    }

    #[test]
    fn cookies_are_found_on_any_line() {
        let headers = headers(&[("cookie", "a=1; beta=x=y"), ("cookie", " abc=2;a=3")]);
        assert!(cookie_fits(&headers, "a", &wanted("1")) && cookie_fits(&headers, "a", &wanted("3")));
        assert!(cookie_fits(&headers, "beta", &wanted("x=y")) && cookie_fits(&headers, "abc", &wanted("2")));
        assert!(
            cookie_fits(&headers, "ab", &ValueMatch::Absent)
                && cookie_fits(&headers, "A", &ValueMatch::Absent)
        );
    }

    #[test]
    fn implications_are_only_claimed_when_certain() {
        assert!(wanted("2").implies(&ValueMatch::Present) && wanted("2").implies(&wanted("~^[0-9]$")));
        assert!(wanted("~a").implies(&wanted("~a")) && wanted("~a").implies(&ValueMatch::Present));
        assert!(ValueMatch::Absent.implies(&ValueMatch::Absent));
        assert!(!wanted("2").implies(&wanted("3")) && !wanted("~a").implies(&wanted("~b")));
        assert!(
            !ValueMatch::Absent.implies(&ValueMatch::Present) && !wanted("2").implies(&ValueMatch::Absent)
        );
    }

    #[test]
    fn broken_predicates_are_refused() {
        assert_eq!(ValueMatch::parse("~[").unwrap_err().at, 1..2);
        assert!(ValueMatch::parse(&"a".repeat(TEXT_BYTES_MAX + 1)).is_err());
        assert_eq!(wanted("~^a$").to_string(), "\"~^a$\"");
    }
}
