//! The stream that Pingora reads and writes: our buffers, our framing, our deadlines.
//!
//! Between requests it is ours ([`EdgeStream::next_head`]); during one it is lent to Pingora as its `IO`. It hands out
//! exactly one message: the scanned head, then the body as far as the head's framing says, and not a byte of what
//! follows. So a request cannot grow a tail that the next hop would take for another request, and what a client sends
//! ahead waits here for its turn.

mod direct;
mod pingora_io;
mod write;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::base::reason::Reason;
use crate::base::wire::chunked::ChunkScanner;
use crate::base::{clock, task};
use crate::ingress::alarm::Idle;
use crate::ingress::connection::{Connection, Exchange};
use crate::ingress::frames::FrameWatch;
use crate::ingress::head::{Framing, Head, HeadScanner, Status};
use crate::ingress::pace::Pace;
use crate::ingress::transport::Transport;
use write::Stall;

/// Bytes asked of the socket at once while a head or a chunked body is read.
const READ_BYTES: usize = 8 * 1024;
/// Bytes of later requests kept while one is served; past it the client waits in the kernel's buffer.
const AHEAD_BYTES_MAX: usize = 64 * 1024;
/// How long an ended connection is read on, so that the client gets the last answer instead of a reset.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes read and thrown away while lingering.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// One connection as Pingora sees it, or the gateway's own forwarder.
#[derive(Debug)]
pub struct EdgeStream {
    /// Taken when the connection is dropped, to linger.
    transport: Option<Transport>,
    connection: Arc<Connection>,
    /// Received and not yet handed out, from `input_start` on. Freed while the connection is idle.
    input: Vec<u8>,
    input_start: usize,
    output: Vec<u8>,
    output_start: usize,
    /// Whether something was written since the transport was last flushed: TLS may still hold it.
    unflushed: bool,
    message: Message,
    exchange: Option<Arc<Exchange>>,
    /// Sees what passes, on a connection of HTTP/2.
    frames: Option<Arc<FrameWatch>>,
    /// What the connection's alarm is set to.
    alarm_set: u64,
    /// Longest time a write may make no progress at all.
    write_timeout: Duration,
    /// Set while a write makes no progress.
    stalled: Option<Stall>,
    /// The client was given up: it does not take what is written to it.
    abandoned: bool,
    /// How the client keeps up with what is written to it in this exchange.
    writing: Pace,
    /// Since when the client's body is waited for.
    body_awaited: Option<Instant>,
    /// How the client's body of this exchange keeps up.
    reading: Pace,
}

/// How much of the current message is still to be handed out.
#[derive(Debug)]
enum Message {
    /// All of it was.
    Done,
    /// So many bytes: a head without a body, or with one of known length.
    Bytes(u64),
    /// So many bytes of the head, then a chunked body. `passed` bytes of the input were scanned and may be handed out.
    Chunked { head: usize, scanner: Box<ChunkScanner>, passed: usize, ended: bool },
    /// No framing: HTTP/2, or a connection that asked to become a WebSocket.
    Raw,
}

