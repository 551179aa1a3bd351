//! Clients over HTTP/1.1: one message at a time on a connection of their own.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context as Cx, Poll, ready};
use std::time::UNIX_EPOCH;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, header};
use pingora::http::ResponseHeader;
use pingora::{Error, ErrorType, OrErr, Result};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::side::{Manner, Side};
use super::wire::{LAST_CHUNK, write_chunk};
use crate::base::clock;
use crate::base::pipe::Pipe;
use crate::base::wire::chunked::ChunkScanner;
use crate::base::wire::fields::{write_field, write_fields};
use crate::ingress::EdgeStream;
use crate::ingress::head::Framing;

/// Bytes of a body read at once for an answer of the gateway's own.
const BODY_BYTES: usize = 8 * 1024;

/// The stream whose next message is the body of the request.
#[derive(Debug)]
pub(super) struct Http1<'s> {
    stream: &'s mut EdgeStream,
    /// Finds the data in a body of chunks.
    scanner: Option<Box<ChunkScanner>>,
}

impl<'s> Http1<'s> {
    pub(super) fn new(stream: &'s mut EdgeStream, body: Framing) -> Self {
        Self { stream, scanner: (body == Framing::Chunked).then(Box::default) }
    }

    pub(super) fn into_stream(self) -> &'s mut EdgeStream {
        self.stream
    }

    fn poll_read(&mut self, into: &mut impl BufMut, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        match ready!(std::pin::pin!(self.stream.read_buf(into)).poll(cx))? {
            0 => Poll::Ready(Err(closed_early())),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// What of `raw`, bytes of the body as they came, is data, if they are chunks.
    fn unchunk(&mut self, raw: &[u8]) -> Option<Vec<u8>> {
        self.scanner.as_mut().map(|scanner| unchunk(scanner, raw))
    }

    async fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.stream.write_all(bytes).await;
        written.or_err(ErrorType::WriteError, "while writing to the client").map_err(Error::into_down)
    }

    async fn flush(&mut self) -> Result<()> {
        let flushed = self.stream.flush().await;
        flushed.or_err(ErrorType::WriteError, "while writing to the client").map_err(Error::into_down)
    }
}

