//! Routes: from raw to what the table matches and what requests run on.

use std::collections::HashMap;
use std::sync::Arc;

use http::{Method, StatusCode};
use indexmap::IndexMap;

use super::limits::RateLimits;
use super::plans::Compiled as Plans;
use super::{Compiler, check_name, login, services};
use crate::base::decode::{Value, join_key, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::names::nearest;
use crate::base::origin::{At, Origin};
use crate::broker::Broker;
use crate::config::declared::Declared;
use crate::config::process::ListenerRaw;
use crate::config::route::{RedirectRaw, RouteRaw, TimeoutRaw};
use crate::config::snapshot::{LoginTarget, Redirect, Route, RouteTimeout, Target};
use crate::identity::directory::Directory;
use crate::identity::login::Login;
use crate::identity::provider::Provider;
use crate::policy;
use crate::policy::auth::{AuthRaw, Known, Places};
use crate::policy::body_limit::BodyLimit;
use crate::policy::transform::{RequestRules, Rules};
use crate::routing::config::Written;
use crate::routing::expression::Stage;
use crate::routing::template::{Scope, Template};
use crate::routing::{Expression, MethodSet, PathPattern, RouteId, RouteSpec};
use crate::subrequest::Surroundings;
use crate::upstream::Upstream;

pub(super) struct Routes {
    pub(super) specs: Vec<RouteSpec>,
    pub(super) routes: Vec<Arc<Route>>,
    pub(super) unmatched: Arc<Route>,
}

type Upstreams = IndexMap<String, Arc<Upstream>>;

/// Who may be asked who somebody is, where that is shown, and what bounds them.
#[derive(Clone, Copy)]
pub(super) struct Parties<'a> {
    pub(super) providers: &'a IndexMap<String, Arc<Provider>>,
    pub(super) directory: &'a Arc<Directory>,
    pub(super) places: &'a Arc<Places>,
    pub(super) limits: &'a RateLimits,
    pub(super) plans: &'a Plans,
    /// Who takes messages.
    pub(super) brokers: &'a IndexMap<String, Broker>,
    /// Answers logins.
    pub(super) login: Option<&'a Arc<Login>>,
}

