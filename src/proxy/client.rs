//! Who sent a request: its address, scheme and host, seen through the proxies that are trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};

use super::names::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO};
use crate::base::authority::is_authority;
use crate::policy::trusted::TrustedProxies;

/// Entries of `X-Forwarded-For` or `Forwarded` looked at, from the right. No chain of proxies one trusts is longer.
pub const FORWARDED_ENTRIES_MAX: usize = 64;

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The address: the peer's, or what trusted proxies say.
    pub address: IpAddr,
    /// Whether the client used TLS.
    pub https: bool,
    /// The host the client asked for, if a trusted proxy says that it was another than `Host`.
    pub host: Option<HeaderValue>,
    /// The port the client connected to, if a trusted proxy says so.
    pub port: Option<u16>,
    /// Whether the peer is a trusted proxy. Only then anything in the request about where it comes from is believed.
    pub peer_trusted: bool,
}

/// Nobody yet: before the head was read.
impl Default for Client {
    fn default() -> Self {
        let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self { address, https: false, host: None, port: None, peer_trusted: false }
    }
}

impl Client {
    /// Reads who sent the request with `headers` on a connection from `peer`, which uses TLS if `https`.
    ///
    /// From the right, entries are skipped as long as they are trusted proxies themselves; the first that is not is the
    /// client. An entry that is no address ends the walk, as what stands left of it was not written by anyone trusted.
    /// If all are trusted it is the leftmost. `X-Forwarded-For` is believed before `Forwarded`: proxies that write only
    /// the older one pass the newer one on as the client sent it.
    pub fn find(headers: &HeaderMap, peer: IpAddr, https: bool, trusted: &TrustedProxies) -> Self {
        let peer = peer.to_canonical();
        let peer_trusted = !trusted.is_empty() && trusted.contains(peer);
        let mut client = Self { address: peer, https, host: None, port: None, peer_trusted };
        if peer_trusted {
            if headers.contains_key(&X_FORWARDED_FOR) || !headers.contains_key(FORWARDED) {
                client.walk_x_forwarded(headers, trusted);
            } else {
                client.walk_forwarded(headers, trusted);
            }
        }
        client
    }

    fn walk_x_forwarded(&mut self, headers: &HeaderMap, trusted: &TrustedProxies) {
        let entries = headers
            .get_all(&X_FORWARDED_FOR)
            .iter()
            .rev()
            .flat_map(|line| line.as_bytes().rsplit(|b| *b == b','));
        for entry in entries.take(FORWARDED_ENTRIES_MAX) {
            let Some(address) = parse_node(entry.trim_ascii()) else { break };
            self.address = address;
            if !trusted.contains(address) {
                break;
            }
        }
        // The last value is the one that the peer wrote itself.
        match last_value(headers, &X_FORWARDED_PROTO) {
            Some(proto) if proto.eq_ignore_ascii_case(b"https") => self.https = true,
            Some(proto) if proto.eq_ignore_ascii_case(b"http") => self.https = false,
            _ => {}
        }
        self.host = last_value(headers, &X_FORWARDED_HOST).and_then(host_value);
        self.port = last_value(headers, &X_FORWARDED_PORT).and_then(parse_port);
    }

    fn walk_forwarded(&mut self, headers: &HeaderMap, trusted: &TrustedProxies) {
        let mut left = FORWARDED_ENTRIES_MAX;
        for line in headers.get_all(FORWARDED).iter().rev() {
            let Some(count) = count_elements(line.as_bytes()) else { return };
            // Elements can only be told apart from the left: quotes may hold commas.
            let mut last = [&b""[..]; FORWARDED_ENTRIES_MAX];
            let skipped = count.saturating_sub(left);
            let kept = Split::new(line.as_bytes(), b',').skip(skipped);
            let kept = last.iter_mut().zip(kept).map(|(slot, element)| *slot = element).count();
            for element in last.iter().take(kept).rev() {
                // This element was written by someone trusted, so what it says holds even if it hides the address.
                let pair = |name| forwarded_pair(element, name);
                match pair(b"proto").as_ref().map(Unquoted::as_bytes) {
                    Some(proto) if proto.eq_ignore_ascii_case(b"https") => self.https = true,
                    Some(proto) if proto.eq_ignore_ascii_case(b"http") => self.https = false,
                    _ => {}
                }
                if let Some(host) = pair(b"host").and_then(|host| host_value(host.as_bytes())) {
                    self.host = Some(host);
                }
                let Some(address) = pair(b"for").and_then(|node| parse_node(node.as_bytes())) else { return };
                self.address = address;
                if !trusted.contains(address) {
                    return;
                }
            }
            left -= kept;
            if left == 0 {
                return;
            }
        }
    }
}

