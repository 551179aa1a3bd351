//! HTTP clients over hyper: HTTP/1.1 and HTTP/2, cleartext and TLS, whole answers and streams.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use super::answer::{Body, BoxError, Pieces, received, whole};
use super::{Echoed, within};

/// Where requests go and how. Each request has a connection of its own unless [`Client::connect`] is asked for one.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    tls: Option<(Arc<ClientConfig>, String)>,
    http2: bool,
    introduction: Bytes,
}

/// A connection that stays open between requests.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    sender: Arc<Mutex<Sender>>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, tls: None, http2: false, introduction: Bytes::new() }
    }

    /// Where it connects to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// HTTP/2: by prior knowledge, or negotiated over TLS.
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// TLS for the server `name`. The protocol offered is the one chosen here.
    pub fn tls(mut self, config: &Arc<ClientConfig>, name: &str) -> Self {
        self.tls = Some((config.clone(), name.to_owned()));
        self
    }

    /// Bytes sent before TLS and HTTP on every connection.
    pub fn introduced_by(mut self, bytes: impl Into<Bytes>) -> Self {
        self.introduction = bytes.into();
        self
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request("GET", path)
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        RequestBuilder::new(Via::Fresh(self.clone()), method, path)
    }

    /// One connection for several requests.
    pub async fn connect(&self) -> Connection {
        self.try_connect().await.unwrap_or_else(|error| panic!("cannot connect: {error}"))
    }

    pub async fn try_connect(&self) -> Result<Connection, BoxError> {
        let sender = within("connect", self.dial()).await?;
        Ok(Connection { client: self.clone(), sender: Arc::new(Mutex::new(sender)) })
    }

    async fn dial(&self) -> Result<Sender, BoxError> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&self.introduction).await?;
        match &self.tls {
            None => self.handshake(TokioIo::new(stream)).await,
            Some((config, name)) => {
                let mut config = ClientConfig::clone(config);
                config.alpn_protocols = vec![if self.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
                let name = ServerName::try_from(name.clone())?;
                let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
                self.handshake(TokioIo::new(stream)).await
            }
        }
    }

    async fn handshake<T>(&self, io: T) -> Result<Sender, BoxError>
    where
        T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        if self.http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            Ok(Sender::Http2(sender))
        } else {
            let (sender, connection) = http1::Builder::new().handshake(io).await?;
            tokio::spawn(connection.with_upgrades());
            Ok(Sender::Http1(sender))
        }
    }
}

impl Connection {
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request("GET", path)
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        RequestBuilder::new(Via::Kept(self.clone()), method, path)
    }

    /// Returns when the other side has closed it.
    pub async fn closed(&self) {
        super::eventually("the connection to be closed", async || match &*self.sender.lock().await {
            Sender::Http1(sender) => sender.is_closed().then_some(()),
            Sender::Http2(sender) => sender.is_closed().then_some(()),
        })
        .await;
    }
}

enum Via {
    Fresh(Client),
    Kept(Connection),
}

/// A request about to be sent: `.await` it for the whole answer.
pub struct RequestBuilder {
    via: Via,
    method: Method,
    path: String,
    host: Option<String>,
    headers: HeaderMap,
    body: Body,
}

impl RequestBuilder {
    fn new(via: Via, method: &str, path: &str) -> Self {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let (path, headers, body) = (path.to_owned(), HeaderMap::new(), whole(Bytes::new()));
        Self { via, method, path, host: None, headers, body }
    }

