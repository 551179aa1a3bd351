//! The tables, and how an older store becomes one of this version.
//!
//! Steps only ever add: while one version of the gateway replaces another, both run on one schema. A store of a later
//! version is taken as it is.

use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection};

use crate::base::clock;

/// One step, in the words of both databases but for the type of bytes, `{bytes}`, and the seconds of the moment, `{now}`.
/// What only one of them understands stands at its end, behind the line `--{sqlite}` or `--{postgres}`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    version: i64,
    sql: &'static str,
}

/// All steps, in their order. A step that was released is never changed.
pub(super) const STEPS: &[Step] = &[
    Step { version: 1, sql: include_str!("migrations/1_identity.sql") },
    Step { version: 2, sql: include_str!("migrations/2_usage.sql") },
    Step { version: 3, sql: include_str!("migrations/3_services.sql") },
];

/// What tells the words of one database from those of the other.
#[derive(Debug)]
struct Words {
    /// How its part of a step begins.
    part: &'static str,
    bytes: &'static str,
    now: &'static str,
}

const SQLITE: Words =
    Words { part: "--{sqlite}", bytes: "BLOB", now: "(CAST(strftime('%s', 'now') AS INTEGER))" };
const POSTGRES: Words =
    Words { part: "--{postgres}", bytes: "BYTEA", now: "(CAST(EXTRACT(EPOCH FROM now()) AS BIGINT))" };

impl Step {
    /// The step as one database understands it.
    fn in_words(&self, words: &Words) -> String {
        let mut sql = String::with_capacity(self.sql.len());
        let mut is_meant = true;
        for line in self.sql.lines() {
            if line.starts_with("--{") {
                is_meant = line == words.part;
            } else if is_meant {
                sql.push_str(line);
                sql.push('\n');
            }
        }
        sql.replace("{bytes}", words.bytes).replace("{now}", words.now)
    }
}

/// "edgeward" in ASCII: whoever holds the lock of this number changes the schema.
const LOCK: i64 = 0x6564_6765_7761_7264;

const RECORD: &str = "CREATE TABLE IF NOT EXISTS edgeward_schema \
    (version BIGINT PRIMARY KEY, applied_at BIGINT NOT NULL, applied_by TEXT NOT NULL)";
const APPLIED: &str = "SELECT version FROM edgeward_schema";
const APPLY: &str = "INSERT INTO edgeward_schema (version, applied_at, applied_by) VALUES ($1, $2, $3)";

/// Takes what is missing of `$steps` inside one transaction that holds the lock, so that of two processes at once one
/// waits, and finds nothing left to do.
macro_rules! take_steps {
    ($transaction:ident, $steps:ident, $words:expr) => {{
        sqlx::raw_sql(RECORD).execute(&mut *$transaction).await?;
        let applied: Vec<i64> = sqlx::query_scalar(APPLIED).fetch_all(&mut *$transaction).await?;
        for step in $steps.iter().filter(|step| !applied.contains(&step.version)) {
            let sql = step.in_words($words);
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *$transaction).await?;
            sqlx::query(APPLY)
                .bind(step.version)
                .bind(clock::unix_now())
                .bind(env!("CARGO_PKG_VERSION"))
                .execute(&mut *$transaction)
                .await?;
            tracing::info!(version = step.version, "the store's schema was extended");
        }
    }};
}

/// Whether all of `steps` were taken.
///
/// # Errors
/// The connection is of no use. What the database itself says no to is the record, which is not there yet.
fn is_current(applied: Result<Vec<i64>, sqlx::Error>, steps: &[Step]) -> Result<bool, sqlx::Error> {
    match applied {
        Ok(applied) => Ok(steps.iter().all(|step| applied.contains(&step.version))),
        Err(sqlx::Error::Database(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the file behind `connection` has all of `steps`.
pub(super) async fn is_current_sqlite(
    connection: &mut SqliteConnection,
    steps: &[Step],
) -> Result<bool, sqlx::Error> {
    is_current(sqlx::query_scalar(APPLIED).fetch_all(connection).await, steps)
}

/// Whether the database behind `connection` has all of `steps`.
pub(super) async fn is_current_postgres(
    connection: &mut PgConnection,
    steps: &[Step],
) -> Result<bool, sqlx::Error> {
    is_current(sqlx::query_scalar(APPLIED).fetch_all(connection).await, steps)
}

/// Brings the file behind `connection` up to `steps`.
pub(super) async fn migrate_sqlite(
    connection: &mut SqliteConnection,
    steps: &[Step],
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    take_steps!(transaction, steps, &SQLITE);
    transaction.commit().await
}

/// Brings the database behind `connection` up to `steps`.
pub(super) async fn migrate_postgres(
    connection: &mut PgConnection,
    steps: &[Step],
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    take_steps!(transaction, steps, &POSTGRES);
    transaction.commit().await
}

#[cfg(test)]
pub(super) const fn step_of_tests(version: i64, sql: &'static str) -> Step {
    Step { version, sql }
}
