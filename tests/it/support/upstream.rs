//! A scripted HTTP server: HTTP/1.1 and HTTP/2 (prior knowledge, or ALPN with TLS) on a port of its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::answer::{Answer, Body, BoxError, Fixed, cut_after, frames, next_of, received, whole, zeros};
use super::tls::Identity;
use super::{eventually, grpc};

/// Body bytes kept of each request; longer bodies are only counted.
const BODY_KEPT_MAX: usize = 4 << 20;

/// Starts describing a server. Without a script it echoes: see [`Answer::Echo`].
pub fn upstream() -> UpstreamBuilder {
    UpstreamBuilder { script: Script::default(), name: String::from("upstream"), tls: None }
}

pub struct UpstreamBuilder {
    script: Script,
    name: String,
    tls: Option<TlsAcceptor>,
}

#[derive(Default)]
struct Script {
    paths: Vec<(String, Answer)>,
    otherwise: Option<Answer>,
}

impl UpstreamBuilder {
    /// Answers this path, exactly.
    pub fn on(mut self, path: &str, answer: Answer) -> Self {
        self.script.paths.push((path.to_owned(), answer));
        self
    }

    /// Answers every other path.
    pub fn otherwise(mut self, answer: Answer) -> Self {
        self.script.otherwise = Some(answer);
        self
    }

    /// What an echo calls this server, and its header `x-server`.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Speaks TLS, offering both protocols.
    pub fn tls(mut self, identity: &Identity) -> Self {
        self.tls = Some(TlsAcceptor::from(identity.server_config(&[b"h2", b"http/1.1"], None)));
        self
    }

    /// Speaks TLS and wants a certificate of `client_authority`.
    pub fn mutual_tls(mut self, identity: &Identity, client_authority: &super::Authority) -> Self {
        self.tls =
            Some(TlsAcceptor::from(identity.server_config(&[b"h2", b"http/1.1"], Some(client_authority))));
        self
    }

    pub async fn start(self) -> Upstream {
        let shared = Arc::new(Shared {
            name: self.name,
            script: Mutex::new(self.script),
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            tasks: Arc::default(),
        });
        let listener = listen("127.0.0.1:0".parse().unwrap());
        let address = listener.local_addr().unwrap();
        let mut upstream = Upstream { shared, address, tls: self.tls, accepting: None, held: None };
        upstream.accept(listener);
        upstream
    }
}

/// A running server. Gone when dropped.
pub struct Upstream {
    shared: Arc<Shared>,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    accepting: Option<tokio::task::JoinHandle<()>>,
    held: Option<socket2::Socket>,
}

struct Shared {
    name: String,
    script: Mutex<Script>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
    /// Empty where the answer does not read it; the first 4 MiB of a longer one.
    pub body: Bytes,
    pub body_len: u64,
    pub trailers: Option<HeaderMap>,
    pub peer: SocketAddr,
    pub server: String,
}

impl Seen {
    /// The header's only value; panics when there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        assert!(values.next().is_none(), "{name} arrived more than once: {:?}", self.headers);
        Some(first.to_str().unwrap())
    }
}

impl Upstream {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests have arrived.
    pub fn requests(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// All requests so far, in the order they were complete.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Requests for this path.
    pub fn seen_at(&self, path: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.uri.path() == path).collect()
    }

    /// The last request; panics when there was none.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }

    /// From now on answers this path so.
    pub fn on(&self, path: &str, answer: Answer) {
        let mut script = self.shared.script.lock().unwrap();
        script.paths.retain(|(known, _)| known != path);
        script.paths.push((path.to_owned(), answer));
    }

    /// From now on answers all other paths so.
    pub fn otherwise(&self, answer: Answer) {
        self.shared.script.lock().unwrap().otherwise = Some(answer);
    }

    /// Stops listening and cuts every connection, as a killed process would. The port stays ours.
    pub async fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
        let mut tasks = std::mem::take(&mut *self.shared.tasks.lock().unwrap());
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        self.held = Some(bound(self.address));
        eventually("connections to close", async || (self.open_connections() == 0).then_some(())).await;
    }

    /// Listens again on the same port.
    pub async fn restart(&mut self) {
        assert!(self.accepting.is_none(), "it is running");
        self.held = None;
        self.accept(listen(self.address));
    }

    fn accept(&mut self, listener: TcpListener) {
        let (shared, tls) = (self.shared.clone(), self.tls.clone());
        self.accepting = Some(tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let connection = serve(shared.clone(), stream, peer, tls.clone());
                shared.tasks.lock().unwrap().spawn(connection);
            }
        }));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
        self.shared.tasks.lock().unwrap().abort_all();
    }
}

/// Counts an open connection for as long as it lives.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>) {
    shared.connections.fetch_add(1, Ordering::SeqCst);
    shared.open.fetch_add(1, Ordering::SeqCst);
    let open = Arc::new(Open(shared.clone()));
    let _ = stream.set_nodelay(true);
    // A second handle of the same socket, so that an answer can ask for a reset instead of an orderly close.
    let stream = stream.into_std().unwrap();
    let control = Arc::new(stream.try_clone().unwrap());
    let stream = TcpStream::from_std(stream).unwrap();

    let service =
        service_fn(move |request| answer(shared.clone(), open.clone(), control.clone(), peer, request));
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http2().enable_connect_protocol();
    let _ = match tls {
        None => server.serve_connection_with_upgrades(TokioIo::new(stream), service).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => server.serve_connection_with_upgrades(TokioIo::new(stream), service).await,
            Err(_) => return,
        },
    };
}

