//! nginx' log variables over an [`AccessRecord`].

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::Version;

use super::escape::{self, Escape};
use super::mask::{MASK, Mask};
use super::record::{AccessRecord, Attempt, Field};
use super::stamp::{self, Stamps};

/// A variable that the record answers by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variable {
    Args,
    BodyBytesSent,
    BytesSent,
    Connection,
    ConnectionRequests,
    Host,
    Https,
    IsArgs,
    Msec,
    Pid,
    Pipe,
    ProxyProtocolAddr,
    ProxyProtocolPort,
    ProxyProtocolServerAddr,
    ProxyProtocolServerPort,
    RealipRemoteAddr,
    RealipRemotePort,
    RemoteAddr,
    RemotePort,
    Request,
    RequestCompletion,
    RequestId,
    RequestLength,
    RequestMethod,
    RequestTime,
    RequestUri,
    Scheme,
    ServerAddr,
    ServerName,
    ServerPort,
    ServerProtocol,
    SslCipher,
    SslClientDn,
    SslClientFingerprint,
    SslClientIssuer,
    SslClientSerial,
    SslClientVerify,
    SslProtocol,
    Status,
    TimeIso8601,
    TimeLocal,
    UpstreamAddr,
    UpstreamBytesReceived,
    UpstreamBytesSent,
    UpstreamCacheStatus,
    UpstreamConnectTime,
    UpstreamHeaderTime,
    UpstreamResponseLength,
    UpstreamResponseTime,
    UpstreamStatus,
    Uri,
    // Not nginx': what Edgeward knows besides.
    AuthMethod,
    ConsumerName,
    Detail,
    ListenerName,
    PlanName,
    Reason,
    RouteName,
    SpanId,
    TraceId,
    UpstreamName,
}

/// The variables by name, in the order of the documentation.
pub(super) const VARIABLES: &[(&str, Variable)] = &[
    ("remote_addr", Variable::RemoteAddr),
    ("remote_port", Variable::RemotePort),
    ("realip_remote_addr", Variable::RealipRemoteAddr),
    ("realip_remote_port", Variable::RealipRemotePort),
    ("proxy_protocol_addr", Variable::ProxyProtocolAddr),
    ("proxy_protocol_port", Variable::ProxyProtocolPort),
    ("proxy_protocol_server_addr", Variable::ProxyProtocolServerAddr),
    ("proxy_protocol_server_port", Variable::ProxyProtocolServerPort),
    ("host", Variable::Host),
    ("server_addr", Variable::ServerAddr),
    ("server_name", Variable::ServerName),
    ("server_port", Variable::ServerPort),
    ("server_protocol", Variable::ServerProtocol),
    ("scheme", Variable::Scheme),
    ("https", Variable::Https),
    ("request", Variable::Request),
    ("request_method", Variable::RequestMethod),
    ("request_uri", Variable::RequestUri),
    ("uri", Variable::Uri),
    ("document_uri", Variable::Uri),
    ("args", Variable::Args),
    ("query_string", Variable::Args),
    ("is_args", Variable::IsArgs),
    ("request_id", Variable::RequestId),
    ("request_length", Variable::RequestLength),
    ("request_time", Variable::RequestTime),
    ("request_completion", Variable::RequestCompletion),
    ("status", Variable::Status),
    ("body_bytes_sent", Variable::BodyBytesSent),
    ("bytes_sent", Variable::BytesSent),
    ("msec", Variable::Msec),
    ("time_iso8601", Variable::TimeIso8601),
    ("time_local", Variable::TimeLocal),
    ("connection", Variable::Connection),
    ("connection_requests", Variable::ConnectionRequests),
    ("pid", Variable::Pid),
    ("pipe", Variable::Pipe),
    ("upstream_addr", Variable::UpstreamAddr),
    ("upstream_status", Variable::UpstreamStatus),
    ("upstream_connect_time", Variable::UpstreamConnectTime),
    ("upstream_header_time", Variable::UpstreamHeaderTime),
    ("upstream_response_time", Variable::UpstreamResponseTime),
    ("upstream_response_length", Variable::UpstreamResponseLength),
    ("upstream_bytes_received", Variable::UpstreamBytesReceived),
    ("upstream_bytes_sent", Variable::UpstreamBytesSent),
    ("upstream_cache_status", Variable::UpstreamCacheStatus),
    ("ssl_protocol", Variable::SslProtocol),
    ("ssl_cipher", Variable::SslCipher),
    ("ssl_client_s_dn", Variable::SslClientDn),
    ("ssl_client_i_dn", Variable::SslClientIssuer),
    ("ssl_client_serial", Variable::SslClientSerial),
    ("ssl_client_fingerprint", Variable::SslClientFingerprint),
    ("ssl_client_verify", Variable::SslClientVerify),
    ("route_name", Variable::RouteName),
    ("upstream_name", Variable::UpstreamName),
    ("listener_name", Variable::ListenerName),
    ("consumer_name", Variable::ConsumerName),
    ("plan_name", Variable::PlanName),
    ("auth_method", Variable::AuthMethod),
    ("reason", Variable::Reason),
    ("error_detail", Variable::Detail),
    ("trace_id", Variable::TraceId),
    ("span_id", Variable::SpanId),
];

