//! The socket under a connection: TCP or unix, with or without TLS.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pingora::protocols::l4::ext::get_tcp_info;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::base::pipe::Pipe;

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

    /// Whether the kernel can be told to send what it has received elsewhere: on cleartext TCP.
    pub(super) fn takes_pipes(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// Sends what `pipe` holds. How many bytes that took.
    pub(super) fn poll_drain(&self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self::Tcp(socket) = self else { return Poll::Ready(Err(io::ErrorKind::Unsupported.into())) };
        loop {
            ready!(socket.poll_write_ready(cx))?;
            match socket.try_io(Interest::WRITABLE, || pipe.drain(socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// How many bytes the other side's system has taken of what was written; `None` where nobody knows.
    pub(super) fn acknowledged(&self) -> Option<u64> {
        get_tcp_info(self.tcp()?.as_raw_fd()).ok().map(|info| info.tcpi_bytes_acked)
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
