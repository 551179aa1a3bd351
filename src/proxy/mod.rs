//! The data plane: the only `ProxyHttp` implementation.

pub mod client;
pub mod edit;
mod names;
