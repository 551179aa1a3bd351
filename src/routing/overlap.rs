//! Which of two routes a request takes that both of them match: told from their patterns, before there is a request.
//!
//! Errs to one side: [`First::Own`] is said when in doubt.

use super::HostPattern;
use super::pattern::{Kind, PathPattern, Segment};

/// Whose requests those are that match two patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum First {
    /// All of them the other's.
    Other,
    /// That is up to what else the two ask.
    Same,
    /// Some of them this one's.
    Own,
}

impl PathPattern {
    /// The first segment of all paths that match, if that is always the same one.
    pub fn first_literal(&self) -> Option<&str> {
        match self.kind() {
            Kind::Exact(path) => path.split('/').nth(1),
            Kind::Template(segments) | Kind::Prefix(segments) => match segments.first() {
                Some(Segment::Literal(literal)) => Some(literal),
                _ => None,
            },
            Kind::Regex(_) => None,
        }
    }

    /// Whether it is a regex.
    pub fn is_regex(&self) -> bool {
        matches!(self.kind(), Kind::Regex(_))
    }

    /// Whether it is `/*`: every path.
    pub fn is_everything(&self) -> bool {
        matches!(self.kind(), Kind::Prefix(segments) if segments.is_empty())
    }

    /// Which of the two goes first where both match; `None` where no path matches both.
    pub fn first_against(&self, other: &Self) -> Option<First> {
        if self.same_paths(other) {
            return Some(First::Same);
        }
        let (own, own_open) = outline(self)?;
        let Some((others, other_open)) = outline(other) else {
            // A regex goes behind everything else but `/*`.
            return Some(if self.is_everything() { First::Other } else { First::Own });
        };
        let least = own.len().max(others.len());
        if (!own_open && own.len() != least) || (!other_open && others.len() != least) {
            return None;
        }
        let differ = |(one, two): (&Segment, &Segment)| match (one, two) {
            (Segment::Literal(one), Segment::Literal(two)) => one != two,
            _ => false,
        };
        if own.iter().zip(&others).any(differ) {
            return None;
        }
        Some(match self.kind().rank().cmp(&other.kind().rank()) {
            std::cmp::Ordering::Less => First::Own,
            std::cmp::Ordering::Greater => First::Other,
            // Of one kind: the longer prefix; else a literal where the other has a parameter.
            std::cmp::Ordering::Equal => match others.len().cmp(&own.len()) {
                std::cmp::Ordering::Greater => First::Other,
                std::cmp::Ordering::Less => First::Own,
                std::cmp::Ordering::Equal => {
                    let first = own.iter().zip(&others).find(|(one, two)| one != two);
                    match first {
                        Some((Segment::Param, Segment::Literal(_))) => First::Other,
                        _ => First::Own,
                    }
                }
            },
        })
    }
}

/// The segments that all paths begin with, and whether more may follow; `None` for a regex.
fn outline(pattern: &PathPattern) -> Option<(Vec<Segment>, bool)> {
    Some(match pattern.kind() {
        Kind::Exact(path) => {
            (path.split('/').skip(1).map(|segment| Segment::Literal(segment.into())).collect(), false)
        }
        Kind::Template(segments) => (segments.to_vec(), false),
        Kind::Prefix(segments) => (segments.to_vec(), true),
        Kind::Regex(_) => return None,
    })
}

/// Which of two routes goes first by their hosts (none = any); `None` where no host is both's.
pub fn first_by_hosts<'h>(
    own: impl IntoIterator<Item = &'h HostPattern> + Clone,
    others: impl IntoIterator<Item = &'h HostPattern> + Clone,
) -> Option<First> {
    match (own.clone().into_iter().next(), others.clone().into_iter().next()) {
        (None, None) => Some(First::Same),
        // Hosts that are named go before any other.
        (None, Some(_)) => Some(First::Other),
        (Some(_), None) => Some(First::Own),
        (Some(_), Some(_)) => {
            let pairs =
                own.into_iter().flat_map(|own| others.clone().into_iter().map(move |other| (own, other)));
            pairs.filter_map(|(own, other)| first_by_host(own, other)).max()
        }
    }
}

