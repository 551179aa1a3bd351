//! Edgeward: an API gateway and edge proxy on Pingora. `ARCHITECTURE.md` says what lives where and why.
//!
//! Folders are the architecture; imports point one way, and `tests/it/tidy.rs` holds that:
//! `cli → app → {proxy, admin} → ingress → config → subrequest → {policy, upstream, files} → identity → {store, cluster} →
//! routing → telemetry → base`.

#![cfg_attr(
    not(any(test, feature = "fuzzing")),
    deny(clippy::get_unwrap, clippy::string_slice, clippy::unreachable)
)]

pub mod admin;
pub mod app;
pub mod base;
pub mod broker;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod files;
pub mod identity;
pub mod import;
pub mod ingress;
#[cfg(any(test, feature = "fuzzing"))]
pub mod invariants;
pub mod policy;
pub mod proxy;
pub mod routing;
pub mod store;
pub mod subrequest;
pub mod telemetry;
pub mod upstream;
