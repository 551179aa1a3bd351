//! Refresh tokens: used once, then replaced by the next of their family. One that comes twice was stolen, or its
//! successor was: the family ends (RFC 9700 section 4.14.2).

use super::{Store, StoreError, on, write};

/// What became of a refresh token that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// It was used up, and the next one holds.
    Rotated {
        /// Whose it is.
        user: String,
        /// The family of both.
        family: String,
    },
    /// It had been used before: the family has ended.
    Reused {
        /// Whose it is.
        user: String,
        /// Whether that ends the family, which had not ended before.
        ends: bool,
    },
    /// Its time is over, or its family has ended.
    Expired,
    /// Nobody knows it.
    Unknown,
}

impl Store {
    /// Begins a family with its first refresh token, both good until `expires_at`.
    pub async fn begin_family(
        &self,
        family: &str,
        user: &str,
        provider: &str,
        token_hash: &[u8; 32],
        expires_at: i64,
        now: i64,
    ) -> Result<(), StoreError> {
        const FAMILY: &str = "INSERT INTO edgeward_families (id, user_name, provider, created_at, expires_at) \
            VALUES ($1, $2, $3, $4, $5)";
        self.call(async {
            write!(self, tx => {
                sqlx::query(FAMILY)
                    .bind(family)
                    .bind(user)
                    .bind(provider)
                    .bind(now)
                    .bind(expires_at)
                    .execute(&mut *tx)
                    .await?;
                sqlx::query(TOKEN).bind(&token_hash[..]).bind(family).bind(expires_at).execute(&mut *tx).await?;
            });
            Ok(())
        })
        .await
    }

    /// Uses the refresh token with `old_hash` up and puts the one with `new_hash` in its place, good until `expires_at`; all
    /// or nothing. Of two that show the same token at once, one gets the next, and the family ends for both.
    pub async fn rotate(
        &self,
        provider: &str,
        old_hash: &[u8; 32],
        new_hash: &[u8; 32],
        expires_at: i64,
        now: i64,
    ) -> Result<Rotation, StoreError> {
        const FIND: &str = "SELECT f.id, f.user_name, t.expires_at, t.used_at, f.ended_at \
            FROM edgeward_refresh_tokens t JOIN edgeward_families f ON f.id = t.family \
            WHERE t.hash = $1 AND f.provider = $2";
        const USE: &str =
            "UPDATE edgeward_refresh_tokens SET used_at = $2 WHERE hash = $1 AND used_at IS NULL";
        const EXTEND: &str = "UPDATE edgeward_families SET expires_at = \
            CASE WHEN expires_at < $2 THEN $2 ELSE expires_at END WHERE id = $1 AND ended_at IS NULL";
        type Found = (String, String, i64, Option<i64>, Option<i64>);
        self.call(async {
            Ok(write!(self, tx => {
                let found: Option<Found> =
                    sqlx::query_as(FIND).bind(&old_hash[..]).bind(provider).fetch_optional(&mut *tx).await?;
                match found {
                    None => Rotation::Unknown,
                    Some((family, user, ends, used, ended)) => {
                        if used.is_none() && (ended.is_some() || ends <= now) {
                            Rotation::Expired
                        } else {
                            let taken = used.is_none()
                                && sqlx::query(USE).bind(&old_hash[..]).bind(now).execute(&mut *tx).await?.rows_affected() == 1;
                            if !taken {
                                let ended = sqlx::query(END).bind(&family).bind(now).execute(&mut *tx).await?;
                                Rotation::Reused { user, ends: ended.rows_affected() > 0 }
                            } else if sqlx::query(EXTEND).bind(&family).bind(expires_at).execute(&mut *tx).await?.rows_affected() == 0 {
                                // It ended since it was looked at.
                                Rotation::Expired
                            } else {
                                sqlx::query(TOKEN)
                                    .bind(&new_hash[..])
                                    .bind(&family)
                                    .bind(expires_at)
                                    .execute(&mut *tx)
                                    .await?;
                                Rotation::Rotated { user, family }
                            }
                        }
                    }
                }
            }))
        })
        .await
    }

    /// Ends the family called `family`, if there is one. Whether there was one to end: if not, nothing is written.
    pub async fn end_family(&self, family: &str, now: i64) -> Result<bool, StoreError> {
        const OPEN: &str = "SELECT COUNT(*) FROM edgeward_families WHERE id = $1 AND ended_at IS NULL";
        self.call(async {
            let open: i64 =
                on!(self, pool => sqlx::query_scalar(OPEN).bind(family).fetch_one(pool).await?);
            Ok(open > 0
                && on!(self, pool => sqlx::query(END).bind(family).bind(now).execute(pool).await?.rows_affected()) > 0)
        })
        .await
    }

    /// Ends the family of the refresh token with `token_hash`, if there is one. Whether there was one to end: if not,
    /// nothing is written.
    pub async fn end_family_of(&self, token_hash: &[u8; 32], now: i64) -> Result<bool, StoreError> {
        const OPEN: &str = "SELECT COUNT(*) FROM edgeward_refresh_tokens t JOIN edgeward_families f ON f.id = t.family \
            WHERE t.hash = $1 AND f.ended_at IS NULL";
        const SQL: &str = "UPDATE edgeward_families SET ended_at = $2 WHERE ended_at IS NULL AND id IN \
            (SELECT family FROM edgeward_refresh_tokens WHERE hash = $1)";
        self.call(async {
            let open: i64 =
                on!(self, pool => sqlx::query_scalar(OPEN).bind(&token_hash[..]).fetch_one(pool).await?);
            Ok(open > 0
                && on!(self, pool => sqlx::query(SQL).bind(&token_hash[..]).bind(now).execute(pool).await?.rows_affected())
                    > 0)
        })
        .await
    }
}

const TOKEN: &str = "INSERT INTO edgeward_refresh_tokens (hash, family, expires_at) VALUES ($1, $2, $3)";
const END: &str = "UPDATE edgeward_families SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL";
