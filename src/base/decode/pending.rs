//! Keys of the configuration language that this version has not built.
//!
//! They are refused like any unknown key, never accepted and ignored; the message says that it is the version, not the
//! reader, who lacks something. A feature that gets built takes its line out.

/// Whether `key` of the table at `table` (`upstreams.*`, empty for the whole file) belongs to a later version.
pub(super) fn is_pending(table: &str, key: &str) -> bool {
    PENDING.iter().any(|(place, keys)| *place == table && keys.contains(&key))
}

const ROUTE: &[&str] = &["cache", "compress", "split", "split_by", "mirror", "grpc"];

const PENDING: &[(&str, &[&str])] =
    &[("", &["cache"]), ("routes", ROUTE), ("defaults", ROUTE), ("routes.aggregate.legs", &["grpc"])];
