//! The routes of one host by path: finds the few whose pattern fits without looking at the others.
//!
//! Exact paths hang in a hash map, templates and prefixes in a trie of segments, regexes under the directory their
//! paths must begin with. What fits is offered in the order of precedence, so that the first good one can end the search.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::ControlFlow;

use smallvec::SmallVec;

use super::pattern::{Kind, PathRegex, Segment};
use super::table::Compiled;

/// Keys come from the configuration, so nobody can choose them to collide; a fixed, fast hash will do.
pub(super) type Map<V> = HashMap<Box<str>, V, foldhash::fast::FixedState>;

/// Routes with the same paths, best first: by priority, number of predicates, place in the file.
pub(super) type Leaf = SmallVec<[u32; 2]>;

/// The routes of one host by path.
#[derive(Debug)]
pub(super) struct Index {
    /// All routes in it, in the order of the file.
    pub(super) routes: Box<[u32]>,
    /// The highest priority in it, if there are several.
    pub(super) highest_of_several: Option<i32>,
    exact: Map<Leaf>,
    /// The trie; the first is its root.
    nodes: Vec<Node>,
    regexes: Regexes,
    /// `/*`, which comes after the regexes.
    everything: Leaf,
}

#[derive(Debug, Default)]
struct Node {
    literals: Map<u32>,
    param: Option<u32>,
    template: Leaf,
    prefix: Leaf,
}

/// Regexes by the whole segments that their paths must begin with: `^/api/v[0-9]` is under `/api`.
#[derive(Debug, Default)]
struct Regexes {
    by_directory: Map<Vec<Placed>>,
    longest_directory: usize,
    /// Route to the place of its regex, see [`Index::regex_place`].
    places: HashMap<u32, u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Placed {
    /// Place among all regexes of the index.
    rank: u32,
    route: u32,
}

/// Nodes whose prefix fits, with their depth.
type Prefixes = SmallVec<[(u16, u32); 8]>;

impl Index {
    /// Builds the index of `routes` (indexes into `all`, ascending).
    pub(super) fn build(routes: &[u32], all: &[Compiled]) -> Self {
        let mut index = Self {
            routes: routes.into(),
            highest_of_several: None,
            exact: Map::default(),
            nodes: vec![Node::default()],
            regexes: Regexes::default(),
            everything: Leaf::new(),
        };
        let known = || routes.iter().filter_map(|route| Some((*route, all.get(*route as usize)?)));
        let by_merit = |leaf: &mut Leaf| {
            leaf.sort_by_key(|route| (all.get(*route as usize).map(Compiled::merit), *route));
        };
        for (route, compiled) in known() {
            match compiled.spec.path.kind() {
                Kind::Exact(path) => index.exact.entry(path.clone()).or_default().push(route),
                Kind::Prefix(segments) if segments.is_empty() => index.everything.push(route),
                Kind::Template(segments) => {
                    if let Some(node) = index.node_at(segments) {
                        node.template.push(route);
                    }
                }
                Kind::Prefix(segments) => {
                    if let Some(node) = index.node_at(segments) {
                        node.prefix.push(route);
                    }
                }
                Kind::Regex(_) => {}
            }
        }
        index.exact.values_mut().for_each(by_merit);
        for node in &mut index.nodes {
            by_merit(&mut node.template);
            by_merit(&mut node.prefix);
        }
        by_merit(&mut index.everything);
        index.regexes = Regexes::build(routes, all);
        let priorities = || known().map(|(_, compiled)| compiled.spec.priority);
        index.highest_of_several =
            priorities().max().filter(|highest| priorities().any(|other| other < *highest));
        index
    }

