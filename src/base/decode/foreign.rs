//! What keys are called by people who come from nginx, or from elsewhere.

/// The keys that say what others say with `word`; which of them depends on the table.
pub(super) fn same(word: &str) -> impl Iterator<Item = &'static str> {
    directive(word).iter().chain(keys_of(WORDS, word)).copied()
}

/// The same of words that nginx alone has: they mean that in any table.
pub(super) fn directive(word: &str) -> &'static [&'static str] {
    keys_of(DIRECTIVES, word)
}

type Keys = (&'static str, &'static [&'static str]);

fn keys_of(table: &[Keys], word: &str) -> &'static [&'static str] {
    table.iter().find(|(known, _)| *known == word).map_or(&[], |(_, keys)| keys)
}

/// Words that anybody may have, for many things.
const WORDS: &[Keys] =
    &[("port", &["address"]), ("tls", &["certificates"]), ("ssl", &["certificates", "tls"])];

const DIRECTIVES: &[Keys] = &[
    ("proxy_pass", &["upstream"]),
    ("server_name", &["hosts", "sni"]),
    ("proxy_ssl_name", &["sni"]),
    ("listen", &["address"]),
    ("location", &["path"]),
    ("code", &["status"]),
    ("ssl_certificate", &["cert"]),
    ("ssl_certificate_key", &["key"]),
    ("worker_processes", &["threads"]),
    ("client_max_body_size", &["body_bytes"]),
    ("root", &["files"]),
    ("return", &["redirect", "respond"]),
];