impl Variable {
    /// The texts of the record that it shows.
    pub(super) const fn fields(self) -> &'static [Field] {
        match self {
            Self::Args | Self::IsArgs | Self::RequestUri => &[Field::Target],
            Self::Host => &[Field::Host],
            Self::Request => &[Field::RequestLine, Field::Method, Field::Target],
            Self::RequestMethod => &[Field::Method],
            Self::ServerName => &[Field::ServerName, Field::Host],
            Self::SslClientDn => &[Field::ClientDn],
            Self::SslClientFingerprint => &[Field::ClientFingerprint],
            Self::SslClientIssuer => &[Field::ClientIssuer],
            // Without a certificate there is no serial.
            Self::SslClientSerial | Self::SslClientVerify => &[Field::ClientSerial],
            Self::Uri => &[Field::Path],
            Self::AuthMethod => &[Field::AuthMethod],
            Self::ConsumerName => &[Field::Consumer],
            Self::Detail => &[Field::Detail],
            Self::ListenerName => &[Field::Listener],
            Self::PlanName => &[Field::Plan],
            Self::RouteName => &[Field::Route],
            Self::UpstreamName => &[Field::Upstream],
            // Every one is named, so that a new one cannot be forgotten.
            Self::BodyBytesSent
            | Self::BytesSent
            | Self::Connection
            | Self::ConnectionRequests
            | Self::Https
            | Self::Msec
            | Self::Pid
            | Self::Pipe
            | Self::ProxyProtocolAddr
            | Self::ProxyProtocolPort
            | Self::ProxyProtocolServerAddr
            | Self::ProxyProtocolServerPort
            | Self::RealipRemoteAddr
            | Self::RealipRemotePort
            | Self::RemoteAddr
            | Self::RemotePort
            | Self::RequestCompletion
            | Self::RequestId
            | Self::RequestLength
            | Self::RequestTime
            | Self::Scheme
            | Self::ServerAddr
            | Self::ServerPort
            | Self::ServerProtocol
            | Self::SslCipher
            | Self::SslProtocol
            | Self::Status
            | Self::TimeIso8601
            | Self::TimeLocal
            | Self::UpstreamAddr
            | Self::UpstreamBytesReceived
            | Self::UpstreamBytesSent
            | Self::UpstreamCacheStatus
            | Self::UpstreamConnectTime
            | Self::UpstreamHeaderTime
            | Self::UpstreamResponseLength
            | Self::UpstreamResponseTime
            | Self::UpstreamStatus
            | Self::Reason
            | Self::SpanId
            | Self::TraceId => &[],
        }
    }
}

/// Writes values into a line.
pub(super) struct Line<'a> {
    pub(super) record: &'a AccessRecord,
    pub(super) escape: Escape,
    pub(super) mask: &'a Mask,
    pub(super) stamps: &'a mut Stamps,
    pub(super) out: &'a mut Vec<u8>,
}

