//! What answers when none of an upstream's servers can be reached.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::Upstream;
use crate::base::reason::Reason;

/// What answers when none of an upstream's servers can be reached.
#[derive(Debug)]
pub enum Fallback {
    /// A fixed answer, without framing headers.
    Answer(Arc<http::Response<Bytes>>),
    /// Another upstream.
    Upstream(Link),
}

/// Another upstream of the same configuration: a name until all of them are compiled, a handle from then on.
#[derive(Debug)]
pub struct Link {
    pub(super) name: Arc<str>,
    pub(super) upstream: OnceLock<Arc<Upstream>>,
}

impl Link {
    /// A link to be resolved.
    pub fn new(name: Arc<str>) -> Self {
        Self { name, upstream: OnceLock::new() }
    }

    /// The name as written.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The upstream; `None` in a configuration that was refused.
    pub fn upstream(&self) -> Option<&Arc<Upstream>> {
        self.upstream.get()
    }
}

/// Whether a request that ends for `reason` gets the fallback: only where certainly no server has seen it. A request
/// that was sent and not answered may have had an effect that a made-up answer would deny.
pub fn applies(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NoServer
            | Reason::UpstreamFull
            | Reason::NotReady
            | Reason::CircuitOpen
            | Reason::ConnectFailed
            | Reason::ConnectTimeout
            | Reason::UpstreamTls
    )
}
