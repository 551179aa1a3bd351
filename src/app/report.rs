//! What the process tells of itself: to `/readyz?verbose`, and to `edgeward status`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::control::{self, Status};
use super::reload::Reloader;
use super::services::Follower;
use crate::admin::{Check, Health};
use crate::base::{clock, units};
use crate::broker::Broker;
use crate::cluster::Cluster;
use crate::config::services::{Problem, Report};
use crate::config::snapshot::{Current, Snapshot};
use crate::identity::directory::{Directory, Facts};
use crate::identity::provider::Provider;
use crate::ingress::connection::Connections;
use crate::policy::rate_limit::Question;
use crate::store::{self, Store};
use crate::upstream::Upstream;

/// What is left of rate limits: [`control::limits`].
pub(super) fn limits(current: Arc<Current>) -> control::Limits {
    Arc::new(move |questions| {
        let snapshot = current.load();
        Box::pin(async move {
            let (mut left, mut unknown) = (serde_json::Map::new(), serde_json::Map::new());
            let Ok(questions) = serde_json::from_str::<Vec<Question>>(&questions) else {
                return serde_json::json!({ "ok": false, "error": "the question cannot be read" });
            };
            for question in questions {
                let answer = match snapshot.rate_limits.get(&question.limit) {
                    Some(limit) => limit.answer(&question, clock::now()).await,
                    None => of_plans(&snapshot, &question).await,
                };
                match answer {
                    Ok(told) => left.insert(question.limit, told.into()),
                    Err(why) => unknown.insert(question.limit, why.into()),
                };
            }
            serde_json::json!({ "ok": true, "left": left, "unknown": unknown })
        })
    })
}

/// What is left of a plan's rate or quota.
async fn of_plans(snapshot: &Snapshot, question: &Question) -> Result<String, String> {
    for plan in snapshot.plans.values() {
        if let Some(answer) = plan.answer(question, (clock::now(), clock::unix_now())).await {
            return answer;
        }
    }
    Err("the running process has no such limit".to_owned())
}

/// What `/readyz` is made of.
pub(super) fn health(
    current: &Arc<Current>,
    reloader: &Arc<Reloader>,
    directory: &Arc<Directory>,
    services: Option<&Arc<Follower>>,
) -> Health {
    let (loaded, reloader) = (current.clone(), reloader.clone());
    let configuration: Check = Box::new(move || {
        let snapshot = loaded.load();
        let mut line = format!(
            "generation {}, {} routes, {} upstreams",
            snapshot.generation,
            snapshot.routes.len(),
            snapshot.upstreams.len()
        );
        if let Some(last) = reloader.last() {
            let at = date(last.at);
            line.push_str(&match last.outcome {
                Ok(changes) => format!("; last reload succeeded at {at}: {changes}"),
                // What works goes on working: a failed reload does not make the process unready.
                Err(problem) => format!("; last reload failed at {at}: {problem}"),
            });
        }
        (true, "configuration".to_owned(), line)
    });
    let bound = current.clone();
    let listeners: Check =
        Box::new(move || (true, "listeners".to_owned(), format!("{} bound", bound.load().listeners.len())));
    let (upstreams, providers, clusters) = (current.clone(), current.clone(), current.clone());
    let (brokers, stores, directory) = (current.clone(), current.clone(), directory.clone());
    let pressure: Check = Box::new(|| {
        let (is_well, line) = super::pressure::status();
        (is_well, "pressure".to_owned(), line)
    });
    let mut checks = vec![configuration, listeners, pressure];
    if let Some(follower) = services {
        let (loaded, follower) = (current.clone(), follower.clone());
        checks.push(Box::new(move || service_check(&loaded.load().services, &follower)));
    }
    let left_out = current.clone();
    Health::new(checks)
        .detail(move || service_lines(&left_out.load().services))
        .detail(move || known(stores.load().store.as_ref(), &directory.facts()))
        .detail(move || clusters.load().cluster.as_ref().map(|cluster| shared(cluster)).unwrap_or_default())
        .detail(move || {
            let snapshot = brokers.load();
            let bus = snapshot.log.bus.iter().map(|bus| &bus.broker);
            snapshot.brokers.values().chain(bus).map(asked).collect()
        })
        .detail(move || upstreams.load().upstreams.values().map(|upstream| report(upstream)).collect())
        .detail(move || {
            let (snapshot, now) = (providers.load(), clock::now());
            let line = |provider: &Arc<Provider>| {
                format!("provider {}: {}\n", provider.name(), provider.status(now))
            };
            snapshot.providers.values().map(line).collect()
        })
}

