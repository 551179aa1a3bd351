//! Services of the store beside the routes of the files: whoever may write to the database must not thereby open or hide
//! what an operator wrote.

use indexmap::IndexMap;

use super::Compiler;
use crate::base::decode::quote;
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::{At, Origin};
use crate::config::route::RouteRaw;
use crate::policy::auth::{AuthRaw, AuthTable};
use crate::routing::overlap::{First, first_by_hosts};

/// Whether it stands in the store.
pub(super) fn is_row(origin: &Origin) -> bool {
    matches!(origin, Origin::Row { .. })
}

impl Compiler<'_> {
    /// Refuses services that take requests from a route of the files and ask for less, or have the path of one.
    pub(super) fn check_services(self, out: &mut Diagnostics) {
        let services = || self.raw.routes.iter().filter(|route| is_row(&route.origin));
        if services().next().is_none() {
            return;
        }
        let routes = Routes::of(self.raw.routes.iter().filter(|route| !is_row(&route.origin)));
        for service in services() {
            for route in routes.near(service) {
                check(service, route, out);
            }
        }
    }
}

/// The routes of the files, by what their paths begin with.
struct Routes<'a> {
    by_first: IndexMap<&'a str, Vec<&'a At<RouteRaw>>>,
    others: Vec<&'a At<RouteRaw>>,
}

impl<'a> Routes<'a> {
    fn of(routes: impl Iterator<Item = &'a At<RouteRaw>>) -> Self {
        let mut sorted = Self { by_first: IndexMap::new(), others: Vec::new() };
        for route in routes {
            match route.path.first_literal() {
                Some(first) => sorted.by_first.entry(first).or_default().push(route),
                None => sorted.others.push(route),
            }
        }
        sorted
    }

    /// Those whose paths may be those of `service`, too.
    fn near(&self, service: &RouteRaw) -> impl Iterator<Item = &'a At<RouteRaw>> {
        let found: Vec<_> = match service.path.first_literal() {
            Some(first) => {
                self.by_first.get(first).into_iter().flatten().chain(&self.others).copied().collect()
            }
            None => self.by_first.values().flatten().chain(&self.others).copied().collect(),
        };
        found.into_iter()
    }
}

/// Whether requests that both match may go to `service`, for all that they ask beside host, path, method and listener.
pub(super) fn may_take(service: &RouteRaw, route: &RouteRaw) -> bool {
    first_of(service, route).is_some_and(|first| first != First::Other)
}

/// Which of the two goes first, in the order that the table has; `None` where no request is for both.
fn first_of(service: &RouteRaw, route: &RouteRaw) -> Option<First> {
    let by_paths = service.path.first_against(&route.path)?;
    let (own, others) = (service.hosts.iter(), route.hosts.iter());
    let by_hosts = first_by_hosts(own.map(|host| &host.value), others.map(|host| &host.value))?;
    if !methods_meet(service, route) || !listeners_meet(service, route) {
        return None;
    }
    Some(match by_hosts {
        First::Same if *route.priority > 0 => First::Other,
        First::Same if *route.priority < 0 => First::Own,
        First::Same => by_paths,
        by_hosts => by_hosts,
    })
}

fn check(service: &At<RouteRaw>, route: &At<RouteRaw>, out: &mut Diagnostics) {
    let Some(first) = first_of(service, route) else { return };
    let conditions = route.headers.len() + route.query.len() + route.cookies.len();
    let conditions = conditions + usize::from(route.when.is_some());
    let label = || match &route.name {
        Some(name) => quote(name),
        None => quote(route.path.as_str()),
    };
    // With conditions it takes its own requests, and leaves the rest.
    if first == First::Same && conditions == 0 {
        let message = format!("the route {} of the configuration has this path", label());
        out.error("service-conflict", &service.path.origin, "", message)
            .related(&route.path.origin, "the route")
            .hint("give the service another path, other methods or hosts, or take the route out");
        return;
    }
    // A service names methods, which count as one condition; of those that have as many the files' own go first.
    if first == First::Other || (first == First::Same && conditions > 0) {
        return;
    }
    if let Some(lacks) = asks_less(service, route) {
        let message = format!("the service would take requests of the route {}, and {lacks}", label());
        out.error("service-opens-route", &service.path.origin, "", message)
            .related(&route.path.origin, "the route")
            .hint("give the service the roles that the route asks for, or another path");
    } else if !route.path.is_everything() {
        let message = format!("the service takes requests of the route {}", label());
        out.warning("service-over-route", &service.path.origin, "", message)
            .related(&route.path.origin, "the route");
    }
}

fn methods_meet(service: &RouteRaw, route: &RouteRaw) -> bool {
    route.methods.is_empty()
        || service.methods.iter().any(|name| route.methods.iter().any(|other| other == name))
}

fn listeners_meet(service: &RouteRaw, route: &RouteRaw) -> bool {
    let is_others = |name: &At<String>| route.listeners.iter().any(|other| other.value == name.value);
    service.listeners.is_empty() || route.listeners.is_empty() || service.listeners.iter().any(is_others)
}

/// What `route` asks of a request and `service` does not; completes "and …".
fn asks_less(service: &RouteRaw, route: &RouteRaw) -> Option<String> {
    let lets_anybody_in = |raw: &RouteRaw| raw.auth.as_ref().is_none_or(|auth| auth.lets_anybody_in());
    if lets_anybody_in(service) && !lets_anybody_in(route) {
        return Some("asks nobody for proof".to_owned());
    }
    if let Some(wanted) = table(route) {
        let own = table(service);
        // A role of another provider's token is another role.
        let is_taken = |own: &AuthTable| {
            own.with.iter().all(|own| wanted.with.iter().any(|other| other.value == own.value))
        };
        if !lets_anybody_in(route) && !own.is_some_and(is_taken) {
            return Some("takes proofs that the route does not".to_owned());
        }
        let has = |role: &str| own.is_some_and(|own| own.roles.iter().any(|own| own.value == role));
        if let Some(role) = wanted.roles.iter().find(|role| !has(role)) {
            return Some(format!("does not ask for the role {}", quote(role)));
        }
        let has_any = wanted.any_role.is_empty() || wanted.any_role.iter().any(|role| has(&role.value));
        let mut scopes = wanted.scopes.iter();
        let scopes = scopes
            .all(|scope| own.is_some_and(|own| own.scopes.iter().any(|other| other.value == scope.value)));
        let when = wanted.when.as_ref().is_none_or(|when| {
            let other = own.and_then(|own| own.when.as_ref());
            other.is_some_and(|other| other.text() == when.text())
        });
        if !has_any || !scopes || !when {
            return Some("does not ask for all that the route does".to_owned());
        }
    }
    if let Some(ip) = &route.ip
        && service.ip.as_ref().is_none_or(|own| own.origin != ip.origin)
    {
        return Some("does not have its filter of addresses".to_owned());
    }
    None
}

fn table(raw: &RouteRaw) -> Option<&AuthTable> {
    match raw.auth.as_ref().map(|at| &at.value) {
        Some(AuthRaw::Table(table)) => Some(table),
        _ => None,
    }
}
