//! What is written under `[plans.NAME]`, and what becomes of it.

use std::time::Duration;

use crate::base::decode::{Decoder, Kind, Node, Rate, Shape, Value, quote, text_value};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::{At, Origin};
use crate::identity::usage::{Every, Quota};
use crate::policy::rate_limit::{BucketRule, COUNT_MAX, Modes, ModesRaw, OnStoreFailure};
use crate::{enum_value, keys};

keys! {
    /// What bounds the use of a consumer or an API key: a rate, a quota, or both. Plans and limits both hold.
    pub struct PlanRaw {
        /// How many requests in how long, as a bucket that drains steadily; a bare number is per second. Absent = any number.
        rate: optional PlanRate,
        /// How many may pass at once after a rest; absent = the number of `rate`.
        burst: optional u64,
        /// How many requests in a period: `"100000/month"`, also `/day` and `/week`; or a number beside `period`. Absent = any
        /// number.
        quota: optional QuotaRaw,
        /// The period of a `quota` that is a bare number: `"day"`, `"week"` or `"month"`, in any case.
        period: optional PeriodRaw,
        /// When periods begin: `"calendar"` (at midnight in UTC, on Monday, on the first of the month), or `"anniversary"` (of the
        /// key or the consumer that is counted).
        quota_from: QuotaFrom = QuotaFrom::Calendar,
        /// Requests of one consumer or key that may be counted in memory alone: beyond, none passes (503) until they are in the
        /// store. Absent = what comes within a second.
        max_unsaved: optional u64,
        /// How answers tell of it, as in `[rate_limits.*]`.
        headers: ModesRaw = ModesRaw(Modes { draft: true, draft_7: false, draft_6: false, legacy: false, kong: false }),
        /// What a refusal says; absent = the usual.
        message: optional String,
        /// What is done while what was used elsewhere is not known: of a quota while the store is away, of a rate that instances
        /// share (`[cluster]`) while Redis is. `"local"`: each counts for itself; `"allow"`: everything passes; `"deny"`: nothing (503).
        on_store_failure: OnStoreFailure = OnStoreFailure::Local,
    }
}

enum_value! {
    /// When periods of a quota begin.
    pub enum QuotaFrom {
        /// With the day, the week, the month.
        Calendar = "calendar",
        /// On the anniversary of what is counted.
        Anniversary = "anniversary",
    }
}

/// Everything the configuration says about one plan, checked.
#[derive(Debug)]
pub struct Settings {
    /// Its rate.
    pub rate: Option<BucketRule>,
    /// Its quota.
    pub quota: Option<Quota>,
    /// When periods begin.
    pub quota_from: QuotaFrom,
    /// In which forms answers tell of it.
    pub modes: Modes,
    /// The detail of a refusal; `None` = the usual one.
    pub message: Option<String>,
    /// What is done while usage elsewhere is not known.
    pub on_store_failure: OnStoreFailure,
}

