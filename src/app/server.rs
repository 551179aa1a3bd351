//! Builds the process from a compiled configuration and runs it to its end.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pingora::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::sync::watch::Receiver as Watched;

use super::bind::Bindings;
use super::control::{Answers, Synchronise};
use super::handover::Predecessor;
use super::lifecycle::{self, Ending, House};
use super::pid_file::PidFile;
use super::plain::{self, Sample};
use super::reload::{self, Origins, Reloader};
use super::upgrade::{Invocation, Upgrader};
use super::user::{self, Account};
use super::{Lifecycle, descriptors, report, service_manager, services, watch};
use crate::admin::{Admin, Api};
use crate::base::service::{PlainService, Turn};
use crate::base::threads::{self, Threads};
use crate::base::{clock, pressure, task};
use crate::cluster::Cluster;
use crate::config::Loaded;
use crate::config::snapshot::{Current, Snapshot};
use crate::identity::directory::Directory;
use crate::identity::sync::Follower;
use crate::identity::usage::Bookkeeper;
use crate::ingress::connection::Connections;
use crate::ingress::listen::{BindError, Bound};
use crate::ingress::{self, Edge, Rules};
use crate::policy::rate_limit;
use crate::proxy::{ATTEMPTS_MAX, Gateway, Tunnels};
use crate::telemetry::access::{Output, Writer};