/// What came instead of, or as, the next request.
pub(crate) enum Next {
    /// A whole head is in the buffer, and the stream is set to hand out its message.
    Head(Head, Instant),
    /// The connection opened with the HTTP/2 preface.
    Http2,
    /// The head is refused: `rule` says why, and `line` what came of the request line, for the log.
    Refused { reason: Reason, rule: &'static str, line: Vec<u8>, began: Instant },
    /// The client left in the middle of a head.
    Abandoned { line: Vec<u8>, began: Instant },
    /// The client closed, reset, or stayed idle for too long, and had sent nothing: there is nothing to answer.
    Closed,
}

/// Bounds on the wait for a head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLimits {
    pub(crate) header_bytes: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    /// Whether the HTTP/2 preface is looked for: cleartext, first request, `http2 = true`.
    pub(crate) preface: bool,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl EdgeStream {
    /// `write_timeout`: how long a client may leave what is written to it untouched, or be silent in a body.
    pub(crate) fn new(transport: Transport, connection: Arc<Connection>, write_timeout: Duration) -> Self {
        Self {
            transport: Some(transport),
            connection,
            input: Vec::new(),
            input_start: 0,
            output: Vec::new(),
            output_start: 0,
            unflushed: false,
            message: Message::Done,
            exchange: None,
            frames: None,
            alarm_set: 0,
            write_timeout,
            stalled: None,
            abandoned: false,
            writing: Pace::new(write_timeout),
            body_awaited: None,
            reading: Pace::new(write_timeout),
        }
    }

    /// From now on bytes pass as they are, and `frames` sees them: HTTP/2 frames itself.
    pub(crate) fn set_raw(&mut self, frames: Arc<FrameWatch>) {
        self.message = Message::Raw;
        self.frames = Some(frames);
    }

    /// Ties the stream to the request it now serves: its deadline cuts reads off, and its bodies must keep its pace.
    pub(crate) fn serve(&mut self, exchange: Arc<Exchange>) {
        self.writing = Pace::new(self.write_timeout);
        self.reading = Pace::new(self.write_timeout);
        self.body_awaited = None;
        self.exchange = Some(exchange);
    }

    /// Waits for the next head, holding no buffer while nothing arrives.
    ///
    /// The first byte must come within `idle_timeout`; from it on the whole head, however it drips, within
    /// `header_timeout`. `idle_ends` resolves when an idle connection is to be closed (drain).
    pub(crate) async fn next_head(
        &mut self,
        limits: &HeadLimits,
        idle_ends: impl Future<Output = ()>,
    ) -> Next {
        self.message = Message::Done;
        if let Some(exchange) = &self.exchange {
            exchange.cut_off_at(None);
        }
        // Nothing is left unsaid while the next request is waited for. It still belongs to the last one, whose pace the
        // client has to keep.
        if std::future::poll_fn(|cx| self.poll_send(cx)).await.is_err() {
            return Next::Closed;
        }
        self.exchange = None;
        self.stalled = None;
        let mut scanner = HeadScanner::new(limits.header_bytes);
        if self.is_nothing_asked() {
            let until = self.connection.alarms().after(limits.idle_timeout);
            self.connection.alarm.idle(Idle::Rings);
            let mut idle_ends = std::pin::pin!(idle_ends);
            // Who sends more of them than a head may have bytes is read as one that sends a head.
            let mut skipped = 0;
            while self.is_nothing_asked() && skipped < limits.header_bytes {
                skipped += self.pending_input().len();
                self.input = Vec::new();
                self.input_start = 0;
                self.output = Vec::new();
                tokio::select! {
                    biased;
                    read = self.fill_until(until) => {
                        if !matches!(read, Some(Ok(1..))) {
                            return Next::Closed;
                        }
                    }
                    () = &mut idle_ends => return Next::Closed,
                }
            }
            self.connection.alarm.idle(Idle::No);
        }
        let began = clock::now();
        // The common case first: the whole head came at once and needs no timer.
        if let Some(next) = self.look_at_head(&mut scanner, limits, began) {
            return next;
        }
        let until = self.connection.alarms().moment(began + limits.header_timeout);
        loop {
            match self.fill_until(until).await {
                Some(Ok(1..)) => {}
                // Half a line end is no beginning of anything, either.
                Some(Ok(0) | Err(_)) | None if self.first_line().is_empty() => return Next::Closed,
                Some(Ok(0) | Err(_)) => return Next::Abandoned { line: self.first_line(), began },
                None => {
                    return Next::Refused {
                        reason: Reason::HeaderTimeout,
                        rule: "limits.header_timeout passed before the head was complete",
                        line: self.first_line(),
                        began,
                    };
                }
            }
            if let Some(next) = self.look_at_head(&mut scanner, limits, began) {
                return next;
            }
        }
    }

    /// Forgets what was to be written and never was: another answer takes its place. No other request follows it.
    pub(crate) fn start_over(&mut self) {
        self.output = Vec::new();
        self.output_start = 0;
        self.message = Message::Raw;
        self.exchange = None;
    }

    /// Writes `bytes` past Pingora (an answer to a refused head), within `limit`.
    pub(crate) async fn write_answer(&mut self, bytes: &[u8], limit: Duration) {
        let write = async {
            self.write_all(bytes).await?;
            self.flush().await
        };
        // Nobody is left to tell when the client does not take its error.
        let _sent = tokio::time::timeout(limit, write).await;
    }

    /// Whether all of the current message was handed out: what follows is the next request.
    pub(crate) fn is_message_done(&self) -> bool {
        match &self.message {
            Message::Done | Message::Bytes(0) => true,
            Message::Chunked { head: 0, passed: 0, ended, .. } => *ended,
            _ => false,
        }
    }

    fn pending_input(&self) -> &[u8] {
        self.input.get(self.input_start..).unwrap_or_default()
    }

    fn look_at_head(
        &mut self,
        scanner: &mut HeadScanner,
        limits: &HeadLimits,
        began: Instant,
    ) -> Option<Next> {
        let input = self.input.get_mut(self.input_start..).unwrap_or_default();
        if limits.preface {
            // Answered at the first byte that differs: a request shorter than the preface must not wait for more.
            let common = input.iter().zip(PREFACE).take_while(|(a, b)| a == b).count();
            if common == PREFACE.len() {
                return Some(Next::Http2);
            }
            if common == input.len() {
                return None;
            }
        }
        match scanner.scan(input) {
            Status::Partial => None,
            Status::Complete(head) => {
                head.respell(input);
                self.message = match head.body {
                    _ if head.upgrade => Message::Raw,
                    Framing::None => Message::Bytes(head.len as u64),
                    Framing::Length(length) => Message::Bytes((head.len as u64).saturating_add(length)),
                    Framing::Chunked => Message::Chunked {
                        head: head.len,
                        scanner: Box::new(ChunkScanner::default()),
                        passed: 0,
                        ended: false,
                    },
                };
                Some(Next::Head(head, began))
            }
            Status::Refused(rule) => Some(Next::Refused {
                reason: rule.reason(),
                rule: rule.text(),
                line: self.first_line(),
                began,
            }),
        }
    }

    /// Whether nothing has come but whole line ends, which are no beginning of anything (RFC 9112 section 2.2).
    fn is_nothing_asked(&self) -> bool {
        let (pairs, rest) = self.pending_input().as_chunks();
        rest.is_empty() && pairs.iter().all(|pair| pair == b"\r\n")
    }

    /// What was received of the request line, without its end and what is empty before it, at most 2 KiB of it.
    fn first_line(&self) -> Vec<u8> {
        let input = self.pending_input();
        let begin = input.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(input.len());
        let input = input.get(begin..).unwrap_or_default();
        let end = memchr::memchr2(b'\r', b'\n', input).unwrap_or(input.len()).min(2048);
        input.get(..end).unwrap_or_default().to_vec()
    }

    /// Reads once from the socket into the input; `None` when it is `until` (a moment of the connection's alarms)
    /// before anything came. The buffer is grown only when there is something to put into it.
    async fn fill_until(&mut self, until: u64) -> Option<io::Result<usize>> {
        std::future::poll_fn(|cx| match self.poll_fill(cx) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending => self.poll_alarm(until, cx).map(|()| None),
        })
        .await
    }

