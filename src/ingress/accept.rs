//! The accept loop of a listener, and what a connection goes through before its protocol is known.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::apps::HttpServerApp;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::{Connection, OpenGuard, Peer, TlsFacts};
use super::edge::Edge;
use super::ends::Ends;
use super::listen::Bound;
use super::stream::EdgeStream;
use super::transport::{Socket, Transport};
use super::turned_away::TurnedAway;
use super::{http1, http2};
use crate::base::{clock, fault, panics, pressure, task};
use crate::config::snapshot::{Listener, ListenerTls};
use crate::telemetry::access::TlsInfo;

/// Pause after a failed accept: without descriptors it fails at once again, and again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Idle connections that are closed for one that finds no descriptor, or only one of the reserve.
const IDLE_ENDED: usize = 32;
/// How long connections are still accepted after the listener was told to stop. Closing it resets those whom the kernel
/// has let in already; they get their one answer instead. Where another process accepts on the same socket nothing is lost
/// by closing it: then only those who are there already are accepted, for no longer than this.
const LAST_CALL: Duration = Duration::from_millis(50);

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
    let _listening = edge.connections.listen();
    let mut closes: Option<Instant> = None;
    loop {
        let accepted = match closes {
            None => tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {
                    closes = Some(clock::now() + LAST_CALL);
                    continue;
                }
                accepted = socket.accept() => accepted,
            },
            Some(at) => {
                let is_passed_on = edge.connections.is_passed_on();
                let now = clock::now();
                if is_passed_on && now >= at {
                    return Ok(());
                }
                let until = if is_passed_on { now } else { at };
                match tokio::time::timeout_at(until.into(), socket.accept()).await {
                    Ok(accepted) => accepted,
                    Err(_) => return Ok(()),
                }
            }
        };
        let (transport, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // The client gave up while it waited: nothing is wrong here.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    pressure::not_accepted();
                    if pressure::is_shortage(&error) {
                        edge.connections.end_idle(IDLE_ENDED);
                    }
                    if let Some(unsaid) = edge.connections.mentions.failed() {
                        tracing::error!(listener = index, unsaid, "cannot accept connections: {error}");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        // The loop goes on: a listener must not be lost to one connection.
        match panics::caught(|| take_in(&edge, index, local_port, transport, peer)) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(said) => tracing::error!(listener = index, "accepting a connection panicked: {said}"),
        }
    }
}

/// Serves a connection in a task of its own, or turns it away. False when its listener is gone.
fn take_in<A>(edge: &Arc<Edge<A>>, index: u16, local_port: u16, transport: Transport, peer: Peer) -> bool
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let Some(listener) = edge.rules.listener(index) else { return false };
    fault::point("accept", &listener.name);
    let open = match admit(edge, &listener, &peer) {
        Ok(mut open) => {
            open.is_shed = pressure::is_of_reserve(transport.descriptor());
            if open.is_shed {
                edge.connections.end_idle(IDLE_ENDED);
            }
            open
        }
        Err(why) => {
            // Shed before anything is spent on it; the client sees a closed connection.
            drop(transport);
            edge.connections.turned_away(why, &listener.metrics, &peer);
            return true;
        }
    };
    let (edge, seat) = (edge.clone(), edge.threads.seat());
    let elsewhere = seat.as_ref().and_then(|seat| seat.elsewhere().cloned());
    let serve = async move |transport| {
        // It sits there until it is over.
        let _seat = seat;
        connection(edge, listener, Accepted { index, local_port, transport, peer, open }).await;
    };
    let Some(runtime) = elsewhere else {
        drop(task::spawn("connection", serve(transport)));
        return true;
    };
    // Its socket is looked after by the thread's own runtime.
    let socket = transport.leave();
    drop(task::spawn_on(&runtime, "connection", async move {
        match socket.and_then(Socket::arrive) {
            Ok(transport) => serve(transport).await,
            Err(error) => {
                pressure::not_accepted();
                tracing::debug!(client = %peer.ip(), %error, "a connection cannot be looked after");
            }
        }
    }));
    true
}