/// How long the last records may take to be written when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a start waits for a store that answers: it then knows what was revoked.
const LEARN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long worker threads may take to let go of what they serve; each is interrupted at its next await.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// A signing key that was made could not be kept.
    #[error("{0}")]
    Key(String),
    /// The privileges could not be dropped.
    #[error("cannot become the configured user: {0}")]
    User(#[source] io::Error),
    /// Threads or signals.
    #[error("cannot set the process up: {0}")]
    Process(#[from] io::Error),
}

/// What a process is made of beside its configuration.
#[derive(Debug)]
pub struct Process {
    /// What outlives configurations, and reads them.
    pub origins: Origins,
    /// The files of the configuration as they were read, where services of the store stand beside them.
    pub loaded: Option<Arc<Loaded>>,
    /// How the next process is started; or why there can be none.
    pub invocation: Result<Invocation, &'static str>,
    /// The process that this one replaces.
    pub predecessor: Option<Predecessor>,
}

/// A process that is about to run: everything that can fail has been done.
#[derive(Debug)]
pub struct Server {
    snapshot: Arc<Snapshot>,
    process: Process,
    bindings: Bindings,
    samples: Vec<Sample>,
    writer: Writer,
    pid_file: Option<PidFile>,
}

impl Server {
    /// Binds what `snapshot` names, or takes it over from the process that is replaced, in an order that leaves nothing
    /// behind on failure.
    ///
    /// # Errors
    /// What is in use, not permitted, or not writable. A process that was to be replaced is told, and goes on.
    pub fn bind(snapshot: Arc<Snapshot>, mut process: Process) -> Result<Self, StartError> {
        match Self::parts(&snapshot, &mut process) {
            Ok((bindings, writer, pid_file)) => {
                Ok(Self { snapshot, process, bindings, samples: Vec::new(), writer, pid_file })
            }
            Err(error) => {
                if let Some(predecessor) = process.predecessor {
                    predecessor.failed(&error.to_string());
                }
                Err(error)
            }
        }
    }

    fn parts(
        snapshot: &Snapshot,
        process: &mut Process,
    ) -> Result<(Bindings, Writer, Option<PidFile>), StartError> {
        process.origins.live.keep_idle(snapshot.limits.upstream_idle);
        let descriptors = descriptors::raise_limit();
        pressure::descriptors(descriptors);
        if let Some(limit) = descriptors {
            let (connections, idle) = (snapshot.limits.connections, snapshot.limits.upstream_idle);
            let wanted = descriptors::wanted(connections, idle, snapshot.server.threads);
            if limit < wanted {
                // `check` warns where somebody asked for more than there is.
                let what = "open files allow so many connections, not all of them proxied at once";
                tracing::info!(limit, connections, wanted, "{what}");
            }
        }
        let (user, group) = (snapshot.server.user.as_deref(), snapshot.server.group.as_deref());
        let account = Account::find(user, group).map_err(StartError::User)?;
        let bindings = Bindings::new(snapshot, process.predecessor.as_mut(), &account)?;
        let pid_file = snapshot.server.pid_file.as_ref().map(|path| {
            let prepared = pid_file(path, process.predecessor.as_ref(), &account);
            prepared.map_err(|source| StartError::PidFile { path: path.display().to_string(), source })
        });
        let pid_file = pid_file.transpose()?;
        if let Some(Output::File(path)) = snapshot.log.access.as_ref().and_then(|log| log.output())
            && let Some(directory) = path.parent()
            && !directory.exists()
        {
            // What is wrong with it shows when the file is opened.
            std::fs::create_dir_all(directory).and_then(|()| account.own(directory)).unwrap_or_default();
        }
        reload::keep_generated(snapshot, |path| account.own(path)).map_err(StartError::Key)?;
        if let Some(store) = &snapshot.store {
            // What is wrong with it shows when it is asked.
            let made = store.make_file().unwrap_or_default();
            made.iter().try_for_each(|path| account.own(path)).unwrap_or_default();
        }
        account.become_it().map_err(StartError::User)?;
        if snapshot.server.user.is_some() {
            check_readable(snapshot)?;
        }
        let writer = Writer::start(&process.origins.access)?;
        if let Some(log) = &snapshot.log.access {
            log.open();
        }
        Ok((bindings, writer, pid_file))
    }

    /// Serves `service` beside the gateway, at `address`, and stops and starts it as `turns` say.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn beside(
        &mut self,
        name: &str,
        address: SocketAddr,
        service: Arc<dyn PlainService>,
        turns: mpsc::Receiver<Turn>,
    ) -> Result<(), StartError> {
        self.samples.push(Sample::bind(name, address, service, turns)?);
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
        for (listener, bound) in self.snapshot.listeners.iter().zip(&self.bindings.listeners) {
            let scheme = match (bound, &listener.tls) {
                (Bound::Unix(..), _) => "",
                (_, Some(_)) => "https://",
                (_, None) => "http://",
            };
            text.push_str(&format!("listening {} {scheme}{}\n", listener.name, bound.describe()));
        }
        for sample in &self.samples {
            text.push_str(&sample.describe());
        }
        if let Some(admin) = &self.bindings.admin {
            text.push_str(&format!("admin http://{}\n", admin.describe()));
        }
        text.push_str("ready\n");
        text
    }

    /// Runs to the end. `ready` is called once connections are accepted.
    ///
    /// # Errors
    /// Threads or signal handlers cannot be had.
    pub fn run(mut self, ready: impl FnOnce(&str)) -> Result<Ending, StartError> {
        let mut predecessor = self.process.predecessor.take();
        let ended = self.run_after(&mut predecessor, ready);
        if let (Err(error), Some(predecessor)) = (&ended, predecessor) {
            predecessor.failed(&error.to_string());
        }
        ended
    }

    /// Takes `predecessor` once it serves.
    fn run_after(
        mut self,
        predecessor: &mut Option<Predecessor>,
        ready: impl FnOnce(&str),
    ) -> Result<Ending, StartError> {
        let announcement = self.announcement();
        let data = data_plane(&self.snapshot)?;
        let threads = Arc::new(Threads::of(data.iter().map(|runtime| runtime.handle().clone())));
        let aside =
            self.snapshot.cluster.as_ref().map(|_| serving("cluster", 0, BLOCKING_MIN)).transpose()?;
        let control_plane = Builder::new_current_thread().enable_all().build()?;
        let mut lifecycle = Lifecycle::new();
        let connections = Arc::new(Connections::default());
        let current = Arc::new(Current::new(self.snapshot.clone()));
        let metrics = self.process.origins.metrics.clone();
        let publisher = self.process.origins.bus.clone();
        publisher.follow(self.snapshot.log.bus.as_ref());
        let directory = self.process.origins.identity.directory().clone();
        directory.configure(self.snapshot.consumers.clone());
        let follower = self.snapshot.store.clone().map(|store| Follower::new(store, directory.clone()));
        let follower = follower.map(Arc::new);
        let ledger = self.process.origins.identity.usage().clone();
        let bookkeeper = self.snapshot.store.clone().map(|store| Arc::new(Bookkeeper::new(store, ledger)));
        let counters = self.process.origins.limits.clone();
        let loaded = self.process.loaded;
        let services = self.snapshot.store.clone().filter(|_| loaded.is_some());
        let reloader = Arc::new(Reloader::new(self.process.origins, current.clone(), loaded));
        let services = services
            .map(|store| Arc::new(services::Follower::new(store, reloader.clone(), lifecycle.sender())));
        let upgrader = Upgrader::new(self.process.invocation, self.bindings.sockets, counters.clone());
        let health = Arc::new(report::health(&current, &reloader, &directory, services.as_ref()));

        let tunnels = Tunnels::new(directory.clone());
        let gateway = Gateway::new(current.clone(), metrics.clone(), lifecycle.draining(), tunnels.clone());
        let mut proxy = HttpProxy::new(gateway.clone(), Arc::new(proxy_conf(&self.snapshot)));
        proxy.handle_init_modules();
        let edge = Arc::new(Edge {
            app: Arc::new(proxy),
            direct: Some(Arc::new(gateway)),
            rules: Rules::Current(current.clone()),
            metrics: metrics.clone(),
            threads: threads.clone(),
            connections: connections.clone(),
            draining: lifecycle.draining(),
        });

        let ending = control_plane.block_on(async {
            // Before anything serves: from here on no signal kills.
            let signals = lifecycle::signals(lifecycle.sender())?;
            drop(task::spawn("signals", signals));
            connections.watch();
            let (loaded, all) = (current.clone(), connections.clone());
            drop(task::keep("pressure", move || super::pressure::watch(loaded.clone(), all.clone())));
            drop(task::keep("tunnels", move || tunnels.clone().watch()));
            if let Some(cluster) = &self.snapshot.cluster {
                share(cluster, &directory, aside.as_ref());
            }
            reload::warm(&self.snapshot).await;
            if let Some(cluster) = &self.snapshot.cluster
                && !cluster.caught_up(LEARN_TIMEOUT).await
            {
                tracing::warn!("starting without what other instances have revoked");
            }
            if let Some(follower) = &follower {
                learn(follower).await;
                let follower = follower.clone();
                drop(task::keep("store", move || follower.clone().run()));
            }
            if let Some(services) = &services {
                services::learn(services, LEARN_TIMEOUT, predecessor.is_some()).await?;
                let services = services.clone();
                drop(task::keep("services", move || services.clone().run()));
            }
            if let Some(bookkeeper) = &bookkeeper {
                learn_usage(bookkeeper).await;
                let keeper = bookkeeper.clone();
                drop(task::keep("usage", move || keeper.clone().run()));
                drop(task::spawn(
                    "usage hand-over",
                    hand_over_usage(bookkeeper.clone(), lifecycle.handed_over()),
                ));
            }
            if let Some(predecessor) = predecessor.as_ref() {
                // As late as can be: what the other counts from here on, this one does not know.
                go_on_counting(predecessor, &counters);
            }
            let turns = data.iter().cycle();
            for ((index, bound), runtime) in (0_u16..).zip(self.bindings.listeners).zip(turns) {
                let (edge, stop) = (edge.clone(), lifecycle.stop_accepting());
                drop(task::spawn_on(runtime.handle(), "listener", async move {
                    if let Err(error) = ingress::serve(edge, index, bound, stop).await {
                        tracing::error!(listener = index, %error, "listener ended");
                    }
                }));
            }
            let (drained_last, handed_over) = (lifecycle.draining(), lifecycle.handed_over());
            if let Some(bound) = self.bindings.admin {
                let api = Api::new(services::api_parts(&current, &reloader, services.as_ref()));
                let admin = Arc::new(Admin::new(health.clone(), metrics.clone()).with_api(api));
                plain::serve_admin(bound, admin, &metrics, &drained_last, &handed_over);
            }
            for sample in self.samples {
                drop(task::spawn("sample", sample.run(metrics.clone())));
            }
            if let Some(control) = self.bindings.control {
                let status = report::status(current.clone(), connections.clone(), reloader.clone());
                let limits = report::limits(current.clone());
                let sync = synchronise(follower.clone(), services.clone(), bookkeeper.clone());
                let answers = Answers { status, sync, limits };
                let serving = control.serve(lifecycle.sender(), answers, handed_over);
                drop(task::spawn("control socket", async move {
                    if let Err(error) = serving.await {
                        tracing::error!(%error, "control socket ended");
                    }
                }));
            }
            let (watched, orders) = (reloader.watched(), lifecycle.sender());
            drop(task::keep("watch", move || watch::run(watched.clone(), orders.clone())));
            metrics.configured(clock::wall());
            metrics.set_certificates(self.snapshot.certificates());
            // The snapshot of the start is not kept beyond its successors.
            drop(self.snapshot);
            match predecessor.take() {
                // It told the service manager long ago that it is ready, and tells it who serves now.
                Some(predecessor) => {
                    if let Some(pid_file) = &mut self.pid_file {
                        pid_file.put()?;
                    }
                    let pid = predecessor.pid();
                    if let Err(error) = predecessor.ready() {
                        let given = self.pid_file.as_ref().map_or(Ok(()), |file| file.give_back(pid));
                        given.unwrap_or_else(|error| tracing::error!(%error, "the pid file names nobody"));
                        return Err(error);
                    }
                    upgrader.keep_files();
                }
                None => service_manager::ready(),
            }
            ready(&announcement);

            let house = House {
                current: &current,
                health: health.clone(),
                connections: connections.clone(),
                reopen: &|| self.writer.reopen(),
                reloader: &reloader,
                upgrader: &upgrader,
            };
            let ending = lifecycle.run(&house).await;
            if let Some(follower) = &follower {
                let recorded = tokio::time::timeout(FLUSH_TIMEOUT, follower.record_uses()).await;
                recorded.unwrap_or_else(|_| tracing::debug!("the last use of API keys was not recorded"));
            }
            if let Some(bookkeeper) = &bookkeeper {
                // Nothing is served any more.
                let kept = tokio::time::timeout(FLUSH_TIMEOUT, bookkeeper.sync()).await;
                if !matches!(kept, Ok(Ok(()))) {
                    tracing::warn!("the last usage of quotas could not be kept in the store");
                }
            }
            io::Result::Ok(ending)
        })?;

        tracing::info!(?ending, "stopped");
        // What was still served is recorded when its task is dropped, which has to happen before the writer stops.
        std::thread::scope(|all| {
            for runtime in data.into_iter().chain(aside) {
                // At the same time: none goes on with what another one has let go of.
                let end = move || runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
                let ending = std::thread::Builder::new().spawn_scoped(all, end);
                drop(ending.inspect_err(|error| tracing::warn!(%error, "a thread was not waited for")));
            }
        });
        control_plane.shutdown_background();
        let flushed = clock::now() + FLUSH_TIMEOUT;
        self.writer.stop(FLUSH_TIMEOUT);
        // The last records are on the bus now.
        publisher.stop(flushed);
        drop(self.pid_file);
        Ok(ending)
    }
}

