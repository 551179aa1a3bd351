//! The ends that the `h2` library gives of one stream, and what is the same for all who hold them: how an answer goes out,
//! and that one which is not whole is never taken for it.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, DATE, HeaderMap, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{Response, StatusCode};
use pingora::protocols::http::date::get_cached_date;

use super::broken;
use super::connection::Exchange;
use crate::base::panics;

/// Both directions of a stream.
pub(super) struct Wire {
    pub(super) body: RecvStream,
    /// Bytes of the body that are to come, where its head says how many.
    left: Option<u64>,
    /// The last of them, until it is known that nothing follows.
    held: Option<Bytes>,
    answer: SendResponse<Bytes>,
    /// Where the answer's body goes, once its head was sent.
    pub(super) answer_body: Option<SendStream<Bytes>>,
    /// Whether the end of the answer was sent, or the stream was given up.
    pub(super) ended: bool,
    exchange: Arc<Exchange>,
}

impl Wire {
    /// `length` is what the request's head says of its body.
    pub(super) fn new(
        body: RecvStream,
        length: Option<u64>,
        answer: SendResponse<Bytes>,
        exchange: Arc<Exchange>,
    ) -> Self {
        Self { body, left: length, held: None, answer, answer_body: None, ended: false, exchange }
    }

    /// The next piece of the request's body; `None` behind its end. The last piece of a body with a length comes with its end:
    /// what is longer than it says is malformed and must not reach anybody as if it were whole (RFC 9113 section 8.1.1).
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        loop {
            let piece = match ready!(self.body.poll_data(cx)) {
                Some(Ok(piece)) => piece,
                None => return Poll::Ready(self.held.take().map(Ok)),
                failed => return Poll::Ready(failed),
            };
            if let Some(left) = self.left.as_mut() {
                // The library lets no more pass.
                *left = left.saturating_sub(piece.len() as u64);
                if *left == 0 && !self.body.is_end_stream() {
                    self.held.get_or_insert(piece);
                    continue;
                }
            }
            // Nothing but an empty piece comes behind the last.
            return Poll::Ready(Some(Ok(self.held.take().unwrap_or(piece))));
        }
    }

    /// Sends the head of the answer, once; with `end` it is all of it.
    pub(super) fn send_head(&mut self, mut head: Response<()>, end: bool) -> Result<(), h2::Error> {
        if self.ended || self.answer_body.is_some() {
            return Ok(());
        }
        remove_connection_fields(head.headers_mut());
        if !head.headers().contains_key(DATE) {
            // RFC 9110 section 6.6.1: who receives an answer without it and passes it on adds it.
            head.headers_mut().append(DATE, get_cached_date());
        }
        self.answer_body = Some(self.answer.send_response(head, end)?);
        self.ended |= end;
        Ok(())
    }

    /// Sends an interim answer (RFC 9110 section 15.2), of which there may be any number before the answer itself.
    pub(super) fn send_interim(&mut self, mut head: Response<()>) -> Result<(), h2::Error> {
        // HTTP/2 has no 101 (RFC 9113 section 8.6).
        if self.ended || self.answer_body.is_some() || head.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        remove_connection_fields(head.headers_mut());
        self.answer.send_informational(head)
    }

    /// Waits for the client to give the request up: by what it says, or by leaving.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reason, h2::Error>> {
        match self.answer_body.as_mut() {
            Some(body) => body.poll_reset(cx),
            None => self.answer.poll_reset(cx),
        }
    }

    /// Ends the stream with an error, unless it was ended well.
    pub(super) fn reset(&mut self, reason: Reason) {
        if !self.ended {
            self.ended = true;
            self.answer.send_reset(reason);
        }
    }
}

impl Wire {
    /// A panic ends this request, and no other stream: it is answered, unless the answer had begun.
    fn answer_for_panic(&mut self) {
        if self.ended || self.answer_body.is_some() {
            return self.reset(Reason::INTERNAL_ERROR);
        }
        let (head, body) = broken::answer_of(broken::word_for(&self.exchange));
        let sent = self.send_head(head, body.is_empty());
        if let (Ok(()), Some(stream)) = (sent, self.answer_body.as_mut().filter(|_| !body.is_empty())) {
            // It fails where the client has left meanwhile.
            self.ended = stream.send_data(body, true).is_ok();
        }
    }
}

impl Drop for Wire {
    /// What was not answered whole must not look as if it were: some clients take the reset that a dropped stream gets
    /// (CANCEL) for its end.
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Should the library be what is broken, a second panic must not end the process.
            drop(panics::caught(|| self.answer_for_panic()));
        } else {
            self.reset(Reason::INTERNAL_ERROR);
        }
    }
}

/// Whether the library ended the stream because of what the client sent on it: a body that does not have the announced
/// length, or trailers that are none.
pub(super) fn is_malformed(error: &h2::Error) -> bool {
    error.is_library() && error.is_reset() && error.reason() == Some(Reason::PROTOCOL_ERROR)
}

const OF_CONNECTION: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Takes out what HTTP/2 forbids (RFC 9113 section 8.2.2); the library refuses to send it.
fn remove_connection_fields(headers: &mut HeaderMap) {
    if headers.keys().any(|name| OF_CONNECTION.contains(name)) {
        for name in &OF_CONNECTION {
            headers.remove(name);
        }
    }
}
