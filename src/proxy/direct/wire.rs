//! Bodies of chunks (RFC 9112 section 7.1), as they are written.

use std::io::Write;

use bytes::BufMut;

/// What ends a body of chunks.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A piece of a body that goes by chunks or as it is.
pub(super) fn write_piece(data: &[u8], chunked: bool, out: &mut Vec<u8>) {
    if chunked { write_chunk(data, out) } else { out.extend_from_slice(data) }
}

/// One chunk; nothing for no data, as an empty chunk is the last.
pub(super) fn write_chunk(data: &[u8], out: &mut impl BufMut) {
    if data.is_empty() {
        return;
    }
    // Writing to memory cannot fail.
    let _written = write!(out.writer(), "{:x}\r\n", data.len());
    out.put_slice(data);
    out.put_slice(b"\r\n");
}
