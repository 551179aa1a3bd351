//! From a location to routes: what nginx' rewrite, access and content phases do with a request, in this order.

use super::super::parse::Directive;
use super::super::scope::Scope;
use super::super::units;
use super::super::vars::Env;
use super::Translator;
use super::access::close;
use super::known::is_handler;
use super::locations::{Location, Locations, Placed};
use super::route::{Predicate, Route, RoutePath, Target, prioritise};
use crate::base::units::format_size;
use crate::import::toml;

/// A location at the path its route will have.
#[derive(Debug, Clone)]
pub(super) struct Site<'a, 's> {
    pub(super) location: &'s Location<'a>,
    pub(super) path: RoutePath,
}

/// What the rewrite phase comes to.
#[derive(Debug, Default)]
pub(super) struct Rewriting<'a> {
    /// Routes that are asked before what follows.
    pub(super) before: Vec<Route<'a>>,
    /// What requests must be like to get on, and what they get otherwise.
    pub(super) required: Vec<(Predicate, Route<'a>)>,
    /// The answer of all that get here.
    pub(super) end: Option<Route<'a>>,
    /// `rewrite … break` without a condition: regex and template.
    pub(super) rewrite: Option<(String, String)>,
    /// Why nobody may get on.
    pub(super) closed: Option<String>,
    /// Whether clients must have shown a certificate.
    pub(super) proved: bool,
    /// Whether nothing more is looked at.
    pub(super) over: bool,
}

/// What answers where a handler has no equivalent.
pub(super) const UNSAID_STATUS: u16 = 501;

