//! What lets clients resume sessions. It outlives configurations: a reload that changes no certificate must not cost every
//! client a full handshake.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};

/// The session keys of all listeners of a process.
///
/// A session is resumed without any certificate being looked at. So keys belong to one listener with one set of
/// certificates; under anything else a ticket is noise. Where clients are asked for certificates there are none.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Weak: what no configuration and no connection holds any more is gone, its keys with it.
    known: Mutex<HashMap<Key, Weak<Resumption>>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    listener: String,
    policy: [u8; 32],
}

/// The session keys of one listener.
#[derive(Debug)]
pub(super) struct Resumption {
    /// Makes tickets, for TLS 1.3 and 1.2. Its keys are random, live in memory alone, change every six hours and are
    /// good for six hours more.
    pub(super) ticketer: Arc<dyn ProducesTickets>,
    /// Sessions of clients of TLS 1.2 that know no tickets.
    pub(super) cache: Arc<dyn StoresServerSessions>,
}

/// Sessions kept for clients without tickets, which are rare.
const CACHED_MAX: usize = 256;

impl Sessions {
    /// The keys of `listener` for `policy`, which stands for all that a handshake is made with; new ones if there are none.
    pub(super) fn of(&self, listener: &str, policy: [u8; 32]) -> Result<Arc<Resumption>, rustls::Error> {
        let mut known = self.known.lock();
        let key = Key { listener: listener.to_owned(), policy };
        if let Some(resumption) = known.get(&key).and_then(Weak::upgrade) {
            return Ok(resumption);
        }
        let resumption = Arc::new(Resumption {
            ticketer: Ticketer::new()?,
            cache: ServerSessionMemoryCache::new(CACHED_MAX),
        });
        known.retain(|_, held| held.strong_count() > 0);
        known.insert(key, Arc::downgrade(&resumption));
        Ok(resumption)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_live_as_long_as_somebody_needs_them() {
        let sessions = Sessions::default();
        let first = sessions.of("a", [1; 32]).unwrap();
        assert!(Arc::ptr_eq(&first, &sessions.of("a", [1; 32]).unwrap()));
        for (listener, policy) in [("b", [1; 32]), ("a", [2; 32])] {
            assert!(!Arc::ptr_eq(&first, &sessions.of(listener, policy).unwrap()));
        }
        for policy in 3..100 {
            sessions.of("a", [policy; 32]).unwrap();
        }
        assert!(sessions.known.lock().len() <= 2, "the dead are forgotten");
    }
}
