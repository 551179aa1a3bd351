//! `[cluster]`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::url::{RedisText, RedisUrl};
use crate::base::decode::{ConfigPath, Value};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::Origin;
use crate::keys;

/// Shortest and longest wait for Redis that makes sense on the way of a request.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// Longest that permits may be worth which an instance takes at once: the error of such limits grows with it.
const LEASE_MAX: Duration = Duration::from_secs(1);
/// Longest prefix: it is part of every key.
const PREFIX_BYTES_MAX: usize = 64;

keys! {
    /// What instances share over Redis: counters of limits, and revocations.
    pub struct ClusterRaw {
        /// Where Redis is: `redis://USER:PASSWORD@HOST:PORT/DATABASE`, `rediss://` with TLS; also { env = "NAME" }.
        redis: upgrade required RedisText,
        /// What the names of all keys in Redis begin with: one for each group of instances.
        prefix: upgrade String = "edgeward:".to_owned(),
        /// PEM file of the authorities that sign the certificate of a `rediss://` server; absent = those of the system.
        ca: upgrade optional ConfigPath,
        /// How long a request waits for Redis at most; then its limits do as their `on_store_failure` says.
        timeout: upgrade Duration = Duration::from_millis(20),
        /// Limits above 1000 requests a second are counted in batches worth this long, at most one batch of error for
        /// each instance; 0 = each request on its own.
        lease: upgrade Duration = Duration::from_millis(10),
    }
}

/// `[cluster]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Where Redis is.
    pub redis: RedisUrl,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// The authorities of its certificate, in PEM.
    pub ca: Option<Vec<u8>>,
    /// Longest wait for an answer on the way of a request.
    pub timeout: Duration,
    /// What a batch of permits is worth; zero = no batches.
    pub lease: Duration,
}

impl ClusterSettings {
    /// Tells apart what is not shown: passwords, and what files contain.
    pub fn content(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.redis.exposed(), &self.ca).hash(&mut hasher);
        hasher.finish()
    }
}

impl ClusterRaw {
    /// The settings; reads the file of authorities. `origin` is the place of the table: that of the URL would show the
    /// password.
    pub fn compile(&self, origin: &Origin, out: &mut Diagnostics) -> Option<ClusterSettings> {
        let redis = RedisUrl::parse(self.redis.0.expose()).map_err(|why| {
            out.error("invalid-value", origin, "cluster.redis", format!("the URL of Redis {why}"))
                .hint("such as \"redis://127.0.0.1:6379\" or \"rediss://user:password@host/0\"");
        });
        let is_tls = redis.as_ref().is_ok_and(RedisUrl::is_tls);
        if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&*self.timeout) {
            let message = format!("{} is not between \"1ms\" and \"5s\"", self.timeout.value.render());
            out.error("invalid-value", &self.timeout.origin, "cluster.timeout", message);
        }
        if *self.lease > LEASE_MAX {
            let message = format!("{} is more than \"1s\"", self.lease.value.render());
            out.error("invalid-value", &self.lease.origin, "cluster.lease", message);
        }
        let prefix = &self.prefix;
        if prefix.is_empty()
            || prefix.len() > PREFIX_BYTES_MAX
            || prefix.chars().any(|c| c.is_control() || c == ' ')
        {
            let message = format!("the prefix must be 1 to {PREFIX_BYTES_MAX} bytes without spaces");
            out.error("invalid-value", &prefix.origin, "cluster.prefix", message);
        }
        if let Some(ca) = self.ca.as_ref().filter(|_| redis.is_ok() && !is_tls) {
            let message = "\"ca\" does nothing here: the connection has no TLS";
            out.error("unused-key", &ca.origin, "cluster.ca", message)
                .hint("write rediss:// in `redis` for a connection with TLS");
        }
        let ca = self.ca.as_ref().and_then(|path| match std::fs::read(&path.value.0) {
            Ok(pem) => Some(pem),
            Err(error) => {
                let message = format!("cannot read {}: {error}", path.value.0.display());
                out.error("unreadable-file", &path.origin, "cluster.ca", message);
                None
            }
        });
        Some(ClusterSettings {
            redis: redis.ok()?,
            prefix: prefix.value.clone(),
            ca,
            timeout: *self.timeout,
            lease: *self.lease,
        })
    }
}