impl<'a> Translator<'a> {
    /// The routes of a server for the hosts and listeners that `env` knows of.
    pub(super) fn server_routes(
        &mut self,
        block: &'a Directive,
        scope: &Scope<'a>,
        env: &Env,
    ) -> Vec<Route<'a>> {
        let mut env = env.clone();
        let names: Vec<String> = self.maps.keys().cloned().collect();
        for name in names {
            if let Some(value) = self.mapped(&name, &env) {
                env.set(&name, value);
            }
        }
        let locations = self.locations(block, scope);
        let whole = Location { block, scope: scope.clone(), literal: Some("/".to_owned()), is_server: true };
        let site = Site { location: &whole, path: RoutePath::All };
        let rewriting = self.rewrite_phase(&site, &mut env, &locations);
        let mut routes = rewriting.before;
        let closed = rewriting.closed.or_else(|| locations.closed.clone());
        if let Some(why) = closed {
            routes.clear();
            let mut route =
                Route::new(RoutePath::All, Target::Respond { status: 403, text: None, content_type: None })
                    .from(block);
            close(&mut route, &why);
            routes.push(route);
        } else if let Some(end) = rewriting.end {
            routes.push(end);
        } else {
            for placed in &locations.placed {
                routes.extend(self.placed_routes(placed, &env, &locations));
            }
        }
        require(&mut routes, rewriting.required);
        if rewriting.proved {
            routes.iter_mut().for_each(Route::prove);
        }
        if self.any_keeps_out(scope) && !routes.iter().all(|route| route.path == RoutePath::All) {
            routes.insert(0, encoded_route(block, &locations));
        }
        // A path that cannot be written leaves its requests to others, which may be more open.
        let paths: Vec<_> = routes.iter().map(|route| route.path.clone().sound()).collect();
        if paths.contains(&None) {
            let mut route =
                Route::new(RoutePath::All, Target::Respond { status: 403, text: None, content_type: None })
                    .from(block);
            close(&mut route, "the path of a location cannot be written");
            routes = vec![route];
        }
        for (route, path) in routes.iter_mut().zip(paths.into_iter().flatten()) {
            route.path = path;
        }
        prioritise(&mut routes);
        routes
    }

    /// Whether the server or any location in it keeps anybody out.
    fn any_keeps_out(&self, scope: &Scope<'a>) -> bool {
        self.keeps_out(scope)
            || scope.own_named("location").any(|block| self.any_keeps_out(&scope.within(block.inner())))
    }

    fn placed_routes(&mut self, placed: &Placed<'a>, env: &Env, locations: &Locations<'a>) -> Vec<Route<'a>> {
        let location = &placed.location;
        if let Some(slashed) = &placed.redirected {
            let target = Target::Redirect { to: super::super::vars::escape(slashed), status: 301 };
            let mut route = Route::new(placed.path.clone(), target).from(location.block);
            route.comments.push("as nginx does for a location that ends in a slash".to_owned());
            self.response_headers(&location.scope, env, &mut route);
            self.route_log(&location.scope, &mut route);
            return vec![route];
        }
        if let Some((status, why)) = &placed.instead {
            let target = Target::Respond { status: *status, text: None, content_type: None };
            let mut route = Route::new(placed.path.clone(), target).from(location.block);
            if *status == 403 {
                close(&mut route, why);
            } else {
                route.comments.push(format!("answers {status}: {why}"));
            }
            return vec![route];
        }
        let mut env = env.matched_by(placed.path.regex());
        let site = Site { location, path: placed.path.clone() };
        let mut routes = self.location_routes(&site, &mut env, locations);
        if let (Some(note), Some(first)) = (&placed.note, routes.first_mut()) {
            first.comments.push(note.clone());
        }
        routes
    }

    /// The routes of a location; the last is for all requests that nothing before it takes.
    fn location_routes(
        &mut self,
        site: &Site<'a, '_>,
        env: &mut Env,
        locations: &Locations<'a>,
    ) -> Vec<Route<'a>> {
        self.location_routes_of(site, env, locations, None)
    }

    /// The same for requests whose path was rewritten before.
    pub(super) fn location_routes_of(
        &mut self,
        site: &Site<'a, '_>,
        env: &mut Env,
        locations: &Locations<'a>,
        rewritten: Option<&(String, String)>,
    ) -> Vec<Route<'a>> {
        let rewriting = if site.location.is_server {
            Rewriting::default()
        } else {
            self.rewrite_phase(site, env, locations)
        };
        let mut routes = rewriting.before;
        if let Some(why) = rewriting.closed {
            let mut route = self.route(site, Target::Respond { status: 403, text: None, content_type: None });
            close(&mut route, &why);
            return vec![route];
        }
        if let Some(end) = rewriting.end {
            routes.push(end);
        } else {
            let rewrite = rewriting.rewrite.as_ref().or(rewritten);
            routes.extend(self.content_routes(site, env, locations, rewrite));
        }
        require(&mut routes, rewriting.required);
        if rewriting.proved {
            routes.iter_mut().for_each(Route::prove);
        }
        routes
    }

    /// A route at a site.
    pub(super) fn route(&self, site: &Site<'a, '_>, target: Target) -> Route<'a> {
        Route::new(site.path.clone(), target).from(site.location.block)
    }

    /// What nginx' access and content phases do, for each method.
    pub(super) fn content_routes(
        &mut self,
        site: &Site<'a, '_>,
        env: &Env,
        locations: &Locations<'a>,
        rewrite: Option<&(String, String)>,
    ) -> Vec<Route<'a>> {
        let route = self.content(site, env, locations, rewrite);
        self.except_methods(site, route)
    }

    /// What nginx' access and content phases do.
    pub(super) fn content(
        &mut self,
        site: &Site<'a, '_>,
        env: &Env,
        locations: &Locations<'a>,
        rewrite: Option<&(String, String)>,
    ) -> Route<'a> {
        let scope = &site.location.scope;
        if let Some(directive) = scope.own_named("internal").next() {
            self.done_as(directive, "requests from outside get 404");
            return self.route(site, Target::Respond { status: 404, text: None, content_type: None });
        }
        let mut route = self.handler(site, env, locations, rewrite);
        self.common(scope, env, &mut route);
        self.guard(scope, &mut route);
        route
    }

    /// What answers.
    fn handler(
        &mut self,
        site: &Site<'a, '_>,
        env: &Env,
        locations: &Locations<'a>,
        rewrite: Option<&(String, String)>,
    ) -> Route<'a> {
        let scope = &site.location.scope;
        if let Some(directive) = scope.own_named("try_files").next()
            && let Some(route) = self.try_files(directive, site, env, locations, rewrite)
        {
            return route;
        }
        // Under a condition the location's own handler answers, if there is no other.
        let around = if site.location.block.name == "if" { scope.around() } else { &[] };
        for directive in scope.own().iter().chain(around) {
            match directive.name.as_str() {
                "proxy_pass" | "grpc_pass" => return self.proxied(directive, site, env, rewrite),
                "fastcgi_pass" | "uwsgi_pass" | "scgi_pass" | "memcached_pass" => {
                    self.drop(directive, format!("answers {UNSAID_STATUS}: Edgeward speaks HTTP to servers"));
                    return self.unsaid(site, &format!("{} speaks no HTTP", directive.text()));
                }
                "stub_status" => {
                    self.drop(directive, "answers 404: /metrics of the admin listener says more");
                    return self.route(site, Target::Respond { status: 404, text: None, content_type: None });
                }
                name if is_handler(name) => {
                    self.drop(directive, format!("answers {UNSAID_STATUS}: no code and no module is run"));
                    return self.unsaid(site, &format!("{} has no equivalent", directive.text()));
                }
                _ => {}
            }
        }
        self.files(site, env, rewrite)
    }

    /// A route in place of one that cannot be said.
    pub(super) fn unsaid(&self, site: &Site<'a, '_>, why: &str) -> Route<'a> {
        let mut route =
            self.route(site, Target::Respond { status: UNSAID_STATUS, text: None, content_type: None });
        route.comments.push(format!("answers {UNSAID_STATUS}: {why}"));
        route
    }

    /// What every route may say, whatever answers.
    pub(super) fn common(&mut self, scope: &Scope<'a>, env: &Env, route: &mut Route<'a>) {
        let bytes = self.body_size(scope);
        if bytes != self.body_bytes && matches!(route.target, Target::Upstream(_)) {
            route.key("body_bytes", toml::text(&format_size(bytes)));
        }
        self.route_log(scope, route);
        self.response_headers(scope, env, route);
        for directive in scope.nearest("limit_req") {
            self.limit_req(directive, scope, route);
        }
        for directive in scope.own_named("mirror") {
            route.comments.push(format!(
                "mirror = {{ upstream = …, share = \"100%\" }} when it is available: {}",
                directive.text()
            ));
        }
    }

    /// `client_max_body_size`; 1 MiB where nothing is said, and an amount that nobody sends for "any".
    pub(super) fn body_size(&mut self, scope: &Scope<'a>) -> u64 {
        const ANY: u64 = 1 << 40;
        let Some(directive) = scope.one("client_max_body_size") else { return 1 << 20 };
        match units::size(directive.arg(0)) {
            Some(0) => {
                self.nearly(directive, "a body has some bound: 1024GiB");
                ANY
            }
            Some(bytes) => {
                self.done(directive);
                bytes
            }
            None => {
                self.drop(directive, "is no size");
                1 << 20
            }
        }
    }

    /// `limit_except`: a route for the methods, and one for all others.
    pub(super) fn except_methods(&mut self, site: &Site<'a, '_>, route: Route<'a>) -> Vec<Route<'a>> {
        let Some(directive) = site.location.scope.own_named("limit_except").next() else {
            return vec![route];
        };
        self.done(directive);
        let methods: Option<Vec<String>> = directive
            .args
            .iter()
            .map(|method| crate::routing::MethodSet::named(method).is_ok().then(|| method.clone()))
            .collect();
        let mut others = route.clone();
        let inner = site.location.scope.within(directive.inner());
        if !inner.nearest_of(&["allow", "deny"]).is_empty() {
            others.keys.retain(|(key, _)| *key != "ip");
        }
        self.guard(&inner, &mut others);
        match methods {
            Some(methods) => {
                let mut named = route;
                if named.narrow(Predicate::Methods(methods)) { vec![named, others] } else { vec![others] }
            }
            None => vec![others],
        }
    }

    /// What nginx' rewrite phase does in a server or a location.
    pub(super) fn rewrite_phase(
        &mut self,
        site: &Site<'a, '_>,
        env: &mut Env,
        locations: &Locations<'a>,
    ) -> Rewriting<'a> {
        let mut out = Rewriting::default();
        self.rewrite_block(site.location.scope.own(), site, env, locations, &mut out);
        out
    }

    pub(super) fn rewrite_block(
        &mut self,
        block: &'a [Directive],
        site: &Site<'a, '_>,
        env: &mut Env,
        locations: &Locations<'a>,
        out: &mut Rewriting<'a>,
    ) {
        for directive in block {
            if out.over {
                return;
            }
            match directive.name.as_str() {
                name if name.starts_with("set_by_lua") || name == "js_set" || name == "perl_set" => {
                    env.forget(directive.arg(0).trim_start_matches('$'));
                }
                "set" => {
                    self.done(directive);
                    if let Some(name) = directive.arg(0).strip_prefix('$') {
                        let value = env.expand(directive.arg(1));
                        env.set(name, value);
                    }
                }
                "break" => {
                    self.done(directive);
                    out.over = true;
                }
                "return" => {
                    let route = self.returned(directive, site, env);
                    out.end = Some(route);
                    out.over = true;
                }
                "rewrite" => self.rewrite(directive, site, env, locations, out),
                "if" => self.conditional(directive, site, env, locations, out),
                _ => {}
            }
        }
    }
}

