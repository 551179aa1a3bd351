//! What is known of one connection, and of the request that is being served on it.
//!
//! The proxy's hooks reach both through [`exchange`]: `ingress` serves every request inside a task-local scope,
//! whatever the protocol.

use std::any::Any;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;
use pingora::protocols::Stream;
use tokio::sync::Notify;

use super::alarm::{Alarm, Alarms};
use super::ends::{Ends, ProxyAddresses};
use super::per_address::{PerAddress, Place};
use super::silence::Silence;
use super::turned_away::{Mentions, TurnedAway};
use crate::base::client_cert::ClientCert;
use crate::base::peer::PeerValues;
use crate::base::problem::Form;
use crate::base::{clock, pages};
use crate::config::snapshot::PolicyId;
use crate::telemetry::access::{AccessRecord, Field, TlsInfo};
use crate::telemetry::metrics::{ListenerMetrics, OpenConnection};
use crate::telemetry::request_id::RequestId;

/// One accepted connection. Counted as open until the last holder lets go of it, lingering close included.
#[derive(Debug)]
pub struct Connection {
    /// Serial number in this process, from 1.
    pub serial: u64,
    /// Index of its listener in the snapshot.
    pub listener: u16,
    /// The listener's port; 0 on a unix socket.
    pub local_port: u16,
    /// The client: who connected, or for whom the PROXY header says.
    pub peer: Peer,
    /// Who is at the other end of the socket: the client, or the proxy that sent a PROXY header.
    pub socket_peer: Peer,
    /// Our end of the socket; absent on a unix socket.
    pub local: Option<SocketAddr>,
    /// What the PROXY header says.
    pub proxy_header: Option<ProxyAddresses>,
    /// The PROXY header says that this is somebody's connection, but not whose. Then `peer` is the proxy, whose word
    /// counts, and what stands in the request is the client's, whose word does not.
    pub is_peer_unnamed: bool,
    /// The peer as forwarding headers name it.
    pub peer_values: PeerValues,
    /// What TLS agreed on; absent on a cleartext connection.
    pub tls: Option<TlsFacts>,
    /// When it was accepted.
    pub accepted: Instant,
    /// Bytes read from the socket, TLS taken off.
    pub bytes_read: AtomicU64,
    /// Bytes written to the socket, TLS not yet put on.
    pub bytes_written: AtomicU64,
    /// Requests begun on it, the one being served included.
    pub requests: AtomicU64,
    pub(crate) alarm: Arc<Alarm>,
    /// See [`Connection::is_held_up`].
    pub(super) held_up: AtomicBool,
    open: OpenGuard,
}

/// Who connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over a unix socket: the same machine.
    Unix,
}

impl Peer {
    /// The address for logs, limits and forwarding headers; the loopback address for a unix socket.
    pub fn ip(&self) -> IpAddr {
        match self {
            // An IPv4 client of a dual-stack socket is an IPv4 client.
            Self::Tcp(address) => address.ip().to_canonical(),
            Self::Unix => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }

    /// Address and port; `None` for a unix socket.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(SocketAddr::new(address.ip().to_canonical(), address.port())),
            Self::Unix => None,
        }
    }

    /// The port; 0 for a unix socket.
    pub fn port(&self) -> u16 {
        match self {
            Self::Tcp(address) => address.port(),
            Self::Unix => 0,
        }
    }
}

/// What a TLS handshake agreed on.
#[derive(Debug, Clone)]
pub struct TlsFacts {
    /// Version and cipher suite, by the names that OpenSSL and nginx use.
    pub names: TlsInfo,
    /// The name the client asked for, in lower case.
    pub server_name: Option<String>,
    /// What was asked of the client: [`crate::config::snapshot::ListenerTls::client_policy`].
    pub client_policy: Option<PolicyId>,
    /// The certificate it has proved to own.
    pub client_cert: Option<Arc<ClientCert>>,
}

