//! The field lines of an HTTP/1 head: read as a map, whose values are parts of the buffer they came in, and written.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::octets::{is_token, trim};

/// Fields of a head whose number nobody has looked at yet. Each costs an entry of the map.
const FIELDS_MAX: usize = 256;

/// Reads the lines of `head` from `at` to the empty line that ends it. A space before a colon is taken away, as it has to
/// be from answers (RFC 9112 section 5.1); requests with one were refused before.
///
/// # Errors
/// What is wrong: a line that is no field, or continues the one before, or holds a control byte.
pub fn read(head: &Bytes, mut at: usize) -> Result<HeaderMap, &'static str> {
    let mut headers = HeaderMap::with_capacity(12);
    loop {
        let rest = head.get(at..).unwrap_or_default();
        let end = memchr::memchr(b'\n', rest).ok_or("the head has no end")?;
        let line = rest.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        at += end + 1;
        if line.is_empty() {
            return Ok(headers);
        }
        let colon = memchr::memchr(b':', line).ok_or("a header line without a colon")?;
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        // Not what else passes for a space elsewhere, which would make a name of one that others do not know.
        let name = trim(name);
        if !is_token(name) {
            return Err("a header name that is not a token, or a folded line");
        }
        let name = HeaderName::from_bytes(name).map_err(|_| "a header name that is too long")?;
        let value = head.slice_ref(trim(value.get(1..).unwrap_or_default()));
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| "a control byte in a header")?;
        if headers.len() >= FIELDS_MAX || headers.try_append(name, value).is_err() {
            return Err("too many headers");
        }
    }
}

/// Titles the name of a field as HTTP/1 writes it, which some old clients and servers insist on.
pub fn write_fields(headers: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in headers {
        write_field(name.as_str().as_bytes(), value.as_bytes(), out);
    }
}

/// One field line; `name` in lower case.
pub fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 4);
    let mut starts = true;
    out.extend(name.iter().map(|byte| {
        let titled = if starts { byte.to_ascii_uppercase() } else { *byte };
        starts = *byte == b'-';
        titled
    }));
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
