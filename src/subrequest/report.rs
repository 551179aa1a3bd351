//! What is told of the legs: to clients in `Server-Timing` and `_legs`, to the log in a line.

use super::json::{Json, Object};
use super::plan::Plan;
use super::run::{Settled, State};

/// The member of an answer that reports on the legs.
pub const MEMBER: &str = "_legs";

/// The value of `Server-Timing` (W3C): each leg with how long it took in milliseconds, and its status or why it has none.
pub fn server_timing(plan: &Plan, legs: &[Settled]) -> String {
    let mut line = String::new();
    for (leg, settled) in plan.legs.iter().zip(legs) {
        if !line.is_empty() {
            line.push_str(", ");
        }
        // Names were checked to be tokens, and codes are.
        line.push_str(&leg.name);
        push(&mut line, format_args!(";dur={:.1};desc=\"", settled.took.as_secs_f64() * 1e3));
        line.push_str(&word(settled));
        line.push('"');
    }
    line
}

/// For the access log: `order=200:12ms stock=leg.timeout:800ms`.
pub fn log_line(plan: &Plan, legs: &[Settled]) -> String {
    let mut line = String::new();
    for (leg, settled) in plan.legs.iter().zip(legs) {
        let space = if line.is_empty() { "" } else { " " };
        push(&mut line, format_args!("{space}{}={}:{}ms", leg.name, word(settled), settled.took.as_millis()));
    }
    line
}

fn push(line: &mut String, text: std::fmt::Arguments<'_>) {
    line.push_str(&text.to_string());
}

/// The status where that tells all, else why there is no answer.
fn word(settled: &Settled) -> String {
    match (settled.failure(), settled.status) {
        (None, Some(status)) => status.to_string(),
        (None, None) => "done".to_owned(),
        (Some(failure), None) => failure.code().to_owned(),
        (Some(failure), Some(status)) => format!("{status} {}", failure.code()),
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
