//! The process-level tables: `[server]`, `[limits]`, `[[listeners]]`, `[admin]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;

use super::compile::check_name;
use super::pairs;
use super::settings::{AdminSettings, BindAddress, Limits, ServerSettings};
use crate::base::decode::{ByteRate, ConfigPath, Decoder, Node, Secret, Shape, Size, Value, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::{At, Origin};
use crate::policy::trusted::TrustedProxies;
use crate::{enum_value, keys};

keys! {
    /// The process.
    pub struct ServerRaw {
        /// Threads that serve connections; 0 = one per core.
        threads: upgrade usize = 0,
        /// Where the process id is written; absent = nowhere.
        pid_file: upgrade optional ConfigPath,
        /// Where commands such as `edgeward quit` reach the process: a socket of mode 0600; absent = nowhere.
        control_socket: upgrade optional ConfigPath,
        /// Dropped to after the listeners are bound.
        user: upgrade optional String,
        /// Dropped to after the listeners are bound; absent = the user's own.
        group: upgrade optional String,
        /// How long a leaving process serves what it has.
        grace_period: Duration = Duration::from_secs(30),
        /// After TERM or QUIT: how long connections are still accepted while `/readyz` says 503, for load balancers in front.
        drain_delay: Duration = Duration::ZERO,
        /// Whether the configuration is reloaded when one of its files, or of those it names, changes.
        watch: bool = false,
        /// Networks whose `Forwarded`, `X-Forwarded-*` and PROXY headers are believed; empty = nobody's.
        trusted_proxies: Vec<At<IpNet>> = Vec::new(),
    }
}

keys! {
    /// What bounds every client.
    pub struct LimitsRaw {
        /// Open connections in all.
        connections: usize = 20_000,
        /// Open connections of one address, IPv6 by /56; 0 = no limit. Trusted proxies have none.
        connections_per_address: usize = 0,
        /// Size of a request head.
        header_bytes: Size = Size(32 << 10),
        /// Time for a whole request head, however it drips.
        header_timeout: Duration = Duration::from_secs(10),
        /// How long a connection is kept that asks for nothing.
        idle_timeout: Duration = Duration::from_secs(75),
        /// Size of a request body, where a route does not say otherwise.
        body_bytes: Size = Size(10 << 20),
        /// Longest silence of a client in a body (408); must be below every upstream's `read`.
        body_timeout: Duration = Duration::from_secs(20),
        /// Slower bodies are ended, in both directions, streams excepted; 0 = no limit.
        min_body_rate: ByteRate = ByteRate(1 << 10),
        /// First byte of the request to first byte of the answer; after it bodies must keep moving.
        request_timeout: Duration = Duration::from_secs(60),
        /// Silence that ends a stream: WebSocket, gRPC, event stream, or a route with `stream = true`.
        stream_idle: Duration = Duration::from_secs(3600),
        /// Idle upstream connections kept, whole process; as many again over TLS and HTTP/2.
        upstream_idle: upgrade usize = 1024,
        /// Resident memory of the process above which new requests are refused (503) and idle connections closed; absent =
        /// nine tenths of what its cgroup may have, if that has a limit; 0 = no limit.
        memory: optional Size,
    }
}

keys! {
    /// One place where connections are accepted.
    pub struct ListenerRaw {
        /// Its name, for routes, logs and metrics.
        name: upgrade required String,
        /// Where it is bound: an address with a port, or a unix socket.
        address: upgrade required BindAddress,
        /// Whether HTTP/2 is spoken: by prior knowledge in cleartext, by ALPN over TLS.
        http2: upgrade bool = true,
        /// Whether every connection begins with a header of the PROXY protocol, version 1 or 2, sent by one of
        /// `server.trusted_proxies`. Others are closed.
        proxy_protocol: upgrade bool = false,
        /// Certificates, chosen by SNI from the names in them; the first is the default. Any makes this a TLS listener.
        certificates: Vec<At<CertificateRaw>> = Vec::new(),
        /// Asks clients for certificates; absent = none is asked for.
        client_auth: optional ClientAuthRaw,
        /// How long browsers shall come by HTTPS alone: `Strict-Transport-Security` on every answer that has none. Of a
        /// listener that redirects: on those that it redirects to, unless they say otherwise.
        hsts: optional Duration,
        /// A port: requests are sent there by HTTPS (308), except for routes that name this listener; 0 = none are.
        redirect_https: u16 = 0,
    }
}

enum_value! {
    /// Whether clients must show a certificate.
    pub enum ClientAuthMode {
        /// Who shows none gets in, too.
        Optional = "optional",
        /// Who shows none does not get in.
        Required = "required",
    }
}

keys! {
    /// Which certificates clients may show. One that does not verify is refused, whatever the mode.
    pub struct ClientAuthRaw {
        /// PEM file of the authorities that sign them.
        ca: required ConfigPath,
        /// Whether they must show one.
        mode: ClientAuthMode = ClientAuthMode::Required,
    }
}

keys! {
    /// A certificate with its key. One `*` in each file name pairs files by what it matches.
    pub struct CertificateRaw {
        /// PEM file of the certificate and those that link it to a root.
        cert: required ConfigPath,
        /// PEM file of its private key.
        key: required ConfigPath,
    }
}

keys! {
    /// The listener for operators: `/livez`, `/readyz`, `/metrics`, and the API.
    pub struct AdminRaw {
        /// Where it is bound.
        address: upgrade SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901),
        /// What the API must be shown, as a bearer token; absent = nothing can be changed by it. Needed where others can
        /// reach the address.
        token: secret optional Secret,
        /// Names it is asked by, beside IP addresses and `localhost`: others are refused, as pages of strangers use them.
        names: Vec<At<String>> = Vec::new(),
    }
}

