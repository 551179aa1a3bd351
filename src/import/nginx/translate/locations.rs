//! Locations, in the order in which nginx would try them.

use std::collections::BTreeMap;

use super::super::parse::Directive;
use super::super::pattern::{self, Below, Translated};
use super::super::scope::Scope;
use super::Translator;
use super::route::RoutePath;

/// A location with what it inherits.
#[derive(Debug, Clone)]
pub(super) struct Location<'a> {
    /// The block; the server's own where no location is meant.
    pub(super) block: &'a Directive,
    pub(super) scope: Scope<'a>,
    /// The literal start of its paths as nginx has it, decoded; `None` for a regex.
    pub(super) literal: Option<String>,
    /// Whether it is the server itself: what its requests get that no location takes.
    pub(super) is_server: bool,
}

/// A place in the order.
#[derive(Debug, Clone)]
pub(super) struct Placed<'a> {
    pub(super) path: RoutePath,
    pub(super) location: Location<'a>,
    /// The path without the slash at its end that nginx redirects to this location.
    pub(super) redirected: Option<String>,
    pub(super) note: Option<String>,
    /// What it answers in place of what it says, and why.
    pub(super) instead: Option<(u16, String)>,
}

impl<'a> Placed<'a> {
    fn new(path: RoutePath, location: Location<'a>) -> Self {
        Self { path, location, redirected: None, note: None, instead: None }
    }
}

/// All locations of a server.
#[derive(Debug, Default)]
pub(super) struct Locations<'a> {
    pub(super) placed: Vec<Placed<'a>>,
    /// `@name`.
    pub(super) named: BTreeMap<String, Location<'a>>,
    /// Why everything of the server has to be closed: a location that keeps people out could not be placed.
    pub(super) closed: Option<String>,
}

#[derive(Debug, Clone)]
enum Kind {
    Exact(String),
    Prefix { path: String, stops: bool },
    Regex { source: String, any_case: bool },
    Named(String),
}

fn kind(block: &Directive) -> Kind {
    let path = |index| block.arg(index).to_owned();
    match block.arg(0) {
        "=" => Kind::Exact(path(1)),
        "^~" => Kind::Prefix { path: path(1), stops: true },
        "~" => Kind::Regex { source: path(1), any_case: false },
        "~*" => Kind::Regex { source: path(1), any_case: true },
        // Written without a space between.
        other => {
            let glued = |rest: &str| rest.to_owned();
            if let Some(rest) = other.strip_prefix("^~") {
                Kind::Prefix { path: glued(rest), stops: true }
            } else if let Some(rest) = other.strip_prefix("~*") {
                Kind::Regex { source: glued(rest), any_case: true }
            } else if let Some(rest) = other.strip_prefix('~') {
                Kind::Regex { source: glued(rest), any_case: false }
            } else if let Some(rest) = other.strip_prefix('=') {
                Kind::Exact(glued(rest))
            } else if other.starts_with('@') {
                Kind::Named(glued(other))
            } else {
                Kind::Prefix { path: glued(other), stops: false }
            }
        }
    }
}

struct PrefixEntry<'a> {
    /// Encoded.
    path: String,
    /// Regexes of the server are not asked before it.
    stops: bool,
    location: Location<'a>,
    /// Itself and the prefixes it stands in, outermost first, and which are `^~`.
    chain: Vec<(u32, bool)>,
    /// Regexes inside it, as they are written.
    nested: Vec<Placed<'a>>,
    keeps_out: bool,
}

impl PrefixEntry<'_> {
    /// Whether the regexes inside `other`, a shorter prefix, are asked for paths below this one.
    fn asks_regexes_of(&self, other: &Self) -> bool {
        let id = other.location.block.id;
        let at = self.chain.iter().position(|(own, _)| *own == id);
        at.is_some_and(|at| self.chain.get(at + 1).is_none_or(|(_, stops)| !stops))
    }
}

/// What a location stands in.
#[derive(Clone, Default)]
struct Around {
    /// The encoded prefix.
    prefix: Option<String>,
    chain: Vec<(u32, bool)>,
    /// Longer prefixes beside it or beside what it stands in: their requests never come here.
    beside: Vec<String>,
    /// Regexes it stands in.
    regexes: Vec<String>,
}

impl Around {
    /// Why no request's path comes to a location of this encoded path here, `whole` or as a start.
    fn never_gets_to(&self, encoded: &str, whole: bool) -> Option<String> {
        if !encoded.starts_with('/') && (whole || !encoded.is_empty()) {
            return Some("the paths of all requests begin with a slash".to_owned());
        }
        self.beside
            .iter()
            .find(|other| encoded.starts_with(*other))
            .map(|other| format!("{other} takes them"))
    }
}