impl Connection {
    pub(crate) fn new(
        listener: u16,
        local_port: u16,
        ends: Ends,
        tls: Option<TlsFacts>,
        open: OpenGuard,
    ) -> Arc<Self> {
        let peer = ends.client;
        // The port that the client connected to is the proxy's.
        let seen_port = ends.header.map_or(local_port, |header| header.destination.port());
        let alarm = open.all.alarms.alarm();
        if open.is_shed {
            alarm.retire();
        }
        Arc::new(Self {
            serial: open.serial,
            listener,
            local_port,
            peer,
            socket_peer: ends.socket,
            local: ends.local,
            proxy_header: ends.header,
            is_peer_unnamed: ends.is_unnamed,
            peer_values: PeerValues::new(peer.ip(), seen_port, tls.is_some()),
            tls,
            accepted: clock::now(),
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            alarm,
            held_up: AtomicBool::new(false),
            open,
        })
    }

    /// The certificate that the client has proved to own.
    pub fn client_cert(&self) -> Option<&ClientCert> {
        self.tls.as_ref()?.client_cert.as_deref()
    }

    /// Has the connection end once what is open on it is done: what it was made for holds no longer.
    pub fn retire(&self) {
        self.alarm.retire();
    }

    /// Whether it is to end.
    pub fn is_retired(&self) -> bool {
        self.alarm.is_retired()
    }

    /// Whether its requests are only told to come back later: it was accepted when there was no more room.
    pub fn is_shed(&self) -> bool {
        self.open.is_shed
    }

    /// Whether something waits to be written that the client's socket does not take.
    pub(super) fn is_held_up(&self) -> bool {
        self.held_up.load(Ordering::Relaxed)
    }

    /// What the access log shows of its TLS.
    pub fn note_tls(&self, record: &mut AccessRecord) {
        record.tls = self.tls.as_ref().map(|tls| tls.names);
        if let Some(cert) = self.client_cert() {
            record.set(Field::ClientDn, &*cert.subject);
            record.set(Field::ClientIssuer, &*cert.issuer);
            record.set(Field::ClientSerial, &*cert.serial);
            record.set(Field::ClientFingerprint, &*cert.sha1);
        }
    }

    /// Another alarm, for something on it that waits by itself.
    pub(super) fn new_alarm(&self) -> Arc<Alarm> {
        self.open.all.alarms.alarm()
    }

    /// What all connections' alarms go by.
    pub(crate) fn alarms(&self) -> &Alarms {
        &self.open.all.alarms
    }
}

/// The connections of the process: how many are open, and word when the last is gone.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicUsize,
    listening: AtomicUsize,
    serial: AtomicU64,
    /// Milliseconds: see [`Connections::linger_for`].
    linger_ms: AtomicU64,
    /// See [`Connections::pass_on`].
    passed_on: AtomicBool,
    idle: Notify,
    alarms: Arc<Alarms>,
    addresses: Arc<PerAddress>,
    pub(super) mentions: Mentions,
}