/// One listener, checked; its certificates are still files.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Its name.
    pub name: String,
    /// Where it is bound.
    pub address: BindAddress,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// Whether every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Certificate and key files, in the order written; empty = cleartext.
    pub certificates: Vec<CertificateFiles>,
    /// Whose certificates clients may show.
    pub client_auth: Option<ClientAuthSettings>,
    /// `Strict-Transport-Security` of every answer.
    pub hsts: Option<HeaderValue>,
    /// The port of the HTTPS that requests are sent to.
    pub redirect_https: Option<u16>,
    /// Where it was written.
    pub origin: Origin,
}

/// Whose certificates clients may show; still a file.
#[derive(Debug, Clone)]
pub struct ClientAuthSettings {
    /// PEM file of the authorities.
    pub ca: At<PathBuf>,
    /// Whether clients must show one.
    pub required: bool,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// PEM file of the certificate chain.
    pub cert: At<PathBuf>,
    /// PEM file of the private key.
    pub key: At<PathBuf>,
}

/// Most threads that serve: each has memory and descriptors of its own.
const THREADS_MAX: usize = 256;

impl ServerRaw {
    /// Whether `file` is made by the process itself.
    pub(super) fn is_own(&self, file: &Path) -> bool {
        let own = [&self.pid_file, &self.control_socket];
        own.into_iter().flatten().any(|path| path.value.0 == file)
    }

