//! Consumers, and the subjects of tokens that are theirs.

use super::{Store, StoreError, change, names_from_text, names_to_text, next, on};

/// A consumer of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerRow {
    /// Its name.
    pub name: String,
    /// What it belongs to.
    pub groups: Vec<String>,
    /// The plan that bounds its use.
    pub plan: Option<String>,
    /// Whether it is no more.
    pub removed: bool,
    /// Since when it is there, in Unix seconds; of one that is no more, since when it is not.
    pub since: i64,
    /// The number of the change.
    pub changed: i64,
}

/// Whose the tokens of a subject are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectRow {
    /// The provider that issues the tokens.
    pub provider: String,
    /// Their `sub`.
    pub subject: String,
    /// Whose they are; `None`: nobody's any more.
    pub consumer: Option<String>,
    /// The number of the change.
    pub changed: i64,
}

type Row = (String, String, Option<String>, bool, i64, i64);
type SubjectTuple = (String, String, Option<String>, i64);

fn consumer((name, groups, plan, removed, since, changed): Row) -> ConsumerRow {
    ConsumerRow { name, groups: names_from_text(&groups), plan, removed, since, changed }
}

fn subject((provider, subject, consumer, changed): SubjectTuple) -> SubjectRow {
    SubjectRow { provider, subject, consumer, changed }
}

impl Store {
    /// The consumer called `name`, unless it was removed.
    pub async fn consumer(&self, name: &str) -> Result<Option<ConsumerRow>, StoreError> {
        const SQL: &str = "SELECT name, group_names, plan_name, removed, created_at, changed FROM edgeward_consumers \
            WHERE name = $1 AND NOT removed";
        self.call(async {
            let row: Option<Row> =
                on!(self, pool => sqlx::query_as(SQL).bind(name).fetch_optional(pool).await?);
            Ok(row.map(consumer))
        })
        .await
    }

    /// At most `limit` consumers by name, those after `after`.
    pub async fn consumers(&self, after: &str, limit: u32) -> Result<Vec<ConsumerRow>, StoreError> {
        const SQL: &str = "SELECT name, group_names, plan_name, removed, created_at, changed FROM edgeward_consumers \
            WHERE name > $1 AND NOT removed ORDER BY name LIMIT $2";
        self.call(async {
            let rows: Vec<Row> = on!(self, pool =>
                sqlx::query_as(SQL).bind(after).bind(i64::from(limit)).fetch_all(pool).await?);
            Ok(rows.into_iter().map(consumer).collect())
        })
        .await
    }

    /// The subjects that are `consumer`'s.
    pub async fn subjects_of(&self, consumer: &str) -> Result<Vec<SubjectRow>, StoreError> {
        const SQL: &str = "SELECT provider, subject, consumer, changed FROM edgeward_subjects \
            WHERE consumer = $1 ORDER BY provider, subject";
        self.call(async {
            let rows: Vec<SubjectTuple> =
                on!(self, pool => sqlx::query_as(SQL).bind(consumer).fetch_all(pool).await?);
            Ok(rows.into_iter().map(subject).collect())
        })
        .await
    }

    /// Adds a consumer.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if there is one of the name.
    pub async fn add_consumer(
        &self,
        name: &str,
        groups: &[String],
        plan: Option<&str>,
        now: i64,
    ) -> Result<(), StoreError> {
        // One that was removed leaves its name behind, which may be given again: to one that is younger than that, also
        // within the second.
        const SQL: &str = "INSERT INTO edgeward_consumers \
            (name, group_names, plan_name, removed, created_at, changed) VALUES ($1, $2, $3, FALSE, $4, $5) \
            ON CONFLICT (name) DO UPDATE SET group_names = excluded.group_names, \
            plan_name = excluded.plan_name, removed = FALSE, created_at = CASE WHEN \
                excluded.created_at > edgeward_consumers.created_at \
                THEN excluded.created_at ELSE edgeward_consumers.created_at + 1 END, \
            changed = excluded.changed WHERE edgeward_consumers.removed";
        let groups = names_to_text(groups);
        self.call(async {
            let added = change!(self, tx => {
                let number = next!(tx);
                sqlx::query(SQL)
                    .bind(name)
                    .bind(&groups)
                    .bind(plan)
                    .bind(now)
                    .bind(number)
                    .execute(&mut *tx)
                    .await?
                    .rows_affected()
            });
            if added == 0 {
                return Err(StoreError::Conflict(format!("there is a consumer {name} already")));
            }
            Ok(())
        })
        .await
    }

