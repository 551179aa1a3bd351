//! `[store]`.

use super::StoreUrl;
use crate::keys;

keys! {
    /// Where users, consumers, API keys, revocations and services are kept.
    pub struct StoreRaw {
        /// `sqlite:PATH`, or `postgres://USER:PASSWORD@HOST/DATABASE`. Created and extended at start, under a lock.
        url: upgrade required StoreUrl,
        /// Whether the services in it are served, as routes beside those of the files.
        services: upgrade bool = false,
    }
}
