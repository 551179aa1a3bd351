//! What requests run on: one immutable compiled configuration.
//!
//! A request takes one [`Snapshot`] when it is accepted and sees that generation to its end. Nothing in here is looked
//! up by name while it is served: routes hold handles.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::StatusCode;
use indexmap::IndexMap;
use parking_lot::Mutex;

pub use super::diff::Outline;
pub use super::identity::{IDENTITY_HEADERS, IdentitySettings};
pub use super::services::Report;
pub use super::settings::{AdminSettings, BindAddress, Limits, ServerSettings};
pub use super::tls::{CertificateFacts, ListenerTls, PolicyId};
pub use crate::base::decode::Setting;
use crate::base::origin::{Origin, Sources};
use crate::broker::bus::LogBus;
use crate::broker::{Broker, Exchange, Name};
use crate::cluster::Cluster;
use crate::files::Site;
use crate::identity::directory::Configured;
use crate::identity::login::{Login, Step};
use crate::identity::provider::Provider;
use crate::policy;
use crate::policy::envelope::Envelope;
use crate::policy::plan;
use crate::policy::rate_limit;
use crate::policy::rate_limit::RateLimit;
use crate::policy::transform::{RequestRules, Rules};
use crate::routing::template::{Template, push_visible};
use crate::routing::{RequestView, Rewrite, RouteId, Table};
use crate::store::Store;
use crate::subrequest::Plan;
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
    /// `[identity]`.
    pub identity: IdentitySettings,
    /// `[store]`, if there is one.
    pub store: Option<Store>,
    /// `[consumers]`: what the directory gets to know with this configuration.
    pub consumers: Arc<Configured>,
    /// `[cluster]`, if there is one: what instances share.
    pub cluster: Option<Arc<Cluster>>,
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
    /// By name, in the order of the file.
    pub brokers: IndexMap<String, Broker>,
    /// By name, in the order of the file.
    pub providers: IndexMap<String, Arc<Provider>>,
    /// The limits, by name, in the order of the file.
    pub rate_limits: IndexMap<String, Arc<RateLimit>>,
    /// The plans, by name, in the order of the file.
    pub plans: IndexMap<String, Arc<plan::Plan>>,
    /// The files it came from, for `explain`.
    pub sources: Sources,
    /// Every file it was made from, and the directories in which more are looked for.
    pub files: Arc<[PathBuf]>,
    /// What it consists of, for comparison with the next one.
    pub outline: Outline,
    /// What became of the services of the store.
    pub services: Arc<Report>,
    /// See [`Snapshot::remnant`].
    pub(super) remnant: OnceLock<Arc<Snapshot>>,
}

impl Snapshot {
    /// What a stream still needs when its answer has begun: everything but routes, upstreams and files. A stream may last
    /// for hours, and must not keep a large configuration in memory that was replaced long ago. (Its own route and server
    /// it has.)
    pub fn remnant(&self) -> Arc<Self> {
        let make = || {
            Arc::new(Self {
                generation: self.generation,
                server: self.server.clone(),
                limits: self.limits.clone(),
                listeners: self.listeners.clone(),
                admin: self.admin.clone(),
                identity: self.identity.clone(),
                store: self.store.clone(),
                consumers: Arc::default(),
                cluster: self.cluster.clone(),
                log: self.log.clone(),
                table: Table::build(Vec::new()),
                routes: Vec::new(),
                unmatched: self.unmatched.clone(),
                upstreams: IndexMap::new(),
                brokers: IndexMap::new(),
                providers: IndexMap::new(),
                rate_limits: IndexMap::new(),
                plans: IndexMap::new(),
                sources: Sources::default(),
                files: Arc::default(),
                outline: Outline::default(),
                services: Arc::default(),
                remnant: OnceLock::new(),
            })
        };
        self.remnant.get_or_init(make).clone()
    }

    /// The certificates in use, each by its file, with the end of its validity.
    pub fn certificates(&self) -> impl Iterator<Item = (String, SystemTime)> {
        let all = self.listeners.iter().flat_map(|listener| &listener.certificates);
        all.map(|certificate| {
            let end = Duration::from_secs(u64::try_from(certificate.not_after).unwrap_or(0));
            (certificate.file.display().to_string(), SystemTime::UNIX_EPOCH + end)
        })
    }

    /// The route under `id`. Ids come from this snapshot's own table, so there always is one; the fallback only spares
    /// the request path a panic.
    pub fn route(&self, id: RouteId) -> &Arc<Route> {
        self.routes.get(id.0 as usize).unwrap_or(&self.unmatched)
    }
}

/// The snapshot that new requests get. Swapped as a whole.
#[derive(Debug)]
pub struct Current {
    snapshot: ArcSwap<Snapshot>,
    /// All that may still be held by somebody.
    known: Mutex<Vec<Weak<Snapshot>>>,
}

