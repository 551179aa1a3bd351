//! From what is written to [`Settings`]: what one value alone cannot say is checked here.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use indexmap::IndexMap;

use super::super::address::Target;
use super::super::breaker::{BreakerSettings, Trip};
use super::super::check::{CheckSettings, Probe};
use super::super::fallback::{Fallback, Link};
use super::super::health::Thresholds;
use super::super::peer::Timeouts;
use super::super::retry::{ATTEMPTS_MAX, Conditions, RetryPolicy};
use super::super::tls::{self, ClientError, TlsPolicy};
use super::super::{ServerSettings, Settings, Upstream};
use super::{
    BreakerRaw, FallbackRaw, HealthCheckRaw, RetryOn, RetryRaw, ServerRaw, TimeoutsRaw, TlsRaw, UpstreamRaw,
};
use crate::base::diagnostic::Diagnostics;
use crate::base::names::nearest;
use crate::base::origin::{At, Origin};

/// Entries of `servers`. Hundreds of servers belong behind a name.
const SERVERS_MAX: usize = 1024;
/// Greatest weight: ratios finer than this are not noticed.
const WEIGHT_MAX: u32 = 65_535;
/// Failures in a row that open a circuit where nothing else is said.
const FAILURES_DEFAULT: u32 = 5;

impl UpstreamRaw {
    /// The settings of the upstream `name`. `path` is the configuration path of the table, `origin` where it stands.
    ///
    /// Reads certificate files; everything else is pure. A link to a fallback upstream is still a name:
    /// [`link_fallbacks`] once all upstreams are there.
    pub fn compile(
        &self,
        name: &str,
        path: &str,
        origin: &Origin,
        out: &mut Diagnostics,
    ) -> Option<Settings> {
        let tls = self.tls.as_ref().and_then(|raw| raw.compile(&format!("{path}.tls"), &raw.origin, out));
        let servers = self.servers(path, out);
        let timeouts = self.timeouts.compile(&format!("{path}.timeouts"), out);
        let check = self.health_check.as_ref().map(|raw| raw.compile(&format!("{path}.health_check"), out));
        let retry = self.retry.compile(&format!("{path}.retry"), out);
        let breaker =
            self.circuit_breaker.as_ref().map(|raw| raw.compile(&format!("{path}.circuit_breaker"), out));
        let fallback = self.fallback.as_ref().and_then(|raw| match &raw.value {
            FallbackRaw::Upstream(link) => Some(Fallback::Upstream(Link::new(link.upstream.as_str().into()))),
            FallbackRaw::Answer(answer) => answer
                .compile(&format!("{path}.fallback"), &raw.origin, out)
                .map(|answer| Fallback::Answer(Arc::new(answer))),
        });
        if *self.proxy_protocol && *self.http2 {
            let message = "\"proxy_protocol\" names one client, and an HTTP/2 connection carries many";
            out.error(
                "conflicting-keys",
                &self.proxy_protocol.origin,
                format!("{path}.proxy_protocol"),
                message,
            )
            .hint("servers of HTTP/2 learn the client from X-Forwarded-For")
            .related(&self.http2.origin, "HTTP/2 is asked for here");
        }
        if servers.is_empty() {
            // Whatever was wrong with those that are there has been said.
            let entry = format!("{path}.servers[");
            if self.servers.is_empty() && !out.iter().any(|problem| problem.path.starts_with(&entry)) {
                let origin =
                    if self.servers.origin == Origin::Default { origin } else { &self.servers.origin };
                out.error("no-servers", origin, format!("{path}.servers"), "the upstream has no servers");
            }
            return None;
        }
        Some(Settings {
            name: name.into(),
            servers,
            balance: self.balance.value.clone(),
            // A policy that cannot be read must not become cleartext, not even in a configuration that is refused.
            tls: self.tls.is_some().then(|| tls.unwrap_or_default()),
            http2: *self.http2,
            host: self.host.value.clone(),
            proxy_protocol: *self.proxy_protocol,
            timeouts,
            check,
            retry,
            max_requests: *self.max_requests,
            breaker,
            fallback,
        })
    }

