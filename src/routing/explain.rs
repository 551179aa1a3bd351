//! Why a request takes the route it takes, for people. Looks at every route: not for the request path.

use std::cmp::{Ordering, Reverse};
use std::fmt;

use http::header::{AUTHORIZATION, COOKIE, HeaderName, PROXY_AUTHORIZATION};

use super::index::Index;
use super::method::MethodSet;
use super::pattern::{Kind, Segment};
use super::predicate::{cookie_fits, cookie_values, header_fits, query_fits, query_values};
use super::table::{Around, Compiled, RequestView, RouteId, Table};

/// Routes told of that only come near. A reader wants to see the one with the slip, not all of them.
const NEAR_MAX: usize = 20;
/// Bytes shown of a value.
const SHOWN_BYTES_MAX: usize = 200;

/// One route and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub route: RouteId,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a route. Each tells the first thing that differs, the method last: a request for which nothing wins
/// and some method differs is answered with 405.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The request takes it.
    Wins,
    /// It asks for another host.
    HostDiffers,
    /// It asks for another listener.
    ListenerDiffers,
    /// It asks for another path.
    PathDiffers,
    /// It asks for another value of a header.
    HeaderDiffers(Difference),
    /// It asks for another value of a parameter.
    QueryDiffers(Difference),
    /// It asks for another value of a cookie.
    CookieDiffers(Difference),
    /// Its `when` does not hold.
    ExpressionFalse,
    /// Its `when` has no value: if nothing before it wins, the request is refused.
    ExpressionFailed {
        /// Why.
        story: String,
    },
    /// It asks for another method.
    MethodDiffers {
        /// One of these.
        allowed: MethodSet,
    },
    /// It matches, but the winner goes before it.
    LessSpecific {
        /// The winner.
        than: RouteId,
        /// Why the winner goes first.
        because: Because,
    },
    /// It matches and is as specific as the winner, which stands before it.
    LaterInFile {
        /// The winner.
        than: RouteId,
    },
}

/// A value that is not as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Of the header, parameter or cookie.
    pub name: String,
    /// What was asked, as it is written; or `present`, `absent`.
    pub wanted: String,
    /// The first value there was, `***` for credentials; `None` if there was none.
    pub found: Option<String>,
}

/// Why one of two matching routes goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// It names the host more closely.
    Host,
    /// It has the higher `priority`.
    Priority,
    /// Its kind of path goes first: exact, template, prefix, regex, `/*`.
    PathKind,
    /// It has a literal where the other has a parameter.
    Literal,
    /// Its prefix is longer.
    LongerPrefix,
    /// It has more predicates.
    Predicates,
}

/// Completes "the winner …".
impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "names the host more closely",
            Self::Priority => "has the higher priority",
            Self::PathKind => "has the more specific kind of path",
            Self::Literal => "has a literal segment where this one has a parameter",
            Self::LongerPrefix => "has the longer prefix",
            Self::Predicates => "has more predicates",
        })
    }
}

