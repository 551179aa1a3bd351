//! HTTP/2 on one connection.
//!
//! The streams that the gateway's own forwarder serves are polled by the task of their connection: what many of them have to
//! say at once leaves in one write, and none of them has to be woken to say it. Streams of Pingora's are tasks of their
//! own.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use h2::server::{Builder, SendResponse};
use http::{Method, header};
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::handshake;
use pingora::protocols::{Digest, Stream};

use super::alarm::{self, Alarm};
use super::connection::{Connection, EXCHANGE, Exchange};
use super::cut_off::CutOff;
use super::edge::Edge;
use super::frames::FrameWatch;
use super::head::Rule;
use super::http2_events::{Event, Events, FLOOD, end_of};
use super::http2_outlet::Outlet;
use super::http2_side::{Http2Side, SpareAlarms};
use super::http2_stream::Http2Stream;
use super::http2_wire::Wire;
use super::stream::EdgeStream;
use super::{broken, http2_head, refuse};
use crate::base::problem::{Form, Problem};
use crate::base::reason::Reason;
use crate::base::{clock, panics, task};
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
/// Malformed streams at once after which the whole connection is ended. Every second makes up for one: proxies bring the
/// requests of many clients.
const MALFORMED_MAX: u64 = 32;
/// Requests that are begun in one turn, after which it is others': a client that sends all that it may at once would keep a
/// thread, and the servers behind it, for milliseconds.
const BEGUN_MAX: usize = 16;
/// How long a draining connection may stay open for its last streams to be opened, before the grace period decides.
const GOAWAY_WAIT: Duration = Duration::from_secs(5);
/// How long a client that said goodbye may have nothing open before the connection is closed, and not say it again: whoever
/// goes on saying it is to be told why that ends.
const LEAVING_WAIT: Duration = Duration::from_millis(100);

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
    let streams = Arc::new(Streams::of(connection.alarm.clone()));
    let alarms = Arc::new(SpareAlarms::default());
    let outlet = Arc::new(Outlet::default());
    let mut served = FuturesUnordered::new();
    let signal = Arc::new(Signal::default());
    let library = Waker::from(signal.clone());
    let mut idle = Idle::default();
    let mut draining = edge.draining.clone();
    let mut ending = pin!(async {
        tokio::select! {
            _ = draining.wait_for(|draining| *draining) => {}
            () = connection.alarm.retirement() => {}
        }
    });
    let (mut goaway_sent, mut leaving) = (false, false);
    let (mut malformed, mut begun) = (Malformed::default(), 0);
    // Why we ended the connection, if it was us.
    let mut ours = None;
    loop {
        let idle_timeout = match (goaway_sent, leaving) {
            (true, _) => GOAWAY_WAIT,
            (false, true) => LEAVING_WAIT,
            (false, false) => limits.idle_timeout,
        };
        let turn = std::future::poll_fn(|cx| {
            if !goaway_sent && ending.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Turn::Ending);
            }
            signal.begin();
            loop {
                // The requests of a turn are taken before the first of them is looked at, and all that streams have to say
                // now is said before any of it is written.
                if begun < BEGUN_MAX && signal.take() {
                    let event = events.poll_next(&mut Context::from_waker(&library));
                    // What it held was written first.
                    if !connection.is_held_up() {
                        outlet.refill();
                    }
                    if let Poll::Ready(event) = event {
                        signal.set();
                        return Poll::Ready(Turn::Event(event));
                    }
                }
                while let Poll::Ready(Some(())) = served.poll_next_unpin(cx) {}
                if begun >= BEGUN_MAX {
                    return Poll::Ready(Turn::Others);
                }
                if signal.end(cx) {
                    break;
                }
            }
            begun = 0;
            idle.poll(&streams, idle_timeout, cx).map(|()| Turn::Idle)
        });
        let event = match turn.await {
            Turn::Event(event) => event,
            Turn::Others => {
                begun = 0;
                tokio::task::yield_now().await;
                continue;
            }
            Turn::Idle if goaway_sent => return,
            Turn::Idle if leaving => {
                events.h2.abrupt_shutdown(h2::Reason::NO_ERROR);
                signal.set();
                idle.restart();
                goaway_sent = true;
                continue;
            }
            // Tells the client that nothing it might be sending now was looked at.
            Turn::Ending | Turn::Idle => {
                events.h2.graceful_shutdown();
                signal.set();
                idle.restart();
                goaway_sent = true;
                continue;
            }
        };
        idle.restart();
        match event {
            Event::Request { request, answer, has_fragment } => {
                begun += 1;
                let (head, body) = request.into_parts();
                let checked = match has_fragment {
                    true => Err(Rule::QueryByte),
                    false => http2_head::check(&head, body.is_end_stream()),
                };
                if let Err(rule) = checked {
                    answer_malformed(edge, &connection, &head, answer, rule);
                    malformed.count();
                } else {
                    let mut exchange = Exchange::new(connection.clone(), clock::now(), 0, false);
                    exchange.ends_with_head = body.is_end_stream();
                    let exchange = Arc::new(exchange);
                    exchange.demand(limits.min_body_rate);
                    let open = streams.open();
                    if streams.count() > STREAMS_SERVED_MAX {
                        let rule = "the connection was ended: too many requests at once";
                        events.give_up(&mut ours, Reason::Overloaded, rule);
                    }
                    let wire = Wire::new(body, http2_head::length_of(&head), answer, exchange.clone());
                    let silence = limits.body_timeout;
                    if edge.direct.is_none() {
                        let session = Http2Stream::new(head, wire, digest.clone(), exchange.clone(), silence);
                        spawn(edge, session, exchange, open);
                    } else {
                        let alarm = alarms.take(&connection);
                        let stream =
                            Http2Side::new(head, wire, outlet.clone(), exchange.clone(), alarm, silence);
                        served.push(serve_here(edge.clone(), stream, exchange, open, digest.clone()));
                    }
                }
            }
            Event::Refused(reason, rule) => {
                refuse::unseen(edge, &connection, reason, rule);
                if reason != Reason::Overloaded {
                    malformed.count();
                }
            }
            Event::Flooded(kind) => {
                tracing::debug!(client = %connection.peer.ip(), frames = kind, "HTTP/2 flood");
                events.give_up(&mut ours, Reason::RequestMalformed, FLOOD);
            }
            Event::Broken(code) => {
                tracing::debug!(client = %connection.peer.ip(), error = h2_error(code), "HTTP/2 rules were broken");
                if ours.is_none() {
                    events.h2.abrupt_shutdown(code.into());
                }
            }
            Event::Leaving => leaving = true,
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
                // They find out at once, and say in the log how far they came.
                drop(events);
                while served.next().await.is_some() {}
                return;
            }
        }
        if malformed.is_too_much() {
            let rule = "the connection was ended: too many malformed requests";
            events.give_up(&mut ours, Reason::RequestMalformed, rule);
        }
    }
}

