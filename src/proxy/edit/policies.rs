//! What policies have answers say: how limits stand, and which pages may read them. In place of what a server says under these
//! names.

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::ResponseHeader;

use crate::base::clock;
use crate::policy::cors::{self, Cors};
use crate::policy::plan;
use crate::policy::rate_limit::{self, Met};

/// Says how the limits and the quota that a request met stand, in place of what a server says of its own. Not in redirects: clients that
/// see that little is left may not follow them.
///
/// # Errors
/// As [`super::request`].
pub fn limits(head: &mut ResponseHeader, met: &[Met], planned: Option<&plan::Met>) -> Result<()> {
    let quota = planned.and_then(plan::Met::told);
    let is_redirect = head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED;
    if met.is_empty() && quota.is_none() || is_redirect {
        return Ok(());
    }
    let mut written = Ok(());
    rate_limit::fields(met, quota, clock::whole_unix_seconds(clock::wall()), |(name, value)| {
        if written.is_ok() {
            written = head.insert_header(name, value);
        }
    });
    written
}

/// Says which pages may read an answer to a request with the head `request`, or what they may send, in place of what a
/// server says of that.
///
/// # Errors
/// As [`super::request`].
pub fn cors(head: &mut ResponseHeader, cors: &Cors, request: &HeaderMap, preflight: bool) -> Result<()> {
    for name in &cors::FIELDS {
        head.remove_header(name);
    }
    let mut written = Ok(());
    let set = |name: HeaderName, value: HeaderValue| {
        if written.is_ok() {
            written = head.insert_header(name, value);
        }
    };
    if preflight {
        cors.preflight(request, set);
        return written;
    }
    cors.answer(request.get(header::ORIGIN), set);
    written?;
    if cors.varies() && !varies_by_origin(&head.headers) {
        head.append_header(header::VARY, HeaderValue::from_static("Origin"))?;
    }
    Ok(())
}

fn varies_by_origin(headers: &HeaderMap) -> bool {
    let names = headers.get_all(header::VARY).iter();
    let mut names =
        names.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
}
