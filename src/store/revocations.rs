//! Revocations: tokens that no longer hold although they have not expired.

use std::time::Duration;

use super::{Store, StoreError, change, next, on};

/// How long a revocation of all tokens of somebody is kept: as long as the longest lifetime that may be configured. The
/// lifetime of the moment would not do, as tokens of an earlier and longer one may be about; and there is one such
/// revocation of a subject at most, so that it costs little.
pub const KEPT_OF_ALL: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Adds one, or extends the one there is: it never revokes less than before.
pub(super) const REVOKE: &str = "INSERT INTO edgeward_revocations \
    (kind, provider, value, issued_before, kept_until, changed) VALUES ($1, $2, $3, $4, $5, $6) \
    ON CONFLICT (kind, provider, value) DO UPDATE SET \
    issued_before = CASE WHEN excluded.issued_before > edgeward_revocations.issued_before \
        THEN excluded.issued_before ELSE edgeward_revocations.issued_before END, \
    kept_until = CASE WHEN excluded.kept_until > edgeward_revocations.kept_until \
        THEN excluded.kept_until ELSE edgeward_revocations.kept_until END, \
    changed = excluded.changed";

/// What is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// One token, by its `jti`.
    Token,
    /// The tokens of a subject (`sub`) that were issued no later than a moment.
    Subject,
}

/// One revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationRow {
    /// What is revoked.
    pub what: Revoked,
    /// Whose tokens; empty = any provider's.
    pub provider: String,
    /// The `jti` or `sub`.
    pub value: String,
    /// The moment, in Unix seconds: tokens issued in that second are revoked, too. Of a single token it says nothing.
    pub issued_before: i64,
    /// When the last of these tokens has expired, in Unix seconds.
    pub kept_until: i64,
    /// The number of the change.
    pub changed: i64,
}

type Row = (String, String, String, i64, i64, i64);

impl Store {
    /// Revokes the token with this `jti` of `provider` (empty = whoever issued it). It expires at `expires_at`. Whether that
    /// was new: what is revoked already is only looked at.
    pub async fn revoke_token(&self, jti: &str, provider: &str, expires_at: i64) -> Result<bool, StoreError> {
        self.revoke("token", jti, provider, i64::MAX, expires_at).await
    }

    /// Revokes the tokens of `subject` of `provider` (empty = any) that were issued at `issued_before` or earlier. The last
    /// of them expires at `until`. Whether that was new, as of a token.
    pub async fn revoke_subject(
        &self,
        provider: &str,
        subject: &str,
        issued_before: i64,
        until: i64,
    ) -> Result<bool, StoreError> {
        self.revoke("subject", subject, provider, issued_before, until).await
    }

    /// Up to which moment the tokens of `subject` of `provider` were revoked, if they were: those that were issued in that
    /// second included.
    pub async fn subject_revoked_before(
        &self,
        provider: &str,
        subject: &str,
    ) -> Result<Option<i64>, StoreError> {
        const SQL: &str = "SELECT MAX(issued_before) FROM edgeward_revocations \
            WHERE kind = 'subject' AND provider IN ('', $1) AND value = $2";
        self.call(async {
            Ok(on!(self, pool => sqlx::query_scalar::<_, Option<i64>>(SQL)
                .bind(provider)
                .bind(subject)
                .fetch_one(pool)
                .await?))
        })
        .await
    }

    async fn revoke(
        &self,
        kind: &str,
        value: &str,
        provider: &str,
        issued_before: i64,
        kept_until: i64,
    ) -> Result<bool, StoreError> {
        const KNOWN: &str = "SELECT COUNT(*) FROM edgeward_revocations WHERE kind = $1 AND provider = $2 \
            AND value = $3 AND issued_before >= $4 AND kept_until >= $5";
        self.call(async {
            let known: i64 = on!(self, pool => {
                sqlx::query_scalar(KNOWN)
                    .bind(kind)
                    .bind(provider)
                    .bind(value)
                    .bind(issued_before)
                    .bind(kept_until)
                    .fetch_one(pool)
                    .await?
            });
            if known > 0 {
                return Ok(false);
            }
            change!(self, tx => {
                let number = next!(tx);
                sqlx::query(REVOKE)
                    .bind(kind)
                    .bind(provider)
                    .bind(value)
                    .bind(issued_before)
                    .bind(kept_until)
                    .bind(number)
                    .execute(&mut *tx)
                    .await?;
            });
            Ok(true)
        })
        .await
    }

    /// Revocations whose last change lies in `since < changed <= upto`, at most a page of them.
    pub(super) async fn revocations_between(
        &self,
        since: i64,
        upto: i64,
    ) -> Result<Vec<RevocationRow>, StoreError> {
        const SQL: &str = "SELECT kind, provider, value, issued_before, kept_until, changed \
            FROM edgeward_revocations WHERE changed > $1 AND changed <= $2 ORDER BY changed LIMIT 5000";
        self.call_apart(async {
            let rows: Vec<Row> =
                on!(self, pool => sqlx::query_as(SQL).bind(since).bind(upto).fetch_all(pool).await?);
            Ok(rows.into_iter().map(revocation).collect())
        })
        .await
    }
}

fn revocation((kind, provider, value, issued_before, kept_until, changed): Row) -> RevocationRow {
    let what = if kind == "subject" { Revoked::Subject } else { Revoked::Token };
    RevocationRow { what, provider, value, issued_before, kept_until, changed }
}
