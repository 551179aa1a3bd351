//! Whose connection it is: who connected, or for whom, if a PROXY header says so.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::Interest;

use super::connection::Peer;
use super::proxy_header::{ProxyHeader, Status, parse};
use super::transport::Transport;
use super::turned_away::TurnedAway;
use crate::policy::trusted::TrustedProxies;

/// Both ends of a connection, seen through a proxy that speaks for its client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    /// The client.
    pub(crate) client: Peer,
    /// Who is at the other end of the socket: the client, or the proxy.
    pub(crate) socket: Peer,
    /// Our end of the socket; absent on a unix socket.
    pub(crate) local: Option<SocketAddr>,
    /// What the PROXY header says.
    pub(crate) header: Option<ProxyAddresses>,
    /// A proxy passes the connection on for a client that it does not name.
    pub(crate) is_unnamed: bool,
}

/// The addresses of a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyAddresses {
    /// The client's.
    pub source: SocketAddr,
    /// The one that the client connected to.
    pub destination: SocketAddr,
}

/// Bytes looked at once: more than any header that is in use.
const AHEAD_BYTES: usize = 256;

impl Ends {
    /// Of a connection without a proxy, or whose proxy says nothing here.
    pub(crate) fn direct(socket: Peer, transport: &Transport) -> Self {
        Self { client: socket, socket, local: transport.local(), header: None, is_unnamed: false }
    }

    /// Reads the PROXY header that `transport` must begin with, and not a byte more, within `limit`. Its sender must be
    /// in `trusted`; a unix socket counts as the loopback address, as everywhere.
    ///
    /// # Errors
    /// Why the connection is to be closed; `None` if the other side did so without a word, as probes do.
    pub(crate) async fn introduced(
        socket: Peer,
        transport: &Transport,
        trusted: &TrustedProxies,
        limit: Duration,
    ) -> Result<Self, Option<TurnedAway>> {
        if !trusted.contains(socket.ip()) {
            return Err(Some(TurnedAway::ProxyUntrusted));
        }
        let header = match tokio::time::timeout(limit, read(transport)).await {
            Ok(header) => header?,
            Err(_) => return Err(Some(TurnedAway::ProxyTimeout)),
        };
        let direct = Self::direct(socket, transport);
        Ok(match header {
            ProxyHeader::Local => direct,
            ProxyHeader::Unknown => Self { is_unnamed: true, ..direct },
            ProxyHeader::Addresses { source, destination } => Self {
                client: Peer::Tcp(source),
                header: Some(ProxyAddresses { source, destination }),
                ..direct
            },
        })
    }
}

/// The header, whose bytes are taken from the socket. A header that came whole costs two system calls: one to look, one
/// to take it; what follows is for TLS or HTTP to read.
async fn read(transport: &Transport) -> Result<ProxyHeader, Option<TurnedAway>> {
    let mut taken = Vec::new();
    loop {
        let mut ahead = [0_u8; AHEAD_BYTES];
        let count = match receive(transport, &mut ahead, RecvFlags::PEEK).await {
            Ok(count @ 1..) => count,
            _ if taken.is_empty() => return Err(None),
            _ => return Err(Some(TurnedAway::ProxyMalformed("it ends before its end"))),
        };
        let fresh = ahead.get(..count).unwrap_or_default();
        let before = taken.len();
        let status = if before == 0 {
            parse(fresh)
        } else {
            taken.extend_from_slice(fresh);
            parse(&taken)
        };
        match status {
            Status::Partial => {
                // All of it belongs to the header. Left in the socket, it would make that readable all the time.
                take(transport, count).await?;
                if before == 0 {
                    taken.extend_from_slice(fresh);
                }
            }
            Status::Complete { len, header } => {
                take(transport, len - before).await?;
                return Ok(header);
            }
            Status::Missing => return Err(Some(TurnedAway::ProxyMissing)),
            Status::Malformed(why) => return Err(Some(TurnedAway::ProxyMalformed(why))),
        }
    }
}

