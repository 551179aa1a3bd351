//! The writing half: small writes are gathered, and none waits for ever.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::AsyncWrite;

use super::EdgeStream;
use crate::base::clock;
use crate::base::pipe::Pipe;
use crate::ingress::frames::COMPRESSION_ERROR;
use crate::ingress::transport::Transport;

/// Small writes are gathered up to this: a head and a short body leave in one segment and one system call.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// The same on a connection of HTTP/2, where each frame comes in two pieces: two of the longest frames.
const FRAMES_BUFFER_BYTES: usize = 2 * (16 * 1024 + 9);
/// Pieces of a body of this size and more are worth a system call of their own.
const BODY_BYTES_DIRECT: usize = 4 * 1024;
/// What the buffer holds at first: the head and the body of a common answer, without growing on the way.
const WRITE_BUFFER_BYTES_COMMON: usize = 2 * 1024;

impl EdgeStream {
    /// Sends all that was written, also what TLS holds back.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        let flushed = match self.transport.as_mut() {
            Some(transport) => Pin::new(transport).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        };
        ready!(self.poll_progress(cx, flushed))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// Hands what was gathered to the transport.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.output_start < self.output.len() {
            let Some(transport) = self.transport.as_mut() else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            let waiting = self.output.get(self.output_start..).unwrap_or_default();
            let written = Pin::new(transport).poll_write(cx, waiting);
            let count = ready!(self.poll_progress(cx, written))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.note_written(count);
            self.output_start += count;
        }
        self.output.clear();
        self.output_start = 0;
        if self.output.capacity() > 2 * WRITE_BUFFER_BYTES_COMMON {
            self.output = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Writes some of a body. What is long and not taken at once stays with the caller, so that it is held but once.
    pub(crate) fn poll_write_body(&mut self, data: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // A head that waits leaves with what comes first behind it.
        let joins = self.stalled.is_none()
            && !self.output.is_empty()
            && self.output.len() + data.len() <= WRITE_BUFFER_BYTES;
        if joins || data.len() < BODY_BYTES_DIRECT {
            return Pin::new(self).poll_write(cx, data);
        }
        // TLS would take more than it can write.
        ready!(self.poll_send(cx))?;
        self.poll_write_direct(data, cx)
    }

    /// Whether [`EdgeStream::poll_write_pipe`] is there to be called.
    pub(crate) fn takes_pipes(&self) -> bool {
        self.transport.as_ref().is_some_and(|transport| transport.plain_tcp().is_some())
    }

    /// Writes some of what `pipe` holds of a body. How many bytes it took.
    pub(crate) fn poll_write_pipe(
        &mut self,
        pipe: &mut Pipe,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let Some(socket) = self.transport.as_ref().and_then(Transport::plain_tcp) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let written = pipe.poll_drain(socket, cx);
        let count = ready!(self.poll_progress(cx, written))?;
        self.note_written(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_direct(&mut self, data: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(transport) = self.transport.as_mut() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let written = Pin::new(transport).poll_write(cx, data);
        let count = ready!(self.poll_progress(cx, written))?;
        self.note_written(count);
        self.show(data.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    }

    /// Keeps no more than what waits: it may do so for long, and with many.
    fn hold_little(&mut self) {
        self.output.drain(..self.output_start.min(self.output.len()));
        self.output.shrink_to_fit();
        self.output_start = 0;
    }

    /// Shows what is written to who watches the frames.
    fn show(&self, data: &[u8]) {
        if let Some(frames) = &self.frames {
            frames.sent(data, clock::now);
        }
    }

    fn note_written(&mut self, count: usize) {
        self.connection.bytes_written.fetch_add(count as u64, Ordering::Relaxed);
        self.unflushed = true;
    }

    /// Bounds a write: a client that takes nothing for `write_timeout`, or too little for the pace of its request, or
    /// until the request's time is over, is given up. Not all of Pingora's writes have a time-out of their own.
    fn poll_progress<T>(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if write.is_ready() {
            if let Some(mut stall) = self.stalled.take() {
                self.connection.held_up.store(false, Ordering::Relaxed);
                self.account(&mut stall, clock::now());
                if let Some(exchange) = &self.exchange {
                    // Until now it was the client that was waited for.
                    exchange.server_spoke();
                }
            }
            return write;
        }
        // Whoever is waited for to read is not waited for to send.
        self.body_awaited = None;
        let mut stall = self.stalled.take().unwrap_or_else(|| {
            self.connection.held_up.store(true, Ordering::Relaxed);
            self.hold_little();
            let now = clock::now();
            Stall::new(now, self.acknowledged(), self.stall_ends(now, now))
        });
        loop {
            if stall.timer.as_mut().poll(cx).is_pending() {
                self.stalled = Some(stall);
                return Poll::Pending;
            }
            let now = clock::now();
            self.account(&mut stall, now);
            if let Some(why) = self.given_up(&stall, now) {
                self.abandoned = true;
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
            // The socket takes no more yet, but the client did take something.
            stall.timer = Stall::timer(now, self.stall_ends(stall.moved, now));
        }
    }

    /// Takes in what happened since the stall was looked at last.
    fn account(&mut self, stall: &mut Stall, now: Instant) {
        let acknowledged = self.acknowledged();
        // Nobody knows what is taken out of a unix socket, which is the local proxy's: only silence ends that.
        if let Some((now_taken, before)) = acknowledged.zip(stall.acknowledged) {
            let taken = now_taken.saturating_sub(before);
            if taken > 0 {
                stall.moved = now;
            }
            self.writing.moved(now.saturating_duration_since(stall.since), taken, self.rate());
        }
        stall.since = now;
        stall.acknowledged = acknowledged;
    }

    /// Why a client that does not take what is written is given up at `now`, if it is.
    fn given_up(&self, stall: &Stall, now: Instant) -> Option<&'static str> {
        let exchange = self.exchange.as_ref();
        if exchange.and_then(|exchange| exchange.cut_off()).is_some_and(|at| at <= now) {
            return Some("the request's time is over");
        }
        let why = if self.rate() > 0 && self.writing.left().is_zero() {
            "the client reads more slowly than limits.min_body_rate"
        } else if now.saturating_duration_since(stall.moved) >= self.write_timeout {
            "the client does not read"
        } else {
            return None;
        };
        if let Some(exchange) = exchange {
            exchange.note_reader_too_slow();
        }
        Some(why)
    }

    /// When a stall is to be looked at again, in which something moved last at `moved`.
    fn stall_ends(&self, moved: Instant, now: Instant) -> Instant {
        let silent = moved + self.write_timeout;
        let at = if self.rate() > 0 { silent.min(now + self.writing.left()) } else { silent };
        let cut_off = self.exchange.as_ref().and_then(|exchange| exchange.cut_off());
        cut_off.map_or(at, |cut_off| cut_off.min(at))
    }

    fn rate(&self) -> u64 {
        self.exchange.as_ref().map_or(0, |exchange| exchange.body_rate())
    }

    /// What the client's system has taken so far. That a socket takes more again is too coarse a sign: it does so only
    /// when a good part of its buffer, which may be megabytes, is free.
    pub(crate) fn acknowledged(&self) -> Option<u64> {
        self.transport.as_ref()?.acknowledged()
    }
}

/// A write that makes no progress.
pub(super) struct Stall {
    /// Up to when it is accounted for.
    since: Instant,
    /// When something moved last.
    moved: Instant,
    /// What the other side had taken at `since`.
    acknowledged: Option<u64>,
    timer: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
}

impl Stall {
    fn new(now: Instant, acknowledged: Option<u64>, until: Instant) -> Self {
        Self { since: now, moved: now, acknowledged, timer: Self::timer(now, until) }
    }

    fn timer(now: Instant, until: Instant) -> Pin<Box<dyn Future<Output = ()> + Send + Sync>> {
        // Past the moment, not just before it: what is looked at then must be over.
        let left = until.saturating_duration_since(now) + Duration::from_millis(1);
        Box::pin(tokio::time::sleep(left))
    }
}

impl std::fmt::Debug for Stall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stall({:?})", self.since)
    }
}

impl AsyncWrite for EdgeStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let is_vague = this.frames.as_ref().is_some_and(|frames| frames.is_vague(data));
        let data = match data.split_last() {
            // The byte that is to be another one is written on its own.
            Some((_, before)) if is_vague && !before.is_empty() => before,
            _ => data,
        };
        let most = if this.frames.is_some() { FRAMES_BUFFER_BYTES } else { WRITE_BUFFER_BYTES };
        if this.output.len() + data.len() > most {
            ready!(this.poll_write_out(cx))?;
            if data.len() > most {
                return this.poll_write_direct(data, cx);
            }
        }
        if this.output.capacity() == 0 {
            this.output.reserve_exact(WRITE_BUFFER_BYTES_COMMON);
        } else if this.frames.is_some() && this.output.len() + data.len() > this.output.capacity() {
            // Not by half a dozen steps.
            this.output.reserve_exact(most - this.output.len());
        }
        let data = if is_vague && data.len() == 1 { &[COMPRESSION_ERROR] } else { data };
        this.output.extend_from_slice(data);
        this.show(data);
        Poll::Ready(Ok(data.len()))
    }

    /// On a connection of HTTP/2 it is put off until all was read that has come: the library flushes after every frame of
    /// some length, and what many streams have to say is to leave together.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.frames.is_none() || this.stalled.is_some() {
            return this.poll_send(cx);
        }
        if this.unflushed || this.output_start < this.output.len() {
            // It reads next, and when there is nothing to be read what was written is sent: see `pend`.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.abandoned {
            // TLS would wait for room for its goodbye, which the client does not make.
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(this.poll_write_out(cx))?;
        let closed = match this.transport.as_mut() {
            Some(transport) => Pin::new(transport).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        };
        this.poll_progress(cx, closed)
    }
}
