//! HTTP/2 on one connection: each stream is a task of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use http::{Method, header};
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::handshake;
use pingora::protocols::{Digest, Stream};
use tokio::sync::Notify;

use super::connection::{Connection, EXCHANGE, Exchange};
use super::cut_off::CutOff;
use super::edge::Edge;
use super::frames::FrameWatch;
use super::head::Rule;
use super::http2_events::{Event, Events, FLOOD, end_of};
use super::http2_stream::Http2Stream;
use super::stream::EdgeStream;
use super::{http2_head, refuse};
use crate::base::problem::{Form, Problem};
use crate::base::reason::Reason;
use crate::base::{clock, task};
use crate::config::snapshot::Limits;
use crate::telemetry::request_id::RequestId;

/// Streams a client may have open on one connection.
const STREAMS_MAX: u32 = 128;
/// Requests of one connection under way at once. A client that resets a stream may open another at once, while the
/// request on the first is still being let go of (CVE-2023-44487).
const STREAMS_SERVED_MAX: usize = 2 * STREAMS_MAX as usize;
/// Bytes a client may send ahead on one stream, and on all of a connection: what a connection can make us hold.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Malformed streams after which the whole connection is ended.
const MALFORMED_MAX: usize = 32;
/// How long a draining connection may stay open for its last streams to be opened, before the grace period decides.
const GOAWAY_WAIT: Duration = Duration::from_secs(5);

/// Serves `stream`, whose client sent or is about to send the preface.
pub(super) async fn serve<A>(edge: &Arc<Edge<A>>, mut stream: Box<EdgeStream>, connection: Arc<Connection>)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let limits = edge.rules.limits();
    let frames = Arc::new(FrameWatch::new(clock::now()));
    stream.set_raw(frames.clone());
    let stream: Stream = stream;
    let handshake = Box::pin(handshake(stream, Some(options(&limits))));
    let h2 = match tokio::time::timeout(limits.header_timeout, handshake).await {
        Ok(Ok(h2)) => h2,
        // Browsers open connections that they then do not need.
        _ if connection.bytes_read.load(Ordering::Relaxed) == 0 => return,
        Ok(Err(_)) => {
            note_error(edge, &connection, "BAD_PREFACE");
            return refuse::unseen(edge, &connection, Reason::RequestMalformed, "no HTTP/2 preface");
        }
        Err(_) => {
            let rule = "limits.header_timeout passed before the HTTP/2 preface was complete";
            return refuse::unseen(edge, &connection, Reason::HeaderTimeout, rule);
        }
    };
    let mut events = Events::new(h2, frames, limits.header_timeout);
    let digest = Arc::new(Digest::default());
    let streams = Arc::new(Streams::default());
    let mut draining = edge.draining.clone();
    let mut goaway_sent = false;
    let mut malformed = 0;
    // Why we ended the connection, if it was us.
    let mut ours = None;
    loop {
        let idle_timeout = if goaway_sent { GOAWAY_WAIT } else { limits.idle_timeout };
        let event = tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining), if !goaway_sent => {
                events.h2.graceful_shutdown();
                goaway_sent = true;
                continue;
            }
            () = connection.retirement(), if !goaway_sent => {
                events.h2.graceful_shutdown();
                goaway_sent = true;
                continue;
            }
            event = events.next() => event,
            () = streams.idle_for(idle_timeout) => {
                if goaway_sent {
                    return;
                }
                // Tells the client that nothing it might be sending now was looked at.
                events.h2.graceful_shutdown();
                goaway_sent = true;
                continue;
            }
        };
        match event {
            Event::Request(request, answer) => {
                let (head, body) = request.into_parts();
                if let Err(rule) = http2_head::check(&head) {
                    answer_malformed(edge, &connection, &head, answer, rule);
                    malformed += 1;
                } else {
                    let exchange = Arc::new(Exchange::new(connection.clone(), clock::now(), 0, false));
                    exchange.demand(limits.min_body_rate);
                    let open = streams.open();
                    if streams.count() > STREAMS_SERVED_MAX {
                        let rule = "the connection was ended: too many requests at once";
                        events.give_up(&mut ours, Reason::Overloaded, rule);
                    }
                    let silence = limits.body_timeout;
                    let session =
                        Http2Stream::new(head, body, answer, digest.clone(), exchange.clone(), silence);
                    let edge = edge.clone();
                    drop(task::spawn("http/2 stream", async move {
                        let _open = open;
                        serve_stream(&edge, session, exchange).await;
                    }));
                }
            }
            Event::Refused(reason, rule) => {
                refuse::unseen(edge, &connection, reason, rule);
                malformed += usize::from(reason != Reason::Overloaded);
            }
            Event::Flooded(kind) => {
                tracing::debug!(client = %connection.peer.ip(), frames = kind, "HTTP/2 flood");
                events.give_up(&mut ours, Reason::RequestMalformed, FLOOD);
            }
            Event::HeadTimeout => {
                let rule = "limits.header_timeout passed before the header block was complete";
                events.give_up(&mut ours, Reason::HeaderTimeout, rule);
            }
            // Closed, or broken beyond repair: the library has sent what there is to say.
            Event::Closed => {
                let end = events.frames.end();
                if let Some(code) = end.error {
                    note_error(edge, &connection, h2_error(code));
                }
                let (reason, rule) = ours.unwrap_or_else(|| end_of(&end));
                for _ in 0..end.undecided {
                    refuse::unseen(edge, &connection, reason, rule);
                }
                return;
            }
        }
        if malformed >= MALFORMED_MAX {
            let rule = "the connection was ended: too many malformed requests";
            events.give_up(&mut ours, Reason::RequestMalformed, rule);
        }
    }
}

