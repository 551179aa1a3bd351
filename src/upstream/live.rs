//! What outlives a configuration: the state of servers and the addresses of names, found again by identity.
//!
//! Everything is held weakly. A new configuration takes over what it shares with the one before; what nobody holds any
//! more, neither a configuration nor a request, is gone.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::address::Address;
use super::bulkhead::Bulkhead;
use super::client::Client;
use super::discovery::{Name, Resolve};
use super::server::ServerState;
use super::{Fallback, Settings, Upstream};
use crate::base::registry::Registry;
use crate::telemetry::metrics::Metrics;

/// What makes a server the same server in two configurations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerKey {
    /// The upstream's name: the same address under two upstreams may be two services behind one proxy.
    pub upstream: Arc<str>,
    /// Where it is.
    pub address: Address,
    /// How it is spoken to: TLS, its names and keys, and the protocol.
    pub policy: u64,
}

/// Idle connections kept where nobody says how many: the default of `limits.upstream_idle`.
const IDLE_COMMON: usize = 1024;

/// The live state of all upstreams of a process (or test).
#[derive(Debug)]
pub struct Live {
    pub(super) metrics: Arc<Metrics>,
    resolver: Arc<dyn Resolve>,
    client: OnceLock<Client>,
    /// Idle connections that the client keeps.
    idle: AtomicUsize,
    servers: Registry<ServerKey, ServerState>,
    names: Registry<Arc<str>, Name>,
    bulkheads: Registry<Arc<str>, Bulkhead>,
    started: Registry<Arc<str>, Upstream>,
    upstreams: Registry<(String, u64), Upstream>,
}

impl Live {
    /// Nothing known yet.
    pub fn new(metrics: Arc<Metrics>, resolver: Arc<dyn Resolve>) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            resolver,
            client: OnceLock::new(),
            idle: AtomicUsize::new(IDLE_COMMON),
            servers: Registry::default(),
            names: Registry::default(),
            bulkheads: Registry::default(),
            started: Registry::default(),
            upstreams: Registry::default(),
        })
    }

    /// The upstream that `settings` describe: the one there is, if it was `written` alike and its files still contain the
    /// same. So a new configuration keeps what it does not change, budgets and running checks included.
    pub fn upstream(self: &Arc<Self>, settings: Settings, written: &str, now: Instant) -> Arc<Upstream> {
        if matches!(settings.fallback, Some(Fallback::Upstream(_))) {
            // What it falls back to may have changed, and stands elsewhere. Its servers' state is kept all the same.
            return Upstream::new(settings, self, now);
        }
        let key = (format!("{} = {written}", settings.name), settings.content());
        self.upstreams.get_arc(key, || Upstream::new(settings, self, now))
    }

    /// The state under `key`; made by `build` if nobody holds one.
    pub(super) fn server(&self, key: ServerKey, build: impl FnOnce() -> ServerState) -> Arc<ServerState> {
        self.servers.get(key, build)
    }

    /// The name `host`, with what is known about it.
    pub(super) fn name(&self, host: &Arc<str>) -> Arc<Name> {
        self.names.get(host.clone(), || Name::new(host.clone()))
    }

    /// Where the requests to upstreams called `name` are counted.
    pub(super) fn bulkhead(&self, name: &Arc<str>) -> Arc<Bulkhead> {
        self.bulkheads.get(name.clone(), Bulkhead::default)
    }

    /// Has calls of the gateway's own keep so many idle connections; to be said before the first of them.
    pub fn keep_idle(&self, connections: usize) {
        self.idle.store(connections, Relaxed);
    }

    /// What makes calls of the gateway's own.
    pub(super) fn client(&self) -> &Client {
        self.client.get_or_init(|| Client::new(self.idle.load(Relaxed)))
    }

    pub(super) fn resolver(&self) -> &Arc<dyn Resolve> {
        &self.resolver
    }

    /// `upstream` is the one under its name from now on. Returns the one before, if somebody still holds it: its
    /// requests go on, but its background work is done for it.
    pub(super) fn started(&self, upstream: &Arc<Upstream>) -> Option<Arc<Upstream>> {
        self.started.replace(upstream.name.clone(), upstream).filter(|before| !Arc::ptr_eq(before, upstream))
    }
}
