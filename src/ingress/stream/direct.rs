//! What the gateway's own forwarder asks of a stream besides reading and writing.

use std::io;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::{EdgeStream, Message};
use crate::base::pipe::Pipe;
use crate::ingress::transport::Transport;

impl EdgeStream {
    /// Takes the scanned head of `len` bytes out of the message: what is read from now on is its body.
    pub(crate) fn take_head(&mut self, len: usize) -> Bytes {
        match &mut self.message {
            Message::Bytes(left) => *left = left.saturating_sub(len as u64),
            Message::Chunked { head, .. } => *head = 0,
            Message::Done | Message::Raw => {}
        }
        let end = self.input_start + len;
        if self.input_start == 0 && end >= self.input.len() {
            // The common case: nothing but the head came. Then its buffer goes along.
            return Bytes::from(std::mem::take(&mut self.input));
        }
        let head = Bytes::copy_from_slice(self.input.get(self.input_start..end).unwrap_or_default());
        self.input_start = end;
        head
    }

    /// Undoes [`EdgeStream::take_head`], as long as nothing was read since.
    pub(crate) fn put_head_back(&mut self, head: &[u8]) {
        let mut input = Vec::with_capacity(head.len() + self.pending_input().len());
        input.extend_from_slice(head);
        input.extend_from_slice(self.pending_input());
        self.input = input;
        self.input_start = 0;
        match &mut self.message {
            Message::Bytes(left) => *left = left.saturating_add(head.len() as u64),
            Message::Chunked { head: left, .. } => *left = head.len(),
            Message::Done | Message::Raw => {}
        }
    }

    /// Whether at least `wanted` more bytes of a body with a length are to come, and [`EdgeStream::poll_fill_pipe`] is there to
    /// be called.
    pub(crate) fn gives_pipes(&self, wanted: usize) -> bool {
        matches!(self.message, Message::Bytes(left) if left >= wanted as u64)
            && self.pending_input().is_empty()
            && self.takes_pipes()
    }

    /// Puts what comes of a body with a length into `pipe`, which is empty. How many bytes those were; none if the client
    /// has closed.
    pub(crate) fn poll_fill_pipe(
        &mut self,
        pipe: &mut Pipe,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let (Message::Bytes(left), Some(socket)) =
            (&self.message, self.transport.as_ref().and_then(Transport::plain_tcp))
        else {
            return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
        };
        let left = *left;
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let Poll::Ready(filled) = pipe.poll_fill(socket, most, cx) else {
            return self.pend_for_body(cx).map_ok(|()| 0);
        };
        let count = filled?;
        self.connection.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        self.body_moved(count);
        self.message = Message::Bytes(left - count as u64);
        Poll::Ready(Ok(count))
    }

    /// Waits for nothing but the end: that the client goes away, or the request's time or the server's silence is over.
    /// What was written leaves meanwhile. The first is noticed once its message was read whole.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let ended = if self.is_message_done() { self.poll_after_message(cx) } else { self.pend(cx) };
        Poll::Ready(match ready!(ended) {
            Ok(()) => io::Error::new(io::ErrorKind::UnexpectedEof, "the client closed its connection"),
            Err(error) => error,
        })
    }
}
