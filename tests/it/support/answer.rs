//! What a scripted server answers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio::sync::{mpsc, watch};

use super::upstream::Seen;

/// Errors of bodies and services.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
/// The pieces of a body, as a test hands them over.
pub type Pieces = mpsc::Receiver<Result<Bytes, BoxError>>;

/// What a scripted server answers.
#[derive(Clone)]
pub enum Answer {
    /// A whole answer.
    Fixed(Fixed),
    /// What arrived, as JSON: see [`super::Echoed`].
    Echo,
    /// The request's body, streamed back as it comes.
    EchoBody,
    /// Reads the request and never answers.
    Hang,
    /// Waits at the gate, then answers.
    Gated(Arc<Gate>, Box<Answer>),
    /// Waits so long, then answers: an injected delay.
    Delayed(std::time::Duration, Box<Answer>),
    /// Answers without reading the request's body.
    Unread(Box<Answer>),
    /// Reads the request and closes the connection.
    Close,
    /// Reads the request and resets the connection (RST).
    Reset,
    /// Announces a length, sends less, closes.
    Truncated(usize, Bytes),
    /// Sends a chunk without the last one, closes.
    TruncatedChunked(Bytes),
    /// Sends what the test feeds, as it feeds it.
    Fed(Fixed, Arc<Mutex<Option<Pieces>>>),
    /// That many zero bytes, with their length announced.
    Zeros(u64),
    /// A whole answer with trailers after it (HTTP/2, or chunked).
    Trailers(Fixed, HeaderMap),
    /// One after another; the last one repeats.
    Sequence(Arc<AtomicUsize>, Vec<Answer>),
    /// Accepts a WebSocket and echoes its messages.
    WebSocket,
    /// The gRPC echo service of [`super::grpc`].
    Grpc,
    /// Made from the request.
    With(Arc<dyn Fn(&Seen) -> Fixed + Send + Sync>),
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Fixed {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// An answer with this status and an empty body.
    pub fn status(status: u16) -> Self {
        Self::Fixed(Fixed::new(status, Bytes::new()))
    }

    /// This answer after so many milliseconds.
    pub fn after(millis: u64, answer: Answer) -> Self {
        Self::Delayed(std::time::Duration::from_millis(millis), Box::new(answer))
    }

    /// 200 with a text.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::Fixed(Fixed::new(200, text.into()).with("content-type", "text/plain"))
    }

    /// 200 with JSON.
    pub fn json(value: serde_json::Value) -> Self {
        Self::Fixed(Fixed::new(200, value.to_string().into()).with("content-type", "application/json"))
    }

    /// One after another; the last one repeats.
    pub fn sequence(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::Sequence(Arc::default(), answers.into_iter().collect())
    }

    /// Made from the request.
    pub fn with(make: impl Fn(&Seen) -> Fixed + Send + Sync + 'static) -> Self {
        Self::With(Arc::new(make))
    }

    /// Adds a header to a fixed or fed answer.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match &mut self {
            Self::Fixed(fixed) | Self::Fed(fixed, _) | Self::Trailers(fixed, _) => {
                *fixed = fixed.clone().with(name, value);
            }
            _ => panic!("this kind of answer has no headers of its own"),
        }
        self
    }
}

impl Fixed {
    pub fn new(status: u16, body: Bytes) -> Self {
        Self { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new(), body }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
        self
    }

    /// The answer with `body` in place of its own.
    pub fn response(self, body: Body) -> http::Response<Body> {
        let mut response = http::Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }

    pub fn full(self) -> http::Response<Body> {
        let body = whole(self.body.clone());
        self.response(body)
    }
}

/// Lets requests through when the test says so.
#[derive(Debug)]
pub struct Gate {
    open: watch::Sender<bool>,
    arrived: watch::Sender<usize>,
}

impl Gate {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { open: watch::Sender::new(false), arrived: watch::Sender::new(0) })
    }

    /// An answer that waits here first.
    pub fn then(self: &Arc<Self>, answer: Answer) -> Answer {
        Answer::Gated(self.clone(), Box::new(answer))
    }

    /// Returns once `count` requests have come to the gate.
    pub async fn arrived(&self, count: usize) {
        let mut arrived = self.arrived.subscribe();
        super::within("requests at the gate", arrived.wait_for(|now| *now >= count)).await.unwrap();
    }

    /// Lets everyone through from now on.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    pub(super) async fn pass(&self) {
        self.arrived.send_modify(|count| *count += 1);
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.unwrap();
    }
}

/// The hand that feeds an [`Answer::Fed`].
pub struct Feed(mpsc::Sender<Result<Bytes, BoxError>>);

impl Feed {
    /// An answer of this content type, and the hand that feeds it. For one request.
    pub fn new(content_type: &str) -> (Self, Answer) {
        let (sender, receiver) = mpsc::channel(1);
        let fixed = Fixed::new(200, Bytes::new()).with("content-type", content_type);
        (Self(sender), Answer::Fed(fixed, Arc::new(Mutex::new(Some(receiver)))))
    }

    /// Sends one piece; false when nobody takes it any more.
    pub async fn send(&self, piece: impl Into<Bytes>) -> bool {
        self.0.send(Ok(piece.into())).await.is_ok()
    }

    /// Breaks the answer off.
    pub async fn abort(self) {
        let _ = self.0.send(Err("the test broke it off".into())).await;
    }

    /// Returns when the reader has gone away.
    pub async fn abandoned(&self) {
        super::within("the reader to go away", self.0.closed()).await;
    }
}

pub fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A body of these frames.
pub fn frames(
    stream: impl futures_util::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + 'static,
) -> Body {
    StreamBody::new(stream).boxed_unsync()
}

/// A body of what comes out of `receiver`, until its senders are gone.
pub fn received(receiver: Pieces) -> Body {
    frames(futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece.map(Frame::data), receiver))
    }))
}

/// `total` zero bytes, made as they are asked for.
pub fn zeros(total: u64) -> Body {
    static BLOCK: [u8; 65_536] = [0; 65_536];
    frames(futures_util::stream::unfold(total, |left| async move {
        let size = left.min(BLOCK.len() as u64);
        (size > 0).then(|| (Ok(Frame::data(Bytes::from_static(&BLOCK[..size as usize]))), left - size))
    }))
}

/// `piece`, then an error: the connection is cut in the middle of the body.
pub fn cut_after(piece: Bytes) -> Body {
    let pieces = futures_util::stream::iter([Ok(Frame::data(piece))]);
    // The server must get to flush the piece before it learns of the error: yield once in between.
    let error = futures_util::stream::once(async {
        for _ in 0..32 {
            tokio::task::yield_now().await;
        }
        Err::<Frame<Bytes>, BoxError>("cut off".into())
    });
    frames(pieces.chain(error))
}

pub(super) fn next_of(turn: &AtomicUsize, answers: &[Answer]) -> Answer {
    let index = turn.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
    answers[index].clone()
}
