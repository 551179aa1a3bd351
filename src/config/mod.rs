//! From TOML files to the immutable snapshot that requests run on.

pub mod tls;
