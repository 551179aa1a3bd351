//! Names of servers resolved in the background, at their TTL, never while a request waits.
//!
//! One [`Name`] for each host name of the process, however many upstreams and configurations mention it. The last good
//! answer is kept for as long as newer ones fail: an outage of DNS must not become one of the service.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Upstream;
use crate::base::fault;
use crate::base::task::{self, AbortOnDrop};

/// Addresses of one name that are used; more are left out. A pool beyond this is a service mesh's business.
pub const ADDRESSES_MAX: usize = 64;
/// A TTL below this is taken as this: DNS with TTL 0 must not be asked in a busy loop.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// A TTL above this is taken as this: servers move even if their zone promised otherwise.
pub const TTL_MAX: Duration = Duration::from_secs(3600);
/// Longest pause after failures; it doubles from [`TTL_MIN`] until then.
pub const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(30);
/// For one lookup, whatever the resolver does.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// What a lookup found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// IPv4 and IPv6 addresses, in any order.
    pub addresses: Vec<IpAddr>,
    /// How long they hold.
    pub ttl: Duration,
}

/// Looks up names. The real one is [`super::resolver::System`]; tests bring their own.
#[async_trait]
pub trait Resolve: std::fmt::Debug + Send + Sync {
    /// The addresses of `host`. The error is a few words for the log.
    async fn resolve(&self, host: &str) -> Result<Answer, String>;
}

/// What is known about a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Its addresses, sorted; empty until the first good answer.
    pub addresses: Arc<[IpAddr]>,
    /// Whether a lookup has ended, well or not.
    pub attempted: bool,
    /// Why the last lookup failed, if it did.
    pub error: Option<Arc<str>>,
}

/// One host name, kept up to date while somebody holds it.
#[derive(Debug)]
pub struct Name {
    host: Arc<str>,
    resolution: watch::Sender<Resolution>,
    /// Who is told when the addresses change.
    users: Mutex<Vec<Weak<Upstream>>>,
    task: Mutex<Option<AbortOnDrop>>,
}

impl Name {
    pub(super) fn new(host: Arc<str>) -> Self {
        Self {
            host,
            resolution: watch::Sender::new(Resolution::default()),
            users: Mutex::default(),
            task: Mutex::default(),
        }
    }

    /// The name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What is known now.
    pub fn resolution(&self) -> Resolution {
        self.resolution.borrow().clone()
    }

    /// Waits until a lookup has ended, well or not.
    pub async fn attempted(&self) {
        let mut resolution = self.resolution.subscribe();
        // Cannot fail: the sender is in `self`.
        if resolution.wait_for(|resolution| resolution.attempted).await.is_err() {
            tracing::debug!(host = %self.host, "name dropped while waited for");
        }
    }

    /// Has `user` told of changes, and keeps the name up to date from now on. Needs a runtime. Returns whether `user` is
    /// new to it.
    pub(super) fn start(self: &Arc<Self>, user: Weak<Upstream>, resolver: &Arc<dyn Resolve>) -> bool {
        let mut users = self.users.lock();
        users.retain(|user| user.strong_count() > 0);
        let is_new = !users.iter().any(|known| known.ptr_eq(&user));
        if is_new {
            users.push(user);
        }
        let mut task = self.task.lock();
        if task.is_none() {
            let (name, host, resolver) = (Arc::downgrade(self), self.host.clone(), resolver.clone());
            let work = move || keep(name.clone(), host.clone(), resolver.clone());
            *task = Some(AbortOnDrop::new(task::keep("dns", work)));
        }
        is_new
    }

    fn publish(&self, result: Result<Vec<IpAddr>, String>) {
        let before = self.resolution();
        let next = match result {
            Ok(addresses) => {
                if before.error.is_some() {
                    tracing::info!(host = %self.host, addresses = addresses.len(), "name resolves again");
                }
                Resolution { addresses: addresses.into(), attempted: true, error: None }
            }
            Err(error) => {
                if before.error.is_none() {
                    tracing::warn!(host = %self.host, error, kept = before.addresses.len(), "name does not resolve");
                }
                Resolution { attempted: true, error: Some(error.into()), ..before.clone() }
            }
        };
        let changed = next.addresses != before.addresses;
        self.resolution.send_replace(next);
        if changed {
            let users: Vec<_> = self.users.lock().iter().filter_map(Weak::upgrade).collect();
            for user in users {
                user.rebuild();
            }
        }
    }
}

async fn keep(name: Weak<Name>, host: Arc<str>, resolver: Arc<dyn Resolve>) {
    let mut schedule = Schedule::default();
    loop {
        fault::point("dns", &*host);
        let found = tokio::time::timeout(LOOKUP_TIMEOUT, resolver.resolve(&host)).await;
        let found = found.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let (result, pause) = schedule.take_in(found);
        let Some(name) = name.upgrade() else { return };
        name.publish(result);
        drop(name);
        // Instances and names that lost the server together do not come back in step; and no answer is used for longer
        // than it holds.
        tokio::time::sleep(pause.mul_f64(0.75 + fastrand::f64() / 4.0)).await;
    }
}

/// When to look up again; pure.
#[derive(Debug, Default)]
struct Schedule {
    failures: u32,
}

impl Schedule {
    /// Bounds and sorts what was found; the second value is the pause until the next lookup.
    fn take_in(&mut self, found: Result<Answer, String>) -> (Result<Vec<IpAddr>, String>, Duration) {
        match found {
            Ok(Answer { mut addresses, ttl }) if !addresses.is_empty() => {
                self.failures = 0;
                // Sorted first: DNS rotates its answers, and the same 64 should be used each time.
                addresses.sort_unstable();
                addresses.dedup();
                addresses.truncate(ADDRESSES_MAX);
                (Ok(addresses), ttl.clamp(TTL_MIN, TTL_MAX))
            }
            failed => {
                let pause = TTL_MIN.saturating_mul(1 << self.failures.min(16)).min(FAILURE_PAUSE_MAX);
                self.failures = self.failures.saturating_add(1);
                (Err(failed.err().unwrap_or_else(|| "no addresses".to_owned())), pause)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn failures_are_asked_about_less_and_less() {
        let mut schedule = Schedule::default();
        let pauses: Vec<_> =
            (0..7).map(|_| schedule.take_in(Err("refused".to_owned())).1.as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        let good = Answer { addresses: vec![[10, 0, 0, 1].into()], ttl: Duration::from_secs(60) };
        assert_eq!(schedule.take_in(Ok(good)).1, Duration::from_secs(60));
        assert_eq!(schedule.take_in(Err("refused".to_owned())).1, TTL_MIN);
    }

    #[test]
    fn an_empty_answer_is_a_failure() {
        let (result, _) = Schedule::default().take_in(Ok(Answer { addresses: vec![], ttl: TTL_MAX }));
        assert_eq!(result, Err("no addresses".to_owned()));
    }

    proptest! {
        #[test]
        fn answers_are_bounded(octets in proptest::collection::vec(any::<[u8; 4]>(), 1..200), ttl_ms in any::<u32>()) {
            let addresses: Vec<IpAddr> = octets.into_iter().map(IpAddr::from).collect();
            let ttl = Duration::from_millis(ttl_ms.into());
            let (result, pause) = Schedule::default().take_in(Ok(Answer { addresses: addresses.clone(), ttl }));
            let found = result.unwrap();
            prop_assert!((TTL_MIN..=TTL_MAX).contains(&pause));
            prop_assert!(!found.is_empty() && found.len() <= ADDRESSES_MAX);
            prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(found.iter().all(|address| addresses.contains(address)));
        }
    }
}