/// Longest text of a refusal, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Whether `path` is `table` or in it: `plans.ab` is not in `plans.a`.
fn is_within(path: &str, table: &str) -> bool {
    path.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

impl PlanRaw {
    /// The settings; what is wrong is reported, and then they are not to be used. `path` is the configuration path of the
    /// table, `origin` its place.
    pub fn compile(&self, name: &str, path: &str, origin: &Origin, out: &mut Diagnostics) -> Settings {
        if !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
            let message = "the name of a plan stands in headers: letters, digits, `-`, `_` and `.` only";
            out.error("invalid-value", origin, path, message);
        }
        // What is broken was reported, and is not absent.
        let is_whole = !out.iter().any(|problem| is_within(&problem.path, path));
        if self.rate.is_none() && self.quota.is_none() && is_whole {
            let problem = out.error("missing-key", origin, path, "the plan bounds nothing");
            problem.hint("add `rate`, such as \"10/s\", or `quota`, such as \"100000/month\"");
        }
        if let Some(message) = self.message.as_ref().filter(|message| message.len() > MESSAGE_BYTES_MAX) {
            let text = format!("the message is longer than {MESSAGE_BYTES_MAX} bytes");
            out.error("invalid-value", &message.origin, format!("{path}.message"), text);
        }
        let quota = self.quota(path, is_whole, out);
        Settings {
            rate: self.rate(quota, path, is_whole, out),
            quota,
            quota_from: *self.quota_from,
            modes: self.headers.0,
            message: self.message.as_ref().map(|message| message.value.clone()),
            on_store_failure: *self.on_store_failure,
        }
    }

    /// The quota and its period, as far as they are written.
    pub fn in_numbers(&self) -> Option<(u64, Every)> {
        let QuotaRaw { count, every } = self.quota.as_ref()?.value;
        Some((count, every.or(self.period.as_ref().map(|period| period.value.0))?))
    }

    fn rate(
        &self,
        quota: Option<Quota>,
        path: &str,
        is_whole: bool,
        out: &mut Diagnostics,
    ) -> Option<BucketRule> {
        let Some(rate) = &self.rate else {
            if let Some(burst) = self.burst.as_ref().filter(|_| is_whole) {
                let message = "\"burst\" does nothing without `rate`";
                out.error("unused-key", &burst.origin, format!("{path}.burst"), message);
            }
            return None;
        };
        let Rate { count, per } = rate.value.0;
        if count > COUNT_MAX {
            let message = format!("a rate has {COUNT_MAX} requests at most");
            out.error("invalid-value", &rate.origin, format!("{path}.rate"), message);
        }
        if let (Some(quota), Some(written)) = (quota, &self.quota)
            && per >= shortest(quota.every)
        {
            let message = format!(
                "the rate is over {} or more, as the quota is: one of them never counts",
                period_in_words(quota.every)
            );
            out.error("conflicting-keys", &rate.origin, format!("{path}.rate"), message)
                .hint("a rate is per second, minute or hour")
                .related(&written.origin, "the quota");
        }
        let burst = self.burst.as_ref().map_or(count, |burst| burst.value);
        if let Some(written) = &self.burst {
            let path = format!("{path}.burst");
            if burst == 0 {
                out.error("invalid-value", &written.origin, path, "a burst of 0 lets nothing pass");
            } else if burst > COUNT_MAX {
                let message = format!("a burst has {COUNT_MAX} requests at most");
                out.error("invalid-value", &written.origin, path, message);
            } else if let (Some(quota), Some(whole)) = (quota, &self.quota)
                && burst > quota.count
            {
                let message = format!("the burst is larger than the whole quota of {}", quota.count);
                out.error("invalid-value", &written.origin, path, message)
                    .related(&whole.origin, "the quota");
            }
        }
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX).max(1);
        Some(BucketRule { count: count.clamp(1, COUNT_MAX), per, burst: burst.clamp(1, COUNT_MAX), queue: 0 })
    }

    fn quota(&self, path: &str, is_whole: bool, out: &mut Diagnostics) -> Option<Quota> {
        let Some(quota) = &self.quota else {
            let from = &self.quota_from.origin;
            for (key, at) in [
                ("period", self.period.as_ref().map(|at| &at.origin)),
                ("quota_from", Some(from).filter(|origin| **origin != Origin::Default)),
                ("max_unsaved", self.max_unsaved.as_ref().map(|at| &at.origin)),
            ] {
                if let Some(origin) = at.filter(|_| is_whole) {
                    let message = format!("\"{key}\" does nothing without `quota`");
                    out.error("unused-key", origin, format!("{path}.{key}"), message);
                }
            }
            return None;
        };
        let every = match (quota.value.every, &self.period) {
            (Some(every), Some(period)) if period.0 != every => {
                let message = format!(
                    "the period is {}, and the quota is per {}",
                    quote(period.0.as_str()),
                    every.as_str()
                );
                out.error("conflicting-keys", &period.origin, format!("{path}.period"), message)
                    .hint("leave `period` away, or write the quota as a number")
                    .related(&quota.origin, "the quota");
                every
            }
            (Some(every), _) => every,
            (None, Some(period)) => period.0,
            (None, None) => {
                let message = "nobody says in how long";
                let problem = out.error("missing-key", &quota.origin, format!("{path}.quota"), message);
                problem.hint(format!("write \"{}/month\", or add period = \"month\"", quota.value.count));
                Every::Month
            }
        };
        if let Some(unsaved) = self.max_unsaved.as_ref().filter(|unsaved| unsaved.value == 0) {
            let message = "a request is counted before it is in the store: 0 lets nothing pass";
            out.error("invalid-value", &unsaved.origin, format!("{path}.max_unsaved"), message);
        }
        let unsaved_max = self.max_unsaved.as_ref().map(|most| most.value);
        Some(Quota { count: quota.value.count, every, unsaved_max })
    }
}

