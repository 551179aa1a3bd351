//! A new configuration for a running process: read, compile, warm, swap; or nothing at all.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use indexmap::IndexSet;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::descriptors;
use crate::base::diagnostic::{Diagnostics, Severity};
use crate::base::{clock, task};
use crate::broker::Brokers;
use crate::broker::bus::Publisher;
use crate::cluster::Slot;
use crate::config::diff::{self, Changes};
use crate::config::services::{LeftOut, Problem, Report};
use crate::config::snapshot::{Current, Snapshot};
use crate::config::tls::Sessions;
use crate::config::{self, Compiled, Loaded, Runtime, render};
use crate::identity::live::Live as Identity;
use crate::policy::rate_limit;
use crate::store::Services;
use crate::telemetry::access::Queue;
use crate::telemetry::log::ProcessLog;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Live;

/// Longest a configuration may take to become warm; what is not known by then shows as `warming`.
const WARM_TIMEOUT: Duration = Duration::from_millis(300);

/// Reads the configuration of the process: the same files each time.
pub type Read = Arc<dyn Fn() -> Loaded + Send + Sync>;

/// The parts of the process that outlive its configurations, and how to make one.
#[derive(Clone)]
pub struct Origins {
    /// Reads the files.
    pub read: Read,
    /// Knows servers and names from earlier configurations.
    pub live: Arc<Live>,
    /// Knows providers, the keys fetched for them and the tokens verified by them from earlier configurations; who is
    /// known, and the store.
    pub identity: Arc<Identity>,
    /// Has the counters of earlier configurations.
    pub limits: Arc<rate_limit::Live>,
    /// Knows what this process shares with others.
    pub cluster: Arc<Slot>,
    /// Knows brokers from earlier configurations.
    pub brokers: Arc<Brokers>,
    /// Keys of TLS sessions, which clients of earlier configurations hold tickets of.
    pub sessions: Arc<Sessions>,
    /// Gives handles by name.
    pub metrics: Arc<Metrics>,
    /// Takes access records.
    pub access: Arc<Queue>,
    /// Publishes them, and the lines of the process log.
    pub bus: Arc<Publisher>,
    /// The process log, whose level is configured.
    pub log: ProcessLog,
}

impl std::fmt::Debug for Origins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origins").finish_non_exhaustive()
    }
}

impl Origins {
    /// What a configuration is compiled for: the `generation`th of this process, with listeners `bound` in this order.
    pub fn runtime(&self, generation: u64, bound: Vec<String>) -> Runtime {
        Runtime {
            live: self.live.clone(),
            identity: self.identity.clone(),
            metrics: self.metrics.clone(),
            access_queue: self.access.clone(),
            bus: self.bus.bus().clone(),
            limits: self.limits.clone(),
            cluster: self.cluster.clone(),
            brokers: self.brokers.clone(),
            sessions: self.sessions.clone(),
            generation,
            now: clock::now(),
            wall: clock::wall(),
            bound,
            descriptors: descriptors::hard_limit(),
            serves_nothing: false,
        }
    }
}

/// Reloads the configuration of a process, one at a time.
#[derive(Debug)]
pub struct Reloader {
    origins: Origins,
    current: Arc<Current>,
    last: Mutex<Option<Last>>,
    watched: watch::Sender<Watched>,
    /// The files of the configuration in force as they were read, where services of the store stand beside them: a change
    /// of services must not bring with it what somebody is just writing.
    loaded: Mutex<Option<Arc<Loaded>>>,
    /// The services as they were last read.
    services: Mutex<Option<Arc<Services>>>,
    /// Why services were last not applied.
    refused: Mutex<Option<String>>,
}

/// What a watch over the files of the configuration has to know.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// Whether the configuration in force wants one.
    pub(super) wanted: bool,
    /// The files of the configuration in force, and of one that was not taken: repairing it is a change.
    pub(super) files: Arc<[PathBuf]>,
    /// When they began to be read: what is younger was perhaps not seen.
    pub(super) read: SystemTime,
}

/// How the last reload went.
#[derive(Debug, Clone)]
pub struct Last {
    /// When it ended.
    pub at: SystemTime,
    /// What came of it: the changes, or the first of the problems.
    pub outcome: Result<String, String>,
}

/// What is compiled anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// The files, read anew.
    Files,
    /// The services, beside the files as they were read last.
    Services,
}

/// A configuration that can be put in force.
struct Ready {
    snapshot: Snapshot,
    changes: Changes,
    /// As text.
    warnings: String,
    /// Its files, where services stand beside them.
    loaded: Option<Arc<Loaded>>,
}

/// Services that one line each tells of, when they are left out.
const TOLD_MAX: usize = 20;

/// A configuration that was not taken: all that is wrong with it.
struct Refused {
    /// Number of errors.
    errors: usize,
    /// The first, with its place.
    first: String,
    /// All of them, for people.
    text: String,
}

