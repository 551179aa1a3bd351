//! The request's way to the server.

use std::io;
use std::pin::Pin;
use std::task::{Context as Cx, Poll, ready};

use pingora::{Error, ErrorType, Result};
use tokio::io::AsyncWrite;

use super::{Relay, TURN_BYTES, down, from_client, poll_timer, up};
use crate::base::pipe::{self, Pipe};
use crate::base::spare;
use crate::proxy::direct::room::PIECE_BYTES;
use crate::proxy::direct::side::Side;
use crate::proxy::phases::forward;

impl<S: Side> Relay<'_, S> {
    /// Goes on with sending the request as far as that goes now.
    pub(super) fn poll_request(&mut self, cx: &mut Cx<'_>) -> Result<()> {
        if self.is_uploaded {
            return Ok(());
        }
        let sent = self.poll_upload(cx);
        if self.out.capacity() >= spare::BYTES {
            // The wait may be long, and of many: only what waits is kept.
            let waiting = self.out.get(self.sent..).unwrap_or_default().to_vec();
            spare::give_back(std::mem::replace(&mut self.out, waiting));
            self.sent = 0;
        }
        match sent {
            Poll::Ready(Ok(())) => {
                self.end_upload();
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(()),
        }
    }

    /// No more of the request is sent.
    pub(super) fn end_upload(&mut self) {
        self.is_uploaded = true;
        (self.stalled, self.awaited, self.pipe_up) = (None, None, None);
    }

    fn poll_upload(&mut self, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let mut turn = 0;
        loop {
            while self.sent < self.out.len() || self.pipe_up.is_some() {
                match self.poll_send(cx) {
                    Poll::Ready(Ok(count @ 1..)) => {
                        self.stalled = None;
                        turn += count;
                    }
                    Poll::Ready(failed) => {
                        // It may have answered before it closed. If it has not, this is why.
                        let error = failed.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into());
                        let mut error =
                            Error::because(ErrorType::WriteError, "while sending the request", error);
                        error.as_up();
                        self.broken = Some(error);
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Pending => {
                        let limit = self.write_timeout;
                        ready!(poll_timer(&mut self.stalled, limit, cx));
                        return Poll::Ready(Err(up(ErrorType::WriteTimedout, "the server takes nothing")));
                    }
                }
            }
            self.out.clear();
            self.sent = 0;
            if self.client.side.is_message_done() {
                return Poll::Ready(Ok(()));
            }
            if turn >= TURN_BYTES {
                let _pending = std::pin::pin!(tokio::task::yield_now()).poll(cx);
                return self.client.side.poll_end(cx).map(|error| Err(from_client(error)));
            }
            ready!(self.poll_piece(cx))?;
        }
    }

    /// Sends some of what waits, in `out` or in a pipe. How many bytes those were.
    fn poll_send(&mut self, cx: &mut Cx<'_>) -> Poll<io::Result<usize>> {
        if let Some(pipe) = &mut self.pipe_up
            && let Some(socket) = self.link.tcp()
        {
            let sent = pipe.poll_drain(socket, cx);
            if let Some(drained) = self.pipe_up.take_if(|pipe| pipe.held() == 0) {
                drained.give_back();
            }
            return sent;
        }
        let waiting = self.out.get(self.sent..).unwrap_or_default();
        let count = ready!(Pin::new(&mut self.link).poll_write(cx, waiting))?;
        self.sent += count;
        Poll::Ready(Ok(count))
    }

    /// Reads a piece of the request's body into `out`, which is empty, or into a pipe.
    fn poll_piece(&mut self, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let read = match self.poll_filled(cx) {
            Some(filled) => filled,
            None => {
                if self.out.capacity() < spare::BYTES {
                    self.out = spare::take();
                }
                let room = if self.client.upload.taken == 0 { S::FIRST_BYTES } else { PIECE_BYTES };
                self.client.side.poll_piece(room, &mut self.out, cx)
            }
        };
        if read.is_pending() {
            let limit = self.client.body_timeout;
            ready!(poll_timer(&mut self.awaited, limit, cx));
            return Poll::Ready(Err(down(ErrorType::ReadTimedout, "while the client's body was waited for")));
        }
        self.awaited = None;
        let count = ready!(read).map_err(from_client)?;
        self.client.upload.took(count, &self.out);
        Poll::Ready(forward::piece(count, self.client.side.is_message_done(), self.ctx))
    }

    /// Has a piece of the request's body come into a pipe; `None` if it is to be copied: where one of the sockets cannot do
    /// otherwise, or it may have to be sent again.
    fn poll_filled(&mut self, cx: &mut Cx<'_>) -> Option<Poll<io::Result<usize>>> {
        let upload = &self.client.upload;
        let is_worth_it =
            !upload.is_kept() && !pipe::are_scarce() && self.client.side.gives_pipes(PIECE_BYTES);
        let mut pipe = Pipe::take_if(is_worth_it && self.link.tcp().is_some())?;
        let filled = self.client.side.poll_fill(&mut pipe, cx);
        if pipe.held() > 0 {
            self.pipe_up = Some(pipe);
        } else {
            pipe.give_back();
        }
        match filled {
            Poll::Ready(Err(error)) if pipe::is_unsupported(&error) => None,
            filled => Some(filled),
        }
    }
}
