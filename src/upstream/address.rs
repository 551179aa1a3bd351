//! Where a server is: as written in the configuration ([`Target`]) and as connected to ([`Address`]).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use crate::base::authority::{is_host, split_port};

/// Longest path of a unix socket: `sun_path` has 108 bytes, one of them for the final NUL (unix(7)).
pub const UNIX_PATH_BYTES_MAX: usize = 107;
/// Longest label of a DNS name (RFC 1035 section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// Something that can be connected to: no name left to resolve.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// IP address and port.
    Inet(SocketAddr),
    /// A unix socket.
    Unix(Arc<Path>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A server as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// One address.
    Address(Address),
    /// A DNS name, in lower case: all its addresses.
    Name {
        /// The name.
        host: Arc<str>,
        /// The port at each of its addresses.
        port: u16,
    },
}

impl Target {
    /// Reads `host`, `host:port`, `[::1]:port` or `unix:/path`; `default_port` where there is none.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, TargetError> {
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(TargetError::Scheme { tls: scheme.eq_ignore_ascii_case("https") });
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::unix(Path::new(path));
        }
        if text.contains('/') {
            return Err(TargetError::Path);
        }
        if text.bytes().filter(|byte| *byte == b':').count() > 1 && !text.starts_with('[') {
            return Err(TargetError::NoBrackets);
        }
        let (host, port) = split_port(text.as_bytes()).ok_or(TargetError::Host)?;
        let port = match port {
            None => default_port,
            Some(port) => parse_port(port).ok_or(TargetError::Port)?,
        };
        let host = std::str::from_utf8(host).ok().filter(|host| is_host(host.as_bytes()));
        let host = host.ok_or(TargetError::Host)?;
        if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            let ip: IpAddr = inner.parse().map_err(|_| TargetError::Host)?;
            return Ok(Self::Address(Address::Inet(SocketAddr::new(ip, port))));
        }
        if let Ok(ip) = host.parse::<Ipv4Addr>() {
            return Ok(Self::Address(Address::Inet(SocketAddr::new(ip.into(), port))));
        }
        let mut labels = host.strip_suffix('.').unwrap_or(host).split('.');
        // "10.0.0" and "256.1.1.1" are mistyped addresses: no top-level domain is a number.
        let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        if labels.clone().any(|label| label.len() > LABEL_BYTES_MAX)
            || labels.next_back().is_none_or(is_number)
        {
            return Err(TargetError::Host);
        }
        Ok(Self::Name { host: host.to_ascii_lowercase().into(), port })
    }

    /// The socket at `path`.
    pub fn unix(path: &Path) -> Result<Self, TargetError> {
        let bytes = path.as_os_str().as_encoded_bytes();
        if bytes.is_empty() || bytes.contains(&0) {
            return Err(TargetError::UnixPath);
        }
        if bytes.len() > UNIX_PATH_BYTES_MAX {
            return Err(TargetError::UnixPathLength);
        }
        Ok(Self::Address(Address::Unix(path.into())))
    }

    /// The name that a certificate or a `Host` can be checked against, without a final dot; none for addresses.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Address(_) => None,
            Self::Name { host, .. } => Some(host.strip_suffix('.').unwrap_or(host)),
        }
    }

    /// The `Host` that names this server: the port is left out where it is `default_port`.
    pub fn authority(&self, default_port: u16) -> String {
        let (host, port) = match self {
            Self::Address(Address::Unix(_)) => return "localhost".to_owned(),
            Self::Address(Address::Inet(address)) => match address.ip() {
                IpAddr::V4(ip) => (ip.to_string(), address.port()),
                IpAddr::V6(ip) => (format!("[{ip}]"), address.port()),
            },
            Self::Name { port, .. } => (self.name().unwrap_or_default().to_owned(), *port),
        };
        if port == default_port { host } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Why a text is no server. Displays as a fragment that completes "the server …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// `http://…`.
    #[error("has a scheme")]
    Scheme {
        /// Whether it was `https`.
        tls: bool,
    },
    /// `host/path`.
    #[error("has a path")]
    Path,
    /// `::1`.
    #[error("is an IPv6 address without brackets, or has two ports")]
    NoBrackets,
    /// Neither name nor address.
    #[error("is neither a host name nor an IP address")]
    Host,
    /// Not a number from 1 to 65535.
    #[error("has a port that is not a number from 1 to 65535")]
    Port,
    /// `unix:` and nothing.
    #[error("names no unix socket")]
    UnixPath,
    /// Does not fit the kernel's address.
    #[error("has a socket path longer than {UNIX_PATH_BYTES_MAX} bytes")]
    UnixPathLength,
}

