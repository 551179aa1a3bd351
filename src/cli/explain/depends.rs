//! What a route depends on that may be away, and what becomes of a request then, in one line each. `docs/failures.md` says
//! the same of everything there is, with what clients see and how soon.
//!
//! **closed**: the request is refused. **open**: it goes on without. **local**: it is answered from what this process knows.

use super::line;
use crate::base::decode::quote;
use crate::base::units;
use crate::config::snapshot::{Destination, Route, Snapshot, Target};
use crate::identity::login::Step;
use crate::policy::auth::Kind;
use crate::policy::plan::Plan;
use crate::policy::rate_limit::OnStoreFailure;
use crate::subrequest::config::OnFailure;
use crate::subrequest::{Leg, Service};
use crate::upstream::{Fallback, Upstream};

/// Writes what `route` depends on; `plan` is that of who asks.
pub(super) fn depends(text: &mut String, snapshot: &Snapshot, route: &Route, plan: Option<&Plan>) {
    let mut told = String::new();
    policies(&mut told, snapshot, route, plan);
    target(&mut told, route);
    if route.access_log && snapshot.log.access.is_some() {
        line(&mut told, "access log", "open: a line that cannot be written is dropped and counted");
    }
    if snapshot.log.bus.is_some() {
        line(&mut told, "log bus", "open: what waits for the broker beyond `buffer` is dropped and counted");
    }
    if !told.is_empty() {
        text.push_str("\ndepends on\n");
        text.push_str(&told);
    }
}

fn policies(text: &mut String, snapshot: &Snapshot, route: &Route, plan: Option<&Plan>) {
    let limits = route.guard.address_limits.0.iter().chain(&route.guard.limits.0);
    for limit in limits {
        if let Some(mode) = limit.alone() {
            line(text, "redis", &format!("limit {}: {}", limit.name(), alone(mode)));
        }
    }
    if let Some(auth) = &route.guard.auth {
        let fetched = auth.providers().all().iter().filter(|provider| provider.is_fetched());
        for provider in fetched {
            let mode = "local: the keys that were fetched last hold for a day; before the first, closed: 503 auth.keys_unavailable";
            line(text, "provider", &format!("{}: {mode}", provider.name()));
        }
        let of_store = auth.takes(Kind::ApiKey) || auth.takes(Kind::Jwt);
        if snapshot.store.is_some() && of_store {
            let mode = "local: keys, consumers and revocations that are known hold; what was never read, closed: 503 store.unavailable";
            line(text, "store", mode);
        }
        if snapshot.cluster.is_some() && of_store {
            line(text, "redis", "revocations: local: those of other instances are heard when it is back");
        }
    }
    if let Some(plan) = plan.filter(|_| route.guard.plan.is_some()) {
        if let Some(mode) = plan.rate_alone() {
            line(text, "redis", &format!("plan {}: {}", plan.name(), alone(mode)));
        }
        if let Some(mode) = plan.quota_alone().filter(|_| snapshot.store.is_some()) {
            line(text, "store", &format!("plan {}: {}", plan.name(), alone(mode)));
        }
    }
}

/// What `on_store_failure` means.
fn alone(mode: OnStoreFailure) -> &'static str {
    match mode {
        OnStoreFailure::Local => "local: each instance counts for itself",
        OnStoreFailure::Allow => "open: everything passes",
        OnStoreFailure::Deny => "closed: 503 limit.unavailable",
    }
}

fn target(text: &mut String, route: &Route) {
    match &route.target {
        Target::Upstream(upstream) => {
            line(text, "upstream", &format!("{}: {}", upstream.name(), of_upstream(upstream)));
            names(text, upstream);
        }
        Target::Aggregate(plan) => {
            for leg in &plan.legs {
                let mode = of_leg(leg, plan.on_failure);
                line(text, "leg", &format!("{} from {}: {mode}", leg.name, leg.service));
                if let Service::Upstream(upstream) = &leg.service {
                    names(text, upstream);
                }
            }
        }
        Target::Amqp(amqp) => {
            let limit = units::format_duration(amqp.timeout);
            let late = match &amqp.destination {
                Destination::Ask(queue) => format!("no answer of {} within {limit}", quote(queue.as_str())),
                Destination::Leave(_) | Destination::Publish { .. } => format!("not taken within {limit}"),
            };
            let broker = amqp.broker.name();
            line(
                text,
                "broker",
                &format!("{broker}: closed: 503 broker.down at once; 504 broker.timeout, {late}"),
            );
        }
        Target::Login(target) if target.step != Step::Keys => {
            line(text, "store", "closed: 503 store.unavailable, within 2s");
        }
        Target::Files(_) => {
            line(text, "disk", "closed: 404 file.not_found, or 500 file.failed where it cannot be read");
        }
        Target::Login(_) | Target::Redirect(_) | Target::Respond(_) | Target::Nothing => {}
    }
}

fn of_upstream(upstream: &Upstream) -> String {
    let most = units::format_duration(upstream.timeouts().connect);
    match upstream.fallback() {
        None => format!("closed: 502, 503 or 504, not connected within {most}"),
        Some(Fallback::Answer(answer)) => {
            format!("local: its fallback, {}, where no server can be reached", answer.status().as_u16())
        }
        Some(Fallback::Upstream(other)) => {
            format!("open: {} in its place, where no server can be reached", other.name())
        }
    }
}

fn of_leg(leg: &Leg, on_failure: OnFailure) -> &'static str {
    match &leg.fallback {
        _ if leg.required || on_failure == OnFailure::Fail => "closed: the request fails with it",
        Some(_) => "local: its fallback stands in its place",
        None => "open: missing in the answer, which says so",
    }
}

/// Servers that are named, not numbered.
fn names(text: &mut String, upstream: &Upstream) {
    let status = upstream.status(crate::base::clock::now());
    for name in &status.names {
        let mode = "local: the addresses found last hold; before the first, closed: 503 upstream.not_ready";
        line(text, "dns", &format!("{}: {mode}", name.host));
    }
}
