//! Composition root and process life: what is built in which order, who is told what, and how it ends.
//!
//! ```text
//! configuration ─► sockets bound ─► pid file, control socket ─► data plane: a runtime of `server.threads` workers
//!                                                            └► control plane: this thread: signals, control socket,
//!                                                               admin listener, health checks, name resolution
//! ```
//! Two runtimes, so that a busy data plane cannot starve `/readyz` or a signal.

pub mod control;
mod descriptors;
mod lifecycle;
mod pid_file;
mod server;
mod user;

pub use lifecycle::{Command, Ending, Lifecycle};
pub use server::{Server, StartError};
