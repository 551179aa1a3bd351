//! Requests that a panic ended: a defect costs the one in which it shows. It is answered with 500 if nothing of an answer
//! had been sent; else its answer is cut off.
//!
//! What the proxy had begun to record is recorded by its `Drop` while the stack unwinds, which also leaves the
//! [`LastWord`] for the client. Here is what is common to all: the log, and the answer.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};

use super::connection::{Exchange, LastWord};
use super::edge::Edge;
use super::refuse;
use super::stream::EdgeStream;
use crate::base::problem::{Form, Problem};
use crate::base::reason::Reason;
use crate::telemetry::access::AccessRecord;
use crate::telemetry::request_id::RequestId;

/// Answers on an HTTP/1 connection, which is closed then. `left` is its stream, if that was found.
pub(super) async fn answer<A>(
    edge: &Edge<A>,
    left: Option<Box<EdgeStream>>,
    exchange: &Exchange,
    said: &str,
) {
    let word = note(edge, exchange, said);
    let Some(mut stream) = left.filter(|_| exchange.is_unanswered()) else { return };
    stream.start_over();
    let (head, body) = answer_of(word);
    let mut text = b"HTTP/1.1 500 Internal Server Error\r\n".to_vec();
    for (name, value) in head.headers() {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"connection: close\r\n\r\n");
    text.extend_from_slice(&body);
    stream.write_answer(&text, refuse::ANSWER_TIMEOUT).await;
}

/// Tells of the panic, and records its request unless the proxy did.
pub(super) fn note<A>(edge: &Edge<A>, exchange: &Exchange, said: &str) -> LastWord {
    exchange.note_panic();
    // What waited to be taken up: it is recorded when it is dropped.
    drop(exchange.take_prepared());
    let word = word_for(exchange);
    if !word.recorded {
        let mut record = AccessRecord::new();
        record.request_id = Some(word.request_id.clone());
        record.request_length = exchange.head_bytes;
        let (connection, began) = (&exchange.connection, exchange.began);
        refuse::note(edge, connection, Reason::Internal, PANICKED, began, &Method::default(), record);
    }
    tracing::error!(request = word.request_id.as_str(), "request ended by a panic: {said}");
    word
}

const PANICKED: &str = "the gateway panicked before it had looked at the request";

/// What was left for the client, or what is said to everybody.
pub(super) fn word_for(exchange: &Exchange) -> LastWord {
    exchange.last_word().unwrap_or_else(|| {
        let request_id = RequestId::random();
        let word = LastWord { request_id, form: Form::Json, is_head: false, hsts: None, recorded: false };
        exchange.leave_word(word.clone());
        word
    })
}

/// The 500 for a client that is told `word`.
pub(super) fn answer_of(word: LastWord) -> (Response<()>, Bytes) {
    let LastWord { request_id, form, is_head, hsts, .. } = word;
    let problem = Problem::new(Reason::Internal);
    let body = Bytes::from(problem.body(form, request_id.as_str()));
    let mut head = Response::new(());
    let status = if form == Form::Grpc { 200 } else { problem.status() };
    *head.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    let headers = head.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Problem::content_type(form)));
    if form == Form::Grpc {
        headers.insert("grpc-status", u16::from(problem.reason.grpc_status()).into());
        headers.insert("grpc-message", HeaderValue::from_static(problem.reason.detail()));
    } else {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONTENT_LENGTH, body.len().into());
    }
    if let Ok(id) = HeaderValue::from_str(request_id.as_str()) {
        headers.insert("x-request-id", id);
    }
    if let Some(hsts) = hsts {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts);
    }
    (head, if is_head { Bytes::new() } else { body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_answered_in_his_own_form() {
        let word = |form, is_head| LastWord {
            request_id: RequestId::random(),
            form,
            is_head,
            hsts: None,
            recorded: true,
        };
        let (head, body) = answer_of(word(Form::Json, false));
        assert_eq!(
            (head.status().as_u16(), &head.headers()["content-type"]),
            (500, &HeaderValue::from_static("application/problem+json"))
        );
        let id = head.headers()["x-request-id"].to_str().unwrap().to_owned();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&json["code"], &json["request_id"]), (&"gateway.internal".into(), &id.into()));
        let (head, body) = answer_of(word(Form::Grpc, false));
        assert_eq!(
            (head.status().as_u16(), &head.headers()["grpc-status"]),
            (200, &HeaderValue::from_static("13"))
        );
        assert!(body.is_empty() && !head.headers().contains_key("content-length"));
        let (head, body) = answer_of(word(Form::Html, true));
        assert!(body.is_empty() && head.headers()["content-length"] != "0");
    }
}
