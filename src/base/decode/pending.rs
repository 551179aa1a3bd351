//! Keys of the configuration language that this version has not built.
//!
//! They are refused like any unknown key, never accepted and ignored; the message says that it is the version, not the
//! reader, who lacks something. A feature that gets built takes its line out.

/// Whether `key` of the table at `table` (`upstreams.*`, empty for the whole file) belongs to a later version.
pub(super) fn is_pending(table: &str, key: &str) -> bool {
    PENDING.iter().any(|(place, keys)| *place == table && keys.contains(&key))
}

const ROUTE: &[&str] = &[
    "auth",
    "cors",
    "rate_limits",
    "cache",
    "compress",
    "when",
    "split",
    "split_by",
    "mirror",
    "amqp",
    "grpc",
    "aggregate",
];

const PENDING: &[(&str, &[&str])] = &[
    ("", &["store", "cluster", "cache", "identity", "brokers", "consumers", "plans", "rate_limits"]),
    ("server", &["watch"]),
    ("admin", &["token"]),
    ("limits", &["connections_per_address", "min_body_rate"]),
    ("listeners", &["proxy_protocol", "redirect_https", "hsts", "client_auth"]),
    ("log", &["bus"]),
    ("upstreams.*", &["max_requests", "proxy_protocol"]),
    ("upstream_defaults", &["max_requests", "proxy_protocol"]),
    ("routes.response", &["envelope"]),
    ("defaults.response", &["envelope"]),
    ("routes", ROUTE),
    ("defaults", ROUTE),
];