impl Compiler<'_> {
    /// All routes, in the order of the file; their ids are their places in it.
    pub(super) fn routes(self, upstreams: &Upstreams, parties: Parties<'_>, out: &mut Diagnostics) -> Routes {
        let made = parties.login.map(|login| (login, self.login_routes(login, parties.limits, out)));
        let mut names = Names::default();
        let mut specs = Vec::with_capacity(self.raw.routes.len());
        let mut routes = Vec::with_capacity(self.raw.routes.len());
        for ((id, at), position) in
            (0_u32..).map(RouteId).zip(self.raw.routes.iter()).zip(self.route_positions())
        {
            let path = format!("routes[{position}]");
            let name = names.take(at, &path, out);
            if !self.declared.has_target.get(position).is_some_and(|has| *has) {
                out.error("missing-key", &at.origin, path.as_str(), "the route has no target")
                    .hint("add one of `upstream`, `redirect`, `respond`, `files`, `aggregate` and `amqp`");
            }
            specs.push(self.spec(id, at, &path, out));
            routes.push(Arc::new(self.route(id, name, at, &path, (upstreams, parties), out)));
        }
        if let Some((login, made)) = &made {
            for ((step, at), id) in made.iter().zip(u32::try_from(routes.len()).unwrap_or(u32::MAX)..) {
                let (id, name) = (RouteId(id), names.take(at, login::PATH, out));
                specs.push(self.spec(id, at, login::PATH, out));
                let route = self.route(id, name, at, login::PATH, (upstreams, parties), out);
                let limits = self.account_limits(*step, parties.limits);
                let target = LoginTarget { login: (*login).clone(), step: *step, limits };
                routes.push(Arc::new(Route { target: Target::Login(target), ..route }));
            }
        }
        Routes { specs, routes, unmatched: Arc::new(self.unmatched(parties, out)) }
    }

    /// Where the routes stand in their files, those that are broken included.
    pub(super) fn route_positions(self) -> Vec<usize> {
        Declared::positions(&self.declared.routes, &self.raw.routes)
    }

    /// What the route asks of a request.
    fn spec(self, id: RouteId, raw: &RouteRaw, path: &str, out: &mut Diagnostics) -> RouteSpec {
        let mut listeners = Vec::with_capacity(raw.listeners.len());
        for (index, name) in raw.listeners.iter().enumerate() {
            let position = self.raw.listeners.iter().any(|listener| listener.name.value == name.value);
            let position = position.then(|| self.listener_place(name)).flatten();
            if let Some(listener) = position.and_then(|position| u16::try_from(position).ok()) {
                listeners.push(listener);
            } else if !self.declared.listener_names.contains(&name.value) {
                let message = format!("the listener {} is not defined", quote(name));
                let known = self.declared.listener_names.iter().map(String::as_str);
                out.error("undefined", &name.origin, format!("{path}.listeners[{index}]"), message)
                    .suggest(nearest(name, known));
            }
        }
        let named = |name: &str| -> Box<str> { name.into() };
        RouteSpec {
            id,
            hosts: raw.hosts.iter().map(|host| host.value.clone()).collect(),
            listeners: (!raw.listeners.is_empty()).then(|| listeners.into_iter().collect()),
            path: raw.path.value.clone(),
            methods: (!raw.methods.is_empty()).then_some(raw.methods.value),
            headers: raw.headers.iter().map(|(name, at)| (name.clone(), at.value.clone())).collect(),
            query: raw.query.iter().map(|(name, at)| (named(name), at.value.clone())).collect(),
            cookies: raw.cookies.iter().map(|(name, at)| (named(name.as_str()), at.value.clone())).collect(),
            when: raw.when.as_ref().and_then(|when| expression(when, raw, &format!("{path}.when"), out)),
            priority: *raw.priority,
        }
    }

    fn route(
        &self,
        id: RouteId,
        name: String,
        raw: &At<RouteRaw>,
        path: &str,
        (upstreams, parties): (&Upstreams, Parties<'_>),
        out: &mut Diagnostics,
    ) -> Route {
        let target = self.target(&name, raw, path, (upstreams, parties.brokers), out);
        let rewrite = raw
            .rewrite
            .as_ref()
            .and_then(|rewrite| rewrite.compile(&format!("{path}.rewrite"), &rewrite.origin, &raw.path, out));
        let metrics = self.runtime.metrics.route(&name);
        for method in raw.methods.iter().filter_map(|name| Method::from_bytes(name.as_bytes()).ok()) {
            metrics.expect(&method);
        }
        let mut settings = Vec::new();
        raw.value.settings("", &raw.origin, &mut settings);
        Route {
            id,
            name: name.into(),
            origin: raw.origin.clone(),
            target,
            rewrite,
            timeout: timeout(raw),
            stream: *raw.stream,
            access_log: *raw.access_log,
            names_listeners: !raw.listeners.is_empty(),
            guard: self.guard(Some(raw), path, parties, out),
            request: request_rules(raw, path, out),
            response: response_rules(raw, path, out),
            envelope: raw.response.as_ref().and_then(|response| response.envelope()),
            metrics,
            settings,
        }
    }

    /// What requests that match no route get: `[defaults]` of the main file, and no target.
    fn unmatched(self, parties: Parties<'_>, out: &mut Diagnostics) -> Route {
        let raw = self.raw.defaults.0.as_deref();
        let mut settings = Vec::new();
        if let Some(raw) = raw {
            raw.settings("", &self.raw.defaults.origin, &mut settings);
            settings.retain(|setting| !["path", "hosts", "listeners"].contains(&setting.key.as_str()));
        }
        Route {
            id: RouteId(u32::MAX),
            name: UNMATCHED.into(),
            origin: self.raw.defaults.origin.clone(),
            target: Target::Nothing,
            rewrite: None,
            timeout: raw.map_or(RouteTimeout::Default, timeout),
            stream: false,
            access_log: raw.is_none_or(|raw| *raw.access_log),
            names_listeners: false,
            guard: self.guard(raw, "defaults", parties, out),
            request: None,
            response: raw.and_then(|raw| response_rules(raw, "defaults", out)),
            // Only errors answer there.
            envelope: None,
            metrics: self.runtime.metrics.route(UNMATCHED),
            settings,
        }
    }

    fn guard(
        self,
        raw: Option<&RouteRaw>,
        path: &str,
        Parties { providers, directory, places, limits, plans, .. }: Parties<'_>,
        out: &mut Diagnostics,
    ) -> policy::Chain {
        let ip = raw.and_then(|raw| raw.ip.as_ref()).and_then(|ip| ip.compile(&format!("{path}.ip"), out));
        let body =
            raw.and_then(|raw| raw.body_bytes.as_ref()).map_or(*self.raw.limits.body_bytes, |at| at.value);
        let auth = raw.and_then(|raw| {
            let auth = raw.auth.as_ref()?;
            let path = format!("{path}.auth");
            self.check_certificates_asked(auth, &raw.listeners, &path, out);
            let scope = Scope { pattern: &raw.path, groups: None };
            auth.compile(&path, Known { providers, directory, places, scope }, out)
        });
        let plan = raw.and_then(|raw| raw.auth.as_ref());
        let plan = plan.and_then(|auth| self.gate(auth, plans, &format!("{path}.auth"), out));
        let names = raw.map_or(&[][..], |raw| raw.rate_limits.as_slice());
        let limits = self.limits_of(names, limits, (&format!("{path}.rate_limits"), false), out);
        let cors = raw.and_then(|raw| {
            let cors = raw.cors.as_ref()?;
            cors.compile(*raw.methods, &format!("{path}.cors"), out)
        });
        policy::Chain {
            ip,
            cors: cors.map(Arc::new),
            address_limits: limits.before_authentication,
            auth,
            plan,
            limits: limits.after_authorization,
            body: Some(BodyLimit::new(body.0)),
        }
    }

    /// A certificate that nobody asks for cannot be shown: such a route would refuse everybody.
    fn check_certificates_asked(
        self,
        auth: &AuthRaw,
        names: &[At<String>],
        path: &str,
        out: &mut Diagnostics,
    ) {
        let listeners = &self.raw.listeners;
        let Some(wanted) = auth.wants_certificate() else { return };
        let serves = |listener: &ListenerRaw| {
            names.is_empty() || names.iter().any(|name| name.value == listener.name.value)
        };
        let asks = |listener: &At<ListenerRaw>| serves(listener) && listener.client_auth.is_some();
        // Of listeners that are broken, or not there at all, other problems tell.
        let all_known =
            listeners.len() == self.declared.listeners.len() && listeners.iter().any(|at| serves(at));
        if all_known && !listeners.iter().any(asks) {
            let message = "no listener of this route asks clients for certificates";
            out.error("certificates-not-asked-for", &wanted.origin, format!("{path}.with"), message)
                .hint("add [listeners.client_auth] to one of them");
        }
    }

    /// The one target of a route.
    fn target(
        self,
        name: &str,
        raw: &At<RouteRaw>,
        path: &str,
        (upstreams, brokers): (&Upstreams, &IndexMap<String, Broker>),
        out: &mut Diagnostics,
    ) -> Target {
        let given = [
            raw.upstream.as_ref().map(|at| ("upstream", &at.origin)),
            raw.redirect.as_ref().map(|at| ("redirect", &at.origin)),
            raw.respond.as_ref().map(|at| ("respond", &at.origin)),
            raw.files.as_ref().map(|at| ("files", &at.origin)),
            raw.aggregate.as_ref().map(|at| ("aggregate", &at.origin)),
            raw.amqp.as_ref().map(|at| ("amqp", &at.origin)),
        ];
        let mut given = given.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some((first, first_origin)), Some((second, second_origin))) => {
                let message = format!("a route has one target: \"{second}\" does not go with \"{first}\"");
                out.error("conflicting-keys", second_origin, format!("{path}.{second}"), message)
                    .related(first_origin, "the other target");
            }
            (Some(("upstream" | "files", _)) | None, _) => {}
            (Some((target, _)), None) => {
                let stream = (*raw.stream).then_some(("stream", &raw.stream.origin));
                let rewrite = raw.rewrite.as_ref().map(|at| ("rewrite", &at.origin));
                for (key, origin) in [rewrite, stream].into_iter().flatten() {
                    let message = format!("\"{key}\" does nothing beside \"{target}\"");
                    out.error("unused-key", origin, format!("{path}.{key}"), message)
                        .hint("it is for routes with `upstream` or `files`");
                }
            }
        }
        // Each is compiled also beside another, for its own mistakes.
        let redirect =
            raw.redirect.as_ref().and_then(|at| redirect(at, &raw.path, &format!("{path}.redirect"), out));
        let respond = raw
            .respond
            .as_ref()
            .and_then(|respond| respond.compile(&format!("{path}.respond"), &respond.origin, out));
        let files =
            raw.files.as_ref().and_then(|files| files.compile(&format!("{path}.files"), &raw.path, out));
        let aggregate = raw.aggregate.as_ref().and_then(|aggregate| {
            let around = Surroundings {
                pattern: &raw.path,
                upstream: &|name, path, out| self.upstream(name, path, upstreams, out),
                broker: &|name, path, out| self.broker(name, path, brokers, out),
                metrics: &|leg| self.runtime.metrics.leg(name, leg),
            };
            aggregate.compile(&format!("{path}.aggregate"), &aggregate.origin, &around, out)
        });
        let amqp = raw.amqp.as_ref().and_then(|amqp| {
            let broker = |name: &At<String>, path: &str, out: &mut _| self.broker(name, path, brokers, out);
            amqp.compile(&format!("{path}.amqp"), &amqp.origin, &raw.path, &broker, out)
        });
        if let Some(name) = &raw.upstream {
            let upstream = self.upstream(name, &format!("{path}.upstream"), upstreams, out);
            return upstream.map_or(Target::Nothing, Target::Upstream);
        }
        redirect
            .map(Target::Redirect)
            .or(respond.map(|respond| Target::Respond(Arc::new(respond))))
            .or(files.map(|files| Target::Files(Arc::new(files))))
            .or(aggregate.map(|plan| Target::Aggregate(Arc::new(plan))))
            .or(amqp.map(|amqp| Target::Amqp(Arc::new(amqp))))
            .unwrap_or(Target::Nothing)
    }

    fn upstream(
        self,
        name: &At<String>,
        path: &str,
        upstreams: &Upstreams,
        out: &mut Diagnostics,
    ) -> Option<Arc<Upstream>> {
        if let Some(upstream) = upstreams.get(&name.value) {
            return Some(upstream.clone());
        }
        // One that is there but broken has been reported.
        if !self.declared.upstreams.contains(&name.value) {
            let message = format!("the upstream {} is not defined", quote(name));
            let known = self.declared.upstreams.iter().map(String::as_str);
            let near = nearest(name, known);
            let problem = out.error("undefined", &name.origin, path, message);
            match near {
                Some(_) => problem.suggest(near),
                None => problem.hint(format!("define it: [upstreams.{}]", toml_key(name))),
            };
        }
        None
    }

    pub(super) fn broker(
        self,
        name: &At<String>,
        path: &str,
        brokers: &IndexMap<String, Broker>,
        out: &mut Diagnostics,
    ) -> Option<Broker> {
        if let Some(broker) = brokers.get(&name.value) {
            return Some(broker.clone());
        }
        // One that is there but broken has been reported.
        if !self.declared.brokers.contains(&name.value) {
            let message = format!("the broker {} is not defined", quote(name));
            let near = nearest(name, self.declared.brokers.iter().map(String::as_str));
            let problem = out.error("undefined", &name.origin, path, message);
            match near {
                Some(_) => problem.suggest(near),
                None => problem.hint(format!("define it: [brokers.{}]", toml_key(name))),
            };
        }
        None
    }

    /// Warns of providers that nobody asks.
    pub(super) fn check_auth(self, out: &mut Diagnostics) {
        let Some((name, provider)) = self.raw.identity.providers.iter().next() else { return };
        let asks =
            |raw: &RouteRaw| raw.auth.as_ref().is_some_and(|auth| matches!(auth.value, AuthRaw::Table(_)));
        let defaults = self.raw.defaults.0.as_deref();
        // Of routes that are broken other problems tell.
        let all_known = self.raw.routes.len() == self.declared.routes.len();
        if all_known && !self.raw.routes.iter().map(|at| &at.value).chain(defaults).any(asks) {
            let message = "no route asks who a request is from: this protects nothing";
            out.warning("no-auth", &provider.origin, join_key("identity.providers", name), message)
                .hint(format!("write auth = {{ with = [\"jwt:{name}\"] }} in routes, or in [defaults]"));
        }
    }

    /// Warns of a route whose requests are open to everybody where they do not meet its conditions: clients choose them.
    pub(super) fn report_fall_through(self, asking: RouteId, open: RouteId, out: &mut Diagnostics) {
        let find = |id: RouteId| usize::try_from(id.0).ok().and_then(|index| self.raw.routes.get(index));
        let (Some(route), Some(other)) = (find(asking), find(open)) else { return };
        let lets_anybody_in = |raw: &RouteRaw| raw.auth.as_ref().is_none_or(|auth| auth.lets_anybody_in());
        let Some(auth) = route.auth.as_ref().filter(|_| !lets_anybody_in(route) && lets_anybody_in(other))
        else {
            return;
        };
        let message = "a request that does not meet the conditions of this route needs no proof";
        out.warning("open-fall-through", &auth.origin, format!("routes[{}].auth", asking.0), message)
            .hint("write the same `auth` there, or in [defaults]")
            .related(&other.path.origin, "it takes this route");
    }

    /// Warns of a route that no request can take.
    pub(super) fn report_shadowed(self, below: RouteId, above: RouteId, out: &mut Diagnostics) {
        let find = |id: RouteId| usize::try_from(id.0).ok().and_then(|index| self.raw.routes.get(index));
        let (Some(route), Some(other)) = (find(below), find(above)) else { return };
        let path = format!("routes[{}].path", below.0);
        if services::is_row(&route.origin) {
            // Nobody meant that, and there is nobody who reads warnings: it is left out, and told.
            let message = "no request can take this service: another route takes all of them";
            out.error("unreachable-route", &route.path.origin, path, message)
                .related(&other.path.origin, "it takes this route");
            return;
        }
        out.warning("unreachable-route", &route.path.origin, path, "no request can take this route")
            .hint("give it a `priority`, more conditions, or remove it")
            .related(&other.path.origin, "all of its requests take this one");
    }
}

