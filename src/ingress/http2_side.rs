//! One stream of an HTTP/2 connection as the gateway's own forwarder reads and writes it: what [`EdgeStream`] is for a
//! connection of HTTP/1, by the same bounds on time.
//!
//! All of it is polled, by whoever polls the connection, too. Nothing is written here: what is sent waits in the library
//! until the connection is polled next, and leaves together with what other streams send.
//!
//! [`EdgeStream`]: super::EdgeStream

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use parking_lot::Mutex;
use pingora::protocols::Digest;

use super::alarm::Alarm;
use super::connection::{Connection, Exchange};
use super::http2_outlet::Outlet;
use super::http2_stream::Http2Stream;
use super::http2_wire::{Wire, is_malformed};
use super::pace::Pace;
use crate::base::clock;

/// A stream with a request on it.
pub struct Http2Side {
    head: Parts,
    wire: Wire,
    /// What is left for all streams of the connection.
    outlet: Arc<Outlet>,
    /// All of the request's body was handed out.
    is_read: bool,
    exchange: Arc<Exchange>,
    alarm: OwnAlarm,
    /// Longest time in which the client takes nothing.
    write_timeout: Duration,
    /// Since when the client's body is waited for.
    awaited: Option<Instant>,
    /// How the client's body keeps up.
    reading: Pace,
    /// Since when the client has no room.
    stalled: Option<Instant>,
    /// How the client keeps up with the answer.
    writing: Pace,
}

impl std::fmt::Debug for Http2Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http2Side").field("head", &self.head).finish_non_exhaustive()
    }
}

impl Http2Side {
    /// The stream on whose `wire` a request with this `head` came; `outlet` is its connection's. `silence`: the longest
    /// time in which a client may let nothing move.
    pub(super) fn new(
        head: Parts,
        wire: Wire,
        outlet: Arc<Outlet>,
        exchange: Arc<Exchange>,
        alarm: OwnAlarm,
        silence: Duration,
    ) -> Self {
        Self {
            head,
            is_read: wire.body.is_end_stream(),
            wire,
            outlet,
            exchange,
            alarm,
            write_timeout: silence,
            awaited: None,
            reading: Pace::new(silence),
            stalled: None,
            writing: Pace::new(silence),
        }
    }

    /// The same for Pingora, as long as nothing was read or written.
    pub(super) fn into_session(self, digest: Arc<Digest>) -> Http2Stream {
        Http2Stream::new(self.head, self.wire, digest, self.exchange, self.write_timeout)
    }

    /// The head of the request, to be changed at will.
    pub fn head_mut(&mut self) -> &mut Parts {
        &mut self.head
    }

    /// Whether all of the request was handed out.
    pub fn is_message_done(&self) -> bool {
        self.is_read
    }