/// What happens to a connection.
#[expect(clippy::large_enum_variant, reason = "moved once; a box would be an allocation a request")]
enum Turn {
    /// It is to end once what is open on it is done.
    Ending,
    /// There was no stream for as long as that may be.
    Idle,
    Event(Event),
    /// It has begun as many requests as it may at once.
    Others,
}

/// Serves a stream in the task of its connection, unless it is Pingora's: then in one of its own.
async fn serve_here<A>(
    edge: Arc<Edge<A>>,
    stream: Http2Side,
    exchange: Arc<Exchange>,
    open: OpenStream,
    digest: Arc<Digest>,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let Some(direct) = &edge.direct else { return };
    match panics::contained(direct.serve_stream(stream, &exchange)).await {
        Ok(Some(stream)) => spawn(&edge, stream.into_session(digest), exchange, open),
        Ok(None) => {}
        Err(said) => drop(broken::note(&edge, &exchange, &said)),
    }
}

/// Has Pingora serve a stream.
fn spawn<A>(edge: &Arc<Edge<A>>, session: Http2Stream, exchange: Arc<Exchange>, open: OpenStream)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let edge = edge.clone();
    drop(task::spawn("http/2 stream", async move {
        let _open = open;
        let session = ServerSession::new_custom(Box::new(session));
        let work = edge.app.process_new_http(session, &edge.draining);
        let work = CutOff { work, exchange: exchange.clone(), timer: None };
        // Cut off or done: either way the context has recorded it.
        if let Err(said) = panics::contained(EXCHANGE.scope(exchange.clone(), work)).await {
            broken::note(&edge, &exchange, &said);
        }
        // It holds the exchange. Pingora has taken it, unless it ended the request before its first hook.
        drop(exchange.take_prepared());
    }));
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
        // What is under way on streams that were answered early is passed over on so many; on others it is an error.
        .max_concurrent_reset_streams(STREAMS_SERVED_MAX)
        // Requests that are given up before their turn came: they are counted, as those are that are given up later.
        .max_pending_accept_reset_streams(STREAMS_MAX as usize)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(STREAM_WINDOW as usize);
    options
}

