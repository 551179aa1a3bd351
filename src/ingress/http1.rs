//! HTTP/1 on one connection: our own keep-alive loop around Pingora, one request at a time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pingora::apps::HttpServerApp;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;

use super::accept::Edge;
use super::connection::{Connection, EXCHANGE, Exchange};
use super::stream::{EdgeStream, HeadLimits, Next};
use super::{http2, refuse};
use crate::config::snapshot::Limits;

/// How long an idle connection is still answered on once the process drains: a request that is on its way gets its
/// answer (with `Connection: close`) instead of a reset.
const DRAIN_LINGER: Duration = Duration::from_secs(1);

/// Serves `stream` until it is closed from either side.
///
/// `preface`: whether the connection may turn out to be HTTP/2 in cleartext.
pub(super) async fn serve<A>(
    edge: &Arc<Edge<A>>,
    mut stream: Box<EdgeStream>,
    connection: Arc<Connection>,
    mut preface: bool,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    loop {
        let limits = head_limits(&edge.rules.limits(), preface);
        let mut draining = edge.draining.clone();
        let idle_ends = async move {
            // An error says that the process is gone: then it is over, too.
            drop(draining.wait_for(|draining| *draining).await);
            tokio::time::sleep(DRAIN_LINGER).await;
        };
        match stream.next_head(&limits, idle_ends).await {
            Next::Head(head, began) => {
                let exchange =
                    Arc::new(Exchange::new(connection.clone(), began, head.len as u64, head.upgrade));
                stream.serve(exchange.clone());
                match request(edge, stream, exchange).await {
                    Some(reusable) => stream = reusable,
                    None => return,
                }
            }
            Next::Http2 => {
                stream.set_raw();
                return http2::serve(edge, stream, connection).await;
            }
            Next::Refused { reason, line, began } => {
                return refuse::answer(edge, &mut stream, &connection, reason, &line, began).await;
            }
            Next::Closed => return,
        }
        preface = false;
    }
}

fn head_limits(limits: &Limits, preface: bool) -> HeadLimits {
    HeadLimits {
        header_bytes: limits.header_bytes,
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        preface,
    }
}

/// Lends the stream to Pingora for one request and gets it back if it can carry another.
async fn request<A>(
    edge: &Arc<Edge<A>>,
    stream: Box<EdgeStream>,
    exchange: Arc<Exchange>,
) -> Option<Box<EdgeStream>>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let stream: Stream = stream;
    let mut session = ServerSession::new_http1(stream);
    session.set_keepalive(Some(0));
    let work = edge.app.process_new_http(session, &edge.draining);
    match EXCHANGE.scope(exchange.clone(), work).await {
        Some(reusable) => {
            let (stream, _settings) = reusable.consume();
            // Whatever Pingora thinks: what is left of this message must not be read as the next request.
            stream.into_any().downcast::<EdgeStream>().ok().filter(|stream| stream.is_message_done())
        }
        None => exchange.take_back(),
    }
}

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Ends `work` at the exchange's cut-off, which may be set and moved while it runs: the last resort, for streams of
/// HTTP/2 connections, whose reads carry no deadline.
pub(super) struct CutOff<F> {
    pub(super) work: F,
    pub(super) exchange: Arc<Exchange>,
    pub(super) timer: Option<(Instant, Sleep)>,
}

impl<F: Future + Unpin> Future for CutOff<F> {
    /// `None`: cut off.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = Pin::new(&mut self.work).poll(cx) {
            return Poll::Ready(Some(output));
        }
        let Some(at) = self.exchange.cut_off().map(|at| at + GRACE) else {
            self.timer = None;
            return Poll::Pending;
        };
        if self.timer.as_ref().is_none_or(|(set, _)| *set != at) {
            let left = at.saturating_duration_since(crate::base::clock::now());
            self.timer = Some((at, Box::pin(pingora::time::sleep(left))));
        }
        match &mut self.timer {
            Some((_, sleep)) => sleep.as_mut().poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    }
}

/// The time that the gentler ways to end a request (an attempt's time-out, a real 504) have before it is dropped.
const GRACE: Duration = Duration::from_millis(500);