impl Side for Http1<'_> {
    const CHUNKS: bool = true;
    const TAKES_SLICES: bool = true;
    const ROOM_AT_FIRST: usize = 16 * 1024;
    const FIRST_BYTES: usize = 8 * 1024;

    fn is_message_done(&self) -> bool {
        self.stream.is_message_done()
    }

    fn poll_piece(&mut self, room: usize, out: &mut Vec<u8>, cx: &mut Cx<'_>) -> Poll<io::Result<usize>> {
        ready!(self.poll_read(&mut out.limit(room), cx))?;
        let ends = self.is_message_done();
        Poll::Ready(Ok(frame_anew(self.scanner.as_deref_mut(), out, ends)))
    }

    fn gives_pipes(&self, wanted: usize) -> bool {
        self.stream.gives_pipes(wanted)
    }

    fn poll_fill(&mut self, pipe: &mut Pipe, cx: &mut Cx<'_>) -> Poll<io::Result<usize>> {
        match ready!(self.stream.poll_fill_pipe(pipe, cx))? {
            0 => Poll::Ready(Err(closed_early())),
            count => Poll::Ready(Ok(count)),
        }
    }

    fn poll_data(&mut self, cx: &mut Cx<'_>) -> Poll<io::Result<Option<Bytes>>> {
        while !self.is_message_done() {
            let mut raw = BytesMut::with_capacity(BODY_BYTES);
            ready!(self.poll_read(&mut raw, cx))?;
            let piece = self.unchunk(&raw).map_or_else(|| raw.freeze(), Bytes::from);
            if !piece.is_empty() {
                return Poll::Ready(Ok(Some(piece)));
            }
        }
        Poll::Ready(Ok(None))
    }

    fn poll_take(
        &mut self,
        input: &mut BytesMut,
        most: usize,
        _ends: bool,
        cx: &mut Cx<'_>,
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.stream.poll_write_body(input.get(..most).unwrap_or_default(), cx))?;
        input.advance(count);
        Poll::Ready(Ok(count))
    }

    fn poll_slice(&mut self, data: &[u8], cx: &mut Cx<'_>) -> Poll<io::Result<usize>> {
        self.stream.poll_write_body(data, cx)
    }

    fn takes_pipes(&self) -> bool {
        self.stream.takes_pipes()
    }

    fn poll_pipe(&mut self, pipe: &mut Pipe, cx: &mut Cx<'_>) -> Poll<io::Result<usize>> {
        self.stream.poll_write_pipe(pipe, cx)
    }

    /// Nobody knows before it is written to.
    fn room_now(&mut self, wanted: usize) -> usize {
        wanted
    }

    fn needs_no_room(&mut self) {}

    fn acknowledged(&self) -> Option<u64> {
        self.stream.acknowledged()
    }

    fn poll_flush(&mut self, cx: &mut Cx<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_end(&mut self, cx: &mut Cx<'_>) -> Poll<io::Error> {
        self.stream.poll_end(cx)
    }

    async fn write_head(&mut self, head: ResponseHeader, manner: Manner) -> Result<()> {
        let mut out = begun(&head);
        if manner.own {
            // In the spelling that they were given.
            head.header_to_h1_wire(&mut out);
        } else {
            write_fields(&head.headers, &mut out);
        }
        if !head.headers.contains_key(header::DATE) {
            // RFC 9110 section 6.6.1: who receives an answer without it and passes it on adds it.
            write_field(b"date", &date(), &mut out);
        }
        if manner.closing {
            write_field(b"connection", b"close", &mut out);
        }
        out.extend_from_slice(b"\r\n");
        self.write_all(&out).await
    }

    async fn write_interim(&mut self, head: ResponseHeader) -> Result<()> {
        let mut out = begun(&head);
        write_fields(&head.headers, &mut out);
        out.extend_from_slice(b"\r\n");
        self.write_all(&out).await?;
        self.flush().await
    }

    async fn write_body(&mut self, data: Bytes, _end: bool) -> Result<()> {
        self.write_all(&data).await
    }

    async fn close(&mut self) {
        // It is over either way.
        let _closed = self.stream.shutdown().await;
    }
}

fn unchunk(scanner: &mut ChunkScanner, raw: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(raw.len());
    // The stream has looked at every byte with a scanner of its own.
    let _followed = scanner.decode(raw, |piece| data.extend_from_slice(piece));
    data
}

/// Makes `piece`, bytes of a body as they came, what a server of HTTP/1 gets; it is the last if it `ends`. A body of chunks has
/// a `scanner`. How many bytes it has without framing.
pub(super) fn frame_anew(scanner: Option<&mut ChunkScanner>, piece: &mut Vec<u8>, ends: bool) -> usize {
    let Some(scanner) = scanner else { return piece.len() };
    let data = unchunk(scanner, piece);
    piece.clear();
    write_chunk(&data, piece);
    if ends {
        piece.extend_from_slice(LAST_CHUNK);
    }
    data.len()
}

fn closed_early() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the client closed in the middle of its body")
}

/// The status line of `head`, and room for the rest.
fn begun(head: &ResponseHeader) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES_COMMON);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.get_reason_phrase().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    out
}

/// What a common head takes.
const HEAD_BYTES_COMMON: usize = 512;

/// The date of this second (RFC 9110 section 5.6.7).
fn date() -> [u8; 29] {
    thread_local! {
        static LAST: Cell<(u64, [u8; 29])> = const { Cell::new((0, *b"Thu, 01 Jan 1970 00:00:00 GMT")) };
    }
    let now = clock::wall();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (last, text) = LAST.get();
    if last == second {
        return text;
    }
    let Ok(text) = <[u8; 29]>::try_from(httpdate::fmt_http_date(now).as_bytes()) else { return text };
    LAST.set((second, text));
    text
}

/// Whether these fields of a request ask for the connection to become something else, which is Pingora's.
pub(super) fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}
