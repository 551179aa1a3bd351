//! Both directions of one exchange with a server, in one task.
//!
//! Everything here is polled together: the request goes out while the answer may come in already, and whoever waits for
//! one side keeps an eye on the other.

mod piped;
mod upload;

use std::io;
use std::pin::Pin;
use std::task::{Context as Cx, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::Method;
use pingora::{Error, ErrorSource, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::client::Client;
use super::room::Room;
use super::side::Side;
use super::wire::{LAST_CHUNK, write_chunk};
use crate::base::pipe::Pipe;
use crate::base::spare;
use crate::base::wire::chunked::ChunkScanner;
use crate::ingress::head::Framing as RequestFraming;
use crate::proxy::context::Context;
use crate::proxy::phases::respond;
use crate::upstream::Link;
use crate::upstream::answer::{Answer, Framing, Reader};

/// Bytes of a body passed on before it is another exchange's turn, however fast both sides are.
const TURN_BYTES: usize = 1024 * 1024;

type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One exchange with a server.
pub(super) struct Relay<'r, S> {
    client: &'r mut Client<S>,
    ctx: &'r mut Context,
    link: Link,
    /// To be sent to the server, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    /// All of the request was sent, or what is left of it cannot be.
    is_uploaded: bool,
    /// Why it could not be.
    broken: Option<Box<Error>>,
    write_timeout: Duration,
    /// Runs while the server takes nothing.
    stalled: Option<Timer>,
    /// Runs while the client's body is waited for.
    awaited: Option<Timer>,
    /// Received from the server.
    input: BytesMut,
    reader: Reader,
    /// How much of a body is read at once.
    room: Room,
    body: Body,
    /// Holds bytes of the body that the client did not take yet.
    pipe: Option<Pipe>,
    /// Some of the body went through one.
    is_piped: bool,
    /// Holds bytes of the request's body that the server did not take yet.
    pipe_up: Option<Pipe>,
    /// What waits for the client fills the room that it has.
    holds_little: bool,
    /// Framed for the client, to be written.
    chunk: BytesMut,
    /// There is more to be written, if only that it ends.
    chunk_waits: bool,
}

/// What is still to come of the answer's body.
#[derive(Debug)]
enum Body {
    Length(u64),
    Chunked(Box<ChunkScanner>),
    UntilClose,
    Ended,
}

impl<'r, S: Side> Relay<'r, S> {
    /// The exchange that begins with sending `head`.
    pub(super) fn new(
        client: &'r mut Client<S>,
        ctx: &'r mut Context,
        link: Link,
        head: Vec<u8>,
        write_timeout: Duration,
    ) -> Self {
        let mut out = head;
        out.extend_from_slice(client.upload.replay());
        Self {
            client,
            ctx,
            link,
            out,
            sent: 0,
            is_uploaded: false,
            broken: None,
            write_timeout,
            stalled: None,
            awaited: None,
            input: BytesMut::new(),
            reader: Reader::default(),
            room: Room::of(S::ROOM_AT_FIRST),
            body: Body::Ended,
            pipe: None,
            is_piped: false,
            pipe_up: None,
            holds_little: false,
            chunk: BytesMut::new(),
            chunk_waits: false,
        }
    }

    pub(super) fn ctx(&mut self) -> &mut Context {
        self.ctx
    }

    /// Both.
    pub(super) fn sides(&mut self) -> (&mut Client<S>, &mut Context) {
        (self.client, self.ctx)
    }

    /// The head of the next answer, interim ones included.
    pub(super) async fn head(&mut self, method: &Method) -> Result<Answer> {
        self.reader = Reader::default();
        // If the server has just said something, the client may have waited for that.
        self.awaited = None;
        std::future::poll_fn(|cx| self.poll_head(method, cx)).await
    }

    /// Passes the body on that `framing` promises.
    pub(super) async fn body(&mut self, framing: Framing) -> Result<()> {
        // How long the client may pause can have changed with the answer's head.
        self.awaited = None;
        self.body = match framing {
            Framing::None | Framing::Length(0) => return Ok(()),
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Box::default()),
            Framing::UntilClose => Body::UntilClose,
        };
        std::future::poll_fn(|cx| self.poll_body(cx)).await
    }

    /// Reads the body that `framing` promises, to its end; `None` if it has more than `most` bytes.
    pub(super) async fn collect(&mut self, framing: Framing, most: usize) -> Result<Option<Bytes>> {
        self.awaited = None;
        self.body = match framing {
            Framing::None | Framing::Length(0) => return Ok(Some(Bytes::new())),
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(Box::default()),
            Framing::UntilClose => Body::UntilClose,
        };
        let mut kept = BytesMut::new();
        while !matches!(self.body, Body::Ended) {
            std::future::poll_fn(|cx| self.poll_kept(&mut kept, cx)).await?;
            if kept.len() > most {
                return Ok(None);
            }
        }
        Ok(Some(kept.freeze()))
    }

    /// Whether all of the request was received.
    pub(super) fn is_request_whole(&self) -> bool {
        self.client.side.is_message_done()
    }

    /// Whether it has no body.
    pub(super) fn is_request_empty(&self) -> bool {
        matches!(self.client.request.body, RequestFraming::None | RequestFraming::Length(0))
    }

    /// Whether all of it was sent.
    pub(super) fn is_request_sent(&self) -> bool {
        self.is_uploaded && self.broken.is_none()
    }

    /// Has the body stay where it is, if none of it was read so far: the server has answered without asking for it.
    pub(super) fn withhold(&mut self) {
        if self.client.upload.taken == 0 {
            self.end_upload();
        }
    }

    /// Sends the rest of a request that was answered before it was complete, for as long as the server takes it.
    pub(super) async fn rest(&mut self) -> Result<()> {
        if self.is_uploaded {
            return Ok(());
        }
        match std::future::poll_fn(|cx| self.poll_rest(cx)).await {
            // The answer is what counts.
            Err(error) if *error.esource() == ErrorSource::Upstream => Ok(()),
            ended => ended,
        }
    }

    /// The connection, if nothing is under way on it.
    pub(super) fn into_idle_link(self) -> Option<Link> {
        let is_idle = self.is_uploaded
            && self.broken.is_none()
            && matches!(self.body, Body::Ended)
            // Bytes behind the answer are no answer to anything.
            && self.input.is_empty();
        is_idle.then_some(self.link)
    }

    fn poll_head(&mut self, method: &Method, cx: &mut Cx<'_>) -> Poll<Result<Answer>> {
        self.poll_request(cx)?;
        loop {
            match self.reader.read(&mut self.input, method) {
                Ok(Some(answer)) => return Poll::Ready(Ok(answer)),
                Ok(None) => {}
                Err(what) => return Poll::Ready(Err(up(ErrorType::InvalidHTTPHeader, what))),
            }
            match self.poll_receive(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => {
                    let closed = || up(ErrorType::ConnectionClosed, "the server closed before its answer");
                    return Poll::Ready(Err(self.broken.take().unwrap_or_else(closed)));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.broken.take().unwrap_or(error))),
                Poll::Pending => return self.poll_end(cx).map(Err),
            }
        }
    }

    /// Goes on with the request while an answer comes.
    fn poll_request_beside_answer(&mut self, cx: &mut Cx<'_>) -> Result<()> {
        match self.poll_request(cx) {
            // That it takes no more of the request takes nothing from its answer.
            Err(error) if *error.esource() == ErrorSource::Upstream => {
                self.broken = Some(error);
                self.end_upload();
                Ok(())
            }
            polled => polled,
        }
    }

    /// Keeps the next bytes of the body.
    fn poll_kept(&mut self, kept: &mut BytesMut, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        self.poll_request_beside_answer(cx)?;
        if self.input.is_empty() {
            ready!(self.poll_more(cx))?;
            if let Some(exchange) = &self.ctx.exchange {
                exchange.server_spoke();
            }
        }
        match &mut self.body {
            Body::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                kept.extend_from_slice(&self.input.split_to(most));
                *left -= most as u64;
                if *left == 0 {
                    self.body = Body::Ended;
                }
            }
            Body::Chunked(scanner) => {
                let followed = scanner.decode(&self.input, |piece| kept.extend_from_slice(piece));
                let Ok((consumed, ended)) = followed else {
                    return Poll::Ready(Err(up(ErrorType::InvalidHTTPHeader, "a chunk is malformed")));
                };
                self.input.advance(consumed);
                if ended {
                    self.body = Body::Ended;
                }
            }
            Body::UntilClose => kept.extend_from_slice(&self.input.split()),
            Body::Ended => {}
        }
        Poll::Ready(Ok(()))
    }

    /// Reads more of the body, or its end where the connection tells it.
    fn poll_more(&mut self, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        match self.poll_receive(cx) {
            Poll::Ready(Ok(1..)) => Poll::Ready(Ok(())),
            Poll::Ready(Ok(0)) if matches!(self.body, Body::UntilClose) => {
                self.body = Body::Ended;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(0)) => Poll::Ready(Err(ended_early())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_end(cx).map(Err),
        }
    }

    fn poll_body(&mut self, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        self.poll_request_beside_answer(cx)?;
        let mut turn = 0;
        loop {
            ready!(self.poll_chunk(cx))?;
            let taken = match &mut self.body {
                Body::Ended => return Poll::Ready(Ok(())),
                Body::Length(left) if !self.input.is_empty() => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                    let ends = most as u64 == *left;
                    let taken = self.client.side.poll_take(&mut self.input, most, ends, cx);
                    let count = ready!(self.follow(taken)).map_err(to_client)?;
                    self.passed(count);
                    count
                }
                Body::Length(left) if S::TAKES_SLICES => {
                    let left = *left;
                    match self.pipe_for(left) {
                        Some(pipe) => {
                            let count = ready!(self.poll_piped(pipe, left, cx))?;
                            // None of it was held here, so it says nothing of how much should be.
                            self.room.forget();
                            self.count_down(count);
                            count
                        }
                        None => {
                            let count = ready!(self.poll_through(left, cx))?;
                            self.passed(count);
                            count
                        }
                    }
                }
                Body::Chunked(scanner) if !self.input.is_empty() => {
                    let mut data = BytesMut::with_capacity(self.input.len());
                    let followed = scanner.decode(&self.input, |piece| data.extend_from_slice(piece));
                    let Ok((consumed, ended)) = followed else {
                        return Poll::Ready(Err(up(ErrorType::InvalidHTTPHeader, "a chunk is malformed")));
                    };
                    self.input.advance(consumed);
                    self.pass_on(data, ended)
                }
                Body::UntilClose if !self.input.is_empty() => {
                    let data = self.input.split();
                    self.pass_on(data, false)
                }
                _ => {
                    let was_until_close = matches!(self.body, Body::UntilClose);
                    ready!(self.poll_more(cx))?;
                    if was_until_close && matches!(self.body, Body::Ended) {
                        self.pass_on(BytesMut::new(), true);
                    }
                    continue;
                }
            };
            if taken > 0 {
                respond::piece(taken, self.ctx);
                turn += taken;
                if turn >= TURN_BYTES && !matches!(self.body, Body::Ended) {
                    // It wakes us when all others, and what came meanwhile, have had their turn.
                    let _pending = std::pin::pin!(tokio::task::yield_now()).poll(cx);
                    return self.poll_end(cx).map(Err);
                }
            }
        }
    }

    /// Reads more of a body of which so much is `left`, and gives it to the client at once; what that does not take
    /// waits in `input`, which is empty. How much it took.
    fn poll_through(&mut self, left: u64, cx: &mut Cx<'_>) -> Poll<Result<usize>> {
        let mut piece = spare::take();
        let passed = match self.poll_read_into(&mut piece, cx) {
            Poll::Ready(Ok(1..)) => {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
                let body = piece.get(..most).unwrap_or_default();
                let taken = self.client.side.poll_slice(body, cx);
                // What is not taken now is taken from `input`: whoever comes for it next is told to wait.
                let count = match taken {
                    Poll::Pending => Ok(0),
                    Poll::Ready(taken) => taken.map_err(to_client),
                };
                if let Ok(count) = count {
                    self.input = BytesMut::from(piece.get(count..).unwrap_or_default());
                    self.holds_little = true;
                }
                Poll::Ready(count)
            }
            Poll::Ready(Ok(0)) => Poll::Ready(Err(ended_early())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_end(cx).map(Err),
        };
        spare::give_back(piece);
        passed
    }

    /// Takes in that the client took `count` bytes of a body with a length, which were held here.
    fn passed(&mut self, count: usize) {
        self.count_down(count);
        self.room.passed(count, || self.client.side.acknowledged());
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// Takes in that `count` bytes of a body with a length are no longer to come.
    fn count_down(&mut self, count: usize) {
        if let Body::Length(left) = &mut self.body {
            *left -= count as u64;
            if *left == 0 {
                self.body = Body::Ended;
            }
        }
    }

    /// The client is given something, and this is what it did. While it takes nothing, which may last, and be so with
    /// many, no more is held than what waits.
    fn follow<T>(&mut self, given: Poll<T>) -> Poll<T> {
        if given.is_pending() {
            self.room = Room::of(S::ROOM_AT_FIRST);
            if !std::mem::replace(&mut self.holds_little, true) {
                for held in [&mut self.input, &mut self.chunk] {
                    *held = BytesMut::from(&**held);
                }
            }
            self.wait_for_client();
        } else {
            self.holds_little = false;
        }
        given
    }

    /// The server is not what is waited for.
    fn wait_for_client(&self) {
        if let Some(exchange) = &self.ctx.exchange {
            exchange.server_spoke();
        }
    }

    /// Has `data` of a body without a length go to the client next; with `ends` it is the last. How many bytes it has.
    fn pass_on(&mut self, data: BytesMut, ends: bool) -> usize {
        let count = data.len();
        if S::CHUNKS {
            write_chunk(&data, &mut self.chunk);
            if ends {
                self.chunk.extend_from_slice(LAST_CHUNK);
            }
        } else {
            self.chunk = data;
        }
        if ends {
            self.body = Body::Ended;
        }
        self.chunk_waits = ends || !self.chunk.is_empty();
        count
    }

    fn poll_rest(&mut self, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        self.poll_request(cx)?;
        if self.is_uploaded {
            return Poll::Ready(Ok(()));
        }
        // Whatever it does now, it wants no more of the request.
        if self.poll_receive(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.poll_end(cx).map(Err)
    }

    /// Writes what was framed for the client.
    fn poll_chunk(&mut self, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        while self.chunk_waits {
            let (most, ends) = (self.chunk.len(), matches!(self.body, Body::Ended));
            let taken = self.client.side.poll_take(&mut self.chunk, most, ends, cx);
            let count = ready!(self.follow(taken)).map_err(to_client)?;
            self.chunk_waits = count < most;
            self.room.passed(count, || self.client.side.acknowledged());
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once from the server, behind what there is in `input`.
    fn poll_receive(&mut self, cx: &mut Cx<'_>) -> Poll<Result<usize>> {
        let mut piece = spare::take();
        let read = self.poll_read_into(&mut piece, cx);
        self.input.extend_from_slice(&piece);
        spare::give_back(piece);
        read
    }

    /// Reads once from the server into `piece`, which is empty.
    fn poll_read_into(&mut self, piece: &mut Vec<u8>, cx: &mut Cx<'_>) -> Poll<Result<usize>> {
        let most = match &self.body {
            Body::Ended => S::FIRST_BYTES,
            // Bytes behind it show, as long as there are no more than those of a short answer.
            Body::Length(left) => usize::try_from(*left).unwrap_or(usize::MAX).max(S::FIRST_BYTES),
            Body::Chunked(_) | Body::UntilClose => usize::MAX,
        };
        let most = match &self.body {
            Body::Ended => most,
            _ => most.min(self.room.most).min(self.client.side.room_now(self.room.most)),
        };
        let read = poll_read(&mut self.link, &mut piece.limit(most), cx);
        if read.is_pending() {
            self.client.side.needs_no_room();
        }
        read.map_err(from_server)
    }

    /// Nothing comes from the server: whether the client is gone, or the wait over.
    fn poll_end(&mut self, cx: &mut Cx<'_>) -> Poll<Box<Error>> {
        // What came so far is not held back.
        if let Poll::Ready(Err(error)) = self.client.side.poll_flush(cx) {
            return Poll::Ready(to_client(error));
        }
        if self.stalled.is_some() {
            // It is waited for to take, which has a time of its own.
            if let Some(exchange) = &self.ctx.exchange {
                exchange.server_spoke();
            }
        } else if !self.is_uploaded {
            // The client's body is waited for, and with it everything else.
            return Poll::Pending;
        }
        self.client.side.poll_end(cx).map(from_client)
    }
}

fn poll_read<R: AsyncRead + Unpin>(
    from: &mut R,
    into: &mut impl BufMut,
    cx: &mut Cx<'_>,
) -> Poll<io::Result<usize>> {
    std::pin::pin!(from.read_buf(into)).poll(cx)
}

fn poll_timer(timer: &mut Option<Timer>, limit: Duration, cx: &mut Cx<'_>) -> Poll<()> {
    timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(cx)
}

/// An error of the server's side.
pub(super) fn up(kind: ErrorType, what: &'static str) -> Box<Error> {
    let mut error = Error::explain(kind, what);
    error.as_up();
    error
}

fn ended_early() -> Box<Error> {
    up(ErrorType::ConnectionClosed, "the server closed in the middle of its answer")
}

/// An error of the client's side.
fn down(kind: ErrorType, what: &'static str) -> Box<Error> {
    Error::explain(kind, what).into_down()
}

/// What ended the client's side.
pub(super) fn from_client(error: io::Error) -> Box<Error> {
    let kind = match error.kind() {
        io::ErrorKind::UnexpectedEof => ErrorType::ConnectionClosed,
        _ => ErrorType::ReadError,
    };
    Error::because(kind, "on the client's side", error).into_down()
}

/// What ended the server's side.
fn from_server(error: io::Error) -> Box<Error> {
    let mut error = Error::because(ErrorType::ReadError, "while reading the answer", error);
    error.as_up();
    error
}

fn to_client(error: io::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, "while writing to the client", error).into_down()
}