    /// The next piece of the request's body; `None` behind its end. The client may send more from now on.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if self.is_read {
            return Poll::Ready(Ok(None));
        }
        let piece = match self.wire.poll_data(cx) {
            Poll::Ready(Some(Ok(piece))) => piece,
            Poll::Ready(None) => {
                self.awaited = None;
                self.is_read = true;
                return Poll::Ready(Ok(None));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.read_error(error))),
            Poll::Pending => {
                if self.stalled.is_none() {
                    // Whoever is waited for to read is not waited for to send.
                    self.awaited.get_or_insert_with(clock::now);
                }
                return self.poll_time(cx).map(Err);
            }
        };
        let waited = self.awaited.take().map(|since| clock::now().saturating_duration_since(since));
        if waited.is_some() || self.reading.left() < self.reading.most() {
            self.reading.moved(waited.unwrap_or_default(), piece.len() as u64, self.exchange.body_rate());
        }
        // It fails for a stream that is over: the next read tells.
        let _over = self.wire.body.flow_control().release_capacity(piece.len());
        self.is_read = self.wire.body.is_end_stream();
        Poll::Ready(Ok(Some(piece)))
    }

    fn read_error(&self, error: h2::Error) -> io::Error {
        if is_malformed(&error) {
            self.exchange.body_malformed.store(true, Ordering::Relaxed);
        }
        io::Error::other(error)
    }

    /// Waits for nothing but the end: that the client gives the request up, or that its time or the server's silence is
    /// over.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.awaited = None;
        match self.poll_given_up(cx) {
            Poll::Pending => self.poll_time(cx),
            given_up => given_up,
        }
    }

    /// Waits for the client to give the request up, however long that takes.
    pub fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let reset = ready!(self.wire.poll_reset(cx));
        while !self.is_read {
            // Whose doing it was shows here, behind what came before.
            match self.wire.body.poll_data(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(self.read_error(error)),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(match reset {
            Ok(reason) => {
                io::Error::new(io::ErrorKind::UnexpectedEof, format!("the client reset the stream: {reason}"))
            }
            Err(error) => io::Error::new(io::ErrorKind::UnexpectedEof, error),
        })
    }

    /// Sends an interim answer.
    ///
    /// # Errors
    /// If the client has given the request up.
    pub fn send_interim(&mut self, head: Response<()>) -> io::Result<()> {
        // Whoever waits to be asked for a body is waited for from now on.
        self.awaited = None;
        self.wire.send_interim(head).map_err(io::Error::other)
    }

    /// Sends the head of the answer; with `end` it is all of it.
    ///
    /// # Errors
    /// If the client has given the request up.
    pub fn send_head(&mut self, head: Response<()>, end: bool) -> io::Result<()> {
        self.wire.send_head(head, end).map_err(io::Error::other)
    }

    /// For how many of `wanted` bytes of the answer's body the client has room now. It is set aside for this stream until
    /// they are sent, or [`Http2Side::needs_no_room`] gives it back.
    pub fn room_now(&mut self, wanted: usize) -> usize {
        // Before the head nobody knows, and what is read then is not for the client as it is.
        let Some(body) = self.wire.answer_body.as_mut() else { return wanted };
        body.reserve_capacity(wanted);
        body.capacity().min(wanted).min(self.outlet.left())
    }

    /// There is nothing to be sent now: other streams can have the room.
    pub fn needs_no_room(&mut self) {
        if let Some(body) = self.wire.answer_body.as_mut() {
            body.reserve_capacity(0);
        }
    }

    /// Waits until the client has room for some of `wanted` bytes of the answer's body, which are not none, and says for how
    /// many.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let Some(body) = self.wire.answer_body.as_mut() else {
            return Poll::Ready(Err(io::Error::other("a body before its head")));
        };
        body.reserve_capacity(wanted);
        let mut room = body.capacity();
        while room == 0 {
            room = match body.poll_capacity(cx) {
                Poll::Ready(Some(Ok(room))) => room,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error))),
                Poll::Ready(None) => {
                    return Poll::Ready(Err(io::Error::other("the client gave the stream up")));
                }
                Poll::Pending => {
                    self.awaited = None;
                    self.stalled.get_or_insert_with(clock::now);
                    return self.poll_time(cx).map(Err);
                }
            };
        }
        room = room.min(self.outlet.left());
        if room == 0 {
            // The client takes nothing of what other streams have for it.
            self.outlet.wait(cx);
            self.awaited = None;
            self.stalled.get_or_insert_with(clock::now);
            return self.poll_time(cx).map(Err);
        }
        let waited = self.stalled.take().map(|since| clock::now().saturating_duration_since(since));
        if waited.is_some() {
            // Until now it was the client that was waited for.
            self.exchange.server_spoke();
        }
        let here = room.min(wanted);
        if waited.is_some() || self.writing.left() < self.writing.most() {
            self.writing.moved(waited.unwrap_or_default(), here as u64, self.exchange.body_rate());
        }
        Poll::Ready(Ok(here))
    }

    /// Sends `data`, for which there is room, as a part of the answer's body; with `end` as its last.
    ///
    /// # Errors
    /// If the client has given the request up.
    pub fn send_data(&mut self, data: Bytes, end: bool) -> io::Result<()> {
        if self.wire.ended {
            return Ok(());
        }
        let Some(body) = self.wire.answer_body.as_mut() else {
            return Err(io::Error::other("a body before its head"));
        };
        self.outlet.spend(data.len());
        body.send_data(data, end).map_err(io::Error::other)?;
        self.wire.ended |= end;
        Ok(())
    }

    /// Waits until something was waited for too long: whichever it is of what is waited for now.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let exchange = &*self.exchange;
            let alarms = exchange.connection.alarms();
            let rate = exchange.body_rate();
            // Who waits for the client to read does not wait for the server.
            let whole = match self.stalled {
                Some(_) => exchange.cut_off_at_moment().map(|(moment, _)| moment),
                None => exchange.wait_ends(),
            };
            let behind = match (self.stalled, self.awaited) {
                (Some(since), _) if rate > 0 => Some(since + self.write_timeout.min(self.writing.left())),
                (Some(since), _) => Some(since + self.write_timeout),
                (None, Some(since)) if rate > 0 => Some(since + self.reading.left()),
                _ => None,
            };
            let behind = behind.map(|at| alarms.moment(at));
            let Some(first) = whole.into_iter().chain(behind).min() else {
                self.alarm.clear();
                return Poll::Pending;
            };
            ready!(self.alarm.poll(first, cx));
            let why = if whole != Some(first) {
                if self.stalled.is_some() {
                    exchange.note_reader_too_slow();
                    "the client does not read"
                } else {
                    exchange.note_body_too_slow();
                    "the body is slower than limits.min_body_rate"
                }
            } else if self.stalled.is_some() || exchange.is_wait_over(first) {
                "waited for too long"
            } else {
                continue;
            };
            return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, why));
        }
    }
}

/// Alarms of streams that are over, for those that come: looking after a new one takes a lock of the whole process, which
/// no request is to take.
#[derive(Debug, Default)]
pub(super) struct SpareAlarms(Mutex<Vec<Arc<Alarm>>>);

impl SpareAlarms {
    /// An alarm for a stream of `connection`.
    pub(super) fn take(self: &Arc<Self>, connection: &Connection) -> OwnAlarm {
        let spare = self.0.lock().pop();
        OwnAlarm { alarm: spare.unwrap_or_else(|| connection.new_alarm()), set: 0, spare: self.clone() }
    }
}

/// Spare alarms kept for one connection.
const SPARE_MAX: usize = 32;

/// The alarm of one stream.
#[derive(Debug)]
pub(super) struct OwnAlarm {
    alarm: Arc<Alarm>,
    set: u64,
    spare: Arc<SpareAlarms>,
}

impl OwnAlarm {
    fn poll(&mut self, moment: u64, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.poll(moment, &mut self.set, cx)
    }

    fn clear(&mut self) {
        if self.set != 0 {
            self.alarm.clear();
            self.set = 0;
        }
    }
}

impl Drop for OwnAlarm {
    fn drop(&mut self) {
        self.clear();
        let mut spare = self.spare.0.lock();
        if spare.len() < SPARE_MAX {
            spare.push(self.alarm.clone());
        }
    }
}
