//! `upstream` blocks and the servers of `proxy_pass`, with what a location says about the way to them.
//!
//! nginx says time-outs, TLS and the host for each location, Edgeward for each upstream: locations that differ get
//! upstreams of their own.

use std::time::Duration;

use super::super::parse::Directive;
use super::super::scope::Scope;
use super::super::units;
use super::super::vars::{Env, Part};
use super::Translator;
use crate::base::authority::is_authority;
use crate::base::units::format_duration;
use crate::import::toml;
use crate::upstream::address::Target;
use crate::upstream::tls::is_server_name;

/// An upstream as it will be written.
#[derive(Debug)]
pub(super) struct Written {
    name: String,
    body: String,
    comment: String,
}

/// Where a location's requests go.
pub(super) struct Destination<'t> {
    /// Name of a block, `host:port`, or `unix:path`.
    pub(super) host: &'t str,
    pub(super) tls: bool,
    pub(super) grpc: bool,
    /// The directive that says so.
    pub(super) source: &'t Directive,
}

/// nginx' own time-outs.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Greatest weight that Edgeward takes.
const WEIGHT_MAX: u32 = 65_535;
/// Most attempts that Edgeward makes.
const ATTEMPTS_MAX: usize = 10;

#[derive(Default)]
struct Servers {
    /// Address, weight, backup.
    list: Vec<(String, u32, bool)>,
    balance: Option<String>,
    breaker: Option<String>,
    idle: Option<Duration>,
}

impl<'a> Translator<'a> {
    /// The name of the upstream for a destination as a location has it.
    ///
    /// # Errors
    /// Why there is none: no server is left, or one that is none.
    pub(super) fn upstream(
        &mut self,
        scope: &Scope<'a>,
        to: &Destination<'_>,
        env: &Env,
    ) -> Result<String, String> {
        let mut servers = match self.blocks.get(to.host).copied() {
            Some(block) => self.block(block),
            None => {
                let address = if to.host.starts_with("unix:")
                    || to.host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
                {
                    to.host.to_owned()
                } else {
                    format!("{}:{}", to.host, if to.tls { 443 } else { 80 })
                };
                Servers { list: vec![(address, 1, false)], ..Servers::default() }
            }
        };
        if servers.list.is_empty() {
            return Err("all its servers are down".to_owned());
        }
        if let Some((address, ..)) =
            servers.list.iter().find(|(address, ..)| Target::parse(address, 80).is_err())
        {
            return Err(format!("{address} is no server"));
        }
        // With nothing but backups these are the servers.
        if servers.list.iter().all(|(.., backup)| *backup) {
            servers.list.iter_mut().for_each(|(.., backup)| *backup = false);
        }
        let tls = if to.tls { Some(self.tls(scope, to)?) } else { None };
        let mut body = String::new();
        let written = servers.list.iter().map(|(address, weight, backup)| {
            if *weight == 1 && !backup {
                return toml::text(address);
            }
            let mut entries = vec![("address", toml::text(address))];
            if *weight != 1 {
                entries.push(("weight", weight.to_string()));
            }
            if *backup {
                entries.push(("backup", "true".to_owned()));
            }
            toml::inline(entries)
        });
        body.push_str(&format!("servers = [{}]\n", written.collect::<Vec<_>>().join(", ")));
        if let Some(balance) = &servers.balance {
            body.push_str(&format!("balance = {balance}\n"));
        }
        if to.grpc {
            body.push_str("http2 = true\n");
        }
        if let Some(host) = self.host(scope, to, env) {
            body.push_str(&format!("host = {}\n", toml::text(&host)));
        }
        if let Some(tls) = tls {
            body.push_str(&format!("tls = {tls}\n"));
        }
        body.push_str(&self.timeouts(scope, to.grpc, servers.idle));
        body.push_str(&self.retry(scope, servers.list.len()));
        if let Some(breaker) = &servers.breaker {
            body.push_str(&format!("circuit_breaker = {breaker}\n"));
        }
        if let Some(known) = self.upstreams.get(&body) {
            return Ok(known.name.clone());
        }
        let base: String = to
            .host
            .strip_prefix("unix:")
            .map_or(to.host, |path| path.rsplit('/').next().unwrap_or("unix"))
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' })
            .collect();
        let mut name = base.trim_matches('-').to_owned();
        let mut number = 2;
        while name.is_empty() || self.upstreams.values().any(|known| known.name == name) {
            name = format!("{}-{number}", base.trim_matches('-'));
            number += 1;
        }
        let comment = match self.blocks.get(to.host) {
            Some(block) => format!("{}: upstream {}", self.place(block), to.host),
            None => format!("{}: {}", self.place(to.source), to.source.text()),
        };
        self.upstreams.insert(body.clone(), Written { name: name.clone(), body, comment });
        Ok(name)
    }