    fn servers(&self, path: &str, out: &mut Diagnostics) -> Vec<ServerSettings> {
        let sni_given = self.tls.as_ref().is_some_and(|tls| tls.sni.is_some());
        let mut servers = Vec::new();
        let mut first: HashMap<Target, &Origin> = HashMap::new();
        if self.servers.len() > SERVERS_MAX {
            let message = format!("more than {SERVERS_MAX} servers");
            out.error("too-many", &self.servers.origin, format!("{path}.servers"), message)
                .hint("a name in DNS stands for all its addresses");
        }
        for (index, raw) in self.servers.iter().enumerate().take(SERVERS_MAX) {
            let path = format!("{path}.servers[{index}]");
            let (address, weight, backup) = match &raw.value {
                ServerRaw::Address(address) => (address, 1, false),
                ServerRaw::Table(table) => {
                    check_weight(&table.weight, &path, out);
                    (&table.address.value, *table.weight, *table.backup)
                }
            };
            let Some(target) = address.target(self.tls.is_some()) else { continue };
            if let Some(before) = first.get(&target) {
                out.error("duplicate-server", &raw.origin, &path, format!("{target} is given twice"))
                    .hint("a larger share is a weight: { address = \"…\", weight = 2 }")
                    .related(before, "first given here");
                continue;
            }
            first.insert(target.clone(), &raw.origin);
            if self.tls.is_some() && !sni_given {
                check_own_name(&target, &raw.origin, &path, out);
            }
            servers.push(ServerSettings { target, weight, backup });
        }
        if !servers.is_empty() && servers.iter().all(|server| server.backup) {
            out.error(
                "only-backups",
                &self.servers.origin,
                format!("{path}.servers"),
                "every server is a backup, so there is nothing to back up",
            )
            .hint("remove `backup` from the servers that come first");
        }
        servers
    }
}

fn check_weight(weight: &At<u32>, path: &str, out: &mut Diagnostics) {
    if weight.value == 0 {
        out.error("invalid-value", &weight.origin, format!("{path}.weight"), "a weight of 0 sends nothing")
            .hint("remove the server, or make it a backup");
    } else if weight.value > WEIGHT_MAX {
        let message = format!("a weight is at most {WEIGHT_MAX}");
        out.error("invalid-value", &weight.origin, format!("{path}.weight"), message);
    }
}

/// Over TLS a server must prove a name: its own, where `sni` gives none.
fn check_own_name(target: &Target, origin: &Origin, path: &str, out: &mut Diagnostics) {
    match target.name() {
        None => {
            out.error(
                "no-sni",
                origin,
                path,
                format!("{target} has no name that its certificate could prove"),
            )
            .hint("add `sni` to `tls`: the name in the certificate, or the IP address if it stands there");
        }
        Some(name) if !tls::is_server_name(name) => {
            out.error("no-sni", origin, path, format!("no certificate can be for {name}"))
                .hint("add `sni` to `tls`: the name in the certificate");
        }
        Some(_) => {}
    }
}

