//! What is counted for each listener.

use std::sync::Arc;

use super::cells::{Counter, Gauge, Words};

const REJECT_REASONS: &[&str] =
    &["connections", "address", "proxy_untrusted", "proxy_missing", "proxy_malformed", "proxy_timeout"];
const HANDSHAKE_REASONS: &[&str] = &["failed", "timeout", "client_certificate"];
const HTTP2_ERRORS: &[&str] = &["PROTOCOL_ERROR", "ENHANCE_YOUR_CALM"];

/// The metrics of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    pub(super) name: Box<str>,
    pub(super) open: Gauge,
    pub(super) accepted: Counter,
    pub(super) rejected: Words,
    pub(super) handshake_failures: Words,
    pub(super) http2_errors: Words,
}

impl ListenerMetrics {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            open: Gauge::default(),
            accepted: Counter::default(),
            rejected: Words::known(REJECT_REASONS),
            handshake_failures: Words::known(HANDSHAKE_REASONS),
            http2_errors: Words::known(HTTP2_ERRORS),
        }
    }

    /// The listener's name, the value of the label `listener`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A connection was accepted: it counts as open until the guard is dropped.
    #[must_use = "the connection counts as open until this is dropped"]
    pub fn open(self: &Arc<Self>) -> OpenConnection {
        self.accepted.inc();
        self.open.add(1);
        OpenConnection { listener: Arc::clone(self) }
    }

    /// A connection was closed before anything was asked on it: the limit that forbade it, such as `connections`, or
    /// what was wrong with its PROXY header.
    pub fn rejected(&self, reason: &'static str) {
        self.rejected.inc(reason);
    }

    /// A TLS handshake did not come about: `client_certificate` (missing, or not to be believed), `timeout`, or `failed`.
    pub fn handshake_failed(&self, reason: &'static str) {
        self.handshake_failures.inc(reason);
    }

    /// An HTTP/2 connection was ended by an error of its client's: the code of the GOAWAY, or `BAD_PREFACE`.
    pub fn http2_error(&self, code: &'static str) {
        self.http2_errors.inc(code);
    }
}

/// One open connection of a listener.
#[derive(Debug)]
pub struct OpenConnection {
    listener: Arc<ListenerMetrics>,
}

impl OpenConnection {
    /// The listener it is counted on.
    pub fn listener(&self) -> &Arc<ListenerMetrics> {
        &self.listener
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.listener.open.add(-1);
    }
}
