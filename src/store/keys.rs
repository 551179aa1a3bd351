//! API keys: only their hashes are here.

use super::{Store, StoreError, change, next, on};

/// An API key, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Its visible prefix: what it is called.
    pub id: String,
    /// Whose it is.
    pub consumer: String,
    /// SHA-256 of the whole key.
    pub hash: Vec<u8>,
    /// When it was made, in Unix seconds.
    pub created_at: i64,
    /// When it ends.
    pub expires_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
    /// When it was last used, to within half a minute.
    pub last_used: Option<i64>,
    /// The plan that bounds its use; `None`: its consumer's.
    pub plan: Option<String>,
    /// The number of the change.
    pub changed: i64,
}

/// A key to be added.
#[derive(Debug, Clone)]
pub struct NewKey<'a> {
    /// Its visible prefix.
    pub id: &'a str,
    /// Whose it is.
    pub consumer: &'a str,
    /// SHA-256 of the whole key.
    pub hash: &'a [u8; 32],
    /// When it ends.
    pub expires_at: Option<i64>,
    /// The plan that bounds its use; `None`: its consumer's.
    pub plan: Option<&'a str>,
}

type Row = (String, String, Vec<u8>, i64, Option<i64>, Option<i64>, Option<i64>, Option<String>, i64);

fn key((id, consumer, hash, created_at, expires_at, revoked_at, last_used, plan, changed): Row) -> KeyRow {
    KeyRow { id, consumer, hash, created_at, expires_at, revoked_at, last_used, plan, changed }
}

const INSERT: &str = "INSERT INTO edgeward_api_keys (id, consumer, hash, created_at, expires_at, plan_name, changed) \
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

impl Store {
    /// Adds a key.
    pub async fn add_key(&self, new: &NewKey<'_>, now: i64) -> Result<(), StoreError> {
        self.call(async {
            change!(self, tx => {
                let number = next!(tx);
                sqlx::query(INSERT)
                    .bind(new.id)
                    .bind(new.consumer)
                    .bind(&new.hash[..])
                    .bind(now)
                    .bind(new.expires_at)
                    .bind(new.plan)
                    .bind(number)
                    .execute(&mut *tx)
                    .await?;
            });
            Ok(())
        })
        .await
    }

    /// The key called `id`.
    pub async fn key(&self, id: &str) -> Result<Option<KeyRow>, StoreError> {
        const SQL: &str = "SELECT id, consumer, hash, created_at, expires_at, revoked_at, last_used, plan_name, changed \
            FROM edgeward_api_keys WHERE id = $1";
        self.call(async {
            let row: Option<Row> =
                on!(self, pool => sqlx::query_as(SQL).bind(id).fetch_optional(pool).await?);
            Ok(row.map(key))
        })
        .await
    }

    /// At most `limit` keys by consumer and time, those of `consumer` alone if one is named; `offset` are left out.
    pub async fn keys(
        &self,
        consumer: Option<&str>,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<KeyRow>, StoreError> {
        const SQL: &str = "SELECT id, consumer, hash, created_at, expires_at, revoked_at, last_used, plan_name, changed \
            FROM edgeward_api_keys WHERE $1 = '' OR consumer = $1 \
            ORDER BY consumer, created_at, id LIMIT $2 OFFSET $3";
        self.call(async {
            let rows: Vec<Row> = on!(self, pool => sqlx::query_as(SQL)
                .bind(consumer.unwrap_or_default())
                .bind(i64::from(limit))
                .bind(i64::from(offset))
                .fetch_all(pool)
                .await?);
            Ok(rows.into_iter().map(key).collect())
        })
        .await
    }

    /// Revokes the key called `id`. False if there is none that holds.
    pub async fn revoke_key(&self, id: &str, now: i64) -> Result<bool, StoreError> {
        const SQL: &str =
            "UPDATE edgeward_api_keys SET revoked_at = $2, changed = $3 WHERE id = $1 AND revoked_at IS NULL";
        self.call(async {
            Ok(change!(self, tx => {
                let number = next!(tx);
                sqlx::query(SQL).bind(id).bind(now).bind(number).execute(&mut *tx).await?.rows_affected() > 0
            }))
        })
        .await
    }

    /// Gives the key called `id` another plan, or none of its own. False if there is none that holds.
    pub async fn change_key_plan(&self, id: &str, plan: Option<&str>) -> Result<bool, StoreError> {
        const SQL: &str =
            "UPDATE edgeward_api_keys SET plan_name = $2, changed = $3 WHERE id = $1 AND revoked_at IS NULL";
        self.call(async {
            Ok(change!(self, tx => {
                let number = next!(tx);
                sqlx::query(SQL).bind(id).bind(plan).bind(number).execute(&mut *tx).await?.rows_affected() > 0
            }))
        })
        .await
    }

    /// Puts `new` in place of the key called `old`, which ends at `old_ends` unless it ends earlier. False if there is no
    /// such key that still holds; then nothing was changed.
    pub async fn replace_key(
        &self,
        old: &str,
        new: &NewKey<'_>,
        old_ends: i64,
        now: i64,
    ) -> Result<bool, StoreError> {
        const END: &str = "UPDATE edgeward_api_keys SET expires_at = \
            CASE WHEN expires_at IS NULL OR expires_at > $2 THEN $2 ELSE expires_at END, changed = $3 \
            WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $4)";
        self.call(async {
            Ok(change!(self, tx => {
                let number = next!(tx);
                let ended =
                    sqlx::query(END).bind(old).bind(old_ends).bind(number).bind(now).execute(&mut *tx).await?;
                let found = ended.rows_affected() > 0;
                if found {
                    let number = next!(tx);
                    sqlx::query(INSERT)
                        .bind(new.id)
                        .bind(new.consumer)
                        .bind(&new.hash[..])
                        .bind(now)
                        .bind(new.expires_at)
                        .bind(new.plan)
                        .bind(number)
                        .execute(&mut *tx)
                        .await?;
                }
                found
            }))
        })
        .await
    }

    pub(super) async fn keys_between(&self, since: i64, upto: i64) -> Result<Vec<KeyRow>, StoreError> {
        const SQL: &str = "SELECT id, consumer, hash, created_at, expires_at, revoked_at, last_used, plan_name, changed \
            FROM edgeward_api_keys WHERE changed > $1 AND changed <= $2 ORDER BY changed LIMIT 5000";
        self.call_apart(async {
            let rows: Vec<Row> =
                on!(self, pool => sqlx::query_as(SQL).bind(since).bind(upto).fetch_all(pool).await?);
            Ok(rows.into_iter().map(key).collect())
        })
        .await
    }
}
