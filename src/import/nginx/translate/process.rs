//! What is said once: the process, its bounds, its log, who is believed.

use std::time::Duration;

use super::super::parse::Directive;
use super::super::scope::Scope;
use super::super::units;
use super::Translator;
use super::route::Route;
use crate::base::units::{format_duration, format_size};
use crate::import::toml;
use crate::telemetry::access::{Escape, Format};

/// Edgeward's own bound for the silence of a client in a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// Edgeward's own bound for an answer's first byte.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time that Edgeward takes.
const TIME_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);
/// Most that a request head may take in Edgeward.
const HEADER_BYTES_MAX: u64 = 1 << 20;

impl<'a> Translator<'a> {
    /// `[server]`, `[limits]` and `[log]`.
    pub(super) fn process(&mut self, main: &Scope<'a>, http: &Scope<'a>) -> String {
        let mut out = toml::comment(&format!(
            "Made by `edgeward import nginx` from {}. What could not be said stands as a comment at its place.",
            (self.names)(0)
        ));
        let server = self.server_table(main, http);
        let limits = self.limits(main, http);
        let log = self.log(main, http);
        for table in [server, limits, log] {
            if !table.is_empty() {
                out.push('\n');
                out.push_str(&table);
            }
        }
        let zones = self.rate_limits(http);
        if !zones.is_empty() {
            out.push('\n');
            out.push_str(&zones);
        }
        out
    }

    fn server_table(&mut self, main: &Scope<'a>, http: &Scope<'a>) -> String {
        let mut lines = String::new();
        let mut line = |key: &str, value: String| lines.push_str(&format!("{key} = {value}\n"));
        if let Some(directive) = main.one("worker_processes") {
            match directive.arg(0) {
                "auto" => self.done(directive),
                number => match number.parse::<u16>() {
                    Ok(number) => {
                        self.done_as(directive, "threads of one process");
                        line("threads", number.to_string());
                    }
                    Err(_) => self.drop(directive, "is no number"),
                },
            }
        }
        if let Some(directive) = main.one("pid") {
            self.done(directive);
            line("pid_file", toml::text(&self.under_prefix(directive.arg(0))));
        }
        line("control_socket", toml::text(&self.control_socket(main)));
        if let Some(directive) = main.one("user").filter(|directive| !directive.arg(0).is_empty()) {
            let user = directive.arg(0);
            self.nearly(directive, format!("keys, logs and the pid directory must be usable by {user}"));
            line("user", toml::text(user));
            if let Some(group) = directive.args.get(1) {
                line("group", toml::text(group));
            }
        }
        if let Some(directive) = main.one("worker_shutdown_timeout") {
            match units::duration(directive.arg(0)) {
                Some(time) => {
                    self.done(directive);
                    line("grace_period", toml::text(&format_duration(time)));
                }
                None => self.drop(directive, "is no time"),
            }
        }
        if !self.trusted.is_empty() {
            line("trusted_proxies", toml::list(&self.trusted));
        }
        for name in ["real_ip_header", "real_ip_recursive"] {
            if let Some(directive) = http.one(name) {
                match (name, directive.arg(0).to_ascii_lowercase().as_str()) {
                    ("real_ip_recursive", "on")
                    | ("real_ip_header", "x-forwarded-for" | "proxy_protocol") => self.done(directive),
                    ("real_ip_header", _) => {
                        self.nearly(directive, "it is not read: a client's address is its connection's");
                    }
                    _ => self.nearly(directive, "all trusted addresses of the list are skipped"),
                }
            }
        }
        if lines.is_empty() { lines } else { format!("[server]\n{lines}") }
    }

    /// Where `edgeward reload` reaches the process: beside the pid file, if there is one.
    fn control_socket(&self, main: &Scope<'a>) -> String {
        let Some(pid) = main.value("pid") else { return "/run/edgeward/control.sock".to_owned() };
        let pid = self.under_prefix(pid);
        let stem = pid.strip_suffix(".pid").unwrap_or(&pid);
        format!("{stem}-control.sock")
    }

    /// Who is believed in a block about the addresses of clients, and by which header.
    fn believed_in(scope: &Scope<'a>) -> Believed {
        let is_network =
            |text: &&str| text.parse::<ipnet::IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok();
        let mut networks: Vec<String> = Vec::new();
        for network in
            scope.nearest("set_real_ip_from").iter().map(|directive| directive.arg(0)).filter(is_network)
        {
            if !networks.iter().any(|known| known == network) {
                networks.push(network.to_owned());
            }
        }
        let header = scope.value("real_ip_header").unwrap_or("X-Real-IP").to_ascii_lowercase();
        Believed { networks, header }
    }

