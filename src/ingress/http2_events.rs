//! What happens on an HTTP/2 connection: requests, from the library; and what it keeps to itself, from its frames.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;
use pingora::protocols::Stream;

use super::frames::{End, Ended, EndedBy, FrameWatch};
use super::refuse::LEFT_IN_HEAD;
use crate::base::reason::Reason;

/// A connection, and what its frames tell.
pub(super) struct Events {
    pub(super) h2: h2::server::Connection<Stream, Bytes>,
    pub(super) frames: Arc<FrameWatch>,
    header_timeout: Duration,
    /// Runs while the header block of this stream is being received.
    block: Option<(u32, Sleep)>,
    told_flood: bool,
    told_broken: bool,
    /// Of the client's, so far.
    goodbyes: u32,
    told_timeout: bool,
}

type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// What happened.
#[expect(clippy::large_enum_variant, reason = "moved once; a box would be an allocation a request")]
pub(super) enum Event {
    /// A request came, from whose path a fragment may have been taken off.
    Request { request: Request<RecvStream>, answer: SendResponse<Bytes>, has_fragment: bool },
    /// The library refused a request: why, and what the log says of it.
    Refused(Reason, &'static str),
    /// The client only keeps us busy, mostly with frames of this kind. Told once.
    Flooded(&'static str),
    /// The client broke the rules of HTTP/2, with this error for the connection. Told once.
    Broken(u32),
    /// The client said goodbye: it asks for nothing more. Told again when it says so again.
    Leaving,
    /// A header block was not complete within `limits.header_timeout`. Told once.
    HeadTimeout,
    /// The connection is over.
    Closed,
}

impl Events {
    pub(super) fn new(
        h2: h2::server::Connection<Stream, Bytes>,
        frames: Arc<FrameWatch>,
        header_timeout: Duration,
    ) -> Self {
        Self {
            h2,
            frames,
            header_timeout,
            block: None,
            told_flood: false,
            told_broken: false,
            goodbyes: 0,
            told_timeout: false,
        }
    }

    /// Ends the connection, with a word to its client, and leaves in `why` what the log says of requests that it takes
    /// along. Once: what comes of that is no second reason.
    pub(super) fn give_up(
        &mut self,
        why: &mut Option<(Reason, &'static str)>,
        reason: Reason,
        rule: &'static str,
    ) {
        if why.is_none() {
            *why = Some((reason, rule));
            self.h2.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
        }
    }

    /// Drives the connection until something happens.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        match self.h2.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, answer)))) => {
                let has_fragment = self.frames.handed_over(answer.stream_id().as_u32());
                return Poll::Ready(Event::Request { request, answer, has_fragment });
            }
            Poll::Ready(None | Some(Err(_))) => {
                let ended = self.frames.glance().ended;
                return Poll::Ready(ended.map_or(Event::Closed, refused));
            }
            Poll::Pending => {}
        }
        // Only now: every stream that is handed over at all has been.
        let glance = self.frames.glance();
        if let Some(ended) = glance.ended {
            return Poll::Ready(refused(ended));
        }
        if glance.flooded && !std::mem::replace(&mut self.told_flood, true) {
            return Poll::Ready(Event::Flooded(self.frames.most_received()));
        }
        if let Some(code) = glance.broken
            && !std::mem::replace(&mut self.told_broken, true)
        {
            return Poll::Ready(Event::Broken(code));
        }
        if glance.goodbyes != std::mem::replace(&mut self.goodbyes, glance.goodbyes) {
            return Poll::Ready(Event::Leaving);
        }
        match glance.block {
            Some(stream) => self.poll_block(stream, cx),
            None => {
                self.block = None;
                Poll::Pending
            }
        }
    }

    fn poll_block(&mut self, stream: u32, cx: &mut Context<'_>) -> Poll<Event> {
        if self.told_timeout {
            return Poll::Pending;
        }
        let sleep = match &mut self.block {
            Some((known, sleep)) if *known == stream => sleep,
            other => {
                let sleep = Box::pin(tokio::time::sleep(self.header_timeout));
                &mut other.insert((stream, sleep)).1
            }
        };
        std::task::ready!(sleep.as_mut().poll(cx));
        self.told_timeout = true;
        Poll::Ready(Event::HeadTimeout)
    }
}

/// Resets by a client that are nothing special. The library gives up after twenty at once.
const RESETS_COMMON: u32 = 16;

/// What the log says of a stream that the library ended.
fn refused(ended: Ended) -> Event {
    let (reason, rule) = match ended.by {
        EndedBy::Answer => (Reason::HeaderTooLarge, "the header fields are larger than limits.header_bytes"),
        EndedBy::Reset(code) => match h2::Reason::from(code) {
            h2::Reason::REFUSED_STREAM => (Reason::Overloaded, "more streams at once than were offered"),
            h2::Reason::PROTOCOL_ERROR => {
                (Reason::RequestMalformed, "the header fields break HTTP/2's rules")
            }
            h2::Reason::STREAM_CLOSED => (Reason::RequestMalformed, "frames on a closed HTTP/2 stream"),
            h2::Reason::FLOW_CONTROL_ERROR => (Reason::RequestMalformed, "HTTP/2 flow control was broken"),
            _ => (Reason::RequestMalformed, "the HTTP/2 stream was reset by the gateway"),
        },
    };
    Event::Refused(reason, rule)
}

/// What the log says of requests that a flood took along.
pub(super) const FLOOD: &str = "the connection was ended: a flood of HTTP/2 frames";

/// What the log says of a request that was being sent when the connection came to its `end`.
pub(super) fn end_of(end: &End) -> (Reason, &'static str) {
    match end.error.map(h2::Reason::from) {
        None => (Reason::ClientClosed, LEFT_IN_HEAD),
        Some(h2::Reason::COMPRESSION_ERROR) => {
            (Reason::RequestMalformed, "the header block cannot be decompressed")
        }
        // The library's bound on streams that are reset before they were looked at.
        Some(h2::Reason::ENHANCE_YOUR_CALM) if end.resets > RESETS_COMMON => {
            (Reason::RequestMalformed, FLOOD)
        }
        // Its bounds on header blocks: their size, and the pieces they come in.
        Some(h2::Reason::ENHANCE_YOUR_CALM) => {
            (Reason::HeaderTooLarge, "the header block is far larger than limits.header_bytes")
        }
        Some(h2::Reason::FRAME_SIZE_ERROR) => (Reason::RequestMalformed, "an HTTP/2 frame of a wrong size"),
        Some(_) => (Reason::RequestMalformed, "HTTP/2's rules were broken"),
    }
}
