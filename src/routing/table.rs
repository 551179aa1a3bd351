//! Finds the route of a request. What a search costs depends on the request and on how many patterns fit its path, not
//! on how many routes there are.
//!
//! Which route wins: exact host, longest wildcard, no host; then `priority`; then exact path, template (segment by
//! segment, literal before parameter), longest prefix, regex in the order of the file, `/*`; then more predicates before
//! fewer; then the order of the file. Each wildcard of its own length is a host class of its own. Regexes of the same
//! text and priority count as one path, which stands where it stands first.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::ControlFlow;

use http::Method;
use http::header::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use super::expression::Failed;
use super::host::parents;
use super::index::{Index, Map};
use super::method::MethodSet;
use super::pattern::{Captures, Kind};
use super::predicate::{ValueMatch, cookie_fits, header_fits, query_fits};
use super::template::{Values, Who};
use super::{Expression, HostPattern, PathPattern};
use crate::base::client_cert::ClientCert;

/// A route, by its place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

/// A set of listeners, by their index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenerSet(SmallVec<[u64; 1]>);

impl ListenerSet {
    /// Whether `listener` is in it.
    pub fn contains(&self, listener: u16) -> bool {
        self.0.get(usize::from(listener / 64)).is_some_and(|word| word & (1 << (listener % 64)) != 0)
    }

    /// Whether all of `other` are in it.
    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().enumerate().all(|(at, word)| word & !self.0.get(at).copied().unwrap_or(0) == 0)
    }
}

impl FromIterator<u16> for ListenerSet {
    fn from_iter<I: IntoIterator<Item = u16>>(listeners: I) -> Self {
        let mut set = Self::default();
        for listener in listeners {
            let at = usize::from(listener / 64);
            if set.0.len() <= at {
                set.0.resize(at + 1, 0);
            }
            if let Some(word) = set.0.get_mut(at) {
                *word |= 1 << (listener % 64);
            }
        }
        set
    }
}

/// What a route asks of a request. All of it must hold.
#[derive(Debug, Clone)]
pub struct RouteSpec {
    /// What the table answers with.
    pub id: RouteId,
    /// One of these; empty = any host.
    pub hosts: Vec<HostPattern>,
    /// One of these; `None` = any listener.
    pub listeners: Option<ListenerSet>,
    /// The path.
    pub path: PathPattern,
    /// One of these; `None` or an empty set = any method.
    pub methods: Option<MethodSet>,
    /// Every one of these headers.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// Every one of these parameters.
    pub query: Vec<(Box<str>, ValueMatch)>,
    /// Every one of these cookies.
    pub cookies: Vec<(Box<str>, ValueMatch)>,
    /// That this holds. Asked last, and only if all else is as asked.
    pub when: Option<Box<Expression>>,
    /// Higher first, before anything but the host class.
    pub priority: i32,
}

impl RouteSpec {
    /// A route that asks for this path and nothing else.
    pub fn new(id: RouteId, path: PathPattern) -> Self {
        Self {
            id,
            hosts: Vec::new(),
            listeners: None,
            path,
            methods: None,
            headers: Vec::new(),
            query: Vec::new(),
            cookies: Vec::new(),
            when: None,
            priority: 0,
        }
    }
}

/// What the table sees of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// Index of the listener it came in on.
    pub listener: u16,
    /// The host in the form of [`super::host::RequestHost::name`]; empty if none is named.
    pub host: &'a str,
    /// The path in its normal form ([`super::path::normalise`]).
    pub path: &'a str,
    /// The query, without `?`.
    pub query: Option<&'a str>,
    /// The method asked about: for a preflight the one it announces.
    pub method: &'a Method,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// What `when` of a route may ask beside what the table sees.
#[derive(Debug, Clone, Copy, Default)]
pub struct Around<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The request id.
    pub id: &'a str,
    /// Where the client is.
    pub client: Option<IpAddr>,
    /// The certificate that the client has proved to own.
    pub client_cert: Option<&'a ClientCert>,
}

/// What the table answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// This route.
    Found {
        /// Which.
        route: RouteId,
        /// What its pattern captured in [`RequestView::path`].
        captures: Captures,
    },
    /// Whether this one matches cannot be said: its `when` has no value. It would have been taken, and no other may be in
    /// its place: that could be one that asks for less.
    Undecided {
        /// Which.
        route: RouteId,
        /// As of one that is found.
        captures: Captures,
        /// Why, for the log.
        failed: Failed,
    },
    /// None, but one or more would match under another method.
    MethodNotAllowed {
        /// The methods under which they would.
        allow: MethodSet,
    },
    /// None.
    NotFound,
}

