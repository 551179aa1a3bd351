//! Active checks: each server of an upstream is asked at intervals whether it is well.
//!
//! The asking is the load-balancing crate's; thresholds are ours ([`super::health`]), and so is the loop: one task for
//! each upstream, which ends with it.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::HeaderValue;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType};
use pingora_load_balancing::health_check::{HealthCheck, HttpHealthCheck, TcpHealthCheck};

use super::Upstream;
use super::health::Thresholds;
use super::introduction::Introduction;
use super::link::lacks_descriptor;
use super::peer::Timeouts;
use super::server::Server;
use crate::base::{clock, fault, panics};

/// How servers are checked.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckSettings {
    /// Path and query asked for; `None` = a TCP connection is enough.
    pub path: Option<String>,
    /// From the end of one round to the start of the next, give or take a tenth.
    pub interval: Duration,
    /// For one check, from connecting to the end of the answer.
    pub timeout: Duration,
    /// How many checks change the mind.
    pub thresholds: Thresholds,
}

/// Checks of one upstream under way at a time: a pool of hundreds must not be a burst of connections.
const CHECKS_AT_ONCE: usize = 16;

/// How the addresses of one configured server are checked.
#[derive(Default)]
pub struct Probe {
    /// What to send; `None` = only connect.
    request: Option<RequestHeader>,
    /// Made by the first check: it reads the system's certificates, which compiling a configuration must not wait for.
    http: OnceLock<Box<HttpHealthCheck>>,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Probe {
    /// A probe that only connects.
    pub fn connect() -> Self {
        Self::default()
    }

    /// A probe that asks for `path` at `host`; `None` if that cannot be a request.
    pub fn http(path: &str, host: HeaderValue) -> Option<Self> {
        let uri: http::uri::PathAndQuery = path.parse().ok().filter(|_| path.starts_with('/'))?;
        let request = http::Request::get(uri.as_str())
            .header(http::header::HOST, host)
            .header(http::header::USER_AGENT, USER_AGENT)
            .body(())
            .ok()?;
        let request = RequestHeader::from(request.into_parts().0);
        Some(Self { request: Some(request), http: OnceLock::new() })
    }

    /// Checks `server` once. The error is a few words for the log; `None` if nothing could be learnt of it.
    async fn run(&self, server: &Server, timeout: Duration) -> Option<Result<(), String>> {
        let check: &(dyn HealthCheck + Sync) = match &self.request {
            None if server.common.proxy_protocol => introduced_tcp(),
            None => tcp(),
            Some(request) => self.http.get_or_init(|| Box::new(http(request, server, timeout))).as_ref(),
        };
        // A certificate that Pingora's parser cannot read makes it panic: one server's fault, not the end of all checks.
        let checked = panics::contained(check.check(&server.backend));
        Some(match tokio::time::timeout(timeout, checked).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) if lacks_descriptor(&error) => return None,
            Ok(Ok(Err(error))) => Err(describe(&error)),
            Ok(Err(said)) => {
                tracing::error!(server = %server.label, "health check panicked: {said}");
                Err("check panicked".to_owned())
            }
            Err(_) => Err("no answer in time".to_owned()),
        })
    }
}

const USER_AGENT: &str = concat!("edgeward/", env!("CARGO_PKG_VERSION"), " (health check)");

/// One for the whole process: it holds nothing but settings, and ours apply around it.
fn tcp() -> &'static TcpHealthCheck {
    static TCP: OnceLock<Box<TcpHealthCheck>> = OnceLock::new();
    TCP.get_or_init(connecting)
}

/// Likewise, for servers that expect a PROXY header: this one says that no client is behind it.
fn introduced_tcp() -> &'static TcpHealthCheck {
    static TCP: OnceLock<Box<TcpHealthCheck>> = OnceLock::new();
    TCP.get_or_init(|| {
        let mut check = connecting();
        check.peer_template.options.custom_l4 = Some(Arc::new(Introduction::Local));
        check
    })
}

fn connecting() -> Box<TcpHealthCheck> {
    let mut check = TcpHealthCheck::new();
    check.peer_template.options.connection_timeout = None;
    check
}

fn http(request: &RequestHeader, server: &Server, timeout: Duration) -> HttpHealthCheck {
    let mut options = ConnectorOptions::new(1);
    if !server.peer.is_tls() || server.peer.options.ca.is_some() {
        // The system's roots are not needed; without this they would be read and kept for every upstream.
        options.ca_file = Some("/dev/null".to_owned());
    }
    let connector = Connector::new(Some(options));
    let mut check = HttpHealthCheck::new_custom("localhost", false, connector);
    check.peer_template = server.peer.clone();
    Timeouts { connect: timeout, read: timeout, write: timeout, idle: timeout }
        .apply(&mut check.peer_template);
    check.req = request.clone();
    check.validator = Some(Box::new(validate));
    check
}

/// Redirects count as health too: the server is there and answers.
fn validate(response: &ResponseHeader) -> pingora::Result<()> {
    match response.status.as_u16() {
        200..=399 => Ok(()),
        status => Error::e_explain(ErrorType::CustomCode("status", status), "health check"),
    }
}

fn describe(error: &Error) -> String {
    match error.etype() {
        ErrorType::CustomCode("status", status) => format!("status {status}"),
        other => other.as_str().to_owned(),
    }
}

/// Checks all servers of `upstream` until it is dropped. `first_round` is told when each of them was checked once.
pub(super) async fn run(
    upstream: Weak<Upstream>,
    settings: CheckSettings,
    first_round: tokio::sync::watch::Sender<bool>,
) {
    loop {
        // Only servers are held while it waits, so that the upstream can go.
        let Some(servers) = upstream.upgrade().map(|upstream| upstream.servers()) else { return };
        fault::point("health check", "");
        stream::iter(&servers)
            .for_each_concurrent(CHECKS_AT_ONCE, |server| async {
                if let Some(result) = server.probe.run(server, settings.timeout).await {
                    server.checked(result, clock::now());
                }
            })
            .await;
        if !servers.is_empty() {
            first_round.send_replace(true);
        }
        drop(servers);
        tokio::time::sleep(settings.interval.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}
