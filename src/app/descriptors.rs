//! The limit on open file descriptors.

pub use crate::config::settings::descriptors_wanted as wanted;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The most that [`raise_limit`] could raise it to; `None` = unlimited.
pub fn hard_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
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
