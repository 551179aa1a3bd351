//! Connections, from accept(2) to the proxy: sockets, TLS, deadlines, strict heads, keep-alive.
//!
//! ```text
//! listen (bind) ─► accept ─► PROXY header ─► TLS ─► http1 ─► head scanned ─┬─► Direct::serve, else
//!                     │                        └─► http2 ─► streams ──────┼─► HttpProxy::process_new_http
//!                     └─ over a cap: closed                               └─► refuse: 4xx, logged, counted
//! ```
//! Nothing outside may know how far this goes: the proxy sees [`connection::Exchange`] and Pingora's session, or the
//! stream that a message is read from and answered on.

pub mod connection;
pub mod frames;
pub mod head;
pub mod listen;
pub mod plain;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod alone;

mod accept;
mod alarm;
mod broken;
mod cut_off;
mod edge;
mod ends;
mod http1;
mod http2;
mod http2_events;
mod http2_head;
mod http2_outlet;
mod http2_side;
mod http2_stream;
mod http2_wire;
mod pace;
mod per_address;
pub(crate) mod proxy_header;
mod refuse;
mod silence;
mod stream;
mod transport;
mod turned_away;

pub use accept::serve;
pub use edge::{Direct, Edge, Rules, Served};
pub use ends::ProxyAddresses;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use http2_head::check as check_http2_head;
pub use http2_side::Http2Side;
pub use stream::EdgeStream;
