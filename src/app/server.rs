//! Builds the process from a compiled configuration and runs it to its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pingora::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use tokio::runtime::{Builder, Runtime};

use super::control::{Control, Status};
use super::lifecycle::{self, Drain, Ending};
use super::pid_file::PidFile;
use super::{Lifecycle, descriptors, user};
use crate::admin::{Admin, Check, Health};
use crate::base::service::PlainService;
use crate::base::{clock, task, units};
use crate::config::snapshot::{BindAddress, Current, Limits, Listener, Snapshot};
use crate::ingress::connection::Connections;
use crate::ingress::listen::{BindError, Bound};
use crate::ingress::plain::Plain;
use crate::ingress::{self, Edge, Rules};
use crate::proxy::{ATTEMPTS_MAX, Gateway};
use crate::telemetry::access::{Output, Queue, Writer};
use crate::telemetry::metrics::Metrics;
use crate::upstream::Upstream;

/// How long the last records may take to be written when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long worker threads may take to let go of what they serve; each is interrupted at its next await.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections of the admin listener and the sample services: kept apart from those of the gateway.
const PLAIN_CONNECTIONS_MAX: usize = 512;

/// Why a process did not start. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The control socket could not be made.
    #[error("cannot use the control socket {path}: {source}")]
    Control {
        /// Where.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The pid file could not be written.
    #[error("cannot write the pid file {path}: {source}")]
    PidFile {
        /// Where.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The privileges could not be dropped.
    #[error("cannot become the configured user: {0}")]
    User(#[source] io::Error),
    /// Threads or signals.
    #[error("cannot set the process up: {0}")]
    Process(#[from] io::Error),
}

/// A process that is about to run: everything that can fail has been done.
#[derive(Debug)]
pub struct Server {
    snapshot: Arc<Snapshot>,
    metrics: Arc<Metrics>,
    bound: Vec<Bound>,
    admin: Option<Bound>,
    extras: Vec<Extra>,
    writer: Writer,
    control: Option<Control>,
    pid_file: Option<PidFile>,
}

/// A plain service beside the gateway.
struct Extra {
    name: String,
    bound: Bound,
    service: Arc<dyn PlainService>,
}

impl std::fmt::Debug for Extra {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Extra").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Server {
    /// Binds what `snapshot` names, in an order that leaves nothing behind on failure.
    ///
    /// # Errors
    /// What is in use, not permitted, or not writable.
    pub fn bind(
        snapshot: Arc<Snapshot>,
        metrics: Arc<Metrics>,
        access: &Arc<Queue>,
    ) -> Result<Self, StartError> {
        if let Some(limit) = descriptors::raise_limit() {
            let wanted = descriptors_wanted(&snapshot.limits);
            if limit < wanted {
                tracing::warn!(limit, wanted, "the limit on open files is too low for limits.connections");
            }
        }
        let bound: Vec<_> =
            snapshot.listeners.iter().map(|l| Bound::bind(&l.address)).collect::<Result<_, _>>()?;
        let admin = match &snapshot.admin {
            Some(admin) => Some(Bound::bind(&BindAddress::Tcp(admin.address))?),
            None => None,
        };
        let control = match &snapshot.server.control_socket {
            Some(path) => Some(
                Control::bind(path)
                    .map_err(|source| StartError::Control { path: path.display().to_string(), source })?,
            ),
            None => None,
        };
        let pid_file = match &snapshot.server.pid_file {
            Some(path) => Some(
                PidFile::write(path)
                    .map_err(|source| StartError::PidFile { path: path.display().to_string(), source })?,
            ),
            None => None,
        };
        let (user, group) = (snapshot.server.user.as_deref(), snapshot.server.group.as_deref());
        user::become_user(user, group).map_err(StartError::User)?;
        let writer = Writer::start(access)?;
        if let Some(log) = &snapshot.log.access {
            if let Output::File(path) = log.output()
                && let Some(directory) = path.parent()
            {
                // What is wrong with it shows when the file is opened.
                std::fs::create_dir_all(directory).unwrap_or_default();
            }
            log.open();
        }
        Ok(Self { snapshot, metrics, bound, admin, extras: Vec::new(), writer, control, pid_file })
    }

    /// Serves `service` beside the gateway, at `address`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn beside(
        &mut self,
        name: &str,
        address: SocketAddr,
        service: Arc<dyn PlainService>,
    ) -> Result<(), StartError> {
        let bound = Bound::bind(&BindAddress::Tcp(address))?;
        self.extras.push(Extra { name: name.to_owned(), bound, service });
        Ok(())
    }

    /// What is printed at start: one line each, ended by `ready`.
    pub fn announcement(&self) -> String {
        let counted =
            |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let mut text = format!(
            "edgeward {}: {}, {}\n",
            env!("CARGO_PKG_VERSION"),
            counted(self.snapshot.routes.len(), "route"),
            counted(self.snapshot.upstreams.len(), "upstream"),
        );
        for (listener, bound) in self.snapshot.listeners.iter().zip(&self.bound) {
            let scheme = match (bound, &listener.tls) {
                (Bound::Unix(..), _) => "",
                (_, Some(_)) => "https://",
                (_, None) => "http://",
            };
            text.push_str(&format!("listening {} {scheme}{}\n", listener.name, bound.describe()));
        }
        for extra in &self.extras {
            text.push_str(&format!("sample {} http://{}\n", extra.name, extra.bound.describe()));
        }
        if let Some(admin) = &self.admin {
            text.push_str(&format!("admin http://{}\n", admin.describe()));
        }
        text.push_str("ready\n");
        text
    }

    /// Runs to the end. `ready` is called once connections are accepted.
    ///
    /// # Errors
    /// Threads or signal handlers cannot be had.
    pub fn run(self, ready: impl FnOnce(&str)) -> Result<Ending, StartError> {
        let announcement = self.announcement();
        let data = data_plane(&self.snapshot)?;
        let control_plane = Builder::new_current_thread().enable_all().build()?;
        let mut lifecycle = Lifecycle::new();
        let connections = Arc::new(Connections::default());
        let current = Arc::new(Current::new(self.snapshot.clone()));
        let health = Arc::new(health(&current));

        let gateway = Gateway::new(current.clone(), self.metrics.clone(), lifecycle.draining());
        let mut proxy = HttpProxy::new(gateway, Arc::new(proxy_conf(&self.snapshot)));
        proxy.handle_init_modules();
        let edge = Arc::new(Edge {
            app: Arc::new(proxy),
            rules: Rules::Current(current.clone()),
            metrics: self.metrics.clone(),
            connections: connections.clone(),
            draining: lifecycle.draining(),
        });

        let ending = control_plane.block_on(async {
            for upstream in self.snapshot.upstreams.values() {
                upstream.start();
            }
            for (index, bound) in (0_u16..).zip(self.bound) {
                let (edge, stop) = (edge.clone(), lifecycle.stop_accepting());
                drop(task::spawn_on(data.handle(), "listener", async move {
                    if let Err(error) = ingress::serve(edge, index, bound, stop).await {
                        tracing::error!(listener = index, %error, "listener ended");
                    }
                }));
            }
            let drained_last = lifecycle.draining();
            if let Some(bound) = self.admin {
                let admin = Admin::new(health.clone(), self.metrics.clone());
                serve_plain("admin", bound, Arc::new(admin), &self.metrics, &drained_last);
            }
            for extra in self.extras {
                serve_plain(&extra.name, extra.bound, extra.service, &self.metrics, &drained_last);
            }
            if let Some(control) = self.control {
                let (sender, status) = (lifecycle.sender(), status(current.clone(), connections.clone()));
                drop(task::spawn("control socket", async move {
                    if let Err(error) = control.serve(sender, status).await {
                        tracing::error!(%error, "control socket ended");
                    }
                }));
            }
            let signals = lifecycle::signals(lifecycle.sender())?;
            drop(task::spawn("signals", signals));
            self.metrics.configured(clock::wall());
            self.metrics.set_certificates(certificates(&self.snapshot));
            ready(&announcement);

            let drain = Drain {
                health: health.clone(),
                connections: connections.clone(),
                delay: self.snapshot.server.drain_delay,
                grace_period: self.snapshot.server.grace_period,
            };
            let reopen = || {
                self.writer.reopen();
            };
            io::Result::Ok(lifecycle.run(&drain, reopen).await)
        })?;

        tracing::info!(?ending, "stopped");
        // What was still served is recorded when its task is dropped, which has to happen before the writer stops.
        data.shutdown_timeout(SHUTDOWN_TIMEOUT);
        control_plane.shutdown_background();
        self.writer.stop(FLUSH_TIMEOUT);
        drop(self.pid_file);
        Ok(ending)
    }
}

/// The certificates in use, each by its file, with the end of its validity.
fn certificates(snapshot: &Snapshot) -> impl Iterator<Item = (String, SystemTime)> {
    let all = snapshot.listeners.iter().flat_map(|listener| &listener.certificates);
    all.map(|certificate| {
        let end = Duration::from_secs(u64::try_from(certificate.not_after).unwrap_or(0));
        (certificate.file.display().to_string(), SystemTime::UNIX_EPOCH + end)
    })
}

/// Descriptors a full house needs: both sides of every connection, idle upstream connections, and some for the house.
fn descriptors_wanted(limits: &Limits) -> u64 {
    (2 * limits.connections + limits.upstream_idle + 64) as u64
}

fn data_plane(snapshot: &Snapshot) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if snapshot.server.threads > 0 {
        builder.worker_threads(snapshot.server.threads);
    }
    builder.thread_name("edge").enable_all().build()
}

fn proxy_conf(snapshot: &Snapshot) -> ServerConf {
    ServerConf {
        // The pool's size is this times `threads`; `limits.upstream_idle` counts for the whole process.
        threads: 1,
        upstream_keepalive_pool_size: snapshot.limits.upstream_idle,
        max_retries: ATTEMPTS_MAX,
        ..ServerConf::default()
    }
}

fn health(current: &Arc<Current>) -> Health {
    let loaded = current.clone();
    let configuration: Check = Box::new(move || {
        let snapshot = loaded.load();
        let line = format!(
            "generation {}, {} routes, {} upstreams",
            snapshot.generation,
            snapshot.routes.len(),
            snapshot.upstreams.len()
        );
        (true, "configuration".to_owned(), line)
    });
    let bound = current.clone();
    let listeners: Check =
        Box::new(move || (true, "listeners".to_owned(), format!("{} bound", bound.load().listeners.len())));
    let upstreams = current.clone();
    Health::new(vec![configuration, listeners])
        .detail(move || upstreams.load().upstreams.values().map(|upstream| report(upstream)).collect())
}

/// What `/readyz?verbose` says of an upstream: a line for it, one for each name and server.
fn report(upstream: &Upstream) -> String {
    let status = upstream.status(clock::now());
    let up = status.servers.iter().filter(|server| server.state == "up" || server.state == "warming").count();
    let word = match (status.servers.len(), up) {
        (0, _) => "not ready".to_owned(),
        (all, up) => format!("{up} of {all} servers available"),
    };
    let mut text = format!("upstream {}: {word}\n", status.name);
    for name in &status.names {
        text.push_str(&format!("  name {}: {} addresses", name.host, name.addresses));
        match &name.error {
            Some(error) => text.push_str(&format!(", {error}\n")),
            None if !name.attempted => text.push_str(", being looked up\n"),
            None => text.push('\n'),
        }
    }
    for server in &status.servers {
        let role = if server.backup { ", backup" } else { "" };
        let since = units::format_duration(Duration::from_secs(server.since.as_secs()));
        let (address, state) = (&server.address, server.state);
        text.push_str(&format!(
            "  {address}: {state} for {since}, weight {}{role}, {} in flight",
            server.weight, server.in_flight
        ));
        if let Some((error, ago)) = &server.last_error {
            let ago = units::format_duration(Duration::from_secs(ago.as_secs()));
            text.push_str(&format!(", last error {ago} ago: {error}"));
        }
        text.push('\n');
    }
    text
}

fn status(current: Arc<Current>, connections: Arc<Connections>) -> Status {
    let started = clock::wall();
    Arc::new(move || {
        let snapshot = current.load();
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "started": clock::unix_seconds(started),
            "generation": snapshot.generation,
            "routes": snapshot.routes.len(),
            "upstreams": snapshot.upstreams.len(),
            "connections": connections.open(),
        })
    })
}

