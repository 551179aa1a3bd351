//! `server.trusted_proxies`: whose word about the client is believed.

use std::net::IpAddr;

use ipnet::IpNet;

use super::networks::Networks;

/// The proxies in front of this one whose `Forwarded`, `X-Forwarded-*` and PROXY headers are believed; nobody unless
/// listed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Networks);

impl TrustedProxies {
    /// Trusts every address in `networks`.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(Networks::new(networks))
    }

    /// Whether `address` is a trusted proxy.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(address)
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
