//! `listen`: where connections are accepted, with the certificates of all servers there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::parse::Directive;
use super::Translator;
use super::server::Server;
use crate::import::toml;

/// An address of nginx' configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(String),
}

/// One place where connections are accepted, with what all `listen` of it say together.
#[derive(Debug, Clone)]
pub(super) struct Listener<'a> {
    pub(super) name: String,
    pub(super) address: Address,
    pub(super) tls: bool,
    http2: bool,
    proxy_protocol: bool,
    /// Servers by their index, in the order of the file.
    pub(super) servers: Vec<usize>,
    explicit_default: Option<usize>,
    source: &'a Directive,
    /// Files of certificate and key.
    certificates: Vec<(String, String)>,
    client_auth: Option<(String, &'static str)>,
    /// Whether it can be written.
    pub(super) usable: bool,
}

impl Listener<'_> {
    /// Whether nobody gets in without a certificate.
    pub(super) fn proves_clients(&self) -> bool {
        matches!(self.client_auth, Some((_, "required")))
    }

    /// Whether clients are asked for a certificate.
    pub(super) fn asks_clients(&self) -> bool {
        self.client_auth.is_some()
    }

    /// The server that requests get for hosts that no server names.
    pub(super) fn default_server(&self) -> Option<usize> {
        self.explicit_default.or_else(|| self.servers.first().copied())
    }
}

/// Reads the first argument of `listen`.
fn address(text: &str) -> Option<Address> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Some(Address::Unix(path.to_owned()));
    }
    let any = |port| Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port));
    if let Ok(port) = text.parse() {
        return Some(any(port));
    }
    if let Ok(address) = text.parse() {
        return Some(Address::Tcp(address));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(Address::Tcp(SocketAddr::new(ip, 80)));
    }
    if let Some(ip) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Some(Address::Tcp(SocketAddr::new(IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?), 80)));
    }
    let (host, port) = text.split_once(':').unwrap_or((text, "80"));
    let port = port.parse().ok()?;
    match host {
        "*" => Some(any(port)),
        "localhost" => Some(Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))),
        _ => None,
    }
}

