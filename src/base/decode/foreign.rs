//! What keys are called by people who come from nginx, or from elsewhere.

/// The keys that say what others say with `directive`; which of them depends on the table.
pub(super) fn same(directive: &str) -> &'static [&'static str] {
    DIRECTIVES.iter().find(|(known, _)| *known == directive).map_or(&[], |(_, keys)| keys)
}

const DIRECTIVES: &[(&str, &[&str])] = &[
    ("proxy_pass", &["upstream"]),
    ("server_name", &["hosts", "sni"]),
    ("proxy_ssl_name", &["sni"]),
    ("listen", &["address"]),
    ("port", &["address"]),
    ("tls", &["certificates"]),
    ("ssl", &["certificates", "tls"]),
    ("location", &["path"]),
    ("code", &["status"]),
    ("ssl_certificate", &["cert"]),
    ("ssl_certificate_key", &["key"]),
    ("worker_processes", &["threads"]),
    ("client_max_body_size", &["body_bytes"]),
    ("root", &["files"]),
    ("return", &["redirect", "respond"]),
];