/// Serves a plain service on the control plane, until the process ends: `/readyz` must answer while it drains.
fn serve_plain(
    name: &str,
    bound: Bound,
    service: Arc<dyn PlainService>,
    metrics: &Arc<Metrics>,
    draining: &tokio::sync::watch::Receiver<bool>,
) {
    let listener = Arc::new(Listener {
        name: name.to_owned(),
        address: BindAddress::Tcp(SocketAddr::from(([0, 0, 0, 0], 0))),
        http2: false,
        tls: None,
        certificates: Vec::new(),
        metrics: metrics.listener(name),
    });
    let edge = Arc::new(Edge {
        app: Arc::new(Plain::new(service)),
        rules: Rules::Fixed(listener, plain_limits()),
        metrics: metrics.clone(),
        connections: Arc::new(Connections::default()),
        draining: draining.clone(),
    });
    let never = tokio::sync::watch::Sender::new(false);
    drop(task::spawn("plain listener", async move {
        let stop = never.subscribe();
        if let Err(error) = ingress::serve(edge, 0, bound, stop).await {
            tracing::error!(%error, "plain listener ended");
        }
        drop(never);
    }));
}

fn plain_limits() -> Limits {
    Limits {
        connections: PLAIN_CONNECTIONS_MAX,
        header_bytes: 16 * 1024,
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(75),
        body_timeout: Duration::from_secs(20),
        request_timeout: Duration::from_secs(60),
        stream_idle: Duration::from_secs(60),
        upstream_idle: 0,
    }
}
