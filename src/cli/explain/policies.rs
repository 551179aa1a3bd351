//! What stands in the way of a request: the policies of its route, what is left of its limits, and every setting.

use std::fmt::Write;

use super::{described, line};
use crate::app::control;
use crate::base::origin::Origin;
use crate::config::snapshot::{Route, Snapshot, Target};
use crate::policy::plan::Gate;
use crate::policy::rate_limit::{Facts, Question, RateLimit};

/// The policies in the order they run, then every effective setting, each with where it was written.
pub(super) fn policies(text: &mut String, snapshot: &Snapshot, route: &Route, facts: &Facts<'_>) {
    let rules = [route.request.as_ref().map(|_| "request"), route.response.as_ref().map(|_| "response")];
    let names: Vec<_> = route.guard.names().chain(rules.into_iter().flatten()).collect();
    text.push_str("\npolicies, in the order they run\n");
    let left = Left::ask(snapshot, route, facts);
    // Limits stand in two places of the order: each where it is asked.
    let mut limits = [&route.guard.address_limits, &route.guard.limits].into_iter();
    for name in &names {
        if *name == "plan" {
            let default = route.guard.plan.as_ref().and_then(Gate::default_plan);
            let shown = default.map(|plan| described(snapshot, plan));
            line(text, name, &shown.unwrap_or_else(|| "that of the key or the consumer".to_owned()));
            let asked = route.guard.plan.iter().flat_map(|gate| gate.questions(facts));
            asked.for_each(|question| left.of(text, &question.limit));
            continue;
        }
        if *name == "rate_limits" {
            let asked_here = limits.by_ref().find(|limits| !limits.is_empty());
            for limit in asked_here.iter().flat_map(|limits| &limits.0) {
                let place = snapshot.sources.describe(&limit.settings().origin);
                line(text, name, &format!("{}: {}  ({place})", limit.name(), limit.describe()));
                left.tell(text, limit, facts);
            }
            continue;
        }
        let written = route.settings.iter().filter(|setting| setting.key.split('.').next() == Some(*name));
        let places: Vec<_> = written
            .map(|setting| {
                format!(
                    "{} = {}  ({})",
                    setting.key,
                    setting.value,
                    snapshot.sources.describe(&setting.origin)
                )
            })
            .collect();
        if places.is_empty() {
            line(text, name, "(default)");
        }
        for place in places {
            line(text, name, &place);
        }
    }
    if let Target::Login(target) = &route.target {
        for limit in &target.limits.0 {
            let place = snapshot.sources.describe(&limit.settings().origin);
            line(text, "rate_limits", &format!("{}: {}  ({place})", limit.name(), limit.describe()));
            line(text, "", "asked when the body has told which account is tried");
        }
    }
    if names.is_empty() {
        text.push_str("  none\n");
    }
    text.push_str("\nsettings\n");
    // What nobody wrote is in the reference.
    for setting in route.settings.iter().filter(|setting| setting.origin != Origin::Default) {
        let place = snapshot.sources.describe(&setting.origin);
        writeln!(text, "  {} = {}  ({place})", setting.key, setting.value).unwrap_or_default();
    }
}

/// What is left of the limits of a route, as the running process says.
enum Left {
    /// Nobody can be asked: no control socket is configured.
    NoWay,
    /// Nobody answers, or not as expected.
    Nobody(String),
    /// What it says of each, by name.
    Told(serde_json::Value),
}

impl Left {
    fn ask(snapshot: &Snapshot, route: &Route, facts: &Facts<'_>) -> Self {
        let Some(socket) = &snapshot.server.control_socket else { return Self::NoWay };
        let limits = route.guard.address_limits.0.iter().chain(&route.guard.limits.0);
        let planned = route.guard.plan.iter().flat_map(|gate| gate.questions(facts));
        let questions: Vec<Question> = limits.map(|limit| limit.question(facts)).chain(planned).collect();
        if questions.is_empty() {
            return Self::NoWay;
        }
        let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.clone());
        match control::limits(&socket, &questions) {
            Ok(answer) => Self::Told(answer),
            Err(error) => Self::Nobody(format!("no process answers on {}: {error}", socket.display())),
        }
    }

    /// Whom `limit` counts, for how much, together with whom, and what is left.
    fn tell(&self, text: &mut String, limit: &RateLimit, facts: &Facts<'_>) {
        if limit.exempts(facts) {
            return line(text, "", "does not count this one");
        }
        let who = limit.told(facts);
        line(
            text,
            "",
            &match limit.cost_of(facts) {
                Ok(1) => format!("counts {who}"),
                Ok(0) => format!("counts {who}, and this request for nothing"),
                Ok(cost) => format!("counts {who}, and this request for {cost}"),
                Err((most, why)) => {
                    format!("counts {who}, and this request for {most}: its cost is not known: {why}")
                }
            },
        );
        if let Some(sharing) = limit.sharing() {
            line(text, "", &sharing);
        }
        self.of(text, limit.name());
    }

    /// What is left of the limit or quota called `name`.
    fn of(&self, text: &mut String, name: &str) {
        let left = match self {
            Self::NoWay => return,
            Self::Nobody(why) => format!("what is left is not known: {why}"),
            Self::Told(answer) => {
                let of = |key: &str| answer.pointer(&format!("/{key}/{}", pointed(name)))?.as_str();
                match (of("left"), of("unknown")) {
                    (Some(left), _) => format!("left: {left}"),
                    (None, why) => {
                        format!("what is left is not known: {}", why.unwrap_or("the process does not say"))
                    }
                }
            }
        };
        line(text, "", &left);
    }
}

/// As a step of a JSON pointer.
fn pointed(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