    /// Gives a consumer other groups, and with `plan` another plan or none. False if there is no such consumer.
    pub async fn change_consumer(
        &self,
        name: &str,
        groups: Option<&[String]>,
        plan: Option<Option<&str>>,
    ) -> Result<bool, StoreError> {
        const GROUPS: &str =
            "UPDATE edgeward_consumers SET group_names = $2, changed = $3 WHERE name = $1 AND NOT removed";
        const PLAN: &str =
            "UPDATE edgeward_consumers SET plan_name = $2, changed = $3 WHERE name = $1 AND NOT removed";
        let groups = groups.map(names_to_text);
        self.call(async {
            Ok(change!(self, tx => {
                let number = next!(tx);
                let mut found = false;
                if let Some(groups) = &groups {
                    let done = sqlx::query(GROUPS).bind(name).bind(groups).bind(number).execute(&mut *tx).await?;
                    found |= done.rows_affected() > 0;
                }
                if let Some(plan) = plan {
                    let done = sqlx::query(PLAN).bind(name).bind(plan).bind(number).execute(&mut *tx).await?;
                    found |= done.rows_affected() > 0;
                }
                found
            }))
        })
        .await
    }

    /// Removes a consumer and revokes all it can show: its keys, and the tokens of its subjects that were issued up to
    /// `now`, the last of which expires at `kept_until`. Keys and subjects also where the consumer itself stands in the
    /// configuration. False if there was nothing of the name.
    pub async fn remove_consumer(&self, name: &str, now: i64, kept_until: i64) -> Result<bool, StoreError> {
        // From then on the column says since when it is not there.
        const REMOVE: &str = "UPDATE edgeward_consumers SET removed = TRUE, changed = $2, created_at = CASE WHEN \
            created_at > $3 THEN created_at ELSE $3 END WHERE name = $1 AND NOT removed";
        // However many there are, each gets a number of its own.
        const KEYS: &str = "UPDATE edgeward_api_keys SET revoked_at = $2, changed = $3 + numbered.place FROM \
            (SELECT id AS key_id, ROW_NUMBER() OVER (ORDER BY id) AS place FROM edgeward_api_keys \
            WHERE consumer = $1 AND revoked_at IS NULL) AS numbered WHERE edgeward_api_keys.id = numbered.key_id";
        const REVOKE_ALL: &str = "INSERT INTO edgeward_revocations \
            (kind, provider, value, issued_before, kept_until, changed) \
            SELECT 'subject', provider, subject, $2, $3, $4 + ROW_NUMBER() OVER (ORDER BY provider, subject) \
            FROM edgeward_subjects WHERE consumer = $1 \
            ON CONFLICT (kind, provider, value) DO UPDATE SET issued_before = CASE WHEN \
                excluded.issued_before > edgeward_revocations.issued_before \
                THEN excluded.issued_before ELSE edgeward_revocations.issued_before END, \
            kept_until = CASE WHEN excluded.kept_until > edgeward_revocations.kept_until \
                THEN excluded.kept_until ELSE edgeward_revocations.kept_until END, changed = excluded.changed";
        const SUBJECTS: &str = "UPDATE edgeward_subjects SET consumer = NULL, changed = $2 + numbered.place FROM \
            (SELECT changed AS was, ROW_NUMBER() OVER (ORDER BY changed) AS place FROM edgeward_subjects \
            WHERE consumer = $1) AS numbered WHERE edgeward_subjects.changed = numbered.was";
        const RESERVE: &str = "UPDATE edgeward_state SET value = value + $1 WHERE name = 'changes'";
        self.call(async {
            Ok(change!(self, tx => {
                let number = next!(tx);
                let removed = sqlx::query(REMOVE).bind(name).bind(number).bind(now).execute(&mut *tx).await?;
                let keys =
                    sqlx::query(KEYS).bind(name).bind(now).bind(number).execute(&mut *tx).await?.rows_affected();
                sqlx::query(REVOKE_ALL)
                    .bind(name)
                    .bind(now)
                    .bind(kept_until)
                    .bind(number)
                    .execute(&mut *tx)
                    .await?;
                let subjects =
                    sqlx::query(SUBJECTS).bind(name).bind(number).execute(&mut *tx).await?.rows_affected();
                let used = i64::try_from(keys.max(subjects)).unwrap_or(i64::MAX);
                sqlx::query(RESERVE).bind(used).execute(&mut *tx).await?;
                removed.rows_affected() > 0 || used > 0
            }))
        })
        .await
    }