struct Accepted {
    index: u16,
    local_port: u16,
    transport: Transport,
    peer: Peer,
    open: OpenGuard,
}

/// Counts a connection, unless that is one too many: of all, or of its address. Behind a PROXY header the client's
/// address is not known yet.
fn admit<A>(edge: &Edge<A>, listener: &Listener, peer: &Peer) -> Result<OpenGuard, TurnedAway> {
    let limits = edge.rules.limits();
    let mut open = edge.connections.admit(limits.connections, &listener.metrics)?;
    if !listener.proxy_protocol {
        count(edge, &mut open, peer, limits.connections_per_address)?;
    }
    Ok(open)
}

/// Counts a connection for its client's address. A unix socket has none, and a trusted proxy brings the connections of
/// many.
fn count<A>(edge: &Edge<A>, open: &mut OpenGuard, peer: &Peer, most: usize) -> Result<(), TurnedAway> {
    match peer {
        Peer::Tcp(_) if !edge.rules.trusted_proxies().contains(peer.ip()) => open.count_for(peer.ip(), most),
        _ => Ok(()),
    }
}

/// Learns whose connection it is; `None` if it is to be closed.
async fn ends<A>(
    edge: &Edge<A>,
    listener: &Listener,
    transport: &Transport,
    peer: Peer,
    open: &mut OpenGuard,
) -> Option<Ends> {
    if !listener.proxy_protocol {
        return Some(Ends::direct(peer, transport));
    }
    let (limits, trusted) = (edge.rules.limits(), edge.rules.trusted_proxies());
    let found = Ends::introduced(peer, transport, &trusted, limits.header_timeout).await;
    let counted = found.and_then(|ends| {
        count(edge, open, &ends.client, limits.connections_per_address)?;
        Ok(ends)
    });
    match counted {
        Ok(ends) => Some(ends),
        Err(why) => {
            if let Some(why) = why {
                edge.connections.turned_away(why, &listener.metrics, &peer);
            }
            None
        }
    }
}

async fn connection<A>(edge: Arc<Edge<A>>, listener: Arc<Listener>, accepted: Accepted)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let Accepted { index, local_port, transport, peer, mut open } = accepted;
    let Some(ends) = ends(&edge, &listener, &transport, peer, &mut open).await else { return };
    let (transport, tls, http2) = match &listener.tls {
        None => (transport, None, false),
        Some(_) => {
            let limit = edge.rules.limits().header_timeout;
            // The configuration of the moment at which the client speaks: it may have connected long before.
            let choose = || edge.rules.listener(index)?.tls.clone();
            let handshake = tokio::time::timeout(limit, Box::pin(handshake(transport, choose)));
            match handshake.await {
                Ok(Ok((transport, facts, http2))) => (transport, Some(facts), http2),
                Ok(Err(error)) => {
                    listener.metrics.handshake_failed(why_failed(&error));
                    tracing::debug!(client = %ends.client.ip(), %error, "TLS handshake failed");
                    return;
                }
                Err(_) => {
                    listener.metrics.handshake_failed("timeout");
                    return;
                }
            }
        }
    };
    let connection = Connection::new(index, local_port, ends, tls, open);
    let stream = Box::new(EdgeStream::new(transport, connection.clone(), edge.rules.limits().body_timeout));
    if http2 {
        http2::serve(&edge, stream, connection).await;
    } else {
        http1::serve(&edge, stream, connection, listener.http2 && listener.tls.is_none()).await;
    }
}

/// The metrics' word for it.
fn why_failed(error: &io::Error) -> &'static str {
    use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(InvalidCertificate(_) | NoCertificatesPresented) => "client_certificate",
        _ => "failed",
    }
}

