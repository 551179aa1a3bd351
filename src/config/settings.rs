//! What the process-level tables come to: plain values, no handles.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::secret::Secret;
use crate::policy::trusted::TrustedProxies;

/// `[server]`: the process.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Threads that serve connections: at least one.
    pub threads: usize,
    /// Where the process id is written.
    pub pid_file: Option<PathBuf>,
    /// Where commands reach the process.
    pub control_socket: Option<PathBuf>,
    /// Dropped to after the listeners are bound.
    pub user: Option<String>,
    /// Dropped to after the listeners are bound.
    pub group: Option<String>,
    /// How long a leaving process serves what it has.
    pub grace_period: Duration,
    /// After TERM or QUIT: how long connections are still accepted while `/readyz` says 503.
    pub drain_delay: Duration,
    /// Whether the configuration is reloaded when one of its files changes.
    pub watch: bool,
    /// Whose forwarding headers are believed.
    pub trusted_proxies: TrustedProxies,
}

/// `[limits]`: what bounds every client.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections in all.
    pub connections: usize,
    /// Open connections of one address; 0 = no limit.
    pub connections_per_address: usize,
    /// Size of a request head.
    pub header_bytes: usize,
    /// Time for a whole request head.
    pub header_timeout: Duration,
    /// Time an idle connection is kept.
    pub idle_timeout: Duration,
    /// Longest silence of a client in a body.
    pub body_timeout: Duration,
    /// Bytes a second that a body must move at least, in both directions; 0 = any.
    pub min_body_rate: u64,
    /// First byte of the request to first byte of the answer.
    pub request_timeout: Duration,
    /// Silence that ends a stream.
    pub stream_idle: Duration,
    /// Idle upstream connections kept, whole process.
    pub upstream_idle: usize,
    /// Resident memory above which new requests are refused: 0 = no limit; `None` = a part of the cgroup's.
    pub memory: Option<u64>,
}

/// Descriptors that are neither a connection's nor kept for later: files, listeners, pipes; and those by which a thread that serves
/// hears of its connections.
const OTHER_DESCRIPTORS: usize = 64;
const THREAD_DESCRIPTORS: usize = 4;
/// Pools of idle upstream connections, each bounded by `limits.upstream_idle`: plain ones, those over TLS or HTTP/2, and
/// those of legs.
const IDLE_POOLS: usize = 3;
/// Connections there are in any case.
const CONNECTIONS_MIN: usize = 16;

/// Descriptors a full house needs: both sides of every connection, idle upstream connections, and some for the house.
pub fn descriptors_wanted(connections: usize, upstream_idle: usize, threads: usize) -> u64 {
    let idle = upstream_idle.saturating_mul(IDLE_POOLS);
    connections.saturating_mul(2).saturating_add(idle).saturating_add(of_the_house(threads)) as u64
}

fn of_the_house(threads: usize) -> usize {
    threads.saturating_mul(THREAD_DESCRIPTORS).saturating_add(OTHER_DESCRIPTORS)
}

/// The most connections that `descriptors` are enough for: one for each that is idle. (Those that wait for a server take
/// two, but most connections of a gateway are idle.)
pub fn connections_within(descriptors: u64, upstream_idle: usize, threads: usize) -> usize {
    let left = usize::try_from(descriptors).unwrap_or(usize::MAX);
    left.saturating_sub(upstream_idle.saturating_add(of_the_house(threads))).max(CONNECTIONS_MIN)
}

/// Where a listener is bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BindAddress {
    /// An IP address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for BindAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[admin]`.
#[derive(Debug, Clone)]
pub struct AdminSettings {
    /// Where the admin listener is bound.
    pub address: SocketAddr,
    /// What the API must be shown; `None` = it only tells.
    pub token: Option<Secret>,
    /// Names it is asked by, in lower case.
    pub names: Vec<String>,
}