impl<'a> Translator<'a> {
    /// Notes where the servers listen.
    pub(super) fn gather_listeners(&mut self, servers: &mut [Server<'a>]) {
        for (index, server) in servers.iter_mut().enumerate() {
            let block = server.block;
            let mut any = false;
            for directive in server.scope.own_named("listen") {
                any = true;
                self.listen(index, directive, server.scope.is_on("ssl"), server.scope.is_on("http2"));
            }
            if !any {
                // Without `listen` it is port 80, as for root.
                let address = Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80));
                self.join(
                    index,
                    block,
                    address,
                    Flags { tls: server.scope.is_on("ssl"), ..Flags::default() },
                );
            }
        }
        self.part_overlapping();
        for at in 0..self.listeners.len() {
            self.gather_certificates(at, servers);
        }
        self.name_listeners();
        for (at, listener) in self.listeners.iter().enumerate().filter(|(_, listener)| listener.usable) {
            for index in &listener.servers {
                if let Some(server) = servers.get_mut(*index) {
                    server.listeners.push(at);
                }
            }
        }
    }

    fn listen(&mut self, server: usize, directive: &'a Directive, ssl_on: bool, http2_on: bool) {
        let Some(address) = address(directive.arg(0)) else {
            return self.drop(directive, "a listener is bound to an IP address, not to a name");
        };
        self.done(directive);
        let mut flags = Flags { tls: ssl_on, http2: http2_on, ..Flags::default() };
        for parameter in directive.args.iter().skip(1) {
            match parameter.as_str() {
                "ssl" => flags.tls = true,
                "http2" | "spdy" => flags.http2 = true,
                "default_server" | "default" => flags.default = true,
                "proxy_protocol" => flags.proxy_protocol = true,
                "quic" => return self.drop(directive, "HTTP/3 is not available in this version"),
                "ipv6only=off" => {
                    self.nearly(directive, "bound for IPv6 only; IPv4 needs a listener of its own")
                }
                _ => {}
            }
        }
        self.join(server, directive, address, flags);
    }

    fn join(&mut self, server: usize, source: &'a Directive, address: Address, flags: Flags) {
        let at = self.listeners.iter().position(|listener| listener.address == address);
        let at = at.unwrap_or_else(|| {
            self.listeners.push(Listener {
                name: String::new(),
                address,
                tls: false,
                http2: false,
                proxy_protocol: false,
                servers: Vec::new(),
                explicit_default: None,
                source,
                certificates: Vec::new(),
                client_auth: None,
                usable: true,
            });
            self.listeners.len() - 1
        });
        let available = !self.trusted.is_empty();
        if flags.proxy_protocol && !available {
            self.drop(
                source,
                "PROXY headers are taken from set_real_ip_from, and there is none: not listened there",
            );
        }
        let Some(listener) = self.listeners.get_mut(at) else { return };
        listener.tls |= flags.tls;
        listener.http2 |= flags.http2;
        listener.proxy_protocol |= flags.proxy_protocol;
        // Without it the first line of every connection would be taken for a request.
        listener.usable &= available || !flags.proxy_protocol;
        if flags.default {
            listener.explicit_default = Some(server);
        }
        if !listener.servers.contains(&server) {
            listener.servers.push(server);
        }
    }

    /// Edgeward does not bind an address beside all addresses of the same port. What was meant for the one address must
    /// not be served on all, so it is left out.
    fn part_overlapping(&mut self) {
        let all: Vec<SocketAddr> = self
            .listeners
            .iter()
            .filter_map(|listener| match listener.address {
                Address::Tcp(address) if address.ip().is_unspecified() => Some(address),
                _ => None,
            })
            .collect();
        let mut left_out = Vec::new();
        for listener in &mut self.listeners {
            if let Address::Tcp(address) = listener.address
                && !address.ip().is_unspecified()
                && all
                    .iter()
                    .any(|other| other.port() == address.port() && other.is_ipv4() == address.is_ipv4())
            {
                listener.usable = false;
                left_out.push(listener.source);
            }
        }
        for source in left_out {
            self.drop(source, "the same port is bound for all addresses; what is meant for one is left out");
        }
    }

    fn gather_certificates(&mut self, at: usize, servers: &[Server<'a>]) {
        let Some(listener) = self.listeners.get(at).filter(|listener| listener.tls).cloned() else { return };
        // The default server's first: it is shown to clients that name no host.
        let mut order: Vec<usize> = listener.default_server().into_iter().collect();
        order.extend(listener.servers.iter().filter(|index| Some(**index) != listener.default_server()));
        let mut certificates: Vec<(String, String)> = Vec::new();
        let mut auth: Vec<(usize, Option<(String, &'static str)>)> = Vec::new();
        for index in order {
            let Some(server) = servers.get(index) else { continue };
            let scope = &server.scope;
            let (certs, keys) = (scope.nearest("ssl_certificate"), scope.nearest("ssl_certificate_key"));
            for (cert, key) in certs.into_iter().zip(keys) {
                let odd = |text: &str| {
                    text.contains('$') || text.starts_with("data:") || text.starts_with("engine:")
                };
                if odd(cert.arg(0)) || odd(key.arg(0)) {
                    self.drop(cert, "certificates are files with fixed names");
                    continue;
                }
                let pair = (self.under_directory(cert.arg(0)), self.under_directory(key.arg(0)));
                self.done(cert);
                self.done(key);
                if !certificates.contains(&pair) {
                    certificates.push(pair);
                }
            }
            if let Some(reject) =
                scope.one("ssl_reject_handshake").filter(|directive| directive.arg(0) == "on")
            {
                self.nearly(
                    reject,
                    "other names are shown the first certificate, and answered by the default server",
                );
            }
            let ca = scope.one("ssl_client_certificate").or_else(|| scope.one("ssl_trusted_certificate"));
            let mode = match scope.value("ssl_verify_client") {
                Some("on") => Some("required"),
                Some("optional") => Some("optional"),
                Some("optional_no_ca") => {
                    if let Some(directive) = scope.one("ssl_verify_client") {
                        self.drop(directive, "certificates of unknown authorities are not taken");
                    }
                    None
                }
                _ => None,
            };
            let ca = ca.map(|directive| {
                if mode.is_some() {
                    self.done(directive);
                }
                self.under_directory(directive.arg(0))
            });
            if let (None, Some(_), Some(directive)) = (&ca, mode, scope.one("ssl_verify_client")) {
                let why = "no authority is named for certificates of clients";
                self.drop(directive, format!("CLOSED, answers 403: {why}"));
                self.closed.insert(index, why.to_owned());
            }
            auth.push((index, ca.zip(mode)));
        }
        self.client_auth(at, servers, auth);
        let Some(listener) = self.listeners.get_mut(at) else { return };
        listener.certificates = certificates;
        if listener.certificates.is_empty() {
            // Written without certificates it would be a listener without TLS.
            listener.usable = false;
            let source = listener.source;
            self.drop(source, "no certificate can be named for it: not listened there");
        }
    }

    /// A listener has one rule for certificates of clients. Where servers differ, all of it holds for all.
    fn client_auth(
        &mut self,
        at: usize,
        servers: &[Server<'a>],
        auth: Vec<(usize, Option<(String, &'static str)>)>,
    ) {
        let Some((_, Some(first))) = auth.iter().find(|(_, asked)| asked.is_some()).cloned() else { return };
        let directives: Vec<&'a Directive> = auth
            .iter()
            .filter(|(_, asked)| asked.is_some())
            .filter_map(|(index, _)| servers.get(*index)?.scope.one("ssl_verify_client"))
            .collect();
        let differ = auth.iter().any(|(_, asked)| asked.as_ref() != Some(&first));
        let required =
            auth.iter().any(|(_, asked)| asked.as_ref().is_some_and(|(_, mode)| *mode == "required"));
        let Some(listener) = self.listeners.get_mut(at) else { return };
        // Routes can ask for the certificate one by one.
        let by_route = differ;
        let mode = if required && !by_route { "required" } else { "optional" };
        let ca = first.0.clone();
        listener.client_auth = Some((first.0, mode));
        for (index, asked) in &auth {
            match asked {
                // Whoever another authority vouches for is nobody here.
                Some((other, _)) if *other != ca => {
                    let why = "a listener has one authority for certificates of clients";
                    self.closed.insert(*index, why.to_owned());
                }
                Some((_, "required")) if by_route => self.proving.push(*index),
                _ => {}
            }
        }
        for directive in directives {
            if auth.iter().any(|(_, asked)| asked.as_ref().is_some_and(|(other, _)| *other != ca)) {
                self.drop(directive, "CLOSED, answers 403, where the authority differs: a listener has one");
            } else if by_route {
                self.nearly(directive, "asked for by the routes of the server: 401 without one");
            } else {
                self.done(directive);
            }
        }
    }

    fn name_listeners(&mut self) {
        let mut taken: Vec<String> = Vec::new();
        for listener in &mut self.listeners {
            let scheme = if listener.tls { "https" } else { "http" };
            let base = match &listener.address {
                Address::Tcp(address) if address.is_ipv6() => format!("{scheme}-{}-v6", address.port()),
                Address::Tcp(address) => format!("{scheme}-{}", address.port()),
                Address::Unix(_) => format!("{scheme}-unix"),
            };
            let mut name = base.clone();
            let mut number = 2;
            while taken.contains(&name) {
                name = format!("{base}-{number}");
                number += 1;
            }
            taken.push(name.clone());
            listener.name = name;
        }
    }

    pub(super) fn render_listeners(&self) -> String {
        let mut out = Vec::new();
        for listener in &self.listeners {
            let place = self.place(listener.source);
            if !listener.usable {
                out.push(toml::comment(&format!(
                    "{place}: {} is left out; the table says why",
                    listener.source.text()
                )));
                continue;
            }
            let address = match &listener.address {
                Address::Tcp(address) => address.to_string(),
                Address::Unix(path) => format!("unix:{path}"),
            };
            let mut text = format!(
                "[[listeners]]                        {}name = {}\naddress = {}\n",
                toml::comment(&place),
                toml::text(&listener.name),
                toml::text(&address)
            );
            if !listener.http2 {
                text.push_str("http2 = false\n");
            }
            if listener.proxy_protocol {
                text.push_str("proxy_protocol = true\n");
            }
            if listener.tls {
                for (cert, key) in &listener.certificates {
                    text.push_str(&format!(
                        "[[listeners.certificates]]\ncert = {}\nkey = {}\n",
                        toml::text(cert),
                        toml::text(key)
                    ));
                }
            }
            if let Some((ca, mode)) = &listener.client_auth {
                text.push_str(&format!(
                    "[listeners.client_auth]\nca = {}\nmode = {}\n",
                    toml::text(ca),
                    toml::text(mode)
                ));
            }
            out.push(text);
        }
        out.join("\n")
    }
}

#[derive(Default)]
struct Flags {
    tls: bool,
    http2: bool,
    default: bool,
    proxy_protocol: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_nginx_own() {
        for (text, expected) in [
            ("80", Some("0.0.0.0:80")),
            ("*:8080", Some("0.0.0.0:8080")),
            ("127.0.0.1", Some("127.0.0.1:80")),
            ("127.0.0.1:81", Some("127.0.0.1:81")),
            ("[::]:80", Some("[::]:80")),
            ("[::1]", Some("[::1]:80")),
            ("localhost:3000", Some("127.0.0.1:3000")),
            ("example.com:80", None),
            ("70000", None),
        ] {
            let read = address(text).map(|address| match address {
                Address::Tcp(address) => address.to_string(),
                Address::Unix(path) => path,
            });
            assert_eq!(read.as_deref(), expected, "{text}");
        }
        assert_eq!(address("unix:/run/x.sock"), Some(Address::Unix("/run/x.sock".to_owned())));
    }
}