/// Malformed streams of late.
#[derive(Default)]
struct Malformed {
    count: u64,
    /// When the last of them came.
    last: Option<Instant>,
}

impl Malformed {
    fn count(&mut self) {
        let now = clock::now();
        let since = self.last.replace(now).map_or(0, |last| now.saturating_duration_since(last).as_secs());
        self.count = self.count.saturating_sub(since) + 1;
    }

    fn is_too_much(&self) -> bool {
        self.count >= MALFORMED_MAX
    }
}

/// Whether the library has something to do: it is polled only then. While its connection's task is being polled that
/// wakes nobody.
#[derive(Default)]
struct Signal {
    quiet: AtomicBool,
    task: AtomicWaker,
}

impl Signal {
    /// The task is polled.
    fn begin(&self) {
        drop(self.task.take());
    }

    /// There is something to do.
    fn set(&self) {
        self.quiet.store(false, Ordering::Release);
    }

    /// Whether there is something to do, which is done now.
    fn take(&self) -> bool {
        !self.quiet.swap(true, Ordering::AcqRel)
    }

    /// Whether nothing is left to do. Then the task is woken as soon as there is.
    fn end(&self, cx: &Context<'_>) -> bool {
        self.task.register(cx.waker());
        let quiet = self.quiet.load(Ordering::Acquire);
        if !quiet {
            self.begin();
        }
        quiet
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set();
        self.task.wake();
    }
}

/// The open streams of a connection.
#[derive(Debug)]
struct Streams {
    open: AtomicUsize,
    /// Whoever is told when the last of them is over.
    idle: AtomicWaker,
    /// The connection's, which knows whether it idles.
    alarm: Arc<Alarm>,
}

impl Streams {
    fn of(alarm: Arc<Alarm>) -> Self {
        alarm.idle(alarm::Idle::Retires);
        Self { open: AtomicUsize::new(0), idle: AtomicWaker::new(), alarm }
    }

    fn open(self: &Arc<Self>) -> OpenStream {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.alarm.idle(alarm::Idle::No);
        OpenStream(self.clone())
    }

    fn count(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

struct OpenStream(Arc<Streams>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Another stream may be opened at this moment: ended in order, it is still served.
            self.0.alarm.idle(alarm::Idle::Retires);
            self.0.idle.wake();
        }
    }
}

/// The wait for a connection to have been without streams for too long. Its timer is left to run while there are some:
/// most do not last as long.
#[derive(Default)]
struct Idle {
    since: Option<Instant>,
    timer: Option<(Instant, Pin<Box<tokio::time::Sleep>>)>,
}

impl Idle {
    /// From now on.
    fn restart(&mut self) {
        self.since = None;
    }

    /// Resolves when no stream of `streams` has been open for `time`.
    fn poll(&mut self, streams: &Streams, time: Duration, cx: &mut Context<'_>) -> Poll<()> {
        streams.idle.register(cx.waker());
        if streams.count() > 0 {
            self.since = None;
            return Poll::Pending;
        }
        let end = *self.since.get_or_insert_with(clock::now) + time;
        loop {
            let (at, timer) = match &mut self.timer {
                Some((at, timer)) if *at <= end => (at, timer),
                none => {
                    let sleep = Box::pin(tokio::time::sleep_until(end.into()));
                    let (at, timer) = none.insert((end, sleep));
                    (at, timer)
                }
            };
            ready!(timer.as_mut().poll(cx));
            if *at >= end {
                return Poll::Ready(());
            }
            *at = end;
            timer.as_mut().reset(end.into());
        }
    }
}
