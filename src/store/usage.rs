//! What was used of quotas: one row an owner, plan and period, to which instances add.
//!
//! Whoever counts writes what came in addition, never a total: instances on one store so add up. A batch is one transaction
//! under the lock of its own counter: numbers of batches are followed as those of other changes are, and two batches never
//! wait for each other's rows.
//!
//! A row may have been edited by hand, and SQLite keeps whatever it is given. A number that is none ([`UsageRow::used`])
//! is told as such, and never counted up from.

use sqlx::Row as _;

use super::{Store, StoreError, on, write};

/// Whose usage it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OwnerKind {
    /// A consumer, by its name.
    Consumer,
    /// An API key with a plan of its own, by its visible beginning.
    Key,
    /// Somebody who is no consumer: `PROVIDER:sub`.
    Subject,
}

/// What was used of one quota in one period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// The plan that it is counted under.
    pub plan: String,
    /// Whose it is.
    pub kind: OwnerKind,
    /// Whose it is.
    pub owner: String,
    /// When the period began, in Unix seconds.
    pub begins: i64,
    /// When it ends.
    pub ends: i64,
    /// Requests counted; `None`: what stands there is no such number.
    pub used: Option<u64>,
}

/// Requests in addition.
#[derive(Debug, Clone)]
pub struct UsageDelta<'a> {
    /// The plan that they are counted under.
    pub plan: &'a str,
    /// Whose they are.
    pub kind: OwnerKind,
    /// Whose they are.
    pub owner: &'a str,
    /// When the period began.
    pub begins: i64,
    /// When it ends.
    pub ends: i64,
    /// How many.
    pub more: u64,
}

/// Rows that batches have written.
#[derive(Debug, Default)]
pub struct UsagePage {
    /// The rows, in the order of batches.
    pub rows: Vec<UsageRow>,
    /// Rows that are none: edited by hand.
    pub unreadable: usize,
    /// Up to which batch they reach.
    pub upto: i64,
    /// Whether there is nothing more at the moment.
    pub is_all: bool,
}

/// Rows read at once; more than one batch writes.
const PAGE: usize = 5_000;
/// Requests added in one batch.
pub const BATCH_MAX: usize = 500;
/// How long rows stay after the end of their period, in seconds: for whoever asks what was used last month.
pub(super) const KEPT_AFTER_PERIOD: i64 = 100 * 24 * 3600;

/// Takes the lock.
const NEXT: &str = "UPDATE edgeward_state SET value = value + 1 WHERE name = 'usage' RETURNING value";
/// What is no number, or too large to be counted up, stays what it is. (In SQLite a text is larger than any number.)
const ADD: &str = "INSERT INTO edgeward_usage (plan_name, kind, owner, begins, ends, used, changed) \
    VALUES ($1, $2, $3, $4, $5, $6, $7) \
    ON CONFLICT (kind, owner, plan_name, begins, ends) DO UPDATE SET used = \
    CASE WHEN edgeward_usage.used >= 0 AND edgeward_usage.used <= 4000000000000000000 \
    THEN edgeward_usage.used + excluded.used ELSE edgeward_usage.used END, changed = excluded.changed \
    RETURNING CAST(used AS TEXT)";

/// The seven columns as text, each `None` where it is none: also what no database should hold.
type Row = [Option<String>; 7];

/// Reads the columns of rows of either database: one that cannot be read spoils no other.
macro_rules! texts {
    ($rows:expr) => {
        $rows
            .iter()
            .map(|row| std::array::from_fn(|at| row.try_get::<Option<String>, _>(at).ok().flatten()))
            .collect()
    };
}

impl OwnerKind {
    /// As it stands in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consumer => "consumer",
            Self::Key => "key",
            Self::Subject => "subject",
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        [Self::Consumer, Self::Key, Self::Subject].into_iter().find(|kind| kind.as_str() == text)
    }
}

fn used(text: Option<&str>) -> Option<u64> {
    text?.parse::<i64>().ok().and_then(|used| u64::try_from(used).ok())
}

/// `None` where it says nothing about anybody.
fn row([plan, kind, owner, begins, ends, used_text, _]: Row) -> Option<UsageRow> {
    let (plan, owner, kind) = (plan?, owner?, OwnerKind::from_text(&kind?)?);
    let (begins, ends) = (begins?.parse().ok()?, ends?.parse().ok()?);
    Some(UsageRow { plan, kind, owner, begins, ends, used: used(used_text.as_deref()) })
}

