//! From what is written to what requests run on: names become handles, and what no table alone can know is checked.
//!
//! Pure but for files that the configuration names (certificates, static answers). The same at start, for `check`, and
//! for a reload; compiling starts nothing.

mod bus;
mod claims;
mod limits;
mod login;
mod plans;
mod route;
mod services;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use indexmap::IndexMap;

use self::route::Parties;
use super::declared::Declared;
use super::diff::Outline;
use super::log::{EscapeRaw, LevelRaw, LogRaw, OutputRaw};
use super::process::{ListenerRaw, check_listeners};
use super::raw::ConfigRaw;
use super::settings::connections_within;
use super::snapshot::{Listener, LogSettings, Report, Snapshot};
use super::tls::Sessions;
use super::{Loaded, tls};
use crate::base::clock;
use crate::base::decode::{Value, join_key, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::names::nearest;
use crate::base::origin::{At, Origin, Sources};
use crate::base::units::format_duration;
use crate::broker::bus::LogBus;
use crate::broker::{Broker, Brokers};
use crate::cluster::{Cluster, Slot};
use crate::identity::config::{ProviderRaw, Surroundings};
use crate::identity::consumers::{self, CERTIFICATES};
use crate::identity::directory::Configured;
use crate::identity::live::Live as Identity;
use crate::identity::provider::Provider;
use crate::policy;
use crate::routing::{Mistake, Table};
use crate::telemetry::access::{AccessLog, Escape, Format, Output, Queue};
use crate::telemetry::bus::Bus;
use crate::telemetry::metrics::Metrics;
use crate::upstream::config::{UpstreamRaw, link_fallbacks};
use crate::upstream::resolver::System;
use crate::upstream::{Live, Upstream};

/// What compiling ties a configuration to: the parts of the process that outlive it.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Gives handles by name.
    pub metrics: Arc<Metrics>,
    /// Takes access records.
    pub access_queue: Arc<Queue>,
    /// Takes them, and lines of the process log, as messages.
    pub bus: Arc<Bus>,
    /// Knows servers and names from earlier configurations.
    pub live: Arc<Live>,
    /// Knows providers, the keys fetched for them and the tokens verified by them from earlier configurations; who is
    /// known, and the store.
    pub identity: Arc<Identity>,
    /// Has the counters of earlier configurations.
    pub limits: Arc<policy::rate_limit::Live>,
    /// Knows what this process shares with others.
    pub cluster: Arc<Slot>,
    /// Knows brokers from earlier configurations.
    pub brokers: Arc<Brokers>,
    /// Keys of TLS sessions, which clients of earlier configurations hold tickets of.
    pub sessions: Arc<Sessions>,
    /// Counts configurations of this process, from 1.
    pub generation: u64,
    /// The moment.
    pub now: Instant,
    /// The date, for certificates.
    pub wall: SystemTime,
    /// The names of the listeners that are bound, in their order; connections know theirs by its place. Empty at start.
    pub bound: Vec<String>,
    /// How many files the process may have open, if there is a limit: of what nobody configured, as much as it allows.
    pub descriptors: Option<u64>,
    /// Whether certificates that cannot be used are warnings: nothing is going to be served.
    pub serves_nothing: bool,
}

impl Runtime {
    /// One that belongs to no process: for `check`, `explain` and tests.
    pub fn detached() -> Self {
        let metrics = Metrics::new();
        Self {
            access_queue: Queue::new(metrics.clone()),
            bus: Bus::new(metrics.clone()),
            live: Live::new(metrics.clone(), Arc::new(System)),
            identity: Identity::offline(metrics.clone()),
            metrics,
            limits: Arc::default(),
            cluster: Arc::default(),
            brokers: Arc::default(),
            sessions: Arc::default(),
            generation: 1,
            now: clock::now(),
            wall: clock::wall(),
            bound: Vec::new(),
            descriptors: None,
            serves_nothing: false,
        }
    }

    /// Like [`Runtime::detached`], where the certificates need not be at hand: for `explain`.
    pub fn for_questions() -> Self {
        Self { serves_nothing: true, ..Self::detached() }
    }
}

/// A configuration that was read and compiled.
#[derive(Debug)]
pub struct Compiled {
    /// Its files.
    pub sources: Sources,
    /// All that is wrong or doubtful.
    pub diagnostics: Diagnostics,
    /// Every file it depends on, and the directories in which more are looked for: also beside errors.
    pub files: Arc<[PathBuf]>,
    /// What requests can run on; `None` if there is any error.
    pub snapshot: Option<Snapshot>,
    /// What became of the services of the store.
    pub services: Report,
}

