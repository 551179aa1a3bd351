//! Requests that never become one: answered, logged and counted like any other, then the connection is closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::Method;

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
    edge.metrics.request_rejected(reason);
    let serial = connection.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let request_id = RequestId::random();
    // What the client can read is unknown: the head that would say so is what is broken.
    let body = Problem::new(reason).body(Form::Json, request_id.as_str());
    let status = reason.status();
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Request-Id: {}\r\nConnection: close\r\n\r\n",
        phrase(status),
        Problem::content_type(Form::Json),
        body.len(),
        request_id.as_str(),
    );
    let sent_before = connection.bytes_written.load(Ordering::Relaxed);
    stream.write_answer(format!("{head}{body}").as_bytes(), ANSWER_TIMEOUT).await;
    let sent = connection.bytes_written.load(Ordering::Relaxed) - sent_before;

    if let Some(metrics) = edge.rules.unmatched_metrics() {
        let method =
            line.split(|byte| *byte == b' ').next().and_then(|method| Method::from_bytes(method).ok());
        let time = clock::now().saturating_duration_since(began).as_secs_f64();
        metrics.finish(&method.unwrap_or_default(), status, time, 0, body.len() as u64);
    }
    let Some(log) = edge.rules.access_log() else { return };
    let mut record = AccessRecord::new();
    record.ended = clock::wall();
    record.request_time = clock::now().saturating_duration_since(began);
    record.client = Some(connection.peer.ip());
    record.client_port = Some(connection.peer.port());
    record.peer = connection.peer.socket();
    record.server_port = Some(connection.local_port).filter(|port| *port != 0);
    record.connection = connection.serial;
    record.connection_requests = u32::try_from(serial).unwrap_or(u32::MAX);
    record.tls = connection.tls.as_ref().map(|tls| tls.names);
    record.status = status;
    record.bytes_sent = sent;
    record.body_bytes_sent = sent.saturating_sub(head.len() as u64);
    record.completed = sent as usize == head.len() + body.len();
    record.request_id = Some(request_id);
    record.reason = Some(reason);
    record.request_length = line.len() as u64;
    record.set(Field::RequestLine, line);
    if let Some(listener) = edge.rules.listener(connection.listener) {
        record.set(Field::Listener, &listener.name);
    }
    log.submit(record);
}
