//! What the process runs short of: memory, or file descriptors. Then it sheds load instead of dying of it.
//!
//! Both are the process's, so what is known of them is, too. Memory is looked at a few times a second by
//! `app::pressure`. Of descriptors the kernel tells by itself: it gives the lowest that is free, so a new one whose
//! number is near the limit says that nearly all are taken. The last ones are a **reserve**: connections that get one of
//! these are told to come back later, which is better than waiting in a queue that nobody accepts from.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::io::Errno;

/// When a client that was told to come back later may do so.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);

static MEMORY: AtomicBool = AtomicBool::new(false);
static DESCRIPTORS: AtomicBool = AtomicBool::new(false);
/// How often a descriptor of the reserve was used, or there was none.
static LACKED: AtomicU64 = AtomicU64::new(0);
static UNACCEPTED: AtomicU64 = AtomicU64::new(0);
static SHED: AtomicU64 = AtomicU64::new(0);
/// The lowest descriptor of the reserve; there is none before the limit is known.
static RESERVE_FROM: AtomicU64 = AtomicU64::new(u64::MAX);

/// Whether so much memory is used that new requests are refused.
pub fn is_short_of_memory() -> bool {
    MEMORY.load(Relaxed)
}

/// Says whether it is.
pub fn short_of_memory(is: bool) {
    MEMORY.store(is, Relaxed);
}

/// Whether descriptors were short a moment ago: none is kept for later that can be done without.
pub fn is_short_of_descriptors() -> bool {
    DESCRIPTORS.load(Relaxed)
}

/// Says that descriptors are no longer short.
pub fn enough_descriptors() {
    DESCRIPTORS.store(false, Relaxed);
}

/// Says how many descriptors the process may have, which sets the reserve aside; `None` = as many as it likes.
pub fn descriptors(limit: Option<u64>) {
    RESERVE_FROM.store(limit.map_or(u64::MAX, |limit| limit.saturating_sub(reserve(limit))), Relaxed);
}

/// A few, whatever the limit is, for connections that are only told to go, files that are opened anew, and names.
fn reserve(limit: u64) -> u64 {
    (limit / 32).clamp(16, 256)
}

/// Whether `descriptor`, which is new, says that there are not many left: what can be done without one is.
pub fn is_high(descriptor: RawFd) -> bool {
    let most = RESERVE_FROM.load(Relaxed) / 4 * 3;
    u64::try_from(descriptor).is_ok_and(|number| number >= most)
}

/// Whether `descriptor`, which is new, is one of the reserve. Noted if it is.
pub fn is_of_reserve(descriptor: RawFd) -> bool {
    let is = u64::try_from(descriptor).is_ok_and(|number| number >= RESERVE_FROM.load(Relaxed));
    if is {
        note();
    }
    is
}

/// Whether `error` says that there was no descriptor, or no memory in the kernel, for something new. Noted if it does.
pub fn is_shortage(error: &io::Error) -> bool {
    const SHORTAGES: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    let is =
        error.raw_os_error().is_some_and(|code| SHORTAGES.iter().any(|errno| errno.raw_os_error() == code));
    if is {
        note();
    }
    is
}

fn note() {
    LACKED.fetch_add(1, Relaxed);
    DESCRIPTORS.store(true, Relaxed);
}

/// How often descriptors were short so far.
pub fn lacked() -> u64 {
    LACKED.load(Relaxed)
}

/// A connection could not be accepted.
pub fn not_accepted() {
    UNACCEPTED.fetch_add(1, Relaxed);
}

/// How often that was.
pub fn unaccepted() -> u64 {
    UNACCEPTED.load(Relaxed)
}

/// A request was refused.
pub fn shed() {
    SHED.fetch_add(1, Relaxed);
}

/// How many were.
pub fn all_shed() -> u64 {
    SHED.load(Relaxed)
}

/// Whether a use is too high, without a change of mind at every step: once above its limit it has to fall well below.
#[derive(Debug, Default)]
pub struct Level(bool);

impl Level {
    /// What `used` of `limit` says; without a limit nothing is too much.
    pub fn is_high(&mut self, used: u64, limit: Option<u64>) -> bool {
        self.0 = limit.is_some_and(|limit| used > if self.0 { limit - limit / 20 } else { limit });
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_has_to_fall_well_below_its_limit() {
        let mut level = Level::default();
        let seen: Vec<_> =
            [990, 1000, 1001, 1000, 951, 950, 999].map(|used| level.is_high(used, Some(1000))).into();
        assert_eq!(seen, [false, false, true, true, true, false, false]);
        assert!(level.is_high(2000, Some(1000)) && !level.is_high(2000, None));
        assert!(!Level::default().is_high(u64::MAX, Some(u64::MAX)));
    }

    /// One test for what is the process's: others run beside it.
    #[test]
    fn the_last_descriptors_are_a_reserve() {
        assert!(!is_of_reserve(i32::MAX) && !is_short_of_descriptors());
        descriptors(Some(1024));
        assert!(!is_of_reserve(991) && !is_short_of_descriptors());
        assert!(is_of_reserve(992) && is_short_of_descriptors());
        enough_descriptors();
        assert!(is_shortage(&Errno::MFILE.into()) && is_short_of_descriptors());
        enough_descriptors();
        assert!(!is_shortage(&Errno::CONNREFUSED.into()) && !is_shortage(&io::ErrorKind::Other.into()));
        assert!(!is_short_of_descriptors() && lacked() == 2);
        descriptors(None);
        assert!(!is_of_reserve(i32::MAX));
        assert_eq!((reserve(64), reserve(20_000), reserve(1 << 20)), (16, 256, 256));
    }
}
