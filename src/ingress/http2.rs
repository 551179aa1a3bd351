//! HTTP/2 on one connection: each stream is a task of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, handshake};
use pingora::protocols::{Digest, Stream};
use tokio::sync::Notify;

use super::connection::{Connection, EXCHANGE, Exchange};
use super::cut_off::CutOff;
use super::edge::Edge;
use super::http2_stream::Http2Stream;
use super::refuse;
use super::stream::EdgeStream;
use crate::base::reason::Reason;
use crate::base::{clock, task};
use crate::config::snapshot::Limits;

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
pub(super) async fn serve<A>(edge: &Arc<Edge<A>>, stream: Box<EdgeStream>, connection: Arc<Connection>)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let limits = edge.rules.limits();
    let stream: Stream = stream;
    let handshake = Box::pin(handshake(stream, Some(options(&limits))));
    let mut h2 = match pingora::time::timeout(limits.header_timeout, handshake).await {
        Ok(Ok(h2)) => h2,
        // Browsers open connections that they then do not need.
        _ if connection.bytes_read.load(Ordering::Relaxed) == 0 => return,
        Ok(Err(_)) => return edge.metrics.request_rejected(Reason::RequestMalformed),
        Err(_) => return edge.metrics.request_rejected(Reason::HeaderTimeout),
    };
    let digest = Arc::new(Digest::default());
    let streams = Arc::new(Streams::default());
    let mut draining = edge.draining.clone();
    let mut goaway_sent = false;
    let mut malformed = 0;
    loop {
        let idle_timeout = if goaway_sent { GOAWAY_WAIT } else { limits.idle_timeout };
        let accepted = tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining), if !goaway_sent => {
                h2.graceful_shutdown();
                goaway_sent = true;
                continue;
            }
            () = connection.retirement(), if !goaway_sent => {
                h2.graceful_shutdown();
                goaway_sent = true;
                continue;
            }
            accepted = HttpSession::from_h2_conn(&mut h2, digest.clone()) => accepted,
            () = streams.idle_for(idle_timeout) => {
                if goaway_sent {
                    return;
                }
                // Tells the client that nothing it might be sending now was looked at.
                h2.graceful_shutdown();
                goaway_sent = true;
                continue;
            }
        };
        match accepted {
            Ok(Some(H2Accept::Session(session))) => {
                let exchange = Arc::new(Exchange::new(connection.clone(), clock::now(), 0, false));
                let open = streams.open();
                if streams.count() > STREAMS_SERVED_MAX {
                    h2.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                }
                let edge = edge.clone();
                drop(task::spawn("http/2 stream", async move {
                    let _open = open;
                    request(&edge, session, exchange).await;
                }));
            }
            Ok(Some(H2Accept::Rejected)) => {
                refuse::stream(edge, &connection);
                malformed += 1;
                if malformed >= MALFORMED_MAX {
                    h2.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                }
            }
            // Closed, or broken beyond repair: the library has sent what there is to say.
            Ok(None) | Err(_) => return,
        }
    }
}

async fn request<A>(edge: &Arc<Edge<A>>, session: HttpSession, exchange: Arc<Exchange>)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let session = Box::new(Http2Stream::new(session, exchange.clone()));
    let work = edge.app.process_new_http(ServerSession::new_custom(session), &edge.draining);
    let work = CutOff { work, exchange: exchange.clone(), timer: None };
    // Cut off or done: either way the context has recorded it.
    let _done = EXCHANGE.scope(exchange, work).await;
}

fn options(limits: &Limits) -> H2Options {
    let mut options = H2Options::default();
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