/// Refuses what nginx would decode before it looks for the location, and Edgeward does not: a slash, and what the
/// locations name that may be encoded or not.
fn encoded_route<'a>(block: &'a Directive, locations: &Locations<'a>) -> Route<'a> {
    const MEANINGFUL: [char; 8] = ['!', '&', '\'', ',', ';', '=', ':', '@'];
    let mut codes = vec!["2F".to_owned()];
    for c in MEANINGFUL {
        if locations
            .placed
            .iter()
            .any(|placed| placed.location.block.args.iter().any(|arg| arg.len() > 1 && arg.contains(c)))
        {
            codes.push(format!("{:02X}", u32::from(c)));
        }
    }
    let regex = match codes.as_slice() {
        [one] => format!("(?i)%{one}"),
        several => format!("(?i)%(?:{})", several.join("|")),
    };
    let target = Target::Respond { status: 403, text: None, content_type: None };
    let mut route = Route::new(RoutePath::Regex(regex), target).from(block);
    route
        .comments
        .push("nginx decodes this before it looks for the location; here it would get past one".to_owned());
    route
}

/// Holds all routes to what is required, and adds what others get.
fn require<'a>(routes: &mut Vec<Route<'a>>, required: Vec<(Predicate, Route<'a>)>) {
    let predicates: Vec<Predicate> = required.iter().map(|(predicate, _)| predicate.clone()).collect();
    let hold = |route: &mut Route<'a>, predicates: &[Predicate]| {
        for predicate in predicates {
            if !route.narrow(predicate.clone()) {
                close(route, "its conditions ask twice for one name");
            }
        }
    };
    routes.iter_mut().for_each(|route| hold(route, &predicates));
    // The first that is not met answers: it needs the fewest, so it stands last.
    for (index, (_, mut route)) in required.into_iter().enumerate().rev() {
        hold(&mut route, predicates.get(..index).unwrap_or_default());
        routes.push(route);
    }
    routes.retain(|route| !route.never);
}
