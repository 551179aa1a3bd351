//! Binding the listening sockets. They come before everything else of a start, so that an address in use is an error
//! and not a half-started process; a later process inherits them instead.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::snapshot::BindAddress;

/// Connections the kernel queues for us; it clamps this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A bound, listening, non-blocking socket.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A unix socket, with the path to remove at the end.
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// What was to be bound.
    pub address: String,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl Bound {
    /// Binds `address` and listens on it.
    pub fn bind(address: &BindAddress) -> Result<Self, BindError> {
        match address {
            BindAddress::Tcp(address) => tcp(*address)
                .map(Self::Tcp)
                .map_err(|source| BindError { address: address.to_string(), source }),
            BindAddress::Unix(path) => unix(path)
                .map(|listener| Self::Unix(listener, path.clone()))
                .map_err(|source| BindError { address: format!("unix:{}", path.display()), source }),
        }
    }

    /// As printed at start: `127.0.0.1:8080` with the real port, or `unix:PATH`.
    pub fn describe(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |addr| addr.to_string())
            }
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// The port; 0 for a unix socket.
    pub fn port(&self) -> u16 {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or(0, |addr| addr.port()),
            Self::Unix(..) => 0,
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // As nginx: `[::]:80` and `0.0.0.0:80` stand beside each other.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        // A socket that nobody answers on is what a killed process left behind. Anything else is not ours to remove.
        if !found.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is not a socket"));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
