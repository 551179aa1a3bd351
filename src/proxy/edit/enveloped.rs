//! Heads of answers whose body is put into an envelope.

use http::header::{self, HeaderName, HeaderValue};
use pingora::Result;
use pingora::http::ResponseHeader;

/// Takes off an answer what holds no longer when its body is put into an envelope: lengths, trailers, digests, parts, and
/// that two answers with the same tag have the same bytes (RFC 9110 section 8.8.1).
///
/// # Errors
/// As [`super::request`].
pub fn enveloped(head: &mut ResponseHeader) -> Result<()> {
    const OF_THE_BYTES: [HeaderName; 8] = [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::TRAILER,
        header::ACCEPT_RANGES,
        HeaderName::from_static("content-md5"),
        HeaderName::from_static("digest"),
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("repr-digest"),
    ];
    for name in &OF_THE_BYTES {
        head.remove_header(name);
    }
    head.insert_header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))?;
    weaken(head)
}

/// Makes a strong entity tag a weak one.
///
/// # Errors
/// As [`super::request`].
pub fn weaken(head: &mut ResponseHeader) -> Result<()> {
    let strong = head.headers.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""));
    match strong.map(|tag| [b"W/", tag.as_bytes()].concat()) {
        Some(weak) => head.insert_header(header::ETAG, weak),
        None => Ok(()),
    }
}
