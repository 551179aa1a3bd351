//! What all listeners of a kind share: where requests go, by which rules, and who is connected.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

use super::connection::{Connections, Exchange};
use super::head::Head;
use super::http2_side::Http2Side;
use super::stream::EdgeStream;
use crate::base::threads::Threads;
use crate::config::snapshot::{Current, Limits, Listener};
use crate::policy::trusted::TrustedProxies;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::{Metrics, RouteMetrics};

/// What all listeners of the process share.
#[derive(Debug)]
pub struct Edge<A> {
    /// Where requests go.
    pub app: Arc<A>,
    /// Who is asked before, for requests over HTTP/1.1 and HTTP/2.
    pub direct: Option<Arc<dyn Direct>>,
    /// What listeners and limits there are.
    pub rules: Rules,
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
    /// Where connections are served.
    pub threads: Arc<Threads>,
    /// All open connections.
    pub connections: Arc<Connections>,
    /// True once the process drains.
    pub draining: watch::Receiver<bool>,
}

/// Serves requests over HTTP/1.1 and HTTP/2 without Pingora, if they are of its kind.
pub trait Direct: std::fmt::Debug + Send + Sync {
    /// Serves the request whose scanned `head` is the next that `stream` hands out, no upgrade.
    fn serve<'a>(
        &'a self,
        stream: &'a mut EdgeStream,
        exchange: &'a Arc<Exchange>,
        head: &'a Head,
    ) -> Pin<Box<dyn Future<Output = Served> + Send + 'a>>;

    /// Serves the request on `stream`. If it is Pingora's the stream comes back as it was.
    fn serve_stream<'a>(
        &'a self,
        stream: Http2Side,
        exchange: &'a Arc<Exchange>,
    ) -> Pin<Box<dyn Future<Output = Option<Http2Side>> + Send + 'a>>;
}

/// What became of a request given to [`Direct`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// It was answered, and another one may follow.
    Kept,
    /// It is over, and so is the connection.
    Closed,
    /// It is Pingora's. The stream is as it was.
    No,
}

/// Where listeners and limits come from.
#[derive(Debug)]
pub enum Rules {
    /// The configuration of the moment: gateway listeners.
    Current(Arc<Current>),
    /// Always the same: the admin listener and the sample services.
    Fixed(Arc<Listener>, Limits),
}

impl Rules {
    /// The listener under `index`.
    pub(super) fn listener(&self, index: u16) -> Option<Arc<Listener>> {
        match self {
            Self::Current(current) => current.load().listeners.get(usize::from(index)).cloned(),
            Self::Fixed(listener, _) => Some(listener.clone()),
        }
    }

    /// The limits of this moment.
    pub(super) fn limits(&self) -> Limits {
        match self {
            Self::Current(current) => current.load().limits.clone(),
            Self::Fixed(_, limits) => limits.clone(),
        }
    }

    /// Whose word about the client counts at this moment; nobody's where the rules are fixed.
    pub(super) fn trusted_proxies(&self) -> TrustedProxies {
        match self {
            Self::Current(current) => current.load().server.trusted_proxies.clone(),
            Self::Fixed(..) => TrustedProxies::default(),
        }
    }

    /// The metrics of requests that match no route.
    pub(super) fn unmatched_metrics(&self) -> Option<Arc<RouteMetrics>> {
        match self {
            Self::Current(current) => Some(current.load().unmatched.metrics.clone()),
            Self::Fixed(..) => None,
        }
    }

    /// The access log of this moment.
    pub(super) fn access_log(&self) -> Option<Arc<AccessLog>> {
        match self {
            Self::Current(current) => current.load().log.access.clone(),
            Self::Fixed(..) => None,
        }
    }
}