impl Loaded {
    /// Compiles what was read, also beside errors, so that all of them are found at once.
    pub fn compile(self, runtime: &Runtime) -> Compiled {
        let Self { sources, mut diagnostics, raw, mut files, declared, .. } = self;
        let snapshot = raw.map(|raw| {
            let compiler = Compiler { raw: &raw, declared: &declared, runtime };
            compiler.snapshot(sources.clone(), &mut files, &mut diagnostics)
        });
        let is_relative =
            |origin: &Origin| !sources.written(origin).trim_matches(['"', '\'']).starts_with('/');
        diagnostics.drop_hint(tls::RELATIVE_HINT, is_relative);
        if runtime.serves_nothing {
            diagnostics.forgive(&["tls-", "no-certificates", "key-unreadable"]);
        }
        let files: Arc<[PathBuf]> = files.into();
        let snapshot = snapshot.filter(|_| !diagnostics.has_errors());
        let snapshot = snapshot.map(|snapshot| Snapshot { files: files.clone(), ..snapshot });
        diagnostics.sort();
        Compiled { sources, diagnostics, files, snapshot, services: Report::default() }
    }
}

#[derive(Clone, Copy)]
struct Compiler<'a> {
    raw: &'a ConfigRaw,
    declared: &'a Declared,
    runtime: &'a Runtime,
}