impl TlsRaw {
    /// The policy. `origin` is where the table stands.
    fn compile(&self, path: &str, origin: &Origin, out: &mut Diagnostics) -> Option<TlsPolicy> {
        if let Some(sni) = self.sni.as_ref().filter(|sni| !tls::is_server_name(sni)) {
            let message = format!("\"{}\" is neither a host name nor an IP address", sni.value);
            out.error("invalid-value", &sni.origin, format!("{path}.sni"), message);
        }
        let mut unusable = |key: &str, file: &Path, origin: &Origin, why: &dyn std::fmt::Display| {
            let message = format!("the file {} {why}", file.display());
            out.error("unusable-certificate", origin, format!("{path}.{key}"), message);
        };
        let ca = self.ca.as_ref().and_then(|ca| match tls::load_ca(ca) {
            Ok(roots) => Some(roots),
            Err(why) => {
                unusable("ca", ca, &ca.origin, &why);
                None
            }
        });
        let client = match (&self.client_cert, &self.client_key) {
            (Some(cert), Some(key)) => match tls::load_client(cert, key) {
                Ok(client) => Some(client),
                Err(ClientError::Certificate(why)) => {
                    unusable("client_cert", cert, &cert.origin, &why);
                    None
                }
                Err(ClientError::Key(why)) => {
                    unusable("client_key", key, &key.origin, &why);
                    None
                }
            },
            (None, None) => None,
            (cert, key) => {
                let missing = if cert.is_some() { "client_key" } else { "client_cert" };
                let origin = cert.as_ref().or(key.as_ref()).map_or(origin, |given| &given.origin);
                let message = format!("a certificate and its key go together: `{missing}` is missing");
                out.error("missing-key", origin, path, message);
                None
            }
        };
        let sni = self.sni.as_ref().map(|sni| sni.as_str().into());
        Some(TlsPolicy::new(sni, ca, client))
    }
}

impl TimeoutsRaw {
    fn compile(&self, path: &str, out: &mut Diagnostics) -> Timeouts {
        let timeouts =
            [("connect", &self.connect), ("read", &self.read), ("write", &self.write), ("idle", &self.idle)];
        for (key, value) in timeouts {
            check_positive(key, value, path, out);
        }
        Timeouts { connect: *self.connect, read: *self.read, write: *self.write, idle: *self.idle }
    }
}

/// Nothing under an upstream takes 0 for "no limit": a server that may hang for ever hangs its clients for ever.
fn check_positive(key: &str, value: &At<Duration>, path: &str, out: &mut Diagnostics) {
    if value.is_zero() {
        out.error("invalid-value", &value.origin, format!("{path}.{key}"), "must be longer than 0");
    }
}

fn check_at_least_one(key: &str, value: &At<u32>, path: &str, out: &mut Diagnostics) {
    if value.value == 0 {
        out.error("invalid-value", &value.origin, format!("{path}.{key}"), "must be at least 1");
    }
}

impl HealthCheckRaw {
    fn compile(&self, path: &str, out: &mut Diagnostics) -> CheckSettings {
        check_positive("interval", &self.interval, path, out);
        check_positive("timeout", &self.timeout, path, out);
        check_at_least_one("healthy_after", &self.healthy_after, path, out);
        check_at_least_one("unhealthy_after", &self.unhealthy_after, path, out);
        if let Some(asked) = &self.path
            && Probe::http(asked, HeaderValue::from_static("localhost")).is_none()
        {
            let message = format!("\"{}\" is not a path", asked.value);
            out.error("invalid-value", &asked.origin, format!("{path}.path"), message)
                .hint("write it as in a request line: \"/health\"");
        }
        CheckSettings {
            path: self.path.as_ref().map(|path| path.value.clone()),
            interval: *self.interval,
            timeout: *self.timeout,
            thresholds: Thresholds {
                healthy_after: *self.healthy_after,
                unhealthy_after: *self.unhealthy_after,
            },
        }
    }
}

impl RetryRaw {
    fn compile(&self, path: &str, out: &mut Diagnostics) -> RetryPolicy {
        if !(1..=ATTEMPTS_MAX).contains(&self.attempts.value) {
            let message = format!("must be between 1 and {ATTEMPTS_MAX}");
            out.error("invalid-value", &self.attempts.origin, format!("{path}.attempts"), message)
                .hint("`attempts` counts the first one too; 1 turns retries off");
        }
        let mut on = Conditions::NONE;
        for condition in self.on.iter() {
            match condition.value {
                RetryOn::Connect => on.connect = true,
                RetryOn::Reset => on.reset = true,
                RetryOn::Timeout => on.timeout = true,
                RetryOn::Status502 => on.status_502 = true,
                RetryOn::Status503 => on.status_503 = true,
                RetryOn::Status504 => on.status_504 = true,
                RetryOn::Status5xx => on.status_5xx = true,
            }
        }
        RetryPolicy {
            attempts: *self.attempts,
            on,
            non_idempotent: *self.non_idempotent,
            backoff: *self.backoff,
            budget: self.budget.0,
        }
    }
}