impl Line<'_> {
    /// The value of `variable`, as nginx writes it.
    pub(super) fn variable(&mut self, variable: Variable) {
        let record = self.record;
        match variable {
            Variable::Args => match query_of(record) {
                Some(query) => self.text(&self.mask.query(query)),
                None => self.absent(),
            },
            Variable::BodyBytesSent => self.number(record.body_bytes_sent),
            Variable::BytesSent => self.number(record.bytes_sent),
            Variable::Connection => self.number(record.connection),
            Variable::ConnectionRequests => self.number(record.connection_requests.into()),
            Variable::Host => self.field(Field::Host),
            // Empty rather than absent, as with nginx.
            Variable::Https => self.raw(if record.tls.is_some() { b"on" } else { b"" }),
            Variable::IsArgs => self.raw(if query_of(record).is_some() { b"?" } else { b"" }),
            Variable::Msec => {
                let (seconds, millis) = stamp::split(record.ended);
                self.seconds(seconds.unsigned_abs(), millis);
            }
            Variable::Pid => self.number(std::process::id().into()),
            Variable::Pipe => self.raw(if record.pipelined { b"p" } else { b"." }),
            Variable::ProxyProtocolAddr => self.header_address(record.proxy_header.map(|(source, _)| source)),
            Variable::ProxyProtocolPort => self.header_port(record.proxy_header.map(|(source, _)| source)),
            Variable::ProxyProtocolServerAddr => {
                self.header_address(record.proxy_header.map(|(_, server)| server))
            }
            Variable::ProxyProtocolServerPort => {
                self.header_port(record.proxy_header.map(|(_, server)| server))
            }
            Variable::RealipRemoteAddr => self.address(record.peer.map(|peer| peer.ip())),
            Variable::RealipRemotePort => self.port(record.peer.map(|peer| peer.port())),
            Variable::RemoteAddr => self.address(record.client),
            Variable::RemotePort => self.port(record.client_port),
            Variable::Request => self.request_line(),
            Variable::RequestCompletion => self.raw(if record.completed { b"OK" } else { b"" }),
            Variable::RequestId => self.maybe(record.request_id.as_ref().map(|id| id.as_bytes())),
            Variable::RequestLength => self.number(record.request_length),
            Variable::RequestMethod => self.field(Field::Method),
            Variable::RequestTime => self.duration(record.request_time),
            Variable::RequestUri => match record.get(Field::Target).map(origin_form) {
                Some(target) => self.text(&self.mask.url(target)),
                None => self.absent(),
            },
            Variable::Scheme => self.raw(if record.tls.is_some() { b"https" } else { b"http" }),
            Variable::ServerAddr => self.address(record.local.map(|local| local.ip())),
            Variable::ServerName => self.maybe(record.get(Field::ServerName).or(record.get(Field::Host))),
            Variable::ServerPort => self.port(record.server_port.or(record.local.map(|local| local.port()))),
            Variable::ServerProtocol => self.maybe(record.version.map(protocol)),
            Variable::SslCipher => self.maybe(record.tls.map(|tls| tls.cipher.as_bytes())),
            Variable::SslClientDn => self.field(Field::ClientDn),
            Variable::SslClientFingerprint => self.field(Field::ClientFingerprint),
            Variable::SslClientIssuer => self.field(Field::ClientIssuer),
            Variable::SslClientSerial => self.field(Field::ClientSerial),
            Variable::SslClientVerify => {
                let verified = record.get(Field::ClientSerial).map(|_| "SUCCESS");
                self.maybe(verified.or(record.tls.map(|_| "NONE")).map(str::as_bytes));
            }
            Variable::SslProtocol => self.maybe(record.tls.map(|tls| tls.protocol.as_bytes())),
            Variable::Status => {
                let status = record.status;
                self.out.extend([100, 10, 1].map(|scale| digit(u32::from(status / scale))));
            }
            Variable::TimeIso8601 => self.out.extend_from_slice(self.stamps.iso8601(record.ended).as_bytes()),
            Variable::TimeLocal => self.out.extend_from_slice(self.stamps.local(record.ended).as_bytes()),
            Variable::UpstreamAddr => self.attempts(|line, attempt| line.text(record.address(attempt))),
            Variable::UpstreamBytesReceived => {
                self.attempts(|line, attempt| line.number(attempt.bytes_received));
            }
            Variable::UpstreamBytesSent => self.attempts(|line, attempt| line.number(attempt.bytes_sent)),
            Variable::UpstreamCacheStatus => self.maybe(record.cache_status.map(str::as_bytes)),
            Variable::UpstreamConnectTime => {
                self.attempts(|line, attempt| line.attempt_time(attempt.connect))
            }
            Variable::UpstreamHeaderTime => self.attempts(|line, attempt| line.attempt_time(attempt.header)),
            Variable::UpstreamResponseLength => {
                self.attempts(|line, attempt| line.number(attempt.response_length));
            }
            Variable::UpstreamResponseTime => {
                self.attempts(|line, attempt| line.attempt_time(attempt.span.duration));
            }
            Variable::UpstreamStatus => self.attempts(|line, attempt| match attempt_status(attempt) {
                Some(status) => line.number(status.into()),
                None => line.raw(b"-"),
            }),
            Variable::Uri => self.field(Field::Path),
            Variable::AuthMethod => self.field(Field::AuthMethod),
            Variable::ConsumerName => self.field(Field::Consumer),
            Variable::Detail => self.field(Field::Detail),
            Variable::ListenerName => self.field(Field::Listener),
            Variable::PlanName => self.field(Field::Plan),
            Variable::Reason => self.maybe(record.reason.map(|reason| reason.code().as_bytes())),
            Variable::RouteName => self.field(Field::Route),
            Variable::SpanId => self.maybe_hex(record.trace.map(|trace| trace.span.hex()).as_ref()),
            Variable::TraceId => self.maybe_hex(record.trace.map(|trace| trace.trace_id.hex()).as_ref()),
            Variable::UpstreamName => self.field(Field::Upstream),
        }
    }

    /// A value that is there, escaped.
    pub(super) fn text(&mut self, value: &[u8]) {
        escape::write(value, self.escape, self.out);
    }

    /// A value that may be absent, escaped.
    pub(super) fn maybe(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.text(value),
            None => self.absent(),
        }
    }

    /// The value of the parameter `name` of the query, as written there: the first that has one, case ignored.
    pub(super) fn argument(&mut self, name: &[u8]) {
        match query_of(self.record).and_then(|query| argument(query, name)) {
            Some(_) if self.mask.is_secret(name) => self.raw(MASK),
            value => self.maybe(value),
        }
    }

    /// `$proxy_add_x_forwarded_for`: what the client sent as `X-Forwarded-For`, and the client.
    pub(super) fn forwarded_for(&mut self, sent: Option<&[u8]>) {
        if let Some(sent) = sent {
            self.text(sent);
            self.raw(b", ");
        }
        self.address(self.record.client);
    }

    /// A URL that a client sent, without its secrets.
    pub(super) fn url(&mut self, url: Option<&[u8]>) {
        match url {
            Some(url) => self.text(&self.mask.url(url)),
            None => self.absent(),
        }
    }

    fn absent(&mut self) {
        if self.escape == Escape::Default {
            self.out.push(b'-');
        }
    }

    fn raw(&mut self, value: &[u8]) {
        self.out.extend_from_slice(value);
    }

    fn field(&mut self, field: Field) {
        self.maybe(self.record.get(field));
    }

    fn maybe_hex<const N: usize>(&mut self, digits: Option<&[u8; N]>) {
        self.maybe(digits.map(<[u8; N]>::as_slice));
    }

    fn number(&mut self, value: u64) {
        self.raw(itoa::Buffer::new().format(value).as_bytes());
    }

    /// nginx writes `unix:` for a client without an address and nothing for one without a port.
    fn address(&mut self, address: Option<IpAddr>) {
        match address {
            Some(address) => write_ip(address, self.out),
            None => self.raw(b"unix:"),
        }
    }

    /// An address as the PROXY header gives it.
    fn header_address(&mut self, address: Option<SocketAddr>) {
        match address {
            Some(address) => write_ip(address.ip(), self.out),
            None => self.absent(),
        }
    }

    /// Its port, 0 included.
    fn header_port(&mut self, address: Option<SocketAddr>) {
        match address {
            Some(address) => self.number(address.port().into()),
            None => self.absent(),
        }
    }

    fn port(&mut self, port: Option<u16>) {
        if let Some(port) = port.filter(|port| *port > 0) {
            self.number(port.into());
        }
    }

    fn duration(&mut self, duration: Duration) {
        self.seconds(duration.as_secs(), duration.subsec_millis());
    }

    fn seconds(&mut self, seconds: u64, millis: u32) {
        self.number(seconds);
        self.out.push(b'.');
        self.out.extend([100, 10, 1].map(|scale| digit(millis / scale)));
    }

    fn attempt_time(&mut self, time: Option<Duration>) {
        match time {
            Some(time) => self.duration(time),
            None => self.raw(b"-"),
        }
    }

    /// The request line as received, or put together again from its parts.
    fn request_line(&mut self) {
        let record = self.record;
        if let Some(line) = record.get(Field::RequestLine) {
            return self.text(&self.mask.url(line));
        }
        let Some(method) = record.get(Field::Method) else { return self.absent() };
        self.text(method);
        if let Some(target) = record.get(Field::Target) {
            self.raw(b" ");
            self.text(&self.mask.url(target));
        }
        if let Some(version) = record.version {
            self.raw(b" ");
            self.raw(protocol(version));
        }
    }

    fn attempts(&mut self, mut value: impl FnMut(&mut Self, &Attempt)) {
        let attempts = self.record.attempts();
        if attempts.is_empty() {
            return self.absent();
        }
        for (index, attempt) in attempts.iter().enumerate() {
            match index {
                0 => {}
                _ if attempt.another_upstream => self.raw(b" : "),
                _ => self.raw(b", "),
            }
            value(self, attempt);
        }
    }
}