impl Compiler<'_> {
    /// Beside errors the result is incomplete and must not be served.
    fn snapshot(self, sources: Sources, files: &mut Vec<PathBuf>, out: &mut Diagnostics) -> Snapshot {
        let raw = self.raw;
        let server = raw.server.compile(out);
        let mut limits = raw.limits.compile(out);
        if let (Origin::Default, Some(descriptors)) =
            (&raw.limits.connections.origin, self.runtime.descriptors)
        {
            let within = connections_within(descriptors, limits.upstream_idle, server.threads);
            limits.connections = limits.connections.min(within);
        }
        let mut outline = Outline::of(raw);
        let listeners = self.listeners(files, out);
        listeners.iter().for_each(|listener| outline.listener_content(listener));
        let upstreams = self.upstreams(&mut outline, out);
        let cluster = self.cluster(&mut outline, out);
        let brokers = self.brokers(&mut outline, out);
        let bus = self.bus(&brokers, out);
        let providers = self.providers(&mut outline, out);
        let consumers = self.consumers(&mut outline, out);
        let rate_limits = self.rate_limits(cluster.as_ref(), out);
        let plans = self.plans(cluster.as_ref(), out);
        let login = self.login(&providers, out);
        let identity = raw.identity.compile(out);
        let parties = Parties {
            providers: &providers,
            directory: self.runtime.identity.directory(),
            places: &identity.places,
            limits: &rate_limits,
            plans: &plans,
            brokers: &brokers,
            login: login.as_ref(),
        };
        let routes = self.routes(&upstreams, parties, out);
        self.check_claims(out);
        self.check_auth(out);
        self.check_services(out);
        let table = Table::build(routes.specs);
        for (below, above) in table.shadowed() {
            self.report_shadowed(below, above, out);
        }
        for (asking, open) in table.fall_throughs() {
            self.report_fall_through(asking, open, out);
        }
        Snapshot {
            generation: self.runtime.generation,
            server,
            limits,
            listeners,
            admin: raw.admin.as_ref().map(|admin| admin.compile(out)),
            store: raw.store.as_ref().map(|store| self.runtime.identity.store(&store.url)),
            consumers,
            cluster,
            log: log(&raw.log, bus, identity.places.key_query.as_deref(), self.runtime, out),
            identity,
            table,
            routes: routes.routes,
            unmatched: routes.unmatched,
            upstreams,
            brokers,
            providers,
            rate_limits,
            plans: plans.by_name,
            sources,
            files: Arc::default(),
            outline,
            services: Arc::default(),
            remnant: OnceLock::new(),
        }
    }

    /// The place of the listener called `name` in the snapshot: that of its socket, wherever its table stands now.
    fn listener_place(self, name: &str) -> Option<usize> {
        let written = || self.raw.listeners.iter().position(|listener| listener.name.value == name);
        self.runtime.bound.iter().position(|bound| bound == name).or_else(written)
    }

    fn listeners(self, files: &mut Vec<PathBuf>, out: &mut Diagnostics) -> Vec<Arc<Listener>> {
        let listeners = &self.raw.listeners;
        // None that can be used is another matter than none, and so is one that an error keeps from being seen.
        if self.declared.listeners.is_empty() && !out.has_errors() {
            let message = "there is no listener: nothing will be accepted";
            out.warning("no-listeners", &Origin::Default, "listeners", message)
                .hint("add [[listeners]] with a name and an address");
        }
        let positions = Declared::positions(&self.declared.listeners, listeners);
        let paths: Vec<_> = positions.iter().map(|position| format!("listeners[{position}]")).collect();
        check_listeners(listeners, &paths, self.raw.admin.as_ref().map(|at| &at.value), out);
        let compile = |(path, listener): (&String, &At<ListenerRaw>)| {
            let nobody_is_trusted = self.raw.server.trusted_proxies.is_empty();
            if *listener.proxy_protocol && nobody_is_trusted {
                let message = "nobody is trusted to send a PROXY header: every connection would be closed";
                let (origin, path) = (&listener.proxy_protocol.origin, format!("{path}.proxy_protocol"));
                out.error("no-trusted-proxies", origin, path, message)
                    .hint("name the proxies in front in `server.trusted_proxies`");
            }
            let settings = listener.compile(path, &listener.origin, listeners, out);
            // Patterns stand for files that only now are known.
            files.extend(
                settings
                    .certificates
                    .iter()
                    .flat_map(|pair| [pair.cert.value.clone(), pair.key.value.clone()]),
            );
            let tls = tls::compile(&settings, path, &self.runtime.sessions, self.runtime.wall, out);
            let (tls, certificates) = match tls {
                Some((tls, certificates)) => (Some(Arc::new(tls)), certificates),
                None => (None, Vec::new()),
            };
            Arc::new(Listener {
                metrics: self.runtime.metrics.listener(&settings.name),
                name: settings.name,
                address: settings.address,
                origin: listener.address.origin.clone(),
                http2: settings.http2,
                proxy_protocol: settings.proxy_protocol,
                tls,
                certificates,
                redirect_https: settings.redirect_https,
            })
        };
        let mut compiled: Vec<_> = paths.iter().zip(listeners.iter()).map(compile).collect();
        compiled.sort_by_key(|listener| self.listener_place(&listener.name));
        compiled
    }

    fn upstreams(self, outline: &mut Outline, out: &mut Diagnostics) -> IndexMap<String, Arc<Upstream>> {
        let mut upstreams = IndexMap::with_capacity(self.raw.upstreams.len());
        for (name, upstream) in self.raw.upstreams.iter() {
            let path = join_key("upstreams", name);
            check_name(name, &upstream.origin, &path, out);
            self.check_read_timeout(upstream, &path, out);
            if let Some(settings) = upstream.compile(name, &path, &upstream.origin, out) {
                outline.upstream_content(name, settings.content());
                let upstream = self.runtime.live.upstream(settings, &upstream.render(), self.runtime.now);
                upstreams.insert(name.clone(), upstream);
            }
        }
        link_fallbacks(&upstreams, &self.raw.upstreams, out);
        upstreams
    }

    fn brokers(self, outline: &mut Outline, out: &mut Diagnostics) -> IndexMap<String, Broker> {
        let mut brokers = IndexMap::with_capacity(self.raw.brokers.len());
        for (name, broker) in self.raw.brokers.iter() {
            let path = join_key("brokers", name);
            check_name(name, &broker.origin, &path, out);
            let Some(settings) = broker.compile(name, &path, &broker.origin, out) else { continue };
            outline.broker_content(name, settings.content());
            match self.runtime.brokers.of(settings, &broker.render(), &self.runtime.metrics) {
                Ok(broker) => drop(brokers.insert(name.clone(), broker)),
                Err(why) => drop(out.error("invalid-value", &broker.origin, path, why)),
            }
        }
        brokers
    }

    fn providers(self, outline: &mut Outline, out: &mut Diagnostics) -> IndexMap<String, Arc<Provider>> {
        let Runtime { identity, now, .. } = self.runtime;
        let surroundings = Surroundings { live: identity, now: *now, clustered: self.raw.cluster.is_some() };
        let mut providers = IndexMap::with_capacity(self.raw.identity.providers.len());
        for (name, provider) in self.raw.identity.providers.iter() {
            let path = join_key("identity.providers", name);
            check_name(name, &provider.origin, &path, out);
            if name == CERTIFICATES {
                let message = "this name stands for client certificates";
                out.error("reserved-name", &provider.origin, &path, message)
                    .hint("give the provider another one");
            }
            self.check_consumer(provider, &path, out);
            let compiled = provider.compile(name, &path, &provider.origin, surroundings, out);
            outline.provider_content(name, compiled.content);
            providers.insert(name.clone(), compiled.provider);
        }
        providers
    }

    /// Tokens of a consumer that nobody knows are refused. One that is not written may stand in the store.
    fn check_consumer(self, provider: &ProviderRaw, path: &str, out: &mut Diagnostics) {
        let Some(name) = provider.consumer.as_ref().filter(|name| !name.is_empty()) else { return };
        if self.declared.has_store || self.declared.consumers.contains(name.as_str()) {
            return;
        }
        let message = format!("there is no consumer {}: no token would be accepted", quote(name));
        let problem = out.error("undefined", &name.origin, format!("{path}.consumer"), message);
        match nearest(name, self.declared.consumers.iter().map(String::as_str)) {
            Some(near) => problem.hint(format!("did you mean {}?", quote(near))),
            None => problem.hint(format!("define it: [consumers.{}]", name.value)),
        };
    }

    fn consumers(self, outline: &mut Outline, out: &mut Diagnostics) -> Arc<Configured> {
        for (name, consumer) in self.raw.consumers.iter() {
            check_name(name, &consumer.origin, &join_key("consumers", name), out);
        }
        let configured = consumers::compile(&self.raw.consumers, &self.declared.providers, out);
        for one in &configured.consumers {
            outline.consumer_content(&one.consumer.name, one.content());
        }
        Arc::new(configured)
    }

    /// What instances share: the one that has been started, if `[cluster]` is what it was.
    fn cluster(self, outline: &mut Outline, out: &mut Diagnostics) -> Option<Arc<Cluster>> {
        let raw = self.raw.cluster.as_ref()?;
        let settings = raw.compile(&raw.origin, out)?;
        outline.cluster_content(settings.content());
        Some(self.runtime.cluster.of(settings, self.runtime.metrics.cluster()))
    }

    /// A client that stops sending must be noticed before the server seems to hang: that would count against the server.
    fn check_read_timeout(self, upstream: &At<UpstreamRaw>, path: &str, out: &mut Diagnostics) {
        let (read, body) = (&upstream.timeouts.read, &self.raw.limits.body_timeout);
        if **read > **body {
            return;
        }
        let message = format!(
            "the read timeout ({}) must be longer than limits.body_timeout ({})",
            format_duration(**read),
            format_duration(**body),
        );
        let path = format!("{path}.timeouts.read");
        match (&read.origin, &body.origin) {
            (Origin::Default, Origin::Default) => out.error("timeout-order", &upstream.origin, path, message),
            (Origin::Default, body) => {
                out.error("timeout-order", body, path, message).related(&upstream.origin, "of this upstream")
            }
            (read, Origin::Default) => out.error("timeout-order", read, path, message),
            (read, body) => {
                out.error("timeout-order", read, path, message).related(body, "the other of the two")
            }
        };
    }
}

