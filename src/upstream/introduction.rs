//! Tells a server whose connection it gets: a header of the PROXY protocol, version 2, before anything else ("The PROXY
//! protocol, versions 1 & 2", section 2.2).

use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::ext::{connect, connect_uds};
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::l4::stream::Stream;
use pingora::{Error, ErrorType, OrErr, Result};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// For whom a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Introduction {
    /// For the gateway itself: health checks.
    Local,
    /// For a client that has no address.
    Unknown,
    /// For a client.
    Client {
        /// Its address; port 0 if that is not known.
        source: SocketAddr,
        /// Where it connected to.
        destination: SocketAddr,
    },
}

/// What every header begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

impl Introduction {
    /// The header.
    pub fn header(&self) -> Vec<u8> {
        let (command, family, addresses) = match self {
            Self::Local => (0, 0x00, Vec::new()),
            Self::Unknown => (1, 0x00, Vec::new()),
            Self::Client { source, destination } => {
                let mut addresses = Vec::with_capacity(36);
                let family = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
                    (IpAddr::V4(source), IpAddr::V4(destination)) => {
                        addresses.extend([source.octets(), destination.octets()].concat());
                        0x11
                    }
                    // Both must be of one family, and this one holds the other.
                    (source, destination) => {
                        addresses.extend([as_v6(source).octets(), as_v6(destination).octets()].concat());
                        0x21
                    }
                };
                addresses.extend([source.port().to_be_bytes(), destination.port().to_be_bytes()].concat());
                (1, family, addresses)
            }
        };
        // At most 36.
        let length = u16::try_from(addresses.len()).unwrap_or(0).to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family], &length, &addresses].concat()
    }

    /// Tells connections apart by whom they were made for, on top of `group`. A connection is used again only for
    /// requests that the same header would introduce. Keyed anew in every process: nobody can choose an address that is
    /// taken for somebody else's.
    pub(super) fn group(&self, group: u64) -> u64 {
        static KEYS: OnceLock<RandomState> = OnceLock::new();
        KEYS.get_or_init(RandomState::new).hash_one((group, self))
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Connects and says for whom. The time this takes is bounded with the rest of the connecting.
#[async_trait]
impl L4Connect for Introduction {
    async fn connect(&self, address: &PeerAddress) -> Result<Stream> {
        match address {
            PeerAddress::Inet(address) => introduce(self, connect(address, None).await?).await,
            PeerAddress::Unix(address) => match address.as_pathname() {
                Some(path) => introduce(self, connect_uds(path).await?).await,
                None => Error::e_explain(ErrorType::ConnectError, "a unix socket without a path"),
            },
        }
    }
}

async fn introduce<IO>(introduction: &Introduction, mut io: IO) -> Result<Stream>
where
    IO: AsyncWrite + Unpin + Into<Stream>,
{
    let sent = io.write_all(&introduction.header()).await;
    sent.or_err(ErrorType::ConnectError, "while sending the PROXY header")?;
    Ok(io.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(source: &str, destination: &str) -> Introduction {
        Introduction::Client { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[test]
    fn headers_are_those_of_the_specification() {
        let with = |rest: &[u8]| [&SIGNATURE[..], rest].concat();
        assert_eq!(Introduction::Local.header(), with(&[0x20, 0x00, 0, 0]));
        assert_eq!(Introduction::Unknown.header(), with(&[0x21, 0x00, 0, 0]));
        assert_eq!(
            client("192.0.2.1:258", "[::ffff:198.51.100.7]:443").header(),
            with(&[0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 7, 1, 2, 1, 0xbb])
        );
        let mixed = client("192.0.2.1:1", "[2001:db8::1]:2").header();
        let source: Ipv6Addr = "::ffff:192.0.2.1".parse().unwrap();
        let destination: Ipv6Addr = "2001:db8::1".parse().unwrap();
        assert_eq!(
            mixed,
            with(
                &[&[0x21, 0x21, 0, 36][..], &source.octets(), &destination.octets(), &[0, 1, 0, 2]].concat()
            )
        );
    }

    #[test]
    fn each_client_has_connections_of_its_own() {
        let all = [
            Introduction::Local,
            Introduction::Unknown,
            client("192.0.2.1:1", "192.0.2.9:443"),
            client("192.0.2.1:2", "192.0.2.9:443"),
            client("192.0.2.2:1", "192.0.2.9:443"),
            client("192.0.2.1:1", "192.0.2.9:80"),
        ];
        let groups: std::collections::HashSet<_> = all.iter().map(|one| one.group(7)).collect();
        assert_eq!(groups.len(), all.len());
        assert_ne!(all[0].group(7), all[0].group(8));
        assert_eq!(all[2].group(7), client("192.0.2.1:1", "192.0.2.9:443").group(7));
    }
}
