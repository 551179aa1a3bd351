//! Open tunnels, by whose they are: closed as soon as that is revoked.
//!
//! A tunnel passes the policies once and may last for hours. So whoever was let in is asked about again whenever something
//! was taken away from somebody ([`Directory::subscribe`]). That it ends with its proof is its own cut-off's business
//! ([`super::Context`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::identity::directory::Directory;
use crate::identity::principal::{Principal, Proof};
use crate::ingress::connection::Exchange;

/// The open tunnels of the process that are somebody's.
#[derive(Debug)]
pub struct Tunnels {
    directory: Arc<Directory>,
    open: Mutex<HashMap<u64, Weak<Tunnel>>>,
    next: AtomicU64,
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
        Arc::new(Self { directory, open: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// Closes what is revoked, for as long as the process lives.
    pub async fn watch(self: Arc<Self>) {
        let mut changes = self.directory.subscribe();
        while changes.changed().await.is_ok() {
            self.close_revoked();
        }
    }

    /// A tunnel of `principal` has opened.
    pub(super) fn open(self: &Arc<Self>, exchange: Arc<Exchange>, principal: Principal) -> Arc<Tunnel> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (is_revoked, all) = (AtomicBool::new(false), Arc::downgrade(self));
        let tunnel = Arc::new(Tunnel { exchange, principal, is_revoked, id, all });
        self.open.lock().insert(id, Arc::downgrade(&tunnel));
        // What happened between its first question and now.
        if self.is_revoked(&tunnel.principal) {
            tunnel.close();
        }
        tunnel
    }

    fn close_revoked(&self) {
        // The lock is let go of before anything is dropped, which takes it.
        let open: Vec<_> = self.open.lock().values().filter_map(Weak::upgrade).collect();
        open.iter().filter(|tunnel| self.is_revoked(&tunnel.principal)).for_each(|tunnel| tunnel.close());
    }

    fn is_revoked(&self, principal: &Principal) -> bool {
        let consumer_is_gone = || {
            let consumer = principal.consumer.as_ref();
            consumer.is_some_and(|consumer| self.directory.consumer(&consumer.name).is_none())
        };
        let proof_is_gone = match &principal.proof {
            Proof::Token(token) => self.directory.is_revoked(token),
            Proof::ApiKey(key) => !self.directory.holds(key),
            Proof::Certificate(_) => false,
        };
        proof_is_gone || consumer_is_gone()
    }
}

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
