//! Integration tests: the real binary, real sockets, scripted servers behind it. One binary, so that it links once.
//!
//! `support` holds the scripted servers, the gateway process and the clients; each other file is one area, and each
//! test a scenario. Ports are chosen by the system, and nothing sleeps in place of a condition.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::let_underscore_must_use,
    clippy::print_stderr,
    clippy::large_futures,
    clippy::disallowed_methods,
    reason = "all of this crate is tests: a panic is a failed test, and its tasks die with it"
)]
#![allow(unreachable_pub, missing_docs, reason = "nothing outside this crate reads it")]

mod access_log;
mod aggregate;
mod amqp;
mod amqp_faults;
mod api_keys;
mod auth;
mod balancing;
mod bodies;
mod caps;
mod cli;
mod cluster;
mod cors;
mod demo;
mod direct;
mod direct_h2;
mod docs;
mod drain;
mod envelope;
mod errors;
mod examples;
mod faults;
mod files;
mod forwarding;
mod framing;
mod grpc;
mod grpc_interop;
mod h2;
mod h2_floods;
mod h2_refusals;
mod h2_spec;
mod health;
mod hostile;
mod https;
mod legs;
mod log_bus;
mod login;
mod malformed;
mod memory;
mod metrics;
mod mtls;
mod mutations;
mod nginx;
mod node_gateway;
mod nothing_dropped;
mod panics;
mod plans;
mod pressure;
#[path = "../../examples/process_life/harness/mod.rs"]
mod process_life;
mod providers;
mod proxy_protocol;
mod rate_limits;
mod reload;
mod retries;
mod routing;
mod services;
mod slow;
mod startup;
mod store;
mod support;
mod switches;
mod tidy;
mod timeouts;
mod tls;
mod tls_grade;
mod transforms;
mod upgrade;
mod websocket;
