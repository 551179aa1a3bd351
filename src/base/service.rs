//! The one shape of what answers requests without an upstream: the admin listener and the sample services.
//!
//! Whoever implements [`PlainService`] knows nothing about connections; whoever serves it (`ingress::plain`) knows
//! nothing about what is answered. Both sides see whole messages, so it is for small bodies only.

use bytes::Bytes;
use futures_util::future::BoxFuture;

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
