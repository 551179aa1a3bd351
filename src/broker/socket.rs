//! The socket of a connection: made, secured and ended by us; the library reads and writes it on a thread of its own.
//!
//! Its own way of connecting has no time-outs, and no TLS unless features are on that bring more than TLS.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::{Runtime, Tokio, util::RuntimeParts};
use lapin::tcp::AsyncTcpStream;
use lapin::{Connection, ConnectionProperties};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::BrokerSettings;
use super::frames::Frames;
use crate::base::units;

/// A connection, and the end of its socket.
pub(super) struct Connected {
    pub(super) connection: Connection,
    pub(super) plug: Pulled,
}

/// Connects to the broker and logs in, within `connect_timeout`.
///
/// # Errors
/// Why not, for people.
pub(super) async fn connect(settings: &BrokerSettings) -> Result<Connected, String> {
    let tls = match settings.url.is_tls() {
        true => {
            // Reading the authorities of the system takes files.
            let ca = settings.ca.clone();
            let made = crate::base::task::blocking(move || tls(ca.as_deref())).await;
            Some(made.map_err(|error| error.to_string())??)
        }
        false => None,
    };
    // Whatever becomes of this, also if nobody waits for it any more, the library's thread does not outlive it.
    let plug = Pulled::default();
    let (host, port) = settings.url.place();
    let target =
        Target { host: host.to_owned(), port, tls, limit: settings.connect_timeout, plug: plug.0.clone() };
    let target = Arc::new(target);
    let connect = async move |_, _: Runtime<Kit>| {
        let stream = target.open().await.map_err(lapin::Error::from)?;
        Ok(AsyncTcpStream::Plain(stream))
    };
    let runtime = Runtime::new(RuntimeParts::new(Tokio::current(), Sockets(Tokio::current())));
    let properties = ConnectionProperties::default()
        .with_connection_name("edgeward".into())
        .with_client_property("product".into(), "Edgeward".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let connecting = Connection::connector(settings.url.uri(), runtime, connect, properties);
    match tokio::time::timeout(settings.connect_timeout, connecting).await {
        Ok(Ok(connection)) => Ok(Connected { connection, plug }),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            let limit = units::format_duration(settings.connect_timeout);
            Err(format!("not connected within {limit}"))
        }
    }
}

type Kit = RuntimeParts<Tokio, Sockets>;

struct Target {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    limit: Duration,
    plug: Plug,
}

impl Target {
    async fn open(&self) -> io::Result<Socket> {
        let opening = async {
            let tcp = TcpStream::connect((&*self.host, self.port)).await?;
            tcp.set_nodelay(true)?;
            self.plug.put_on(&tcp)?;
            let Some(tls) = &self.tls else { return Ok(Socket::new(Stream::Plain(tcp))) };
            let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
            let stream = TlsConnector::from(tls.clone()).connect(name, tcp).await?;
            Ok(Socket::new(Stream::Tls(Box::new(stream))))
        };
        // The thread that waits for it ends with it.
        tokio::time::timeout(self.limit, opening)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn tls(ca: Option<&[CertificateDer<'static>]>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(ca) => roots.add_parsable_certificates(ca.iter().cloned()),
        None => roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    };
    if roots.is_empty() {
        return Err("there is no authority to trust".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// Ends the socket it is put on, whoever has it: the library has no other way out of a handshake that never ends.
#[derive(Debug, Clone, Default)]
struct Plug(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    socket: OnceLock<socket2::Socket>,
    pulled: AtomicBool,
}

impl Plug {
    fn put_on(&self, tcp: &TcpStream) -> io::Result<()> {
        let socket = socket2::SockRef::from(tcp).try_clone()?;
        // A connection has one socket.
        drop(self.0.socket.set(socket));
        // Either this is seen here, or the socket by who pulls.
        if self.0.pulled.load(SeqCst) { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Both sides see the end of the connection, also of one that is yet to be made.
    fn pull(&self) {
        self.0.pulled.store(true, SeqCst);
        if let Some(socket) = self.0.socket.get() {
            // It may have ended by itself.
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

/// A plug that is pulled when this is dropped, if not before: the library ends a connection that nobody holds only with an
/// answer from the broker, which a broker that hangs never gives.
#[derive(Debug, Default)]
pub(super) struct Pulled(Plug);

impl Pulled {
    /// Ends the socket now.
    pub(super) fn pull(&self) {
        self.0.pull();
    }
}

impl Drop for Pulled {
    fn drop(&mut self) {
        self.pull();
    }
}

/// What the library reads and writes.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    frames: Frames,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    fn new(stream: Stream) -> Self {
        Self { stream, frames: Frames::default() }
    }
}

impl futures_io::AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let (this, mut bytes) = (self.get_mut(), ReadBuf::new(bytes));
        std::task::ready!(match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, &mut bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, &mut bytes),
        })?;
        this.frames
            .read(bytes.filled())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Poll::Ready(Ok(bytes.filled().len()))
    }
}

impl futures_io::AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Tokio's reactor with sockets of ours.
#[derive(Debug, Clone)]
struct Sockets(Tokio);

impl Reactor for Sockets {
    type TcpStream = Socket;
    type Sleep = tokio::time::Sleep;

    /// The library takes connections from us alone.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin + 'static> {
        Err::<Socket, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl futures_util::Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    #[expect(clippy::manual_async_fn, reason = "the future must not borrow the reactor")]
    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        async move { TcpStream::connect(address).await.map(|tcp| Socket::new(Stream::Plain(tcp))) }
    }
}
