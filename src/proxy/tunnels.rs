//! Open tunnels, by whose they are: closed as soon as that is revoked.
//!
//! A tunnel passes the policies once and may last for hours. So whoever was let in is asked about again whenever something
//! was taken away from somebody ([`Directory::subscribe`]), and when a key ends whose end was brought forward, as rotating
//! keys does. That it ends with its proof as that was at first is its own cut-off's business ([`super::Context`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::base::clock;
use crate::identity::consumer::Consumer;
use crate::identity::directory::Directory;
use crate::identity::principal::{Principal, Proof};
use crate::ingress::connection::Exchange;

/// The open tunnels of the process that are somebody's.
#[derive(Debug)]
pub struct Tunnels {
    directory: Arc<Directory>,
    open: Mutex<HashMap<u64, Weak<Tunnel>>>,
    next: AtomicU64,
    /// One has opened that may end sooner than all others.
    ask_again: Notify,
}

/// One of them, as long as it is open.
#[derive(Debug)]
pub(super) struct Tunnel {
    exchange: Arc<Exchange>,
    principal: Principal,
    is_revoked: AtomicBool,
    id: u64,
    all: Weak<Tunnels>,
}

impl Tunnels {
    /// None open; `directory` knows what is revoked.
    pub fn new(directory: Arc<Directory>) -> Arc<Self> {
        let (open, next, ask_again) = (Mutex::default(), AtomicU64::new(0), Notify::new());
        Arc::new(Self { directory, open, next, ask_again })
    }

    /// Closes what is revoked, for as long as the process lives.
    pub async fn watch(self: Arc<Self>) {
        let mut changes = self.directory.subscribe();
        loop {
            let next = self.close_revoked().map(|end| end.saturating_sub(clock::unix_now()));
            // The clock may be set: it is looked at again before long.
            let pause = next.map(|left| Duration::from_secs(left.unsigned_abs()).clamp(SOONEST, LATEST));
            let end = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.ask_again.notified() => {}
                () = end => {}
            }
        }
    }

    /// A tunnel of `principal` has opened.
    pub(super) fn open(self: &Arc<Self>, exchange: Arc<Exchange>, principal: Principal) -> Arc<Tunnel> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (is_revoked, all) = (AtomicBool::new(false), Arc::downgrade(self));
        let tunnel = Arc::new(Tunnel { exchange, principal, is_revoked, id, all });
        self.open.lock().insert(id, Arc::downgrade(&tunnel));
        // What happened between its first question and now.
        match self.end(&tunnel.principal) {
            None => tunnel.close(),
            Some(i64::MAX) => {}
            Some(_) => self.ask_again.notify_one(),
        }
        tunnel
    }

    /// And when the next one ends, in Unix seconds; `None` if none does by itself.
    fn close_revoked(&self) -> Option<i64> {
        // The lock is let go of before anything is dropped, which takes it.
        let open: Vec<_> = self.open.lock().values().filter_map(Weak::upgrade).collect();
        let ends = open.iter().filter_map(|tunnel| {
            let end = self.end(&tunnel.principal);
            if end.is_none() {
                tunnel.close();
            }
            end.filter(|end| *end < i64::MAX)
        });
        ends.min()
    }

    /// When the key of `principal` ends, in Unix seconds, `i64::MAX` for other proofs and keys that do not; `None` = it has
    /// ended, the proof or its consumer is gone, or the consumer is no longer in one of its groups.
    fn end(&self, principal: &Principal) -> Option<i64> {
        // Whoever has lost a group might not be let in again. Groups that were added take nothing away.
        let has_lost = |consumer: &Consumer| {
            let now = self.directory.consumer(&consumer.name);
            now.is_none_or(|now| consumer.groups.iter().any(|group| !now.groups.contains(group)))
        };
        let consumer_is_gone = || principal.consumer.as_deref().is_some_and(has_lost);
        let end = match &principal.proof {
            Proof::Token(token) if self.directory.is_revoked(token) => None,
            Proof::ApiKey(key) => self.directory.end_of(key).filter(|end| *end > clock::unix_now()),
            Proof::Token(_) | Proof::Certificate(_) => Some(i64::MAX),
        };
        end.filter(|_| !consumer_is_gone())
    }
}

/// Shortest and longest pause before an end is looked at again.
const SOONEST: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(60);

impl Tunnel {
    /// Whether it is closed for that.
    pub(super) fn is_revoked(&self) -> bool {
        self.is_revoked.load(Ordering::Relaxed)
    }

    fn close(&self) {
        self.is_revoked.store(true, Ordering::Relaxed);
        self.exchange.end_now();
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(all) = self.all.upgrade() {
            all.open.lock().remove(&self.id);
        }
    }
}
