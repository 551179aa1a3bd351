//! The client, as the gateway's own answers are written to it, and its body read for them, whoever drives the connection.

use bytes::Bytes;
use pingora::protocols::http::HttpTask;
use pingora::{Error, Result};
use pingora_proxy::Session;

use super::asked::Asked;

/// A client that waits for an answer.
pub(in crate::proxy) trait Downstream: Send {
    /// What it asked for.
    fn asked(&self) -> Asked<'_>;

    /// The answer is about to be written although the request's body may not have been read. With `wait` the rest of it
    /// is read after the answer and the connection kept; otherwise such a connection is closed.
    fn leave_body_behind(&mut self, wait: bool);

    /// Whether nothing of the request is still to come.
    fn is_request_whole(&mut self) -> bool;

    /// Has the client send the body that it holds back until it is asked.
    fn ask_for_body(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// The next piece of the request's body; `None` behind its end. May be dropped while it waits.
    fn read_body(&mut self) -> impl Future<Output = Result<Option<Bytes>>> + Send;

    /// Resolves when the client has gone away. To be asked once its request is whole.
    fn gone(&mut self) -> impl Future<Output = Box<Error>> + Send;

    /// Writes parts of the answer. The last one says that it is.
    fn write(&mut self, parts: Vec<HttpTask>) -> impl Future<Output = Result<()>> + Send;
}

impl Downstream for Session {
    fn asked(&self) -> Asked<'_> {
        Asked::of(self.req_header())
    }

    fn leave_body_behind(&mut self, wait: bool) {
        if wait {
            self.as_downstream_mut().set_close_on_response_before_downstream_finish(false);
        }
    }

    fn is_request_whole(&mut self) -> bool {
        self.as_downstream_mut().is_body_done()
    }

    async fn ask_for_body(&mut self) -> Result<()> {
        self.as_downstream_mut().write_continue_response().await
    }

    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        self.as_downstream_mut().read_request_body().await
    }

    async fn gone(&mut self) -> Box<Error> {
        match self.as_downstream_mut().read_body_or_idle(true).await {
            Err(error) => error,
            Ok(_) => std::future::pending().await,
        }
    }

    async fn write(&mut self, parts: Vec<HttpTask>) -> Result<()> {
        self.as_downstream_mut().response_duplex_vec(parts).await.map(drop)
    }
}