/// All routes, compiled for matching.
#[derive(Debug)]
pub struct Table {
    /// In the order of the file.
    pub(super) routes: Box<[Compiled]>,
    /// Hosts with the same routes share an index.
    pub(super) indexes: Vec<Index>,
    exact_hosts: Map<u32>,
    /// By the name after `*.`.
    wildcards: Map<u32>,
    any_host: Option<u32>,
}

/// Which predicates count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Predicates {
    All,
    /// Those of the target: neither headers nor cookies, nor `when`.
    OfTarget,
}

#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) spec: RouteSpec,
    /// How many predicates: `methods`, `when`, and each header, parameter and cookie.
    pub(super) predicates: usize,
}

impl Compiled {
    /// Orders routes with the same paths; less is better.
    pub(super) fn merit(&self) -> (Reverse<i32>, Reverse<usize>) {
        (Reverse(self.spec.priority), Reverse(self.predicates))
    }

    fn new(mut spec: RouteSpec) -> Self {
        // An empty list of methods takes an inherited one away; it is not a route for nobody.
        spec.methods = spec.methods.filter(|methods| !methods.is_empty());
        let predicates = spec.headers.len() + spec.query.len() + spec.cookies.len();
        let predicates = predicates + usize::from(spec.methods.is_some()) + usize::from(spec.when.is_some());
        Self { spec, predicates }
    }

    /// Whether everything but host, path, method and `when` is as asked.
    fn fits(&self, view: &RequestView<'_>, predicates: Predicates) -> bool {
        let spec = &self.spec;
        spec.listeners.as_ref().is_none_or(|listeners| listeners.contains(view.listener))
            && spec.query.iter().all(|(name, wanted)| query_fits(view.query, name, wanted))
            && (predicates == Predicates::OfTarget
                || spec.headers.iter().all(|(name, wanted)| header_fits(view.headers, name, wanted))
                    && spec.cookies.iter().all(|(name, wanted)| cookie_fits(view.headers, name, wanted)))
    }

    /// Whether its `when` holds.
    pub(super) fn holds(&self, view: &RequestView<'_>, around: &Around<'_>) -> Result<bool, Failed> {
        let Some(when) = &self.spec.when else { return Ok(true) };
        when.holds(&Values {
            request: view,
            captures: &self.spec.path.captures(view.path).unwrap_or_default(),
            scheme: around.scheme,
            id: around.id,
            client: around.client,
            client_cert: around.client_cert,
            who: Who::default(),
        })
    }

    fn allows(&self, method: &Method) -> bool {
        self.spec.methods.is_none_or(|methods| methods.contains(method))
    }
}

impl Table {
    /// Compiles `routes`, given in the order of the file.
    pub fn build(routes: Vec<RouteSpec>) -> Self {
        let routes: Box<[Compiled]> = routes.into_iter().map(Compiled::new).collect();
        let (mut exact, mut wildcards, mut any) = (Map::default(), Map::default(), Vec::new());
        for (at, compiled) in (0_u32..).zip(&routes) {
            if compiled.spec.hosts.is_empty() {
                any.push(at);
            }
            for host in &compiled.spec.hosts {
                let (map, name): (&mut Map<Vec<u32>>, _) = match host {
                    HostPattern::Exact(name) => (&mut exact, name),
                    HostPattern::Wildcard(parent) => (&mut wildcards, parent),
                };
                let of_host = map.entry(name.clone()).or_default();
                // A host written twice is one.
                if of_host.last() != Some(&at) {
                    of_host.push(at);
                }
            }
        }
        let mut builder = Builder { routes: &routes, indexes: Vec::new(), by_routes: HashMap::new() };
        let any_host = (!any.is_empty()).then(|| builder.index(any));
        let exact_hosts = exact.into_iter().map(|(name, routes)| (name, builder.index(routes))).collect();
        let wildcards = wildcards.into_iter().map(|(name, routes)| (name, builder.index(routes))).collect();
        let indexes = builder.indexes;
        Self { routes, indexes, exact_hosts, wildcards, any_host }
    }

    /// The route of a request of which nothing else is known.
    pub fn find(&self, view: &RequestView<'_>) -> Outcome {
        self.find_for(view, &Around::default(), None)
    }