/// The status of an attempt; one without an answer counts as nginx counts it.
pub(super) fn attempt_status(attempt: &Attempt) -> Option<u16> {
    attempt.status.or(attempt.failure.map(|failure| if failure.ends_with("timeout") { 504 } else { 502 }))
}

/// As nginx names versions, in the request line, too.
pub(super) fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_09 => b"HTTP/0.9",
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2.0",
        Version::HTTP_3 => b"HTTP/3.0",
        _ => b"HTTP/1.1",
    }
}

/// `target` without scheme and authority, should it be a whole URL (RFC 9112 section 3.2.2).
pub(super) fn origin_form(target: &[u8]) -> &[u8] {
    if target.starts_with(b"/") {
        return target;
    }
    let Some(at) = memchr::memmem::find(target, b"://") else { return target };
    let after = target.get(at + 3..).unwrap_or_default();
    match after.iter().position(|byte| matches!(byte, b'/' | b'?')) {
        Some(path) => after.get(path..).unwrap_or_default(),
        None => b"/",
    }
}

pub(super) fn write_ip(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                if octet >= 100 {
                    out.push(digit(u32::from(octet) / 100));
                }
                if octet >= 10 {
                    out.push(digit(u32::from(octet) / 10));
                }
                out.push(digit(u32::from(octet)));
            }
        }
        IpAddr::V6(address) => out.extend_from_slice(address.to_string().as_bytes()),
    }
}