/// The name of [`Compiler::unmatched`] in logs and metrics.
const UNMATCHED: &str = "-";

fn toml_key(name: &str) -> String {
    let mut key = String::new();
    crate::base::decode::push_key(&mut key, name);
    key
}

fn timeout(raw: &RouteRaw) -> RouteTimeout {
    match raw.timeout.as_ref().map(|at| at.value) {
        None => RouteTimeout::Default,
        Some(TimeoutRaw::Whole(timeout)) => RouteTimeout::Whole(timeout),
        Some(TimeoutRaw::Unlimited) => RouteTimeout::Unlimited,
    }
}

fn request_rules(raw: &RouteRaw, path: &str, out: &mut Diagnostics) -> Option<Box<RequestRules>> {
    let scope = Scope { pattern: &raw.path, groups: None };
    raw.request.as_ref()?.compile(&format!("{path}.request"), scope, out).map(Box::new)
}

fn response_rules(raw: &RouteRaw, path: &str, out: &mut Diagnostics) -> Option<Box<Rules>> {
    let scope = Scope { pattern: &raw.path, groups: None };
    raw.response.as_ref()?.compile(&format!("{path}.response"), scope, out).map(Box::new)
}

/// A route's own `when`.
fn expression(
    when: &At<Written>,
    raw: &RouteRaw,
    path: &str,
    out: &mut Diagnostics,
) -> Option<Box<Expression>> {
    let scope = Scope { pattern: &raw.path, groups: None };
    match Expression::parse(when.text(), scope, Stage::Routing) {
        Ok(expression) => Some(Box::new(expression)),
        Err(mistake) => {
            when.report(&when.origin, path, mistake, out);
            None
        }
    }
}

