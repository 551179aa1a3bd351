//! Configurations of other gateways, translated into Edgeward's.
//!
//! Reads text and writes text: the TOML, with a comment wherever something could not be said, and a [`report`] that has
//! a row for every directive. Nothing is started, and nothing is looked up but the files that are named.

pub mod nginx;
pub mod report;
mod toml;
