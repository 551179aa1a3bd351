//! The limit on open file descriptors.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The most that [`raise_limit`] could raise it to; `None` = unlimited.
pub fn hard_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Descriptors a full house needs: both sides of every connection, idle upstream connections, and some for the house.
pub fn wanted(connections: usize, upstream_idle: usize) -> u64 {
    connections.saturating_mul(2).saturating_add(upstream_idle).saturating_add(64) as u64
}

/// Raises the soft limit to the hard one and returns it; `None` = unlimited.
pub(super) fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit on open files");
            limit.current
        }
    }
}
