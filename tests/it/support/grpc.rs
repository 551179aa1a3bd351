//! A minimal gRPC echo, framed by hand: a length-prefixed message is all that gRPC adds to HTTP/2.
//!
//! `/echo.Echo/Unary` answers the message, `/echo.Echo/Stream` answers it three times, `/echo.Echo/Chat` answers each
//! message as it comes, `/echo.Echo/Fail` answers NOT_FOUND without a message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};

use super::answer::{Body, BoxError, Fixed, frames};
use super::upstream::Seen;

/// One uncompressed message with its prefix.
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(message);
    framed.freeze()
}

/// The messages of a whole body; panics when it ends inside one.
pub fn messages(mut body: Bytes) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while let Some(message) = take(&mut body) {
        messages.push(message);
    }
    assert!(body.is_empty(), "an incomplete message is left: {body:?}");
    messages
}

fn take(buffer: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(u32::from_be_bytes(buffer.get(1..5)?.try_into().unwrap())).unwrap();
    (buffer.len() >= 5 + length).then(|| {
        buffer.advance(5);
        buffer.split_to(length)
    })
}

pub(super) fn answer(seen: &Seen, body: Incoming) -> Response<Body> {
    let head = Fixed::new(200, Bytes::new()).with("content-type", "application/grpc");
    if !super::upstream::content_type(seen).starts_with("application/grpc") {
        return Fixed::new(415, Bytes::new()).full();
    }
    let (copies, in_order) = match seen.uri.path() {
        "/echo.Echo/Unary" => (1, false),
        "/echo.Echo/Stream" => (3, false),
        "/echo.Echo/Chat" => (1, true),
        "/echo.Echo/Fail" => {
            return head.with("grpc-status", "5").with("grpc-message", "no such thing").full();
        }
        _ => return head.with("grpc-status", "12").full(),
    };
    if in_order {
        return head.response(chat(body));
    }
    let whole = async move {
        let message = body.collect().await.map_err(BoxError::from)?.to_bytes();
        Ok::<_, BoxError>(message)
    };
    let stream = futures_util::stream::unfold((Some(whole), Bytes::new(), copies), move |state| async move {
        match state {
            (Some(whole), ..) => match whole.await {
                Ok(message) => Some((Ok(Frame::data(message.clone())), (None, message, copies - 1))),
                Err(error) => Some((Err(error), (None, Bytes::new(), -1))),
            },
            (None, message, 0) => Some((Ok(Frame::trailers(ok())), (None, message, -1))),
            (None, message, left) if left > 0 => {
                Some((Ok(Frame::data(message.clone())), (None, message, left - 1)))
            }
            _ => None,
        }
    });
    head.response(frames(stream))
}

/// Answers each piece as it comes, then the status.
fn chat(body: Incoming) -> Body {
    frames(futures_util::stream::unfold(Some(body), |body| async {
        let mut body = body?;
        loop {
            match body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return Some((Ok(Frame::data(data)), Some(body))),
                    Err(_) => continue,
                },
                Some(Err(error)) => return Some((Err(error.into()), None)),
                None => return Some((Ok(Frame::trailers(ok())), None)),
            }
        }
    }))
}

fn ok() -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())])
}