/// `hidden` is the parameter of API keys, whose value no line shows.
fn log(
    raw: &LogRaw,
    bus: Option<LogBus>,
    hidden: Option<&str>,
    runtime: &Runtime,
    out: &mut Diagnostics,
) -> LogSettings {
    use tracing::level_filters::LevelFilter;
    let level = match *raw.level {
        LevelRaw::Off => LevelFilter::OFF,
        LevelRaw::Error => LevelFilter::ERROR,
        LevelRaw::Warn => LevelFilter::WARN,
        LevelRaw::Info => LevelFilter::INFO,
        LevelRaw::Debug => LevelFilter::DEBUG,
        LevelRaw::Trace => LevelFilter::TRACE,
    };
    let escape = match *raw.access.escape {
        EscapeRaw::Default => Escape::Default,
        EscapeRaw::Json => Escape::Json,
        EscapeRaw::None => Escape::None,
    };
    let output = match &raw.access.output.value {
        OutputRaw::Off => None,
        OutputRaw::Stdout => Some(Output::Stdout),
        OutputRaw::Stderr => Some(Output::Stderr),
        OutputRaw::File(path) => Some(Output::File(path.clone())),
    };
    let written = &raw.access.format;
    let format = match Format::compile(written.text(), escape) {
        Ok(format) => Some(format.hiding(hidden)),
        Err(errors) => {
            for error in errors {
                let message = format!("the format {}", error.message);
                let mistake = Mistake { message, hint: error.hint, at: error.at };
                written.report(&written.origin, "log.access.format", mistake, out);
            }
            None
        }
    };
    let queue = runtime.access_queue.clone();
    let documents = bus.as_ref().map(|_| runtime.bus.clone());
    let format = format.filter(|_| output.is_some() || documents.is_some());
    let access = format.map(|format| AccessLog::with_bus(queue, format, output, documents));
    LogSettings { level, access, bus }
}

/// Longest name of a route, upstream or listener: it stands in every log line and series.
const NAME_BYTES_MAX: usize = 256;

/// Names stand in logs, metrics and headers: they must be visible and of bounded length.
pub(super) fn check_name(name: &str, origin: &Origin, path: &str, out: &mut Diagnostics) {
    let problem = if name.trim().is_empty() {
        "the name is empty".to_owned()
    } else if name.len() > NAME_BYTES_MAX {
        format!("the name is longer than {NAME_BYTES_MAX} bytes")
    } else if name.chars().any(char::is_control) {
        "the name holds a control character".to_owned()
    } else {
        return;
    };
    out.error("invalid-value", origin, path, problem);
}
