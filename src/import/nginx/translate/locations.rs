//! Locations, in the order in which nginx would try them.

use std::collections::BTreeMap;

use super::super::parse::Directive;
use super::super::pattern::{self, Translated};
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
    /// Regexes are not asked before it.
    stops: bool,
    location: Location<'a>,
}

#[derive(Default)]
struct Bins<'a> {
    exact: Vec<Placed<'a>>,
    /// Regexes inside prefixes, with the length of the prefix.
    nested: Vec<(usize, Placed<'a>)>,
    prefixes: Vec<PrefixEntry<'a>>,
    regexes: Vec<Placed<'a>>,
}

impl<'a> Translator<'a> {
    /// The locations of a server in nginx' order: exact ones; regexes inside the prefixes they are written in; `^~`
    /// prefixes; regexes as they are written; prefixes, longest first.
    pub(super) fn locations(&mut self, server: &'a Directive, scope: &Scope<'a>) -> Locations<'a> {
        let mut out = Locations::default();
        let mut bins = Bins::default();
        self.collect(scope, None, &mut bins, &mut out);
        if !bins.prefixes.iter().any(|entry| entry.path == "/") {
            let location = Location {
                block: server,
                scope: scope.clone(),
                literal: Some("/".to_owned()),
                is_server: true,
            };
            bins.prefixes.push(PrefixEntry { path: "/".to_owned(), stops: false, location });
        }
        out.placed = arrange(bins);
        out
    }

    /// `parent`: the encoded prefix of the location around, and whether it stops regexes.
    fn collect(
        &mut self,
        scope: &Scope<'a>,
        parent: Option<(&str, bool)>,
        bins: &mut Bins<'a>,
        out: &mut Locations<'a>,
    ) {
        for block in scope.own_named("location") {
            let inner = scope.within(block.inner());
            let location =
                |literal: Option<String>| Location { block, scope: inner.clone(), literal, is_server: false };
            self.done(block);
            match kind(block) {
                Kind::Named(name) => drop(out.named.insert(name, location(None))),
                Kind::Exact(path) => {
                    let encoded = pattern::encode_path(&path);
                    bins.exact.push(Placed {
                        path: RoutePath::Exact(encoded),
                        location: location(Some(path)),
                        redirected: None,
                        note: None,
                    });
                }
                Kind::Prefix { path, stops } => {
                    let encoded = pattern::encode_path(&path);
                    let inherited = parent.is_some_and(|(_, stops)| stops);
                    if stops && parent.is_some() && !inherited {
                        self.nearly(block, "`^~` inside another location: its regexes are asked first");
                    }
                    let stops = if parent.is_some() { inherited } else { stops };
                    self.collect(&inner, Some((&encoded, stops)), bins, out);
                    bins.prefixes.push(PrefixEntry { path: encoded, stops, location: location(Some(path)) });
                }
                Kind::Regex { source, any_case } => {
                    let regex = match pattern::path_regex(&source, any_case) {
                        Translated::Same(regex) => regex,
                        Translated::Wider(regex) if self.keeps_out(&inner) => {
                            self.nearly(
                                block,
                                "Edgeward's regexes know no look-around: more is refused than nginx refuses",
                            );
                            regex
                        }
                        _ if self.keeps_out(&inner) => {
                            let why = "the regex cannot be said, and what it keeps out must not come in";
                            self.drop(block, format!("{why}: the whole server is closed"));
                            out.closed = Some(why.to_owned());
                            continue;
                        }
                        _ => {
                            self.drop(block, "Edgeward's regexes know no look-around and no back references");
                            continue;
                        }
                    };
                    // Locations inside a regex's: the inner ones go first.
                    self.collect(&inner, parent, bins, out);
                    let (regex, note) = match parent {
                        None => (regex, None),
                        Some((prefix, _)) => match pattern::below(prefix, &regex) {
                            (regex, true) => (regex, None),
                            (regex, false) => {
                                let note = format!("looked for below {prefix} as far as that can be said");
                                self.nearly(block, note.clone());
                                (regex, Some(note))
                            }
                        },
                    };
                    let placed = Placed {
                        path: RoutePath::Regex(regex),
                        location: location(None),
                        redirected: None,
                        note,
                    };
                    match parent {
                        Some((prefix, _)) => bins.nested.push((prefix.len(), placed)),
                        None => bins.regexes.push(placed),
                    }
                }
            }
        }
    }
}

fn arrange(mut bins: Bins<'_>) -> Vec<Placed<'_>> {
    // Stable: of equals the first written stays first.
    bins.prefixes.sort_by_key(|entry| std::cmp::Reverse(entry.path.len()));
    bins.nested.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    let taken: Vec<String> = bins
        .exact
        .iter()
        .map(|placed| placed.path.text())
        .chain(bins.prefixes.iter().map(|entry| entry.path.clone()))
        .collect();
    let without_regexes = bins.regexes.is_empty();
    let plain: Vec<String> =
        bins.prefixes.iter().filter(|entry| !entry.stops).map(|entry| entry.path.clone()).collect();
    let mut first = Vec::new();
    let mut last = Vec::new();
    let mut redirects = Vec::new();
    for entry in bins.prefixes {
        let PrefixEntry { path, stops, location } = entry;
        let stops = stops && !without_regexes;
        let longer: Vec<String> = if stops {
            plain.iter().filter(|other| other.starts_with(&path) && **other != path).cloned().collect()
        } else {
            Vec::new()
        };
        let cut = path.strip_suffix('/').filter(|cut| !cut.is_empty());
        let redirected =
            cut.filter(|cut| redirects_slash(&location) && !taken.iter().any(|other| other == cut));
        let route_path = match redirected {
            _ if !longer.is_empty() => RoutePath::Regex(pattern::prefix_without(&path, &longer)),
            _ if path == "/" => RoutePath::All,
            Some(cut) => RoutePath::Prefix(cut.to_owned()),
            None => RoutePath::Regex(pattern::prefix_without(&path, &[])),
        };
        if let Some(cut) = redirected {
            redirects.push(Placed {
                path: RoutePath::Exact(cut.to_owned()),
                location: location.clone(),
                redirected: Some(path.clone()),
                note: None,
            });
        }
        let placed = Placed { path: route_path, location, redirected: None, note: None };
        if stops { first.push(placed) } else { last.push(placed) }
    }
    let nested = bins.nested.into_iter().map(|(_, placed)| placed);
    bins.exact
        .into_iter()
        .chain(redirects)
        .chain(nested)
        .chain(first)
        .chain(bins.regexes)
        .chain(last)
        .collect()
}

/// Whether nginx sends requests for the location's path without its last slash to the path with it.
fn redirects_slash(location: &Location<'_>) -> bool {
    const PASSES: [&str; 6] =
        ["proxy_pass", "grpc_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "memcached_pass"];
    location.scope.own().iter().any(|directive| PASSES.contains(&directive.name.as_str()))
}