impl Current {
    /// Starts with `snapshot`.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        let known = Mutex::new(vec![Arc::downgrade(&snapshot)]);
        Self { snapshot: ArcSwap::new(snapshot), known }
    }

    /// The snapshot of this moment, to be held for as long as needed.
    pub fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Makes `snapshot` the one that new requests get.
    pub fn swap(&self, snapshot: Arc<Snapshot>) {
        let mut known = self.known.lock();
        known.retain(|snapshot| snapshot.strong_count() > 0);
        known.push(Arc::downgrade(&snapshot));
        self.snapshot.store(snapshot);
    }

    /// How many snapshots somebody holds: this one, and those that requests under way began with.
    pub fn held(&self) -> usize {
        self.known.lock().iter().filter(|snapshot| snapshot.strong_count() > 0).count()
    }
}

/// `[[listeners]]`: one place where connections are accepted.
#[derive(Debug)]
pub struct Listener {
    /// Its name, for routes, logs and metrics.
    pub name: String,
    /// Where it is bound.
    pub address: BindAddress,
    /// Where that was written.
    pub origin: Origin,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// Whether every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// TLS, if there are certificates.
    pub tls: Option<Arc<ListenerTls>>,
    /// The certificates in use, the default first.
    pub certificates: Vec<CertificateFacts>,
    /// The port of the HTTPS that requests are sent to, but for routes that name this listener.
    pub redirect_https: Option<u16>,
    /// Its metrics.
    pub metrics: Arc<ListenerMetrics>,
}

impl Listener {
    /// Where `redirect_https` sends `request`; `None` where it is answered here, or names no host.
    pub fn https_location(&self, request: &RequestView<'_>) -> Option<String> {
        let port = self.redirect_https.filter(|_| !request.host.is_empty())?;
        let mut location = format!("https://{}", request.host);
        if port != 443 {
            location.push_str(&format!(":{port}"));
        }
        // `OPTIONS *` has no path, and asks about the whole server all the same.
        location.push_str(if request.path == "*" { "/" } else { request.path });
        if let Some(query) = request.query {
            location.push('?');
            push_visible(&mut location, query);
        }
        Some(location)
    }
}

/// `[log]`.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// Level of the process log.
    pub level: tracing::level_filters::LevelFilter,
    /// The access log; `None` = off.
    pub access: Option<Arc<AccessLog>>,
    /// Where both go as messages, too.
    pub bus: Option<LogBus>,
}

/// One route, compiled.
#[derive(Debug)]
pub struct Route {
    /// Its place in [`Snapshot::routes`].
    pub id: RouteId,
    /// Its name, given or made from methods, host, path and listeners.
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
    /// Whether requests are logged.
    pub access_log: bool,
    /// Whether it says by name on which listeners it is: those answer it themselves, whatever they redirect.
    pub names_listeners: bool,
    /// What a request must pass; `body_bytes` (own, inherited, or `limits.body_bytes`) is a part of it.
    pub guard: policy::Chain,
    /// What is changed in the request on its way.
    pub request: Option<Box<RequestRules>>,
    /// What is changed in the answer on its way, the gateway's own included.
    pub response: Option<Box<Rules>>,
    /// What JSON answers are put into.
    pub envelope: Option<Envelope>,
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

/// `redirect` of a route.
#[derive(Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Where to. The request's query is appended unless it has one of its own ([`Template::has_query`]).
    pub to: Template,
}

/// One of the paths of `[identity.login]`.
#[derive(Debug, Clone)]
pub struct LoginTarget {
    /// What answers.
    pub login: Arc<Login>,
    /// What is asked for.
    pub step: Step,
    /// Limits that count by the account, which the body names.
    pub limits: rate_limit::Limits,
}

/// `amqp` of a route.
#[derive(Debug)]
pub struct Amqp {
    /// The broker.
    pub broker: Broker,
    /// Where messages go, and what is waited for.
    pub destination: Destination,
    /// Longest wait.
    pub timeout: Duration,
    /// Largest answer.
    pub reply_bytes: usize,
    /// What the route's path calls its captures, in their order.
    pub captures: Box<[Box<str>]>,
}

/// Where messages of a route go.
#[derive(Debug)]
pub enum Destination {
    /// To a queue, whose answer is the client's.
    Ask(Name),
    /// To a queue; nobody answers.
    Leave(Name),
    /// To an exchange; nobody answers.
    Publish {
        /// The exchange.
        exchange: Exchange,
        /// The routing key.
        key: RoutingKey,
    },
}

/// The routing key of what is published.
#[derive(Debug)]
pub enum RoutingKey {
    /// The same for all.
    Fixed(Name),
    /// Made of the request.
    Made(Template),
}

/// What answers a route's requests.
#[derive(Debug)]
pub enum Target {
    /// Servers.
    Upstream(Arc<Upstream>),
    /// Another address.
    Redirect(Redirect),
    /// The gateway itself: what `base::respond` compiled, without framing headers.
    Respond(Arc<http::Response<Bytes>>),
    /// Files below a directory.
    Files(Arc<Site>),
    /// Logins, and what belongs to them.
    Login(LoginTarget),
    /// What several services answer, put together.
    Aggregate(Arc<Plan>),
    /// A queue, or nobody: the message is published.
    Amqp(Arc<Amqp>),
    /// Nothing: no route matched.
    Nothing,
}
