//! The one shape of what answers requests without an upstream: the admin listener and the sample services.
//!
//! Whoever implements [`PlainService`] knows nothing about connections; whoever serves it (`ingress::plain`) knows
//! nothing about what is answered. Both sides see whole messages, so it is for small bodies only.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

/// Answers whole requests with whole answers.
///
/// The server reads the body before it calls, within its own bound, frames the answer and drops the future when the
/// client goes away. Implementations never panic; an answer for every request, also for a nonsensical one.
pub trait PlainService: Send + Sync + 'static {
    /// Answers `request`.
    fn call(&self, request: http::Request<Bytes>) -> BoxFuture<'_, http::Response<Bytes>>;
}

/// Whom a request came from, as text: among its extensions.
#[derive(Debug, Clone)]
pub struct Peer(pub String);

/// Stops a service that is served, and starts it again: whoever serves it has the other end.
#[derive(Debug, Clone)]
pub struct Switch(mpsc::Sender<Turn>);

/// A service is to be served, or to be so no longer.
#[derive(Debug)]
pub struct Turn {
    /// Whether it is to be served.
    pub on: bool,
    /// Hears when it is as it is to be, or why it cannot.
    pub done: oneshot::Sender<Result<(), String>>,
}

impl Switch {
    /// A switch, and what is to be done with the service, in order.
    pub fn new() -> (Self, mpsc::Receiver<Turn>) {
        let (turns, end) = mpsc::channel(1);
        (Self(turns), end)
    }

    /// Has it served, or not, and returns when it is so.
    ///
    /// # Errors
    /// Why it cannot be, to be shown to people.
    pub async fn turn(&self, on: bool) -> Result<(), String> {
        let (done, told) = oneshot::channel();
        let gone = || "nobody serves it".to_owned();
        self.0.send(Turn { on, done }).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}
