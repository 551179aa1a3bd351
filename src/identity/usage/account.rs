//! What one owner has used under one plan.

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::period::{Every, Span};
use crate::store::OwnerKind;

/// Whose usage it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Kept in the store.
    Known(OwnerKind, Box<str>),
    /// Nobody who is known, by the network of the address: kept in memory alone.
    Address(Box<str>),
}

/// What makes an account: who, under which plan. Each plan counts by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AccountId {
    /// The plan's name.
    pub plan: Box<str>,
    /// Whose it is.
    pub owner: Owner,
}

/// A quota, and how it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests in a period.
    pub count: u64,
    /// How long that is.
    pub every: Every,
    /// Requests of one account that may be counted in memory alone; beyond, none passes until they are in the store.
    pub unsaved_max: Option<u64>,
}

/// How an account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Requests that are left in the period.
    pub left: u64,
    /// The period.
    pub span: Span,
}

/// Why a request is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The quota is used up.
    Used(Standing),
    /// As much is counted that is not in the store yet as there may be.
    Unsaved(Standing),
}

/// What one owner has used under one plan. Counted in memory; whoever flushes takes what the store does not have yet.
#[derive(Debug)]
pub struct Account {
    id: AccountId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of which periods `current` is.
    reckoned: Option<(Every, Option<i64>)>,
    current: Count,
    /// Other periods: what the store has of them, or has not got yet.
    others: Vec<Count>,
    /// Whether it waits to be flushed.
    queued: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    span: Span,
    /// What the store is known to have, of all instances.
    stored: u64,
    /// On its way there.
    sent: u64,
    /// Counted here alone.
    pending: u64,
}

/// Periods of one account that are known at once.
const SPANS_MAX: usize = 8;

impl Count {
    fn used(&self) -> u64 {
        self.stored.saturating_add(self.sent).saturating_add(self.pending)
    }

    fn is_saved(&self) -> bool {
        self.sent == 0 && self.pending == 0
    }
}

impl Account {
    pub(super) fn new(id: AccountId) -> Self {
        Self { id, state: Mutex::default() }
    }

    /// Whose it is, and under which plan.
    pub fn id(&self) -> &AccountId {
        &self.id
    }

    /// How it stands at `now` for a request that would be counted, which it is not yet. `since` is when its periods began,
    /// where they are not the calendar's.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn look(&self, quota: &Quota, since: Option<i64>, now: i64) -> Result<Standing, Full> {
        let mut state = self.state.lock();
        let count = *state.count(quota.every, since, now);
        admit(&count, quota, self.is_kept())
    }

    /// Counts a request: the same, and whether the account has to be queued for the store.
    ///
    /// # Errors
    /// There is no room for it.
    pub(super) fn count(
        &self,
        quota: &Quota,
        since: Option<i64>,
        now: i64,
        has_store: bool,
    ) -> Result<(Standing, Queue), Full> {
        let mut state = self.state.lock();
        let is_kept = has_store && self.is_kept();
        let count = state.count(quota.every, since, now);
        let standing = admit(count, quota, is_kept)?;
        if !is_kept {
            count.stored = count.stored.saturating_add(1);
            return Ok((standing, Queue::Not));
        }
        count.pending = count.pending.saturating_add(1);
        let hurries =
            quota.unsaved_max.is_some_and(|most| count.sent.saturating_add(count.pending) > most / 2);
        let was_queued = std::mem::replace(&mut state.queued, true);
        Ok((
            standing,
            match (was_queued, hurries) {
                (false, _) => Queue::New { hurries },
                (true, true) => Queue::Hurry,
                (true, false) => Queue::Not,
            },
        ))
    }

    fn is_kept(&self) -> bool {
        matches!(self.id.owner, Owner::Known(..))
    }

    /// What is to be written now: for each period what came in addition.
    pub(super) fn send(&self) -> SmallVec<[(Span, u64); 1]> {
        let mut state = self.state.lock();
        state.queued = false;
        let pending = state.all_mut().filter(|count| count.pending > 0);
        pending
            .map(|count| {
                count.sent = count.sent.saturating_add(std::mem::take(&mut count.pending));
                (count.span, count.sent)
            })
            .collect()
    }

    /// It was written, and comes to `total` with what other instances have counted; `None`: what stands there is no
    /// number.
    pub(super) fn sent(&self, span: Span, total: Option<u64>) {
        let mut state = self.state.lock();
        let Some(count) = state.all_mut().find(|count| count.span == span) else { return };
        count.stored = count.stored.saturating_add(std::mem::take(&mut count.sent));
        count.learn(total);
    }

    /// It was not written. True if the account has to be queued again.
    pub(super) fn unsent(&self) -> bool {
        let mut state = self.state.lock();
        for count in state.all_mut() {
            count.pending = count.pending.saturating_add(std::mem::take(&mut count.sent));
        }
        !std::mem::replace(&mut state.queued, true)
    }

    /// What the store says of a period. Those that are over at `now` make room for it.
    pub(super) fn learn(&self, span: Span, total: Option<u64>, now: i64) {
        let mut state = self.state.lock();
        state.forget(now);
        if let Some(count) = state.at(span) {
            count.learn(total);
        }
    }

    /// Whether nothing is lost if it is forgotten: no period goes on at `now`, and all is in the store.
    pub(super) fn is_over(&self, now: i64) -> bool {
        let state = self.state.lock();
        let mut all = state.others.iter().chain([&state.current]);
        !state.queued && all.all(|count| count.is_saved() && count.span.ends <= now)
    }

    /// What was used in the period around `now`.
    #[cfg(test)]
    pub(super) fn used(&self, every: Every, now: i64) -> u64 {
        self.state.lock().count(every, None, now).used()
    }
}