    /// Whether the addresses of clients in a block are others than Edgeward will find.
    pub(super) fn takes_other_addresses(&self, scope: &Scope<'a>) -> bool {
        let own = Self::believed_in(scope);
        !own.networks.is_empty() && (own != self.believed || self.trusted.is_empty())
    }

    /// The networks of `set_real_ip_from`: what all servers say, or what is said around them.
    pub(super) fn trusted_networks(&mut self, http: &Scope<'a>) -> Vec<String> {
        let mut servers =
            http.own_named("server").map(|server| Self::believed_in(&http.within(server.inner())));
        let first = servers.next();
        self.believed = match first {
            Some(first) if servers.all(|other| other == first) => first,
            _ => Self::believed_in(http),
        };
        let readable = matches!(self.believed.header.as_str(), "x-forwarded-for" | "proxy_protocol");
        let trusted = if readable { self.believed.networks.clone() } else { Vec::new() };
        let mut all: Vec<&'a Directive> = Vec::new();
        collect(http.own(), "set_real_ip_from", &mut all);
        for directive in all {
            let network = directive.arg(0);
            if network == "unix:" {
                self.nearly(directive, "clients of unix sockets have no address");
            } else if trusted.iter().any(|known| known == network) {
                self.done(directive);
            } else if !self.believed.networks.iter().any(|known| known == network) {
                self.drop(directive, "who is believed is said once: by all servers, or around them");
            } else {
                self.nearly(
                    directive,
                    format!(
                        "{} is not read, so nobody is believed; X-Forwarded-For is",
                        self.believed.header
                    ),
                );
            }
        }
        trusted
    }

    fn limits(&mut self, main: &Scope<'a>, http: &Scope<'a>) -> String {
        let mut lines = format!("body_bytes = {}\n", toml::text(&format_size(self.body_bytes)));
        let mut line = |key: &str, value: String| lines.push_str(&format!("{key} = {value}\n"));
        let events = main.own_named("events").next().map(Directive::inner).unwrap_or_default();
        if let Some(directive) = events.iter().find(|directive| directive.name == "worker_connections") {
            let workers = main.value("worker_processes").unwrap_or("1");
            match (directive.arg(0).parse::<u64>(), workers.parse::<u64>()) {
                (Ok(connections), Ok(workers)) if connections > 0 => {
                    self.nearly(directive, "for the whole process, clients alone");
                    line("connections", connections.saturating_mul(workers.max(1)).to_string());
                }
                // One worker for each core that this machine has, not the one it will run on.
                (Ok(_), Err(_)) => {
                    self.nearly(directive, "limits.connections, for the whole process, is Edgeward's own")
                }
                _ => self.drop(directive, "is no number"),
            }
        }
        if let Some(time) = self.time(http, "client_header_timeout") {
            line("header_timeout", toml::text(&format_duration(time)));
        }
        if let Some(directive) = http.one("keepalive_timeout") {
            match units::duration(directive.arg(0)) {
                Some(time) if !time.is_zero() => {
                    self.done(directive);
                    line("idle_timeout", toml::text(&format_duration(time)));
                }
                _ => {
                    self.nearly(directive, "connections are kept for a second");
                    line("idle_timeout", toml::text("1s"));
                }
            }
        }
        // A client must be found silent before its server is.
        let bound = self.shortest_read.saturating_sub(Duration::from_millis(1));
        let asked = self.time(http, "client_body_timeout");
        let body = asked.unwrap_or(BODY_TIMEOUT);
        if body > bound {
            let near = self.shortest_read.mul_f32(0.9).max(Duration::from_millis(1));
            let near = Duration::from_millis(u64::try_from(near.as_millis()).unwrap_or(1).max(1));
            if let Some(directive) = http.one("client_body_timeout") {
                self.nearly(directive, "shorter than any read time-out of servers");
            }
            line("body_timeout", toml::text(&format_duration(near)));
        } else if body != BODY_TIMEOUT {
            line("body_timeout", toml::text(&format_duration(body)));
        }
        if self.longest_read > REQUEST_TIMEOUT {
            let time = (self.longest_read + Duration::from_secs(10)).min(TIME_MAX);
            line("request_timeout", toml::text(&format_duration(time)));
        }
        if let Some(directive) = http.one("large_client_header_buffers") {
            let count = directive.arg(0).parse::<u64>().unwrap_or(4);
            match units::size(directive.arg(1)) {
                Some(size) => {
                    self.nearly(directive, "for the whole head");
                    let bytes = size.saturating_mul(count).clamp(1 << 10, HEADER_BYTES_MAX);
                    line("header_bytes", toml::text(&format_size(bytes)));
                }
                None => self.drop(directive, "is no size"),
            }
        }
        if let Some((key, value)) = self.connections_per_address(http) {
            line(key, value);
        }
        format!("[limits]\n{lines}")
    }

