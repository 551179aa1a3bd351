//! Requests that never become one: answered where they can be, logged and counted like any other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Version};

use super::connection::Connection;
use super::edge::Edge;
use super::stream::EdgeStream;
use crate::base::clock;
use crate::base::problem::{Form, Problem};
use crate::base::reason::{Reason, phrase};
use crate::telemetry::access::{AccessRecord, Field};
use crate::telemetry::request_id::RequestId;

/// Time the client has to take the answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers an HTTP/1 head that was refused for `reason`, to be followed by the end of the connection.
///
/// `rule` is for the log alone: which rule it broke. `line` is what came of its request line.
pub(super) async fn answer<A>(
    edge: &Edge<A>,
    stream: &mut EdgeStream,
    connection: &Arc<Connection>,
    reason: Reason,
    rule: &'static str,
    line: &[u8],
    began: Instant,
) {
    let request_id = RequestId::random();
    // What the client can read is unknown: the head that would say so is what is broken.
    let body = Problem::new(reason).body(Form::Json, request_id.as_str());
    let status = reason.status();
    let hsts = hsts(edge, connection);
    let hsts = hsts.as_ref().and_then(|value| value.to_str().ok());
    let hsts = hsts.map(|value| format!("Strict-Transport-Security: {value}\r\n")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Request-Id: {}\r\n{hsts}Connection: close\r\n\r\n",
        phrase(status),
        Problem::content_type(Form::Json),
        body.len(),
        request_id.as_str(),
    );
    // What of the head is understood: that its answer has no body (RFC 9110 section 9.3.2).
    let body = if line.starts_with(b"HEAD ") { String::new() } else { body };
    let sent_before = connection.bytes_written.load(Ordering::Relaxed);
    stream.write_answer(format!("{head}{body}").as_bytes(), ANSWER_TIMEOUT).await;
    let sent = connection.bytes_written.load(Ordering::Relaxed) - sent_before;

    let mut record = of_line(line);
    record.bytes_sent = sent;
    record.body_bytes_sent = sent.saturating_sub(head.len() as u64);
    record.completed = sent as usize == head.len() + body.len();
    record.request_id = Some(request_id);
    note(edge, connection, reason, rule, began, &method_of(line), record);
}

/// The listener's `Strict-Transport-Security`: every answer says it.
pub(super) fn hsts<A>(edge: &Edge<A>, connection: &Connection) -> Option<HeaderValue> {
    edge.rules.listener(connection.listener)?.tls.as_ref()?.hsts.clone()
}

/// Records an HTTP/1 head whose client left before it was complete; `line` is what came of its request line.
pub(super) fn abandoned<A>(edge: &Edge<A>, connection: &Connection, line: &[u8], began: Instant) {
    unanswered(edge, connection, Reason::ClientClosed, LEFT_IN_HEAD, line, began);
}

/// Records an HTTP/1 head that was refused and is not answered.
pub(super) fn unanswered<A>(
    edge: &Edge<A>,
    connection: &Connection,
    reason: Reason,
    rule: &'static str,
    line: &[u8],
    began: Instant,
) {
    note(edge, connection, reason, rule, began, &method_of(line), of_line(line));
}

/// Whether a client that begins with `line` expects no answer of HTTP/1: three words that name neither a version nor
/// anything a target could be, or the first line of HTTP/2's preface. An answer would be taken for frames (RFC 9113 section
/// 3.4).
pub(super) fn is_foreign(line: &[u8]) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    match words.as_slice() {
        [b"PRI", b"*", b"HTTP/2.0"] => true,
        [method, target, version] => {
            let is_word = |word: &[u8]| !word.is_empty() && word.iter().all(u8::is_ascii_alphabetic);
            is_word(method) && is_word(target) && is_word(version)
        }
        _ => false,
    }
}

/// What the log says of a client that left in the middle of a head.
pub(super) const LEFT_IN_HEAD: &str = "the client left before the head was complete";

/// Records an HTTP/2 request of which nothing can be seen: the library, or the client, ended it.
pub(super) fn unseen<A>(edge: &Edge<A>, connection: &Connection, reason: Reason, rule: &'static str) {
    let mut record = AccessRecord::new();
    record.version = Some(Version::HTTP_2);
    record.request_id = Some(RequestId::random());
    note(edge, connection, reason, rule, clock::now(), &Method::default(), record);
}

/// Records an HTTP/2 request with `head`, which was answered with `reason` and a body of `sent` bytes.
pub(super) fn seen<A>(
    edge: &Edge<A>,
    connection: &Connection,
    head: &http::request::Parts,
    refusal: (Reason, &'static str),
    request_id: RequestId,
    sent: Option<u64>,
) {
    let mut record = AccessRecord::new();
    record.version = Some(Version::HTTP_2);
    record.request_id = Some(request_id);
    record.completed = sent.is_some();
    record.body_bytes_sent = sent.unwrap_or(0);
    record.bytes_sent = record.body_bytes_sent;
    record.set(Field::Method, head.method.as_str());
    if let Some(target) = head.uri.path_and_query() {
        record.set(Field::Target, target.as_str());
    }
    note(edge, connection, refusal.0, refusal.1, clock::now(), &head.method, record);
}

fn of_line(line: &[u8]) -> Box<AccessRecord> {
    let mut record = AccessRecord::new();
    record.request_length = line.len() as u64;
    record.set(Field::RequestLine, line);
    record
}

/// The method of a request line of which only a part may have come.
fn method_of(line: &[u8]) -> Method {
    let method = line.split(|byte| *byte == b' ').next().and_then(|method| Method::from_bytes(method).ok());
    method.unwrap_or_default()
}

/// Counts a refused request and logs it.
pub(super) fn note<A>(
    edge: &Edge<A>,
    connection: &Connection,
    reason: Reason,
    rule: &'static str,
    began: Instant,
    method: &Method,
    mut record: Box<AccessRecord>,
) {
    let serial = connection.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let (status, time) = (reason.status(), clock::now().saturating_duration_since(began));
    edge.metrics.request_rejected(reason);
    if let Some(metrics) = edge.rules.unmatched_metrics() {
        metrics.finish(method, status, time.as_secs_f64(), 0, record.body_bytes_sent);
    }
    let Some(log) = edge.rules.access_log() else { return };
    record.ended = clock::wall();
    record.request_time = time;
    record.client = Some(connection.peer.ip());
    record.client_port = Some(connection.peer.port());
    record.peer = connection.socket_peer.socket();
    record.local = connection.local;
    record.proxy_header = connection.proxy_header.map(|header| (header.source, header.destination));
    record.server_port = Some(connection.local_port).filter(|port| *port != 0);
    record.connection = connection.serial;
    record.connection_requests = u32::try_from(serial).unwrap_or(u32::MAX);
    connection.note_tls(&mut record);
    record.status = status;
    record.reason = Some(reason);
    record.set(Field::Detail, rule);
    if let Some(listener) = edge.rules.listener(connection.listener) {
        record.set(Field::Listener, &listener.name);
    }
    log.submit(record);
}