    /// The Host header or authority; the address when not given.
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    /// A body whose length is known.
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body = whole(bytes.into());
        self
    }

    /// A body as it comes: chunked in HTTP/1.
    pub fn streaming_body(mut self, pieces: Pieces) -> Self {
        self.body = received(pieces);
        self
    }

    /// Any body.
    pub fn any_body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// The head of the answer, the body to be read piece by piece.
    pub async fn stream(self) -> Result<Streaming, BoxError> {
        let connection = match self.via {
            Via::Fresh(client) => client.try_connect().await?,
            Via::Kept(connection) => connection,
        };
        let client = &connection.client;
        let host = self.host.unwrap_or_else(|| match &client.tls {
            Some((_, name)) => format!("{name}:{}", client.address.port()),
            None => client.address.to_string(),
        });
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.headers_mut() = self.headers;
        let answer = match &mut *connection.sender.lock().await {
            Sender::Http1(sender) => {
                *request.uri_mut() = self.path.parse()?;
                if !request.headers().contains_key("host") {
                    request.headers_mut().insert("host", host.parse()?);
                }
                sender.ready().await?;
                futures_util::future::Either::Left(sender.send_request(request))
            }
            Sender::Http2(sender) => {
                let scheme = if client.tls.is_some() { "https" } else { "http" };
                *request.uri_mut() = format!("{scheme}://{host}{}", self.path).parse()?;
                *request.version_mut() = Version::HTTP_2;
                sender.ready().await?;
                futures_util::future::Either::Right(sender.send_request(request))
            }
        };
        // Outside the lock: other requests of an HTTP/2 connection go on meanwhile.
        let answer = within("the head of an answer", answer).await?;
        let (parts, body) = answer.into_parts();
        Ok(Streaming {
            status: parts.status.as_u16(),
            version: parts.version,
            headers: parts.headers,
            body,
            _connection: connection,
        })
    }

    /// The whole answer, or what went wrong on the way to its head.
    pub async fn send(self) -> Result<Response, BoxError> {
        let shown = format!("{} {}", self.method, self.path);
        let mut streaming = self.stream().await?;
        let (mut body, mut trailers, mut broken) = (Vec::new(), None, None);
        loop {
            match within(&format!("the body of {shown}"), streaming.body.frame()).await {
                None => break,
                Some(Err(error)) => {
                    broken = Some(error.to_string());
                    break;
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(other) => trailers = other.into_trailers().ok(),
                },
            }
        }
        let Streaming { status, version, headers, .. } = streaming;
        Ok(Response { status, version, headers, body: body.into(), trailers, broken, shown })
    }
}

impl IntoFuture for RequestBuilder {
    type Output = Response;
    type IntoFuture = Pin<Box<dyn Future<Output = Response> + Send>>;

    /// The whole answer; panics when there is none.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async {
            let shown = format!("{} {}", self.method, self.path);
            self.send().await.unwrap_or_else(|error| panic!("{shown}: {error} ({error:?})"))
        })
    }
}

/// An answer whose body is still coming.
pub struct Streaming {
    pub status: u16,
    pub version: Version,
    pub headers: HeaderMap,
    body: Incoming,
    _connection: Connection,
}

impl Streaming {
    /// The next piece of the body; `None` at its end.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.try_next().await.unwrap_or_else(|error| panic!("the body broke off: {error}"))
    }

    pub async fn try_next(&mut self) -> Result<Option<Bytes>, BoxError> {
        loop {
            match within("a piece of the body", self.body.frame()).await.transpose()? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Counts the rest of the body without keeping it.
    pub async fn count(mut self) -> u64 {
        let mut total = 0;
        while let Some(piece) = self.next().await {
            total += piece.len() as u64;
        }
        total
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
    /// Why the body ended early, when it did.
    pub broken: Option<String>,
    shown: String,
}

impl Response {
    /// The header's only value; panics when there are several.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        assert!(values.next().is_none(), "{name} came more than once: {:?}", self.headers);
        Some(first.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What the echoing server received.
    #[track_caller]
    pub fn echo(&self) -> Echoed {
        assert_eq!(self.status, 200, "{self:?}");
        Echoed::new(self.json())
    }

    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {:?}\n{}", self.shown, self.headers, self.text());
        assert_eq!(self.broken, None, "{}", self.shown);
        self
    }

    /// Asserts a problem document with this status and code, and that it names its request.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Self {
        let this = self.expect_status(status);
        assert_eq!(this.header("content-type"), Some("application/problem+json"), "{}", this.text());
        let problem = this.json();
        assert_eq!(problem["code"], code, "{}: {problem}", this.shown);
        assert_eq!(problem["status"], status, "{problem}");
        let id = problem["request_id"].as_str().expect("a request id");
        assert_eq!(this.header("x-request-id"), Some(id), "the id in the header is the id in the body");
        assert_eq!(problem["instance"], format!("urn:request:{id}"));
        this
    }
}