impl Connections {
    /// Has the current runtime look after their time, and not that of the first connection, which may be busy.
    pub fn watch(&self) {
        self.alarms.watch();
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Waits until none is open and none can come any more.
    pub async fn all_closed(&self) {
        loop {
            let closed = self.idle.notified();
            if self.open() == 0 && self.listening.load(Ordering::Relaxed) == 0 {
                return;
            }
            closed.await;
        }
    }

    /// How long idle connections are still answered on once the process drains: a request that is on its way gets its
    /// answer (with `Connection: close`) instead of a reset.
    pub fn linger_for(&self, time: Duration) {
        self.linger_ms.store(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms.load(Ordering::Relaxed))
    }

    /// Another process accepts on the same sockets from now on: those who are not accepted here come to it.
    pub fn pass_on(&self) {
        self.passed_on.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_passed_on(&self) -> bool {
        self.passed_on.load(Ordering::Relaxed)
    }

    /// Counts a new connection, unless `most` are open already.
    pub(crate) fn admit(
        self: &Arc<Self>,
        most: usize,
        metrics: &Arc<ListenerMetrics>,
    ) -> Result<OpenGuard, TurnedAway> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        if before >= most {
            self.release();
            return Err(TurnedAway::Connections);
        }
        if before >= SMALL_PAGES_FROM {
            pages::prefer_small(true);
        }
        let serial = self.serial.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(OpenGuard { all: self.clone(), serial, place: None, is_shed: false, _metrics: metrics.open() })
    }

    /// Ends those that have idled longest, at most so many: what they hold is needed elsewhere.
    pub fn end_idle(&self, most: usize) {
        self.alarms.end_idle(most);
    }

    /// Counts a connection that is closed unheard, and says so if it was not said lately.
    pub(crate) fn turned_away(&self, why: TurnedAway, metrics: &Arc<ListenerMetrics>, peer: &Peer) {
        self.mentions.turned_away(why, metrics, peer);
    }

    /// Connections may come from now on, until the guard is dropped.
    pub(crate) fn listen(self: &Arc<Self>) -> ListenGuard {
        self.listening.fetch_add(1, Ordering::Relaxed);
        ListenGuard(self.clone())
    }

    fn release(&self) {
        let before = self.open.fetch_sub(1, Ordering::Relaxed);
        if before == 1 {
            self.idle.notify_waiters();
        }
        if before <= SMALL_PAGES_FROM / 2 {
            pages::prefer_small(false);
        }
    }
}

/// Open connections from which on memory for more of them is to be just what they touch.
const SMALL_PAGES_FROM: usize = 512;

/// Counts one connection as open until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenGuard {
    all: Arc<Connections>,
    serial: u64,
    /// Among those of its client's address.
    place: Option<Place>,
    /// See [`Connection::is_shed`].
    pub(super) is_shed: bool,
    _metrics: OpenConnection,
}

impl OpenGuard {
    /// Counts it among the connections of `address`, unless there are `most` already; 0 is no limit.
    pub(crate) fn count_for(&mut self, address: IpAddr, most: usize) -> Result<(), TurnedAway> {
        self.place = Some(self.all.addresses.take(address, most).ok_or(TurnedAway::Address)?);
        Ok(())
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.all.release();
    }
}

/// Counts one listener until it is dropped.
#[derive(Debug)]
pub(crate) struct ListenGuard(Arc<Connections>);

impl Drop for ListenGuard {
    fn drop(&mut self) {
        if self.0.listening.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// One request being served: what `ingress` and the proxy's hooks tell each other.
#[derive(Debug)]
pub struct Exchange {
    /// The connection it came on.
    pub connection: Arc<Connection>,
    /// When its first byte arrived.
    pub began: Instant,
    /// Length of its head as received; 0 for HTTP/2, which compresses it.
    pub head_bytes: u64,
    /// Serial number of the request on its connection, from 1.
    pub serial: u64,
    /// [`Connection::bytes_written`] when it began.
    pub bytes_written_before: u64,
    /// The moment of [`Connection::alarms`] at which it is cut off; 0 = never. See [`Exchange::cut_off_at`].
    cut_off: AtomicU64,
    silence: Silence,
    /// Bytes a second that a body must move at least; 0 = any. See [`Exchange::demand`].
    body_rate: AtomicU64,
    pub(crate) body_malformed: AtomicBool,
    body_too_slow: AtomicBool,
    reader_too_slow: AtomicBool,
    /// Set when the client asked for an upgrade: bytes flow unframed.
    pub upgrade: bool,
    /// Whether the client wants the connection closed after it.
    pub last: bool,
    /// Whether the stream ended with the request's head: over HTTP/2 nothing in the head says that.
    pub ends_with_head: bool,
    /// Whether the connection may carry another request although Pingora lets go of it: see [`Exchange::keep`].
    keep: AtomicBool,
    /// Where the stream puts itself then.
    returned: Mutex<Option<Stream>>,
    prepared: Mutex<Prepared>,
    /// A panic ended it.
    broken: AtomicBool,
    last_word: Mutex<Option<Box<LastWord>>>,
}

/// What the client of a request that a panic ended is told, if there is still room for an answer.
#[derive(Debug, Clone)]
pub struct LastWord {
    /// As it is logged.
    pub request_id: RequestId,
    /// How errors are written for this client.
    pub form: Form,
    /// An answer to it has no body.
    pub is_head: bool,
    /// The listener's `Strict-Transport-Security`.
    pub hsts: Option<HeaderValue>,
    /// The request is recorded.
    pub recorded: bool,
}

/// What the proxy has worked out for a request before Pingora gets it; see [`Exchange::prepare`].
#[derive(Default)]
struct Prepared(Option<Box<dyn Any + Send>>);

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prepared")
    }
}