/// The text after the last comma of the last line of `name`.
fn last_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let line = headers.get_all(name).iter().next_back()?;
    line.as_bytes().rsplit(|byte| *byte == b',').next().map(<[u8]>::trim_ascii)
}

fn host_value(text: &[u8]) -> Option<HeaderValue> {
    is_authority(text).then(|| HeaderValue::from_bytes(text).ok())?
}

/// An address as proxies write it: bare, with a port, IPv6 with or without brackets (RFC 7239 section 6).
fn parse_node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']')?;
        if !after.is_empty() {
            parse_port(after.strip_prefix(':')?.as_bytes())?;
        }
        IpAddr::V6(inside.parse::<Ipv6Addr>().ok()?)
    } else if let Ok(address) = text.parse::<IpAddr>() {
        address
    } else {
        let (address, port) = text.split_once(':')?;
        parse_port(port.as_bytes())?;
        IpAddr::V4(address.parse().ok()?)
    };
    Some(address.to_canonical())
}

fn parse_port(text: &[u8]) -> Option<u16> {
    let digits = (1..=5).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    let port = digits.then(|| std::str::from_utf8(text).ok()?.parse::<u16>().ok())??;
    (port != 0).then_some(port)
}

/// Splits at a separator that is not inside of a quoted string.
struct Split<'t> {
    rest: Option<&'t [u8]>,
    separator: u8,
}

impl<'t> Split<'t> {
    fn new(text: &'t [u8], separator: u8) -> Self {
        Self { rest: Some(text), separator }
    }
}

impl<'t> Iterator for Split<'t> {
    type Item = &'t [u8];

    fn next(&mut self) -> Option<&'t [u8]> {
        let rest = self.rest?;
        let (mut quoted, mut escaped) = (false, false);
        for (at, byte) in rest.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                byte if *byte == self.separator && !quoted => {
                    self.rest = rest.get(at + 1..);
                    return rest.get(..at);
                }
                _ => {}
            }
        }
        self.rest = None;
        Some(rest)
    }
}

/// How many elements a `Forwarded` line has; `None` if a quote never closes, so that nobody can tell.
fn count_elements(line: &[u8]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    (!quoted).then(|| Split::new(line, b',').count())
}

/// A value with its quotes taken off.
enum Unquoted<'t> {
    Plain(&'t [u8]),
    Escaped(Vec<u8>),
}

impl Unquoted<'_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Plain(text) => text,
            Self::Escaped(text) => text,
        }
    }
}

/// The value of `name` in one element of `Forwarded` (RFC 7239 section 4). `None` if it is not there exactly once.
fn forwarded_pair<'t>(element: &'t [u8], name: &[u8]) -> Option<Unquoted<'t>> {
    let mut found = None;
    for pair in Split::new(element, b';') {
        let Some(at) = pair.iter().position(|byte| *byte == b'=') else { continue };
        let (key, value) = pair.split_at_checked(at)?;
        if key.trim_ascii().eq_ignore_ascii_case(name) {
            if found.is_some() {
                return None;
            }
            found = Some(value.get(1..)?.trim_ascii());
        }
    }
    let value = found?;
    let Some(inside) = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) else {
        return (!value.contains(&b'"')).then_some(Unquoted::Plain(value));
    };
    if !inside.contains(&b'\\') {
        return Some(Unquoted::Plain(inside));
    }
    let mut plain = Vec::with_capacity(inside.len());
    let mut bytes = inside.iter();
    while let Some(byte) = bytes.next() {
        plain.push(if *byte == b'\\' { *bytes.next()? } else { *byte });
    }
    Some(Unquoted::Escaped(plain))
}

#[cfg(test)]
mod tests;
