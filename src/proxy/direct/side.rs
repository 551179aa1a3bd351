//! What an exchange needs of the client's side, by whatever protocol: one implementation for each.

use std::io;
use std::task::{Context as Cx, Poll};

use bytes::{Bytes, BytesMut};
use pingora::Result;
use pingora::http::ResponseHeader;

use crate::base::pipe::Pipe;

/// A client as its protocol has it.
pub(super) trait Side: Send {
    /// Whether a body without a length goes to it by chunks.
    const CHUNKS: bool;

    /// Whether [`Side::poll_slice`] is there to be called: it writes what it is given to a socket of its own.
    const TAKES_SLICES: bool;

    /// Bytes of a body read at once for a client of which nothing is known.
    const ROOM_AT_FIRST: usize;

    /// Bytes asked of a server, and of its own body, at first: a head and a short body.
    const FIRST_BYTES: usize;

    /// Whether all of the request was read.
    fn is_message_done(&self) -> bool;

    /// Reads a piece of the request's body, of about `room` bytes at most, into `out`, which is empty, as it goes to a
    /// server of HTTP/1. How many bytes it has without framing; none only at its end.
    fn poll_piece(&mut self, room: usize, out: &mut Vec<u8>, cx: &mut Cx<'_>) -> Poll<io::Result<usize>>;

    /// Whether at least `wanted` more bytes of the request's body are to come, and [`Side::poll_fill`] is there to be called.
    fn gives_pipes(&self, _wanted: usize) -> bool {
        false
    }

    /// Puts a piece of the request's body into `pipe`, which is empty. How many bytes it has, of which there is one at least.
    fn poll_fill(&mut self, _pipe: &mut Pipe, _cx: &mut Cx<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// The next piece of the request's body as such; `None` behind its end.
    fn poll_data(&mut self, cx: &mut Cx<'_>) -> Poll<io::Result<Option<Bytes>>>;

    /// Takes some of the first `most` bytes off `input` and puts them on their way as a part of the answer's body; `ends`:
    /// those bytes are all that is left of it. How many it took.
    fn poll_take(
        &mut self,
        input: &mut BytesMut,
        most: usize,
        ends: bool,
        cx: &mut Cx<'_>,
    ) -> Poll<io::Result<usize>>;

    /// Puts some of `data` on its way as a part of the answer's body. How many bytes it took.
    fn poll_slice(&mut self, data: &[u8], cx: &mut Cx<'_>) -> Poll<io::Result<usize>>;

    /// Whether [`Side::poll_pipe`] is there to be called.
    fn takes_pipes(&self) -> bool {
        false
    }

    /// Puts some of what `pipe` holds on its way as a part of the answer's body. How many bytes it took.
    fn poll_pipe(&mut self, _pipe: &mut Pipe, _cx: &mut Cx<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// How many bytes of at most `wanted` should be read for it now: those that it takes at once, or a few to wait
    /// until it does.
    fn room_now(&mut self, wanted: usize) -> usize;

    /// Nothing was read for it.
    fn needs_no_room(&mut self);

    /// What the client's system has taken of all that was written to it; `None` where nobody knows.
    fn acknowledged(&self) -> Option<u64>;

    /// Sees to it that what was written leaves.
    fn poll_flush(&mut self, cx: &mut Cx<'_>) -> Poll<io::Result<()>>;

    /// Waits for nothing but the end: that the client goes away, or the request's time or the server's silence is over.
    /// The first is noticed at the latest when its message was read whole.
    fn poll_end(&mut self, cx: &mut Cx<'_>) -> Poll<io::Error>;

    /// Whether it has given the request up, as far as that is known without asking its system.
    fn given_up(&mut self, _cx: &mut Cx<'_>) -> Option<io::Error> {
        None
    }

    /// Writes the head of the final answer. What is written may wait for the first bytes of the body.
    fn write_head(&mut self, head: ResponseHeader, manner: Manner)
    -> impl Future<Output = Result<()>> + Send;

    /// Writes an interim answer, and sees it on its way.
    fn write_interim(&mut self, head: ResponseHeader) -> impl Future<Output = Result<()>> + Send;

    /// Writes a piece of the answer's body; with `end` it is the last.
    fn write_body(&mut self, data: Bytes, end: bool) -> impl Future<Output = Result<()>> + Send;

    /// The connection ends here, if it serves nothing else.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// How the head of an answer is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// The connection ends with it.
    pub(super) closing: bool,
    /// No body follows.
    pub(super) ends: bool,
    /// It is the gateway's own, with the names of its fields spelled as they were given.
    pub(super) own: bool,
}
