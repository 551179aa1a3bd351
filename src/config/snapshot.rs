//! What requests run on: one immutable compiled configuration.
//!
//! A request takes one [`Snapshot`] when it is accepted and sees that generation to its end. Nothing in here is looked
//! up by name while it is served: routes hold handles.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use indexmap::IndexMap;

use super::local::{Redirect, Respond};
use crate::base::origin::{Origin, Sources};
use crate::policy;
use crate::policy::trusted::TrustedProxies;
use crate::routing::{Rewrite, RouteId, Table};
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::{ListenerMetrics, RouteMetrics};
use crate::upstream::Upstream;

/// One compiled configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts configurations of this process, from 1.
    pub generation: u64,
    /// `[server]`.
    pub server: ServerSettings,
    /// `[limits]`.
    pub limits: Limits,
    /// In the order of the file; connections know theirs by index.
    pub listeners: Vec<Arc<Listener>>,
    /// `[admin]`, if there is one.
    pub admin: Option<AdminSettings>,
    /// `[log]`.
    pub log: LogSettings,
    /// Finds the route of a request.
    pub table: Table,
    /// Indexed by [`RouteId`].
    pub routes: Vec<Arc<Route>>,
    /// What governs requests that match no route: `[defaults]` of the main file.
    pub unmatched: Arc<Route>,
    /// By name, in the order of the file.
    pub upstreams: IndexMap<String, Arc<Upstream>>,
    /// The files it came from, for `explain`.
    pub sources: Sources,
}

impl Snapshot {
    /// The route under `id`. Ids come from this snapshot's own table, so there always is one; the fallback only spares
    /// the request path a panic.
    pub fn route(&self, id: RouteId) -> &Arc<Route> {
        self.routes.get(id.0 as usize).unwrap_or(&self.unmatched)
    }
}

/// The snapshot that new requests get. Swapped as a whole.
#[derive(Debug)]
pub struct Current(ArcSwap<Snapshot>);

impl Current {
    /// Starts with `snapshot`.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self(ArcSwap::new(snapshot))
    }

    /// The snapshot of this moment, to be held for as long as needed.
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Makes `snapshot` the one that new requests get.
    pub fn swap(&self, snapshot: Arc<Snapshot>) {
        self.0.store(snapshot);
    }
}

/// `[server]`: the process.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Worker threads; 0 = one per core.
    pub threads: usize,
    /// Where the process id is written.
    pub pid_file: Option<PathBuf>,
    /// Where commands reach the process.
    pub control_socket: Option<PathBuf>,
    /// Dropped to after the listeners are bound.
    pub user: Option<String>,
    /// Dropped to after the listeners are bound.
    pub group: Option<String>,
    /// How long a leaving process serves what it has.
    pub grace_period: Duration,
    /// After TERM or QUIT: how long connections are still accepted while `/readyz` says 503.
    pub drain_delay: Duration,
    /// Whose forwarding headers are believed.
    pub trusted_proxies: TrustedProxies,
}

/// `[limits]`: what bounds every client.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections in all.
    pub connections: usize,
    /// Size of a request head.
    pub header_bytes: usize,
    /// Time for a whole request head.
    pub header_timeout: Duration,
    /// Time an idle connection is kept.
    pub idle_timeout: Duration,
    /// Longest silence of a client in a body.
    pub body_timeout: Duration,
    /// First byte of the request to first byte of the answer.
    pub request_timeout: Duration,
    /// Silence that ends a stream.
    pub stream_idle: Duration,
    /// Idle upstream connections kept, whole process.
    pub upstream_idle: usize,
}

/// `[[listeners]]`: one place where connections are accepted.
#[derive(Debug)]
pub struct Listener {
    /// Its name, for routes, logs and metrics.
    pub name: String,
    /// Where it is bound.
    pub address: BindAddress,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// TLS, if there are certificates.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Its metrics.
    pub metrics: Arc<ListenerMetrics>,
}

/// Where a listener is bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BindAddress {
    /// An IP address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// `[admin]`.
#[derive(Debug, Clone)]
pub struct AdminSettings {
    /// Where the admin listener is bound.
    pub address: SocketAddr,
}

/// `[log]`.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// Level of the process log.
    pub level: tracing::level_filters::LevelFilter,
    /// The access log; `None` = off.
    pub access: Option<Arc<AccessLog>>,
}

/// One route, compiled.
#[derive(Debug)]
pub struct Route {
    /// Its place in [`Snapshot::routes`].
    pub id: RouteId,
    /// Its name, given or made from methods, host and path.
    pub name: Arc<str>,
    /// Where it was written.
    pub origin: Origin,
    /// What answers.
    pub target: Target,
    /// How the path is rewritten on the way.
    pub rewrite: Option<Rewrite>,
    /// How long it may take.
    pub timeout: RouteTimeout,
    /// No deadline for streams: only [`Limits::stream_idle`].
    pub stream: bool,
    /// Largest request body; `None` = no limit.
    pub body_bytes: Option<u64>,
    /// Whether requests are logged.
    pub access_log: bool,
    /// What a request must pass.
    pub guard: policy::Chain,
    /// Its metrics.
    pub metrics: Arc<RouteMetrics>,
    /// Every effective setting with where it was written, for `explain`.
    pub settings: Vec<Setting>,
}

/// `timeout` of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteTimeout {
    /// Not given: [`Limits::request_timeout`] to the first byte of the answer.
    Default,
    /// To the last byte of the answer.
    Whole(Duration),
    /// `"none"`: no deadline.
    Unlimited,
}

/// One effective setting of a route.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The key, such as `ip.allow`.
    pub key: String,
    /// The value as TOML; secrets as `***`.
    pub value: String,
    /// Where it was written.
    pub origin: Origin,
}

/// What answers a route's requests.
#[derive(Debug)]
pub enum Target {
    /// Servers.
    Upstream(Arc<Upstream>),
    /// Another address.
    Redirect(Box<Redirect>),
    /// The gateway itself.
    Respond(Arc<Respond>),
    /// Nothing: no route matched.
    Nothing,
}