impl Table {
    /// Every route that comes near, with what became of it.
    ///
    /// First those whose host and path are as asked, in the order of precedence, the winner among them; then some whose
    /// host differs, then some whose path nearly does not. Agrees with [`Table::find`].
    pub fn explain(&self, view: &RequestView<'_>, around: &Around<'_>) -> Vec<Candidate> {
        let mut rivals = self.rivals(view);
        rivals.sort_by(|one, two| compare(one, two).0);
        let differs = |rival: &Rival<'_>| difference(rival.compiled, view, around);
        // One of which it cannot be said ends the search, too.
        let winner = rivals
            .iter()
            .find(|rival| matches!(differs(rival), None | Some(Verdict::ExpressionFailed { .. })));
        let verdict = |rival: &Rival<'_>| match (differs(rival), winner) {
            (Some(differs), _) => differs,
            (None, Some(winner)) if winner.at != rival.at => lost(winner, rival),
            (None, _) => Verdict::Wins,
        };
        let mut told: Vec<_> = rivals
            .iter()
            .map(|rival| Candidate { route: rival.compiled.spec.id, verdict: verdict(rival) })
            .collect();
        told.extend(self.elsewhere(view));
        told.extend(self.nearby(view));
        told
    }

    /// Whether any route has `path`, whatever else it asks for.
    pub fn holds_path(&self, path: &str) -> bool {
        self.routes.iter().any(|compiled| compiled.spec.path.matches(path))
    }

    /// The routes whose host and path are as asked, each in its best host class.
    fn rivals<'a>(&'a self, view: &RequestView<'a>) -> Vec<Rival<'a>> {
        let mut seen = vec![false; self.routes.len()];
        let mut rivals = Vec::new();
        for (class, index) in self.indexes_for(view.host).enumerate() {
            for (at, compiled) in self.in_index(index) {
                let first = seen.get_mut(at as usize).is_some_and(|seen| !std::mem::replace(seen, true));
                if first && compiled.spec.path.matches(view.path) {
                    rivals.push(Rival { at, class, compiled, place: index.regex_place(at) });
                }
            }
        }
        rivals
    }

    fn elsewhere<'a>(&'a self, view: &'a RequestView<'a>) -> impl Iterator<Item = Candidate> + 'a {
        self.routes
            .iter()
            .filter(|compiled| !host_fits(compiled, view) && compiled.spec.path.matches(view.path))
            .take(NEAR_MAX)
            .map(|compiled| Candidate { route: compiled.spec.id, verdict: Verdict::HostDiffers })
    }

    fn nearby(&self, view: &RequestView<'_>) -> Vec<Candidate> {
        let mut near: Vec<_> = self
            .routes
            .iter()
            .filter(|compiled| host_fits(compiled, view) && !compiled.spec.path.matches(view.path))
            .map(|compiled| (nearness(compiled, view.path), compiled.spec.id))
            .filter(|(nearness, _)| *nearness > 0)
            .collect();
        near.sort_by_key(|(nearness, id)| (Reverse(*nearness), *id));
        near.truncate(NEAR_MAX);
        near.into_iter().map(|(_, route)| Candidate { route, verdict: Verdict::PathDiffers }).collect()
    }

    pub(super) fn in_index<'a>(&'a self, index: &'a Index) -> impl Iterator<Item = (u32, &'a Compiled)> {
        index.routes.iter().filter_map(|at| Some((*at, self.routes.get(*at as usize)?)))
    }
}

/// A route whose host and path are as asked.
struct Rival<'a> {
    at: u32,
    /// The less, the more closely it names the host.
    class: usize,
    compiled: &'a Compiled,
    /// Where its regex stands; the same for all other kinds.
    place: u32,
}

fn lost(winner: &Rival<'_>, loser: &Rival<'_>) -> Verdict {
    let than = winner.compiled.spec.id;
    match compare(winner, loser).1 {
        Some(because) => Verdict::LessSpecific { than, because },
        None => Verdict::LaterInFile { than },
    }
}

/// Which of two goes first, and why; without a reason it is the order of the file.
fn compare(one: &Rival<'_>, two: &Rival<'_>) -> (Ordering, Option<Because>) {
    let (kind_one, kind_two) = (one.compiled.spec.path.kind(), two.compiled.spec.path.kind());
    let steps = [
        (one.class.cmp(&two.class), Some(Because::Host)),
        (two.compiled.spec.priority.cmp(&one.compiled.spec.priority), Some(Because::Priority)),
        (kind_one.rank().cmp(&kind_two.rank()), Some(Because::PathKind)),
        compare_paths(kind_one, kind_two),
        (one.place.cmp(&two.place), None),
        (two.compiled.predicates.cmp(&one.compiled.predicates), Some(Because::Predicates)),
    ];
    let decided = steps.into_iter().find(|(order, _)| order.is_ne());
    decided.unwrap_or((one.at.cmp(&two.at), None))
}

/// Of two paths of the same kind that hold the same request.
fn compare_paths(one: &Kind, two: &Kind) -> (Ordering, Option<Because>) {
    match (one, two) {
        (Kind::Template(one), Kind::Template(two)) => (literals_first(one, two), Some(Because::Literal)),
        (Kind::Prefix(one), Kind::Prefix(two)) => match two.len().cmp(&one.len()) {
            Ordering::Equal => (literals_first(one, two), Some(Because::Literal)),
            longer => (longer, Some(Because::LongerPrefix)),
        },
        _ => (Ordering::Equal, None),
    }
}

