//! Connections to servers for requests that ask for an upgrade.
//!
//! Pingora (0.9.1, `proxy_h1.rs`) tells the half that talks to the server through a queue that such a request has no
//! body. If that half reads the server's 101 before it looks into the queue, it takes the message for the end of what the
//! client says in the tunnel, and closes it: Pingora's issue 946. Which of the two it looks at first is chance, and it
//! takes a server that is faster than a turn of the task. So these connections answer the first few reads after a write
//! with "nothing there yet": by then the queue is empty.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OrErr, Result};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::introduction::Introduction;

/// Reads after a write that find nothing. One is enough unless the task is made to pause at the wrong moment; none costs
/// more than a turn of it.
const READS_HELD: u8 = 4;

/// Writes that are followed by such reads: the request is among the first, behind those of a TLS handshake. In the tunnel
/// itself nothing is held up.
const WRITES_HELD: u8 = 8;

/// Has `peer` connected for a request that asks for an upgrade: in HTTP/1.1, which alone has one, on a connection of its
/// own, which is not used again if the server refuses, and which begins with a PROXY header where one is expected.
pub fn prepare(peer: &mut HttpPeer, introduction: Option<Introduction>) {
    static TUNNELS: AtomicU64 = AtomicU64::new(0);
    peer.options.set_http_version(1, 1);
    // Pingora tells idle connections apart by their descriptor, and shows it none: such a connection must not meet
    // another one in a pool. A key of its own keeps it apart, and next to no time in the pool has it closed at once. (None
    // at all would be a time-out of zero, for which Pingora's timer panics in a debug build within its first millisecond.)
    peer.group_key ^= TUNNELS.fetch_add(1, Ordering::Relaxed).wrapping_add(1).rotate_left(32);
    peer.options.idle_timeout = Some(Duration::from_millis(1));
    peer.options.custom_l4 = Some(Arc::new(Patient { limit: peer.options.connection_timeout, introduction }));
}

/// Connects as Pingora does, to a [`PatientSocket`].
#[derive(Debug)]
struct Patient {
    limit: Option<Duration>,
    /// What the server is told before anything else.
    introduction: Option<Introduction>,
}

#[async_trait]
impl L4Connect for Patient {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let connecting = async {
            let mut socket = match address {
                SocketAddr::Inet(address) => Socket::Tcp(TcpStream::connect(address).await?),
                SocketAddr::Unix(address) => match address.as_pathname() {
                    Some(path) => Socket::Unix(UnixStream::connect(path).await?),
                    None => return Err(io::ErrorKind::AddrNotAvailable.into()),
                },
            };
            if let Some(introduction) = &self.introduction {
                let header = introduction.header();
                match &mut socket {
                    Socket::Tcp(socket) => socket.write_all(&header).await?,
                    Socket::Unix(socket) => socket.write_all(&header).await?,
                }
            }
            Ok::<_, io::Error>(socket)
        };
        let socket = match self.limit {
            Some(limit) => match pingora::time::timeout(limit, connecting).await {
                Ok(socket) => socket,
                Err(_) => {
                    let context = format!("timeout {limit:?} connecting to server {address}");
                    return Error::e_explain(ErrorType::ConnectTimedout, context);
                }
            },
            None => connecting.await,
        };
        let socket = socket.or_err_with(ErrorType::ConnectError, || format!("connecting to {address}"))?;
        let socket = PatientSocket { socket, held: 0, writes_held: WRITES_HELD };
        Ok(VirtualSocketStream::new(Box::new(socket)).into())
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket whose first reads after a write find nothing.
#[derive(Debug)]
struct PatientSocket {
    socket: Socket,
    /// Reads that will still find nothing.
    held: u8,
    /// Writes after which reads will still be held.
    writes_held: u8,
}

impl VirtualSocket for PatientSocket {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        let Socket::Tcp(socket) = &self.socket else { return Ok(()) };
        match option {
            VirtualSockOpt::NoDelay => socket.set_nodelay(true),
            VirtualSockOpt::KeepAlive(settings) => {
                let retries = u32::try_from(settings.count).unwrap_or(u32::MAX);
                let keepalive = TcpKeepalive::new()
                    .with_time(settings.idle)
                    .with_interval(settings.interval)
                    .with_retries(retries);
                SockRef::from(socket).set_tcp_keepalive(&keepalive)
            }
            // More may come with the next version; none is asked for.
            _ => Ok(()),
        }
    }
}

impl AsyncRead for PatientSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held > 0 {
            this.held -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match &mut this.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for PatientSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(left) = this.writes_held.checked_sub(1) {
            this.writes_held = left;
            this.held = READS_HELD;
        }
        match &mut this.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, data),
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