impl BreakerRaw {
    fn compile(&self, path: &str, out: &mut Diagnostics) -> BreakerSettings {
        check_positive("open_for", &self.open_for, path, out);
        check_positive("window", &self.window, path, out);
        check_at_least_one("min_requests", &self.min_requests, path, out);
        if let Some(failures) = &self.failures {
            check_at_least_one("failures", failures, path, out);
        }
        let trip = match (&self.failures, &self.error_ratio) {
            (failures, None) => {
                self.check_unused(path, out);
                Trip::Consecutive(failures.as_ref().map_or(FAILURES_DEFAULT, |failures| failures.value))
            }
            (failures, Some(ratio)) => {
                if let Some(failures) = failures {
                    let message = "\"failures\" and \"error_ratio\" exclude each other";
                    out.error("conflicting-keys", &ratio.origin, format!("{path}.error_ratio"), message)
                        .hint("an inherited key is taken away with `failures = false`")
                        .related(&failures.origin, "the other one");
                }
                if ratio.0 <= 0.0 {
                    let message = "would be open from the first request on";
                    out.error("invalid-value", &ratio.origin, format!("{path}.error_ratio"), message);
                }
                Trip::Ratio { ratio: ratio.0, min_requests: *self.min_requests, window: *self.window }
            }
        };
        BreakerSettings { trip, open_for: *self.open_for }
    }

    /// What only `error_ratio` reads does nothing without it.
    fn check_unused(&self, path: &str, out: &mut Diagnostics) {
        let places = [("min_requests", &self.min_requests.origin), ("window", &self.window.origin)];
        for (key, origin) in places.into_iter().filter(|(_, origin)| **origin != Origin::Default) {
            let message = format!("\"{key}\" does nothing without \"error_ratio\"");
            out.error("unused-key", origin, format!("{path}.{key}"), message)
                .hint("add `error_ratio = \"50%\"` in place of `failures`");
        }
    }
}

/// Resolves fallbacks that are upstreams. `raw` are the tables of the same configuration, for places; call it once.
pub fn link_fallbacks(
    upstreams: &IndexMap<String, Arc<Upstream>>,
    raw: &IndexMap<String, At<UpstreamRaw>>,
    out: &mut Diagnostics,
) {
    for (name, table) in raw {
        let Some(at) = &table.fallback else { continue };
        let FallbackRaw::Upstream(link) = &at.value else { continue };
        let path = format!("upstreams.{name}.fallback.upstream");
        let wanted = link.upstream.as_str();
        if !raw.contains_key(wanted) {
            let known = raw.keys().map(String::as_str).filter(|known| known != name);
            out.error(
                "undefined",
                &link.upstream.origin,
                path,
                format!("the upstream \"{wanted}\" is not defined"),
            )
            .suggest(nearest(wanted, known));
        } else if leads_back(name, raw) {
            out.error(
                "cycle",
                &link.upstream.origin,
                path,
                format!("\"{name}\" would be its own fallback in the end"),
            );
        } else if let (Some(from), Some(to)) = (upstreams.get(name), upstreams.get(wanted))
            && let Some(Fallback::Upstream(link)) = from.fallback()
        {
            // Set before only if this was called twice, and then to the same.
            link.upstream.get_or_init(|| to.clone());
        }
    }
}

/// Whether following fallbacks from `start` comes back to it.
fn leads_back(start: &str, raw: &IndexMap<String, At<UpstreamRaw>>) -> bool {
    let next = |name: &str| match &raw.get(name)?.fallback.as_ref()?.value {
        FallbackRaw::Upstream(link) => Some(link.upstream.as_str()),
        FallbackRaw::Answer(_) => None,
    };
    // A path longer than there are upstreams goes in circles, though perhaps not through `start`.
    std::iter::successors(next(start), |name| next(name)).take(raw.len()).any(|name| name == start)
}
