//! Prometheus metrics: every name, label and help text of the process, recorded through handles.
//!
//! [`Metrics::new`] once per process (or test); there is nothing global. Whoever compiles a configuration asks it for
//! handles by name ([`Metrics::route`], [`Metrics::upstream`], [`Metrics::listener`]); requests touch handles only.
//! Label values are names from the configuration, addresses of configured servers, or words from this source code:
//! nothing a client or an upstream sends can make a series.

mod aggregate;
mod broker;
mod bus;
mod cells;
mod cluster;
mod handles;
mod jwks;
mod limit;
mod listener;
mod login;
mod plan;
mod process;
mod render;
mod route;
#[cfg(test)]
mod tests;
mod upstream;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::Mutex;

pub use self::aggregate::LegMetrics;
pub use self::broker::BrokerMetrics;
pub use self::bus::BusMetrics;
pub use self::cluster::ClusterMetrics;
pub use self::jwks::JwksMetrics;
pub use self::limit::LimitMetrics;
pub use self::listener::{ListenerMetrics, OpenConnection};
pub use self::login::{LoginMetrics, SessionStep};
pub use self::plan::PlanMetrics;
pub use self::render::{OPENMETRICS_CONTENT_TYPE, TEXT_CONTENT_TYPE};
pub use self::route::{InFlight, RouteMetrics};
pub use self::upstream::{BreakerState, ServerMetrics, UpstreamMetrics};

use self::cells::Counter;
use self::handles::Handles;
use crate::base::clock;
use crate::base::reason::Reason;

/// All metrics of a process.
#[derive(Debug, Default)]
pub struct Metrics {
    routes: Handles<RouteMetrics>,
    upstreams: Handles<UpstreamMetrics>,
    listeners: Handles<ListenerMetrics>,
    key_sets: Handles<JwksMetrics>,
    limits: Handles<LimitMetrics>,
    plans: Handles<PlanMetrics>,
    legs: Handles<LegMetrics>,
    brokers: Handles<BrokerMetrics>,
    /// By position in [`Reason::ALL`].
    rejected: Rejected,
    identity_values_dropped: Counter,
    access_log: AccessLogCounters,
    logins: LoginMetrics,
    reloads_succeeded: Counter,
    reloads_failed: Counter,
    last_reload_failed: AtomicBool,
    /// Bits of an `f64`: seconds since the epoch; 0.0 before the first configuration.
    last_reload_success: AtomicU64,
    certificates: Mutex<Vec<(String, f64)>>,
    /// Of the store: served, left out, switched off. Absent until they are known.
    services: Mutex<Option<[usize; 3]>>,
    cluster: OnceLock<Arc<ClusterMetrics>>,
    bus: OnceLock<Arc<BusMetrics>>,
}

/// One counter a reason. (Arrays this long have no `Default` of their own.)
#[derive(Debug)]
struct Rejected([Counter; Reason::ALL.len()]);

impl Default for Rejected {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

#[derive(Debug, Default)]
struct AccessLogCounters {
    written: Counter,
    dropped: Counter,
    failed: Counter,
}

impl Metrics {
    /// Metrics with nothing counted yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The metrics of the route called `name`: the same handle for as long as somebody holds it, so counts survive a
    /// reload; its series go with the last holder.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        self.routes.get(name, || RouteMetrics::new(name))
    }

    /// The metrics of the upstream called `name`; lives like [`Metrics::route`].
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        self.upstreams.get(name, || UpstreamMetrics::new(name))
    }

    /// The metrics of the listener called `name`; lives like [`Metrics::route`].
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        self.listeners.get(name, || ListenerMetrics::new(name))
    }

    /// The metrics of the key set of the provider called `name`; lives like [`Metrics::route`].
    pub fn key_set(&self, name: &str) -> Arc<JwksMetrics> {
        self.key_sets.get(name, || JwksMetrics::new(name))
    }

    /// The metrics of the rate limit called `name`; lives like [`Metrics::route`].
    pub fn limit(&self, name: &str) -> Arc<LimitMetrics> {
        self.limits.get(name, || LimitMetrics::new(name))
    }

    /// The metrics of the plan called `name`; lives like [`Metrics::route`].
    pub fn plan(&self, name: &str) -> Arc<PlanMetrics> {
        self.plans.get(name, || PlanMetrics::new(name))
    }

    /// The metrics of what instances share; shown from the first time somebody asks for them.
    pub fn cluster(&self) -> Arc<ClusterMetrics> {
        self.cluster.get_or_init(Arc::default).clone()
    }

    /// The metrics of the log bus; shown from the first time somebody asks for them.
    pub fn bus(&self) -> Arc<BusMetrics> {
        self.bus.get_or_init(Arc::default).clone()
    }

    /// The metrics of the leg called `leg` of the route called `route`; lives like [`Metrics::route`].
    pub fn leg(&self, route: &str, leg: &str) -> Arc<LegMetrics> {
        // No name holds a control character.
        self.legs.get(&format!("{route}\0{leg}"), || LegMetrics::new(route, leg))
    }

    /// The metrics of the broker called `name`; lives like [`Metrics::route`].
    pub fn broker(&self, name: &str) -> Arc<BrokerMetrics> {
        self.brokers.get(name, || BrokerMetrics::new(name))
    }

    /// The gateway itself ended a request: it was malformed, too large, too slow, or nothing could answer it.
    pub fn request_rejected(&self, reason: Reason) {
        if let Some(index) = Reason::ALL.iter().position(|known| *known == reason)
            && let Some(counter) = self.rejected.0.get(index)
        {
            counter.inc();
        }
    }

    /// The metrics of logins.
    pub fn logins(&self) -> &LoginMetrics {
        &self.logins
    }

    /// A value about who a request is from cannot stand in a header.
    pub fn identity_value_dropped(&self) {
        self.identity_values_dropped.inc();
    }

    /// `records` access records were written.
    pub fn access_records_written(&self, records: u64) {
        self.access_log.written.add(records);
    }

    /// `records` access records were dropped because the queue was full.
    pub fn access_records_dropped(&self, records: u64) {
        self.access_log.dropped.add(records);
    }

    /// `records` access records were lost because the output could not be opened or written.
    pub fn access_records_failed(&self, records: u64) {
        self.access_log.failed.add(records);
    }

    /// The configuration the process starts with is in force. Not a reload, so not counted as one.
    pub fn configured(&self, at: SystemTime) {
        self.last_reload_failed.store(false, Relaxed);
        self.last_reload_success.store(clock::unix_seconds(at).to_bits(), Relaxed);
    }

    /// A reload ended at `at`; `succeeded` says whether the new configuration is in force.
    pub fn reloaded(&self, succeeded: bool, at: SystemTime) {
        if succeeded {
            self.reloads_succeeded.inc();
            self.configured(at);
        } else {
            self.reloads_failed.inc();
            self.last_reload_failed.store(true, Relaxed);
        }
    }

    /// How many services of the store are served, how many are left out because something is wrong with them, and how many
    /// are switched off.
    pub fn services(&self, served: usize, left_out: usize, disabled: usize) {
        *self.services.lock() = Some([served, left_out, disabled]);
    }

    /// The certificates in force: a name that tells them apart (the file's path or the first DNS name) and the end of
    /// validity. Replaces all earlier ones.
    pub fn set_certificates(&self, certificates: impl IntoIterator<Item = (String, SystemTime)>) {
        let certificates = certificates
            .into_iter()
            .map(|(name, not_after)| (name, clock::unix_seconds(not_after)))
            .collect();
        *self.certificates.lock() = certificates;
    }
}
