//! How to connect: the prebuilt peer of one address, and the time-outs of one attempt.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::protocols::TcpKeepalive;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::{ALPN, HttpPeer};

use super::introduction::Introduction;
use super::tls::TlsPolicy;

/// An upstream's time-outs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP and TLS together.
    pub connect: Duration,
    /// Longest silence of the server while an answer is due.
    pub read: Duration,
    /// Longest time a write may wait.
    pub write: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            read: Duration::from_secs(30),
            write: Duration::from_secs(30),
            idle: Duration::from_secs(60),
        }
    }
}

impl Timeouts {
    /// As they apply to an attempt that starts at `now`: connecting and sending never go on past `deadline`. Never zero
    /// either, which some waits take for "no limit": what starts after its deadline ends at once, as timed out.
    ///
    /// `read` is left alone. Pingora takes it for the wait for the head and for every pause in the body alike, and after
    /// the head another deadline holds, or none; whoever waits for the answer keeps it.
    pub fn within(&self, deadline: Option<Instant>, now: Instant) -> Self {
        let Some(deadline) = deadline else { return *self };
        let left = deadline.saturating_duration_since(now).max(Duration::from_millis(1));
        Self {
            connect: self.connect.min(left),
            read: self.read,
            write: self.write.min(left),
            idle: self.idle,
        }
    }

    /// Writes them into `peer`.
    pub(super) fn apply(&self, peer: &mut HttpPeer) {
        peer.options.connection_timeout = Some(self.connect);
        // The other one counts TCP and TLS separately.
        peer.options.total_connection_timeout = Some(self.connect);
        peer.options.read_timeout = Some(self.read);
        peer.options.write_timeout = Some(self.write);
        peer.options.idle_timeout = Some(self.idle);
    }
}

/// Concurrent requests on one HTTP/2 connection; the usual limit of servers. Pingora's default is 1.
const H2_STREAMS_MAX: usize = 100;
/// An HTTP/2 connection whose server is gone without a word is found out within this and Pingora's 5 s.
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// Likewise for everything else that waits long without traffic, such as WebSocket tunnels.
pub(super) const TCP_KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(15),
    count: 4,
    #[cfg(target_os = "linux")]
    user_timeout: Duration::ZERO,
};

/// What the kernel takes in of an answer that a client does not take off (it doubles the number for its own needs). Left
/// to itself it grows this to megabytes, and a thousand slow readers would take all of the machine's memory for sockets
/// (`net.ipv4.tcp_mem`), which stops everybody. This much fills a connection of 250 Mbit/s over 8 ms, or 2 Gbit/s over 1.
pub(super) const RECEIVE_BYTES: usize = 256 * 1024;

/// The peer at `address`; `tls` comes with the name the server must prove. With `proxy_protocol` connections are the
/// gateway's own until an attempt says for whom: see [`introduce`].
pub(super) fn template(
    address: &SocketAddr,
    tls: Option<(&TlsPolicy, &str)>,
    http2: bool,
    proxy_protocol: bool,
    timeouts: &Timeouts,
) -> HttpPeer {
    // Only ever from an address: given a name, this resolves it on the spot and panics where that fails.
    let placeholder = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    let sni = tls.map_or_else(String::new, |(_, sni)| sni.to_owned());
    let mut peer = HttpPeer::new(placeholder, tls.is_some(), sni);
    peer._address = address.clone();
    peer.group_key = connection_policy(tls, http2, proxy_protocol);
    if let Some((policy, _)) = tls {
        peer.options.ca.clone_from(&policy.ca);
        peer.client_cert_key.clone_from(&policy.client);
    }
    match (http2, tls.is_some()) {
        (false, _) => peer.options.set_http_version(1, 1),
        // ALPN lets the server choose.
        (true, true) => peer.options.set_http_version(2, 1),
        // In cleartext nothing can be negotiated: prior knowledge.
        (true, false) => peer.options.set_http_version(2, 2),
    }
    if http2 {
        peer.options.max_h2_streams = H2_STREAMS_MAX;
        peer.options.h2_ping_interval = Some(H2_PING_INTERVAL);
    }
    if matches!(address, SocketAddr::Inet(_)) {
        peer.options.tcp_recv_buf = Some(RECEIVE_BYTES);
        peer.options.tcp_keepalive = Some(TCP_KEEPALIVE);
    }
    if proxy_protocol {
        introduce(&mut peer, Introduction::Local);
    }
    timeouts.apply(&mut peer);
    peer
}