tokio::task_local! {
    pub(crate) static EXCHANGE: Arc<Exchange>;
}

/// The request that the current task serves; `None` outside of `ingress` (unit tests of hooks).
pub fn exchange() -> Option<Arc<Exchange>> {
    EXCHANGE.try_with(Arc::clone).ok()
}

impl Exchange {
    pub(crate) fn new(connection: Arc<Connection>, began: Instant, head_bytes: u64, upgrade: bool) -> Self {
        let written = connection.bytes_written.load(Ordering::Relaxed);
        let serial = connection.requests.fetch_add(1, Ordering::Relaxed) + 1;
        Self {
            connection,
            began,
            head_bytes,
            serial,
            bytes_written_before: written,
            cut_off: AtomicU64::new(0),
            silence: Silence::default(),
            body_rate: AtomicU64::new(0),
            body_malformed: AtomicBool::new(false),
            body_too_slow: AtomicBool::new(false),
            reader_too_slow: AtomicBool::new(false),
            upgrade,
            last: false,
            ends_with_head: false,
            keep: AtomicBool::new(false),
            returned: Mutex::new(None),
            prepared: Mutex::new(Prepared::default()),
            broken: AtomicBool::new(false),
            last_word: Mutex::default(),
        }
    }

    /// A panic has ended it: what is still dropped of it is part of that.
    pub(crate) fn note_panic(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Whether a panic ends or has ended it.
    pub fn is_broken(&self) -> bool {
        std::thread::panicking() || self.broken.load(Ordering::Relaxed)
    }

    /// Leaves what its client is to be told, for who catches the panic that ends it.
    pub fn leave_word(&self, word: LastWord) {
        *self.last_word.lock() = Some(Box::new(word));
    }

    /// What was left by [`Exchange::leave_word`]: by whoever had begun to record it.
    pub fn last_word(&self) -> Option<LastWord> {
        self.last_word.lock().as_deref().cloned()
    }

    /// Whether nothing of an answer to it has been written to an HTTP/1 connection.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.connection.bytes_written.load(Ordering::Relaxed) == self.bytes_written_before
    }

    /// Says when the request is to be cut off at the latest; `None` lifts it. Hooks move it as the request proceeds.
    pub fn cut_off_at(&self, at: Option<Instant>) {
        self.cut_off.store(at.map_or(0, |at| self.connection.alarms().moment(at)), Ordering::Relaxed);
    }

    /// Cuts the request off now, whoever asks for it. If a cut-off was set before, however late, its task is woken.
    pub fn end_now(&self) {
        self.cut_off_at(Some(clock::now()));
        self.connection.alarm.nudge();
    }

    /// Has the stream watch over the server, which may say nothing for `longest`; `None` ends the watch. What the stream
    /// finds is told by [`Exchange::take_silence`], after it has ended the request's wait with a time-out of its own.
    ///
    /// Only while the client's side is read, which the proxy does from the time when there is a connection to a server.
    pub fn watch_server(&self, longest: Option<Duration>) {
        self.silence.watch(longest);
        self.server_spoke();
    }

    /// Has the watch allow for `longest` from now on, if there is one.
    pub fn watch_longer(&self, longest: Duration) {
        if self.silence.moment().is_some() {
            self.watch_server(Some(longest));
        }
    }

