//! The accept loop of a listener, and what a connection goes through before its protocol is known.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::HttpServerApp;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::{Connection, OpenGuard, Peer, TlsFacts};
use super::edge::Edge;
use super::listen::Bound;
use super::stream::EdgeStream;
use super::transport::Transport;
use super::{http1, http2};
use crate::base::task;
use crate::config::snapshot::Listener;
use crate::telemetry::access::TlsInfo;

/// Pause after a failed accept: without descriptors it fails at once again, and again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts on `bound` as listener `index` until `stop` turns true, then closes the socket.
pub async fn serve<A>(
    edge: Arc<Edge<A>>,
    index: u16,
    bound: Bound,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let local_port = bound.port();
    let (socket, _removed_at_the_end) = match bound {
        Bound::Tcp(listener) => (Accepting::Tcp(TcpListener::from_std(listener)?), None),
        Bound::Unix(listener, file) => (Accepting::Unix(UnixListener::from_std(listener)?), Some(file)),
    };
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            accepted = socket.accept() => accepted,
        };
        let (transport, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // The client gave up while it waited: nothing is wrong here.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    tracing::error!(listener = index, %error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let Some(listener) = edge.rules.listener(index) else { return Ok(()) };
        let Some(open) = edge.connections.admit(edge.rules.limits().connections, &listener.metrics) else {
            // Shed before anything is spent on it; the client sees a closed connection.
            drop(transport);
            continue;
        };
        let edge = edge.clone();
        drop(task::spawn("connection", async move {
            connection(edge, listener, Accepted { index, local_port, transport, peer, open }).await;
        }));
    }
}

struct Accepted {
    index: u16,
    local_port: u16,
    transport: Transport,
    peer: Peer,
    open: OpenGuard,
}

async fn connection<A>(edge: Arc<Edge<A>>, listener: Arc<Listener>, accepted: Accepted)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let Accepted { index, local_port, transport, peer, open } = accepted;
    let (transport, tls, http2) = match &listener.tls {
        None => (transport, None, false),
        Some(config) => {
            let limit = edge.rules.limits().header_timeout;
            let handshake = pingora::time::timeout(limit, Box::pin(handshake(transport, config.clone())));
            match handshake.await {
                Ok(Ok((transport, facts, http2))) => (transport, Some(facts), http2),
                Ok(Err(error)) => {
                    listener.metrics.handshake_failed("failed");
                    tracing::debug!(client = %peer.ip(), %error, "TLS handshake failed");
                    return;
                }
                Err(_) => {
                    listener.metrics.handshake_failed("timeout");
                    return;
                }
            }
        }
    };
    let connection = Connection::new(index, local_port, peer, tls, open);
    let mut stream =
        Box::new(EdgeStream::new(transport, connection.clone(), edge.rules.limits().body_timeout));
    if http2 {
        stream.set_raw();
        http2::serve(&edge, stream, connection).await;
    } else {
        http1::serve(&edge, stream, connection, listener.http2 && listener.tls.is_none()).await;
    }
}

async fn handshake(
    transport: Transport,
    config: Arc<rustls::ServerConfig>,
) -> io::Result<(Transport, TlsFacts, bool)> {
    match transport {
        Transport::Tcp(io) => {
            let stream = agree(io, config).await?;
            let (facts, http2) = facts(stream.get_ref().1);
            Ok((Transport::TlsTcp(Box::new(stream)), facts, http2))
        }
        Transport::Unix(io) => {
            let stream = agree(io, config).await?;
            let (facts, http2) = facts(stream.get_ref().1);
            Ok((Transport::TlsUnix(Box::new(stream)), facts, http2))
        }
        already => Err(io::Error::other(format!("TLS within TLS: {already:?}"))),
    }
}

/// Reads the client's hello first and chooses the configuration then: by name, later by certificate policy too.
async fn agree<IO>(io: IO, config: Arc<rustls::ServerConfig>) -> io::Result<TlsStream<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    LazyConfigAcceptor::new(Acceptor::default(), io).await?.into_stream(config).await
}

fn facts(tls: &rustls::ServerConnection) -> (TlsFacts, bool) {
    let version = tls.protocol_version().map_or(0, u16::from);
    let suite = tls.negotiated_cipher_suite().map_or(0, |suite| u16::from(suite.suite()));
    let server_name = tls.server_name().map(str::to_owned);
    (TlsFacts { names: TlsInfo::new(version, suite), server_name }, tls.alpn_protocol() == Some(b"h2"))
}

enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Accepting {
    async fn accept(&self) -> io::Result<(Transport, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Answers leave in as few writes as they can; waiting for more would only delay them. It fails only for
                // a client that is gone already, which is nothing to stop accepting for.
                let _gone = stream.set_nodelay(true);
                Ok((Transport::Tcp(stream), Peer::Tcp(address)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Transport::Unix(stream), Peer::Unix))
            }
        }
    }
}
