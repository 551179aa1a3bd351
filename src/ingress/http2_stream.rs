//! One stream of an HTTP/2 connection as Pingora sees it.
//!
//! Pingora has a session of its own for that, but its reads have no time-out, so a client could hold a request, its
//! server and its place for as long as it liked, and the request's deadline could only drop it without an answer. What
//! breaks off there is reset as if the client had wanted that, and interim answers (100, 103) are left out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use h2::{Reason, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::body_buffer::FixedBuffer;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, OrErr, Result};

use super::connection::Exchange;
use super::http2_wire::{Wire, is_malformed};
use super::pace::Pace;
use crate::base::clock;

/// Bytes of a body that are kept to be sent again; Pingora's own bound.
const RETRY_BYTES_MAX: usize = 64 * 1024;

/// A stream with a request on it.
pub(super) struct Http2Stream {
    head: RequestHeader,
    wire: Wire,
    answer_head: Option<Box<ResponseHeader>>,
    body_read: usize,
    body_sent: usize,
    retry: Option<FixedBuffer>,
    digest: Arc<Digest>,
    exchange: Arc<Exchange>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
    /// Since when the client's body is waited for: a wait may be broken off and taken up again.
    awaited: Option<Instant>,
    /// How the client's body keeps up.
    reading: Pace,
    /// How the client keeps up with the answer.
    writing: Pace,
}

impl Http2Stream {
    /// The stream on whose `wire` a request with this `head` came. `silence`: the longest time in which a client may let
    /// nothing move.
    pub(super) fn new(
        head: http::request::Parts,
        wire: Wire,
        digest: Arc<Digest>,
        exchange: Arc<Exchange>,
        silence: Duration,
    ) -> Self {
        Self {
            head: head.into(),
            wire,
            answer_head: None,
            body_read: 0,
            body_sent: 0,
            retry: None,
            digest,
            exchange,
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
            awaited: None,
            reading: Pace::new(silence),
            writing: Pace::new(silence),
        }
    }

    /// Waits for the next piece of the body, for as long as the client may take.
    async fn read_paced(&mut self) -> Result<Option<Bytes>> {
        let rate = self.exchange.body_rate();
        let behind = (rate > 0).then(|| self.reading.left());
        let silence = self.read_timeout;
        let began = *self.awaited.get_or_insert_with(clock::now);
        let is_pace = behind.is_some_and(|behind| silence.is_none_or(|silence| behind < silence));
        let most = if is_pace { behind } else { silence };
        let read = loop {
            let now = clock::now();
            let most = most.map(|most| most.saturating_sub(now.saturating_duration_since(began)));
            let limit = Limit::of_wait(&self.exchange, most, now);
            match limit.bound(self.read()).await {
                Some(read) => break read,
                None if limit.is_put_off(&self.exchange) => {}
                None => {
                    if is_pace && limit.moment.is_none() {
                        self.exchange.note_body_too_slow();
                    }
                    return time_over();
                }
            }
        };
        self.awaited = None;
        if rate > 0 {
            let bytes = read.as_ref().map_or(0, |piece| piece.as_ref().map_or(0, Bytes::len)) as u64;
            self.reading.moved(clock::now().saturating_duration_since(began), bytes, rate);
        }
        read
    }

    async fn read(&mut self) -> Result<Option<Bytes>> {
        let piece = match std::future::poll_fn(|cx| self.wire.poll_data(cx)).await {
            Some(Ok(piece)) => piece,
            None => return Ok(None),
            Some(Err(error)) => {
                if is_malformed(&error) {
                    self.exchange.body_malformed.store(true, Ordering::Relaxed);
                }
                return Error::e_because(ErrorType::ReadError, "reading the request's body", error);
            }
        };
        self.body_read += piece.len();
        if let Some(retry) = self.retry.as_mut() {
            retry.write_to_buffer(&piece);
        }
        // It fails for a stream that is over: the next read tells.
        let _over = self.wire.body.flow_control().release_capacity(piece.len());
        Ok(Some(piece))
    }

    /// Waits for the client to give the request up.
    async fn given_up(&mut self) -> Result<Option<Bytes>> {
        let reset = std::future::poll_fn(|cx| self.wire.poll_reset(cx));
        let reason = reset.await.or_err(ErrorType::H2Error, "waiting for the server")?;
        Error::e_explain(ErrorType::H2Error, format!("the client reset the stream: {reason}"))
    }