impl Reloader {
    /// Reloads what `origins` read, in place of what is `current`.
    pub fn new(origins: Origins, current: Arc<Current>, loaded: Option<Arc<Loaded>>) -> Self {
        let snapshot = current.load();
        let watched =
            Watched { wanted: snapshot.server.watch, files: snapshot.files.clone(), read: clock::wall() };
        Self {
            origins,
            current,
            last: Mutex::default(),
            watched: watch::Sender::new(watched),
            loaded: Mutex::new(loaded),
            services: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// The files of the configuration in force, where services of the store stand beside them.
    pub(super) fn loaded(&self) -> Option<Arc<Loaded>> {
        self.loaded.lock().clone()
    }

    /// The services as they were last read; `None` if they never were.
    pub(super) fn services(&self) -> Option<Arc<Services>> {
        self.services.lock().clone()
    }

    /// Remembers services for the next time that a configuration is compiled.
    pub(super) fn know_services(&self, services: Services) {
        *self.services.lock() = Some(Arc::new(services));
    }

    /// Puts the services as they were last read in place of those that are served. What the files say does not change. The
    /// outcome as [`Self::reload`] tells it.
    pub async fn apply_services(&self) -> serde_json::Value {
        let began = clock::now();
        match self.take(&mut Arc::default(), Of::Services).await {
            Ok((generation, changes, _)) => {
                let ms = clock::now().saturating_duration_since(began).as_millis();
                let report = self.current.load().services.clone();
                tracing::info!(generation, ms, changes = changes.summary(), "services: {}", report.summary());
                *self.refused.lock() = None;
                serde_json::json!({ "ok": true, "generation": generation })
            }
            Err(Refused { first, .. }) => {
                let last = self.refused.lock().replace(first.clone());
                // It is tried again, and says the same.
                if last.as_ref() != Some(&first) {
                    tracing::error!("services not applied, those before go on: {first}");
                }
                serde_json::json!({ "ok": false, "error": format!("the services could not be applied: {first}") })
            }
        }
    }

    /// How the last reload went; `None` before the first.
    pub fn last(&self) -> Option<Last> {
        self.last.lock().clone()
    }

    /// What there is to be watched, anew after each reload.
    pub(super) fn watched(&self) -> watch::Receiver<Watched> {
        self.watched.subscribe()
    }

    /// Reads, compiles, warms and swaps. On any problem nothing has changed. Returns the outcome as the control socket
    /// tells it; the log and the metrics have it, too.
    pub async fn reload(&self) -> serde_json::Value {
        let (began, read) = (clock::now(), clock::wall());
        let mut attempted = Arc::default();
        let taken = self.take(&mut attempted, Of::Files).await;
        self.watch(taken.is_ok(), &attempted, read);
        let at = clock::wall();
        let ms = u64::try_from(clock::now().saturating_duration_since(began).as_millis()).unwrap_or(u64::MAX);
        self.origins.metrics.reloaded(taken.is_ok(), at);
        let (outcome, answer) = match taken {
            Ok((generation, changes, warnings)) => {
                let summary = changes.summary();
                tracing::info!(generation, ms, "configuration reloaded: {summary}");
                let answer = serde_json::json!({
                    "ok": true,
                    "generation": generation,
                    "milliseconds": ms,
                    "added": changes.added,
                    "removed": changes.removed,
                    "altered": changes.altered,
                    "changes": changes.text(),
                    "warnings": warnings,
                });
                (Ok(summary), answer)
            }
            Err(Refused { errors, first, text }) => {
                tracing::error!(errors, "configuration not reloaded, the one before goes on: {first}");
                (
                    Err(first),
                    serde_json::json!({ "ok": false, "error": "the configuration has problems", "problems": text }),
                )
            }
        };
        *self.last.lock() = Some(Last { at, outcome });
        answer
    }

    /// Has the files watched that the next reload is about.
    fn watch(&self, taken: bool, attempted: &Arc<[PathBuf]>, read: SystemTime) {
        let current = self.current.load();
        let files = if taken {
            current.files.clone()
        } else {
            current
                .files
                .iter()
                .chain(attempted.iter())
                .collect::<IndexSet<_>>()
                .into_iter()
                .cloned()
                .collect()
        };
        self.watched.send_replace(Watched { wanted: current.server.watch, files, read });
    }

    async fn take(&self, attempted: &mut Arc<[PathBuf]>, of: Of) -> Result<(u64, Changes, String), Refused> {
        let old = self.current.load();
        let (files, compiled) = self.compile(old.clone(), of).await;
        *attempted = files;
        let Ready { snapshot, changes, warnings, loaded } = *compiled?;
        warm(&snapshot).await;
        self.tell_of_services(&old.services, &snapshot.services);
        let (snapshot, generation) = (Arc::new(snapshot), old.generation + 1);
        self.origins.log.set_level(snapshot.log.level);
        self.origins.metrics.set_certificates(snapshot.certificates());
        self.current.swap(snapshot.clone());
        self.origins.identity.directory().configure(snapshot.consumers.clone());
        if of == Of::Services {
            drop(task::blocking(move || drop(old)));
            return Ok((generation, changes, warnings));
        }
        *self.loaded.lock() = loaded;
        // Files of the configuration before are closed, this one's opened: what is wrong with them shows now.
        if let Some(log) = &snapshot.log.access {
            log.open();
        }
        self.origins.access.reopen();
        self.origins.bus.follow(snapshot.log.bus.as_ref());
        // The last holder of a large configuration takes some time to drop it: not here, where signals wait.
        drop(task::blocking(move || drop(old)));
        Ok((generation, changes, warnings))
    }

    /// Says which services are newly left out, once; the status goes on saying it.
    fn tell_of_services(&self, before: &Report, after: &Report) {
        let known = before.by_name().left_out;
        let is_new = |left: &&LeftOut| known.get(&*left.name).is_none_or(|known| known != left);
        let new: Vec<_> = after.left_out.iter().filter(is_new).collect();
        for left in new.iter().take(TOLD_MAX) {
            let problem = left.problems.first().map(Problem::line).unwrap_or_default();
            tracing::error!(service = ?left.name, "service left out: {problem}");
        }
        if let Some(more) = new.len().checked_sub(TOLD_MAX).filter(|more| *more > 0) {
            tracing::error!("{more} more services left out");
        }
        self.origins.metrics.services(after.applied.len(), after.left_out.len(), after.disabled.len());
    }

    /// Beside the runtime: ten thousand routes take a fraction of a second.
    async fn compile(&self, old: Arc<Snapshot>, of: Of) -> (Arc<[PathBuf]>, Result<Box<Ready>, Refused>) {
        let bound = old.listeners.iter().map(|listener| listener.name.clone()).collect();
        let runtime = self.origins.runtime(old.generation + 1, bound);
        let read = self.origins.read.clone();
        let (loaded, services) = (self.loaded(), self.services());
        let compiled = task::blocking(move || {
            let loaded = match (of, loaded) {
                (Of::Services, Some(loaded)) => loaded,
                _ => Arc::new(read()),
            };
            let Compiled { sources, mut diagnostics, files, snapshot, .. } = match &services {
                Some(services) if loaded.serves_services() => {
                    loaded.compile_with(services, config::surroundings(), &runtime)
                }
                _ => Loaded::clone(&loaded).compile(&runtime),
            };
            if let Some(new) = &snapshot {
                diff::needs_upgrade(&old, new, &mut diagnostics);
            }
            let text = if diagnostics.is_empty() {
                String::new()
            } else {
                render::text(&diagnostics, &sources, false)
            };
            let compiled = match snapshot.filter(|_| !diagnostics.has_errors()) {
                Some(new) => {
                    let changes = Changes::between(&old, &new);
                    let loaded = Some(loaded).filter(|loaded| loaded.serves_services());
                    match keep_generated(&new, |_| Ok(())) {
                        Ok(()) => Ok(Box::new(Ready { snapshot: new, changes, warnings: text, loaded })),
                        Err(first) => Err(Refused { errors: 1, text: format!("error: {first}\n"), first }),
                    }
                }
                None => {
                    Err(Refused { errors: errors(&diagnostics), first: first(&diagnostics, &sources), text })
                }
            };
            (files, compiled)
        });
        compiled.await.unwrap_or_else(|error| {
            let first = format!("reading it failed: {error}");
            (Arc::default(), Err(Refused { errors: 1, text: format!("error: {first}\n"), first }))
        })
    }
}

fn errors(diagnostics: &Diagnostics) -> usize {
    diagnostics.iter().filter(|problem| problem.severity == Severity::Error).count()
}

fn first(diagnostics: &Diagnostics, sources: &crate::base::origin::Sources) -> String {
    let Some(problem) = diagnostics.iter().find(|problem| problem.severity == Severity::Error) else {
        return String::new();
    };
    format!("{}: {}", sources.describe(&problem.origin), problem.message)
}

/// Writes signing keys that were made for `snapshot` into their files: what is signed with a key that is nowhere could not
/// be verified after the next start. `own` gives each file to whom the process is going to be.
///
/// # Errors
/// What could not be written.
pub(super) fn keep_generated(
    snapshot: &Snapshot,
    own: impl Fn(&Path) -> io::Result<()>,
) -> Result<(), String> {
    snapshot.providers.values().try_for_each(|provider| provider.keep_generated(&own))
}

/// Starts what runs beside requests and waits a moment for it, so that the first request finds servers.
pub(super) async fn warm(snapshot: &Snapshot) {
    for upstream in snapshot.upstreams.values() {
        upstream.start();
    }
    for provider in snapshot.providers.values() {
        provider.start();
    }
    for broker in snapshot.brokers.values() {
        broker.start();
    }
    let upstreams = join_all(snapshot.upstreams.values().map(|upstream| upstream.warm()));
    let providers = join_all(snapshot.providers.values().map(|provider| provider.warm()));
    // The first requests would find nobody to ask.
    let shared = async {
        if let Some(cluster) = &snapshot.cluster {
            cluster.ready(WARM_TIMEOUT).await;
        }
    };
    let brokers = join_all(snapshot.brokers.values().map(|broker| broker.ready(WARM_TIMEOUT)));
    let all = async { tokio::join!(upstreams, providers, shared, brokers) };
    if tokio::time::timeout(WARM_TIMEOUT, all).await.is_err() {
        tracing::debug!("not everything is warm yet");
    }
}
