//! The client's side of one exchange: what was read of its body, what was written to it.

use std::cell::Cell;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::{Error, ErrorType, OrErr, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::relay::from_client;
use super::request::Request;
use crate::base::clock;
use crate::base::wire::chunked::ChunkScanner;
use crate::base::wire::fields::{write_field, write_fields};
use crate::ingress::EdgeStream;
use crate::ingress::head::Framing;
use crate::proxy::asked::Asked;
use crate::proxy::downstream::Downstream;
use crate::proxy::phases::connect::Progress;

/// Bytes of a body kept to be sent again to another server.
const REPLAY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a body read at once for an answer of the gateway's own.
const BODY_BYTES: usize = 8 * 1024;
/// How long the unread rest of a body may take before the connection is given up.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A client whose request is being served.
#[derive(Debug)]
pub(super) struct Client<'s> {
    pub(super) stream: &'s mut EdgeStream,
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
    scanner: Option<Box<ChunkScanner>>,
}

impl<'s> Client<'s> {
    pub(super) fn new(stream: &'s mut EdgeStream, request: Request, body_timeout: Duration) -> Self {
        let chunked = request.body == Framing::Chunked;
        let upload = Upload { scanner: chunked.then(Box::default), ..Upload::default() };
        Self { stream, request, upload, closing: false, answer_started: false, body_timeout, waits: false }
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

    /// Writes the head of the server's final answer. What is written may wait for the first bytes of the body.
    pub(super) async fn write_head(&mut self, head: &ResponseHeader) -> Result<()> {
        let mut out = Vec::with_capacity(HEAD_BYTES_COMMON);
        write_status(head, &mut out);
        write_fields(&head.headers, &mut out);
        self.write_rest_of_head(head, out).await
    }

    async fn write_rest_of_head(&mut self, head: &ResponseHeader, mut out: Vec<u8>) -> Result<()> {
        self.answer_started = true;
        self.closing |= !self.stream.is_message_done() && !self.waits;
        if !head.headers.contains_key(header::DATE) {
            // RFC 9110 section 6.6.1: who receives an answer without it and passes it on adds it.
            write_field(b"date", &date(), &mut out);
        }
        if self.closing {
            write_field(b"connection", b"close", &mut out);
        }
        out.extend_from_slice(b"\r\n");
        self.write_all(&out).await
    }

    /// Writes an interim answer, and sees it on its way.
    pub(super) async fn write_interim(&mut self, head: &ResponseHeader) -> Result<()> {
        let mut out = Vec::with_capacity(HEAD_BYTES_COMMON);
        write_status(head, &mut out);
        write_fields(&head.headers, &mut out);
        out.extend_from_slice(b"\r\n");
        self.write_all(&out).await?;
        self.flush().await
    }

    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.stream.write_all(bytes).await;
        written.or_err(ErrorType::WriteError, "while writing to the client").map_err(Error::into_down)
    }

    pub(super) async fn flush(&mut self) -> Result<()> {
        let flushed = self.stream.flush().await;
        flushed.or_err(ErrorType::WriteError, "while writing to the client").map_err(Error::into_down)
    }

    /// Ends the exchange. Whether the connection may carry another request.
    pub(super) async fn finish(&mut self) -> bool {
        if !self.closing && !self.stream.is_message_done() {
            self.closing = !matches!(tokio::time::timeout(DRAIN_TIMEOUT, self.drain()).await, Ok(true));
        }
        if self.closing {
            // It is over either way.
            let _closed = self.stream.shutdown().await;
        }
        !self.closing
    }

    /// Reads the rest of the body for nothing; whether it came.
    async fn drain(&mut self) -> bool {
        let mut rest = [0; 4096];
        while !self.stream.is_message_done() {
            if !matches!(self.stream.read(&mut rest).await, Ok(1..)) {
                return false;
            }
        }
        true
    }
}

impl Upload {
    /// What has to be sent again behind the head.
    pub(super) fn replay(&self) -> &[u8] {
        &self.replay
    }

    /// Frames `raw`, bytes of the body as they came, in their place, `end` saying whether they are the last. How many they
    /// are without framing.
    pub(super) fn frame(&mut self, raw: &mut Vec<u8>, end: bool) -> usize {
        let count = match &mut self.scanner {
            None => raw.len(),
            Some(scanner) => {
                let mut data = Vec::with_capacity(raw.len());
                // The stream has looked at every byte with a scanner of its own.
                let _followed = scanner.decode(raw, |piece| data.extend_from_slice(piece));
                raw.clear();
                write_chunk(&data, raw);
                if end {
                    raw.extend_from_slice(LAST_CHUNK);
                }
                data.len()
            }
        };
        self.taken += count as u64;
        self.is_replay_cut |= self.replay.len() + raw.len() > REPLAY_BYTES_MAX;
        if self.is_replay_cut {
            self.replay = Vec::new();
        } else {
            self.replay.extend_from_slice(raw);
        }
        count
    }
}

impl Upload {
    /// What of `raw`, bytes of the body as they came, is data.
    fn unframe(&mut self, raw: BytesMut) -> Bytes {
        let data = match &mut self.scanner {
            None => raw.freeze(),
            Some(scanner) => {
                let mut data = BytesMut::with_capacity(raw.len());
                // The stream has looked at every byte with a scanner of its own.
                let _followed = scanner.decode(&raw, |piece| data.extend_from_slice(piece));
                data.freeze()
            }
        };
        self.taken += data.len() as u64;
        data
    }
}

impl Downstream for Client<'_> {
    fn asked(&self) -> Asked<'_> {
        self.request.asked()
    }

    fn leave_body_behind(&mut self, wait: bool) {
        self.waits = wait;
    }

    fn is_request_whole(&mut self) -> bool {
        self.stream.is_message_done()
    }

    async fn ask_for_body(&mut self) -> Result<()> {
        self.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        self.flush().await
    }

    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        let mut raw = BytesMut::new();
        while !self.stream.is_message_done() {
            raw.reserve(BODY_BYTES);
            if self.stream.read_buf(&mut raw).await.map_err(from_client)? == 0 {
                return Err(from_client(io::ErrorKind::UnexpectedEof.into()));
            }
            let piece = self.upload.unframe(raw.split());
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    async fn gone(&mut self) -> Box<Error> {
        from_client(std::future::poll_fn(|cx| self.stream.poll_end(cx)).await)
    }

    async fn write(&mut self, parts: Vec<HttpTask>) -> Result<()> {
        let mut ends = false;
        for part in parts {
            match part {
                HttpTask::Header(head, end) => {
                    let mut out = Vec::with_capacity(HEAD_BYTES_COMMON);
                    write_status(&head, &mut out);
                    // In the spelling that they were given.
                    head.header_to_h1_wire(&mut out);
                    self.write_rest_of_head(&head, out).await?;
                    ends |= end;
                }
                HttpTask::Body(piece, end) => {
                    if let Some(piece) = piece {
                        self.write_all(&piece).await?;
                    }
                    ends |= end;
                }
                // Nobody makes others.
                _ => {}
            }
        }
        if ends { self.flush().await } else { Ok(()) }
    }
}

/// What a common head takes.
const HEAD_BYTES_COMMON: usize = 512;

fn write_status(head: &ResponseHeader, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.get_reason_phrase().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// What ends a body of chunks.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// One chunk (RFC 9112 section 7.1); nothing for no data, as an empty chunk is the last.
pub(super) fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    use std::io::Write;

    if data.is_empty() {
        return;
    }
    out.reserve(data.len() + 24);
    // Writing to memory cannot fail.
    let _written = write!(out, "{:x}\r\n", data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

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
