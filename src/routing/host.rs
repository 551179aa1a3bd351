//! Hosts: what a request names, in one form, and what a route asks for.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

use super::Mistake;
use crate::base::authority;

/// A host that is none: empty, or with a byte that no name or address has, or with a port that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is neither a name nor an address")]
pub struct BadHost;

/// The host a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHost<'a> {
    /// In lower case, without port and final dot; an IPv6 address in brackets and in its canonical form (RFC 5952).
    pub name: Cow<'a, str>,
    /// The port, if one is named.
    pub port: Option<u16>,
}

/// Reads the value of `Host`, or the authority of a target (RFC 9110 section 7.2), as strictly as
/// [`authority::is_authority`].
///
/// Borrows, without allocating, when the name is already in its form.
pub fn normalise(raw: &[u8]) -> Result<RequestHost<'_>, BadHost> {
    let authority = authority::read(raw).ok_or(BadHost)?;
    let port = authority.port;
    let name = std::str::from_utf8(authority.host).map_err(|_| BadHost)?;
    if let Some(literal) = name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        let address = literal.parse().map_err(|_| BadHost)?;
        return Ok(RequestHost { name: canonical(address, name), port });
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let name =
        if authority.is_lowercase { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_lowercase()) };
    Ok(RequestHost { name, port })
}

/// `address` in brackets; `written` itself if it says the same in the same form.
fn canonical(address: Ipv6Addr, written: &str) -> Cow<'_, str> {
    struct Expect<'a>(&'a str);
    impl fmt::Write for Expect<'_> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    let mut expect = Expect(written);
    let same = fmt::write(&mut expect, format_args!("[{address}]")).is_ok() && expect.0.is_empty();
    if same { Cow::Borrowed(written) } else { Cow::Owned(format!("[{address}]")) }
}

/// A host a route asks for: `api.example.com`, or `*.example.com` for one label or more before `example.com`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This name or address, in the form of [`RequestHost::name`].
    Exact(Box<str>),
    /// Names that end in a dot and this.
    Wildcard(Box<str>),
}

impl HostPattern {
    /// Reads a pattern. Case, a final dot and a port mean nothing, as in requests; [`Self::has_port`] tells of a port.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let mistake = |error: BadHost| Mistake::new(0..text.len(), format!("host \"{text}\" {error}"));
        if text == "*" {
            return Err(Mistake::new(0..1, "\"*\" is not a host").hint(
                "leave `hosts` out, or write [], for any host; \"*.example.com\" for all below example.com",
            ));
        }
        if text.contains("://") {
            return Err(Mistake::new(0..text.len(), format!("host \"{text}\" is a URL"))
                .hint("write the name alone; `listeners` says where requests come in"));
        }
        if !text.is_ascii() {
            return Err(Mistake::new(0..text.len(), format!("host \"{text}\" is not in ASCII"))
                .hint("write international names as clients send them: \"xn--…\""));
        }
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        if name.contains('*') {
            return Err(Mistake::new(0..text.len(), format!("host \"{text}\" has a `*` where none may be"))
                .hint("`*` stands once, for whole labels, at the start: \"*.example.com\""));
        }
        let host = normalise(name.as_bytes()).map_err(mistake)?;
        if wildcard && host.name.starts_with('[') {
            return Err(mistake(BadHost));
        }
        let name = host.name.into();
        Ok(if wildcard { Self::Wildcard(name) } else { Self::Exact(name) })
    }

    /// Whether `text`, a valid pattern, names a port: it is ignored.
    pub fn has_port(text: &str) -> bool {
        let name = text.strip_prefix("*.").unwrap_or(text);
        normalise(name.as_bytes()).is_ok_and(|host| host.port.is_some())
    }

    /// Whether a request for `host`, in the form of [`RequestHost::name`], is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => **name == *host,
            Self::Wildcard(parent) => {
                parents(host).any(|above| *above == **parent) // one label or more
            }
        }
    }
}

/// The names above `host`, nearest first: of `a.b.c` these are `b.c` and `c`. None of an address in brackets.
pub(super) fn parents(host: &str) -> impl Iterator<Item = &str> {
    let name = if host.starts_with('[') { "" } else { host };
    memchr::memchr_iter(b'.', name.as_bytes()).filter_map(|dot| name.get(dot + 1..))
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_have_one_form() {
        for (raw, name, port) in [
            ("example.com", "example.com", None),
            ("Example.COM.:8443", "example.com", Some(8443)),
            ("a_b-c.x", "a_b-c.x", None),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]:80", "[::1]", Some(80)),
            ("[2001:DB8:0:0::1]", "[2001:db8::1]", None),
        ] {
            let host = normalise(raw.as_bytes()).unwrap();
            assert_eq!((host.name.as_ref(), host.port), (name, port), "{raw}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for raw in [
            "",
            ":80",
            ".",
            "a..b",
            ".a",
            "a.b..",
            "a b",
            "user@a",
            "a/b",
            "ä.de",
            "::1",
            "a:b",
            "a:",
            "a:+80",
            "a:65536",
            "[::1",
            "[::1]x",
            "[fe80::1%eth0]",
            "[1.2.3.4]",
        ] {
            assert_eq!(normalise(raw.as_bytes()), Err(BadHost), "{raw:?}");
        }
        assert_eq!(normalise(b"\xff"), Err(BadHost));
    }

    #[test]
    fn usual_hosts_are_borrowed() {
        for raw in ["example.com", "example.com.:80", "[::1]:80", "10.0.0.1"] {
            assert!(matches!(normalise(raw.as_bytes()).unwrap().name, Cow::Borrowed(_)), "{raw}");
        }
    }

    #[test]
    fn a_wildcard_is_one_label_or_more() {
        let pattern = HostPattern::parse("*.Example.com.").unwrap();
        assert!(pattern.matches("a.example.com") && pattern.matches("a.b.example.com"));
        assert!(
            !pattern.matches("example.com") && !pattern.matches("aexample.com") && !pattern.matches("com")
        );
        assert_eq!(pattern.to_string(), "*.example.com");
        let exact = HostPattern::parse("API.example.com:8443").unwrap();
        assert!(exact.matches("api.example.com") && !exact.matches("x.api.example.com"));
        assert!(HostPattern::has_port("API.example.com:8443") && !HostPattern::has_port("*.example.com"));
    }

    #[test]
    fn broken_patterns_say_what_to_write() {
        for text in ["*", "a.*.b", "*a.b", "https://a.b", "größe.de", "", "*.", "*.[::1]", "a:x"] {
            let mistake = HostPattern::parse(text).unwrap_err();
            assert!(!mistake.message.is_empty() && mistake.at.end <= text.len(), "{text}");
        }
        assert!(HostPattern::parse("*").unwrap_err().hint.unwrap().contains("any host"));
    }

    proptest! {
        #[test]
        fn the_form_is_final(raw in "[a-cA-C.:\\[\\]0-9*_-]{0,16}") {
            if let Ok(host) = normalise(raw.as_bytes()) {
                let again = normalise(host.name.as_bytes()).unwrap();
                prop_assert_eq!(again.name, Cow::Borrowed(host.name.as_ref()));
            }
            drop(HostPattern::parse(&raw));
        }

        #[test]
        fn no_bytes_panic(raw in proptest::collection::vec(any::<u8>(), 0..40)) {
            drop(normalise(&raw));
        }
    }
}