impl Store {
    /// Adds at most [`BATCH_MAX`] numbers of requests, all or none. Returns what each comes to, in their order, with what
    /// other instances have added; `None` where what stands there is no number.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] they may have been added all the same, if the answer was lost.
    pub async fn add_usage(&self, deltas: &[UsageDelta<'_>]) -> Result<Vec<Option<u64>>, StoreError> {
        self.call_apart(async {
            Ok(write!(self, tx => {
                let number = sqlx::query_scalar::<_, i64>(NEXT).fetch_one(&mut *tx).await?;
                let mut totals = Vec::with_capacity(deltas.len());
                for delta in deltas {
                    let row = sqlx::query(ADD)
                        .bind(delta.plan)
                        .bind(delta.kind.as_str())
                        .bind(delta.owner)
                        .bind(delta.begins)
                        .bind(delta.ends)
                        .bind(i64::try_from(delta.more).unwrap_or(i64::MAX))
                        .bind(number)
                        .fetch_one(&mut *tx)
                        .await?;
                    let total = row.try_get::<Option<String>, _>(0).ok().flatten();
                    totals.push(used(total.as_deref()));
                }
                totals
            }))
        })
        .await
    }

    /// The number of the last batch.
    pub async fn last_usage(&self) -> Result<i64, StoreError> {
        const LAST: &str = "SELECT value FROM edgeward_state WHERE name = 'usage'";
        self.call_apart(async {
            Ok(on!(self, pool => sqlx::query_scalar::<_, i64>(LAST).fetch_one(pool).await?))
        })
        .await
    }

    /// Rows that batches after `since`, up to `last`, have written, of periods that had not ended at `now`.
    pub async fn usage_since(&self, since: i64, last: i64, now: i64) -> Result<UsagePage, StoreError> {
        const SQL: &str = "SELECT CAST(plan_name AS TEXT), CAST(kind AS TEXT), CAST(owner AS TEXT), \
            CAST(begins AS TEXT), CAST(ends AS TEXT), CAST(used AS TEXT), CAST(changed AS TEXT) \
            FROM edgeward_usage WHERE changed > $1 AND changed <= $2 AND ends > $3 ORDER BY changed LIMIT 5000";
        let rows: Vec<Row> = self
            .call_apart(async {
                Ok(on!(self, pool => {
                    let rows = sqlx::query(SQL).bind(since).bind(last).bind(now).fetch_all(pool).await?;
                    texts!(rows)
                }))
            })
            .await?;
        let number =
            |[.., changed]: &Row| changed.as_deref().and_then(|text| text.parse().ok()).unwrap_or(i64::MAX);
        let mut page = UsagePage { upto: last, is_all: rows.len() < PAGE, ..UsagePage::default() };
        if let (false, Some(cut)) = (page.is_all, rows.last().map(number)) {
            // The last batch may not be complete: it is read again. One that fills a page was not written by us.
            let whole = rows.iter().map(number).filter(|number| *number < cut).max();
            page.upto = whole.unwrap_or(cut).min(last);
        }
        let upto = page.upto;
        let rows = rows.into_iter().filter(|row| page.is_all || number(row) <= upto);
        for read in rows.map(row).collect::<Vec<_>>() {
            match read {
                Some(read) => page.rows.push(read),
                None => page.unreadable += 1,
            }
        }
        Ok(page)
    }

    /// What `owner` has used in periods that have not ended at `now`, by plan.
    pub async fn usage_of(
        &self,
        kind: OwnerKind,
        owner: &str,
        now: i64,
    ) -> Result<Vec<UsageRow>, StoreError> {
        const SQL: &str = "SELECT CAST(plan_name AS TEXT), CAST(kind AS TEXT), CAST(owner AS TEXT), \
            CAST(begins AS TEXT), CAST(ends AS TEXT), CAST(used AS TEXT), CAST(changed AS TEXT) \
            FROM edgeward_usage WHERE kind = $1 AND owner = $2 AND begins <= $3 AND ends > $3 \
            ORDER BY plan_name, begins LIMIT 1000";
        self.call(async {
            let rows: Vec<Row> = on!(self, pool => {
                let rows = sqlx::query(SQL).bind(kind.as_str()).bind(owner).bind(now).fetch_all(pool).await?;
                texts!(rows)
            });
            Ok(rows.into_iter().filter_map(row).collect())
        })
        .await
    }
}
