//! One stream of an HTTP/2 connection as Pingora sees it: Pingora's own session, with the bounds that it lacks.
//!
//! Its reads have no time-out, so a client could hold a request, its server and its place for as long as it liked, and
//! the request's deadline could only drop it without an answer. And what breaks off is reset as if the client had
//! wanted that.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::http::v2::server::HttpSession;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, Result};

use super::connection::Exchange;
use crate::base::clock;

/// A stream with a request on it.
pub(super) struct Http2Stream {
    inner: HttpSession,
    exchange: Arc<Exchange>,
    read_timeout: Option<Duration>,
}

impl Http2Stream {
    pub(super) fn new(inner: HttpSession, exchange: Arc<Exchange>) -> Self {
        Self { inner, exchange, read_timeout: None }
    }
}

/// Ends `read` at the request's cut-off, and after `silence` if that is sooner.
async fn bounded<T>(
    exchange: &Exchange,
    silence: Option<Duration>,
    read: impl Future<Output = Result<T>>,
) -> Result<T> {
    // Hooks move the cut-off while no read is under way.
    let left = exchange.cut_off().map(|at| at.saturating_duration_since(clock::now()));
    let limit = match (left, silence) {
        (Some(left), Some(silence)) => left.min(silence),
        (Some(limit), None) | (None, Some(limit)) => limit,
        (None, None) => return read.await,
    };
    match pingora::time::timeout(limit, read).await {
        Ok(read) => read,
        Err(_) => Error::e_explain(ErrorType::ReadTimedout, "the client's time is over"),
    }
}

#[async_trait]
impl Session for Http2Stream {
    fn req_header(&self) -> &RequestHeader {
        self.inner.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.inner.req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        bounded(&self.exchange, self.read_timeout, self.inner.read_body_bytes()).await
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        // Once the body is complete it is the client that waits.
        let is_body_due = !no_body_expected && !self.inner.is_body_done();
        let silence = self.read_timeout.filter(|_| is_body_due);
        bounded(&self.exchange, silence, self.inner.read_body_or_idle(no_body_expected)).await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.inner.drain_request_body().await
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.inner.write_response_header(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.inner.write_response_header_ref(head, end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.inner.write_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.inner.write_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        self.inner.response_duplex_vec(tasks).await
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.inner.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.inner.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.inner.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.inner.response_written()
    }

    async fn shutdown(&mut self, code: u32, _context: &str) {
        self.inner.shutdown_with_reason(h2::Reason::from(code));
    }

    async fn abandon(&mut self, _context: &str) {
        self.inner.shutdown();
    }

    fn is_body_done(&mut self) -> bool {
        self.inner.is_body_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.inner.finish()
    }

    fn is_body_empty(&mut self) -> bool {
        self.inner.is_body_empty()
    }

    fn body_bytes_sent(&self) -> usize {
        self.inner.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.inner.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.inner.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.inner.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.inner.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.inner.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.inner.pseudo_raw_h1_request_header()
    }

    fn enable_retry_buffering(&mut self) {
        self.inner.enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.inner.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.inner.get_retry_buffer()
    }

    // HTTP/2 has no messages beside a request and its answer.

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}

impl Drop for Http2Stream {
    /// What was not answered whole must not look as if it were: some clients take the reset that a dropped stream gets
    /// (CANCEL) for its end.
    fn drop(&mut self) {
        self.inner.shutdown();
    }
}