#[derive(Default)]
struct Bins<'a> {
    exact: Vec<Placed<'a>>,
    prefixes: Vec<PrefixEntry<'a>>,
    /// Regexes in no prefix; whether each keeps anybody out.
    regexes: Vec<(Placed<'a>, bool)>,
    /// Regexes inside prefixes, by the number of the prefix' block.
    nested: BTreeMap<u32, Vec<Placed<'a>>>,
}

impl<'a> Translator<'a> {
    /// The locations of a server in nginx' order: exact ones; regexes inside the prefixes they are written in; `^~`
    /// prefixes; regexes as they are written; prefixes, longest first.
    pub(super) fn locations(&mut self, server: &'a Directive, scope: &Scope<'a>) -> Locations<'a> {
        let mut out = Locations::default();
        let mut bins = Bins::default();
        self.collect(scope, &Around::default(), &mut bins, &mut out);
        if !bins.prefixes.iter().any(|entry| entry.path == "/") {
            let location = Location {
                block: server,
                scope: scope.clone(),
                literal: Some("/".to_owned()),
                is_server: true,
            };
            bins.prefixes.push(PrefixEntry {
                path: "/".to_owned(),
                stops: false,
                location,
                chain: Vec::new(),
                nested: Vec::new(),
                keeps_out: self.keeps_out(scope),
            });
        }
        out.placed = self.arrange(bins);
        out
    }

    fn collect(&mut self, scope: &Scope<'a>, around: &Around, bins: &mut Bins<'a>, out: &mut Locations<'a>) {
        let siblings: Vec<String> = scope
            .own_named("location")
            .filter_map(|block| match kind(block) {
                Kind::Prefix { path, .. } => Some(pattern::encode_path(&path)),
                _ => None,
            })
            .collect();
        for block in scope.own_named("location") {
            let inner = scope.within(block.inner());
            let location =
                |literal: Option<String>| Location { block, scope: inner.clone(), literal, is_server: false };
            self.done(block);
            match kind(block) {
                Kind::Named(name) => drop(out.named.insert(name, location(None))),
                Kind::Exact(path) => {
                    let encoded = pattern::encode_path(&path);
                    if let Some(why) = around.never_gets_to(&encoded, true) {
                        self.done_as(block, format!("no request gets here: {why}"));
                        continue;
                    }
                    let mut placed = Placed::new(RoutePath::Exact(encoded), location(Some(path)));
                    placed.instead = self.inside_regex(block, &inner, around);
                    bins.exact.push(placed);
                }
                Kind::Prefix { path, stops: own_stops } => {
                    let encoded = pattern::encode_path(&path);
                    if let Some(why) = around.never_gets_to(&encoded, false) {
                        self.done_as(block, format!("no request gets here: {why}"));
                        continue;
                    }
                    let mut chain = around.chain.clone();
                    chain.push((block.id, own_stops));
                    let mut beside = around.beside.clone();
                    beside.extend(
                        siblings
                            .iter()
                            .filter(|other| other.starts_with(&encoded) && **other != encoded)
                            .cloned(),
                    );
                    let within = Around {
                        prefix: Some(encoded.clone()),
                        chain: chain.clone(),
                        beside,
                        regexes: around.regexes.clone(),
                    };
                    self.collect(&inner, &within, bins, out);
                    let instead = self.inside_regex(block, &inner, around);
                    let stops = chain.first().is_some_and(|(_, stops)| *stops);
                    bins.prefixes.push(PrefixEntry {
                        path: encoded,
                        stops,
                        location: location(Some(path)),
                        chain,
                        nested: bins.nested.remove(&block.id).unwrap_or_default(),
                        keeps_out: instead.is_some() || self.keeps_out(&inner),
                    });
                    if let Some((_, why)) = instead {
                        out.closed = Some(why);
                    }
                }
                Kind::Regex { source, any_case } => {
                    let location = location(None);
                    self.collect_regex(location, (&source, any_case), around, bins, out);
                }
            }
        }
    }

    fn collect_regex(
        &mut self,
        location: Location<'a>,
        (source, any_case): (&str, bool),
        around: &Around,
        bins: &mut Bins<'a>,
        out: &mut Locations<'a>,
    ) {
        let block = location.block;
        let inner = location.scope.clone();
        let keeps_out = self.keeps_out(&inner);
        let mut instead = None;
        let regex = match pattern::path_regex(source, any_case) {
            Translated::Same(regex) => regex,
            Translated::Wider(regex) => {
                let why = "Edgeward's regexes know no look-around and no back references";
                if keeps_out {
                    self.nearly(block, format!("{why}: more is refused than nginx refuses"));
                } else {
                    self.drop(block, format!("answers 501, for more than nginx' regex finds: {why}"));
                    instead = Some((501, why.to_owned()));
                }
                regex
            }
            Translated::None => {
                let why = "the regex of a location cannot be said";
                self.drop(block, format!("CLOSED, the whole server answers 403: {why}"));
                out.closed = Some(why.to_owned());
                return;
            }
        };
        // Locations inside a regex's: the inner ones go first.
        let mut within = around.clone();
        within.regexes.push(regex.clone());
        self.collect(&inner, &within, bins, out);
        let (mut regex, mut note) = (regex, None);
        for outer in &around.regexes {
            match both(outer, &regex) {
                Some(found) => regex = found,
                None if keeps_out => {
                    self.nearly(block, "more is refused than nginx refuses: the regex around is not asked");
                }
                None => {
                    let why = "a regex inside another cannot be asked for together with it";
                    self.drop(block, format!("answers 501: {why}"));
                    instead = Some((501, why.to_owned()));
                }
            }
        }
        if let Some(prefix) = &around.prefix {
            match pattern::below(prefix, &regex) {
                Below::Exact(found) => regex = found,
                Below::Never => return self.done_as(block, format!("no path below {prefix} is found by it")),
                Below::Unsaid if keeps_out => {
                    let why = format!("refused everywhere, not below {prefix} alone");
                    self.nearly(block, why.clone());
                    note = Some(why);
                }
                Below::Unsaid => {
                    let why = format!("what of it is below {prefix} cannot be said");
                    self.drop(block, format!("answers 501 for all below {prefix}: {why}"));
                    regex = format!("^{}", pattern::escape(prefix));
                    instead = Some((501, why));
                }
            }
        }
        let placed = Placed { note, instead, ..Placed::new(RoutePath::Regex(regex), location) };
        match around.chain.last() {
            Some((id, _)) => bins.nested.entry(*id).or_default().push(placed),
            None => bins.regexes.push((placed, keeps_out)),
        }
    }

    /// What answers in place of a location inside a regex, which a path cannot be asked for together with.
    fn inside_regex(
        &mut self,
        block: &'a Directive,
        inner: &Scope<'a>,
        around: &Around,
    ) -> Option<(u16, String)> {
        around.regexes.last()?;
        let why = "a location inside a regex cannot be asked for together with it";
        let status = if self.keeps_out(inner) { 403 } else { 501 };
        self.drop(block, format!("answers {status}: {why}"));
        Some((status, why.to_owned()))
    }

    fn arrange(&mut self, mut bins: Bins<'a>) -> Vec<Placed<'a>> {
        // Stable: of equals the first written stays first.
        bins.prefixes.sort_by_key(|entry| std::cmp::Reverse(entry.path.len()));
        let taken: Vec<String> = bins
            .exact
            .iter()
            .map(|placed| placed.path.text())
            .chain(bins.prefixes.iter().map(|entry| entry.path.clone()))
            .collect();
        let mut redirects = Vec::new();
        for entry in &bins.prefixes {
            if let Some(cut) = cut(&entry.path, &entry.location, &taken) {
                redirects.push(Placed {
                    redirected: Some(entry.path.clone()),
                    ..Placed::new(RoutePath::Exact(cut.to_owned()), entry.location.clone())
                });
            }
        }
        let early = self.regexes_in_prefixes(&mut bins, &taken);
        let without_regexes = bins.regexes.is_empty();
        let plain: Vec<String> =
            bins.prefixes.iter().filter(|entry| !entry.stops).map(|entry| entry.path.clone()).collect();
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for entry in bins.prefixes {
            let stops = entry.stops && !without_regexes;
            let longer: Vec<String> = if stops {
                plain
                    .iter()
                    .filter(|other| other.starts_with(&entry.path) && **other != entry.path)
                    .cloned()
                    .collect()
            } else {
                Vec::new()
            };
            let path = prefix_path(&entry.path, &entry.location, &taken, &longer);
            let placed = Placed::new(path, entry.location);
            if stops { first.push(placed) } else { last.push(placed) }
        }
        bins.exact
            .into_iter()
            .chain(redirects)
            .chain(early)
            .chain(first)
            .chain(bins.regexes.into_iter().map(|(placed, _)| placed))
            .chain(last)
            .collect()
    }

    /// The regexes inside prefixes, those of longer ones first. A longer prefix whose requests they must not take is
    /// placed before them, with the regexes of the server that go before it.
    fn regexes_in_prefixes(&mut self, bins: &mut Bins<'a>, taken: &[String]) -> Vec<Placed<'a>> {
        let mut early = Vec::new();
        let mut placed_early: Vec<usize> = Vec::new();
        for at in 0..bins.prefixes.len() {
            let nested = bins.prefixes.get_mut(at).map(|entry| std::mem::take(&mut entry.nested));
            let (Some(nested), Some(entry)) =
                (nested.filter(|nested| !nested.is_empty()), bins.prefixes.get(at))
            else {
                continue;
            };
            for (other_at, other) in bins.prefixes.iter().enumerate() {
                let apart = other.path != entry.path
                    && other.path.starts_with(&entry.path)
                    && !other.asks_regexes_of(entry);
                if !apart || placed_early.contains(&other_at) {
                    continue;
                }
                let left: Vec<&PrefixEntry<'a>> = bins
                    .prefixes
                    .iter()
                    .enumerate()
                    .filter(|(index, longer)| {
                        longer.path != other.path
                            && longer.path.starts_with(&other.path)
                            && !placed_early.contains(index)
                    })
                    .map(|(_, longer)| longer)
                    .collect();
                placed_early.push(other_at);
                let longer: Vec<String> = left.iter().map(|longer| longer.path.clone()).collect();
                let mut unsaid = false;
                if !other.stops {
                    for (placed, _) in &bins.regexes {
                        let RoutePath::Regex(regex) = &placed.path else { continue };
                        match pattern::below(&other.path, regex) {
                            Below::Exact(found) if longer.is_empty() => {
                                early.push(Placed { path: RoutePath::Regex(found), ..placed.clone() });
                            }
                            Below::Never => {}
                            Below::Exact(_) | Below::Unsaid => unsaid = true,
                        }
                    }
                }
                let path = prefix_path(&other.path, &other.location, taken, &longer);
                let mut placed = Placed::new(path, other.location.clone());
                if unsaid {
                    let why = format!(
                        "which regexes go before it cannot be said: those in {} must not",
                        entry.path
                    );
                    let keeps_out = other.keeps_out || bins.regexes.iter().any(|(_, keeps_out)| *keeps_out);
                    let status = if keeps_out { 403 } else { 501 };
                    self.drop(other.location.block, format!("answers {status}: {why}"));
                    placed.instead = Some((status, why));
                }
                early.push(placed);
            }
            early.extend(nested);
        }
        let mut index = 0;
        bins.prefixes.retain(|_| {
            index += 1;
            !placed_early.contains(&(index - 1))
        });
        early
    }
}

/// The paths that two regexes find, where one is but a start.
fn both(one: &str, two: &str) -> Option<String> {
    let start = |regex: &str| regex.strip_prefix('^').map(pattern::unescaped).unwrap_or_default();
    if one == two {
        return Some(one.to_owned());
    }
    for (plain, other) in [(one, two), (two, one)] {
        if let Some(prefix) = start(plain)
            && let Below::Exact(found) = pattern::below(&prefix, other)
        {
            return Some(if prefix == "/" { other.to_owned() } else { found });
        }
    }
    None
}

/// The path of a prefix without the slash at its end, where nginx redirects it.
fn cut<'p>(path: &'p str, location: &Location<'_>, taken: &[String]) -> Option<&'p str> {
    let cut = path.strip_suffix('/').filter(|cut| !cut.is_empty())?;
    (redirects_slash(location) && !taken.iter().any(|other| other == cut)).then_some(cut)
}

/// The path of a route for a prefix without what `longer` ones take.
fn prefix_path(path: &str, location: &Location<'_>, taken: &[String], longer: &[String]) -> RoutePath {
    match cut(path, location, taken) {
        _ if !longer.is_empty() => RoutePath::Regex(pattern::prefix_without(path, longer)),
        _ if path == "/" => RoutePath::All,
        Some(cut) => RoutePath::Prefix(cut.to_owned()),
        None => RoutePath::Regex(pattern::prefix_without(path, &[])),
    }
}

/// Whether nginx sends requests for the location's path without its last slash to the path with it.
fn redirects_slash(location: &Location<'_>) -> bool {
    const PASSES: [&str; 6] =
        ["proxy_pass", "grpc_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "memcached_pass"];
    location.scope.own().iter().any(|directive| PASSES.contains(&directive.name.as_str()))
}
