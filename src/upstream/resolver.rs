//! The system's way of resolving names: the hosts file first, then the servers of resolv.conf.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};

use super::discovery::{Answer, Resolve};
use crate::base::clock;

/// How long an entry of the hosts file is believed: it has no TTL.
const HOSTS_TTL: Duration = Duration::from_secs(30);

/// Resolves as the system is configured at that moment.
///
/// Hosts file and resolv.conf are read anew each time: laptops and containers change them under running processes, and
/// lookups are as rare as TTLs expire. Nothing is cached here for the same reason; the name server does that.
#[derive(Debug, Default)]
pub struct System;

#[async_trait]
impl Resolve for System {
    async fn resolve(&self, host: &str) -> Result<Answer, String> {
        if let Some(addresses) = in_hosts_file(host) {
            return Ok(Answer { addresses, ttl: HOSTS_TTL });
        }
        let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = 0;
        let resolver = builder.build().map_err(|error| error.to_string())?;
        let found = resolver.lookup_ip(host).await.map_err(|error| error.to_string())?;
        let ttl = found.valid_until().saturating_duration_since(clock::now());
        Ok(Answer { addresses: found.iter().collect(), ttl })
    }
}

/// What the hosts file says about `host`, if it says anything. Then DNS is not asked for the other family, unlike in the
/// resolver's own use of the file: `127.0.0.1 localhost` means just that.
fn in_hosts_file(host: &str) -> Option<Vec<IpAddr>> {
    let hosts = Hosts::from_system().ok()?;
    let mut name = Name::from_utf8(host).ok()?;
    name.set_fqdn(true);
    let addresses: Vec<IpAddr> = [RecordType::A, RecordType::AAAA]
        .into_iter()
        .filter_map(|record| hosts.lookup_static_host(&Query::query(name.clone(), record)))
        .flat_map(|lookup: Lookup| {
            lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>()
        })
        .collect();
    (!addresses.is_empty()).then_some(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_needs_no_network() {
        let answer = System.resolve("localhost").await.unwrap();
        assert!(!answer.addresses.is_empty());
        assert!(answer.addresses.iter().all(IpAddr::is_loopback), "{answer:?}");
    }
}