    /// Offers the routes whose paths hold `path`, leaf by leaf in the order of precedence, priorities aside. Regexes are
    /// offered one by one, those that may match: the visitor tests them.
    pub(super) fn visit(
        &self,
        path: &str,
        mut offer: impl FnMut(&[u32]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(inner) = path.strip_prefix('/') else { return ControlFlow::Continue(()) };
        if let Some(leaf) = self.exact.get(path) {
            offer(leaf)?;
        }
        let mut prefixes = Prefixes::new();
        if self.nodes.len() > 1 {
            self.descend(0, Some(inner), 0, &mut prefixes, &mut offer)?;
            // Longest first. The sort is stable: among equals, the descent met literals before parameters.
            prefixes.sort_by_key(|(depth, _)| Reverse(*depth));
        }
        for (_, node) in prefixes {
            if let Some(node) = self.nodes.get(node as usize) {
                offer(&node.prefix)?;
            }
        }
        self.regexes.visit(path, &mut offer)?;
        offer(&self.everything)
    }

    /// The routes whose paths hold all paths of `segments` (and, if `open`, all below them), as far as tries tell.
    pub(super) fn covering(&self, segments: &[Segment], open: bool, mut offer: impl FnMut(&[u32])) {
        offer(&self.everything);
        let mut level: SmallVec<[u32; 8]> = SmallVec::from_slice(&[0]);
        for (depth, segment) in segments.iter().enumerate() {
            let last = depth + 1 == segments.len();
            let mut next = SmallVec::new();
            for node in level.iter().filter_map(|node| self.nodes.get(*node as usize)) {
                if let Segment::Literal(literal) = segment {
                    next.extend(node.literals.get(literal).copied());
                }
                if *segment != Segment::Literal("".into()) {
                    next.extend(node.param);
                }
            }
            for node in next.iter().filter_map(|node: &u32| self.nodes.get(*node as usize)) {
                offer(&node.prefix);
                if last && !open {
                    offer(&node.template);
                }
            }
            level = next;
        }
    }

    /// Routes whose exact path is `path`.
    pub(super) fn exactly(&self, path: &str) -> &[u32] {
        self.exact.get(path).map_or(&[], |leaf| leaf)
    }

    /// The routes with regexes whose paths begin in the same directory, that of `regex` itself among them.
    pub(super) fn regexes_beside(&self, regex: &PathRegex) -> impl Iterator<Item = u32> {
        self.regexes.by_directory.get(regex.directory()).into_iter().flatten().map(|placed| placed.route)
    }

    /// Where the regex of `route` stands: the first route of this host and of the same priority that has the same one.
    /// 0 for every route without a regex.
    pub(super) fn regex_place(&self, route: u32) -> u32 {
        self.regexes.places.get(&route).copied().unwrap_or(0)
    }

    fn node_at(&mut self, segments: &[Segment]) -> Option<&mut Node> {
        let mut at = 0_u32;
        for segment in segments {
            let fresh = u32::try_from(self.nodes.len()).ok()?;
            let node = self.nodes.get_mut(at as usize)?;
            at = match segment {
                Segment::Literal(literal) => *node.literals.entry(literal.clone()).or_insert(fresh),
                Segment::Param => *node.param.get_or_insert(fresh),
            };
            if at == fresh {
                self.nodes.push(Node::default());
            }
        }
        self.nodes.get_mut(at as usize)
    }

    /// Offers the templates below `node` that end where the path does, literals before parameters, and notes the
    /// prefixes passed. `rest` is the path below this node, `None` if it ends here. As deep as the deepest pattern.
    fn descend(
        &self,
        at: u32,
        rest: Option<&str>,
        depth: u16,
        prefixes: &mut Prefixes,
        offer: &mut impl FnMut(&[u32]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let Some(node) = self.nodes.get(at as usize) else { return ControlFlow::Continue(()) };
        if !node.prefix.is_empty() {
            prefixes.push((depth, at));
        }
        let Some(rest) = rest else {
            return if node.template.is_empty() { ControlFlow::Continue(()) } else { offer(&node.template) };
        };
        let (segment, rest) = match rest.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (rest, None),
        };
        if let Some(child) = node.literals.get(segment) {
            self.descend(*child, rest, depth + 1, prefixes, offer)?;
        }
        match node.param {
            Some(child) if !segment.is_empty() => self.descend(child, rest, depth + 1, prefixes, offer),
            _ => ControlFlow::Continue(()),
        }
    }
}

impl Regexes {
    fn build(routes: &[u32], all: &[Compiled]) -> Self {
        let mut built = Self::default();
        let mut first: HashMap<(&str, i32), u32> = HashMap::new();
        let mut ordered = Vec::new();
        for &route in routes {
            let Some(compiled) = all.get(route as usize) else { continue };
            let Kind::Regex(regex) = compiled.spec.path.kind() else { continue };
            let place = *first.entry((regex.regex.as_str(), compiled.spec.priority)).or_insert(route);
            built.places.insert(route, place);
            let (priority, predicates) = compiled.merit();
            ordered.push(((priority, place, predicates, route), regex.directory()));
        }
        ordered.sort();
        for (rank, ((.., route), directory)) in (0..).zip(ordered) {
            built.longest_directory = built.longest_directory.max(directory.len());
            built.by_directory.entry(directory.into()).or_default().push(Placed { rank, route });
        }
        built
    }

    fn visit(&self, path: &str, offer: &mut impl FnMut(&[u32]) -> ControlFlow<()>) -> ControlFlow<()> {
        if self.by_directory.is_empty() {
            return ControlFlow::Continue(());
        }
        let mut lists: SmallVec<[&[Placed]; 8]> = memchr::memchr_iter(b'/', path.as_bytes())
            .take_while(|slash| *slash <= self.longest_directory)
            .filter_map(|slash| self.by_directory.get(path.get(..slash)?))
            .map(Vec::as_slice)
            .collect();
        // Each list is in order; together they must be, too.
        while let Some((placed, rest)) = lists
            .iter_mut()
            .filter_map(|list| list.split_first().map(|(placed, after)| (*placed, (list, after))))
            .min_by_key(|(placed, _)| *placed)
        {
            let (list, after) = rest;
            *list = after;
            offer(&[placed.route])?;
        }
        ControlFlow::Continue(())
    }
}
