//! Clients over HTTP/2: one stream among others, without any HTTP/1 on this side.

use std::io;
use std::task::{Context as Cx, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Response;
use http::response::Parts;
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, OrErr, Result};

use super::side::{Manner, Side};
use super::wire::{LAST_CHUNK, write_piece};
use crate::ingress::Http2Side;
use crate::ingress::head::Framing;

/// Bytes that are read of an answer for which the client has no room: enough to know that there is something to wait for.
const WAITING_BYTES: usize = 1024;

/// The stream, and how the body of its request goes to servers.
#[derive(Debug)]
pub(super) struct Http2 {
    stream: Http2Side,
    chunked: bool,
}

impl Http2 {
    pub(super) fn new(stream: Http2Side, body: Framing) -> Self {
        Self { stream, chunked: body == Framing::Chunked }
    }

    pub(super) fn into_stream(self) -> Http2Side {
        self.stream
    }
}

impl Side for Http2 {
    const CHUNKS: bool = false;
    const TAKES_SLICES: bool = false;
    // It says beforehand what it takes.
    const ROOM_AT_FIRST: usize = 32 * 1024;
    // There may be more than a hundred of them on one connection, none of which is read.
    const FIRST_BYTES: usize = 4 * 1024;

    fn is_message_done(&self) -> bool {
        self.stream.is_message_done()
    }

    fn poll_piece(&mut self, room: usize, out: &mut Vec<u8>, cx: &mut Cx<'_>) -> Poll<io::Result<usize>> {
        let mut count = 0;
        while !self.is_message_done() && out.len() < room {
            match self.stream.poll_piece(cx) {
                Poll::Ready(Ok(Some(piece))) => {
                    count += piece.len();
                    write_piece(&piece, self.chunked, out);
                }
                Poll::Ready(Ok(None)) => {}
                // What came goes on first.
                Poll::Ready(Err(_)) | Poll::Pending if count > 0 => return Poll::Ready(Ok(count)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.chunked && self.is_message_done() {
            out.extend_from_slice(LAST_CHUNK);
        }
        Poll::Ready(Ok(count))
    }

    fn poll_data(&mut self, cx: &mut Cx<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            match ready!(self.stream.poll_piece(cx))? {
                Some(piece) if piece.is_empty() => {}
                piece => return Poll::Ready(Ok(piece)),
            }
        }
    }

    fn poll_take(
        &mut self,
        input: &mut BytesMut,
        most: usize,
        ends: bool,
        cx: &mut Cx<'_>,
    ) -> Poll<io::Result<usize>> {
        let room = if most == 0 { 0 } else { ready!(self.stream.poll_room(cx, most))? };
        self.stream.send_data(input.split_to(room.min(most)).freeze(), ends && room >= most)?;
        Poll::Ready(Ok(room))
    }

    fn poll_slice(&mut self, _data: &[u8], _cx: &mut Cx<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::Error::other("a stream takes no slices")))
    }

    fn room_now(&mut self, wanted: usize) -> usize {
        self.stream.room_now(wanted).max(WAITING_BYTES)
    }

    fn needs_no_room(&mut self) {
        self.stream.needs_no_room();
    }

    fn acknowledged(&self) -> Option<u64> {
        None
    }

    /// What was sent leaves when the connection is polled, which it is as soon as nobody has more to say.
    fn poll_flush(&mut self, _cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, cx: &mut Cx<'_>) -> Poll<io::Error> {
        self.stream.poll_end(cx)
    }

    fn given_up(&mut self, cx: &mut Cx<'_>) -> Option<io::Error> {
        match self.stream.poll_given_up(cx) {
            Poll::Ready(error) => Some(error),
            Poll::Pending => None,
        }
    }

    async fn write_head(&mut self, head: ResponseHeader, manner: Manner) -> Result<()> {
        to_client(self.stream.send_head(Response::from_parts(Parts::from(head), ()), manner.ends))
    }

    async fn write_interim(&mut self, head: ResponseHeader) -> Result<()> {
        to_client(self.stream.send_interim(Response::from_parts(Parts::from(head), ())))
    }

    async fn write_body(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        while !data.is_empty() {
            let room = std::future::poll_fn(|cx| self.stream.poll_room(cx, data.len())).await;
            let piece = data.split_to(to_client(room)?.min(data.len()));
            to_client(self.stream.send_data(piece, data.is_empty() && end))?;
        }
        // Says so once more only if nothing has.
        if end { to_client(self.stream.send_data(data, true)) } else { Ok(()) }
    }

    /// Its connection serves other streams, too. What is left of the request is not waited for.
    async fn close(&mut self) {}
}

fn to_client<T>(done: io::Result<T>) -> Result<T> {
    done.or_err(ErrorType::WriteError, "while writing to the client").map_err(Error::into_down)
}