    fn send_head(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        if head.status.is_informational() {
            return self.send_interim(&head);
        }
        if self.wire.ended || self.answer_head.is_some() {
            return Ok(());
        }
        let sent = self.wire.send_head(Response::from_parts(head.as_owned_parts(), ()), end);
        sent.or_err(ErrorType::WriteError, "sending the answer's head")?;
        self.answer_head = Some(head);
        Ok(())
    }

    /// Interim answers (RFC 9110 section 15.2), as many as there are, until the answer itself.
    fn send_interim(&mut self, head: &ResponseHeader) -> Result<()> {
        // Whoever waits to be asked for a body is waited for from now on.
        self.awaited = None;
        let interim = Response::from_parts(head.as_owned_parts(), ());
        self.wire.send_interim(interim).or_err(ErrorType::WriteError, "sending an interim answer")
    }

    /// Sends `data` as the client has room for it: no wait for room is longer than the write time-out, and all of them
    /// together keep the pace.
    async fn send_body(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        if self.wire.ended {
            return Ok(());
        }
        let Some(body) = self.wire.answer_body.as_mut() else {
            return Error::e_explain(ErrorType::H2Error, "a body before its head");
        };
        // Whoever is waited for to read is not waited for to send.
        self.awaited = None;
        let rate = self.exchange.body_rate();
        loop {
            let mut here = 0;
            while here == 0 && !data.is_empty() {
                body.reserve_capacity(data.len());
                let began = clock::now();
                let behind = (rate > 0).then(|| self.writing.left());
                let most =
                    self.write_timeout.map_or(behind, |most| Some(behind.map_or(most, |b| b.min(most))));
                let limit = Limit::of(&self.exchange, most, began);
                let Some(room) = limit.bound(room(body)).await else {
                    if limit.moment.is_none() {
                        self.exchange.note_reader_too_slow();
                    }
                    return Error::e_explain(ErrorType::WriteTimedout, "the client does not read");
                };
                here = room?;
                // Until now it was the client that was waited for.
                self.exchange.server_spoke();
                if rate > 0 {
                    self.writing.moved(clock::now().saturating_duration_since(began), here as u64, rate);
                }
            }
            let piece = data.split_to(here.min(data.len()));
            self.body_sent += piece.len();
            let last = data.is_empty();
            body.send_data(piece, last && end).or_err(ErrorType::WriteError, "sending the answer's body")?;
            if last {
                self.wire.ended |= end;
                return Ok(());
            }
        }
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        if self.wire.ended {
            return Ok(());
        }
        let Some(body) = self.wire.answer_body.as_mut() else {
            return Error::e_explain(ErrorType::H2Error, "trailers before a head");
        };
        body.send_trailers(trailers).or_err(ErrorType::WriteError, "sending the answer's trailers")?;
        self.wire.ended = true;
        Ok(())
    }

