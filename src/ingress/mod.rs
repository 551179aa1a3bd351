//! Connections, from accept(2) to the proxy: sockets, TLS, deadlines, strict heads, keep-alive.

pub mod chunked;
pub mod head;
mod octets;
