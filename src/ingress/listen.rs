//! Binding the listening sockets. They come before everything else of a start, so that an address in use is an error
//! and not a half-started process; a later process inherits them instead.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::snapshot::BindAddress;

/// Connections the kernel queues for us; it clamps this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Bytes of an answer that the kernel takes beyond what it can send at once. By itself it would take megabytes for a
/// client that reads slowly, and a thousand of those would leave no memory for anybody's sockets.
const UNSENT_BYTES_MAX: u32 = 128 * 1024;

/// A bound, listening, non-blocking socket.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A unix socket, with its file.
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

/// The file of a unix socket: removed when dropped, if it is still the one that was made and no other process has it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    handed_over: Arc<AtomicBool>,
}

impl SocketFile {
    /// The socket at `path`, which is this process's from now on.
    ///
    /// # Errors
    /// There is none.
    pub fn of(path: &Path) -> io::Result<Self> {
        let made = std::fs::symlink_metadata(path)?;
        let identity = (made.dev(), made.ino());
        Ok(Self { path: path.to_owned(), identity, handed_over: Arc::default() })
    }

    /// The same, of a socket that another process serves until [`SocketFile::handed_over`] is taken back.
    ///
    /// # Errors
    /// There is none.
    pub fn of_another(path: &Path) -> io::Result<Self> {
        let file = Self::of(path)?;
        file.handed_over.store(true, Ordering::Relaxed);
        Ok(file)
    }

    /// True while another process has the socket, and with it the file.
    pub fn handed_over(&self) -> Arc<AtomicBool> {
        self.handed_over.clone()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.handed_over.load(Ordering::Relaxed) {
            return;
        }
        // Somebody may have put another there by now.
        let is_ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if is_ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
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
            BindAddress::Tcp(address) => tcp(*address).map(Self::Tcp),
            BindAddress::Unix(path) => unix(path).map(|(listener, file)| Self::Unix(listener, file)),
        }
        .map_err(|source| BindError { address: address.to_string(), source })
    }

    /// Takes over the listening `socket` of another process, which was bound to `address`. A file stays that process's until
    /// [`Bound::handed_over`] is taken back. A unix socket whose file is gone is bound anew: nobody can connect to it.
    pub fn inherit(address: &BindAddress, socket: OwnedFd) -> Result<Self, BindError> {
        let failed = |source| BindError { address: address.to_string(), source };
        let socket = Socket::from(socket);
        if !socket.is_listener().map_err(failed)? {
            return Err(failed(io::Error::other("what was handed over does not listen")));
        }
        socket.set_nonblocking(true).map_err(failed)?;
        match address {
            BindAddress::Tcp(_) => Ok(Self::Tcp(socket.into())),
            BindAddress::Unix(path) => match SocketFile::of_another(path) {
                Ok(file) => Ok(Self::Unix(socket.into(), file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Self::bind(address),
                Err(error) => Err(failed(error)),
            },
        }
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }

    /// True while another process has the socket, and with it the file.
    pub fn handed_over(&self) -> Arc<AtomicBool> {
        match self {
            Self::Tcp(_) => Arc::default(),
            Self::Unix(_, file) => file.handed_over(),
        }
    }

    /// As printed at start: `127.0.0.1:8080` with the real port, or `unix:PATH`.
    pub fn describe(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |addr| addr.to_string())
            }
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
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
    // Accepted sockets inherit it.
    socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn unix(path: &Path) -> io::Result<(std::os::unix::net::UnixListener, SocketFile)> {
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
    // As nginx: whoever may enter the directory may connect.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    listener.set_nonblocking(true)?;
    Ok((listener, SocketFile::of(path)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_goes_with_its_listener_and_a_successors_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/gateway.sock");
        let address = BindAddress::Unix(path.clone());
        let first = Bound::bind(&address).unwrap();
        assert_eq!(Bound::bind(&address).unwrap_err().source.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());

        let first = Bound::bind(&address).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _second = Bound::bind(&address).unwrap();
        drop(first);
        assert!(path.exists());
    }

    /// What a killed process left behind is replaced; what is no socket is not.
    #[test]
    fn only_dead_sockets_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Bound::bind(&BindAddress::Unix(path.clone())).unwrap());
        std::fs::write(&path, "kept").unwrap();
        assert!(Bound::bind(&BindAddress::Unix(path.clone())).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
    }
}
