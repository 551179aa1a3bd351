//! Who a request is from: tokens verified, keys and consumers known, sessions issued and revoked, usage counted.
//!
//! Policies ask here; nothing here knows routes or requests.

pub mod cache;
pub mod config;
pub mod consumer;
pub mod consumers;
pub mod directory;
pub mod forms;
pub mod jwks;
pub mod jwt;
pub mod keys;
pub mod live;
pub mod login;
pub mod password;
pub mod principal;
pub mod provider;
pub mod revoked;
pub mod signing;
pub mod sync;
pub mod token;
pub mod usage;