/// Takes over the counters of rate limits. Without them this process serves all the same: an upgrade must not fail for it.
fn go_on_counting(predecessor: &Predecessor, limits: &rate_limit::Live) {
    let taken = match predecessor.counters(rate_limit::CARRIED_BYTES_MAX) {
        Ok(None) => return,
        Ok(Some(bytes)) => limits.import(&bytes, clock::now()).map_err(str::to_owned),
        Err(error) => Err(error.to_string()),
    };
    match taken {
        Ok(counters) => tracing::info!(counters, "going on with the counters of rate limits"),
        Err(why) => tracing::warn!(why, "the counters of rate limits begin anew"),
    }
}

/// Waits a while for what the store knows: nothing that was revoked shall hold again because a process is new.
async fn learn(follower: &Follower) {
    match tokio::time::timeout(LEARN_TIMEOUT, follower.catch_up()).await {
        Ok(Ok(())) => {}
        // Its status says the same, and goes on saying it.
        Ok(Err(error)) => tracing::warn!("starting without what the store knows: {error}"),
        Err(_) => tracing::warn!("the store is still being read"),
    }
}

/// The same for what was used of quotas: nobody shall have a new one because a process is new.
async fn learn_usage(bookkeeper: &Bookkeeper) {
    match tokio::time::timeout(LEARN_TIMEOUT, bookkeeper.sync()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("starting without what was used of quotas: {error}"),
        Err(_) => tracing::warn!("what was used of quotas is still being read"),
    }
}

