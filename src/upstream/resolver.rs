//! The system's way of resolving names: the hosts file first, then the servers of resolv.conf.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, ResolverBuilder, TokioResolver};

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
        let servers = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
        ask(servers, host).await
    }
}

/// Asks name servers.
async fn ask(mut servers: ResolverBuilder<TokioRuntimeProvider>, host: &str) -> Result<Answer, String> {
    let options = servers.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 0;
    let resolver = servers.build().map_err(|error| error.to_string())?;
    let found = resolver.lookup_ip(host).await.map_err(|error| error.to_string())?;
    let ttl = found.valid_until().saturating_duration_since(clock::now());
    Ok(Answer { addresses: found.iter().collect(), ttl })
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

    /// What a name server does.
    #[derive(Clone, Copy)]
    enum Mood {
        Answers,
        Fails,
        IsSilent,
        TalksNonsense,
    }

    /// A name server, over UDP alone, for which every name is 192.0.2.1 for a minute.
    async fn name_server(mood: tokio::sync::watch::Receiver<Mood>) -> std::net::SocketAddr {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let answering = crate::base::task::spawn("name server", async move {
            let mut buffer = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let question = &buffer[..length];
                // RFC 1035: the header of 12 bytes, then the name, its type and class.
                let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
                let is_ipv4 = question[end - 3] == 1;
                let header = |flags: [u8; 2], answers: u8| {
                    let mut header = question[..2].to_vec();
                    header.extend(flags);
                    header.extend([0, 1, 0, answers, 0, 0, 0, 0]);
                    header.extend(&question[12..end]);
                    header
                };
                let answer = match *mood.borrow() {
                    Mood::Answers if is_ipv4 => {
                        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];
                        [header([0x81, 0x80], 1), record.to_vec()].concat()
                    }
                    Mood::Answers => header([0x81, 0x80], 0),
                    Mood::Fails => header([0x81, 0x82], 0),
                    Mood::IsSilent => continue,
                    Mood::TalksNonsense => b"what is a name?".to_vec(),
                };
                let _sent = socket.send_to(&answer, client).await;
            }
        });
        drop(answering);
        address
    }

    /// A name server that fails, is silent or talks nonsense is an error in time, and one that is well again an answer.
    #[tokio::test]
    async fn name_servers_may_be_of_no_use() {
        use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};

        let (mood, moods) = tokio::sync::watch::channel(Mood::Answers);
        let server = name_server(moods).await;
        let asked = || {
            let mut connection = ConnectionConfig::udp();
            connection.port = server.port();
            let mut named = NameServerConfig::udp(server.ip());
            named.connections = vec![connection];
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![named]);
            let mut servers = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            servers.options_mut().timeout = Duration::from_millis(300);
            servers.options_mut().attempts = 1;
            async {
                tokio::time::timeout(Duration::from_secs(10), ask(servers, "app.example.")).await.unwrap()
            }
        };
        for bad in [Mood::Fails, Mood::IsSilent, Mood::TalksNonsense] {
            let answer = asked().await.unwrap();
            assert_eq!(answer.addresses, [IpAddr::from([192, 0, 2, 1])]);
            assert!(
                answer.ttl > Duration::from_secs(50) && answer.ttl <= Duration::from_secs(60),
                "{answer:?}"
            );
            mood.send_replace(bad);
            let error = asked().await.unwrap_err();
            assert!(!error.is_empty());
            mood.send_replace(Mood::Answers);
        }
        asked().await.unwrap();
    }
}