/// The shortest period that `every` can be.
fn shortest(every: Every) -> Duration {
    let days = match every {
        Every::Day => 1,
        Every::Week => 7,
        Every::Month => 28,
    };
    Duration::from_secs(days * 86_400)
}

fn period_in_words(every: Every) -> &'static str {
    match every {
        Every::Day => "a day",
        Every::Week => "a week",
        Every::Month => "a month",
    }
}

/// `rate`, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanRate(pub Rate);

impl Value for PlanRate {
    fn shape() -> Shape {
        Shape::OneOf(vec![Rate::shape(), u64::shape()])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match node.kind {
            // As AWS has it.
            Kind::Integer(count) => match u64::try_from(count) {
                Ok(count) if count > 0 => Some(Self(Rate { count, per: Duration::from_secs(1) })),
                _ => cx.invalid(node, "lets nothing pass"),
            },
            _ => Rate::decode(node, cx).map(Self),
        }
    }

    fn render(&self) -> String {
        self.0.render()
    }
}

/// `quota`, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaRaw {
    /// How many; never 0.
    pub count: u64,
    /// In how long; `None`: `period` says so.
    pub every: Option<Every>,
}

const PERIODS: [(&str, Every); 3] = [("day", Every::Day), ("week", Every::Week), ("month", Every::Month)];

impl QuotaRaw {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "is not a quota such as \"100000/month\"".to_owned();
        let (count, period) = text.split_once('/').ok_or_else(wrong)?;
        let (count, period) = (count.trim(), period.trim());
        if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let count: u64 = count.parse().map_err(|_| "is more than anybody counts".to_owned())?;
        let every = PERIODS.iter().find(|(name, _)| *name == period).map(|(_, every)| *every);
        let every = every
            .ok_or_else(|| format!("has the period {}, which is none of day, week, month", quote(period)))?;
        if count == 0 {
            return Err("lets nothing pass".to_owned());
        }
        Ok(Self { count, every: Some(every) })
    }
}

impl Value for QuotaRaw {
    fn shape() -> Shape {
        let text = Shape::Text {
            pattern: Some("^[0-9]+ */ *(day|week|month)$"),
            examples: &["100000/month", "1000/day"],
        };
        Shape::OneOf(vec![text, u64::shape()])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match node.kind {
            Kind::Integer(count) => match u64::try_from(count) {
                Ok(count) if count > 0 => Some(Self { count, every: None }),
                _ => cx.invalid(node, "lets nothing pass"),
            },
            _ => text_value(node, cx, "a quota such as \"100000/month\", or a number", Self::parse),
        }
    }

    fn render(&self) -> String {
        match self.every {
            Some(every) => quote(&format!("{}/{}", self.count, every.as_str())),
            None => self.count.to_string(),
        }
    }
}

/// `period`, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeriodRaw(pub Every);

impl Value for PeriodRaw {
    fn shape() -> Shape {
        Shape::Text { pattern: Some("^(?i:day|week|month)$"), examples: &["month", "MONTH"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Some(text) = node.as_str() else { return cx.expected(node, "\"day\", \"week\" or \"month\"") };
        let known = PERIODS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        match known {
            Some((_, every)) => Some(Self(*every)),
            None => cx.none_of(node, text, &["day", "week", "month"]),
        }
    }

    fn render(&self) -> String {
        quote(self.0.as_str())
    }
}

/// Whether the plan begins its periods on anniversaries.
pub fn is_from_anniversary(raw: &At<PlanRaw>) -> bool {
    raw.quota.is_some() && *raw.quota_from == QuotaFrom::Anniversary
}
