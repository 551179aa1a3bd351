//! `body_bytes`: how large a request body may be.

use super::Verdict;
use crate::base::reason::Reason;

/// The largest request body of a route, in bytes as the client sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimit(u64);

impl BodyLimit {
    /// Bodies of up to `bytes` pass.
    pub fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Judges the length that a request announces, before any of it is read. A chunked body announces none and is
    /// counted: see [`BodyLimit::allows`].
    pub fn check(self, announced: Option<u64>) -> Verdict {
        if announced.is_none_or(|length| self.allows(length)) {
            Verdict::Pass
        } else {
            Verdict::refuse(Reason::BodyTooLarge)
        }
    }

    /// Whether a body of which `received` bytes have arrived may go on.
    pub fn allows(self, received: u64) -> bool {
        received <= self.0
    }
}