    /// The servers of an `upstream` block.
    fn block(&mut self, block: &'a Directive) -> Servers {
        let mut servers = Servers::default();
        let (mut failures, mut open_for) = (None, None);
        for directive in block.inner() {
            match directive.name.as_str() {
                "server" => self.server_entry(directive, &mut servers, &mut failures, &mut open_for),
                "least_conn" => {
                    self.done(directive);
                    servers.balance = Some(toml::text("least_connections"));
                }
                "ip_hash" => {
                    self.done_as(directive, "by the whole address");
                    servers.balance = Some(toml::inline([("hash", toml::text("ip"))]));
                }
                "hash" => match hash_key(directive.arg(0)) {
                    Some(key) => {
                        self.done(directive);
                        servers.balance = Some(toml::inline([("hash", toml::text(&key))]));
                    }
                    None => self.drop(directive, "hashed is the address or a header; servers take turns"),
                },
                "random" if directive.args.iter().any(|arg| arg.starts_with("least_conn")) => {
                    self.nearly(directive, "the server with the fewest connections, of all");
                    servers.balance = Some(toml::text("least_connections"));
                }
                "random" => self.nearly(directive, "servers take turns"),
                "keepalive" => {
                    self.done_as(directive, "unused connections are kept by themselves: limits.upstream_idle")
                }
                "keepalive_timeout" => {
                    self.done(directive);
                    servers.idle = units::duration(directive.arg(0)).filter(|idle| !idle.is_zero());
                }
                "keepalive_requests" | "keepalive_time" | "zone" => {
                    self.done_as(directive, "about nginx' own insides");
                }
                _ => {}
            }
        }
        if let Some(failures) = failures.filter(|failures| *failures > 0) {
            let open_for = open_for.unwrap_or(Duration::from_secs(10));
            servers.breaker = Some(toml::inline([
                ("failures", failures.to_string()),
                ("open_for", toml::text(&format_duration(open_for))),
            ]));
        }
        servers
    }

