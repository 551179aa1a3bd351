//! What changed since: how readers follow the store without reading it all again.
//!
//! Every row that readers must know carries the number of its last change. Numbers are given out under a lock that is held
//! to the end of the transaction, so whoever has read up to a number has seen all that is below it.

use std::time::Duration;

use sqlx::postgres::PgListener;

use super::connect::Pools;
use super::consumers::{ConsumerRow, SubjectRow};
use super::keys::KeyRow;
use super::revocations::RevocationRow;
use super::usage::KEPT_AFTER_PERIOD;
use super::{Store, StoreError, on, write};
use crate::base::units;

/// What PostgreSQL calls out after a change.
pub(super) const CHANNEL: &str = "edgeward_changes";

/// What PostgreSQL calls out after a change of services, by whomever: a trigger does.
const SERVICES_CHANNEL: &str = "edgeward_services";

pub(super) const NEXT: &str =
    "UPDATE edgeward_state SET value = value + 1 WHERE name = 'changes' RETURNING value";

/// Rows read at once.
pub const PAGE: usize = 5_000;

/// How often SQLite is asked for changes: it cannot call out to other processes.
const POLL_SQLITE: Duration = Duration::from_millis(250);
/// How often PostgreSQL is asked for changes beside what it calls out.
const POLL_POSTGRES: Duration = Duration::from_secs(1);

/// How long rows stay after their end, in seconds: clocks differ, and a token lives on for its provider's leeway.
const KEPT_AFTER_END: i64 = 24 * 3600;

/// Rows whose last change lies within a range, in its order.
#[derive(Debug, Default)]
pub struct Changes {
    /// Up to which change they reach.
    pub upto: i64,
    /// Revocations.
    pub revocations: Vec<RevocationRow>,
    /// Consumers, removed ones as well.
    pub consumers: Vec<ConsumerRow>,
    /// Subjects, detached ones as well.
    pub subjects: Vec<SubjectRow>,
    /// API keys, revoked ones as well.
    pub keys: Vec<KeyRow>,
}

/// Says when to look for changes.
#[derive(Debug)]
pub struct Watch {
    store: Store,
    listener: Option<PgListener>,
    of: Of,
}

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Who is known, and what was revoked.
    Identity,
    /// Services.
    Services,
}

impl Store {
    /// The number of the last change.
    pub async fn last_change(&self) -> Result<i64, StoreError> {
        const LAST: &str = "SELECT value FROM edgeward_state WHERE name = 'changes'";
        self.call_apart(async {
            Ok(on!(self, pool => sqlx::query_scalar::<_, i64>(LAST).fetch_one(pool).await?))
        })
        .await
    }

    /// The rows that changed after `since`, no later than `last`: at most [`PAGE`] of a kind, and only as far as all kinds
    /// are complete ([`Changes::upto`]).
    pub async fn changes(&self, since: i64, last: i64) -> Result<Changes, StoreError> {
        let mut upto = last;
        let revocations = self.revocations_between(since, upto).await?;
        upto = complete(upto, revocations.iter().map(|row| row.changed));
        let consumers = self.consumers_between(since, upto).await?;
        upto = complete(upto, consumers.iter().map(|row| row.changed));
        let subjects = self.subjects_between(since, upto).await?;
        upto = complete(upto, subjects.iter().map(|row| row.changed));
        let keys = self.keys_between(since, upto).await?;
        upto = complete(upto, keys.iter().map(|row| row.changed));
        Ok(Changes { upto, revocations, consumers, subjects, keys })
    }

