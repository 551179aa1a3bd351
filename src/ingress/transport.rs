//! The socket under a connection: TCP or unix, with or without TLS.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use pingora::protocols::l4::ext::get_tcp_info;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// The socket under a connection.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    // Boxed: the TLS state is a kilobyte, and cleartext connections should not carry it.
    TlsTcp(Box<TlsStream<TcpStream>>),
    TlsUnix(Box<TlsStream<UnixStream>>),
}

impl Transport {
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(io) => Some(io),
            Self::TlsTcp(io) => Some(io.get_ref().0),
            Self::Unix(_) | Self::TlsUnix(_) => None,
        }
    }

    /// The number of its descriptor.
    pub(super) fn descriptor(&self) -> RawFd {
        match self {
            Self::Tcp(io) => io.as_raw_fd(),
            Self::Unix(io) => io.as_raw_fd(),
            Self::TlsTcp(io) => io.get_ref().0.as_raw_fd(),
            Self::TlsUnix(io) => io.get_ref().0.as_raw_fd(),
        }
    }

    /// Our end; `None` on a unix socket.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.tcp()?.local_addr().ok()
    }

    /// Its socket, if what is written to it goes out as it is; `None` with TLS, and on a unix socket.
    pub(super) fn plain_tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(io) => Some(io),
            Self::Unix(_) | Self::TlsTcp(_) | Self::TlsUnix(_) => None,
        }
    }

    /// How many bytes the other side's system has taken of what was written; `None` where nobody knows.
    pub(super) fn acknowledged(&self) -> Option<u64> {
        get_tcp_info(self.tcp()?.as_raw_fd()).ok().map(|info| info.tcpi_bytes_acked)
    }
}

impl Transport {
    /// Has the current runtime look after its socket no longer. For connections on which nothing was read.
    pub(super) fn leave(self) -> io::Result<Socket> {
        match self {
            Self::Tcp(io) => io.into_std().map(Socket::Tcp),
            Self::Unix(io) => io.into_std().map(Socket::Unix),
            Self::TlsTcp(_) | Self::TlsUnix(_) => Err(io::Error::other("TLS has begun")),
        }
    }
}

/// A socket that no runtime looks after.
pub(super) enum Socket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Socket {
    /// Has the current runtime look after it.
    pub(super) fn arrive(self) -> io::Result<Transport> {
        match self {
            Self::Tcp(socket) => TcpStream::from_std(socket).map(Transport::Tcp),
            Self::Unix(socket) => UnixStream::from_std(socket).map(Transport::Unix),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::Unix(io) => Pin::new(io).poll_read(cx, buf),
            Self::TlsTcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::TlsUnix(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Self::Unix(io) => Pin::new(io).poll_write(cx, buf),
            Self::TlsTcp(io) => Pin::new(io).poll_write(cx, buf),
            Self::TlsUnix(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_flush(cx),
            Self::Unix(io) => Pin::new(io).poll_flush(cx),
            Self::TlsTcp(io) => Pin::new(io).poll_flush(cx),
            Self::TlsUnix(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Self::Unix(io) => Pin::new(io).poll_shutdown(cx),
            Self::TlsTcp(io) => Pin::new(io).poll_shutdown(cx),
            Self::TlsUnix(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