    fn poll_alarm(&mut self, moment: u64, cx: &mut Context<'_>) -> Poll<()> {
        self.connection.alarm.poll(moment, &mut self.alarm_set, cx)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [std::mem::MaybeUninit::<u8>::uninit(); READ_BYTES];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(self.poll_transport_read(cx, &mut buf, None))?;
        let received = buf.filled();
        // What was handed out is forgotten once it outweighs what was not: a client that always sends ahead would have
        // the buffer grow for ever.
        if self.input_start > 0 && self.input_start * 2 >= self.input.len() {
            self.input.drain(..self.input_start.min(self.input.len()));
            self.input_start = 0;
        }
        self.input.extend_from_slice(received);
        Poll::Ready(Ok(received.len()))
    }

    /// Reads at most `most` bytes, if that is given. Nothing read: the client closed.
    fn poll_transport_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        most: Option<u64>,
    ) -> Poll<io::Result<()>> {
        let Some(transport) = self.transport.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        let before = buf.filled().len();
        let read = match most {
            Some(most) => Pin::new(&mut transport.take(most)).poll_read(cx, buf),
            None => Pin::new(transport).poll_read(cx, buf),
        };
        let count = buf.filled().len() - before;
        if count > 0 {
            self.connection.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        }
        read
    }

    /// Moves up to `most` bytes of the input into `buf`; says how many.
    fn take_input(&mut self, buf: &mut ReadBuf<'_>, most: usize) -> usize {
        let input = self.input.get(self.input_start..).unwrap_or_default();
        let count = input.len().min(most).min(buf.remaining());
        buf.put_slice(input.get(..count).unwrap_or_default());
        self.input_start += count;
        count
    }

    /// Nothing more of this message may be handed out: wait for the client to go away, and keep what it sends ahead.
    fn poll_after_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.pending_input().len() >= AHEAD_BYTES_MAX {
                return self.pend(cx);
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.pend(cx),
            }
        }
    }

    fn poll_chunked(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let Message::Chunked { head, scanner, passed, ended } = &mut self.message else {
                return Poll::Ready(Ok(()));
            };
            let ready_bytes = *head + *passed;
            if ready_bytes > 0 {
                let (had_head, had_passed) = (*head, *passed);
                let count = self.take_input(buf, ready_bytes);
                if let Message::Chunked { head, passed, .. } = &mut self.message {
                    *head = had_head.saturating_sub(count);
                    *passed = had_passed - count.saturating_sub(had_head);
                }
                return Poll::Ready(Ok(()));
            }
            if *ended {
                self.message = Message::Done;
                return self.poll_after_message(cx);
            }
            let unscanned = self.input.get(self.input_start..).unwrap_or_default();
            if unscanned.is_empty() {
                match self.poll_fill(cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(count)) => {
                        self.body_moved(count);
                        continue;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return self.pend_for_body(cx),
                }
            }
            match scanner.advance(unscanned) {
                Ok((consumed, done)) => {
                    *passed = consumed;
                    *ended = done;
                }
                Err(_) => {
                    if let Some(exchange) = &self.exchange {
                        exchange.body_malformed.store(true, Ordering::Relaxed);
                    }
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "chunked body is malformed",
                    )));
                }
            }
        }
    }

    fn poll_raw(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.frames.as_ref().is_some_and(|frames| frames.is_over()) {
            // Whoever serves the connection finds out in the same turn, and ends it.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if self.take_input(buf, usize::MAX) == 0 {
            match self.poll_transport_read(cx, buf, None) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.pend(cx),
            }
        }
        let Some(frames) = &self.frames else { return Poll::Ready(Ok(())) };
        let received = buf.filled_mut().get_mut(before..).unwrap_or_default();
        let count = received.len();
        let passed = frames.received(received, clock::now);
        buf.set_filled(before + passed);
        // Nothing would mean that the client has closed.
        if passed == 0 && count > 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// Takes in that so much of the body arrived.
    fn body_moved(&mut self, count: usize) {
        let waited = self.body_awaited.take().map(|since| clock::now().saturating_duration_since(since));
        if waited.is_some() || self.reading.left() < self.reading.most() {
            let rate = self.exchange.as_ref().map_or(0, |exchange| exchange.body_rate());
            self.reading.moved(waited.unwrap_or_default(), count as u64, rate);
        }
    }

    /// Pending, unless the request's time is over, or the client is too far behind with its body.
    fn pend_for_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(exchange) = self.exchange.clone().filter(|exchange| exchange.body_rate() > 0) else {
            return self.pend(cx);
        };
        let since = *self.body_awaited.get_or_insert_with(clock::now);
        let behind = self.connection.alarms().moment(since + self.reading.left());
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            let others = exchange.wait_ends().filter(|moment| *moment <= behind);
            ready!(self.poll_alarm(others.unwrap_or(behind), cx));
            let why = match others {
                None => {
                    exchange.note_body_too_slow();
                    "the body is slower than limits.min_body_rate"
                }
                Some(moment) if exchange.is_wait_over(moment) => "waited for too long",
                Some(_) => continue,
            };
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
        }
    }

    /// Pending, unless the request's time is over or its server silent for too long. Whatever waits to be written leaves
    /// first: a head must not sit in the buffer while its body is waited for.
    fn pend(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            let Some(moment) = self.exchange.as_ref().and_then(|exchange| exchange.wait_ends()) else {
                self.connection.alarm.clear();
                self.alarm_set = 0;
                return Poll::Pending;
            };
            ready!(self.poll_alarm(moment, cx));
            if self.exchange.as_ref().is_none_or(|exchange| exchange.is_wait_over(moment)) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "waited for too long")));
            }
        }
    }
}

