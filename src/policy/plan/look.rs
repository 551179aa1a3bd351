//! What is left under a plan, asked from outside of any request: nothing is counted.

use std::time::{Duration, Instant};

use super::{Counted, Gate, Plan, QuotaLimit};
use crate::base::units;
use crate::identity::usage::{AccountId, Full, Owner};
use crate::policy::rate_limit::{Facts, Question};
use crate::store::OwnerKind;

/// Whose quota is asked about, in a question.
const KINDS: [(&str, Option<OwnerKind>); 4] = [
    ("quota of a consumer", Some(OwnerKind::Consumer)),
    ("quota of a key", Some(OwnerKind::Key)),
    ("quota of a subject", Some(OwnerKind::Subject)),
    ("quota of an address", None),
];

impl Gate {
    /// The questions how the plan of `facts` stands, to be put to a process that counts: what is left of its rate, and of its
    /// quota.
    pub fn questions(&self, facts: &Facts<'_>) -> Vec<Question> {
        // Who has a plan that nobody knows is told that elsewhere.
        let known =
            self.plan_of(facts.principal).ok().flatten().and_then(|_| self.counted(facts).ok().flatten());
        let Some(Counted { plan, rate, account, since }) = known else { return Vec::new() };
        let rate = plan.rate.as_ref().map(|limits| rate(limits).question(facts));
        let quota = plan.quota.as_ref().map(|quota| {
            let (kind, owner) = match &account.id().owner {
                Owner::Known(kind, name) => (Some(*kind), name),
                Owner::Address(network) => (None, network),
            };
            let kind = KINDS.iter().find(|(_, other)| *other == kind).map_or("", |(word, _)| word);
            let since = quota.since(since).map(|since| since.to_string());
            let values = format!("{} {owner}", since.as_deref().unwrap_or("-"));
            Question::new(plan.quota_name(quota), kind.to_owned(), values.as_bytes())
        });
        rate.into_iter().chain(quota).collect()
    }
}

impl Plan {
    fn quota_name(&self, quota: &QuotaLimit) -> String {
        format!("plan {}/{}", self.name, quota.quota.every.as_str())
    }

    /// What is left for whom `question` names, in words, if it is about this plan. `Err`: why that cannot be told. `unix` is the
    /// time in Unix seconds.
    pub async fn answer(
        &self,
        question: &Question,
        (now, unix): (Instant, i64),
    ) -> Option<Result<String, String>> {
        if let Some(limits) = &self.rate
            && **limits.by_consumer.name() == *question.limit
        {
            let all = [&limits.by_consumer, &limits.by_key, &limits.by_subject];
            let limit = all.into_iter().find(|limit| limit.settings().key.kind() == question.kind)?;
            return Some(limit.answer(question, now).await);
        }
        let quota = self.quota.as_ref()?;
        (question.limit == self.quota_name(quota)).then(|| self.quota_left(quota, question, unix))
    }

    fn quota_left(&self, quota: &QuotaLimit, question: &Question, unix: i64) -> Result<String, String> {
        let unreadable = || "the question cannot be read".to_owned();
        let values = question.bytes().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        let values = values.ok_or_else(unreadable)?;
        let (since, owner) = values.split_once(' ').ok_or_else(unreadable)?;
        let kind = KINDS.iter().find(|(word, _)| *word == question.kind).ok_or_else(unreadable)?.1;
        let owner = match kind {
            Some(kind) => Owner::Known(kind, owner.into()),
            None => Owner::Address(owner.into()),
        };
        let account = self.ledger.account(AccountId { plan: (*self.name).into(), owner });
        let (left, span) = match account.look(&quota.quota, quota.since(since.parse().ok()), unix) {
            // One that would be counted is taken off there.
            Ok(standing) => (standing.left.saturating_add(1), standing.span),
            Err(Full::Used(standing) | Full::Unsaved(standing)) => (standing.left, standing.span),
        };
        let count = quota.quota.count;
        let rest = units::format_duration(Duration::from_secs(span.left(unix)));
        let away = if self.ledger.is_away() { ", as far as it is known: the store is away" } else { "" };
        Ok(format!("{} of {count} a {} (anew in {rest}){away}", left.min(count), quota.quota.every.as_str()))
    }
}