/// What `/readyz?verbose` says of the store and of those who are known. A store that is down does not make the process
/// unready: what was known of it still is.
fn known(store: Option<&Store>, facts: &Facts) -> String {
    let mut text = match store.map(Store::health) {
        None => String::new(),
        Some(store::Health::Unknown) => "[-] store: not asked yet\n".to_owned(),
        Some(store::Health::Up) => "[+] store: up\n".to_owned(),
        Some(store::Health::Down { error, since, .. }) => {
            let since = clock::now().saturating_duration_since(since);
            let since = units::format_duration(Duration::from_secs(since.as_secs()));
            format!("[-] store: down for {since}: {error}\n")
        }
    };
    if store.is_some() || facts.consumers > 0 {
        text.push_str(&format!(
            "identity: {} consumers, {} API keys, {} revoked tokens and {} revoked subjects in {} KiB\n",
            facts.consumers,
            facts.keys,
            facts.revoked_tokens,
            facts.revoked_subjects,
            facts.revoked_bytes.div_ceil(1024),
        ));
    }
    for name in &facts.clashes {
        text.push_str(&format!(
            "  consumer {name}: stands in the configuration and in the store; the configuration counts\n"
        ));
    }
    text
}

/// Whether the services of the store are known. Until they are the process is not ready: it would answer 404 where others
/// answer. Afterwards the last ones go on, whatever becomes of the store.
fn service_check(report: &Report, follower: &Follower) -> (bool, String, String) {
    let failure = follower.failure();
    let line = match (report.number, &failure) {
        (None, None) => "not read yet".to_owned(),
        (None, Some(failure)) => format!("never read: {failure}"),
        (Some(_), None) => report.summary(),
        (Some(_), Some(failure)) => format!("{}; as they were: {failure}", report.summary()),
    };
    (report.number.is_some(), "services".to_owned(), line)
}

/// The services that are left out, and why.
fn service_lines(report: &Report) -> String {
    let mut text = String::new();
    for left in report.left_out.iter().take(SERVICES_SHOWN_MAX) {
        let problem = left.problems.first().map(Problem::line).unwrap_or_default();
        text.push_str(&format!("  service {:?}: left out: {problem}\n", left.name));
    }
    if let Some(more) = report.left_out.len().checked_sub(SERVICES_SHOWN_MAX).filter(|more| *more > 0) {
        text.push_str(&format!("  {more} more services are left out\n"));
    }
    text
}

/// Services of which `/readyz?verbose` says why they are left out.
const SERVICES_SHOWN_MAX: usize = 50;

/// What `/readyz?verbose` says of what instances share. Without Redis limits do as they say, so the process is ready.
fn shared(cluster: &Cluster) -> String {
    let (is_well, line) = cluster.status();
    format!("[{}] cluster: {line}\n", if is_well { '+' } else { '-' })
}

/// What `/readyz?verbose` says of a broker. Routes that need it say 503 while it is away; the others are served.
fn asked(broker: &Broker) -> String {
    let (is_well, line) = broker.status();
    format!("[{}] broker {}: {line}\n", if is_well { '+' } else { '-' }, broker.name())
}

/// What `/readyz?verbose` says of an upstream: a line for it, one for each name and server.
fn report(upstream: &Upstream) -> String {
    let status = upstream.status(clock::now());
    let up = status.servers.iter().filter(|server| server.state == "up" || server.state == "warming").count();
    let word = match (status.servers.len(), up) {
        (0, _) => "not ready".to_owned(),
        (all, up) => format!("{up} of {all} servers available"),
    };
    let mut text = format!("upstream {}: {word}\n", status.name);
    for name in &status.names {
        text.push_str(&format!("  name {}: {} addresses", name.host, name.addresses));
        match &name.error {
            Some(error) => text.push_str(&format!(", {error}\n")),
            None if !name.attempted => text.push_str(", being looked up\n"),
            None => text.push('\n'),
        }
    }
    for server in &status.servers {
        let role = if server.backup { ", backup" } else { "" };
        let since = units::format_duration(Duration::from_secs(server.since.as_secs()));
        let (address, state) = (&server.address, server.state);
        text.push_str(&format!(
            "  {address}: {state} for {since}, weight {}{role}, {} in flight",
            server.weight, server.in_flight
        ));
        if let Some((error, ago)) = &server.last_error {
            let ago = units::format_duration(Duration::from_secs(ago.as_secs()));
            text.push_str(&format!(", last error {ago} ago: {error}"));
        }
        text.push('\n');
    }
    text
}

/// What `edgeward status` tells.
pub(super) fn status(
    current: Arc<Current>,
    connections: Arc<Connections>,
    reloader: Arc<Reloader>,
) -> Status {
    let started = clock::wall();
    Arc::new(move || {
        let snapshot = current.load();
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "started": clock::unix_seconds(started),
            "generation": snapshot.generation,
            "generations_held": current.held(),
            "routes": snapshot.routes.len(),
            "upstreams": snapshot.upstreams.len(),
            "connections": connections.open(),
            "last_reload": reloader.last().map(|last| serde_json::json!({
                "at": clock::unix_seconds(last.at),
                "ok": last.outcome.is_ok(),
                "outcome": last.outcome.unwrap_or_else(|problem| problem),
            })),
        })
    })
}

/// In UTC, to the second.
fn date(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).and_then(|at| at.round(jiff::Unit::Second));
    at.map_or_else(|_| "an unknown time".to_owned(), |at| at.to_string())
}