/// Has connections to `peer` begin with a PROXY header for `introduction`, and used again only under the same.
pub(super) fn introduce(peer: &mut HttpPeer, introduction: Introduction) {
    peer.group_key = introduction.group(peer.group_key);
    peer.options.custom_l4 = Some(Arc::new(introduction));
}

/// Has the server of `peer` spoken to in HTTP/1.1 if it may choose, over connections that whoever may use HTTP/2 does not
/// meet.
pub fn keep_to_http1(peer: &mut HttpPeer) {
    if peer.options.alpn == ALPN::H2H1 {
        peer.options.set_http_version(1, 1);
        peer.group_key = !peer.group_key;
    }
}

/// Tells apart what must not share connections or health although the address is the same. Pingora's own key leaves
/// out the trusted roots and the protocol.
pub(super) fn connection_policy(tls: Option<(&TlsPolicy, &str)>, http2: bool, proxy_protocol: bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    tls.map(|(policy, sni)| (policy.fingerprint(), sni)).hash(&mut hasher);
    (http2, proxy_protocol).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use pingora::upstreams::peer::Peer;

    use super::*;
    use crate::base::clock;

    #[test]
    fn attempts_end_with_the_request() {
        let (timeouts, now) = (Timeouts::default(), clock::now());
        assert_eq!(timeouts.within(None, now), timeouts);
        assert_eq!(timeouts.within(Some(now + Duration::from_secs(300)), now), timeouts);
        let short = timeouts.within(Some(now + Duration::from_millis(1500)), now);
        assert_eq!(short.connect, Duration::from_secs(1));
        assert_eq!((short.read, short.write), (timeouts.read, Duration::from_millis(1500)));
        assert_eq!(short.idle, timeouts.idle);
        let late = timeouts.within(Some(now), now + Duration::from_secs(5));
        assert_eq!(late.connect, Duration::from_millis(1), "never zero");
    }

    #[test]
    fn connections_are_shared_only_under_one_policy() {
        let address = SocketAddr::Inet(([127, 0, 0, 1], 443).into());
        let (one, other) = (TlsPolicy::new(None, None, None), TlsPolicy::new(Some("x".into()), None, None));
        let peers = [
            template(&address, None, false, false, &Timeouts::default()),
            template(&address, None, true, false, &Timeouts::default()),
            template(&address, Some((&one, "a")), false, false, &Timeouts::default()),
            template(&address, Some((&one, "b")), false, false, &Timeouts::default()),
            template(&address, Some((&one, "a")), true, false, &Timeouts::default()),
            template(&address, Some((&other, "a")), false, false, &Timeouts::default()),
            template(&address, None, false, true, &Timeouts::default()),
        ];
        let hashes: std::collections::HashSet<_> = peers.iter().map(Peer::reuse_hash).collect();
        assert_eq!(hashes.len(), peers.len());
    }

    #[test]
    fn protocol_follows_the_configuration() {
        let address = SocketAddr::Inet(([127, 0, 0, 1], 443).into());
        let (timeouts, tls) = (Timeouts::default(), TlsPolicy::new(None, None, None));
        let alpn = |tls, http2| template(&address, tls, http2, false, &timeouts).options.alpn;
        assert_eq!(alpn(None, false), ALPN::H1);
        assert_eq!(alpn(None, true), ALPN::H2);
        assert_eq!(alpn(Some((&tls, "a")), true), ALPN::H2H1);
        assert_eq!(alpn(Some((&tls, "a")), false), ALPN::H1);
    }
}