/// Takes `count` bytes that were seen already.
async fn take(transport: &Transport, count: usize) -> Result<(), Option<TurnedAway>> {
    let mut bytes = [0_u8; AHEAD_BYTES];
    let mut left = count;
    while left > 0 {
        let window = bytes.get_mut(..left.min(AHEAD_BYTES)).unwrap_or_default();
        match receive(transport, window, RecvFlags::empty()).await {
            Ok(taken @ 1..) => left = left.saturating_sub(taken),
            _ => return Err(None),
        }
    }
    Ok(())
}

async fn receive(transport: &Transport, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    match transport {
        Transport::Tcp(stream) => {
            let mut receive = || receive_now(stream, buf, flags);
            stream.async_io(Interest::READABLE, &mut receive).await
        }
        Transport::Unix(stream) => {
            let mut receive = || receive_now(stream, buf, flags);
            stream.async_io(Interest::READABLE, &mut receive).await
        }
        Transport::TlsTcp(_) | Transport::TlsUnix(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn receive_now(socket: impl AsFd, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    Ok(rustix::net::recv(socket, buf, flags)?.0)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn trusted(network: &str) -> TrustedProxies {
        TrustedProxies::new([network.parse().unwrap()])
    }

    async fn introduced(transport: &Transport, limit: Duration) -> Result<Ends, Option<TurnedAway>> {
        Ends::introduced(Peer::Unix, transport, &trusted("127.0.0.1/32"), limit).await
    }

    /// However it comes, exactly the header is taken.
    #[tokio::test]
    async fn what_follows_the_header_is_left() {
        let binary = [
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x02\x0f".as_slice(),
            &[192, 0, 2, 1, 198, 51, 100, 7, 0x30, 0x39, 0x01, 0xbb],
            &[4, 0x02, 0x00],
            &[0; 512],
        ]
        .concat();
        for header in [b"PROXY TCP4 192.0.2.1 198.51.100.7 12345 443\r\n".to_vec(), binary] {
            for piece in [1, 7, 255, 10_000] {
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                let sent = [header.as_slice(), b"GET / HTTP/1.1\r\n"].concat();
                let sending = async {
                    for piece in sent.chunks(piece) {
                        theirs.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                };
                let transport = Transport::Unix(ours);
                let ((), ends) = tokio::join!(sending, introduced(&transport, SECOND * 10));
                drop(theirs);
                let ends = ends.unwrap();
                assert_eq!(ends.client, Peer::Tcp("192.0.2.1:12345".parse().unwrap()));
                assert_eq!(ends.socket, Peer::Unix);
                let Transport::Unix(mut ours) = transport else { panic!("another transport") };
                let mut rest = String::new();
                ours.read_to_string(&mut rest).await.unwrap();
                assert_eq!(rest, "GET / HTTP/1.1\r\n");
            }
        }
    }

    #[tokio::test]
    async fn why_a_connection_is_closed_is_known() {
        let after = async |sent: &[u8], closes: bool| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(sent).await.unwrap();
            let theirs = (!closes).then_some(theirs);
            let result = introduced(&Transport::Unix(ours), Duration::from_millis(50)).await.unwrap_err();
            drop(theirs);
            result
        };
        assert_eq!(after(b"", true).await, None);
        assert_eq!(after(b"", false).await, Some(TurnedAway::ProxyTimeout));
        assert_eq!(after(b"PROXY TCP4", false).await, Some(TurnedAway::ProxyTimeout));
        assert!(matches!(after(b"PROXY TCP4", true).await, Some(TurnedAway::ProxyMalformed(_))));
        assert!(matches!(after(b"PROXY X\r\n", false).await, Some(TurnedAway::ProxyMalformed(_))));
        assert_eq!(after(b"GET / HTTP/1.1\r\n", false).await, Some(TurnedAway::ProxyMissing));
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let (transport, others) = (Transport::Unix(ours), trusted("10.0.0.0/8"));
        let stranger = Ends::introduced(Peer::Unix, &transport, &others, SECOND).await;
        assert_eq!(stranger.unwrap_err(), Some(TurnedAway::ProxyUntrusted));
    }
}