impl TargetError {
    /// What to write instead.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Scheme { tls: true } => "write host:port, and `tls = {}` in the upstream",
            Self::Scheme { tls: false } => "write host:port without a scheme",
            Self::Path => "write host:port; paths are changed by `rewrite` in a route",
            Self::NoBrackets => "write an IPv6 address in brackets, like \"[::1]:8080\"",
            Self::Host | Self::Port => "write host:port, [::1]:port or unix:/path",
            Self::UnixPath => "write unix:/path",
            Self::UnixPathLength => "use a shorter path, or a relative one",
        }
    }
}

fn parse_port(text: &[u8]) -> Option<u16> {
    let text =
        std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inet(text: &str) -> Target {
        Target::Address(Address::Inet(text.parse().unwrap()))
    }

    fn name(host: &str, port: u16) -> Target {
        Target::Name { host: host.into(), port }
    }

    #[test]
    fn reads_what_people_write() {
        for (text, expected) in [
            ("127.0.0.1:3001", inet("127.0.0.1:3001")),
            ("127.0.0.1", inet("127.0.0.1:80")),
            ("[::1]:8080", inet("[::1]:8080")),
            ("[2001:db8::1]", inet("[2001:db8::1]:80")),
            ("localhost:3000", name("localhost", 3000)),
            ("Users.Internal", name("users.internal", 80)),
            ("users.internal.:81", name("users.internal.", 81)),
            ("my_service", name("my_service", 80)),
            ("unix:/run/app.sock", Target::unix(Path::new("/run/app.sock")).unwrap()),
        ] {
            assert_eq!(Target::parse(text, 80), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_with_the_reason() {
        for (text, expected) in [
            ("http://a:80", TargetError::Scheme { tls: false }),
            ("https://a", TargetError::Scheme { tls: true }),
            ("a/b", TargetError::Path),
            ("::1", TargetError::NoBrackets),
            ("a:80:81", TargetError::NoBrackets),
            ("[::1", TargetError::Host),
            ("", TargetError::Host),
            (":80", TargetError::Host),
            ("a b", TargetError::Host),
            ("10.0.0", TargetError::Host),
            ("256.1.1.1:80", TargetError::Host),
            ("a:0", TargetError::Port),
            ("a:65536", TargetError::Port),
            ("a:", TargetError::Port),
            ("a:+80", TargetError::Port),
            ("unix:", TargetError::UnixPath),
        ] {
            assert_eq!(Target::parse(text, 80), Err(expected), "{text}");
        }
        assert_eq!(Target::parse(&"a".repeat(64), 80), Err(TargetError::Host));
        assert_eq!(
            Target::parse(&format!("unix:/{}", "a".repeat(107)), 80),
            Err(TargetError::UnixPathLength)
        );
    }

    #[test]
    fn names_itself_in_host() {
        for (text, expected) in [
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:81", "[::1]:81"),
            ("users.internal.:3000", "users.internal:3000"),
            ("unix:/run/a", "localhost"),
        ] {
            assert_eq!(Target::parse(text, 80).unwrap().authority(80), expected);
        }
    }

    proptest! {
        /// What is written back reads as the same target.
        #[test]
        fn survives_writing(text in "[a-z0-9.:_\\[\\]-]{0,24}|unix:/[a-z/]{1,20}") {
            if let Ok(target) = Target::parse(&text, 80) {
                prop_assert_eq!(Target::parse(&target.to_string(), 1), Ok(target));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            prop_assert!(Target::parse(&text, 80).map_or(true, |target| !target.to_string().is_empty()));
        }
    }
}