    /// Ends an answer that has begun.
    fn end(&mut self) -> Result<()> {
        match self.wire.answer_body.as_mut() {
            Some(body) if !self.wire.ended => {
                body.send_data(Bytes::new(), true)
                    .or_err(ErrorType::WriteError, "ending the answer's body")?;
                self.wire.ended = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn body_is_done(&self) -> bool {
        self.body_is_empty() || self.wire.body.is_end_stream()
    }

    fn body_is_empty(&self) -> bool {
        let length = self.head.headers.get(CONTENT_LENGTH);
        self.body_read == 0
            && (self.wire.body.is_end_stream() || length.is_some_and(|length| length.as_bytes() == b"0"))
    }
}

/// Waits until the client has room for something.
async fn room(body: &mut SendStream<Bytes>) -> Result<usize> {
    match std::future::poll_fn(|cx| body.poll_capacity(cx)).await {
        Some(room) => room.or_err(ErrorType::H2Error, "waiting for room"),
        None => Error::e_explain(ErrorType::H2Error, "the client gave the stream up"),
    }
}

fn time_over<T>() -> Result<T> {
    Error::e_explain(ErrorType::ReadTimedout, "the client's time is over")
}

/// How long something may take.
struct Limit {
    time: Option<Duration>,
    /// Because of the exchange: the moment it gave.
    moment: Option<u64>,
}

impl Limit {
    /// Of a write: until the request's cut-off, or for `most` if that is sooner. Hooks move the cut-off while nothing is
    /// under way.
    fn of(exchange: &Exchange, most: Option<Duration>, now: Instant) -> Self {
        Self::until(exchange.cut_off_at_moment(), most, now)
    }

    /// Of a read, which also ends when the server was silent for too long. Then [`Limit::is_put_off`] is to be asked.
    fn of_wait(exchange: &Exchange, most: Option<Duration>, now: Instant) -> Self {
        Self::until(exchange.wait_ends_at(), most, now)
    }

    fn until(end: Option<(u64, Instant)>, most: Option<Duration>, now: Instant) -> Self {
        let left = end.map(|(moment, at)| (moment, at.saturating_duration_since(now)));
        match (left, most) {
            (Some((moment, left)), most) if most.is_none_or(|most| left <= most) => {
                Self { time: Some(left), moment: Some(moment) }
            }
            _ => Self { time: most, moment: None },
        }
    }

    /// Whether, now that the time has passed, the exchange allows for more.
    fn is_put_off(&self, exchange: &Exchange) -> bool {
        self.moment.is_some_and(|moment| !exchange.is_wait_over(moment))
    }

    /// `None` when `work` took longer.
    async fn bound<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        match self.time {
            Some(time) => tokio::time::timeout(time, work).await.ok(),
            None => Some(work.await),
        }
    }
}

#[async_trait]
impl Session for Http2Stream {
    fn req_header(&self) -> &RequestHeader {
        &self.head
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read_paced().await
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.body_is_done() {
            // Once the body is complete it is the client that waits.
            loop {
                let limit = Limit::of_wait(&self.exchange, None, clock::now());
                match limit.bound(self.given_up()).await {
                    Some(given_up) => return given_up,
                    None if limit.is_put_off(&self.exchange) => {}
                    None => return time_over(),
                }
            }
        }
        self.read_paced().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        if self.body_is_done() {
            return Ok(());
        }
        let limit = self.drain_timeout;
        let drain = async {
            while self.read().await?.is_some() {}
            Ok(())
        };
        match limit {
            Some(limit) => match tokio::time::timeout(limit, drain).await {
                Ok(drained) => drained,
                Err(_) => Error::e_explain(ErrorType::ReadTimedout, "draining the request's body"),
            },
            None => drain.await,
        }
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.send_head(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.send_head(Box::new(head.clone()), end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.send_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.send_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut end_stream = false;
        for task in tasks {
            end_stream |= match task {
                HttpTask::Header(head, end) => {
                    self.send_head(head, end).map_err(|error| error.into_down())?;
                    end
                }
                HttpTask::Body(Some(data), end) if !data.is_empty() => {
                    self.send_body(data, end).await.map_err(|error| error.into_down())?;
                    end
                }
                HttpTask::Body(_, end) => end,
                HttpTask::UpgradedBody(..) => {
                    return Error::e_explain(ErrorType::InternalError, "a tunnel over HTTP/2");
                }
                HttpTask::Trailer(Some(trailers)) => {
                    self.send_trailers(*trailers).map_err(|error| error.into_down())?;
                    true
                }
                HttpTask::Trailer(None) | HttpTask::Done => true,
                HttpTask::Failed(error) => return Err(error),
            };
        }
        if end_stream {
            self.end().map_err(|error| error.into_down())?;
        }
        Ok(end_stream)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.head.method, self.head.uri)
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.answer_head.as_deref()
    }

    async fn shutdown(&mut self, code: u32, _context: &str) {
        self.wire.reset(Reason::from(code));
    }

    async fn abandon(&mut self, _context: &str) {
        self.wire.reset(Reason::INTERNAL_ERROR);
    }

    fn is_body_done(&mut self) -> bool {
        self.body_is_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.end()
    }

    fn is_body_empty(&mut self) -> bool {
        self.body_is_empty()
    }

    fn body_bytes_sent(&self) -> usize {
        self.body_sent
    }

    fn body_bytes_read(&self) -> usize {
        self.body_read
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Arc::get_mut(&mut self.digest)
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        // For Pingora's subrequests, of which there are none.
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {
        self.retry.get_or_insert_with(|| FixedBuffer::new(RETRY_BYTES_MAX));
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.retry.as_ref().is_some_and(FixedBuffer::is_truncated)
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.retry.as_ref().filter(|retry| !retry.is_truncated()).and_then(FixedBuffer::get_buffer)
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
