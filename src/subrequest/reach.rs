//! What can be said of a plan before it runs: legs that wait in a circle, references that can never have a value, members
//! that two legs may both bring.

use std::collections::HashSet;

use super::config::AggregateRaw;
use super::input::Root;
use super::json::Json;
use super::plan::Leg;
use super::read::{Filter, Reading};
use crate::base::decode::quote;
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::Origin;

/// The legs' places, each after all that it waits for; `None` and an error where some wait for each other.
pub(super) fn order(
    legs: &[Leg],
    raw: &AggregateRaw,
    path: &str,
    out: &mut Diagnostics,
) -> Option<Vec<usize>> {
    let mut order = Vec::with_capacity(legs.len());
    let mut done = vec![false; legs.len()];
    let is_done = |done: &[bool], leg: usize| done.get(leg).copied().unwrap_or(true);
    while order.len() < legs.len() {
        let ready = legs.iter().enumerate().find(|(index, leg)| {
            !is_done(&done, *index) && leg.waits_on.iter().all(|other| is_done(&done, *other))
        });
        let Some((next, _)) = ready else { break };
        order.push(next);
        if let Some(done) = done.get_mut(next) {
            *done = true;
        }
    }
    if order.len() == legs.len() {
        return Some(order);
    }
    // Whoever is left waits for somebody who is left: going on from any of them ends in a circle.
    let mut way: Vec<usize> = Vec::new();
    let mut at = (0..legs.len()).find(|index| !is_done(&done, *index))?;
    while !way.contains(&at) {
        way.push(at);
        at = legs.get(at)?.waits_on.iter().copied().find(|other| !is_done(&done, *other))?;
    }
    let circle: Vec<usize> = way.into_iter().skip_while(|leg| *leg != at).collect();
    let names: Vec<&str> =
        circle.iter().chain([&at]).filter_map(|leg| Some(&*legs.get(*leg)?.name)).collect();
    let first = raw.legs.get(at)?;
    let (origin, key) = match &first.path {
        Some(written) => (&written.origin, ".path"),
        None => (&first.name.origin, ""),
    };
    let problem = out.error(
        "leg-cycle",
        origin,
        format!("{path}.legs[{at}]{key}"),
        format!("these legs wait for each other and none would ever be asked: {}", names.join(" → ")),
    );
    for other in circle.iter().skip(1).filter_map(|leg| raw.legs.get(*leg)) {
        problem.related(&other.name.origin, "waits, too");
    }
    None
}

/// Reports references that no answer can ever hold: what the other leg leaves out, or calls otherwise.
pub(super) fn check(legs: &[Leg], raw: &AggregateRaw, path: &str, out: &mut Diagnostics) {
    for (index, leg) in legs.iter().enumerate() {
        let Some(written) = raw.legs.get(index) else { continue };
        let each = leg.for_each.as_ref().map(|each| (each.source, &each.path));
        let references = leg.request.references.iter().filter_map(|reference| match reference.root {
            Root::Leg(leg) => Some((leg, &reference.path)),
            _ => None,
        });
        for (source, wanted) in references.chain(each) {
            let Some(other) = legs.get(source) else { continue };
            // The answers of `for_each` are an array; what an element brings is read one level further down.
            let wanted: &[Box<str>] =
                if other.for_each.is_some() { wanted.get(1..).unwrap_or_default() } else { wanted };
            if reaches(&other.reading, wanted) {
                continue;
            }
            let message = format!(
                "`{}.{}` never has a value: the leg {} leaves it out or renames it",
                other.name,
                wanted.join("."),
                quote(&other.name),
            );
            let related = raw.legs.get(source).map_or(Origin::Default, |other| {
                let keys = [&other.allow.origin, &other.deny.origin, &other.rename.origin];
                keys.into_iter().find(|origin| **origin != Origin::Default).unwrap_or(&other.origin).clone()
            });
            out.error("leg-never-runs", &written.name.origin, format!("{path}.legs[{index}]"), message)
                .hint("refer to what is there after `target`, `allow` or `deny`, and `rename`")
                .related(&related, "what is left of its answer");
        }
    }
}

