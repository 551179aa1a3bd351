//! Services: rows that become routes. Read as a whole, since one may stand in another's way.
//!
//! Rows may be written by anybody who can reach the database. So nothing is believed of them here: their texts are read
//! up to a bound, whatever type somebody put there, and judged where they are compiled.

use futures_util::TryStreamExt;

use super::connect::Pools;
use super::{Store, StoreError, on, write};

/// Services read; those beyond it, the youngest, are left out.
pub const SERVICES_MAX: usize = 10_000;
/// Characters of a name that are read: one more than a name may have bytes.
pub const NAME_CHARACTERS_MAX: usize = 129;
/// Characters of another column that are read: one more than it may have.
pub const COLUMN_CHARACTERS_MAX: usize = (64 << 10) + 1;
/// Bytes of all rows that are read.
const BYTES_MAX: usize = 32 << 20;

/// A service as it stands in the database: texts of which nobody knows yet what they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceRow {
    /// Its name.
    pub name: String,
    /// The public path.
    pub path: String,
    /// A JSON list.
    pub methods: String,
    /// A JSON list.
    pub hosts: String,
    /// A JSON list of objects.
    pub endpoints: String,
    /// A JSON list.
    pub roles: String,
    /// Whether it is to be served.
    pub enabled: bool,
    /// When it was added, in seconds since 1970: the older one keeps a path that two want.
    pub created_at: i64,
    /// When it was last changed.
    pub changed_at: i64,
}

/// All services at one moment.
#[derive(Debug, Clone, Default)]
pub struct Services {
    /// Counts their changes. The rows may be younger than it, never older.
    pub number: i64,
    /// The oldest first.
    pub rows: Vec<ServiceRow>,
    /// Whether there are more, or larger ones, than are read.
    pub cut: bool,
}

type Row = (Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>, i64, i64, i64);

fn service(
    (name, path, methods, hosts, endpoints, roles, enabled, created_at, changed_at): Row,
) -> ServiceRow {
    let text = |bytes: Vec<u8>| match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    ServiceRow {
        name: text(name),
        path: text(path),
        methods: text(methods),
        hosts: text(hosts),
        endpoints: text(endpoints),
        roles: text(roles),
        enabled: enabled != 0,
        created_at,
        changed_at,
    }
}

impl ServiceRow {
    fn bytes(&self) -> usize {
        let texts = [&self.name, &self.path, &self.methods, &self.hosts, &self.endpoints, &self.roles];
        texts.iter().map(|text| text.len()).sum()
    }
}

/// `SELECT`, in the words of a database: how it gives the bytes of a text's beginning.
macro_rules! select {
    ($begin:literal, $end:literal) => {
        concat!(
            "SELECT ",
            $begin,
            "substr(name, 1, 129)",
            $end,
            ", ",
            $begin,
            "substr(path, 1, 65537)",
            $end,
            ", ",
            $begin,
            "substr(methods, 1, 65537)",
            $end,
            ", ",
            $begin,
            "substr(hosts, 1, 65537)",
            $end,
            ", ",
            $begin,
            "substr(endpoints, 1, 65537)",
            $end,
            ", ",
            $begin,
            "substr(roles, 1, 65537)",
            $end,
            ", CAST(CASE WHEN enabled THEN 1 ELSE 0 END AS BIGINT), \
             CAST(created_at AS BIGINT), CAST(changed_at AS BIGINT) \
             FROM edgeward_services ORDER BY 8, name LIMIT 10001"
        )
    };
}

const ALL_SQLITE: &str = select!("CAST(", " AS BLOB)");
const ALL_POSTGRES: &str = select!("convert_to(", ", 'UTF8')");

/// Keeps other writers of this kind out to the end of the transaction; those behind our back as well, as their triggers
/// want the same row.
const LOCK: &str = "UPDATE edgeward_state SET value = value WHERE name = 'services' RETURNING value";

/// Reads rows until there are too many, or too large ones.
macro_rules! read_all {
    ($sql:ident, $pool:ident, $services:ident) => {{
        let mut rows = sqlx::query_as::<_, Row>($sql).fetch($pool);
        let mut bytes = 0;
        while let Some(row) = rows.try_next().await? {
            let row = service(row);
            bytes += row.bytes();
            if $services.rows.len() == SERVICES_MAX || bytes > BYTES_MAX {
                $services.cut = true;
                break;
            }
            $services.rows.push(row);
        }
    }};
}

impl Store {
    /// Counts the changes of services.
    pub async fn services_number(&self) -> Result<i64, StoreError> {
        const NUMBER: &str = "SELECT value FROM edgeward_state WHERE name = 'services'";
        self.call_apart(async {
            Ok(on!(self, pool => sqlx::query_scalar::<_, i64>(NUMBER).fetch_one(pool).await?))
        })
        .await
    }

    /// All services.
    pub async fn services(&self) -> Result<Services, StoreError> {
        let number = self.services_number().await?;
        self.call_apart(async {
            let mut services = Services { number, ..Services::default() };
            match self.ready().await? {
                Pools::Sqlite(pool) => read_all!(ALL_SQLITE, pool, services),
                Pools::Postgres(pool) => read_all!(ALL_POSTGRES, pool, services),
            }
            Ok(services)
        })
        .await
    }

    /// Writes a service, in place of one of its name if there is one. Nothing is written, and false returned, unless
    /// services are still those of `number`: what was judged beside them may be wrong beside others.
    pub async fn put_service(&self, row: &ServiceRow, number: i64) -> Result<bool, StoreError> {
        const PUT: &str = "INSERT INTO edgeward_services \
            (name, path, methods, hosts, endpoints, roles, enabled, created_at, changed_at) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (name) DO UPDATE SET path = excluded.path, \
            methods = excluded.methods, hosts = excluded.hosts, endpoints = excluded.endpoints, \
            roles = excluded.roles, enabled = excluded.enabled, changed_at = excluded.changed_at";
        self.call(async {
            let written = write!(self, tx => {
                let is_same = sqlx::query_scalar::<_, i64>(LOCK).fetch_one(&mut *tx).await? == number;
                if is_same {
                    sqlx::query(PUT)
                        .bind(&row.name)
                        .bind(&row.path)
                        .bind(&row.methods)
                        .bind(&row.hosts)
                        .bind(&row.endpoints)
                        .bind(&row.roles)
                        .bind(row.enabled)
                        .bind(row.created_at)
                        .bind(row.changed_at)
                        .execute(&mut *tx)
                        .await?;
                }
                is_same
            });
            self.0.services_changed.notify_one();
            Ok(written)
        })
        .await
    }

    /// Removes a service; nothing, and `None` returned, unless services are still those of `number`, where one is given.
    /// False if there is none of the name.
    pub async fn remove_service(&self, name: &str, number: Option<i64>) -> Result<Option<bool>, StoreError> {
        const REMOVE: &str = "DELETE FROM edgeward_services WHERE name = $1";
        self.call(async {
            let removed = write!(self, tx => {
                let found = sqlx::query_scalar::<_, i64>(LOCK).fetch_one(&mut *tx).await?;
                if number.is_none_or(|number| number == found) {
                    Some(sqlx::query(REMOVE).bind(name).execute(&mut *tx).await?.rows_affected() > 0)
                } else {
                    None
                }
            });
            self.0.services_changed.notify_one();
            Ok(removed)
        })
        .await
    }
}
