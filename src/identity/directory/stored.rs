//! A key of the store, as the directory keeps it.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use super::KeyHash;
use crate::identity::consumer::{ApiKey, Consumer};
use crate::store::KeyRow;

#[derive(Debug)]
pub(super) struct StoredKey {
    pub(super) id: Box<str>,
    pub(super) consumer: Box<str>,
    pub(super) hash: KeyHash,
    pub(super) expires_at: Option<i64>,
    pub(super) revoked_at: Option<i64>,
    plan: Option<Box<str>>,
    created_at: i64,
    pub(super) used: Arc<Use>,
}

/// When a key was last used, and what of that the store knows.
#[derive(Debug, Default)]
pub(super) struct Use {
    pub(super) last: AtomicI64,
    pub(super) recorded: AtomicI64,
}

impl StoredKey {
    /// The key of `row`, with its `used` of before; `None`: somebody else wrote something else there.
    pub(super) fn of(row: KeyRow, used: Option<Arc<Use>>) -> Option<Self> {
        let hash = row.hash.try_into().ok()?;
        let used = used.unwrap_or_else(|| {
            let (last, recorded) = (row.last_used.unwrap_or(0).into(), row.last_used.unwrap_or(0).into());
            Arc::new(Use { last, recorded })
        });
        Some(Self {
            id: row.id.into(),
            consumer: row.consumer.into(),
            hash,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            plan: row.plan.map(String::into_boxed_str),
            created_at: row.created_at,
            used,
        })
    }

    /// When it ends, or ended.
    pub(super) fn end(&self) -> i64 {
        self.expires_at.into_iter().chain(self.revoked_at).min().unwrap_or(i64::MAX)
    }

    /// What requests that show it get to know; it is the consumer's.
    pub(super) fn shown(&self, consumer: &Arc<Consumer>) -> ApiKey {
        ApiKey {
            id: self.id.clone(),
            consumer: consumer.clone(),
            expires_at: self.expires_at,
            plan: self.plan.clone(),
            since: Some(self.created_at),
            ..ApiKey::default()
        }
    }
}