/// The query of the target; nginx takes an empty one for none.
fn query_of(record: &AccessRecord) -> Option<&[u8]> {
    let target = record.get(Field::Target)?;
    target.get(memchr::memchr(b'?', target)? + 1..).filter(|query| !query.is_empty())
}

fn argument<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query.split(|byte| *byte == b'&').find_map(|parameter| {
        let (written, value) = parameter.split_at_checked(name.len())?;
        value.strip_prefix(b"=").filter(|_| written.eq_ignore_ascii_case(name))
    })
}

const fn digit(number: u32) -> u8 {
    b'0' + (number % 10) as u8
}

/// The user name of basic authentication (RFC 7617), as nginx takes it: not verified, `None` if it is empty.
pub(super) fn basic_user(authorization: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = authorization.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut user = decode_base64(rest.trim_ascii())?;
    user.truncate(memchr::memchr(b':', &user).filter(|at| *at > 0)?);
    Some(user)
}

/// RFC 4648 section 4, padding optional. `None` for anything else.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        if group.len() == 1 {
            return None;
        }
        let mut bits: u32 = 0;
        for digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = (bits << 6) | u32::from(value);
        }
        bits <<= 6 * (4 - group.len());
        let [_, bytes @ ..] = bits.to_be_bytes();
        decoded.extend(bytes.iter().take(group.len() - 1));
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn basic_users_are_read_as_nginx_does() {
        let user = |header: &str| basic_user(header.as_bytes()).map(|user| String::from_utf8(user).unwrap());
        assert_eq!(user("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), Some("Aladdin".to_owned()));
        assert_eq!(user("basic QWxhZGRpbjpvcGVuIHNlc2FtZQ"), Some("Aladdin".to_owned()));
        assert_eq!(user("Basic OnB3"), None, "an empty name");
        assert_eq!(user("Basic QWxhZGRpbg=="), None, "no colon");
        assert_eq!(user("Basic ?"), None);
        assert_eq!(user("Bearer abc"), None);
        assert_eq!(user(""), None);
    }

    #[test]
    fn arguments_are_found_as_nginx_does() {
        let find = |query: &str, name: &str| {
            argument(query.as_bytes(), name.as_bytes())
                .map(|value| String::from_utf8_lossy(value).into_owned())
        };
        assert_eq!(find("a=1&b=2", "b"), Some("2".to_owned()));
        assert_eq!(find("A=1", "a"), Some("1".to_owned()));
        assert_eq!(find("aa=1&a=%20", "a"), Some("%20".to_owned()));
        assert_eq!(find("a&a=&a=3", "a"), Some(String::new()));
        assert_eq!(find("a", "a"), None);
        assert_eq!(find("", "a"), None);
    }

    #[test]
    fn whole_urls_lose_their_authority() {
        for (target, expected) in [
            ("/a?b=http://c/d", "/a?b=http://c/d"),
            ("http://h:80/a?b", "/a?b"),
            ("http://h", "/"),
            ("http://h?b", "?b"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(origin_form(target.as_bytes()), expected.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn addresses_are_written_as_elsewhere(address in any::<IpAddr>()) {
            let mut out = Vec::new();
            write_ip(address, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), address.to_string());
        }

        #[test]
        fn no_authorization_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _user = (basic_user(&bytes), basic_user(&[b"Basic ", &bytes[..]].concat()));
        }
    }
}
