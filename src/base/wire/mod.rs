//! HTTP/1 as bytes: what everything that reads or writes it shares, on the client's side and on the servers'.

pub mod chunked;
pub mod fields;
pub mod octets;
