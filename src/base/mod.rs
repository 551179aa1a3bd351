//! What every other module stands on and what stands on none of them.

pub mod authority;
pub mod claim;
pub mod client_cert;
pub mod clock;
pub mod decode;
pub mod diagnostic;
pub mod fault;
pub mod names;
pub mod origin;
pub mod out;
pub mod panics;
pub mod peer;
pub mod pressure;
pub mod problem;
pub mod quality;
pub mod reason;
pub mod registry;
pub mod respond;
pub mod secret;
pub mod seldom;
pub mod service;
pub mod task;
pub mod units;
pub mod veil;
pub mod wire;
