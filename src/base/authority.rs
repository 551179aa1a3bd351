//! The syntax of `Host`, `:authority` and everything else that names a host and perhaps a port.

use std::net::Ipv6Addr;

/// Longest host accepted, without port (RFC 1035 section 2.3.4, plus the brackets of an address).
pub const HOST_BYTES_MAX: usize = 255;

/// Whether `text` is `host` or `host:port` (RFC 9110 section 7.2), with nothing in it that parsers disagree about.
///
/// Narrower than RFC 3986 `authority`: no user information, no percent-encoding or sub-delimiters, no empty label (a
/// dot at the very end passes), no empty port. Servers differ on what those mean, and no DNS name needs them.
pub fn is_authority(text: &[u8]) -> bool {
    read(text).is_some()
}

/// What an authority says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// A DNS name, an IPv4 address, or an IPv6 address in brackets; as written.
    pub host: &'a [u8],
    /// The port, if there is one.
    pub port: Option<u16>,
    /// Whether the host has no letter in upper case.
    pub is_lowercase: bool,
}

/// Reads `text`; `None` unless it [is an authority](is_authority). Every request passes here, some twice: one look at
/// each byte.
pub fn read(text: &[u8]) -> Option<Authority<'_>> {
    if text.first() == Some(&b'[') {
        let (host, port) = split_port(text)?;
        let port = match port {
            Some(port) => Some(parse_port(port)?),
            None => None,
        };
        return is_host(host).then_some(Authority { host, port, is_lowercase: false });
    }
    let (mut before, mut is_lowercase, mut host, mut port) = (b'.', true, text, None);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'A'..=b'Z' => is_lowercase = false,
            // An empty label: at the start, or two dots in a row.
            b'.' if before != b'.' => {}
            b':' => {
                port = Some(parse_port(text.get(at + 1..)?)?);
                host = text.get(..at)?;
                break;
            }
            _ => return None,
        }
        before = byte;
    }
    (!host.is_empty() && host.len() <= HOST_BYTES_MAX).then_some(Authority { host, port, is_lowercase })
}

/// Whether two authorities name the same place: hosts in any case, and `default` for a port that is not written
/// (RFC 9110 section 4.2.3). What is none agrees with nothing.
pub fn agree(one: &[u8], other: &[u8], default: u16) -> bool {
    // Nearly always.
    if one == other {
        return is_authority(one);
    }
    read(one).zip(read(other)).is_some_and(|(one, other)| {
        one.host.eq_ignore_ascii_case(other.host)
            && one.port.unwrap_or(default) == other.port.unwrap_or(default)
    })
}

/// Whether `host` is a DNS name, an IPv4 address or an IPv6 address in brackets.
pub fn is_host(host: &[u8]) -> bool {
    match host.strip_prefix(b"[") {
        Some(inner) => inner
            .strip_suffix(b"]")
            .and_then(|inner| std::str::from_utf8(inner).ok())
            .is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok()),
        None => read(host).is_some_and(|authority| authority.host.len() == host.len()),
    }
}

/// `host` and, if there is a colon after it, what stands behind: unchecked. `None` for a bracket that never closes.
pub fn split_port(text: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let host_end = if text.first() == Some(&b'[') {
        text.iter().position(|byte| *byte == b']')? + 1
    } else {
        text.iter().position(|byte| *byte == b':').unwrap_or(text.len())
    };
    let (host, rest) = text.split_at_checked(host_end)?;
    match rest.split_first() {
        None => Some((host, None)),
        Some((b':', port)) => Some((host, Some(port))),
        Some(_) => None,
    }
}

/// A decimal number from 1 to 65535.
fn parse_port(port: &[u8]) -> Option<u16> {
    let digits = (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit);
    let number = digits.then(|| port.iter().fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0')))?;
    u16::try_from(number).ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_addresses_and_ports() {
        for good in [
            "example.com",
            "EXAMPLE.com.",
            "a_b-c.example:8080",
            "127.0.0.1",
            "127.0.0.1:65535",
            "[::1]",
            "[2001:db8::1]:443",
            "x",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:080808",
            "a:8o",
            "a b",
            "a@b",
            "a,b",
            "a/b",
            "a%20b",
            "a..b",
            ".a",
            ".",
            "[::1",
            "::1",
            "[::1]x",
            "[::1%25eth0]",
            "[v1.a]",
            "a:80:80",
            "ä",
            "a\t",
            "[]",
            "[1.2.3.4]",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
        assert!(!is_host(&[b'a'; HOST_BYTES_MAX + 1]));
    }

    #[test]
    fn the_same_place_however_it_is_written() {
        for (one, other, expected) in [
            ("a", "a", true),
            ("a:8080", "a:8080", true),
            ("Example.COM", "example.com", true),
            ("a:80", "a", true),
            ("A", "a:80", true),
            ("[2001:DB8::1]:80", "[2001:db8::1]", true),
            ("a:443", "a", false),
            ("a:8080", "a", false),
            ("a.", "a", false),
            ("a", "b", false),
            ("a:", "a", false),
            ("a@b", "a@b", false),
            ("", "", false),
        ] {
            assert_eq!(agree(one.as_bytes(), other.as_bytes(), 80), expected, "{one} {other}");
            assert_eq!(agree(other.as_bytes(), one.as_bytes(), 80), expected, "{other} {one}");
        }
        assert!(agree(b"a:443", b"a", 443));
    }

    proptest! {
        /// Whatever passes here, the `http` crate reads as the same host.
        #[test]
        fn http_agrees(text in "[a-zA-Z0-9.:_@\\[\\]%/-]{0,24}") {
            if is_authority(text.as_bytes()) {
                let parsed: http::uri::Authority = text.parse().unwrap();
                prop_assert_eq!(parsed.as_str(), text.as_str());
                prop_assert_eq!(Some(parsed.host().as_bytes()), split_port(text.as_bytes()).map(|(host, _)| host));
            }
        }
    }
}