fn literals_first(one: &[Segment], two: &[Segment]) -> Ordering {
    let is_param = |segment: &Segment| *segment == Segment::Param;
    one.iter().map(is_param).cmp(two.iter().map(is_param))
}

fn host_fits(compiled: &Compiled, view: &RequestView<'_>) -> bool {
    compiled.spec.hosts.is_empty() || compiled.spec.hosts.iter().any(|host| host.matches(view.host))
}

/// The first thing that is not as a route asks whose host and path are.
fn difference(compiled: &Compiled, view: &RequestView<'_>, around: &Around<'_>) -> Option<Verdict> {
    let spec = &compiled.spec;
    if spec.listeners.as_ref().is_some_and(|listeners| !listeners.contains(view.listener)) {
        return Some(Verdict::ListenerDiffers);
    }
    for (name, wanted) in &spec.headers {
        if !header_fits(view.headers, name, wanted) {
            let found = view.headers.get(name).map(|value| shown(name, value.as_bytes()));
            return Some(Verdict::HeaderDiffers(Difference::new(name.as_str(), wanted, found)));
        }
    }
    for (name, wanted) in &spec.query {
        if !query_fits(view.query, name, wanted) {
            let found = query_values(view.query, name).next().map(|value| shorten(value.as_bytes()));
            return Some(Verdict::QueryDiffers(Difference::new(name, wanted, found)));
        }
    }
    for (name, wanted) in &spec.cookies {
        if !cookie_fits(view.headers, name, wanted) {
            let found = cookie_values(view.headers, name).next().map(shorten);
            return Some(Verdict::CookieDiffers(Difference::new(name, wanted, found)));
        }
    }
    let holds = compiled.holds(view, around);
    match (spec.methods, holds) {
        (_, Ok(false)) => Some(Verdict::ExpressionFalse),
        (Some(allowed), _) if !allowed.contains(view.method) => Some(Verdict::MethodDiffers { allowed }),
        (_, Err(failed)) => Some(Verdict::ExpressionFailed { story: failed.to_string() }),
        (_, Ok(true)) => None,
    }
}

impl Difference {
    fn new(name: &str, wanted: &impl fmt::Display, found: Option<String>) -> Self {
        Self { name: name.to_owned(), wanted: wanted.to_string(), found }
    }
}

fn shown(name: &HeaderName, value: &[u8]) -> String {
    if [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].contains(name) {
        "***".to_owned()
    } else {
        shorten(value)
    }
}

fn shorten(value: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(value.get(..SHOWN_BYTES_MAX).unwrap_or(value)).into_owned();
    if value.len() > SHOWN_BYTES_MAX {
        text.push('…');
    }
    text
}

/// How near the route's path comes to `path`: 0 for not at all.
fn nearness(compiled: &Compiled, path: &str) -> usize {
    let given: Vec<_> = path.split('/').skip(1).filter(|segment| !segment.is_empty()).collect();
    let literals = |path: &str| path.split('/').skip(1).map(|text| Segment::Literal(text.into())).collect();
    let asked: Vec<Segment> = match compiled.spec.path.kind() {
        Kind::Exact(exact) => literals(exact),
        Kind::Template(segments) | Kind::Prefix(segments) => segments.to_vec(),
        Kind::Regex(regex) => literals(regex.directory()),
    };
    let asked: Vec<_> = asked.iter().filter(|segment| **segment != Segment::Literal("".into())).collect();
    let literal = |segment: &Segment| *segment != Segment::Param;
    let same = |asked: &Segment, given: &str| match asked {
        Segment::Literal(literal) => literal.eq_ignore_ascii_case(given),
        Segment::Param => true,
    };
    let common = asked.iter().zip(&given).take_while(|(asked, given)| same(asked, given));
    let (common, has_literal) =
        common.fold((0, false), |(count, any), (asked, _)| (count + 1, any || literal(asked)));
    // A parameter alone has something in common with everything. All in common: a slip of case or of a final slash.
    match has_literal {
        false => 0,
        true if common == asked.len() && common == given.len() => usize::MAX,
        true => common,
    }
}
