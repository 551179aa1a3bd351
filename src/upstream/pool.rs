//! The servers of an upstream at one moment, and the choice among them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::ring::Ring;
use super::select::{Candidates, SmoothWeighted, least_loaded};
use super::server::{Availability, Server, Ticket};
use crate::base::reason::Reason;

/// How the next server is chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum Balance {
    /// In turn, by weight.
    RoundRobin,
    /// The one with the fewest requests in flight for its weight; ties in turn.
    LeastConnections,
    /// By the hash of something of the request, so that equal ones meet the same server.
    Hash(HashSource),
}

/// What is hashed.
#[derive(Debug, Clone, PartialEq)]
pub enum HashSource {
    /// The client's address.
    Ip,
    /// The value of a header; a request without it counts by the client's address.
    Header(http::HeaderName),
}

/// No server can be given the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoServer {
    /// [`Reason::NoServer`], [`Reason::NotReady`], [`Reason::CircuitOpen`] or [`Reason::UpstreamFull`].
    pub reason: Reason,
    /// When it makes sense to ask again.
    pub retry_after: Duration,
}

/// The servers that a request has been sent to.
#[derive(Debug, Clone, Default)]
pub struct Tried(SmallVec<[u64; 4]>);

impl Tried {
    /// Attempts made.
    pub fn attempts(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn add(&mut self, server: &Server) {
        self.0.push(server.id());
    }

    fn contains(&self, server: &Server) -> bool {
        self.0.contains(&server.id())
    }
}

/// The servers of an upstream at one moment.
#[derive(Debug)]
pub(super) struct Pool {
    primary: Group,
    backup: Group,
}

#[derive(Debug)]
struct Group {
    servers: Box<[Arc<Server>]>,
    balancer: Balancer,
}

#[derive(Debug)]
enum Balancer {
    RoundRobin(SmoothWeighted),
    LeastConnections(SmoothWeighted),
    Hash(Ring),
}

/// Most servers an upstream can have at one moment.
pub(super) const SERVERS_MAX: usize = 4096;
/// Advised to clients when nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// In what order servers are considered: another one before the same again, a backup before one that is probably dead,
/// and even that one before giving up: passive ejection is a guess, and if it took out every server it guessed wrong or
/// there is nothing to lose.
const TIERS: [(bool, Availability, Which); 8] = [
    (false, Availability::Ready, Which::Primary),
    (false, Availability::Ready, Which::Backup),
    (false, Availability::Ejected, Which::Primary),
    (false, Availability::Ejected, Which::Backup),
    (true, Availability::Ready, Which::Primary),
    (true, Availability::Ready, Which::Backup),
    (true, Availability::Ejected, Which::Primary),
    (true, Availability::Ejected, Which::Backup),
];

#[derive(Clone, Copy)]
enum Which {
    Primary,
    Backup,
}

impl Pool {
    /// The pool of `servers`; no more than [`SERVERS_MAX`] of them are used.
    pub(super) fn new(servers: impl IntoIterator<Item = Arc<Server>>, balance: &Balance) -> Self {
        let (backup, primary) =
            servers.into_iter().take(SERVERS_MAX).partition(|server: &Arc<_>| server.backup);
        Self { primary: Group::new(primary, balance), backup: Group::new(backup, balance) }
    }

    /// All servers, backups last.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.primary.servers.iter().chain(&self.backup.servers)
    }

    /// Chooses a server and takes a place on it. `key` is what a hash goes by.
    pub(super) fn take(
        &self,
        tried: &Tried,
        key: u64,
        now: Instant,
    ) -> Result<(&Arc<Server>, Ticket), NoServer> {
        for (again, availability, which) in TIERS {
            if again && tried.attempts() == 0 {
                break;
            }
            let group = match which {
                Which::Primary => &self.primary,
                Which::Backup => &self.backup,
            };
            let mut candidates = group.candidates(|server| {
                tried.contains(server) == again && server.availability(now) == availability
            });
            while let Some(index) = group.choose(&candidates, key) {
                let Some(server) = group.servers.get(usize::from(index)) else { break };
                if let Some(ticket) = server.admit(now) {
                    return Ok((server, ticket));
                }
                // Somebody else became its probe in the meantime.
                candidates.retain(|other| *other != index);
            }
        }
        Err(self.why_none(now))
    }

    fn why_none(&self, now: Instant) -> NoServer {
        if self.servers().next().is_none() {
            return NoServer { reason: Reason::NotReady, retry_after: RETRY_AFTER };
        }
        let soonest = self
            .servers()
            .filter_map(|server| match server.availability(now) {
                Availability::Circuit(wait) => Some(wait),
                _ => None,
            })
            .min();
        match soonest {
            Some(wait) => NoServer { reason: Reason::CircuitOpen, retry_after: wait.max(RETRY_AFTER) },
            None => NoServer { reason: Reason::NoServer, retry_after: RETRY_AFTER },
        }
    }
}

impl Group {
    fn new(servers: Vec<Arc<Server>>, balance: &Balance) -> Self {
        let robin = || SmoothWeighted::new(servers.iter().map(|server| server.weight));
        let balancer = match balance {
            Balance::RoundRobin => Balancer::RoundRobin(robin()),
            Balance::LeastConnections => Balancer::LeastConnections(robin()),
            Balance::Hash(_) => Balancer::Hash(Ring::new(servers.iter().map(|server| &server.backend))),
        };
        Self { servers: servers.into_boxed_slice(), balancer }
    }

    fn candidates(&self, wanted: impl Fn(&Server) -> bool) -> Candidates {
        (0_u16..).zip(&self.servers).filter(|(_, server)| wanted(server)).map(|(index, _)| index).collect()
    }

    fn choose(&self, candidates: &[u16], key: u64) -> Option<u16> {
        match &self.balancer {
            Balancer::RoundRobin(robin) => robin.pick(candidates),
            Balancer::LeastConnections(robin) => robin.pick(&least_loaded(candidates, |index| {
                self.servers
                    .get(usize::from(index))
                    .map_or((u32::MAX, 1), |server| (server.in_flight(), server.weight))
            })),
            Balancer::Hash(ring) => ring.pick(candidates, key),
        }
    }
}