    /// How many threads serve.
    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if *self.threads == 0 { cores() } else { *self.threads };
        threads.min(THREADS_MAX)
    }

    /// The settings.
    pub fn compile(&self, out: &mut Diagnostics) -> ServerSettings {
        for (name, value) in [("user", &self.user), ("group", &self.group)] {
            if let Some(value) = value.as_ref().filter(|value| value.is_empty()) {
                out.error("invalid-value", &value.origin, format!("server.{name}"), "the name is empty");
            }
        }
        if let (Some(pid_file), Some(socket)) = (&self.pid_file, &self.control_socket)
            && pid_file.value == socket.value
        {
            let message = "the control socket cannot be the pid file";
            out.error("invalid-value", &socket.origin, "server.control_socket", message)
                .related(&pid_file.origin, "used here");
        }
        if *self.threads > THREADS_MAX {
            let message = format!("at most {THREADS_MAX} threads serve");
            out.error("out-of-range", &self.threads.origin, "server.threads", message)
                .hint("0 is one for each core, which is as fast as it gets");
        }
        ServerSettings {
            threads: self.threads(),
            pid_file: self.pid_file.as_ref().map(|path| path.value.0.clone()),
            control_socket: self.control_socket.as_ref().map(|path| path.value.0.clone()),
            user: self.user.as_ref().map(|user| user.value.clone()),
            group: self.group.as_ref().map(|group| group.value.clone()),
            grace_period: *self.grace_period,
            drain_delay: *self.drain_delay,
            watch: *self.watch,
            trusted_proxies: TrustedProxies::new(self.trusted_proxies.iter().map(|network| network.value)),
        }
    }
}

/// Least room for a request head: below it not even a browser's request fits.
const HEADER_BYTES_MIN: u64 = 1 << 10;
/// Most room for a request head: each connection may take it.
const HEADER_BYTES_MAX: u64 = 1 << 20;

impl LimitsRaw {
    /// The limits.
    pub fn compile(&self, out: &mut Diagnostics) -> Limits {
        if *self.connections == 0 {
            let message = "no connection could ever be accepted";
            out.error("invalid-value", &self.connections.origin, "limits.connections", message);
        }
        if !(HEADER_BYTES_MIN..=HEADER_BYTES_MAX).contains(&self.header_bytes.0) {
            let message =
                format!("{} is not between \"1KiB\" and \"1MiB\"", self.header_bytes.value.render());
            out.error("invalid-value", &self.header_bytes.origin, "limits.header_bytes", message);
        }
        for (name, value) in [
            ("header_timeout", &self.header_timeout),
            ("idle_timeout", &self.idle_timeout),
            ("body_timeout", &self.body_timeout),
            ("request_timeout", &self.request_timeout),
            ("stream_idle", &self.stream_idle),
        ] {
            positive(value, &format!("limits.{name}"), out);
        }
        Limits {
            connections: *self.connections,
            connections_per_address: *self.connections_per_address,
            header_bytes: usize::try_from(self.header_bytes.0).unwrap_or(usize::MAX),
            header_timeout: *self.header_timeout,
            idle_timeout: *self.idle_timeout,
            body_timeout: *self.body_timeout,
            min_body_rate: self.min_body_rate.0,
            request_timeout: *self.request_timeout,
            stream_idle: *self.stream_idle,
            upstream_idle: *self.upstream_idle,
            memory: self.memory.as_ref().map(|memory| memory.0),
        }
    }
}

/// Reports a time-out of zero: it would end everything at once, and "no limit" is never written as 0 here.
pub(super) fn positive(value: &At<Duration>, path: &str, out: &mut Diagnostics) {
    if value.is_zero() {
        out.error("invalid-value", &value.origin, path, "a duration of 0 would end everything at once");
    }
}

impl ListenerRaw {
    /// The settings. `path` is the configuration path of the listener; `all` are all listeners.
    pub(super) fn compile(
        &self,
        path: &str,
        origin: &Origin,
        all: &[At<Self>],
        out: &mut Diagnostics,
    ) -> ListenerSettings {
        let certificates = self
            .certificates
            .iter()
            .enumerate()
            .flat_map(|(index, at)| pairs::files(&at.value, &format!("{path}.certificates[{index}]"), out))
            .collect();
        self.check_tls_keys(path, out);
        ListenerSettings {
            name: self.name.value.clone(),
            address: self.address.value.clone(),
            http2: *self.http2,
            proxy_protocol: *self.proxy_protocol,
            certificates,
            client_auth: self.client_auth.as_ref().map(|raw| ClientAuthSettings {
                ca: At::new(raw.ca.value.0.clone(), raw.ca.origin.clone()),
                required: *raw.mode == ClientAuthMode::Required,
            }),
            hsts: self.hsts(all),
            redirect_https: Some(*self.redirect_https).filter(|port| *port != 0),
            origin: origin.clone(),
        }
    }

