//! Connections to the two databases.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::ready;
use parking_lot::Mutex;
use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{ConnectOptions, PgPool, SqlitePool};

use crate::base::clock;

use super::schema::{STEPS, is_current_postgres, is_current_sqlite, migrate_postgres, migrate_sqlite};
use super::url::StoreUrl;
use super::{CALL_TIMEOUT, CONNECTIONS_MAX, StoreError};

/// How long a connection is kept that nobody uses.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest that another process may take to change the schema.
const MIGRATE_TIMEOUT: Duration = Duration::from_secs(60);

/// The connections, by kind of database.
#[derive(Debug)]
pub(super) enum Pools {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Since when a connection must be for it to be used again: none survives a call that did not reach the store. What one
/// remembers of a file that was damaged then (SQLite keeps the pages it has read until somebody writes), or of a server
/// that was replaced, would outlast the trouble.
#[derive(Debug, Clone, Default)]
pub(super) struct Oldest(Arc<Mutex<Option<Instant>>>);

impl Oldest {
    /// From now on only connections that are made from now on.
    pub(super) fn renew(&self) {
        *self.0.lock() = Some(clock::now());
    }

    fn allows(&self, connection: &PoolConnectionMetadata) -> bool {
        self.0.lock().is_none_or(|oldest| clock::now().saturating_duration_since(oldest) > connection.age)
    }
}

impl Pools {
    /// Pools that connect when they are asked for a connection, and close those that are older than `oldest`. Needs to be
    /// called on a runtime.
    pub(super) fn new(url: &StoreUrl, oldest: &Oldest) -> Result<Self, StoreError> {
        let oldest = oldest.clone();
        Ok(match url {
            StoreUrl::Sqlite(path) => Self::Sqlite(
                SqlitePoolOptions::new()
                    .max_connections(CONNECTIONS_MAX)
                    .acquire_timeout(CALL_TIMEOUT)
                    .idle_timeout(IDLE_TIMEOUT)
                    .before_acquire(move |_, connection| ready(Ok(oldest.allows(&connection))).boxed())
                    .test_before_acquire(false)
                    .connect_lazy_with(sqlite(path)),
            ),
            StoreUrl::Postgres(text) => Self::Postgres(
                PgPoolOptions::new()
                    .max_connections(CONNECTIONS_MAX)
                    .acquire_timeout(CALL_TIMEOUT)
                    .idle_timeout(IDLE_TIMEOUT)
                    .before_acquire(move |_, connection| ready(Ok(oldest.allows(&connection))).boxed())
                    .connect_lazy_with(postgres(text.expose())?),
            ),
        })
    }

    /// Connects once beside the pools, which gives clear errors, and brings the schema up to date.
    pub(super) async fn prepare(url: &StoreUrl) -> Result<(), StoreError> {
        match url {
            StoreUrl::Sqlite(path) => {
                make_file(path).map_err(|error| {
                    StoreError::Unavailable(format!("{} cannot be used: {error}", path.display()))
                })?;
                let work = async {
                    let mut connection = within(CALL_TIMEOUT, sqlite(path).connect()).await?;
                    if !within(CALL_TIMEOUT, is_current_sqlite(&mut connection, STEPS)).await? {
                        within(MIGRATE_TIMEOUT, migrate_sqlite(&mut connection, STEPS)).await?;
                    }
                    within(CALL_TIMEOUT, sqlx::Connection::close(connection)).await
                };
                work.await.map_err(|error: StoreError| error.of(path))
            }
            StoreUrl::Postgres(text) => {
                let mut connection = within(CALL_TIMEOUT, postgres(text.expose())?.connect()).await?;
                // Only a change of the schema may take long: an answer that never ends would hold everybody up.
                if !within(CALL_TIMEOUT, is_current_postgres(&mut connection, STEPS)).await? {
                    within(MIGRATE_TIMEOUT, migrate_postgres(&mut connection, STEPS)).await?;
                }
                within(CALL_TIMEOUT, sqlx::Connection::close(connection)).await
            }
        }
    }
}

/// Bounds `work` in time.
async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(StoreError::Unavailable(format!("nothing within {} s", limit.as_secs()))),
    }
}

fn sqlite(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        // Made beforehand, readable by its owner alone; what SQLite puts beside it gets the same mode.
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .foreign_keys(true)
        .busy_timeout(CALL_TIMEOUT)
        .disable_statement_logging()
}

fn postgres(url: &str) -> Result<PgConnectOptions, StoreError> {
    // Checked when the configuration was read. The library's text would repeat a part of the URL.
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| StoreError::Broken("its URL is not understood".to_owned()))?
        .application_name("edgeward")
        .disable_statement_logging();
    // The server gives up, too, instead of going on for nobody.
    Ok(options.options([("statement_timeout", "10s"), ("idle_in_transaction_session_timeout", "10s")]))
}

/// Makes the file if there is none, readable by its owner alone, and its directory. Returns what was made.
pub(super) fn make_file(path: &Path) -> io::Result<Vec<PathBuf>> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let mut made = Vec::new();
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists())
    {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        made.push(directory.to_owned());
    }
    if !path.exists() {
        made.push(path.to_owned());
    }
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    Ok(made)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::store) async fn sqlite(path: &Path) -> sqlx::SqliteConnection {
        super::sqlite(path).connect().await.unwrap()
    }

    pub(in crate::store) async fn postgres(url: &str) -> sqlx::PgConnection {
        super::postgres(url).unwrap().connect().await.unwrap()
    }
}
