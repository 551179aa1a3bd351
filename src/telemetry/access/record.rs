//! What is remembered of one request until it is logged.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Version;
use smallvec::SmallVec;

use crate::base::reason::Reason;
use crate::telemetry::request_id::RequestId;
use crate::telemetry::trace::{SpanId, SpanRecord, TraceContext};

/// What is remembered of one request: filled from its first byte on, written when it has ended.
///
/// Owns everything and refers to nothing, so that the writer thread touches no reference count of the request path.
/// All texts lie in one buffer: one allocation for a common request. Texts are bytes as received; formats escape them.
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// When the request ended, by the wall clock; nginx' `$time_local` is that, too.
    pub ended: SystemTime,
    /// From the first byte of the request to the last of the answer.
    pub request_time: Duration,
    /// The client's address, after trusted proxies; `None` on a unix socket.
    pub client: Option<IpAddr>,
    /// The client's port, if known.
    pub client_port: Option<u16>,
    /// Who is connected, before trusted proxies.
    pub peer: Option<SocketAddr>,
    /// Source and destination of its PROXY header, if it had one with addresses.
    pub proxy_header: Option<(SocketAddr, SocketAddr)>,
    /// The local address of the connection.
    pub local: Option<SocketAddr>,
    /// The listener's port.
    pub server_port: Option<u16>,
    /// Serial number of the connection.
    pub connection: u64,
    /// Requests of this connection, this one included.
    pub connection_requests: u32,
    /// Whether the request was already there when the one before it ended.
    pub pipelined: bool,
    /// TLS of the client's connection.
    pub tls: Option<TlsInfo>,
    /// HTTP version of the request; `None` if it was never understood.
    pub version: Option<Version>,
    /// Bytes of the request as received: head and body.
    pub request_length: u64,
    /// The status sent, or that would have been: 499 for a client that left.
    pub status: u16,
    /// Bytes of the answer's body as sent.
    pub body_bytes_sent: u64,
    /// Bytes of the answer as sent: head and body.
    pub bytes_sent: u64,
    /// Whether the answer went out whole.
    pub completed: bool,
    /// `MISS`, `HIT` and their kin, if there is a cache.
    pub cache_status: Option<&'static str>,
    /// The request's name.
    pub request_id: Option<RequestId>,
    /// Where it stands in its trace.
    pub trace: Option<TraceContext>,
    /// Why the gateway itself ended it, if it did.
    pub reason: Option<Reason>,
    attempts: SmallVec<[Attempt; 1]>,
    /// The texts that are shown: others are not kept.
    shown: FieldSet,
    text: Vec<u8>,
    fields: [Span; Field::COUNT],
    /// What the format of the log asks for beyond that, by its numbering.
    slots: SmallVec<[Span; 4]>,
}

/// The texts of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The method, as received.
    Method,
    /// The request target, as received: before normalising, with its query.
    Target,
    /// The request line, as far as it was received: only for requests that were not understood.
    RequestLine,
    /// The host that was asked for: lowercase, without port.
    Host,
    /// The host pattern of the route that matched.
    ServerName,
    /// The path, normalised.
    Path,
    /// Who was authenticated. Without it, the user name of basic authentication is shown, as nginx does.
    User,
    /// The name of the route.
    Route,
    /// The name of the upstream.
    Upstream,
    /// The name of the listener.
    Listener,
    /// The consumer it belongs to.
    Consumer,
    /// The plan that bounds its use.
    Plan,
    /// How it was proved who it is: `jwt:PROVIDER`, `api_key:PREFIX`, `mtls`.
    AuthMethod,
    /// The inside story of an error. Never sent to clients.
    Detail,
    /// Subject of the client's certificate (RFC 2253 form).
    ClientDn,
    /// Its issuer.
    ClientIssuer,
    /// Its serial number in hexadecimal; there if a certificate was verified.
    ClientSerial,
    /// Its SHA-1 in hexadecimal.
    ClientFingerprint,
}

impl Field {
    const COUNT: usize = Self::ClientFingerprint as usize + 1;
}

/// Some of the texts of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct FieldSet(u32);

const _: () = assert!(Field::COUNT <= 32, "one bit each");

impl FieldSet {
    pub(super) const ALL: Self = Self(u32::MAX);

    pub(super) fn insert(&mut self, field: Field) {
        self.0 |= 1 << field as u16;
    }

    fn contains(self, field: Field) -> bool {
        self.0 & (1 << field as u16) != 0
    }
}

/// TLS of the client's connection, named as OpenSSL (and so nginx) does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsInfo {
    /// Such as `TLSv1.3`.
    pub protocol: &'static str,
    /// Such as `TLS_AES_128_GCM_SHA256` or `ECDHE-RSA-AES128-GCM-SHA256`.
    pub cipher: &'static str,
}

