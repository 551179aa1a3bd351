//! The servers behind the gateway. They never close a connection and never fail: what is lost, the gateway lost.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::websocket::echo;

/// Time between two events of `/events/N`.
pub const EVENT_EVERY: Duration = Duration::from_millis(100);
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A running server; gone when dropped.
pub struct Origin {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    open: AtomicUsize,
}

impl Origin {
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Seen::default());
        let counted = seen.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, counted.clone()));
            }
        });
        Ok(Self { address, seen, accepting })
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.seen.open.load(Ordering::Relaxed)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(stream: TcpStream, seen: Arc<Seen>) {
    seen.connections.fetch_add(1, Ordering::Relaxed);
    seen.open.fetch_add(1, Ordering::Relaxed);
    let _ = stream.set_nodelay(true);
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
    // How a connection ends is told by those who use it.
    let _ = connection.with_upgrades().await;
    seen.open.fetch_sub(1, Ordering::Relaxed);
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let response = match (request.method(), path.as_str()) {
        (&Method::GET, "/socket") => return Ok(websocket(&mut request).await),
        (&Method::GET, path) if path.starts_with("/events/") => {
            let count = path.trim_start_matches("/events/").parse().unwrap_or(0);
            events(count)
        }
        (&Method::GET, path) => full(Bytes::from(got(path))),
        (&Method::POST, "/upload") => {
            let mut sum = Sum::default();
            while let Some(frame) = request.body_mut().frame().await {
                if let Ok(data) = frame?.into_data() {
                    sum.add(&data);
                }
            }
            full(Bytes::from(sum.text()))
        }
        (&Method::POST, _) => full(request.into_body().collect().await?.to_bytes()),
        _ => {
            let mut response = full(Bytes::new());
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response
        }
    };
    Ok(response)
}

/// What a GET of `path` is answered with: no two are alike.
pub fn got(path: &str) -> String {
    format!("{path} {}\n", "x".repeat(400))
}

/// The events of `/events/COUNT`.
pub fn event(number: usize) -> String {
    format!("data: {number}\n\n")
}

/// Length and a sum of bytes: tells a whole body from one that lost or repeated a piece.
#[derive(Debug, Default)]
pub struct Sum {
    length: u64,
    sum: u64,
}

impl Sum {
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.length += 1;
            self.sum = self.sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
        }
    }

    pub fn text(&self) -> String {
        format!("{} {:x}", self.length, self.sum)
    }
}

fn full(body: Bytes) -> Response<Body> {
    Response::new(Full::new(body).boxed_unsync())
}

fn events(count: usize) -> Response<Body> {
    let stream = futures_util::stream::unfold(0, move |number| async move {
        if number == count {
            return None;
        }
        tokio::time::sleep(EVENT_EVERY).await;
        Some((Ok(Frame::data(Bytes::from(event(number)))), number + 1))
    });
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/event-stream"));
    response
}

async fn websocket(request: &mut Request<Incoming>) -> Response<Body> {
    let key = request.headers().get("sec-websocket-key").map(|key| derive_accept_key(key.as_bytes()));
    let upgraded = hyper::upgrade::on(request);
    let Some(Ok(accept)) = key.map(http::HeaderValue::try_from) else {
        let mut response = full(Bytes::new());
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    };
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            echo(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await).await;
        }
    });
    let mut response = full(Bytes::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("connection", http::HeaderValue::from_static("Upgrade"));
    headers.insert("upgrade", http::HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-accept", accept);
    response
}