async fn serve_stream<A>(edge: &Arc<Edge<A>>, session: Http2Stream, exchange: Arc<Exchange>)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let session = ServerSession::new_custom(Box::new(session));
    let work = edge.app.process_new_http(session, &edge.draining);
    let work = CutOff { work, exchange: exchange.clone(), timer: None };
    // Cut off or done: either way the context has recorded it.
    let _done = EXCHANGE.scope(exchange, work).await;
}

/// Answers a request that the library let pass and that breaks `rule`.
fn answer_malformed<A>(
    edge: &Edge<A>,
    connection: &Connection,
    head: &http::request::Parts,
    mut answer: SendResponse<Bytes>,
    rule: Rule,
) {
    let reason = rule.reason();
    let request_id = RequestId::random();
    let body = Bytes::from(Problem::new(reason).body(Form::Json, request_id.as_str()));
    let length = body.len();
    let mut response = http::Response::builder()
        .status(reason.status())
        .header(header::CONTENT_TYPE, Problem::content_type(Form::Json))
        .header(header::CONTENT_LENGTH, length)
        .header(header::CACHE_CONTROL, "no-store")
        .header("x-request-id", request_id.as_str());
    if let Some(hsts) = refuse::hsts(edge, connection) {
        response = response.header(header::STRICT_TRANSPORT_SECURITY, hsts);
    }
    // It fails where the client has left meanwhile.
    let bodiless = head.method == Method::HEAD;
    let sent = response.body(()).ok().and_then(|response| {
        let mut stream = answer.send_response(response, bodiless).ok()?;
        if bodiless {
            return Some(0);
        }
        stream.send_data(body, true).ok().map(|()| length as u64)
    });
    refuse::seen(edge, connection, head, (reason, rule.text()), request_id, sent);
}

/// Counts the end of a connection by an error of its client's.
fn note_error<A>(edge: &Edge<A>, connection: &Connection, code: &'static str) {
    if let Some(listener) = edge.rules.listener(connection.listener) {
        listener.metrics.http2_error(code);
    }
}

/// The name of an error code (RFC 9113 section 7).
fn h2_error(code: u32) -> &'static str {
    match h2::Reason::from(code) {
        h2::Reason::PROTOCOL_ERROR => "PROTOCOL_ERROR",
        h2::Reason::INTERNAL_ERROR => "INTERNAL_ERROR",
        h2::Reason::FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
        h2::Reason::SETTINGS_TIMEOUT => "SETTINGS_TIMEOUT",
        h2::Reason::STREAM_CLOSED => "STREAM_CLOSED",
        h2::Reason::FRAME_SIZE_ERROR => "FRAME_SIZE_ERROR",
        h2::Reason::COMPRESSION_ERROR => "COMPRESSION_ERROR",
        h2::Reason::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
        _ => "other",
    }
}

fn options(limits: &Limits) -> Builder {
    let mut options = Builder::default();
    options
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(STREAM_WINDOW as usize);
    options
}

/// The open streams of a connection.
#[derive(Debug, Default)]
struct Streams {
    open: AtomicUsize,
    idle: Notify,
}

impl Streams {
    fn open(self: &Arc<Self>) -> OpenStream {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenStream(self.clone())
    }

    fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Resolves when no stream has been open for `time`. Begun anew with every accepted stream.
    async fn idle_for(&self, time: Duration) {
        loop {
            let idle = self.idle.notified();
            if self.count() == 0 {
                return tokio::time::sleep(time).await;
            }
            idle.await;
        }
    }
}

struct OpenStream(Arc<Streams>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.notify_one();
        }
    }
}
