//! `edgeward run`: the gateway, from its files to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DEFAULT_CONFIGS, OK, PROBLEMS, USAGE, fail};
use crate::app::{Server, StartError};
use crate::base::{clock, out};
use crate::config::snapshot::Snapshot;
use crate::config::{self, Compiled, Loaded, Runtime, render};
use crate::telemetry::access::Queue;
use crate::telemetry::log::ProcessLog;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Live;
use crate::upstream::resolver::System;

/// Runs until the process is told to end.
pub(super) fn run(config: Option<&Path>) -> u8 {
    let path = match find(config) {
        Ok(path) => path,
        Err(status) => return status,
    };
    match Prepared::load(|| config::load(&path, config::surroundings())) {
        Some(prepared) => prepared.serve(|_| Ok(()), str::to_owned),
        None => PROBLEMS,
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
    metrics: Arc<Metrics>,
    access: Arc<Queue>,
}

impl Prepared {
    /// Sets up the process log and the TLS provider, then reads and compiles; says on standard error what is wrong.
    pub(super) fn load(read: impl FnOnce() -> Loaded) -> Option<Self> {
        install_provider();
        let log = match ProcessLog::install(tracing::level_filters::LevelFilter::INFO) {
            Ok(log) => log,
            Err(error) => {
                fail(&error.to_string());
                return None;
            }
        };
        let metrics = Metrics::new();
        let access = Queue::new(metrics.clone());
        let runtime = Runtime {
            live: Live::new(metrics.clone(), Arc::new(System)),
            metrics: metrics.clone(),
            access_queue: access.clone(),
            generation: 1,
            now: clock::now(),
            wall: clock::wall(),
        };
        let Compiled { sources, diagnostics, snapshot } = read().compile(&runtime);
        if !diagnostics.is_empty() {
            out::complain(&render::text(&diagnostics, &sources, out::complaints_are_read()));
        }
        let snapshot = Arc::new(snapshot?);
        log.set_level(snapshot.log.level);
        Some(Self { snapshot, metrics, access })
    }

    /// Binds and serves to the end. `beside` adds what is served beside the gateway; `say` makes what is printed once
    /// it serves out of what listens where.
    pub(super) fn serve(
        self,
        beside: impl FnOnce(&mut Server) -> Result<(), StartError>,
        say: impl FnOnce(&str) -> String,
    ) -> u8 {
        let server = Server::bind(self.snapshot, self.metrics, &self.access).and_then(|mut server| {
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
