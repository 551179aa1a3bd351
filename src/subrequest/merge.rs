//! One document from the legs' answers. Pure.

use super::json::{Json, Object};
use super::outcome::{Failure, Refusal};
use super::plan::{Leg, Plan};
use super::run::{Run, Settled, State};
use crate::base::reason::Reason;

/// The answer.
#[derive(Debug)]
pub struct Document {
    /// Its members.
    pub members: Object,
    /// Whether all of it is there.
    pub completed: bool,
    /// Members of `shape` whose expression failed.
    pub failed_shapes: Vec<Box<str>>,
}

/// Why there is no answer; `None` if there is one.
pub fn refusal(plan: &Plan, run: &Run) -> Option<Refusal> {
    if let Some((leg, settled)) =
        run.fatal.and_then(|fatal| Some((plan.legs.get(fatal)?, run.legs.get(fatal)?)))
    {
        return Some(blame(leg, settled.failure().unwrap_or(Failure::Cancelled)));
    }
    // What stands in for a leg is no answer of anybody's: alone it would pass a failure off as one.
    if run.legs.iter().any(|settled| matches!(settled.state, State::Done | State::Partly(_))) {
        return None;
    }
    let failures = || run.legs.iter().filter_map(Settled::failure);
    let is_of_client = |failure: Failure| matches!(failure, Failure::InputMissing { of_client: true });
    let was_asked = |failure: &Failure| !matches!(failure, Failure::InputMissing { .. });
    let reason = if failures().all(is_of_client) {
        Reason::InputMissing
    } else if failures().any(|failure| was_asked(&failure))
        && failures().filter(was_asked).all(Failure::is_timeout)
    {
        Reason::AllLegsTimedOut
    } else {
        Reason::NoLegAnswered
    };
    Some(Refusal { reason, status: None, leg: None, retry_after: None })
}

fn blame(leg: &Leg, failure: Failure) -> Refusal {
    let (reason, status) = failure.refusal();
    let retry_after = match failure {
        Failure::Upstream { retry_after, .. } => retry_after.filter(|_| reason == Reason::LegUnavailable),
        _ => None,
    };
    Refusal { reason, status, leg: Some((leg.name.clone(), failure.code())), retry_after }
}

/// Puts the legs' values together, which are taken out of `legs`.
pub fn compose(plan: &Plan, legs: &mut [Settled]) -> Document {
    let completed = legs.iter().all(Settled::is_complete);
    let mut values: Vec<Option<Json>> = legs.iter_mut().map(|leg| leg.value.take()).collect();
    put_on_elements(plan, &mut values);
    match &plan.shape {
        None => Document { members: merge(plan, values), completed, failed_shapes: Vec::new() },
        Some(shape) => {
            let named = plan.legs.iter().zip(values);
            let named = named.map(|(leg, value)| ((*leg.name).into(), value.unwrap_or(Json::Null)));
            let shaped = shape.draw(&Json::Object(named.collect()));
            let completed = completed && shaped.failed.is_empty();
            Document { members: shaped.members, completed, failed_shapes: shaped.failed }
        }
    }
}

/// Each element gets its answer under the leg's name. What goes through the answers of another such leg goes first: its
/// elements are those answers.
fn put_on_elements(plan: &Plan, values: &mut [Option<Json>]) {
    for index in plan.order.iter().rev() {
        let Some(leg) = plan.legs.get(*index).filter(|leg| plan.puts_on_elements(leg)) else { continue };
        let Some(each) = &leg.for_each else { continue };
        let answers = match (values.get_mut(*index), plan.shape.is_some()) {
            // An expression may go through them by the leg's own name as well.
            (Some(value), true) => value.clone(),
            (Some(value), false) => value.take(),
            (None, _) => None,
        };
        let elements = values.get_mut(each.source).and_then(|value| value.as_mut()?.at_mut(&each.path));
        let (Some(Json::Array(answers)), Some(Json::Array(elements))) = (answers, elements) else { continue };
        for (element, answer) in elements.iter_mut().zip(answers) {
            if let Json::Object(members) = element {
                members.insert((*leg.name).into(), answer);
            }
        }
    }
}

/// In the order of the legs: under their groups, or member by member at the top, where the later wins.
fn merge(plan: &Plan, values: Vec<Option<Json>>) -> Object {
    let mut members = Object::default();
    for (leg, value) in plan.legs.iter().zip(values) {
        match (&leg.group, value) {
            (_, None) => {}
            (None, Some(Json::Object(brought))) => members.extend(brought),
            // Told of where the answer was read.
            (None, Some(_)) => {}
            (Some(group), Some(value)) => match (members.get_mut(group), value) {
                (Some(Json::Object(there)), Json::Object(brought)) => there.extend(brought),
                (_, value) => drop(members.insert(group.clone(), value)),
            },
        }
    }
    members
}
