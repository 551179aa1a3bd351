//! `edgeward consumer usage NAME`: what a consumer and its keys have used of their quotas.

use serde_json::{Value, json};

use super::{Failure, Session, columns, key, missing, moment};
use crate::identity::usage::{Every, Span};
use crate::policy::plan::is_from_anniversary;
use crate::store::{KeyRow, OwnerKind, UsageRow};

/// What was used of one quota.
struct Used {
    plan: String,
    /// The key that is counted by itself.
    key: Option<String>,
    /// `None`: the plan is not defined, or has no quota.
    quota: Option<(u64, Every)>,
    span: Option<Span>,
    /// `None`: what stands in the store is no number, and counts as all of it.
    used: Option<u64>,
}

/// Prints the usage of the consumer called `name`.
pub(super) async fn usage(session: &Session, name: &str) -> Result<String, Failure> {
    // What it has counted, it has not written for up to a second.
    session.tell();
    let (plan, since) = match configured(session, name) {
        Some(found) => found,
        None => {
            let row = session.store.consumer(name).await?.ok_or_else(|| missing("consumer", name))?;
            (row.plan, Some(row.since))
        }
    };
    let rows = session.store.usage_of(OwnerKind::Consumer, name, session.now).await?;
    let own = plan.as_deref().map(|plan| used(session, plan, None, since, &rows));
    // Under plans of routes, in the time when it named none.
    let mut others: Vec<Used> = Vec::new();
    for row in rows.iter().filter(|row| Some(&row.plan) != plan.as_ref()) {
        if !others.iter().any(|known| known.plan == row.plan) {
            others.push(used(session, &row.plan, None, since, &rows));
        }
    }
    let mut keys = Vec::new();
    for KeyRow { id, plan, created_at, .. } in key::all(session, Some(name)).await? {
        let Some(plan) = plan else { continue };
        let rows = session.store.usage_of(OwnerKind::Key, &id, session.now).await?;
        keys.push(used(session, &plan, Some(id), Some(created_at), &rows));
    }
    session.say(
        || {
            let mut value = own.as_ref().map_or_else(|| json!({ "plan": null }), Used::json);
            if let Some(fields) = value.as_object_mut() {
                fields.insert("name".to_owned(), name.into());
                fields.insert("others".to_owned(), others.iter().map(Used::json).collect());
                fields.insert("keys".to_owned(), keys.iter().map(Used::json).collect());
            }
            value
        },
        || {
            let all: Vec<_> = own.iter().chain(&others).chain(&keys).map(Used::line).collect();
            if all.is_empty() {
                return format!("{name} has no plan, and used nothing under any\n");
            }
            columns(&["PLAN", "PERIOD", "USED", "QUOTA", "REMAINING", "RESETS", "KEY"], &all)
        },
    )
}

/// Plan and beginning of a consumer of the configuration.
fn configured(session: &Session, name: &str) -> Option<(Option<String>, Option<i64>)> {
    let consumer = session.loaded.raw.as_ref()?.consumers.get(name)?;
    let plan = consumer.plan.as_ref().map(|plan| plan.value.clone());
    Some((plan, consumer.since.as_ref().map(|since| since.value.0)))
}

/// What stands in `rows` of the period that `plan` is in.
fn used(session: &Session, plan: &str, key: Option<String>, since: Option<i64>, rows: &[UsageRow]) -> Used {
    let defined = session.loaded.raw.as_ref().and_then(|raw| raw.plans.get(plan));
    let quota = defined.and_then(|plan| plan.in_numbers());
    let since = since.filter(|_| defined.is_some_and(is_from_anniversary));
    let span = quota.map(|(_, every)| every.around(session.now, since));
    let of_plan = || rows.iter().filter(|row| row.plan == plan);
    let row = match span {
        Some(Span { begins, ends }) => of_plan().find(|row| (row.begins, row.ends) == (begins, ends)),
        None => of_plan().next(),
    };
    let span = span.or(row.map(|row| Span { begins: row.begins, ends: row.ends }));
    Used { plan: plan.to_owned(), key, quota, span, used: row.map_or(Some(0), |row| row.used) }
}

impl Used {
    fn remaining(&self) -> Option<u64> {
        self.quota.map(|(count, _)| count.saturating_sub(self.used.unwrap_or(u64::MAX)))
    }

    fn json(&self) -> Value {
        let mut value = json!({
            "plan": self.plan,
            "period": self.quota.map(|(_, every)| every.as_str()),
            "begins": self.span.map(|span| moment(span.begins)),
            "resets": self.span.map(|span| moment(span.ends)),
            "used": self.used,
            "quota": self.quota.map(|(count, _)| count),
            "remaining": self.remaining(),
        });
        if let (Some(key), Some(fields)) = (&self.key, value.as_object_mut()) {
            fields.insert("key".to_owned(), json!(key));
        }
        value
    }

    fn line(&self) -> Vec<String> {
        let or_none =
            |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        vec![
            self.plan.clone(),
            self.quota.map_or("-", |(_, every)| every.as_str()).to_owned(),
            self.used.map_or_else(|| "all (the row is broken)".to_owned(), |used| used.to_string()),
            or_none(self.quota.map(|(count, _)| count)),
            or_none(self.remaining()),
            self.span.map_or_else(|| "-".to_owned(), |span| moment(span.ends)),
            self.key.clone().unwrap_or_default(),
        ]
    }
}