    /// Deletes what has ended long before `now`: revocations, refresh tokens, usage. Nobody has to hear of it.
    pub async fn forget(&self, now: i64) -> Result<u64, StoreError> {
        // A part at a time: none may take so long that the store seems to be down.
        const OLD: &[(&str, i64)] = &[
            (
                "DELETE FROM edgeward_revocations WHERE changed IN \
                    (SELECT changed FROM edgeward_revocations WHERE kept_until < $1 LIMIT 1000)",
                KEPT_AFTER_END,
            ),
            (
                "DELETE FROM edgeward_families WHERE id IN \
                    (SELECT id FROM edgeward_families WHERE expires_at < $1 LIMIT 1000)",
                KEPT_AFTER_END,
            ),
            (
                "DELETE FROM edgeward_refresh_tokens WHERE hash IN \
                    (SELECT hash FROM edgeward_refresh_tokens WHERE expires_at < $1 LIMIT 1000)",
                KEPT_AFTER_END,
            ),
            (
                "DELETE FROM edgeward_usage WHERE (kind, owner, plan_name, begins, ends) IN \
                    (SELECT kind, owner, plan_name, begins, ends FROM edgeward_usage WHERE ends < $1 LIMIT 1000)",
                KEPT_AFTER_PERIOD,
            ),
        ];
        let mut forgotten = 0;
        for (sql, kept) in OLD {
            loop {
                let rows = self
                    .call(async {
                        let old = now - kept;
                        Ok(on!(self, pool => sqlx::query(*sql).bind(old).execute(pool).await?.rows_affected()))
                    })
                    .await?;
                forgotten += rows;
                if rows == 0 {
                    break;
                }
            }
        }
        Ok(forgotten)
    }

    /// Records when keys were last used, newest first or not: an older time never replaces a newer one.
    pub async fn keys_used(&self, used: &[(Box<str>, i64)]) -> Result<(), StoreError> {
        const USED: &str = "UPDATE edgeward_api_keys SET last_used = $2 \
            WHERE id = $1 AND (last_used IS NULL OR last_used < $2)";
        self.call(async {
            write!(self, tx => {
                for (id, at) in used {
                    sqlx::query(USED).bind(&**id).bind(*at).execute(&mut *tx).await?;
                }
            });
            Ok(())
        })
        .await
    }

    /// Says when to look for changes.
    pub fn watch(&self) -> Watch {
        Watch { store: self.clone(), listener: None, of: Of::Identity }
    }

    /// Says when to look for changes of services.
    pub fn watch_services(&self) -> Watch {
        Watch { store: self.clone(), listener: None, of: Of::Services }
    }
}

/// How far rows are complete that were asked for up to `upto`: to the last one, if there may be more.
fn complete(upto: i64, mut numbers: impl ExactSizeIterator<Item = i64> + DoubleEndedIterator) -> i64 {
    if numbers.len() < PAGE { upto } else { numbers.next_back().map_or(upto, |last| last.min(upto)) }
}

impl Watch {
    /// Waits until something may have changed: the database called out, this process wrote, or it is time to ask.
    pub async fn next(&mut self) {
        let inner = self.store.0.clone();
        let changed = match self.of {
            Of::Identity => &inner.changed,
            Of::Services => &inner.services_changed,
        };
        let is_postgres = matches!(inner.pools.get(), Some(Pools::Postgres(_)));
        if !is_postgres {
            tokio::select! {
                () = changed.notified() => {}
                () = tokio::time::sleep(POLL_SQLITE) => {}
            }
            return;
        }
        if self.listener.is_none() {
            self.listener = self.listen().await;
        }
        let called = async {
            match &mut self.listener {
                Some(listener) => listener.recv().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed.notified() => {}
            () = tokio::time::sleep(POLL_POSTGRES) => {}
            is_well = called => {
                if !is_well {
                    self.listener = None;
                    tokio::time::sleep(POLL_SQLITE).await;
                }
            }
        }
    }

    /// Listens to PostgreSQL. What cannot be listened to is still asked.
    async fn listen(&self) -> Option<PgListener> {
        let Some(Pools::Postgres(pool)) = self.store.0.pools.get() else { return None };
        let channel = match self.of {
            Of::Identity => CHANNEL,
            Of::Services => SERVICES_CHANNEL,
        };
        let listening = async {
            let mut listener = PgListener::connect_with(pool).await?;
            listener.listen(channel).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        match tokio::time::timeout(super::CALL_TIMEOUT, listening).await {
            Ok(Ok(listener)) => Some(listener),
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot listen to the store; it is asked every {}", units::format_duration(POLL_POSTGRES));
                None
            }
            Err(_) => None,
        }
    }
}
