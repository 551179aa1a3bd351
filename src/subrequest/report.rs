//! What is told of the legs: to clients in `Server-Timing` and `_legs`, to the log in a line.

use std::fmt::{self, Write};

use super::json::{Json, Object};
use super::plan::Plan;
use super::run::{Settled, State};

/// The member of an answer that reports on the legs.
pub const MEMBER: &str = "_legs";

/// The value of `Server-Timing` (W3C): each leg with how long it took in milliseconds, and its status or why it has none.
pub fn server_timing(plan: &Plan, legs: &[Settled]) -> String {
    let mut line = String::with_capacity(legs.len() * LEG_BYTES_COMMON);
    for (leg, settled) in plan.legs.iter().zip(legs) {
        let separator = if line.is_empty() { "" } else { ", " };
        // To a tenth of a millisecond. Names were checked to be tokens, and codes are.
        let tenths = settled.took.as_micros().saturating_add(50) / 100;
        let (whole, part, word) = (tenths / 10, tenths % 10, Word(settled));
        push(&mut line, format_args!("{separator}{};dur={whole}.{part};desc=\"{word}\"", leg.name));
    }
    line
}

/// For the access log: `order=200:12ms stock=leg.timeout:800ms`.
pub fn log_line(plan: &Plan, legs: &[Settled]) -> String {
    let mut line = String::with_capacity(legs.len() * LEG_BYTES_COMMON);
    for (leg, settled) in plan.legs.iter().zip(legs) {
        let space = if line.is_empty() { "" } else { " " };
        let (word, time) = (Word(settled), settled.took.as_millis());
        push(&mut line, format_args!("{space}{}={word}:{time}ms", leg.name));
    }
    line
}

/// What is commonly said of a leg.
const LEG_BYTES_COMMON: usize = 40;

fn push(line: &mut String, text: fmt::Arguments<'_>) {
    // Writing to memory cannot fail.
    let _written = line.write_fmt(text);
}

/// The status where that tells all, else why there is no answer.
struct Word<'s>(&'s Settled);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.failure(), self.0.status) {
            (None, Some(status)) => write!(f, "{status}"),
            (None, None) => f.write_str("done"),
            (Some(failure), None) => f.write_str(failure.code()),
            (Some(failure), Some(status)) => write!(f, "{status} {}", failure.code()),
        }
    }
}

/// The member `_legs`.
pub fn body(plan: &Plan, legs: &[Settled], failed_shapes: &[Box<str>]) -> Json {
    let mut report = Object::default();
    for (leg, settled) in plan.legs.iter().zip(legs) {
        let mut told = Object::default();
        let mut tell = |key: &str, value: Json| drop(told.insert(key.into(), value));
        tell("completed", Json::Bool(settled.is_complete()));
        tell("status", settled.status.map_or(Json::Null, |status| Json::integer(status.into())));
        tell("ms", Json::integer(u64::try_from(settled.took.as_millis()).unwrap_or(u64::MAX)));
        tell("attempts", Json::integer(settled.attempts.into()));
        if let Some(failure) = settled.failure() {
            tell("reason", Json::string(failure.code()));
        }
        if matches!(settled.state, State::Skipped(_)) {
            tell("skipped", Json::Bool(true));
        }
        if let Some(elements) = &settled.elements {
            tell("calls", Json::integer(elements.calls as u64));
            if !elements.missing.is_empty() {
                let places = elements.missing.iter().map(|place| Json::integer(*place as u64));
                tell("missing", Json::Array(places.collect()));
            }
        }
        report.insert((*leg.name).into(), Json::Object(told));
    }
    if !failed_shapes.is_empty() {
        let names = failed_shapes.iter().map(|name| Json::string(name));
        report.insert("_shape".into(), Json::Array(names.collect()));
    }
    Json::Object(report)
}
