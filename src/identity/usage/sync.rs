//! Writes what was counted into the store, and learns from it what others have counted.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Account, AccountId, Ledger, Owner, Span};
use crate::base::clock;
use crate::store::{BATCH_MAX, Store, StoreError, UsageDelta, UsageRow};

/// How often what was counted is written, and what others have counted is read.
const EVERY: Duration = Duration::from_secs(1);
/// Shortest pause between two times, however many requests come.
const PAUSE: Duration = Duration::from_millis(10);
/// How often it is said that rows are broken.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Keeps one ledger in one store.
#[derive(Debug)]
pub struct Bookkeeper {
    store: Store,
    ledger: Arc<Ledger>,
    /// Up to which batch the ledger knows the store; `None` before the first.
    known: tokio::sync::Mutex<Option<i64>>,
}

impl Bookkeeper {
    /// One that keeps `ledger` in `store`.
    pub fn new(store: Store, ledger: Arc<Ledger>) -> Self {
        ledger.await_store();
        Self { store, ledger, known: tokio::sync::Mutex::new(None) }
    }

    /// Writes all that was counted until now, and reads what others have written.
    ///
    /// # Errors
    /// The store does not answer; what is not written is kept, and written the next time.
    pub async fn sync(&self) -> Result<(), StoreError> {
        let mut known = self.known.lock().await;
        let now = clock::unix_now();
        let done = async {
            self.flush().await?;
            self.follow(&mut known, now).await
        }
        .await;
        self.ledger.is_away.store(done.is_err(), Relaxed);
        self.ledger.tidy(now);
        done
    }

    /// Keeps them in step for as long as it is polled.
    pub async fn run(self: Arc<Self>) {
        loop {
            let pause = match self.sync().await {
                Ok(()) => PAUSE,
                Err(error) => {
                    tracing::debug!(%error, "usage cannot be kept in the store");
                    // Nobody is in a hurry who would only be told the same.
                    EVERY
                }
            };
            tokio::time::sleep(pause).await;
            tokio::select! {
                () = tokio::time::sleep(EVERY.saturating_sub(pause)) => {}
                () = self.ledger.hurry.notified() => {}
            }
        }
    }

    async fn flush(&self) -> Result<(), StoreError> {
        let mut queue = std::mem::take(&mut *self.ledger.queue.lock());
        while !queue.is_empty() {
            let batch = queue.split_off(queue.len().saturating_sub(BATCH_MAX / 2));
            if let Err(error) = self.write(&batch).await {
                let unsent = batch.into_iter().filter(|account| account.unsent());
                queue.extend(unsent);
                self.ledger.queue.lock().append(&mut queue);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn write(&self, batch: &[Arc<Account>]) -> Result<(), StoreError> {
        let mut sent: Vec<(&Arc<Account>, Span, u64)> = Vec::with_capacity(batch.len());
        for account in batch {
            sent.extend(account.send().into_iter().map(|(span, more)| (account, span, more)));
        }
        let deltas: Vec<UsageDelta<'_>> = sent
            .iter()
            .filter_map(|(account, span, more)| {
                let AccountId { plan, owner: Owner::Known(kind, owner) } = account.id() else { return None };
                let Span { begins, ends } = *span;
                Some(UsageDelta { plan, kind: *kind, owner, begins, ends, more: *more })
            })
            .collect();
        // All or none: an account has a few periods at most.
        let totals = self.store.add_usage(&deltas).await?;
        let mut broken = 0;
        for ((account, span, _), total) in sent.iter().zip(totals) {
            broken += usize::from(total.is_none());
            account.sent(*span, total);
        }
        self.complain(broken);
        Ok(())
    }

    async fn follow(&self, known: &mut Option<i64>, now: i64) -> Result<(), StoreError> {
        let last = self.store.last_usage().await?;
        if known.is_some_and(|known| known > last) {
            tracing::warn!(
                "the store is an older state of itself, or another one: reading what it has of usage"
            );
            *known = None;
        }
        while known.is_none_or(|known| known < last) {
            let page = self.store.usage_since(known.unwrap_or(-1), last, now).await?;
            let broken = page.unreadable + page.rows.iter().filter(|row| row.used.is_none()).count();
            page.rows.into_iter().for_each(|row| self.learn(row, now));
            self.complain(broken);
            *known = Some(page.upto);
            if page.is_all {
                break;
            }
        }
        Ok(())
    }

    fn learn(&self, row: UsageRow, now: i64) {
        let UsageRow { plan, kind, owner, begins, ends, used } = row;
        let id = AccountId { plan: plan.into(), owner: Owner::Known(kind, owner.into()) };
        let account = self.ledger.account(id);
        // Where there is no room its owner is counted with others, whom its usage is not.
        if matches!(account.id().owner, Owner::Known(..)) {
            account.learn(Span { begins, ends }, used, now);
        }
    }

    fn complain(&self, broken: usize) {
        if broken > 0 && self.ledger.complaints.now(clock::now(), COMPLAIN_EVERY).is_some() {
            tracing::error!(
                rows = broken,
                "the store has usage that is no number (edgeward_usage): those quotas count as used up"
            );
        }
    }
}
