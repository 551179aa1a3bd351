//! Pools of servers: selection, health, breaker, retry, discovery.
//!
//! An [`Upstream`] is compiled from the configuration and dies with it; what is known about its servers lives in
//! [`live::Live`] and is shared with the next configuration. The only way to call a server is an [`Attempt`].
//!
//! Rules (what opens a breaker, what ejects a server, what may be repeated) are pure state machines in files of their own;
//! this file and [`server`] connect them.

pub mod address;
pub mod answer;
pub mod attempt;
pub mod breaker;
pub mod budget;
pub mod bulkhead;
pub mod check;
pub mod client;
pub mod config;
pub mod discovery;
pub mod ejection;
pub mod fallback;
mod generation;
pub mod health;
pub mod introduction;
pub mod link;
pub mod live;
pub mod peer;
pub mod pool;
pub mod resolver;
pub mod retry;
pub mod ring;
pub mod select;
pub mod server;
pub mod tls;
pub mod tunnel;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use pingora_load_balancing::Backend;
use tokio::sync::watch;

pub use self::attempt::{Attempt, AttemptRecord, Outcome};
pub use self::fallback::Fallback;
pub use self::introduction::Introduction;
pub use self::link::{LastAnswer, Link, lacks_descriptor};
pub use self::live::Live;
pub use self::peer::{Timeouts, keep_to_http1};
pub use self::pool::{Balance, HashSource, NoServer, Tried};
pub use self::retry::{Decision, Failure, GiveUp, RetryPolicy, Situation};
pub use self::server::{Server, ServerStatus};

use self::address::{Address, Target};
use self::breaker::BreakerSettings;
use self::budget::Budget;
use self::bulkhead::{Bulkhead, Permit};
use self::check::{CheckSettings, Probe};
use self::discovery::Name;
use self::live::ServerKey;
use self::pool::Pool;
use self::server::{Common, ServerState, socket_address};
use self::tls::TlsPolicy;
use crate::base::clock;
use crate::base::reason::Reason;
use crate::base::task::{self, AbortOnDrop};

/// Everything the configuration says about one upstream, checked.
#[derive(Debug)]
pub struct Settings {
    /// Its name.
    pub name: Arc<str>,
    /// Its servers, in the order written; at least one.
    pub servers: Vec<ServerSettings>,
    /// How the next server is chosen.
    pub balance: Balance,
    /// How connections are secured; `None` = cleartext.
    pub tls: Option<TlsPolicy>,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// The `Host` sent.
    pub host: HostSent,
    /// Whether every connection begins with a PROXY header that names its client.
    pub proxy_protocol: bool,
    /// Time-outs.
    pub timeouts: Timeouts,
    /// Active checks; `None` = passive ones only.
    pub check: Option<CheckSettings>,
    /// What is repeated.
    pub retry: RetryPolicy,
    /// Requests that may be under way at once; 0 = any number.
    pub max_requests: u32,
    /// The circuit breaker of each server.
    pub breaker: Option<BreakerSettings>,
    /// What answers when no server can be reached.
    pub fallback: Option<Fallback>,
}

