//! Reads the header of the PROXY protocol, by which a proxy in front says whom it speaks for ("The PROXY protocol,
//! versions 1 & 2", haproxy's `proxy-protocol.txt`). Pure: bytes in, verdict out.
//!
//! What two readers could take in two ways is refused: whoever is behind the header would be somebody else.

mod v1;
mod v2;

use std::net::SocketAddr;

/// For whom a connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyHeader {
    /// For the proxy itself, such as a health check.
    Local,
    /// For a client without an address that we understand: `UNKNOWN`, an unspecified family, a unix socket.
    Unknown,
    /// For a client at `source`, who connected to `destination`.
    Addresses { source: SocketAddr, destination: SocketAddr },
}

/// What is known after some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// A header so far: all bytes belong to it. There are never more than 4111 of them.
    Partial,
    /// A whole header of `len` bytes; what follows is not its business.
    Complete { len: usize, header: ProxyHeader },
    /// Something else than a header.
    Missing,
    /// It begins like a header, but is none.
    Malformed(&'static str),
}

/// Judges `bytes`, all that was received on a connection.
pub(crate) fn parse(bytes: &[u8]) -> Status {
    if begins(bytes, v1::SIGNATURE) {
        v1::parse(bytes)
    } else if begins(bytes, v2::SIGNATURE) {
        v2::parse(bytes)
    } else {
        Status::Missing
    }
}

/// Whether `bytes` begin with `signature`, as far as there are any.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, expected)| byte == expected)
}

#[cfg(test)]
mod tests;
