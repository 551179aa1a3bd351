//! HTTP/1 on one connection: our own keep-alive loop around our own forwarder and Pingora, one request at a time.

use std::pin::pin;
use std::sync::Arc;

use pingora::apps::HttpServerApp;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;

use super::connection::{Connection, EXCHANGE, Exchange};
use super::edge::{Edge, Served};
use super::head::Head;
use super::stream::{EdgeStream, HeadLimits, Next};
use super::{broken, http2, refuse};
use crate::base::panics;
use crate::config::snapshot::Limits;

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
    let mut draining = edge.draining.clone();
    // One wait for the whole connection: a wait a request would take the lock of all waiters twice.
    let mut idle_ends = pin!(async {
        // An error says that the process is gone: then it is over, too.
        drop(draining.wait_for(|draining| *draining).await);
        tokio::time::sleep(edge.connections.linger()).await;
    });
    let mut is_first = true;
    loop {
        let rules = edge.rules.limits();
        let limits = head_limits(&rules, preface, std::mem::take(&mut is_first));
        match stream.next_head(&limits, idle_ends.as_mut()).await {
            Next::Head(head, began) => {
                let mut exchange = Exchange::new(connection.clone(), began, head.len as u64, head.upgrade);
                exchange.last = !head.keep_alive;
                exchange.demand(if head.upgrade { 0 } else { rules.min_body_rate });
                let exchange = Arc::new(exchange);
                stream.serve(exchange.clone());
                match request(edge, stream, exchange, &head).await {
                    Some(reusable) => stream = reusable,
                    None => return,
                }
            }
            Next::Http2 => {
                return http2::serve(edge, stream, connection).await;
            }
            Next::Refused { reason, rule, line, began } if preface && refuse::is_foreign(&line) => {
                return refuse::unanswered(edge, &connection, reason, rule, &line, began);
            }
            Next::Refused { reason, rule, line, began } => {
                return refuse::answer(edge, &mut stream, &connection, reason, rule, &line, began).await;
            }
            Next::Abandoned { line, began } => return refuse::abandoned(edge, &connection, &line, began),
            Next::Closed => return,
        }
        preface = false;
    }
}

/// `is_first`: nothing was asked on the connection so far. Who connects to ask for something does so at once; only who has
/// asked may have more to ask for later.
fn head_limits(limits: &Limits, preface: bool, is_first: bool) -> HeadLimits {
    let most = if is_first { limits.header_timeout } else { limits.idle_timeout };
    HeadLimits {
        header_bytes: limits.header_bytes,
        header_timeout: limits.header_timeout,
        idle_timeout: most.min(limits.idle_timeout),
        preface,
    }
}

/// Lends the stream for one request and gets it back if it can carry another.
async fn request<A>(
    edge: &Arc<Edge<A>>,
    mut stream: Box<EdgeStream>,
    exchange: Arc<Exchange>,
    head: &Head,
) -> Option<Box<EdgeStream>>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    if let Some(direct) = edge.direct.as_ref().filter(|_| head.version_11 && !head.upgrade) {
        match panics::contained(direct.serve(&mut stream, &exchange, head)).await {
            // What is left of this message must not be read as the next request.
            Ok(Served::Kept) => return Some(stream).filter(|stream| stream.is_message_done()),
            Ok(Served::Closed) => return None,
            Ok(Served::No) => {}
            Err(said) => {
                broken::answer(edge, Some(stream), &exchange, &said).await;
                return None;
            }
        }
    }
    let stream: Stream = stream;
    let mut session = ServerSession::new_http1(stream);
    session.set_keepalive(Some(0));
    let work = edge.app.process_new_http(session, &edge.draining);
    let reusable = match panics::contained(EXCHANGE.scope(exchange.clone(), work)).await {
        Ok(reusable) => reusable,
        Err(said) => {
            let left = exchange.take_back().and_then(|stream| stream.into_any().downcast().ok());
            broken::answer(edge, left, &exchange, &said).await;
            return None;
        }
    };
    // It holds the exchange. Pingora has taken it, unless it ended the request before its first hook.
    drop(exchange.take_prepared());
    let stream = match reusable {
        Some(reusable) => reusable.consume().0,
        None => exchange.take_back()?,
    };
    // Whatever Pingora thinks: what is left of this message must not be read as the next request.
    stream.into_any().downcast::<EdgeStream>().ok().filter(|stream| stream.is_message_done())
}