impl Settings {
    /// Tells apart what the files named by the settings contain.
    pub fn content(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.tls.as_ref().map(TlsPolicy::fingerprint).hash(&mut hasher);
        if let Some(Fallback::Answer(answer)) = &self.fallback {
            answer.body().hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// One entry of `servers`.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Where it is.
    pub target: Target,
    /// Its share of requests, at least 1; each address of a name has it.
    pub weight: u32,
    /// Whether it is only used when no other server is left.
    pub backup: bool,
}

/// The `Host` sent to servers.
#[derive(Debug, Clone, PartialEq)]
pub enum HostSent {
    /// The client's.
    Client,
    /// The server's own, as written in `servers`.
    Server,
    /// This one.
    Name(HeaderValue),
}

/// One upstream of one configuration.
#[derive(Debug)]
pub struct Upstream {
    name: Arc<str>,
    servers: Vec<Entry>,
    balance: Balance,
    tls: Option<TlsPolicy>,
    http2: bool,
    check: Option<CheckSettings>,
    retry: RetryPolicy,
    fallback: Option<Fallback>,
    common: Arc<Common>,
    budget: Budget,
    max_requests: u32,
    bulkhead: Arc<Bulkhead>,
    live: Arc<Live>,
    pool: ArcSwap<Pool>,
    /// Held while the pool is made, so that of two changes at once the later one sees both.
    rebuilding: Mutex<()>,
    first_round: watch::Sender<bool>,
    task: Mutex<Option<AbortOnDrop>>,
}

/// When to try an upstream again that has as many requests as it may: nobody knows when one of them ends.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(1);

/// One entry of `servers`, with what all its addresses have in common.
#[derive(Debug)]
struct Entry {
    settings: ServerSettings,
    /// The name the certificate must prove.
    sni: String,
    host: Option<HeaderValue>,
    probe: Arc<Probe>,
    name: Option<Arc<Name>>,
}

impl Upstream {
    /// The upstream that `settings` describe, with what `live` knows about its servers. Does no I/O and starts nothing:
    /// see [`Upstream::start`].
    pub fn new(settings: Settings, live: &Arc<Live>, now: Instant) -> Arc<Self> {
        let common_name = settings.name.clone();
        let metrics = live.metrics.upstream(&settings.name);
        let common = Common {
            name: settings.name.clone(),
            timeouts: settings.timeouts,
            proxy_protocol: settings.proxy_protocol,
            breaker: settings.breaker,
            thresholds: settings.check.as_ref().map(|check| check.thresholds),
            metrics,
        };
        let default_port = default_port(settings.tls.is_some());
        let entries = settings.servers.into_iter().map(|server| {
            let authority = HeaderValue::from_str(&server.target.authority(default_port)).ok();
            let host = match &settings.host {
                HostSent::Client => None,
                HostSent::Server => authority.clone(),
                HostSent::Name(name) => Some(name.clone()),
            };
            let path = settings.check.as_ref().and_then(|check| check.path.as_deref());
            let probe = path.zip(host.clone().or(authority)).and_then(|(path, host)| Probe::http(path, host));
            Entry {
                sni: sni(settings.tls.as_ref(), &server.target),
                host,
                probe: Arc::new(probe.unwrap_or_else(Probe::connect)),
                name: match &server.target {
                    Target::Name { host, .. } => Some(live.name(host)),
                    Target::Address(_) => None,
                },
                settings: server,
            }
        });
        let upstream = Self {
            name: settings.name,
            servers: entries.collect(),
            pool: ArcSwap::from_pointee(Pool::new([], &settings.balance)),
            balance: settings.balance,
            tls: settings.tls,
            http2: settings.http2,
            check: settings.check,
            budget: Budget::new(settings.retry.budget, now),
            max_requests: settings.max_requests,
            bulkhead: live.bulkhead(&common_name),
            retry: settings.retry,
            fallback: settings.fallback,
            common: Arc::new(common),
            live: live.clone(),
            rebuilding: Mutex::default(),
            first_round: watch::Sender::new(false),
            task: Mutex::default(),
        };
        upstream.rebuild();
        Arc::new(upstream)
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What answers when no server can be reached; [`fallback::applies`] says when.
    pub fn fallback(&self) -> Option<&Fallback> {
        self.fallback.as_ref()
    }

    /// Its time-outs.
    pub fn timeouts(&self) -> &Timeouts {
        &self.common.timeouts
    }

    /// What it repeats.
    pub fn retry_policy(&self) -> &RetryPolicy {
        &self.retry
    }

    /// Whether HTTP/2 is spoken to its servers, where they agree.
    pub fn http2(&self) -> bool {
        self.http2
    }

    /// Whether connections are secured.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether its servers, and those of the upstream it falls back to, are spoken to in cleartext HTTP/1 and told
    /// nothing before: then [`Attempt::new_link`] connects to them.
    pub fn is_plain(&self) -> bool {
        let stand_in = match &self.fallback {
            Some(Fallback::Upstream(link)) => link.upstream().is_none_or(|other| other.is_cleartext()),
            Some(Fallback::Answer(_)) | None => true,
        };
        self.is_cleartext() && stand_in
    }

    /// The same of its own servers alone.
    fn is_cleartext(&self) -> bool {
        self.tls.is_none() && !self.http2 && !self.common.proxy_protocol
    }

    /// What a hash goes by for a request; 0 where nothing is hashed.
    pub fn hash_key(&self, client: IpAddr, headers: &HeaderMap) -> u64 {
        let Balance::Hash(source) = &self.balance else { return 0 };
        let header = match source {
            HashSource::Ip => None,
            HashSource::Header(name) => headers.get(name),
        };
        match (header, client) {
            (Some(value), _) => ring::hash_key(value.as_bytes()),
            (None, IpAddr::V4(ip)) => ring::hash_key(&ip.octets()),
            (None, IpAddr::V6(ip)) => ring::hash_key(&ip.octets()),
        }
    }

    /// A place for a request, to be held until it has ended; `None` = none is needed. An error if all are taken.
    pub fn admit(&self) -> Result<Option<Permit>, NoServer> {
        match self.max_requests {
            0 => Ok(None),
            most => match self.bulkhead.enter(most) {
                Some(permit) => Ok(Some(permit)),
                None => Err(NoServer { reason: Reason::UpstreamFull, retry_after: FULL_RETRY_AFTER }),
            },
        }
    }

    /// Picks a server for the next attempt of a request and takes a place on it.
    ///
    /// `tried` is the request's own, empty at first; another server is preferred to those in it. `hash_key` comes from
    /// [`Upstream::hash_key`]. The attempt's time-outs end with `deadline`; whether it has passed is for the caller to ask.
    pub fn attempt(
        &self,
        tried: &mut Tried,
        hash_key: u64,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Result<Attempt, NoServer> {
        if tried.attempts() == 0 {
            self.budget.deposit();
        }
        let pool = self.pool.load();
        let (server, ticket) = pool.take(tried, hash_key, now)?;
        tried.add(server);
        Ok(Attempt::new(server.clone(), ticket, deadline, now))
    }

    /// Whether and when a failed attempt is repeated. A `Retry` is paid for: the caller makes it, or the budget has lost
    /// one.
    pub fn retry(&self, failure: Failure, situation: &Situation<'_>, now: Instant) -> Decision {
        let decision = self.retry.decide(failure, situation, fastrand::u32(..));
        let Decision::Retry(_) = decision else { return decision };
        if !self.budget.withdraw(now) {
            return Decision::GiveUp(GiveUp::Budget);
        }
        self.common.metrics.retry(failure.label());
        decision
    }

    /// All its servers at this moment, backups last.
    pub fn servers(&self) -> Vec<Arc<Server>> {
        self.pool.load().servers().cloned().collect()
    }

    /// Starts what runs beside requests: names are resolved and servers checked from now on, until the upstream is
    /// dropped or another one of its name is started. Needs a runtime. Calling it again changes nothing.
    pub fn start(self: &Arc<Self>) {
        if let Some(before) = self.live.started(self) {
            *before.task.lock() = None;
        }
        let names: Vec<_> = self.servers.iter().filter_map(|entry| entry.name.as_ref()).collect();
        let mut is_new = false;
        for name in &names {
            is_new |= name.start(Arc::downgrade(self), self.live.resolver());
        }
        if is_new {
            // What changed since the pool was made was told to nobody.
            self.rebuild();
        }
        let mut task = self.task.lock();
        if let (Some(check), None) = (&self.check, &*task) {
            let (this, check, first_round) = (Arc::downgrade(self), check.clone(), self.first_round.clone());
            let work = move || check::run(this.clone(), check.clone(), first_round.clone());
            *task = Some(AbortOnDrop::new(task::keep("health check", work)));
        }
    }

    /// Waits until all is known that can be known soon: each name was looked up once, each server checked once. May
    /// take as long as their time-outs; the caller sets the limit. Without [`Upstream::start`] it may never end.
    pub async fn warm(&self) {
        for name in self.servers.iter().filter_map(|entry| entry.name.as_ref()) {
            name.attempted().await;
        }
        let pool_is_empty = self.pool.load().servers().next().is_none();
        if self.check.is_none() || pool_is_empty {
            return;
        }
        let mut first_round = self.first_round.subscribe();
        if first_round.wait_for(|done| *done).await.is_err() {
            tracing::debug!(upstream = %self.name, "dropped while waited for");
        }
    }

    /// What is known about it.
    pub fn status(&self, now: Instant) -> UpstreamStatus {
        let servers: Vec<_> = self.pool.load().servers().map(|server| server.status(now)).collect();
        let names = self.servers.iter().filter_map(|entry| entry.name.as_ref()).map(|name| {
            let resolution = name.resolution();
            NameStatus {
                host: name.host().to_owned(),
                addresses: resolution.addresses.len(),
                attempted: resolution.attempted,
                error: resolution.error,
            }
        });
        UpstreamStatus { name: self.name.clone(), names: names.collect(), servers }
    }

    /// Makes the pool anew from what names stand for now.
    fn rebuild(&self) {
        let _one_at_a_time = self.rebuilding.lock();
        let now = clock::now();
        let mut seen = HashSet::new();
        let mut servers = Vec::new();
        // Primaries first: an address that is both is one.
        for backup in [false, true] {
            for entry in self.servers.iter().filter(|entry| entry.settings.backup == backup) {
                for address in entry.addresses() {
                    if seen.insert(address.clone())
                        && servers.len() < pool::SERVERS_MAX
                        && let Some(server) = self.server(entry, address, now)
                    {
                        servers.push(Arc::new(server));
                    }
                }
            }
        }
        tracing::debug!(upstream = %self.name, servers = servers.len(), "pool made");
        self.pool.store(Arc::new(Pool::new(servers, &self.balance)));
    }

    fn server(&self, entry: &Entry, address: Address, now: Instant) -> Option<Server> {
        let socket = socket_address(&address)?;
        let tls = self.tls.as_ref().map(|policy| (policy, entry.sni.as_str()));
        let label: Arc<str> = address.to_string().into();
        let weight = entry.settings.weight.max(1);
        let key = ServerKey {
            upstream: self.name.clone(),
            address,
            policy: peer::connection_policy(tls, self.http2, self.common.proxy_protocol),
        };
        let server = Server {
            weight,
            backup: entry.settings.backup,
            host: entry.host.clone(),
            peer: peer::template(&socket, tls, self.http2, self.common.proxy_protocol, &self.common.timeouts),
            backend: Backend {
                addr: socket,
                weight: usize::try_from(weight).unwrap_or(1),
                ext: http::Extensions::new(),
            },
            probe: entry.probe.clone(),
            state: self.live.server(key, || ServerState::new(now)),
            common: self.common.clone(),
            metrics: self.common.metrics.server(&label),
            label,
        };
        server.announce(now);
        Some(server)
    }
}

impl Entry {
    fn addresses(&self) -> Vec<Address> {
        match (&self.settings.target, &self.name) {
            (Target::Address(address), _) => vec![address.clone()],
            (Target::Name { port, .. }, Some(name)) => {
                let addresses = name.resolution().addresses;
                addresses.iter().map(|ip| Address::Inet(SocketAddr::new(*ip, *port))).collect()
            }
            (Target::Name { .. }, None) => Vec::new(),
        }
    }
}

/// The port of a server without one.
pub const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

fn sni(tls: Option<&TlsPolicy>, target: &Target) -> String {
    let given = tls.and_then(|tls| tls.sni.as_deref());
    // Never empty with TLS: Pingora takes that as leave not to verify. An address proves itself by its IP.
    match (given.or_else(|| target.name()), target) {
        (Some(name), _) => name.to_owned(),
        (None, Target::Address(Address::Inet(address))) => address.ip().to_string(),
        (None, _) => "localhost".to_owned(),
    }
}

/// What is known about an upstream, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Its names, in the order written.
    pub names: Vec<NameStatus>,
    /// Its servers, backups last; empty while no name has resolved.
    pub servers: Vec<ServerStatus>,
}

impl UpstreamStatus {
    /// Whether a request would find a server, as far as health goes.
    pub fn is_ready(&self) -> bool {
        self.servers.iter().any(|server| !matches!(server.state, "unhealthy" | "draining" | "circuit_open"))
    }
}

/// What is known about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameStatus {
    /// The name.
    pub host: String,
    /// How many addresses of it are used.
    pub addresses: usize,
    /// Whether a lookup has ended, well or not.
    pub attempted: bool,
    /// Why the last lookup failed, if it did.
    pub error: Option<Arc<str>>,
}