impl TlsInfo {
    /// From the numbers on the wire: `0x0303`, `0x0304`, and an IANA cipher suite.
    pub const fn new(version: u16, cipher_suite: u16) -> Self {
        let protocol = match version {
            0x0303 => "TLSv1.2",
            0x0304 => "TLSv1.3",
            _ => "unknown",
        };
        let cipher = match cipher_suite {
            0x1301 => "TLS_AES_128_GCM_SHA256",
            0x1302 => "TLS_AES_256_GCM_SHA384",
            0x1303 => "TLS_CHACHA20_POLY1305_SHA256",
            0xc02b => "ECDHE-ECDSA-AES128-GCM-SHA256",
            0xc02c => "ECDHE-ECDSA-AES256-GCM-SHA384",
            0xc02f => "ECDHE-RSA-AES128-GCM-SHA256",
            0xc030 => "ECDHE-RSA-AES256-GCM-SHA384",
            0xcca8 => "ECDHE-RSA-CHACHA20-POLY1305",
            0xcca9 => "ECDHE-ECDSA-CHACHA20-POLY1305",
            _ => "unknown",
        };
        Self { protocol, cipher }
    }
}

/// One attempt at an upstream.
#[derive(Debug, Clone)]
pub struct Attempt {
    address: Span,
    /// Its span, for traces; the duration is nginx' `$upstream_response_time`.
    pub span: SpanRecord,
    /// The status answered.
    pub status: Option<u16>,
    /// Why there is no answer, or no whole one: `connect`, `tls`, `reset`, ...; with `timeout` at its end it counts as a
    /// 504, otherwise as a 502.
    pub failure: Option<&'static str>,
    /// Until the connection stood; 0 for a reused one; `None` if it never did.
    pub connect: Option<Duration>,
    /// Until the answer's head was there.
    pub header: Option<Duration>,
    /// Bytes sent to the server.
    pub bytes_sent: u64,
    /// Bytes received from the server.
    pub bytes_received: u64,
    /// Bytes of the answer's body as received.
    pub response_length: u64,
    /// Whether it is the first one at another upstream than the one before: nginx separates these by a colon.
    pub another_upstream: bool,
}

/// Texts kept per record; what does not fit is cut off. A head is bounded by `limits.header_bytes`, but a format may
/// ask for the same bytes under several names.
const TEXT_BYTES_MAX: usize = 256 * 1024;

/// Room for the texts of a common request.
const TEXT_BYTES_COMMON: usize = 512;

/// Attempts kept per record; the retry settings allow fewer.
const ATTEMPTS_MAX: usize = 64;

/// A range of the text buffer; `start == u32::MAX` for none.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    len: u32,
}

const NONE: Span = Span { start: u32::MAX, len: 0 };

impl Default for AccessRecord {
    fn default() -> Self {
        Self {
            ended: UNIX_EPOCH,
            request_time: Duration::ZERO,
            client: None,
            client_port: None,
            peer: None,
            proxy_header: None,
            local: None,
            server_port: None,
            connection: 0,
            connection_requests: 0,
            pipelined: false,
            tls: None,
            version: None,
            request_length: 0,
            status: 0,
            body_bytes_sent: 0,
            bytes_sent: 0,
            completed: false,
            cache_status: None,
            request_id: None,
            trace: None,
            reason: None,
            attempts: SmallVec::new(),
            shown: FieldSet::ALL,
            text: Vec::with_capacity(TEXT_BYTES_COMMON),
            fields: [NONE; Field::COUNT],
            slots: SmallVec::new(),
        }
    }
}

impl AccessRecord {
    /// An empty record.
    pub fn new() -> Box<Self> {
        Box::default()
    }

    /// An empty record that keeps no other texts than those in `shown`.
    pub(super) fn showing(shown: FieldSet) -> Box<Self> {
        let mut record = Self::new();
        record.shown = shown;
        record
    }

    /// Sets a text, as it was received. The last one set counts.
    pub fn set(&mut self, field: Field, text: impl AsRef<[u8]>) {
        if !self.shown.contains(field) {
            return;
        }
        let span = self.keep(text.as_ref());
        if let Some(slot) = self.fields.get_mut(field as usize) {
            *slot = span;
        }
    }

    /// Whether `field` is kept at all.
    pub fn shows(&self, field: Field) -> bool {
        self.shown.contains(field)
    }

    /// A text, if it was set.
    pub fn get(&self, field: Field) -> Option<&[u8]> {
        self.fields.get(field as usize).and_then(|span| self.at(*span))
    }

