//! How a limit stands for somebody, asked from outside of any request: nothing is counted.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::key::{self, Bytes};
use super::{Facts, OnStoreFailure, RateLimit, answer};
use crate::base::units;
use crate::cluster::counters::SharedKey;
use crate::routing::expression::Failed;

/// Who is asked about: what a limit counts by, as bytes that are alike in all processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The limit's name.
    pub limit: String,
    /// What it counts by: another kind is another counter.
    pub kind: String,
    /// The values, two hexadecimal digits a byte.
    pub values: String,
}

impl Question {
    /// One about `values`.
    pub fn new(limit: String, kind: String, values: &[u8]) -> Self {
        Self { limit, kind, values: values.iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// The values; `None` where they are not written as they are to be.
    pub fn bytes(&self) -> Option<SmallVec<[u8; 128]>> {
        unhex(&self.values)
    }
}

impl RateLimit {
    /// The question how this limit stands for `facts`, to be put to a process that counts.
    pub fn question(&self, facts: &Facts<'_>) -> Question {
        let values = self.settings.key.values(facts);
        Question::new(self.settings.name.to_string(), self.settings.key.kind(), &values)
    }

    /// Whom it counts, in words.
    pub fn told(&self, facts: &Facts<'_>) -> String {
        self.settings.key.told(facts)
    }

    /// Whether the request is not counted at all.
    pub fn exempts(&self, facts: &Facts<'_>) -> bool {
        self.is_exempt(facts)
    }

    /// What the request counts for.
    ///
    /// # Errors
    /// What it counts for instead, and why that cannot be worked out.
    pub fn cost_of(&self, facts: &Facts<'_>) -> Result<u64, (u64, String)> {
        let most = self.rules.bucket.map_or(1, |bucket| bucket.burst);
        let why = |failed: Option<_>| failed.map_or_else(String::new, |failed: Failed| failed.to_string());
        self.settings.cost.of(facts.work).map_err(|failed| (most, why(failed)))
    }

    /// Which instances count it, in words; `None` where there is one only.
    pub fn sharing(&self) -> Option<String> {
        let Some(shared) = &self.shared else {
            let alone = self.is_clustered && self.rules.concurrent.is_some();
            return alone.then(|| "counted by each instance for itself".to_owned());
        };
        let alone =
            if self.rules.concurrent.is_some() { "; requests at once by each for itself" } else { "" };
        Some(match shared.batch_max() {
            0 => format!("counted by all instances together, over Redis{alone}"),
            most => {
                format!("counted by all instances together, over Redis, in batches of up to {most}{alone}")
            }
        })
    }

    /// What becomes of requests while Redis cannot be asked; `None` where nothing is counted there.
    pub fn alone(&self) -> Option<OnStoreFailure> {
        self.shared.as_ref().map(|_| self.settings.on_store_failure)
    }

    /// What is left for whom `question` names, in words. `Err`: why that cannot be told.
    pub async fn answer(
        self: &Arc<Self>,
        question: &Question,
        now: std::time::Instant,
    ) -> Result<String, String> {
        if question.kind != self.settings.key.kind() {
            return Err("the running process counts it by something else".to_owned());
        }
        let values = question.bytes().ok_or("the question cannot be read")?;
        let here = self.store().look(&self.rules, key::hash(&values), now);
        let (mut standing, overflow) = here.ok_or("a reload is under way")?;
        let mut note = if overflow { ", shared with others: all places for keys are taken" } else { "" };
        if let Some(shared) = &self.shared {
            match shared.look(SharedKey::new(&question.kind, &values)).await {
                Some(rooms) => standing.rooms = rooms,
                None => note = " at this instance: the others' counters cannot be asked",
            }
        }
        let bucket = self.rules.bucket.iter().map(|rule| (rule.burst, rule.count, rule.per));
        let windows = bucket.chain(self.rules.windows.iter().map(|rule| (rule.count, rule.count, rule.per)));
        let mut parts: Vec<String> = windows
            .zip(&standing.rooms)
            .map(|((most, count, per), room)| {
                let rate = answer::rate(count, per);
                let rest = Duration::from_millis(room.empty_in.div_ceil(1_000_000));
                match room.empty_in {
                    0 => format!("{} of {most} ({rate})", room.left),
                    _ => format!("{} of {most} ({rate}; all in {})", room.left, units::format_duration(rest)),
                }
            })
            .collect();
        let slots = self.rules.concurrent.zip(standing.slots_left);
        parts.extend(slots.map(|(most, left)| format!("{left} of {most} at once")));
        Ok(format!("{}{note}", parts.join(", ")))
    }
}

fn unhex(text: &str) -> Option<Bytes> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Bytes::new();
    for pair in text.as_bytes().chunks(2) {
        let [high, low] = pair else { return None };
        bytes.push(digit(high)? << 4 | digit(low)?);
    }
    Some(bytes)
}