    /// The server said something, or something else was waited for.
    pub fn server_spoke(&self) {
        self.silence.restart(self.connection.alarms());
    }

    /// Whether the server was silent for too long. Asking ends the watch.
    pub fn take_silence(&self) -> bool {
        self.silence.take()
    }

    /// Says how fast bodies must move in both directions, in bytes a second; 0 = as they like, for streams.
    pub fn demand(&self, rate: u64) {
        self.body_rate.store(rate, Ordering::Relaxed);
    }

    /// What was demanded.
    pub(crate) fn body_rate(&self) -> u64 {
        self.body_rate.load(Ordering::Relaxed)
    }

    /// The client sent its body more slowly than was demanded, and was given up.
    pub fn is_body_too_slow(&self) -> bool {
        self.body_too_slow.load(Ordering::Relaxed)
    }

    pub(crate) fn note_body_too_slow(&self) {
        self.body_too_slow.store(true, Ordering::Relaxed);
    }

    /// The client took the answer in too slowly, or not at all, and was given up.
    pub fn is_reader_too_slow(&self) -> bool {
        self.reader_too_slow.load(Ordering::Relaxed)
    }

    pub(crate) fn note_reader_too_slow(&self) {
        self.reader_too_slow.store(true, Ordering::Relaxed);
    }

    /// The request was read to its end and answered whole: the connection is in a known state. Pingora closes it after
    /// an upstream's failure all the same; said here, it is kept.
    pub fn keep(&self) {
        self.keep.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.keep.load(Ordering::Relaxed)
    }

    pub(crate) fn put_back(&self, stream: Stream) {
        *self.returned.lock() = Some(stream);
    }

    pub(crate) fn take_back(&self) -> Option<Stream> {
        self.returned.lock().take()
    }

    /// Keeps what was worked out for this request until Pingora's first hook asks for it.
    pub fn prepare(&self, work: Box<dyn Any + Send>) {
        self.prepared.lock().0 = Some(work);
    }

    /// What was kept by [`Exchange::prepare`].
    pub fn take_prepared(&self) -> Option<Box<dyn Any + Send>> {
        self.prepared.lock().0.take()
    }

    /// Whether the request body broke its framing.
    pub fn is_body_malformed(&self) -> bool {
        self.body_malformed.load(Ordering::Relaxed)
    }

    /// When the request is to be cut off, if ever.
    pub(crate) fn cut_off(&self) -> Option<Instant> {
        self.cut_off_moment().and_then(|moment| self.connection.alarms().instant(moment))
    }

    /// The same, and its moment of [`Connection::alarms`].
    pub(crate) fn cut_off_at_moment(&self) -> Option<(u64, Instant)> {
        let moment = self.cut_off_moment()?;
        Some((moment, self.connection.alarms().instant(moment)?))
    }

    /// The same as a moment of [`Connection::alarms`].
    fn cut_off_moment(&self) -> Option<u64> {
        Some(self.cut_off.load(Ordering::Relaxed)).filter(|moment| *moment != 0)
    }

    /// The moment of [`Connection::alarms`] at which what the client's side waits for is to be given up, if ever.
    pub(crate) fn wait_ends(&self) -> Option<u64> {
        match (self.cut_off_moment(), self.silence.moment()) {
            (Some(cut_off), Some(silence)) => Some(cut_off.min(silence)),
            (one, other) => one.or(other),
        }
    }

    /// The same, and when that is.
    pub(crate) fn wait_ends_at(&self) -> Option<(u64, Instant)> {
        let moment = self.wait_ends()?;
        Some((moment, self.connection.alarms().instant(moment)?))
    }

    /// Whether it is given up now that `moment`, which [`Exchange::wait_ends`] gave, has come.
    pub(crate) fn is_wait_over(&self, moment: u64) -> bool {
        self.cut_off_moment().is_some_and(|cut_off| cut_off <= moment)
            || self.silence.is_over(self.connection.alarms())
    }
}