    /// `limit_conn` by address.
    fn connections_per_address(&mut self, http: &Scope<'a>) -> Option<(&'static str, String)> {
        let by_address: Vec<&str> = http
            .own_named("limit_conn_zone")
            .filter(|zone| matches!(zone.arg(0), "$binary_remote_addr" | "$remote_addr"))
            .filter_map(|zone| zone.arg(1).strip_prefix("zone=")?.split(':').next())
            .collect();
        let mut found = None;
        let mut all: Vec<&'a Directive> = Vec::new();
        collect(http.own(), "limit_conn", &mut all);
        for directive in all {
            let count = directive.arg(1).parse::<u32>().ok().filter(|count| *count > 0);
            let own = http.own_named("limit_conn").any(|own| own.id == directive.id);
            match count {
                Some(count) if own && by_address.contains(&directive.arg(0)) => {
                    self.nearly(
                        directive,
                        "connections, not requests under way; one too many is closed, not answered",
                    );
                    found = Some(("connections_per_address", count.to_string()));
                }
                _ => self.drop(
                    directive,
                    "connections are counted by address and for everything: limits.connections_per_address",
                ),
            }
        }
        found
    }

    /// `limit_req` of a route: what it will be.
    pub(super) fn limit_req(&mut self, directive: &'a Directive, scope: &Scope<'a>, route: &mut Route<'a>) {
        let zone = directive.args.iter().find_map(|arg| arg.strip_prefix("zone=")).unwrap_or_default();
        let burst = directive.args.iter().find_map(|arg| arg.strip_prefix("burst=")).unwrap_or("0");
        let rate = scope
            .all()
            .filter(|zone| zone.name == "limit_req_zone")
            .find(|known| known.args.iter().any(|arg| arg.split(':').next() == Some(&format!("zone={zone}"))))
            .and_then(|known| known.args.iter().find_map(|arg| arg.strip_prefix("rate=")))
            .unwrap_or("?");
        self.drop(directive, "rate limits are not available in this version");
        route.comments.push(format!(
            "rate_limits = [{}] when they are available: {rate}, burst {burst}",
            toml::text(zone)
        ));
    }

    /// The zones of `limit_req`, as they will be written.
    fn rate_limits(&mut self, http: &Scope<'a>) -> String {
        let mut out = String::new();
        for directive in http.own_named("limit_req_zone") {
            self.drop(directive, "rate limits are not available in this version");
            let mut name = "limit";
            let mut rate = String::new();
            for arg in &directive.args {
                if let Some(zone) = arg.strip_prefix("zone=") {
                    name = zone.split(':').next().unwrap_or(zone);
                } else if let Some(written) = arg.strip_prefix("rate=") {
                    rate = written.replace("r/s", "/s").replace("r/m", "/min");
                }
            }
            let key = match directive.arg(0) {
                "$binary_remote_addr" | "$remote_addr" => "ip".to_owned(),
                "$server_name" | "$host" => "route".to_owned(),
                other => match other.strip_prefix("$http_") {
                    Some(name) => format!("header:{}", name.replace('_', "-")),
                    None => continue,
                },
            };
            out.push_str(&format!(
                "# Rate limits are not available in this version. It will be:\n#[rate_limits.{}]\n#key = {}\n#limits = [{}]\n",
                toml::key(name),
                toml::text(&key),
                toml::text(&rate)
            ));
        }
        out
    }

