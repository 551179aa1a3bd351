//! What is counted for each route.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use http::Method;

use super::cells::{BYTES, Codes, Counter, Gauge, Histogram, SECONDS};
use crate::base::reason::Reason;

/// The metrics of one route. Recording takes a handful of relaxed atomic additions, no lock and no lookup by name.
///
/// Ten thousand routes are cheap: what a route never saw takes no memory. A (route, method) pair costs about 300 bytes
/// from its first request on, a further status class under 250.
#[derive(Debug)]
pub struct RouteMetrics {
    pub(super) name: Box<str>,
    pub(super) in_flight: Gauge,
    pub(super) sizes: OnceLock<Box<Sizes>>,
    pub(super) methods: [OnceLock<Box<MethodMetrics>>; METHODS.len()],
    pub(super) auth_failures: OnceLock<Box<AuthFailures>>,
    /// One bit for each of [`METHODS`]: shown at 0 before the first request.
    expected: AtomicU16,
}

/// `method` as a label: the methods HTTP knows, and one word for all others.
pub(super) const METHODS: [&str; 11] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "QUERY", "_OTHER"];

/// What was shown to prove who it is.
pub(super) const SCHEMES: [&str; 4] = ["none", "jwt", "api_key", "mtls"];

/// Why that did not do.
pub(super) const AUTH_REASONS: [Reason; 13] = [
    Reason::CredentialsRequired,
    Reason::CertificateRequired,
    Reason::CredentialsAmbiguous,
    Reason::TokenMalformed,
    Reason::TokenInvalid,
    Reason::TokenExpired,
    Reason::TokenNotYetValid,
    Reason::TokenRevoked,
    Reason::KeysUnavailable,
    Reason::ApiKeyInvalid,
    Reason::RoleMissing,
    Reason::ScopeMissing,
    Reason::RuleDenied,
];

/// By [`SCHEMES`] and [`AUTH_REASONS`]; made at the first failure.
#[derive(Debug, Default)]
pub(super) struct AuthFailures(pub(super) [[Counter; AUTH_REASONS.len()]; SCHEMES.len()]);

#[derive(Debug)]
pub(super) struct Sizes {
    pub(super) request: Histogram,
    pub(super) response: Histogram,
}

#[derive(Debug)]
pub(super) struct MethodMetrics {
    pub(super) duration: Histogram,
    pub(super) codes: Codes,
}

impl RouteMetrics {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            in_flight: Gauge::default(),
            sizes: OnceLock::new(),
            methods: Default::default(),
            auth_failures: OnceLock::new(),
            expected: AtomicU16::new(0),
        }
    }

    /// The route's name, the value of the label `route`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shows the request counter of `method` at 0 before the first request, so that a rate over it sees that one too.
    /// Called when compiled, for the methods the route names.
    pub fn expect(&self, method: &Method) {
        self.expected.fetch_or(1 << method_index(method), Relaxed);
    }

    /// A request begins: it counts as in flight until the guard is dropped.
    #[must_use = "the request counts as in flight until this is dropped"]
    pub fn start(self: &Arc<Self>) -> InFlight {
        self.in_flight.add(1);
        InFlight { route: Arc::clone(self) }
    }

    /// A request has ended, one way or another: once per request.
    ///
    /// `seconds` runs from the first byte of the request to the last of the answer; `status` is what the client was
    /// (or would have been) sent, 499 if it left; the sizes are those of the bodies, as transferred.
    pub fn finish(
        &self,
        method: &Method,
        status: u16,
        seconds: f64,
        request_body_bytes: u64,
        response_body_bytes: u64,
    ) {
        if let Some(cell) = self.methods.get(method_index(method)) {
            let method = cell.get_or_init(Default::default);
            method.codes.inc(status);
            method.duration.observe(seconds);
        }
        let sizes = self.sizes.get_or_init(Default::default);
        sizes.request.observe_ticks(request_body_bytes);
        sizes.response.observe_ticks(response_body_bytes);
    }

    /// A request was refused for who it is from, or is not: `scheme` is `none`, `jwt`, `api_key` or `mtls`.
    pub fn auth_failed(&self, scheme: &str, reason: Reason) {
        let scheme = SCHEMES.iter().position(|known| *known == scheme).unwrap_or(0);
        let reason = AUTH_REASONS.iter().position(|known| *known == reason);
        let row = self.auth_failures.get_or_init(Default::default).0.get(scheme);
        if let Some(counter) = row.zip(reason).and_then(|(row, reason)| row.get(reason)) {
            counter.inc();
        }
    }

    pub(super) fn expects(&self, method: usize) -> bool {
        self.expected.load(Relaxed) & (1 << method) != 0
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self { request: Histogram::new(&BYTES), response: Histogram::new(&BYTES) }
    }
}

impl Default for MethodMetrics {
    fn default() -> Self {
        Self { duration: Histogram::new(&SECONDS), codes: Codes::default() }
    }
}

/// One request in flight on a route.
#[derive(Debug)]
pub struct InFlight {
    route: Arc<RouteMetrics>,
}

impl InFlight {
    /// The route it is counted on.
    pub fn route(&self) -> &RouteMetrics {
        &self.route
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.route.in_flight.add(-1);
    }
}

fn method_index(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::PATCH => 4,
        Method::DELETE => 5,
        Method::OPTIONS => 6,
        Method::CONNECT => 7,
        Method::TRACE => 8,
        _ if method.as_str() == "QUERY" => 9,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_method_has_its_own_label() {
        for (index, name) in METHODS.iter().enumerate() {
            assert_eq!(method_index(&Method::from_bytes(name.as_bytes()).unwrap()), index);
        }
        assert_eq!(method_index(&Method::from_bytes(b"get").unwrap()), 10);
    }
}
