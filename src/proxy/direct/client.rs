//! The client's side of one exchange: what was read of its body, what was written to it. What is the same whatever it
//! speaks; the rest is its [`Side`]'s.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::{Error, ErrorType, OrErr, Result};

use super::relay::from_client;
use super::request::Request;
use super::side::{Manner, Side};
use crate::ingress::head::Framing;
use crate::proxy::asked::Asked;
use crate::proxy::downstream::Downstream;
use crate::proxy::phases::connect::Progress;

/// Bytes of a body kept to be sent again to another server.
const REPLAY_BYTES_MAX: usize = 64 * 1024;
/// How long the unread rest of a body may take before the connection is given up.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A client whose request is being served.
#[derive(Debug)]
pub(super) struct Client<S> {
    pub(super) side: S,
    pub(super) request: Request,
    pub(super) upload: Upload,
    /// The connection ends with this answer.
    pub(super) closing: bool,
    /// The head of the answer was written.
    pub(super) answer_started: bool,
    /// Longest pause of its body.
    pub(super) body_timeout: Duration,
    /// What is left of its body is short and read after the answer.
    waits: bool,
}

/// The body of a request on its way to servers.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// All of it as it was sent, as long as it is short enough to be sent again.
    replay: Vec<u8>,
    is_replay_cut: bool,
    /// Bytes of it so far, without framing.
    pub(super) taken: u64,
}

impl<S: Side> Client<S> {
    pub(super) fn new(side: S, request: Request, body_timeout: Duration) -> Self {
        let upload = Upload::default();
        Self { side, request, upload, closing: false, answer_started: false, body_timeout, waits: false }
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            replayable: !self.upload.is_replay_cut,
            answer_started: self.answer_started,
            tunnel: false,
        }
    }

    /// Whether all of its body is going to be there to be sent again, however much of it is sent.
    pub(super) fn is_surely_replayable(&self) -> bool {
        match self.request.body {
            Framing::None => true,
            Framing::Length(length) => length <= REPLAY_BYTES_MAX as u64,
            Framing::Chunked => false,
        }
    }

    /// Writes the head of the server's final answer, which is all of it if it `ends`. What is written may wait for the
    /// first bytes of the body.
    pub(super) async fn write_head(&mut self, head: ResponseHeader, ends: bool) -> Result<()> {
        self.write_final(head, ends, false).await
    }

    async fn write_final(&mut self, head: ResponseHeader, ends: bool, own: bool) -> Result<()> {
        self.answer_started = true;
        self.closing |= !self.side.is_message_done() && !self.waits;
        self.side.write_head(head, Manner { closing: self.closing, ends, own }).await
    }

    pub(super) async fn flush(&mut self) -> Result<()> {
        let flushed = std::future::poll_fn(|cx| self.side.poll_flush(cx)).await;
        flushed.or_err(ErrorType::WriteError, "while writing to the client").map_err(Error::into_down)
    }

    /// Ends the exchange. Whether the connection may carry another request.
    pub(super) async fn finish(&mut self) -> bool {
        if !self.closing && !self.side.is_message_done() {
            self.closing = !matches!(tokio::time::timeout(DRAIN_TIMEOUT, self.drain()).await, Ok(true));
        }
        if self.closing {
            self.side.close().await;
        }
        !self.closing
    }

    /// Reads the rest of the body for nothing; whether it came.
    async fn drain(&mut self) -> bool {
        loop {
            match std::future::poll_fn(|cx| self.side.poll_data(cx)).await {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
}

impl Upload {
    /// What has to be sent again behind the head.
    pub(super) fn replay(&self) -> &[u8] {
        &self.replay
    }

    /// Whether all of it so far is.
    pub(super) fn is_kept(&self) -> bool {
        !self.is_replay_cut
    }

    /// Takes note of `count` bytes of the body, which go to a server as `framed`.
    pub(super) fn took(&mut self, count: usize, framed: &[u8]) {
        self.taken += count as u64;
        self.is_replay_cut |= self.replay.len() + framed.len() > REPLAY_BYTES_MAX;
        if self.is_replay_cut {
            self.replay = Vec::new();
        } else {
            self.replay.extend_from_slice(framed);
        }
    }
}

impl<S: Side> Downstream for Client<S> {
    fn asked(&self) -> Asked<'_> {
        self.request.asked()
    }

    fn leave_body_behind(&mut self, wait: bool) {
        self.waits = wait;
    }

    fn is_request_whole(&mut self) -> bool {
        self.side.is_message_done()
    }

    async fn ask_for_body(&mut self) -> Result<()> {
        self.side.write_interim(ResponseHeader::build(StatusCode::CONTINUE, None)?).await
    }

    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        let piece = std::future::poll_fn(|cx| self.side.poll_data(cx)).await.map_err(from_client)?;
        self.upload.taken += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Ok(piece)
    }

    async fn gone(&mut self) -> Box<Error> {
        from_client(std::future::poll_fn(|cx| self.side.poll_end(cx)).await)
    }

    async fn write(&mut self, parts: Vec<HttpTask>) -> Result<()> {
        let mut ends = false;
        for part in parts {
            match part {
                HttpTask::Header(head, end) => {
                    self.write_final(*head, end, true).await?;
                    ends |= end;
                }
                HttpTask::Body(piece, end) => {
                    self.side.write_body(piece.unwrap_or_default(), end).await?;
                    ends |= end;
                }
                // Nobody makes others.
                _ => {}
            }
        }
        if ends { self.flush().await } else { Ok(()) }
    }
}
