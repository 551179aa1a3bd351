//! Connections that are closed before anything is asked on them: counted each, told once in a while.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Peer;
use crate::base::clock;
use crate::base::seldom::Seldom;
use crate::telemetry::metrics::ListenerMetrics;

/// How often each cause is mentioned in the process log.
const MENTIONED: Duration = Duration::from_secs(60);

/// Why a connection is closed unheard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// `limits.connections` are open.
    Connections,
    /// `limits.connections_per_address` are open from its address.
    Address,
    /// It should bring a PROXY header, but nobody trusts who sends it.
    ProxyUntrusted,
    /// Something else than a PROXY header came.
    ProxyMissing,
    /// What came is a bad PROXY header.
    ProxyMalformed(&'static str),
    /// The PROXY header did not come within `limits.header_timeout`.
    ProxyTimeout,
}

impl TurnedAway {
    /// The word for it in metrics.
    const fn word(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Address => "address",
            Self::ProxyUntrusted => "proxy_untrusted",
            Self::ProxyMissing => "proxy_missing",
            Self::ProxyMalformed(_) => "proxy_malformed",
            Self::ProxyTimeout => "proxy_timeout",
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::Connections => "connections closed: limits.connections are open",
            Self::Address => "connections closed: limits.connections_per_address are open from their address",
            Self::ProxyUntrusted => {
                "connections closed: server.trusted_proxies does not name who connected for a PROXY header"
            }
            Self::ProxyMissing => "connections closed: something else than a PROXY header came",
            Self::ProxyMalformed(_) => "connections closed: the PROXY header is malformed",
            Self::ProxyTimeout => "connections closed: no PROXY header within limits.header_timeout",
        }
    }
}

/// When what was said last.
#[derive(Debug, Default)]
pub(crate) struct Mentions {
    connections: Seldom,
    address: Seldom,
    proxy: [Seldom; 4],
    accept: Seldom,
}

impl Mentions {
    /// Connections cannot be accepted: whether that is to be said now, and how often it was not.
    pub(super) fn failed(&self) -> Option<u64> {
        self.accept.now(clock::now(), MENTIONED)
    }

    /// Counts a connection of `peer` that is closed, and says so if it was not said lately.
    pub(crate) fn turned_away(&self, why: TurnedAway, listener: &Arc<ListenerMetrics>, peer: &Peer) {
        listener.rejected(why.word());
        let [untrusted, missing, malformed, timeout] = &self.proxy;
        let (seldom, detail) = match why {
            TurnedAway::Connections => (&self.connections, None),
            TurnedAway::Address => (&self.address, None),
            TurnedAway::ProxyUntrusted => (untrusted, None),
            TurnedAway::ProxyMissing => (missing, None),
            TurnedAway::ProxyMalformed(detail) => (malformed, Some(detail)),
            TurnedAway::ProxyTimeout => (timeout, None),
        };
        if let Some(unsaid) = seldom.now(clock::now(), MENTIONED) {
            let (listener, from) = (listener.name(), peer.ip());
            tracing::warn!(listener, %from, detail, unsaid, "{}", why.sentence());
        }
    }
}