/// Whether `wanted` can be in an answer that is read so.
fn reaches(reading: &Reading, wanted: &[Box<str>]) -> bool {
    let mut original = wanted.to_vec();
    for (from, name) in reading.rename.iter().rev() {
        let Some((last, before)) = from.split_last() else { continue };
        let depth = before.len();
        let is_there = original.get(..depth).is_some_and(|start| fits(before, start));
        match original.get_mut(depth) {
            Some(key) if is_there && *key == *name => key.clone_from(last),
            Some(key) if is_there && *key == *last => return false,
            _ => {}
        }
    }
    match &reading.filter {
        None => true,
        // Kept whole, or with the part of it that is wanted.
        Some(Filter::Allow(paths)) => {
            original.is_empty()
                || paths.iter().any(|path| {
                    let depth = path.len().min(original.len());
                    match (path.get(..depth), original.get(..depth)) {
                        (Some(path), Some(start)) => fits(path, start),
                        _ => false,
                    }
                })
        }
        Some(Filter::Deny(paths)) => {
            !paths.iter().any(|path| original.get(..path.len()).is_some_and(|start| fits(path, start)))
        }
    }
}

/// Whether `path`, which may have `*`, leads along `keys`.
fn fits(path: &[Box<str>], keys: &[Box<str>]) -> bool {
    path.len() == keys.len() && path.iter().zip(keys).all(|(part, key)| &**part == "*" || part == key)
}

/// Warns of members that two legs may both bring, and reports what cannot be merged.
pub(super) fn check_merge(legs: &[Leg], raw: &AggregateRaw, path: &str, out: &mut Diagnostics) {
    if !raw.shape.is_empty() {
        return;
    }
    let mut merged: Vec<(usize, Option<HashSet<&str>>)> = Vec::new();
    for (index, leg) in legs.iter().enumerate() {
        let Some(written) = raw.legs.get(index) else { continue };
        if let Some(group) = &leg.group {
            let first = legs.iter().take(index).position(|other| other.group.as_ref() == Some(group));
            if let Some(first) = first.and_then(|first| raw.legs.get(first)) {
                let message = format!("two legs stand under {}: the later one wins", quote(group));
                let origin = written.group.as_ref().map_or(&written.origin, |group| &group.origin);
                out.warning("leg-conflict", origin, format!("{path}.legs[{index}].group"), message)
                    .related(&first.origin, "the other leg");
            }
            continue;
        }
        if let (Some(fallback), None) = (&leg.fallback, &leg.for_each)
            && !matches!(fallback, Json::Object(_) | Json::Null)
            && let Some(written) = &written.fallback
        {
            let message = "what is no object cannot be merged into the answer";
            out.error("leg-needs-group", &written.origin, format!("{path}.legs[{index}].fallback"), message)
                .hint("give the leg a `group`, or the aggregate a `shape`");
        }
        if leg.for_each.is_some() {
            continue;
        }
        let brings = members(&leg.reading);
        let conflict = merged.iter().find_map(|(other, theirs)| match (&brings, theirs) {
            (Some(own), Some(theirs)) => {
                let mut both: Vec<&str> = own.intersection(theirs).copied().collect();
                both.sort_unstable();
                both.first().map(|name| {
                    (
                        *other,
                        format!(
                            "both this leg and {} bring {}: the later one wins",
                            named(legs, *other),
                            quote(name)
                        ),
                    )
                })
            }
            _ => Some((
                *other,
                format!(
                    "this leg and {} may bring the same members: the later one wins",
                    named(legs, *other)
                ),
            )),
        });
        // Of services of the store the order is known to count: it is what they are for.
        if let Some((other, message)) = conflict
            && !matches!(written.name.origin, Origin::Row { .. })
        {
            let problem =
                out.warning("leg-conflict", &written.name.origin, format!("{path}.legs[{index}]"), message);
            problem.hint("give one of them a `group`, or both an `allow`");
            if let Some(other) = raw.legs.get(other) {
                problem.related(&other.name.origin, "the other leg");
            }
        }
        merged.push((index, brings));
    }
}

fn named(legs: &[Leg], index: usize) -> String {
    quote(legs.get(index).map_or("", |leg| &leg.name))
}

/// The members that an answer can have at its top, where `allow` says so.
fn members(reading: &Reading) -> Option<HashSet<&str>> {
    let Some(Filter::Allow(paths)) = &reading.filter else { return None };
    let mut names = HashSet::new();
    for path in paths {
        let first = path.first().filter(|first| &***first != "*")?;
        let renamed = reading.rename.iter().find(|(from, _)| **from == [first.clone()]);
        names.insert(renamed.map_or(&**first, |(_, name)| &**name));
    }
    Some(names)
}