    fn server_entry(
        &mut self,
        directive: &'a Directive,
        servers: &mut Servers,
        failures: &mut Option<u32>,
        open_for: &mut Option<Duration>,
    ) {
        self.done(directive);
        let address = directive.arg(0);
        let has_port = address.starts_with("unix:")
            || address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { address.to_owned() } else { format!("{address}:80") };
        let (mut weight, mut backup) = (1_u32, false);
        for parameter in directive.args.iter().skip(1) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name {
                "weight" => weight = value.parse().unwrap_or(1),
                "backup" => backup = true,
                "down" => return self.done_as(directive, "left out, as it is down"),
                "max_fails" => {
                    *failures = value.parse().ok();
                    self.nearly(
                        directive,
                        "max_fails failures in a row open the circuit breaker of the server",
                    );
                }
                "fail_timeout" => *open_for = units::duration(value).filter(|time| !time.is_zero()),
                "max_conns" => self.nearly(directive, "max_conns is missing: not available in this version"),
                "slow_start" => {
                    self.nearly(directive, "slow_start is missing: not available in this version")
                }
                "resolve" => {}
                _ => self.nearly(directive, format!("{name} is missing")),
            }
        }
        match servers.list.iter_mut().find(|(known, ..)| *known == address) {
            // The same address twice is a greater share.
            Some((_, share, _)) => *share = share.saturating_add(weight).min(WEIGHT_MAX),
            None => servers.list.push((address, weight.clamp(1, WEIGHT_MAX), backup)),
        }
    }

    /// The `Host` that is sent; `None` for the client's.
    fn host(&mut self, scope: &Scope<'a>, to: &Destination<'_>, env: &Env) -> Option<String> {
        let list = scope.nearest(if to.grpc { "grpc_set_header" } else { "proxy_set_header" });
        let own = if to.host.starts_with("unix:") { "localhost" } else { to.host };
        // A default port is not named.
        let own = own.strip_suffix(if to.tls { ":443" } else { ":80" }).unwrap_or(own);
        let Some(directive) =
            list.into_iter().rev().find(|directive| directive.arg(0).eq_ignore_ascii_case("host"))
        else {
            return named(own, to.tls);
        };
        self.done(directive);
        let mut parts = env.expand(directive.arg(1));
        // `$host:$server_port`: the client's host with its port.
        if let [Part::Var(host), ..] = parts.as_slice()
            && (host == "host" || host == "http_host")
        {
            parts.truncate(1);
        }
        match parts.as_slice() {
            [Part::Var(name)] if name == "proxy_host" => named(own, to.tls),
            [Part::Var(name)] if name == "host" || name == "http_host" => None,
            [Part::Text(text)] if is_authority(text.as_bytes()) => {
                // The client's own, where it is known which that is.
                let clients = env.constant("$host").is_some_and(|host| host == *text)
                    && directive.arg(1).contains("host");
                if clients { None } else { named(text, to.tls) }
            }
            _ => {
                self.nearly(directive, "the client's Host is sent");
                None
            }
        }
    }

    /// The TLS policy; an error if no certificate could be for the servers' name.
    fn tls(&mut self, scope: &Scope<'a>, to: &Destination<'_>) -> Result<String, String> {
        let mut entries = Vec::new();
        let mut sni = None;
        let named = self.blocks.contains_key(to.host);
        let host = to.host.rsplit_once(':').map_or(to.host, |(host, _)| host);
        let is_address =
            host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[') || to.host.starts_with("unix:");
        match scope.one("proxy_ssl_name") {
            Some(directive) if !directive.arg(0).contains('$') => {
                self.done(directive);
                sni = Some(directive.arg(0));
            }
            given => {
                if let Some(directive) = given {
                    self.nearly(directive, "servers prove their own name");
                }
                if named || is_address {
                    sni = Some(host.trim_matches(['[', ']']));
                }
            }
        }
        if !is_server_name(sni.unwrap_or(host)) {
            return Err(format!("no certificate can be for {}: say proxy_ssl_name", sni.unwrap_or(host)));
        }
        entries.extend(sni.map(|sni| ("sni", toml::text(sni))));
        let mut file = |this: &mut Self, name: &str, key: &'static str| {
            if let Some(directive) = scope.one(name) {
                this.done(directive);
                entries.push((key, toml::text(&this.under_directory(directive.arg(0)))));
            }
        };
        file(self, "proxy_ssl_trusted_certificate", "ca");
        if scope.one("proxy_ssl_certificate_key").is_some() {
            file(self, "proxy_ssl_certificate", "client_cert");
            file(self, "proxy_ssl_certificate_key", "client_key");
        }
        if !scope.is_on("proxy_ssl_verify") {
            let how =
                "servers must prove their name, which nginx did not ask: name their authority with tls.ca";
            self.nearly(to.source, how);
        }
        Ok(toml::inline(entries))
    }

    /// Time-outs that differ from what stands in `[upstream_defaults]`.
    fn timeouts(&mut self, scope: &Scope<'a>, grpc: bool, idle: Option<Duration>) -> String {
        let names = if grpc {
            ["grpc_connect_timeout", "grpc_read_timeout", "grpc_send_timeout"]
        } else {
            ["proxy_connect_timeout", "proxy_read_timeout", "proxy_send_timeout"]
        };
        let mut entries = Vec::new();
        for (name, key) in names.into_iter().zip(["connect", "read", "write"]) {
            let time = self.time(scope, name).unwrap_or(TIMEOUT);
            if key == "read" {
                self.longest_read = self.longest_read.max(time);
                self.shortest_read = self.shortest_read.min(time);
            }
            if time != TIMEOUT {
                entries.push((key, toml::text(&format_duration(time))));
            }
        }
        entries.extend(idle.map(|idle| ("idle", toml::text(&format_duration(idle)))));
        if entries.is_empty() { String::new() } else { format!("timeouts = {}\n", toml::inline(entries)) }
    }

    pub(super) fn time(&mut self, scope: &Scope<'a>, name: &str) -> Option<Duration> {
        let directive = scope.one(name)?;
        match units::duration(directive.arg(0)) {
            Some(time) if !time.is_zero() => {
                self.done(directive);
                Some(time)
            }
            _ => {
                self.drop(directive, "is no time that Edgeward takes");
                None
            }
        }
    }

    fn retry(&mut self, scope: &Scope<'a>, servers: usize) -> String {
        let directive = scope.one("proxy_next_upstream");
        let tries = scope.one("proxy_next_upstream_tries");
        let mut on: Vec<&str> = Vec::new();
        let mut non_idempotent = false;
        match directive {
            None if servers > 1 => on.extend(["connect", "reset", "timeout"]),
            None => {}
            Some(directive) => {
                self.done(directive);
                for word in &directive.args {
                    match word.as_str() {
                        "error" => on.extend(["connect", "reset"]),
                        "timeout" => on.push("timeout"),
                        "invalid_header" => on.push("reset"),
                        "http_500" => {
                            self.nearly(directive, "http_500 is any answer from 500 on");
                            on.push("5xx");
                        }
                        "http_502" => on.push("502"),
                        "http_503" => on.push("503"),
                        "http_504" => on.push("504"),
                        "non_idempotent" => non_idempotent = true,
                        "off" => on.clear(),
                        other => self.nearly(directive, format!("{other} is not tried again")),
                    }
                }
                on.dedup();
            }
        }
        let asked =
            tries.and_then(|directive| directive.arg(0).parse::<usize>().ok()).filter(|tries| *tries > 0);
        if let Some(directive) = tries {
            self.done(directive);
        }
        if directive.is_some_and(|directive| directive.arg(0) == "off") {
            return "retry = { attempts = 1 }\n".to_owned();
        }
        // With one server, nothing but a broken connection is tried again: the default that is written once.
        if servers == 1 && directive.is_none() {
            return String::new();
        }
        let attempts = asked.unwrap_or(servers).clamp(1, ATTEMPTS_MAX);
        let mut entries = vec![("attempts", attempts.to_string()), ("on", toml::list(on))];
        if non_idempotent {
            entries.push(("non_idempotent", "true".to_owned()));
        }
        format!("retry = {}\n", toml::inline(entries))
    }

    pub(super) fn render_upstreams(&self) -> String {
        if self.upstreams.is_empty() {
            return String::new();
        }
        let mut out = vec![
            "# nginx' own defaults.\n[upstream_defaults]\ntimeouts = { connect = \"60s\", read = \"60s\", write = \"60s\" }\nretry = { on = [\"connect\", \"reset\"] }\n"
                .to_owned(),
        ];
        for upstream in self.upstreams.values() {
            out.push(format!(
                "{}[upstreams.{}]\n{}",
                toml::comment(&upstream.comment),
                toml::key(&upstream.name),
                upstream.body
            ));
        }
        out.join("\n")
    }
}

/// A `Host` by name. A name that is a word of Edgeward's is told from it by its port; one that is none is not sent.
fn named(host: &str, tls: bool) -> Option<String> {
    match host {
        "client" | "server" => Some(format!("{host}:{}", if tls { 443 } else { 80 })),
        host => is_authority(host.as_bytes()).then(|| host.to_owned()),
    }
}

/// What `hash` hashes, if Edgeward can.
fn hash_key(text: &str) -> Option<String> {
    match text {
        "$remote_addr" | "$binary_remote_addr" => Some("ip".to_owned()),
        other => {
            let name = other.strip_prefix("$http_")?.replace('_', "-");
            http::HeaderName::from_bytes(name.as_bytes()).is_ok().then(|| format!("header:{name}"))
        }
    }
}
