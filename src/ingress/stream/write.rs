//! The writing half: small writes are gathered, and none waits for ever.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::{EdgeStream, Timer};
use crate::base::clock;

/// Small writes are gathered up to this: a head and a short body leave in one segment and one system call.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
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
        Poll::Ready(Ok(()))
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

    /// Bounds a write: a client that takes nothing for `write_timeout`, or until the request's time is over, is given up.
    /// Not all of Pingora's writes have a time-out of their own.
    fn poll_progress<T>(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if write.is_ready() {
            if self.stalled.take().is_some()
                && let Some(exchange) = &self.exchange
            {
                // Until now it was the client that was waited for.
                exchange.server_spoke();
            }
            return write;
        }
        let stalled = match &mut self.stalled {
            Some(stalled) => stalled,
            none => {
                let at = clock::now() + self.write_timeout;
                let cut_off = self.exchange.as_ref().and_then(|exchange| exchange.cut_off());
                none.insert(Timer::until(cut_off.map_or(at, |cut_off| cut_off.min(at))))
            }
        };
        ready!(stalled.sleep.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl AsyncWrite for EdgeStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.output.len() + data.len() > WRITE_BUFFER_BYTES {
            ready!(this.poll_write_out(cx))?;
            if data.len() > WRITE_BUFFER_BYTES {
                let Some(transport) = this.transport.as_mut() else {
                    return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
                };
                let written = Pin::new(transport).poll_write(cx, data);
                let count = ready!(this.poll_progress(cx, written))?;
                this.note_written(count);
                this.show(data.get(..count).unwrap_or_default());
                return Poll::Ready(Ok(count));
            }
        }
        if this.output.capacity() == 0 {
            this.output.reserve_exact(WRITE_BUFFER_BYTES_COMMON);
        }
        this.output.extend_from_slice(data);
        this.show(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_out(cx))?;
        match this.transport.as_mut() {
            Some(transport) => Pin::new(transport).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