/// Keeps what was counted as soon as another process serves, which then reads it.
async fn hand_over_usage(bookkeeper: Arc<Bookkeeper>, mut handed_over: Watched<bool>) {
    if handed_over.wait_for(|is| *is).await.is_ok()
        && let Err(error) = bookkeeper.sync().await
    {
        tracing::warn!("the next process does not know all usage of quotas yet: {error}");
    }
}

/// How a command has this process take what it changed in the store, and put there what it has counted.
fn synchronise(
    follower: Option<Arc<Follower>>,
    services: Option<Arc<services::Follower>>,
    bookkeeper: Option<Arc<Bookkeeper>>,
) -> Synchronise {
    Arc::new(move || {
        let (follower, services, bookkeeper) = (follower.clone(), services.clone(), bookkeeper.clone());
        Box::pin(async move {
            if let Some(bookkeeper) = &bookkeeper
                && let Err(error) = bookkeeper.sync().await
            {
                tracing::debug!(%error, "usage cannot be kept in the store");
            }
            let Some(follower) = &follower else {
                return serde_json::json!({ "ok": false, "error": "there is no store" });
            };
            let mut done = follower.catch_up().await.map_err(|error| error.to_string());
            if let (Ok(()), Some(services)) = (&done, &services) {
                done = services.catch_up().await;
            }
            match done {
                Ok(()) => serde_json::json!({ "ok": true }),
                Err(error) => serde_json::json!({ "ok": false, "error": error }),
            }
        })
    })
}

