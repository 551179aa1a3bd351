//! What all counters of a process go by: the secret under which keys are hashed, and the moment from which times count. The
//! process that replaces this one goes on with both, so that it can go on with the counters.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::base::clock;

/// The secret and the moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Basis {
    /// Nobody else knows it, so nobody can make two keys that collide.
    pub(super) secret: [u64; 2],
    pub(super) epoch: Instant,
}

static BASIS: OnceLock<Basis> = OnceLock::new();

/// That of this process.
pub(super) fn get() -> &'static Basis {
    BASIS.get_or_init(|| {
        let now = clock::now();
        // Some time before the first moment, so that tests may go back.
        let epoch = now.checked_sub(Duration::from_secs(60)).unwrap_or(now);
        Basis { secret: [0, 1].map(|number: u8| RandomState::new().hash_one(number)), epoch }
    })
}

/// Goes on with that of another process, in which `passed` nanoseconds had passed at `now`. False where this process has
/// begun to count by one of its own.
pub(super) fn inherit(secret: [u64; 2], passed: u64, now: Instant) -> bool {
    let Some(epoch) = now.checked_sub(Duration::from_nanos(passed)) else { return false };
    BASIS.set(Basis { secret, epoch }).is_ok() || get().secret == secret
}

/// Nanoseconds that count at `now`.
pub(super) fn nanos(now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(get().epoch).as_nanos()).unwrap_or(u64::MAX)
}

/// The moment at which `nanos` count.
pub(super) fn instant(nanos: u64) -> Instant {
    let epoch = get().epoch;
    epoch.checked_add(Duration::from_nanos(nanos)).unwrap_or(epoch)
}
