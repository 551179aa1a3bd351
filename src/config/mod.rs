//! From TOML files to the immutable snapshot that requests run on.

pub mod files;
mod pairs;
pub mod process;
pub mod render;
pub mod settings;
pub mod snapshot;
pub mod tls;
