//! What must hold for any bytes that a client or a file can send: the bodies of the fuzz targets (`fuzz/`), which also
//! run as property tests here, where there is no fuzzer.
//!
//! Each takes bytes and panics if something that is promised does not hold. "No panic" is the least of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "only tests and fuzzers run this, and a panic is what they look for"
)]

mod http1;
mod http2;
mod legs;
#[cfg(test)]
pub mod mutate;
#[cfg(test)]
mod mutations;
mod peer;
mod request;
mod streams;
pub mod strict;
#[cfg(test)]
mod tests;
mod tokens;
mod words;
mod written;

use http::header::{HeaderMap, HeaderName, HeaderValue};

pub use http1::{chunked, framing, head};
pub use http2::{frames, watch};
pub use legs::{leg_request, merged};
pub use peer::{broker, client_certificate, forwarded, proxy_header};
pub use request::{
    access_log, cookies, expression, file_request, login_body, route, template, trace_context,
};
pub use streams::stream;
pub use tokens::{key_set, token};
pub use written::{configuration, nginx, rows, service_rows, shape};

/// What a fuzzer runs.
#[derive(Debug)]
pub struct Body {
    /// Its name: that of its function, its target and the folder of its seeds.
    pub name: &'static str,
    /// Panics if something that is promised does not hold for these bytes.
    pub check: fn(&[u8]),
    /// Words that its inputs are made of.
    pub words: &'static [&'static str],
}

/// All bodies.
pub const BODIES: &[Body] = &[
    Body { name: "head", check: head, words: words::HEAD },
    Body { name: "chunked", check: chunked, words: words::CHUNKS },
    Body { name: "framing", check: framing, words: words::MESSAGE },
    Body { name: "stream", check: stream, words: words::STREAM },
    Body { name: "frames", check: frames, words: words::FRAMES },
    Body { name: "configuration", check: configuration, words: words::TOML },
    Body { name: "route", check: route, words: words::PATHS },
    Body { name: "access_log", check: access_log, words: words::LOG },
    Body { name: "token", check: token, words: words::TOKEN },
    Body { name: "key_set", check: key_set, words: words::KEYS },
    Body { name: "forwarded", check: forwarded, words: words::NODES },
    Body { name: "merged", check: merged, words: words::JSON },
    Body { name: "template", check: template, words: words::TEMPLATES },
    Body { name: "cookies", check: cookies, words: words::COOKIES },
    Body { name: "trace_context", check: trace_context, words: words::TRACES },
    Body { name: "expression", check: expression, words: words::EXPRESSIONS },
    Body { name: "login_body", check: login_body, words: words::LOGINS },
    Body { name: "file_request", check: file_request, words: words::RANGES },
    Body { name: "proxy_header", check: proxy_header, words: words::PROXIES },
    Body { name: "client_certificate", check: client_certificate, words: &[] },
    Body { name: "broker", check: broker, words: words::BROKERS },
    Body { name: "shape", check: shape, words: words::SHAPES },
    Body { name: "service_rows", check: service_rows, words: words::ROWS },
    Body { name: "nginx", check: nginx, words: words::NGINX },
    Body { name: "leg_request", check: leg_request, words: words::VALUES },
];

/// Cuts `bytes` into pieces, where its first bytes say: so that a fuzzer chooses them, too.
fn pieces(bytes: &[u8]) -> (Vec<usize>, &[u8]) {
    let Some((count, rest)) = bytes.split_first() else { return (Vec::new(), bytes) };
    let count = usize::from(count % 8).min(rest.len());
    let (cuts, rest) = rest.split_at(count);
    let mut ends: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) % (rest.len() + 1)).collect();
    ends.push(rest.len());
    ends.sort_unstable();
    (ends, rest)
}

/// Likewise into lines of a header; `None` where one of them can be none.
fn lines(name: &HeaderName, bytes: &[u8]) -> Option<HeaderMap> {
    let (ends, bytes) = pieces(bytes);
    let (mut lines, mut at) = (HeaderMap::new(), 0);
    for end in ends {
        lines.append(name, HeaderValue::from_bytes(&bytes[at..end]).ok()?);
        at = end;
    }
    Some(lines)
}

/// Likewise into `N` parts; those that nothing is left for are empty.
fn cut<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let (ends, bytes) = pieces(bytes);
    let mut at = 0;
    std::array::from_fn(|number| {
        let end = ends.get(number).copied().unwrap_or(at);
        let part = &bytes[at..end];
        at = end;
        part
    })
}
