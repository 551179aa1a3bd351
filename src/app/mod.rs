//! Composition root and process life: what is built in which order, who is told what, and how it ends.
//!
//! ```text
//! configuration ─► sockets bound ─► pid file, control socket ─► data plane: `server.threads` threads, a runtime each
//!                                                            └► control plane: this thread: signals, control socket,
//!                                                               admin listener, health checks, name resolution
//! ```
//! While it runs: `lifecycle` carries out orders, of signals, of the control socket, and of `watch`. `reload` swaps the
//! configuration; `upgrade` starts the next process and hands it the sockets (`handover`).
//!
//! The control plane has a runtime of its own, so that a busy data plane cannot starve `/readyz` or a signal; each thread of the
//! data plane has one, so that a busy connection keeps none waiting but those beside it (`base::threads`).

mod bind;
pub mod control;
pub mod descriptors;
mod fetch;
mod handover;
mod lifecycle;
mod pid_file;
mod plain;
mod pressure;
mod reload;
mod report;
mod server;
mod service_manager;
mod services;
#[cfg(test)]
mod swap_tests;
mod upgrade;
pub mod user;
mod watch;

pub use fetch::Fetcher;
pub use handover::Predecessor;
pub use lifecycle::{Command, Ending, Lifecycle, Order};
pub use reload::{Origins, Read};
pub use server::{Process, Server, StartError};
pub use upgrade::Invocation;
