//! One request, many services: several calls whose answers become one.
//!
//! ```text
//! config ─► compile ─► Plan (a graph of legs)                          when the configuration is read
//! input ─► run (every leg as soon as its inputs are there) ─► read ─► merge or shape ─► report     for each request
//! ```
//!
//! Everything but `run` is pure, and `run` knows no transport: whoever drives it implements [`Caller`]. Dropping its future
//! drops all calls under way.

mod compile;
pub mod config;
pub mod input;
pub mod json;
pub mod merge;
pub mod outcome;
pub mod plan;
mod reach;
pub mod read;
pub mod report;
pub mod run;
pub mod shape;

#[cfg(test)]
mod tests;

pub use self::compile::{FindBroker, FindUpstream, Surroundings};
pub use self::config::AggregateRaw;
pub use self::input::{ClientBody, Inputs, Made};
pub use self::outcome::{Failure, Refusal};
pub use self::plan::{Leg, Plan, Service};
pub use self::run::{Answer, Caller, LegCall, Room, run};
