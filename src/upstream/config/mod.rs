//! What is written under `[upstreams.NAME]`, and what becomes of it.

mod compile;
#[cfg(test)]
mod tests;
mod values;

use std::time::Duration;

use super::HostSent;
use super::pool::{Balance, HashSource};
use crate::base::decode::{ConfigPath, Percentage};
use crate::base::origin::At;
use crate::{enum_value, keys};

pub use self::compile::link_fallbacks;
pub use self::values::{AddressRaw, FallbackRaw, ServerRaw};

keys! {
    /// A group of servers that do the same.
    pub struct UpstreamRaw {
        /// Addresses without a scheme: `host:port`, `[::1]:port`, `unix:path`. Without a port: 80, with `tls` 443. A name
        /// stands for all its addresses and is resolved in the background.
        servers: required Vec<At<ServerRaw>>,
        /// How the next server is chosen.
        balance: Balance = Balance::RoundRobin,
        /// Secures connections; `{}` = trusts the system's roots, and each server must prove its own name. Absent =
        /// cleartext.
        tls: optional TlsRaw,
        /// Whether HTTP/2 is spoken: by ALPN with `tls`, else by prior knowledge. gRPC needs it.
        http2: bool = false,
        /// The `Host` sent: `"client"` = the client's, `"server"` = the server's own, or a name.
        host: HostSent = HostSent::Client,
        /// Whether every connection begins with a header of the PROXY protocol, version 2, that names the client. It is
        /// then used for that client alone.
        proxy_protocol: bool = false,
        /// How long things may take.
        timeouts: TimeoutsRaw = TimeoutsRaw::default(),
        /// Requests that may be under way at once, in all; 0 = any number. Beyond: 503, or the fallback.
        max_requests: u32 = 0,
        /// Asks each server regularly how it is; absent = only what requests find out counts.
        health_check: optional HealthCheckRaw,
        /// What is tried again.
        retry: RetryRaw = RetryRaw::default(),
        /// Sends nothing to a server that keeps failing; for each server on its own.
        circuit_breaker: optional BreakerRaw,
        /// Answers when no server can be reached: keys as in `respond`, or `upstream = "NAME"`.
        fallback: optional FallbackRaw,
    }
}

keys! {
    /// One server with more than an address.
    pub struct ServerTable {
        /// Host and port.
        address: required AddressRaw,
        /// Share of requests, relative to the other servers; each address of a name has it.
        weight: u32 = 1,
        /// Used only when no other server can be.
        backup: bool = false,
    }
}

keys! {
    /// Chooses by hash, so that equal requests meet the same server.
    pub struct HashRaw {
        /// What is hashed: the client's address, or a header (where it is missing, the address).
        hash: required HashSource,
    }
}

keys! {
    /// TLS towards servers.
    pub struct TlsRaw {
        /// The name servers must prove, also sent to them; absent = each server's own name.
        sni: optional String,
        /// PEM file of the authorities trusted instead of the system's.
        ca: optional ConfigPath,
        /// PEM file of the certificate shown to servers.
        client_cert: optional ConfigPath,
        /// PEM file of its private key.
        client_key: optional ConfigPath,
    }
}

keys! {
    /// Time-outs of each attempt; none outlives the request's own time.
    pub struct TimeoutsRaw {
        /// To connect, TLS included.
        connect: Duration = Duration::from_secs(1),
        /// Longest silence of the server; not for tunnels and event streams.
        read: Duration = Duration::from_secs(30),
        /// Longest time in which the server takes nothing in.
        write: Duration = Duration::from_secs(30),
        /// How long an unused connection is kept.
        idle: Duration = Duration::from_secs(60),
    }
}

keys! {
    /// Active checks of each server.
    pub struct HealthCheckRaw {
        /// Path asked for, well if it answers 200 to 399; absent = a TCP connection is enough.
        path: optional String,
        /// How often each server is asked, give or take a tenth.
        interval: Duration = Duration::from_secs(5),
        /// For one check as a whole.
        timeout: Duration = Duration::from_secs(1),
        /// Passed checks in a row that make an unhealthy server healthy.
        healthy_after: u32 = 1,
        /// Failed checks in a row that make a healthy server unhealthy. The very first check decides alone.
        unhealthy_after: u32 = 3,
    }
}

enum_value! {
    /// A failure that is tried again.
    pub enum RetryOn {
        /// No connection: nothing was sent. Tried again for any method.
        Connect = "connect",
        /// The connection broke before an answer.
        Reset = "reset",
        /// The server was silent for too long.
        Timeout = "timeout",
        /// Answer 502.
        Status502 = "502",
        /// Answer 503.
        Status503 = "503",
        /// Answer 504.
        Status504 = "504",
        /// Any answer from 500 to 599.
        Status5xx = "5xx",
    }
}

keys! {
    /// What is tried again, on another server if there is one. Never what may have had an effect, nor after a byte of the
    /// answer went out, nor with more than 64 KiB of request body.
    pub struct RetryRaw {
        /// Attempts in all; 1 = nothing is tried again.
        attempts: u32 = 2,
        /// Which failures.
        on: Vec<At<RetryOn>> = [RetryOn::Connect, RetryOn::Reset, RetryOn::Status502, RetryOn::Status503, RetryOn::Status504]
            .map(At::default_value)
            .to_vec(),
        /// Tries also methods again that are not idempotent, such as POST.
        non_idempotent: bool = false,
        /// Pause before it, on average; doubles with each.
        backoff: Duration = Duration::from_millis(25),
        /// Share of requests that may be retries; 3 a second always may.
        budget: Percentage = Percentage(0.2),
    }
}

keys! {
    /// When a server is left alone: after so many failures in a row, or from a share of failures on. Failures are
    /// connections that fail or break, time-outs, and the answers 500, 502, 503, 504.
    pub struct BreakerRaw {
        /// Failures in a row; 5 where `error_ratio` is not given.
        failures: optional u32,
        /// Share of requests that fail, instead of `failures`.
        error_ratio: optional Percentage,
        /// With `error_ratio`: fewer requests than this in the window prove nothing.
        min_requests: u32 = 20,
        /// With `error_ratio`: how far back is looked.
        window: Duration = Duration::from_secs(10),
        /// How long the server is left alone; then one request tries it.
        open_for: Duration = Duration::from_secs(10),
    }
}

keys! {
    /// Another upstream that answers instead.
    pub struct FallbackLinkRaw {
        /// Its name.
        upstream: required String,
    }
}
