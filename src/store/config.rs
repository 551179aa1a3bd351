//! `[store]`.

use super::StoreUrl;
use crate::keys;

keys! {
    /// Where users, consumers, API keys and revocations are kept.
    pub struct StoreRaw {
        /// `sqlite:PATH`, or `postgres://USER:PASSWORD@HOST/DATABASE`. Created and extended at start, under a lock.
        url: upgrade required StoreUrl,
    }
}
