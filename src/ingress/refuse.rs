//! Requests that never become one: answered, logged and counted like any other, then the connection is closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{Method, Version};

use super::connection::Connection;
use super::edge::Edge;
use super::stream::EdgeStream;
use crate::base::clock;
use crate::base::problem::{Form, Problem};
use crate::base::reason::{Reason, phrase};
use crate::telemetry::access::{AccessRecord, Field};
use crate::telemetry::request_id::RequestId;

/// Time the client has to take the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers a head that was refused for `reason`; `line` is what came of its request line.
pub(super) async fn answer<A>(
    edge: &Edge<A>,
    stream: &mut EdgeStream,
    connection: &Arc<Connection>,
    reason: Reason,
    line: &[u8],
    began: Instant,
) {
    let request_id = RequestId::random();
    // What the client can read is unknown: the head that would say so is what is broken.
    let body = Problem::new(reason).body(Form::Json, request_id.as_str());
    let status = reason.status();
    let listener = edge.rules.listener(connection.listener);
    let hsts = listener.as_ref().and_then(|listener| listener.tls.as_ref()?.hsts.as_ref()?.to_str().ok());
    let hsts = hsts.map(|value| format!("Strict-Transport-Security: {value}\r\n")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Request-Id: {}\r\n{hsts}Connection: close\r\n\r\n",
        phrase(status),
        Problem::content_type(Form::Json),
        body.len(),
        request_id.as_str(),
    );
    let sent_before = connection.bytes_written.load(Ordering::Relaxed);
    stream.write_answer(format!("{head}{body}").as_bytes(), ANSWER_TIMEOUT).await;
    let sent = connection.bytes_written.load(Ordering::Relaxed) - sent_before;

    let mut record = AccessRecord::new();
    record.bytes_sent = sent;
    record.body_bytes_sent = sent.saturating_sub(head.len() as u64);
    record.completed = sent as usize == head.len() + body.len();
    record.request_id = Some(request_id);
    record.request_length = line.len() as u64;
    record.set(Field::RequestLine, line);
    let method = line.split(|byte| *byte == b' ').next().and_then(|method| Method::from_bytes(method).ok());
    note(edge, connection, reason, began, &method.unwrap_or_default(), record);
}

/// Records an HTTP/2 stream that the library refused: with 400 or a reset, before anything of it could be seen.
pub(super) fn stream<A>(edge: &Edge<A>, connection: &Connection) {
    let mut record = AccessRecord::new();
    record.version = Some(Version::HTTP_2);
    record.request_id = Some(RequestId::random());
    note(edge, connection, Reason::RequestMalformed, clock::now(), &Method::default(), record);
}

/// Counts a refused request and logs it.
fn note<A>(
    edge: &Edge<A>,
    connection: &Connection,
    reason: Reason,
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
    record.peer = connection.peer.socket();
    record.server_port = Some(connection.local_port).filter(|port| *port != 0);
    record.connection = connection.serial;
    record.connection_requests = u32::try_from(serial).unwrap_or(u32::MAX);
    connection.note_tls(&mut record);
    record.status = status;
    record.reason = Some(reason);
    if let Some(listener) = edge.rules.listener(connection.listener) {
        record.set(Field::Listener, &listener.name);
    }
    log.submit(record);
}
