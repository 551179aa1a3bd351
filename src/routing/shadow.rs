//! Routes that no request can take.

use std::cmp::{Ordering, Reverse};

use super::pattern::{Kind, Segment};
use super::predicate::ValueMatch;
use super::table::{Compiled, RouteId, RouteSpec, Table};

/// Comparisons made for one route. Where more routes than this share a path they differ in predicates, and looking at
/// each pair would take minutes; the warning is then missing, nothing else.
const COMPARISONS_MAX: usize = 256;

impl Table {
    /// Pairs of a route that no request can take and one that takes all of its requests before it.
    ///
    /// Says so only when it is certain; that several routes together take everything is not noticed.
    pub fn shadowed(&self) -> Vec<(RouteId, RouteId)> {
        (0_u32..)
            .zip(&self.routes)
            .filter_map(|(at, below)| Some((below.spec.id, self.shadow_of(at, below)?)))
            .collect()
    }

    /// Pairs of a route and the one that takes those of its requests that do not meet its conditions (headers, query,
    /// cookies, `when`): the most specific that asks for none. Methods aside, by which routes are meant to differ.
    pub fn fall_throughs(&self) -> Vec<(RouteId, RouteId)> {
        let mut pairs = Vec::new();
        for above in self.routes.iter().filter(|above| has_conditions(above)) {
            let mut best: Option<&Compiled> = None;
            let bare = without_conditions(above);
            self.offer_covering(above, |other| {
                let better = |best: &Compiled| rank(other).cmp(&rank(best)).is_gt();
                if other.spec.id != above.spec.id && takes_all(other, &bare) && best.is_none_or(better) {
                    best = Some(other);
                }
            });
            pairs.extend(best.map(|below| (above.spec.id, below.spec.id)));
        }
        pairs
    }

    /// Offers routes whose paths hold all paths of `route`, in its first host class.
    fn offer_covering<'t>(&'t self, route: &Compiled, mut offer: impl FnMut(&'t Compiled)) {
        let Some(index) = self.index_of(route.spec.hosts.first()) else { return };
        let mut left = COMPARISONS_MAX;
        let mut offer_all = |others: &[u32]| {
            for &other in others.iter().take(left) {
                left -= 1;
                if let Some(other) = self.routes.get(other as usize) {
                    offer(other);
                }
            }
        };
        match route.spec.path.kind() {
            Kind::Exact(path) => {
                offer_all(index.exactly(path));
                index.covering(&literals(path), false, offer_all);
            }
            Kind::Template(segments) => index.covering(segments, false, offer_all),
            Kind::Prefix(segments) => index.covering(segments, true, offer_all),
            Kind::Regex(regex) => index.covering(&literals(regex.directory()), true, offer_all),
        }
    }

    fn shadow_of(&self, at: u32, below: &Compiled) -> Option<RouteId> {
        // Whatever takes all of its requests takes those to its first host, too.
        let index = self.index_of(below.spec.hosts.first())?;
        let mut left = COMPARISONS_MAX;
        let mut found = None;
        let mut try_all = |others: &[u32]| {
            for &other in others.iter().take(left) {
                left -= 1;
                let Some(above) = self.routes.get(other as usize) else { continue };
                if found.is_none() && goes_first((other, above), (at, below)) && takes_all(above, below) {
                    found = Some(above.spec.id);
                }
            }
        };
        match below.spec.path.kind() {
            Kind::Exact(path) => {
                try_all(index.exactly(path));
                index.covering(&literals(path), false, try_all);
            }
            Kind::Template(segments) => index.covering(segments, false, try_all),
            Kind::Prefix(segments) => index.covering(segments, true, try_all),
            Kind::Regex(regex) => {
                let same = |other: &u32| {
                    let other = self.routes.get(*other as usize);
                    other.is_some_and(|other| other.spec.path.same_paths(&below.spec.path))
                };
                try_all(&index.regexes_beside(regex).filter(same).take(COMPARISONS_MAX).collect::<Vec<_>>());
                // A prefix goes before a regex, so one that holds the start of all its paths hides it.
                index.covering(&literals(regex.directory()), true, try_all);
            }
        }
        found
    }
}

/// Whether it asks for more than host, listener, path and method.
fn has_conditions(route: &Compiled) -> bool {
    let spec = &route.spec;
    let named = spec.headers.len() + spec.query.len() + spec.cookies.len();
    named > 0 || spec.when.is_some()
}

fn without_conditions(route: &Compiled) -> Compiled {
    let spec = RouteSpec {
        headers: Vec::new(),
        query: Vec::new(),
        cookies: Vec::new(),
        when: None,
        ..route.spec.clone()
    };
    Compiled { spec, predicates: 0 }
}

/// More for a route that goes first, of those that hold the same paths.
fn rank(route: &Compiled) -> (i32, Reverse<u8>, usize) {
    let kind = route.spec.path.kind();
    let depth = match kind {
        Kind::Template(segments) | Kind::Prefix(segments) => segments.len(),
        Kind::Exact(_) | Kind::Regex(_) => 0,
    };
    (route.spec.priority, Reverse(kind.rank()), depth)
}

fn literals(path: &str) -> Vec<Segment> {
    path.split('/').skip(1).map(|segment| Segment::Literal(segment.into())).collect()
}

/// Whether `above` goes before `below` for every request in the same host class that both match. Its path holds all
/// paths of the other.
fn goes_first((above_at, above): (u32, &Compiled), (below_at, below): (u32, &Compiled)) -> bool {
    let merit = |compiled: &Compiled| (Reverse(compiled.spec.priority), compiled.spec.path.kind().rank());
    match merit(above).cmp(&merit(below)) {
        Ordering::Less => true,
        Ordering::Greater => false,
        // Of the same kind, the path that holds the other is the less specific, unless they are the same.
        Ordering::Equal => {
            let then = |at: u32, compiled: &Compiled| (Reverse(compiled.predicates), at);
            above.spec.path.same_paths(&below.spec.path) && then(above_at, above) < then(below_at, below)
        }
    }
}

/// Whether `above` matches whatever `below` does, in no lesser host class; paths aside.
fn takes_all(above: &Compiled, below: &Compiled) -> bool {
    let (above, below) = (&above.spec, &below.spec);
    let hosts = if below.hosts.is_empty() {
        above.hosts.is_empty()
    } else {
        below.hosts.iter().all(|host| above.hosts.contains(host))
    };
    let within = |above: Option<bool>| above.unwrap_or(true);
    hosts
        && within(
            above
                .listeners
                .as_ref()
                .map(|all| below.listeners.as_ref().is_some_and(|some| all.includes(some))),
        )
        && within(above.methods.map(|all| below.methods.is_some_and(|some| all.includes(some))))
        && implied(&above.headers, &below.headers)
        && implied(&above.query, &below.query)
        && implied(&above.cookies, &below.cookies)
        && within(
            above.when.as_ref().map(|all| below.when.as_ref().is_some_and(|some| all.text() == some.text())),
        )
}

/// Whether what `asked` asks always holds where `given` does.
fn implied<N: PartialEq>(asked: &[(N, ValueMatch)], given: &[(N, ValueMatch)]) -> bool {
    asked
        .iter()
        .all(|(name, wanted)| given.iter().any(|(other, value)| other == name && value.implies(wanted)))
}