    /// Makes the tokens of `subject` of `provider` the consumer's.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if they are another consumer's.
    pub async fn attach_subject(
        &self,
        provider: &str,
        subject: &str,
        consumer: &str,
    ) -> Result<(), StoreError> {
        const SQL: &str = "INSERT INTO edgeward_subjects (provider, subject, consumer, changed) \
            VALUES ($1, $2, $3, $4) ON CONFLICT (provider, subject) DO UPDATE SET \
            consumer = excluded.consumer, changed = excluded.changed \
            WHERE edgeward_subjects.consumer IS NULL OR edgeward_subjects.consumer = excluded.consumer";
        self.call(async {
            let attached = change!(self, tx => {
                let number = next!(tx);
                sqlx::query(SQL)
                    .bind(provider)
                    .bind(subject)
                    .bind(consumer)
                    .bind(number)
                    .execute(&mut *tx)
                    .await?
                    .rows_affected()
            });
            if attached == 0 {
                return Err(StoreError::Conflict(format!("{provider}:{subject} is another consumer's")));
            }
            Ok(())
        })
        .await
    }

    /// Makes the tokens of `subject` of `provider` nobody's. False if they are not `consumer`'s.
    pub async fn detach_subject(
        &self,
        provider: &str,
        subject: &str,
        consumer: &str,
    ) -> Result<bool, StoreError> {
        const SQL: &str = "UPDATE edgeward_subjects SET consumer = NULL, changed = $4 \
            WHERE provider = $1 AND subject = $2 AND consumer = $3";
        self.call(async {
            Ok(change!(self, tx => {
                let number = next!(tx);
                sqlx::query(SQL)
                    .bind(provider)
                    .bind(subject)
                    .bind(consumer)
                    .bind(number)
                    .execute(&mut *tx)
                    .await?
                    .rows_affected()
                    > 0
            }))
        })
        .await
    }

    pub(super) async fn consumers_between(
        &self,
        since: i64,
        upto: i64,
    ) -> Result<Vec<ConsumerRow>, StoreError> {
        const SQL: &str = "SELECT name, group_names, plan_name, removed, created_at, changed FROM edgeward_consumers \
            WHERE changed > $1 AND changed <= $2 ORDER BY changed LIMIT 5000";
        self.call_apart(async {
            let rows: Vec<Row> =
                on!(self, pool => sqlx::query_as(SQL).bind(since).bind(upto).fetch_all(pool).await?);
            Ok(rows.into_iter().map(consumer).collect())
        })
        .await
    }

    pub(super) async fn subjects_between(
        &self,
        since: i64,
        upto: i64,
    ) -> Result<Vec<SubjectRow>, StoreError> {
        const SQL: &str = "SELECT provider, subject, consumer, changed FROM edgeward_subjects \
            WHERE changed > $1 AND changed <= $2 ORDER BY changed LIMIT 5000";
        self.call_apart(async {
            let rows: Vec<SubjectTuple> =
                on!(self, pool => sqlx::query_as(SQL).bind(since).bind(upto).fetch_all(pool).await?);
            Ok(rows.into_iter().map(subject).collect())
        })
        .await
    }
}
