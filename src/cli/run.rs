//! `edgeward run`: the gateway, from its files to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DEFAULT_CONFIGS, OK, PROBLEMS, USAGE, fail};
use crate::app::{Fetcher, Invocation, Origins, Predecessor, Process, Read, Server, StartError};
use crate::base::{out, panics};
use crate::broker::bus::Publisher;
use crate::config::snapshot::Snapshot;
use crate::config::{self, Compiled, Loaded, render};
use crate::identity::live::Live as Identity;
use crate::telemetry::access::Queue;
use crate::telemetry::bus::Bus;
use crate::telemetry::log::ProcessLog;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Live;
use crate::upstream::resolver::System;

/// Runs until the process is told to end.
pub(super) fn run(config: Option<&Path>) -> u8 {
    // First of all: whoever waits for this process hears why it does not serve.
    let predecessor = match Predecessor::from_environment() {
        Ok(predecessor) => predecessor,
        Err(error) => return fail(&format!("cannot replace another process: {error}")),
    };
    let path = match find(config) {
        Ok(path) => path,
        Err(status) => {
            if let Some(predecessor) = predecessor {
                predecessor.failed("there is no configuration");
            }
            return status;
        }
    };
    let read = move || config::load(&path, config::surroundings());
    // Another process passes on what it hears, and has no use for colours.
    let colour = predecessor.is_none() && out::complaints_are_read();
    match Prepared::load(Arc::new(read), colour) {
        Ok(prepared) => {
            prepared.serve(Ok(Invocation::of_this_process()), predecessor, |_| Ok(()), str::to_owned)
        }
        Err(why) => {
            out::complain(&why);
            if let Some(predecessor) = predecessor {
                predecessor.failed(&why);
            }
            PROBLEMS
        }
    }
}

/// The configuration file: the one given, or the first default that exists; the exit status if none does.
pub(super) fn find(given: Option<&Path>) -> Result<PathBuf, u8> {
    let found = || DEFAULT_CONFIGS.iter().map(Path::new).find(|path| path.exists());
    given.or_else(found).map(Path::to_owned).ok_or_else(|| {
        out::complain(&format!(
            "edgeward: there is no configuration: looked for {}\n  \
             hint: name one with -c, write one with `edgeward init`, or see `edgeward demo`\n",
            DEFAULT_CONFIGS.join(" and ")
        ));
        USAGE
    })
}

/// A compiled configuration with the parts of the process it is tied to.
pub(super) struct Prepared {
    pub(super) snapshot: Arc<Snapshot>,
    origins: Origins,
    /// The files as they were read, where services of the store stand beside them.
    loaded: Option<Arc<Loaded>>,
}

impl Prepared {
    /// Sets up the process log and the TLS provider, then reads and compiles.
    ///
    /// # Errors
    /// What is wrong, to be printed as it is. Warnings are printed here.
    pub(super) fn load(read: Read, colour: bool) -> Result<Self, String> {
        install_provider();
        panics::watch();
        let log = ProcessLog::install(tracing::level_filters::LevelFilter::INFO)
            .map_err(|error| format!("edgeward: {error}\n"))?;
        let metrics = Metrics::new();
        let access = Queue::new(metrics.clone());
        let bus = Publisher::new(Bus::new(metrics.clone()));
        log.feed(bus.bus().clone());
        let live = Live::new(metrics.clone(), Arc::new(System));
        let identity = Identity::new(metrics.clone(), Arc::new(Fetcher::new()));
        let (limits, cluster, sessions) = (Arc::default(), Arc::default(), Arc::default());
        let brokers = Arc::default();
        let origins =
            Origins { read, live, identity, limits, cluster, brokers, sessions, metrics, access, bus, log };
        let runtime = origins.runtime(1, Vec::new());
        let loaded = (origins.read)();
        let kept = loaded.serves_services().then(|| Arc::new(loaded.clone()));
        let Compiled { sources, diagnostics, snapshot, .. } = loaded.compile(&runtime);
        let text =
            if diagnostics.is_empty() { String::new() } else { render::text(&diagnostics, &sources, colour) };
        let Some(snapshot) = snapshot else { return Err(text) };
        out::complain(&text);
        origins.log.set_level(snapshot.log.level);
        Ok(Self { snapshot: Arc::new(snapshot), origins, loaded: kept })
    }

    /// Binds and serves to the end. `invocation` is how the next process is started, or why there is none; `beside` adds
    /// what is served beside the gateway; `say` makes what is printed once it serves out of what listens where.
    pub(super) fn serve(
        self,
        invocation: Result<Invocation, &'static str>,
        predecessor: Option<Predecessor>,
        beside: impl FnOnce(&mut Server) -> Result<(), StartError>,
        say: impl FnOnce(&str) -> String,
    ) -> u8 {
        let process = Process { origins: self.origins, loaded: self.loaded, invocation, predecessor };
        let server = Server::bind(self.snapshot, process).and_then(|mut server| {
            beside(&mut server)?;
            Ok(server)
        });
        let ended = server.and_then(|server| {
            server.run(|announcement| {
                // A closed standard output must not keep a gateway from serving.
                if let Err(error) = out::print(&say(announcement)) {
                    tracing::warn!(%error, "cannot print the announcement");
                }
            })
        });
        match ended {
            Ok(_) => OK,
            Err(error) => fail(&error.to_string()),
        }
    }
}

/// Makes aws-lc-rs the one TLS provider of the process: what is linked besides is never chosen by accident.
pub(super) fn install_provider() {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider is installed already");
    }
}
