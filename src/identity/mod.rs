//! Who a request is from: tokens verified, keys and consumers known, sessions issued and revoked.
//!
//! Policies ask here; nothing here knows routes or requests.

pub mod consumer;
pub mod principal;
pub mod token;