async fn answer(
    shared: Arc<Shared>,
    open: Arc<Open>,
    control: Arc<std::net::TcpStream>,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, BoxError> {
    let mut answer = shared.script.lock().unwrap().find(request.uri().path());
    while let Answer::Sequence(turn, answers) = &answer {
        answer = next_of(turn, answers);
    }
    let upgrade = matches!(answer, Answer::WebSocket).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let mut seen = Seen {
        method: parts.method,
        uri: parts.uri,
        version: parts.version,
        headers: parts.headers,
        body: Bytes::new(),
        body_len: 0,
        trailers: None,
        peer,
        server: shared.name.clone(),
    };

    let mut body = Some(body);
    if !matches!(answer, Answer::Unread(_) | Answer::EchoBody | Answer::Grpc | Answer::WebSocket) {
        read(body.take().unwrap(), &mut seen).await?;
    }
    shared.seen.lock().unwrap().push(seen.clone());
    // Unread ones keep the body until the answer is made: dropping it early would close the connection.
    if let Answer::Unread(inner) = answer {
        answer = *inner;
    }
    while let Answer::Gated(gate, inner) = answer {
        gate.pass().await;
        answer = *inner;
    }
    if let Answer::Delayed(time, inner) = answer {
        let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
        answer = *inner;
    }
    let mut response = match answer {
        Answer::Fixed(fixed) => fixed.full(),
        Answer::Echo => super::echo::echo(&seen).full(),
        Answer::With(make) => make(&seen).full(),
        Answer::EchoBody => {
            let stream = body.take().unwrap().map_err(BoxError::from).boxed_unsync();
            Fixed::new(200, Bytes::new()).response(stream)
        }
        Answer::Hang => std::future::pending().await,
        Answer::Close => return Err("closes without an answer".into()),
        Answer::Reset => {
            socket2::SockRef::from(&*control).set_linger(Some(std::time::Duration::ZERO))?;
            return Err("resets".into());
        }
        Answer::Truncated(announced, sent) => Fixed::new(200, Bytes::new())
            .with("content-length", &announced.to_string())
            .response(cut_after(sent)),
        Answer::TruncatedChunked(sent) => Fixed::new(200, Bytes::new()).response(cut_after(sent)),
        Answer::Fed(fixed, receiver) => {
            let receiver = receiver.lock().unwrap().take().expect("a fed answer is for one request");
            fixed.response(received(receiver))
        }
        Answer::Zeros(total) => Fixed::new(200, Bytes::new())
            .with(CONTENT_LENGTH.as_str(), &total.to_string())
            .response(zeros(total)),
        Answer::Trailers(fixed, trailers) => {
            let frames_of_it = [Ok(Frame::data(fixed.body.clone())), Ok(Frame::trailers(trailers.clone()))];
            let names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
            fixed
                .with("trailer", &names.join(", "))
                .response(frames(futures_util::stream::iter(frames_of_it)))
        }
        Answer::WebSocket => accept_websocket(&shared, open, &seen, upgrade.unwrap()),
        Answer::Grpc => grpc::answer(&seen, body.take().unwrap()),
        Answer::Sequence(..) | Answer::Gated(..) | Answer::Delayed(..) | Answer::Unread(_) => {
            panic!("unwrapped above")
        }
    };
    response.headers_mut().insert("x-server", seen.server.parse().unwrap());
    if seen.method == Method::HEAD && seen.version == Version::HTTP_2 {
        // The library leaves the body off in HTTP/1 alone.
        if let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0) {
            response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
        }
        *response.body_mut() = whole(Bytes::new());
    }
    Ok(response)
}

async fn read(mut body: Incoming, seen: &mut Seen) -> Result<(), BoxError> {
    let mut kept = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                seen.body_len += data.len() as u64;
                let room = BODY_KEPT_MAX - kept.len();
                kept.extend_from_slice(&data[..data.len().min(room)]);
            }
            Err(other) => seen.trailers = other.into_trailers().ok(),
        }
    }
    seen.body = kept.into();
    Ok(())
}

/// Accepts and echoes text and binary messages until the other side closes.
fn accept_websocket(
    shared: &Shared,
    open: Arc<Open>,
    seen: &Seen,
    upgrade: hyper::upgrade::OnUpgrade,
) -> Response<Body> {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
    use tokio_tungstenite::tungstenite::protocol::Role;

    let Some(key) = seen.headers.get("sec-websocket-key") else {
        return Fixed::new(426, Bytes::from_static(b"not a WebSocket handshake")).full();
    };
    let mut fixed = Fixed::new(101, Bytes::new())
        .with("connection", "Upgrade")
        .with("upgrade", "websocket")
        .with("sec-websocket-accept", &derive_accept_key(key.as_bytes()));
    if let Some(protocol) = seen.headers.get("sec-websocket-protocol") {
        let first = protocol.to_str().unwrap().split(',').next().unwrap().trim().to_owned();
        fixed = fixed.with("sec-websocket-protocol", &first);
    }
    shared.tasks.lock().unwrap().spawn(async move {
        let _open = open;
        let Ok(upgraded) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    fixed.full()
}

impl Script {
    fn find(&self, path: &str) -> Answer {
        let exact = self.paths.iter().find(|(known, _)| known == path).map(|(_, answer)| answer);
        exact.or(self.otherwise.as_ref()).cloned().unwrap_or(Answer::Echo)
    }
}

/// The content type of a seen request, or "".
pub fn content_type(seen: &Seen) -> &str {
    seen.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// A socket that holds `address` without listening: connecting to it is refused.
pub(super) fn bound(address: SocketAddr) -> socket2::Socket {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = bound(address);
    socket.listen(1024).unwrap();
    socket.set_nonblocking(true).unwrap();
    TcpListener::from_std(socket.into()).unwrap()
}