async fn handshake(
    transport: Transport,
    choose: impl FnOnce() -> Option<Arc<ListenerTls>>,
) -> io::Result<(Transport, TlsFacts, bool)> {
    match transport {
        Transport::Tcp(io) => {
            let (stream, facts, http2) = agree(io, choose).await?;
            Ok((Transport::TlsTcp(Box::new(stream)), facts, http2))
        }
        Transport::Unix(io) => {
            let (stream, facts, http2) = agree(io, choose).await?;
            Ok((Transport::TlsUnix(Box::new(stream)), facts, http2))
        }
        already => Err(io::Error::other(format!("TLS within TLS: {already:?}"))),
    }
}

/// Reads the client's hello first and chooses the configuration then; says what was agreed on, and whether it is HTTP/2.
async fn agree<IO>(
    io: IO,
    choose: impl FnOnce() -> Option<Arc<ListenerTls>>,
) -> io::Result<(TlsStream<IO>, TlsFacts, bool)>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let hello = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
    let config = choose().ok_or_else(|| io::Error::other("the listener has no certificates any more"))?;
    let stream = hello.into_stream(config.config.clone()).await?;
    let (facts, http2) = facts(&config, stream.get_ref().1)?;
    Ok((stream, facts, http2))
}

fn facts(config: &ListenerTls, tls: &rustls::ServerConnection) -> io::Result<(TlsFacts, bool)> {
    let version = tls.protocol_version().map_or(0, u16::from);
    let suite = tls.negotiated_cipher_suite().map_or(0, |suite| u16::from(suite.suite()));
    let facts = TlsFacts {
        names: TlsInfo::new(version, suite),
        server_name: tls.server_name().map(str::to_owned),
        client_policy: config.client_policy(),
        client_cert: config.client_cert(tls).map_err(io::Error::other)?,
    };
    Ok((facts, tls.alpn_protocol() == Some(b"h2")))
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use bytes::Bytes;
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::base::service::PlainService;
    use crate::config::snapshot::{BindAddress, Limits};
    use crate::ingress::Rules;
    use crate::ingress::connection::Connections;
    use crate::ingress::plain::Plain;
    use crate::telemetry::metrics::Metrics;

    struct Ok200;

    impl PlainService for Ok200 {
        fn call(&self, _request: http::Request<Bytes>) -> BoxFuture<'_, http::Response<Bytes>> {
            Box::pin(std::future::ready(http::Response::new(Bytes::from_static(b"ok"))))
        }
    }

    /// The kernel lets clients in before we do. Closing the listener would reset them.
    #[tokio::test]
    async fn who_waits_to_be_accepted_when_the_listener_stops_is_served() {
        let address = BindAddress::Tcp(([127, 0, 0, 1], 0).into());
        let bound = Bound::bind(&address).unwrap();
        let mut client = std::net::TcpStream::connect(("127.0.0.1", bound.port())).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let (metrics, second) = (Metrics::new(), Duration::from_secs(1));
        let listener = Listener {
            name: "test".to_owned(),
            address,
            origin: crate::base::origin::Origin::Default,
            http2: false,
            proxy_protocol: false,
            tls: None,
            certificates: Vec::new(),
            redirect_https: None,
            metrics: metrics.listener("test"),
        };
        let limits = Limits {
            connections: 8,
            connections_per_address: 0,
            header_bytes: 4096,
            header_timeout: second,
            idle_timeout: second,
            body_timeout: second,
            min_body_rate: 0,
            request_timeout: second,
            stream_idle: second,
            upstream_idle: 0,
            memory: None,
        };
        let told = watch::Sender::new(true);
        let edge = Arc::new(Edge {
            app: Arc::new(Plain::new(Arc::new(Ok200))),
            direct: None,
            rules: Rules::Fixed(Arc::new(listener), limits),
            metrics,
            threads: Arc::default(),
            connections: Arc::new(Connections::default()),
            draining: told.subscribe(),
        });
        let answer = tokio::task::spawn_blocking(move || {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        });
        serve(edge.clone(), 0, bound, told.subscribe()).await.unwrap();
        let answer = answer.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer:?}");
        edge.connections.all_closed().await;
    }
}