    /// The route of a request. Allocates nothing, unless its pattern is a regex with groups or has more than four
    /// captures, or a `when` is asked.
    ///
    /// Of a request by which a browser asks whether it may send another, of the method `announced`: that of the other one,
    /// whose headers and cookies nobody knows yet, nor whether a `when` holds for it. Where none takes it, the request's own.
    pub fn find_for(
        &self,
        view: &RequestView<'_>,
        around: &Around<'_>,
        announced: Option<&Method>,
    ) -> Outcome {
        let own = || self.search(view, around, Predicates::All);
        let Some(method) = announced else { return own() };
        match self.search(&RequestView { method, ..*view }, around, Predicates::OfTarget) {
            found @ Outcome::Found { .. } => found,
            other => match own() {
                found @ (Outcome::Found { .. } | Outcome::Undecided { .. }) => found,
                _ => other,
            },
        }
    }

    fn search(&self, view: &RequestView<'_>, around: &Around<'_>, predicates: Predicates) -> Outcome {
        let mut allow = MethodSet::EMPTY;
        for index in self.indexes_for(view.host) {
            let found = self.find_in(index, (view, around, predicates), &mut allow);
            if let Some((Compiled { spec, .. }, failed)) = found {
                let (route, captures) = (spec.id, spec.path.captures(view.path).unwrap_or_default());
                return match failed {
                    None => Outcome::Found { route, captures },
                    Some(failed) => Outcome::Undecided { route, captures, failed },
                };
            }
        }
        if allow.is_empty() { Outcome::NotFound } else { Outcome::MethodNotAllowed { allow } }
    }

    /// The path that the route asks for.
    pub fn pattern(&self, id: RouteId) -> Option<&PathPattern> {
        self.routes.iter().find(|route| route.spec.id == id).map(|route| &route.spec.path)
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The indexes of the host classes of `host`, best first.
    pub(super) fn indexes_for(&self, host: &str) -> impl Iterator<Item = &Index> {
        let exact = self.exact_hosts.get(host).into_iter();
        let wildcards = (!self.wildcards.is_empty()).then_some(host).into_iter();
        let wildcards = wildcards.flat_map(parents).filter_map(|parent| self.wildcards.get(parent));
        exact.chain(wildcards).chain(&self.any_host).filter_map(|at| self.indexes.get(*at as usize))
    }

    /// The index of the routes with this host; with any host for `None`.
    pub(super) fn index_of(&self, host: Option<&HostPattern>) -> Option<&Index> {
        let at = match host {
            Some(HostPattern::Exact(name)) => self.exact_hosts.get(name),
            Some(HostPattern::Wildcard(parent)) => self.wildcards.get(parent),
            None => self.any_host.as_ref(),
        };
        self.indexes.get(*at? as usize)
    }

    /// The best route of an index; with why, if it cannot be said whether it matches.
    fn find_in(
        &self,
        index: &Index,
        (view, around, predicates): (&RequestView<'_>, &Around<'_>, Predicates),
        allow: &mut MethodSet,
    ) -> Option<(&Compiled, Option<Failed>)> {
        let mut best: Option<(&Compiled, Option<Failed>)> = None;
        // A break means that nothing better can come, and `best` says it all.
        let (ControlFlow::Break(()) | ControlFlow::Continue(())) = index.visit(view.path, |leaf| {
            for compiled in leaf.iter().filter_map(|route| self.routes.get(*route as usize)) {
                if best.as_ref().is_some_and(|(best, _)| best.spec.priority >= compiled.spec.priority) {
                    // The leaf goes on with lower priorities still.
                    break;
                }
                let is_regex = matches!(compiled.spec.path.kind(), Kind::Regex(_));
                if !compiled.fits(view, predicates) || (is_regex && !compiled.spec.path.matches(view.path)) {
                    continue;
                }
                let holds = match predicates {
                    Predicates::All => compiled.holds(view, around),
                    Predicates::OfTarget => Ok(true),
                };
                if holds == Ok(false) {
                    continue;
                }
                if !compiled.allows(view.method) {
                    if holds.is_ok() {
                        *allow = allow.union(compiled.spec.methods.unwrap_or_default());
                    }
                    continue;
                }
                best = Some((compiled, holds.err()));
                if index.highest_of_several.is_none_or(|highest| compiled.spec.priority >= highest) {
                    return ControlFlow::Break(());
                }
                break;
            }
            ControlFlow::Continue(())
        });
        best
    }
}

struct Builder<'a> {
    routes: &'a [Compiled],
    indexes: Vec<Index>,
    by_routes: HashMap<Vec<u32>, u32>,
}

impl Builder<'_> {
    fn index(&mut self, routes: Vec<u32>) -> u32 {
        let fresh = u32::try_from(self.indexes.len()).unwrap_or(u32::MAX);
        let (all, indexes) = (self.routes, &mut self.indexes);
        *self.by_routes.entry(routes).or_insert_with_key(|routes| {
            indexes.push(Index::build(routes, all));
            fresh
        })
    }
}