    /// Keys that mean nothing without TLS, or with it.
    fn check_tls_keys(&self, path: &str, out: &mut Diagnostics) {
        let redirects = *self.redirect_https != 0;
        if self.certificates.is_empty() {
            let mut unused = |key: &str, origin: &Origin, hint: &str| {
                let message = format!("\"{key}\" does nothing on a listener without certificates");
                out.error("unused-key", origin, format!("{path}.{key}"), message).hint(hint);
            };
            if let Some(client_auth) = &self.client_auth {
                unused("client_auth", &client_auth.origin, "add [[listeners.certificates]]: TLS needs them");
            }
            if let Some(hsts) = self.hsts.as_ref().filter(|_| !redirects) {
                let hint = "add [[listeners.certificates]], or `redirect_https` to a listener that has them";
                unused("hsts", &hsts.origin, hint);
            }
        } else if redirects {
            let message = "\"redirect_https\" is for listeners without certificates: this one is HTTPS";
            let origin = &self.redirect_https.origin;
            out.error("conflicting-keys", origin, format!("{path}.redirect_https"), message)
                .related(&self.certificates.origin, "its certificates");
        }
        if let Some(hsts) = self.hsts.as_ref().filter(|hsts| hsts.subsec_nanos() != 0) {
            let message = format!("{} is not a whole number of seconds", hsts.value.render());
            out.error("invalid-value", &hsts.origin, format!("{path}.hsts"), message);
        }
    }

    /// The header's value (RFC 6797 section 6.1.1): whole seconds, 0 to be forgotten. A listener that says nothing of it has
    /// what the first says that redirects to it.
    fn hsts(&self, all: &[At<Self>]) -> Option<HeaderValue> {
        let of_redirects =
            || all.iter().filter(|one| one.redirects_to(self, all)).find_map(|one| one.hsts.as_ref());
        let hsts = self.hsts.as_ref().or_else(of_redirects)?;
        HeaderValue::from_str(&format!("max-age={}", hsts.as_secs())).ok()
    }

    /// Whether requests are sent to `other`: it has that port, or none of `all` has, since something in front passes it on.
    fn redirects_to(&self, other: &Self, all: &[At<Self>]) -> bool {
        let port = *self.redirect_https;
        port != 0
            && !other.certificates.is_empty()
            && (is_https(other, port) || !all.iter().any(|one| is_https(one, port)))
    }
}

/// Checks listeners against each other and against the admin listener.
pub(super) fn check_listeners(
    listeners: &[At<ListenerRaw>],
    paths: &[String],
    admin: Option<&AdminRaw>,
    out: &mut Diagnostics,
) {
    for (index, (listener, path)) in listeners.iter().zip(paths).enumerate() {
        check_name(&listener.name, &listener.name.origin, &format!("{path}.name"), out);
        let earlier = listeners.get(..index).unwrap_or(&[]);
        if let Some(first) = earlier.iter().find(|first| first.name.value == listener.name.value) {
            let message = format!("two listeners are called {}", quote(&listener.name));
            out.error("duplicate-name", &listener.name.origin, format!("{path}.name"), message)
                .related(&first.name.origin, "first defined here");
        }
        if let Some(first) = earlier.iter().find(|first| clash(&first.address, &listener.address)) {
            let message = format!("{} is taken by another listener", listener.address.value.render());
            out.error("duplicate-address", &listener.address.origin, format!("{path}.address"), message)
                .related(&first.address.origin, "taken here");
        }
        if let Some(admin) = admin
            && clash(&BindAddress::Tcp(*admin.address), &listener.address)
        {
            let message = format!("{} is taken by the admin listener", listener.address.value.render());
            out.error("duplicate-address", &listener.address.origin, format!("{path}.address"), message)
                .related(&admin.address.origin, "taken here");
        }
        let port = *listener.redirect_https;
        if port != 0
            && listener.certificates.is_empty()
            && !listeners.iter().any(|other| is_https(other, port))
        {
            let message = format!("no listener with certificates has port {port}");
            out.warning(
                "redirect-nowhere",
                &listener.redirect_https.origin,
                format!("{path}.redirect_https"),
                message,
            )
            .hint("right if something in front of this machine passes that port on to one that has them");
        }
    }
}