fn redirect(raw: &RedirectRaw, route: &PathPattern, path: &str, out: &mut Diagnostics) -> Option<Redirect> {
    const STATUSES: [StatusCode; 5] = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    if !STATUSES.contains(&raw.status) {
        let message = format!("{} is not the status of a redirect", raw.status.as_u16());
        out.error("invalid-value", &raw.status.origin, format!("{path}.status"), message)
            .hint("301, 302, 303, 307 or 308");
    }
    raw.to.warn_of_variables(&raw.to.origin, &format!("{path}.to"), out);
    match Template::location(raw.to.text(), Scope { pattern: route, groups: None }) {
        Ok(to) => Some(Redirect { status: *raw.status, to }),
        Err(mistake) => {
            raw.to.report(&raw.to.origin, &format!("{path}.to"), mistake, out);
            None
        }
    }
}

/// The names of routes given so far, with where they come from.
#[derive(Default)]
struct Names<'a> {
    taken: HashMap<String, &'a Origin>,
}

impl<'a> Names<'a> {
    /// The name of `raw`, written or made; one that is taken is reported.
    fn take(&mut self, raw: &'a At<RouteRaw>, path: &str, out: &mut Diagnostics) -> String {
        let (name, origin) = match &raw.name {
            Some(name) => {
                check_name(name, &name.origin, &format!("{path}.name"), out);
                (name.value.clone(), &name.origin)
            }
            None => (made_name(raw), &raw.origin),
        };
        if let Some(first) = self.taken.get(&name) {
            let shown = quote(&name);
            match &raw.name {
                Some(_) => out
                    .error(
                        "duplicate-name",
                        origin,
                        format!("{path}.name"),
                        format!("two routes are called {shown}"),
                    )
                    .related(first, "first used here"),
                None => out
                    .error("duplicate-name", origin, path, format!("two routes would be called {shown}"))
                    .hint("give one of them a `name`")
                    .related(first, "the other route"),
            };
        } else {
            self.taken.insert(name.clone(), origin);
        }
        name
    }
}

/// `GET,POST api.example.com/users/* on main`: methods, first host, path and listeners.
fn made_name(raw: &RouteRaw) -> String {
    let methods = &raw.methods.value;
    let get = MethodSet::named("GET").unwrap_or_default();
    let implied = |name: &&str| *name == "HEAD" && methods.includes(get);
    let methods: Vec<&str> = methods.iter().filter(|name| !implied(name)).collect();
    let host = raw.hosts.first().map(|host| host.value.to_string()).unwrap_or_default();
    let space = if methods.is_empty() { "" } else { " " };
    let listeners: Vec<&str> = raw.listeners.iter().map(|listener| listener.value.as_str()).collect();
    let on = if listeners.is_empty() { String::new() } else { format!(" on {}", listeners.join(",")) };
    format!("{}{space}{host}{}{on}", methods.join(","), raw.path.as_str())
}