    /// `[log]`: one access log, one level.
    fn log(&mut self, main: &Scope<'a>, http: &Scope<'a>) -> String {
        let mut out = String::new();
        if let Some(directive) = main.one("error_log") {
            let level = directive.args.get(1).map_or("error", String::as_str);
            let level = match level {
                "debug" => "debug",
                "info" | "notice" => "info",
                "warn" => "warn",
                _ => "error",
            };
            self.nearly(directive, format!("level {level}; what the process says goes to standard error"));
            out.push_str(&format!("[log]\nlevel = {}\n", toml::text(level)));
        }
        let mut all: Vec<&'a Directive> = Vec::new();
        collect(http.own(), "access_log", &mut all);
        let on = |directive: &&&'a Directive| directive.arg(0) != "off";
        let own = http.own_named("access_log").find(|directive| directive.arg(0) != "off");
        let chosen = own.or_else(|| all.iter().find(on).copied());
        let mut table = String::new();
        match chosen {
            Some(directive) => {
                for other in all.iter().filter(on).filter(|other| other.id != directive.id) {
                    self.nearly(other, format!("there is one access log: {}", directive.arg(0)));
                }
                if let Some(output) = self.log_output(directive) {
                    table.push_str(&format!("output = {}\n", toml::text(&output)));
                }
                if let Some((format, escape)) = self.log_format(http, directive) {
                    table.push_str(&format!("format = {}\n", toml::text(&format)));
                    if escape != "default" {
                        table.push_str(&format!("escape = {}\n", toml::text(escape)));
                    }
                }
            }
            // nginx' own default is a file in its directory of logs.
            None if http.own_named("access_log").next().is_some() => {
                table.push_str("output = \"off\"\n");
            }
            None => {}
        }
        for directive in all.iter().filter(|directive| directive.arg(0) == "off") {
            self.done(directive);
        }
        if !table.is_empty() {
            out.push_str(&format!("[log.access]\n{table}"));
        }
        out
    }

    fn log_output(&mut self, directive: &'a Directive) -> Option<String> {
        let to = directive.arg(0);
        self.done(directive);
        if directive
            .args
            .iter()
            .skip(2)
            .any(|arg| ["buffer", "gzip", "flush", "if"].iter().any(|name| arg.starts_with(name)))
        {
            self.nearly(directive, "every request is written, by a thread of its own, as plain text");
        }
        match to {
            "/dev/stdout" | "/proc/self/fd/1" => Some("stdout".to_owned()),
            "/dev/stderr" | "/proc/self/fd/2" | "stderr" => Some("stderr".to_owned()),
            _ if to.starts_with("syslog:") || to.contains('$') => {
                self.nearly(directive, "written to standard output: a log is a file or a stream");
                None
            }
            path => Some(self.under_prefix(path)),
        }
    }

    /// The text of the format and how it is escaped; `None` for nginx' own.
    fn log_format(&mut self, http: &Scope<'a>, directive: &'a Directive) -> Option<(String, &'static str)> {
        let name = directive.args.get(1).filter(|name| !name.contains('='))?;
        let formats: Vec<&'a Directive> = http.own_named("log_format").collect();
        for format in &formats {
            if format.arg(0) != name {
                self.done_as(format, "nothing is written in it");
            }
        }
        let Some(format) = formats.into_iter().find(|format| format.arg(0) == name) else {
            if name != "combined" {
                self.nearly(directive, "combined: its format is not there");
            }
            return None;
        };
        let mut words = format.args.get(1..).unwrap_or_default();
        let mut escape = ("default", Escape::Default);
        if let Some(mode) = words.first().and_then(|word| word.strip_prefix("escape=")) {
            escape = match mode {
                "json" => ("json", Escape::Json),
                "none" => ("none", Escape::None),
                _ => escape,
            };
            words = words.get(1..).unwrap_or_default();
        }
        let text = words.concat();
        match Format::compile(&text, escape.1) {
            Ok(_) => {
                self.done(format);
                Some((text, escape.0))
            }
            Err(errors) => {
                let why = errors.first().map(|error| error.message.clone()).unwrap_or_default();
                self.drop(format, format!("combined is written: the format {why}"));
                None
            }
        }
    }

    /// `access_log off` of a route.
    pub(super) fn route_log(&mut self, scope: &Scope<'a>, route: &mut Route<'a>) {
        let logs = scope.nearest("access_log");
        if !logs.is_empty() && logs.iter().all(|directive| directive.arg(0) == "off") {
            route.key("access_log", "false".to_owned());
        }
    }
}

/// Who is believed about the addresses of clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Believed {
    networks: Vec<String>,
    /// In lower case.
    header: String,
}

fn collect<'a>(block: &'a [Directive], name: &str, found: &mut Vec<&'a Directive>) {
    for directive in block {
        if directive.name == name {
            found.push(directive);
        }
        collect(directive.inner(), name, found);
    }
}