fn first_by_host(own: &HostPattern, other: &HostPattern) -> Option<First> {
    use HostPattern::{Exact, Wildcard};
    let below = |name: &str, parent: &str| {
        name.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    };
    match (own, other) {
        (Exact(own), Exact(other)) => (own == other).then_some(First::Same),
        (Exact(own), Wildcard(other)) => below(own, other).then_some(First::Own),
        (Wildcard(own), Exact(other)) => below(other, own).then_some(First::Other),
        (Wildcard(own), Wildcard(other)) if own == other => Some(First::Same),
        (Wildcard(own), Wildcard(other)) if below(own, other) => Some(First::Own),
        (Wildcard(own), Wildcard(other)) => below(other, own).then_some(First::Other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::routing::{Outcome, RequestView, RouteId, RouteSpec, Table};

    fn pattern(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap()
    }

    #[test]
    fn what_goes_first_is_told_from_the_patterns() {
        for (own, other, first) in [
            ("/a", "/a", Some(First::Same)),
            ("/a/{x}", "/a/{y}", Some(First::Same)),
            ("/a", "/b", None),
            ("/a", "/a/b", None),
            ("/a/b", "/a/*", Some(First::Own)),
            ("/a", "/a/*", Some(First::Own)),
            ("/a/*", "/a/b", Some(First::Other)),
            ("/{x}/b", "/a/*", Some(First::Own)),
            ("/{x}/b", "/a/{y}", Some(First::Other)),
            ("/a/{y}", "/{x}/b", Some(First::Own)),
            ("/a/*", "/a/b/*", Some(First::Other)),
            ("/a", "/*", Some(First::Own)),
            ("/*", "/a", Some(First::Other)),
            ("/a", "~^/a$", Some(First::Own)),
            ("/*", "~^/a$", Some(First::Other)),
        ] {
            assert_eq!(pattern(own).first_against(&pattern(other)), first, "{own} {other}");
        }
    }

    #[test]
    fn hosts_go_by_class() {
        let host = |text: &str| HostPattern::parse(text).unwrap();
        let first = |own: &[&str], others: &[&str]| {
            let (own, others): (Vec<_>, Vec<_>) =
                (own.iter().map(|text| host(text)).collect(), others.iter().map(|text| host(text)).collect());
            first_by_hosts(&own, &others)
        };
        assert_eq!(first(&[], &[]), Some(First::Same));
        assert_eq!(first(&[], &["a.b"]), Some(First::Other));
        assert_eq!(first(&["a.b"], &[]), Some(First::Own));
        assert_eq!(first(&["a.b"], &["c.d"]), None);
        assert_eq!(first(&["a.b"], &["*.b"]), Some(First::Own));
        assert_eq!(first(&["*.b"], &["a.b", "c.b"]), Some(First::Other));
        assert_eq!(first(&["*.b", "c.b"], &["c.b"]), Some(First::Same));
        assert_eq!(first(&["ab"], &["*.b"]), None);
    }

    proptest! {
        /// Whatever the table does with a path, the patterns told it before.
        #[test]
        fn the_table_agrees(own in "(/([ab]|[{]x[}])){1,3}(/[*])?", other in "(/([ab]|[{]y[}])){0,3}/[*]?", path in "(/[ab]){1,4}") {
            let (Ok(own), Ok(other)) = (PathPattern::parse(&own), PathPattern::parse(&other)) else { return Ok(()) };
            let table = Table::build(vec![RouteSpec::new(RouteId(0), other.clone()), RouteSpec::new(RouteId(1), own.clone())]);
            let headers = http::HeaderMap::new();
            let view = RequestView { listener: 0, host: "", path: &path, query: None, method: &http::Method::GET, headers: &headers };
            if own.matches(&path) && other.matches(&path) {
                let first = own.first_against(&other);
                prop_assert!(first.is_some(), "{} {} {path}", own.as_str(), other.as_str());
                if first == Some(First::Other) {
                    let found = table.find(&view);
                    prop_assert!(matches!(found, Outcome::Found { route: RouteId(0), .. }), "{} {} {path}", own.as_str(), other.as_str());
                }
            }
        }
    }
}
