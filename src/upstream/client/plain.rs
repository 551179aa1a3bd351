//! One exchange in cleartext HTTP/1, over a connection of [`link`](crate::upstream::link): one task, no timer unless the
//! server's silence is bounded more tightly than the whole call, and an answer read as strictly as those passed on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut, buf::Chain};
use http::{StatusCode, header};
use pingora::{Error, ErrorType, OrErr};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::Sleep;

use super::{
    Broken, DRAIN_BYTES_MAX, Ended, INTERIM_MAX, Missed, Outcome, Reply, Trial, changes_body, not_connected,
};
use crate::base::clock;
use crate::base::wire::chunked::ChunkScanner;
use crate::base::wire::fields::write_field;
use crate::upstream::answer::{Answer, Framing, Reader};
use crate::upstream::retry::is_idempotent;
use crate::upstream::{LastAnswer, Link};

/// Bytes asked of a server at first: a head and a short body.
const FIRST_BYTES: usize = 4 * 1024;
/// Bytes asked for at once of longer bodies.
const PIECE_BYTES: usize = 64 * 1024;
/// Bodies up to this leave together with the head.
const BODY_WITH_HEAD_MAX: usize = 16 * 1024;

impl Trial<'_> {
    pub(super) async fn exchange_plainly(&mut self) -> Ended {
        let mut is_replaced = false;
        loop {
            let Some(attempt) = &self.attempt else { return Ended::Failed(Outcome::Abandoned) };
            // Where one was closed meanwhile, others may be.
            let certainly = !is_idempotent(self.ask.method);
            let kept = if is_replaced { None } else { attempt.kept_link(certainly) };
            let reused = kept.is_some();
            let link = match kept {
                Some(link) => link,
                None => match attempt.new_link().await {
                    Ok(link) => link,
                    Err(error) => return Ended::Failed(not_connected(&error)),
                },
            };
            self.connected(reused);
            let talked = self.talk(link).await;
            match self.ended(talked, reused) {
                Some(ended) => return ended,
                None => is_replaced = true,
            }
        }
    }

    async fn talk(&mut self, link: Link) -> Result<Reply, Broken> {
        let mut talk = self.begin_talk(link);
        let answer = self.read_answer(&mut talk).await?;
        let status = answer.head.status;
        self.answered(status.as_u16());
        let keeps = answer.keep_alive && talk.is_sent();
        let (framing, encoded) =
            (answer.body, changes_body(answer.head.headers.get(header::CONTENT_ENCODING)));
        // It shares the buffer that the body is read into.
        drop(answer);
        let (body, is_whole) = if status.is_success() {
            if encoded {
                return Err(Broken::Missed(Missed::Encoded));
            }
            (self.read_body(&mut talk, framing, self.ask.bytes_max, self.ask.room).await?, true)
        } else if framing == Framing::UntilClose {
            (Bytes::new(), false)
        } else {
            let time = self.drain_time();
            let drained = self.read_body(&mut talk, framing, DRAIN_BYTES_MAX, &|_| true);
            (Bytes::new(), matches!(tokio::time::timeout(time, drained).await, Ok(Ok(_))))
        };
        // Bytes behind the answer are no answer to anything.
        if keeps && is_whole && talk.input.is_empty() {
            let last = if framing == Framing::None { LastAnswer::Bodiless } else { LastAnswer::WithBody };
            if let Some(attempt) = &self.attempt {
                attempt.keep_link(talk.link, last, self.upstream.live.client().idle);
            }
        }
        Ok(Reply { status: status.as_u16(), body })
    }

    fn begin_talk(&self, link: Link) -> Talk {
        let ask = self.ask;
        let mut head = Vec::with_capacity(512 + ask.target.len());
        self.write_head(&mut head);
        let mut body = ask.body.clone().unwrap_or_default();
        if body.len() <= BODY_WITH_HEAD_MAX {
            head.extend_from_slice(&body);
            body = Bytes::new();
        }
        let timeouts = self.attempt.as_ref().map(|attempt| attempt.timeouts()).unwrap_or_default();
        let left = ask.deadline.map(|at| at.saturating_duration_since(clock::now()));
        let sooner = |limit: Duration| Some(limit).filter(|limit| left.is_none_or(|left| *limit < left));
        Talk {
            link,
            out: Bytes::from(head).chain(body),
            broken: None,
            input: BytesMut::with_capacity(FIRST_BYTES),
            read_limit: sooner(timeouts.read),
            write_limit: sooner(timeouts.write),
            patience: None,
        }
    }

    fn write_head(&self, out: &mut Vec<u8>) {
        let ask = self.ask;
        out.extend_from_slice(ask.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(ask.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        write_field(b"host", self.host(), out);
        for (name, value) in ask.headers.iter() {
            write_field(name.as_str().as_bytes(), value.as_bytes(), out);
        }
        if let Some(trace) = ask.trace {
            write_field(b"traceparent", &trace.traceparent(self.span), out);
        }
        if let Some(length) = self.content_length() {
            write_field(b"content-length", itoa::Buffer::new().format(length).as_bytes(), out);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The head of the answer, interim ones passed over.
    async fn read_answer(&mut self, talk: &mut Talk) -> Result<Answer, Broken> {
        for _ in 0..INTERIM_MAX {
            let mut reader = Reader::default();
            let answer = loop {
                match reader.read(&mut talk.input, self.ask.method) {
                    Ok(Some(answer)) => break answer,
                    Ok(None) => self.more(talk, FIRST_BYTES / 4).await?,
                    Err(_) => return Err(Broken::Nonsense),
                }
            };
            if answer.head.status == StatusCode::SWITCHING_PROTOCOLS {
                // Nobody asked for it.
                return Err(Broken::Nonsense);
            }
            if !answer.head.status.is_informational() {
                return Ok(answer);
            }
        }
        Err(Broken::Nonsense)
    }

    /// The body that `framing` promises, if it has no more than `most` bytes; `room` is asked before each piece of it is kept.
    async fn read_body(
        &mut self,
        talk: &mut Talk,
        framing: Framing,
        most: usize,
        room: &(dyn Fn(usize) -> bool + Send + Sync),
    ) -> Result<Bytes, Broken> {
        let too_large = || Broken::Missed(Missed::TooLarge);
        let count = |trial: &mut Self, before: usize, now: usize| {
            trial.received += (now - before) as u64;
            if now > most || !room(now - before) { Err(too_large()) } else { Ok(now) }
        };
        let mut kept = 0;
        match framing {
            Framing::None => Ok(Bytes::new()),
            Framing::Length(length) => {
                let length = usize::try_from(length).ok().filter(|length| *length <= most);
                let length = length.ok_or_else(too_large)?;
                loop {
                    kept = count(self, kept, talk.input.len().min(length))?;
                    if kept == length {
                        return Ok(talk.input.split_to(length).freeze());
                    }
                    self.more(talk, (length - kept).min(PIECE_BYTES)).await?;
                }
            }
            Framing::Chunked => {
                let (mut scanner, mut body) = (ChunkScanner::default(), BytesMut::new());
                loop {
                    let decoded = scanner.decode(&talk.input, |piece| body.extend_from_slice(piece));
                    let Ok((consumed, ended)) = decoded else { return Err(Broken::Nonsense) };
                    talk.input.advance(consumed);
                    kept = count(self, kept, body.len())?;
                    if ended {
                        return Ok(body.freeze());
                    }
                    self.more(talk, PIECE_BYTES).await?;
                }
            }
            Framing::UntilClose => loop {
                kept = count(self, kept, talk.input.len())?;
                if self.receive(talk, PIECE_BYTES).await? == 0 {
                    return Ok(talk.input.split().freeze());
                }
            },
        }
    }

    /// Reads more, which there has to be.
    async fn more(&mut self, talk: &mut Talk, room: usize) -> Result<(), Broken> {
        match self.receive(talk, room).await? {
            0 => Err(Error::explain(ErrorType::ConnectionClosed, "the server closed early").into()),
            _ => Ok(()),
        }
    }

    /// Goes on with sending what is left to be sent, and reads once; 0 = the server has closed.
    async fn receive(&mut self, talk: &mut Talk, room: usize) -> Result<usize, Broken> {
        let read = std::future::poll_fn(|cx| {
            let polled = talk.poll(room, cx);
            self.is_sent = talk.is_sent();
            polled
        });
        read.await.map_err(Broken::Error)
    }
}

/// Both directions of an exchange.
struct Talk {
    link: Link,
    /// Still to be sent.
    out: Chain<Bytes, Bytes>,
    /// Why not all of it could be.
    broken: Option<Box<Error>>,
    /// Received, and not looked at yet.
    input: BytesMut,
    /// The longest silence while an answer is due, and the longest wait to send, where that is over before the whole call is.
    read_limit: Option<Duration>,
    write_limit: Option<Duration>,
    /// Runs while the server is waited for, where that is bounded.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Talk {
    /// Whether all of the request was sent.
    fn is_sent(&self) -> bool {
        !self.out.has_remaining() && self.broken.is_none()
    }

    fn poll(&mut self, room: usize, cx: &mut Context<'_>) -> Poll<Result<usize, Box<Error>>> {
        self.poll_send(cx);
        self.input.reserve(room);
        let read = std::pin::pin!(self.link.read_buf(&mut self.input)).poll(cx);
        match read {
            Poll::Ready(Ok(0)) => Poll::Ready(self.broken.take().map_or(Ok(0), Err)),
            Poll::Ready(Ok(count)) => {
                self.patience = None;
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => {
                let read = Err(error).or_err(ErrorType::ReadError, "while reading the answer");
                Poll::Ready(self.broken.take().map_or(read, Err))
            }
            Poll::Pending => self.poll_patience(cx).map(Err),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) {
        while self.out.has_remaining() {
            match Pin::new(&mut self.link).poll_write(cx, self.out.chunk()) {
                Poll::Ready(Ok(count @ 1..)) => {
                    self.out.advance(count);
                    self.patience = None;
                }
                Poll::Ready(failed) => {
                    // It may have answered before it closed. If it has not, this is why.
                    let error = failed.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into());
                    self.broken =
                        Some(Error::because(ErrorType::WriteError, "while sending the request", error));
                    self.out = Bytes::new().chain(Bytes::new());
                }
                Poll::Pending => return,
            }
        }
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        let (limit, kind) = match self.out.has_remaining() {
            true => (self.write_limit, ErrorType::WriteTimedout),
            false => (self.read_limit, ErrorType::ReadTimedout),
        };
        let Some(limit) = limit else { return Poll::Pending };
        let timer = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Error::explain(kind, "while the server was waited for"))
    }
}