    /// Begins an attempt at the server at `address`; to be filled in through [`AccessRecord::last_attempt`].
    pub fn begin_attempt(&mut self, address: &str, span: SpanId, started: SystemTime) -> &mut Attempt {
        if self.attempts.len() >= ATTEMPTS_MAX {
            self.attempts.pop();
        }
        let address = self.keep(address.as_bytes());
        let attempt = Attempt {
            address,
            span: SpanRecord { id: span, started, duration: None },
            status: None,
            failure: None,
            connect: None,
            header: None,
            bytes_sent: 0,
            bytes_received: 0,
            response_length: 0,
            another_upstream: false,
        };
        self.attempts.push(attempt);
        let last = self.attempts.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "pushed just above")]
        &mut self.attempts[last]
    }

    /// The attempt under way, or the last one.
    pub fn last_attempt(&mut self) -> Option<&mut Attempt> {
        self.attempts.last_mut()
    }

    /// All attempts, in order.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// The address an attempt of this record went to.
    pub fn address(&self, attempt: &Attempt) -> &[u8] {
        self.at(attempt.address).unwrap_or_default()
    }

    /// About how many bytes it takes while it waits to be written.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.text.capacity()
    }

    pub(super) fn slot(&self, slot: usize) -> Option<&[u8]> {
        self.slots.get(slot).and_then(|span| self.at(*span))
    }

    /// Sets what the format calls `slot` to `parts`, joined by `separator`; does nothing if there are none.
    pub(super) fn set_slot<'a>(
        &mut self,
        slot: usize,
        parts: impl IntoIterator<Item = &'a [u8]>,
        separator: &[u8],
    ) {
        let mut whole: Option<Span> = None;
        for part in parts {
            let (start, len) = match whole {
                None => (self.keep(part).start, part.len()),
                Some(before) => {
                    self.keep(separator);
                    self.keep(part);
                    (before.start, before.len as usize + separator.len() + part.len())
                }
            };
            let kept = self.text.len().saturating_sub(start as usize);
            whole = Some(Span { start, len: narrow(len.min(kept)) });
        }
        if let Some(span) = whole {
            if self.slots.len() <= slot {
                self.slots.resize(slot + 1, NONE);
            }
            if let Some(place) = self.slots.get_mut(slot) {
                *place = span;
            }
        }
    }

    fn keep(&mut self, text: &[u8]) -> Span {
        let start = self.text.len();
        let room = TEXT_BYTES_MAX.saturating_sub(start);
        let kept = text.get(..room).unwrap_or(text);
        self.text.extend_from_slice(kept);
        Span { start: narrow(start), len: narrow(kept.len()) }
    }

    fn at(&self, span: Span) -> Option<&[u8]> {
        let start = span.start as usize;
        self.text.get(start..start.checked_add(span.len as usize)?)
    }
}

/// Lengths here are bounded far below 4 GiB.
fn narrow(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shown_is_not_kept() {
        let mut shown = FieldSet::default();
        shown.insert(Field::ClientDn);
        let mut record = AccessRecord::showing(shown);
        record.set(Field::ClientDn, "CN=a");
        record.set(Field::Method, "GET");
        assert_eq!(record.get(Field::ClientDn), Some(&b"CN=a"[..]));
        assert_eq!(record.get(Field::Method), None);
    }

    #[test]
    fn texts_are_kept_apart() {
        let mut record = AccessRecord::new();
        record.set(Field::Method, "GET");
        record.set(Field::Host, "");
        record.begin_attempt("10.0.0.1:80", SpanId::random(), UNIX_EPOCH);
        record.set_slot(2, [&b"a"[..], b"b", b""], b", ");
        record.set(Field::Method, "POST");
        assert_eq!(record.get(Field::Method), Some(&b"POST"[..]));
        assert_eq!(record.get(Field::Host), Some(&b""[..]));
        assert_eq!(record.get(Field::Target), None);
        assert_eq!(record.address(&record.attempts()[0]), b"10.0.0.1:80");
        assert_eq!(record.slot(2), Some(&b"a, b, "[..]));
        assert_eq!((record.slot(0), record.slot(3)), (None, None));
    }

    /// Whatever a client sends and however often a format asks for it: a record stays within its bound.
    #[test]
    fn a_record_is_bounded() {
        let mut record = AccessRecord::new();
        let head = vec![b'x'; 100_000];
        for slot in 0..10 {
            record.set_slot(slot, [&head[..], &head[..]], b", ");
        }
        record.set(Field::Target, &head);
        assert!(record.bytes() < 3 * TEXT_BYTES_MAX);
        assert_eq!(record.slot(0).map(<[u8]>::len), Some(200_002));
        assert_eq!(record.slot(1).map(<[u8]>::len), Some(TEXT_BYTES_MAX - 200_002));
        assert_eq!(record.slot(2).map(<[u8]>::len), Some(0));
        assert_eq!(record.get(Field::Target), Some(&b""[..]));
        for _ in 0..1000 {
            record.begin_attempt("10.0.0.1:80", SpanId::random(), UNIX_EPOCH);
        }
        assert_eq!(record.attempts().len(), ATTEMPTS_MAX);
    }
}