/// What follows from counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// Nothing: it waits already.
    Not,
    /// It waits already, and must not wait for long.
    Hurry,
    /// It has to be queued.
    New {
        /// And must not wait for long.
        hurries: bool,
    },
}

fn admit(count: &Count, quota: &Quota, is_kept: bool) -> Result<Standing, Full> {
    let left = quota.count.saturating_sub(count.used());
    let standing = Standing { left: left.saturating_sub(1), span: count.span };
    if left == 0 {
        return Err(Full::Used(standing));
    }
    let unsaved = count.sent.saturating_add(count.pending);
    if is_kept && quota.unsaved_max.is_some_and(|most| unsaved >= most) {
        return Err(Full::Unsaved(Standing { left, ..standing }));
    }
    Ok(standing)
}

impl Count {
    /// Within a period it never becomes less: a row that was edited, or is an older state of itself, gives nothing back.
    /// What is no number is more than any quota.
    fn learn(&mut self, total: Option<u64>) {
        self.stored = self.stored.max(total.unwrap_or(u64::MAX));
    }
}

impl State {
    /// The count of the period around `now`. A clock that steps back stays in the period it has left.
    fn count(&mut self, every: Every, since: Option<i64>, now: i64) -> &mut Count {
        let is_same = self.reckoned == Some((every, since));
        if !is_same || now >= self.current.span.ends {
            self.reckoned = Some((every, since));
            self.turn_to(every.around(now, since), now);
        }
        &mut self.current
    }

    fn turn_to(&mut self, span: Span, now: i64) {
        if span == self.current.span {
            return;
        }
        let known = self.others.iter().position(|count| count.span == span);
        let next = known.map_or(Count { span, ..Count::default() }, |at| self.others.swap_remove(at));
        let before = std::mem::replace(&mut self.current, next);
        self.others.push(before);
        self.forget(now);
    }

    /// Lets go of other periods that are over and in the store.
    fn forget(&mut self, now: i64) {
        self.others.retain(|count| !count.is_saved() || count.span.ends > now);
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Count> {
        self.others.iter_mut().chain([&mut self.current])
    }

    /// The count of `span`; `None` if there are too many already, which only rows that nobody counts by can be.
    fn at(&mut self, span: Span) -> Option<&mut Count> {
        if self.current.span != span && !self.others.iter().any(|count| count.span == span) {
            if self.others.len() >= SPANS_MAX {
                return None;
            }
            self.others.push(Count { span, ..Count::default() });
        }
        self.all_mut().find(|count| count.span == span)
    }
}