impl AsyncRead for EdgeStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.message {
            Message::Done | Message::Bytes(0) => this.poll_after_message(cx),
            Message::Bytes(left) => {
                let most = usize::try_from(left).unwrap_or(usize::MAX);
                let mut count = this.take_input(buf, most);
                if count == 0 {
                    // Not a byte behind the message is read into Pingora's buffer.
                    let before = buf.filled().len();
                    match this.poll_transport_read(cx, buf, Some(left)) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return this.pend_for_body(cx),
                    }
                    count = buf.filled().len() - before;
                }
                this.body_moved(count);
                this.message = Message::Bytes(left - count as u64);
                Poll::Ready(Ok(()))
            }
            Message::Chunked { .. } => this.poll_chunked(cx, buf),
            Message::Raw => this.poll_raw(cx, buf),
        }
    }
}

impl Drop for EdgeStream {
    /// Closing a socket with unread input resets it, and the reset overtakes the answer. So whatever still waits to be
    /// sent is sent, and what the client still sends is read for a while.
    fn drop(&mut self) {
        let whole_message = self.is_message_done();
        let whole = whole_message && self.pending_input().is_empty();
        let written_out = self.output_start >= self.output.len() && !self.unflushed;
        let Some(mut transport) = self.transport.take() else { return };
        if whole_message && let Some(exchange) = self.exchange.take_if(|exchange| exchange.is_kept()) {
            // Pingora lets go of a connection that is still good: it goes back to the keep-alive loop.
            let mut stream = Self::new(transport, self.connection.clone(), self.write_timeout);
            stream.unflushed = self.unflushed;
            stream.input = std::mem::take(&mut self.input);
            stream.input_start = self.input_start;
            stream.output = std::mem::take(&mut self.output);
            stream.output_start = self.output_start;
            return exchange.put_back(Box::new(stream));
        }
        if std::thread::panicking()
            && let Some(exchange) = self.exchange.take_if(|e| e.is_unanswered())
        {
            // What is left of the request may still be on its way: a message of no known end.
            let mut stream = Self::new(transport, self.connection.clone(), self.write_timeout);
            stream.message = Message::Raw;
            return exchange.put_back(Box::new(stream));
        }
        if (whole && written_out) || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let output = self.output.split_off(self.output_start.min(self.output.len()));
        let connection = self.connection.clone();
        drop(task::spawn("lingering close", async move {
            let linger = async {
                transport.write_all(&output).await?;
                transport.shutdown().await?;
                let mut sink = [0_u8; 2048];
                let mut total = 0;
                while total < LINGER_BYTES_MAX {
                    match transport.read(&mut sink).await? {
                        0 => break,
                        count => total += count,
                    }
                }
                io::Result::Ok(())
            };
            // Whether the client stayed to the end is its own affair.
            let _ended = tokio::time::timeout(LINGER, linger).await;
            drop(connection);
        }));
    }
}

#[cfg(test)]
mod tests;