/// Begins to share with other instances, on a thread `aside`: requests of all threads wait for what comes over its connection, and
/// must not for those of one.
fn share(cluster: &Cluster, directory: &Arc<Directory>, aside: Option<&Runtime>) {
    let _entered = aside.map(Runtime::enter);
    directory.share(cluster.revocations().clone());
    let directory = directory.clone();
    cluster.start(Arc::new(move |revocation| directory.hear(revocation)));
}

/// The pid file, written already unless another process is still to be replaced.
fn pid_file(path: &Path, predecessor: Option<&Predecessor>, account: &Account) -> io::Result<PidFile> {
    let mut file = PidFile::prepare(path, predecessor.map(Predecessor::pid))?;
    if predecessor.is_none() {
        file.put()?;
        account.own(path)?;
    }
    Ok(file)
}

/// Root could read everything; whoever the process is now must be able to as well, or no reload would ever succeed.
fn check_readable(snapshot: &Snapshot) -> Result<(), StartError> {
    let unreadable = snapshot.files.iter().find_map(|path| {
        let error = std::fs::File::open(path).err()?;
        (error.kind() == io::ErrorKind::PermissionDenied).then_some((path, error))
    });
    let Some((path, error)) = unreadable else { return Ok(()) };
    let user = snapshot.server.user.as_deref().unwrap_or_default();
    let group = snapshot.server.group.as_deref();
    let culprit = user::what_keeps_from(user, group, path).unwrap_or_else(|| path.clone());
    let message = format!(
        "{} cannot be read as that user, so no reload would succeed: {error}\n  hint: {}",
        path.display(),
        user::let_read(user, group, &culprit),
    );
    Err(StartError::User(io::Error::new(error.kind(), message)))
}

/// Threads for what blocks, such as reading files: in all, and at least beside each thread that serves, which may be the one
/// that has all that is read.
const BLOCKING_MAX: usize = 512;
const BLOCKING_MIN: usize = 64;

/// A runtime for each thread that serves connections.
fn data_plane(snapshot: &Snapshot) -> io::Result<Vec<Runtime>> {
    let threads = snapshot.server.threads;
    let blocking = (BLOCKING_MAX / threads.max(1)).max(BLOCKING_MIN);
    (1..=threads).map(|number| serving("edge", number, blocking)).collect()
}

/// A runtime of one thread, with its `number` among those that serve. Not of the current thread's kind: nobody has to stay to run
/// it.
fn serving(name: &str, number: usize, blocking: usize) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).max_blocking_threads(blocking).thread_name(name);
    builder.on_thread_start(move || threads::set_number(number)).enable_all().build()
}

fn proxy_conf(snapshot: &Snapshot) -> ServerConf {
    ServerConf {
        // The pool's size is this times `threads`; `limits.upstream_idle` counts for the whole process. What is not
        // Pingora's is counted by `upstream::link`.
        threads: 1,
        upstream_keepalive_pool_size: snapshot.limits.upstream_idle,
        max_retries: ATTEMPTS_MAX,
        ..ServerConf::default()
    }
}