fn is_https(listener: &ListenerRaw, port: u16) -> bool {
    let has_port = matches!(&listener.address.value, BindAddress::Tcp(address) if address.port() == port);
    has_port && !listener.certificates.is_empty()
}

/// Whether both cannot be bound at once. Port 0 takes a free port each time.
fn clash(one: &BindAddress, two: &BindAddress) -> bool {
    match (one, two) {
        (BindAddress::Unix(one), BindAddress::Unix(two)) => one == two,
        (BindAddress::Tcp(one), BindAddress::Tcp(two)) => {
            let same_family = one.is_ipv4() == two.is_ipv4();
            let overlap = one.ip() == two.ip() || one.ip().is_unspecified() || two.ip().is_unspecified();
            one.port() == two.port() && one.port() != 0 && same_family && overlap
        }
        _ => false,
    }
}

/// Least length of the API's token.
const TOKEN_BYTES_MIN: usize = 16;

impl AdminRaw {
    /// The settings.
    pub fn compile(&self, out: &mut Diagnostics) -> AdminSettings {
        if !self.address.ip().is_loopback() && self.token.is_none() {
            let message =
                format!("whoever reaches {} can read metrics, health and services", self.address.value);
            out.error("admin-exposed", &self.address.origin, "admin.address", message)
                .hint("set `token` as well, or bind it to 127.0.0.1");
        }
        if let Some(token) = self.token.as_ref().filter(|token| token.expose().len() < TOKEN_BYTES_MIN) {
            let message = format!("the token is shorter than {TOKEN_BYTES_MIN} bytes: it could be guessed");
            out.error("invalid-value", &token.origin, "admin.token", message)
                .hint("`openssl rand -base64 32` makes one");
        }
        AdminSettings {
            address: *self.address,
            token: self.token.as_ref().map(|token| token.value.clone()),
            names: self.names.iter().map(|name| name.to_ascii_lowercase()).collect(),
        }
    }
}

/// Longest path of a unix socket: the kernel's structure holds 108 bytes with the NUL at the end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

impl Value for BindAddress {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["0.0.0.0:8080", "[::]:8080", "unix:run/edge.sock"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let expected = "an address such as \"0.0.0.0:8080\" or \"unix:run/edge.sock\"";
        let Some(text) = node.as_str() else { return cx.expected(node, expected) };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = cx.resolve(&node.origin, path);
            let bytes = path.as_os_str().as_encoded_bytes();
            if text == "unix:" || bytes.contains(&0) {
                return cx.invalid(node, "names no socket");
            }
            if bytes.len() > SOCKET_PATH_BYTES_MAX {
                let message = format!(
                    "is a path of {} bytes, a socket's may have {SOCKET_PATH_BYTES_MAX}",
                    bytes.len()
                );
                return cx.invalid(node, message);
            }
            return Some(Self::Unix(path));
        }
        if let Ok(address) = text.parse() {
            return Some(Self::Tcp(address));
        }
        let hint = address_hint(text);
        let problem = cx.error("invalid-value", &node.origin, format!("{} is not {expected}", quote(text)));
        problem.hint = hint;
        None
    }

    fn render(&self) -> String {
        quote(&self.to_string())
    }
}

