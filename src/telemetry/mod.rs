//! What is seen from outside: metrics, access records and their formats, the process log, trace context; and what of it
//! goes to a message broker.
//!
//! Names no Pingora type. The proxy fills an access record and calls metric handles that were resolved when the
//! configuration was compiled; nothing here blocks the request path.

pub mod access;
pub mod bus;
pub mod log;
pub mod metrics;
mod random;
pub mod request_id;
pub mod trace;