/// What someone who wrote `text` for an address to bind probably meant.
fn address_hint(text: &str) -> Option<String> {
    if text.contains("://") {
        return Some("write the address without a scheme; certificates make it https".to_owned());
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(format!("the port is missing: \"{}\"", SocketAddr::new(ip, 8080)));
    }
    let port = text.rsplit(':').next()?;
    if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_err() {
        return Some("a port is at most 65535".to_owned());
    }
    let port: u16 = port.parse().ok()?;
    match text.rsplit_once(':').map_or("", |(host, _)| host) {
        "" | "*" => Some(format!("write \"0.0.0.0:{port}\" for all addresses, \"[::]:{port}\" for IPv6")),
        "localhost" => Some(format!("write \"127.0.0.1:{port}\"")),
        _ => Some("a listener is bound to an IP address, not to a name".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::decode::decode_str;

    keys! {
        /// Both.
        struct BothRaw {
            /// Listeners.
            listeners: Vec<At<ListenerRaw>> = Vec::new(),
            /// Admin.
            admin: optional AdminRaw,
        }
    }

    fn listeners(text: &str) -> (Vec<At<ListenerRaw>>, Vec<String>) {
        let (raw, mut out) = decode_str::<BothRaw>(text);
        let raw = raw.unwrap();
        let paths: Vec<_> = (0..raw.listeners.len()).map(|index| format!("listeners[{index}]")).collect();
        check_listeners(&raw.listeners, &paths, raw.admin.as_ref().map(|at| &at.value), &mut out);
        (raw.listeners.value, out.iter().map(|item| item.message.clone()).collect())
    }

    #[test]
    fn listeners_bind_addresses_and_sockets() {
        let (listeners, problems) = listeners(
            "[[listeners]]\nname = \"a\"\naddress = \"[::]:0\"\n\
             [[listeners]]\nname = \"b\"\naddress = \"unix:run/x\"\nhttp2 = false\n\
             [[listeners]]\nname = \"c\"\naddress = \"[::]:0\"\n",
        );
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(*listeners[1].address, BindAddress::Unix("run/x".into()));
        assert!(!*listeners[1].http2 && *listeners[0].http2);
    }

    #[test]
    fn what_cannot_be_bound_together_is_refused() {
        let (_, problems) = listeners(
            "[[listeners]]\nname = \"a\"\naddress = \"0.0.0.0:8080\"\n\
             [[listeners]]\nname = \"a\"\naddress = \"127.0.0.1:8080\"\n\
             [[listeners]]\nname = \"c\"\naddress = \"127.0.0.1:9901\"\n[admin]\n",
        );
        assert_eq!(
            problems,
            [
                "two listeners are called \"a\"",
                "\"127.0.0.1:8080\" is taken by another listener",
                "\"127.0.0.1:9901\" is taken by the admin listener",
            ]
        );
    }

    #[test]
    fn an_address_that_is_none_gets_a_hint() {
        let hint = |text: &str| address_hint(text).unwrap_or_default();
        assert!(hint(":8080").contains("\"0.0.0.0:8080\""));
        assert!(hint("8080").contains("\"0.0.0.0:8080\""));
        assert_eq!(hint("localhost:80"), "write \"127.0.0.1:80\"");
        assert_eq!(hint("::1"), "the port is missing: \"[::1]:8080\"");
        assert!(hint("http://x").contains("without a scheme"));
        assert!(hint("example.com:80").contains("not to a name"));
        assert_eq!(address_hint("x"), None);
    }

    #[test]
    fn limits_that_would_stop_everything_are_refused() {
        let (raw, mut out) =
            decode_str::<LimitsRaw>("connections = 0\nheader_bytes = \"2MiB\"\nidle_timeout = \"0\"\n");
        raw.unwrap().compile(&mut out);
        assert_eq!(
            out.iter().map(|item| item.path.as_str()).collect::<Vec<_>>(),
            ["limits.connections", "limits.header_bytes", "limits.idle_timeout"]
        );
        let mut out = Diagnostics::default();
        assert_eq!(LimitsRaw::default().compile(&mut out).header_bytes, 32_768);
        ServerRaw::default().compile(&mut out);
        assert!(out.is_empty());
    }
}
