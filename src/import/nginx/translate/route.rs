//! A route as it will be written, and the order that many of them need.

use super::super::parse::Directive;
use super::super::pattern;
use crate::import::toml;
use crate::routing::{PathPattern, Rewrite};

/// What a route's path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RoutePath {
    Exact(String),
    /// Without the slash and the star at its end; never empty.
    Prefix(String),
    /// Without `~`.
    Regex(String),
    All,
}

impl RoutePath {
    /// The order in which Edgeward asks, see its configuration's documentation.
    fn rank(&self) -> u8 {
        match self {
            Self::Exact(_) => 0,
            Self::Prefix(_) => 2,
            Self::Regex(_) => 3,
            Self::All => 4,
        }
    }

    /// The same paths in a form that a route may have; `None` if there is none.
    pub(super) fn sound(self) -> Option<Self> {
        let valid = |path: &Self| PathPattern::parse(&path.text()).is_ok();
        if valid(&self) {
            return Some(self);
        }
        // What Edgeward's patterns do not hold, such as stars and dots, a regex does.
        let regex = match &self {
            Self::Exact(path) => format!("^{}$", pattern::escape(path)),
            Self::Prefix(path) => format!("^{}(?:/|$)", pattern::escape(path)),
            Self::Regex(_) | Self::All => return None,
        };
        Some(Self::Regex(regex)).filter(valid)
    }

    /// Its regex, if it is one.
    pub(super) fn regex(&self) -> Option<&str> {
        match self {
            Self::Regex(regex) => Some(regex),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Exact(path) => path.clone(),
            Self::Prefix(path) => format!("{path}/*"),
            Self::Regex(regex) => format!("~{regex}"),
            Self::All => "/*".to_owned(),
        }
    }
}

/// What answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Upstream(String),
    Redirect { to: String, status: u16 },
    Respond { status: u16, text: Option<String>, content_type: Option<String> },
    Files(Files),
}

/// Files below a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Files {
    pub(super) root: String,
    pub(super) index: Vec<String>,
    pub(super) fallback: Option<String>,
    pub(super) listing: bool,
}

/// Which requests a route is about, beside host and path; values are TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Predicate {
    Methods(Vec<String>),
    Header(String, String),
    Query(String, String),
    Cookie(String, String),
    /// A certificate of the client; the route itself refuses others.
    Certificate,
    /// A regex for the path, of a route whose own path is any.
    Path(String),
}

/// A route.
#[derive(Debug, Clone)]
pub(super) struct Route<'a> {
    pub(super) path: RoutePath,
    pub(super) predicates: Vec<Predicate>,
    pub(super) target: Target,
    pub(super) priority: i32,
    /// More keys, as TOML.
    pub(super) keys: Vec<(&'static str, String)>,
    /// `[routes.request]` and `[routes.response]`: header, template; `None` removes.
    pub(super) request: Edits,
    pub(super) response: Edits,
    /// What to read first about it.
    pub(super) comments: Vec<String>,
    /// Whether no request is like that.
    pub(super) never: bool,
    /// The block it is made from.
    pub(super) source: Option<&'a Directive>,
}

/// Where another path comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum How<'f> {
    /// A start that is cut off, and what takes its place.
    Prefix(&'f str, &'f str),
    /// A template.
    Path(&'f str),
    /// A regex and a template with its groups.
    Regex(&'f str, &'f str),
}

/// Edits of headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Edits {
    pub(super) set: Vec<(String, String)>,
    pub(super) add: Vec<(String, String)>,
    pub(super) remove: Vec<String>,
}

impl<'a> Route<'a> {
    pub(super) fn new(path: RoutePath, target: Target) -> Self {
        Self {
            path,
            predicates: Vec::new(),
            target,
            priority: 0,
            keys: Vec::new(),
            request: Edits::default(),
            response: Edits::default(),
            comments: Vec::new(),
            never: false,
            source: None,
        }
    }

    pub(super) fn from(mut self, source: &'a Directive) -> Self {
        self.source = Some(source);
        self
    }

    pub(super) fn key(&mut self, name: &'static str, value: String) {
        self.keys.retain(|(known, _)| *known != name);
        self.keys.push((name, value));
    }

    /// Makes another path of the request's for what answers.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn rewrite(&mut self, how: How<'_>) -> Result<(), String> {
        let path = PathPattern::parse(&self.path.text()).map_err(|mistake| mistake.message)?;
        let (checked, value) = match how {
            How::Prefix(prefix, to) => (
                Rewrite::prefix(prefix, to, &path),
                toml::inline([("prefix", toml::text(prefix)), ("to", toml::text(to))]),
            ),
            How::Path(to) => (Rewrite::path(to, &path), toml::inline([("path", toml::text(to))])),
            How::Regex(regex, to) => (
                Rewrite::regex(regex, to, &path),
                toml::inline([("regex", toml::text(regex)), ("to", toml::text(to))]),
            ),
        };
        checked.map_err(|(_, mistake)| mistake.message)?;
        self.key("rewrite", value);
        Ok(())
    }

    /// Narrows it; a path takes the place of any path. Whether that can be said: a name is asked for once.
    #[must_use]
    pub(super) fn narrow(&mut self, predicate: Predicate) -> bool {
        if predicate == Predicate::Certificate {
            self.prove();
            return true;
        }
        if let Predicate::Path(regex) = predicate {
            let any = self.path == RoutePath::All;
            if any {
                self.path = RoutePath::Regex(regex);
            }
            return any;
        }
        for known in &mut self.predicates {
            if *known == predicate {
                return true;
            }
            match (known, &predicate) {
                (Predicate::Methods(known), Predicate::Methods(more)) => {
                    let both =
                        methods_of(known).filter(|method| methods_of(more).any(|other| other == *method));
                    let both: Vec<String> = both.map(str::to_owned).collect();
                    // No method at all would stand for any.
                    self.never |= both.is_empty();
                    *known = both;
                    return true;
                }
                (Predicate::Header(name, value), Predicate::Header(same, more))
                | (Predicate::Query(name, value), Predicate::Query(same, more))
                | (Predicate::Cookie(name, value), Predicate::Cookie(same, more))
                    if name == same =>
                {
                    // That it is there is said by any value.
                    let said = *more == "true" && *value != "false";
                    if *value == "true" && *more != "false" {
                        value.clone_from(more);
                        return true;
                    }
                    return said;
                }
                _ => {}
            }
        }
        self.predicates.push(predicate);
        true
    }

    /// Asks for the client's certificate.
    pub(super) fn prove(&mut self) {
        self.key("auth", toml::inline([("with", toml::list(["mtls"]))]));
    }

    /// Closes it for every path.
    pub(super) fn shut(&mut self, why: &str) {
        self.path = RoutePath::All;
        self.predicates.clear();
        super::access::close(self, why);
    }

    fn predicates_count(&self) -> usize {
        self.predicates.len()
    }

    /// The route as TOML, with its name, hosts and listeners.
    pub(super) fn render(&self, name: &str, hosts: &[String], listeners: &[String]) -> String {
        let mut out = String::new();
        for comment in &self.comments {
            out.push_str(&toml::comment(comment));
        }
        out.push_str("[[routes]]\n");
        let mut line = |key: &str, value: String| out.push_str(&format!("{key} = {value}\n"));
        line("name", toml::text(name));
        if !hosts.is_empty() {
            line("hosts", toml::list(hosts));
        }
        if !listeners.is_empty() {
            line("listeners", toml::list(listeners));
        }
        line("path", toml::text(&self.path.text()));
        let mut tables: Vec<(&str, Vec<(&str, String)>)> = Vec::new();
        for predicate in &self.predicates {
            let (table, name, value) = match predicate {
                Predicate::Methods(methods) => {
                    line("methods", toml::list(methods));
                    continue;
                }
                Predicate::Path(_) | Predicate::Certificate => continue,
                Predicate::Header(name, value) => ("headers", name, value),
                Predicate::Query(name, value) => ("query", name, value),
                Predicate::Cookie(name, value) => ("cookies", name, value),
            };
            match tables.iter_mut().find(|(known, _)| *known == table) {
                Some((_, entries)) => entries.push((name, value.clone())),
                None => tables.push((table, vec![(name, value.clone())])),
            }
        }
        for (table, entries) in tables {
            line(table, toml::inline(entries));
        }
        if self.priority != 0 {
            line("priority", self.priority.to_string());
        }
        match &self.target {
            Target::Upstream(name) => line("upstream", toml::text(name)),
            Target::Redirect { to, status } => {
                line("redirect", toml::inline([("to", toml::text(to)), ("status", status.to_string())]));
            }
            Target::Respond { status, text, content_type } => {
                let mut entries = vec![("status", status.to_string())];
                entries.extend(text.as_ref().map(|text| ("text", toml::text(text))));
                if let Some(content_type) = content_type {
                    entries.push(("headers", toml::inline([("Content-Type", toml::text(content_type))])));
                }
                line("respond", toml::inline(entries));
            }
            Target::Files(files) => {
                let mut entries = vec![("root", toml::text(&files.root))];
                match files.index.as_slice() {
                    [] => {}
                    [one] => entries.push(("index", toml::text(one))),
                    several => entries.push(("index", toml::list(several))),
                }
                entries.extend(files.fallback.as_ref().map(|fallback| ("fallback", toml::text(fallback))));
                if files.listing {
                    entries.push(("listing", "true".to_owned()));
                }
                line("files", toml::inline(entries));
            }
        }
        for (key, value) in &self.keys {
            line(key, value.clone());
        }
        for (table, edits) in [("request", &self.request), ("response", &self.response)] {
            if *edits == Edits::default() {
                continue;
            }
            out.push_str(&format!("[routes.{table}]\n"));
            for (key, entries) in [("set", &edits.set), ("add", &edits.add)] {
                if !entries.is_empty() {
                    let entries = entries.iter().map(|(name, value)| (name.as_str(), toml::text(value)));
                    out.push_str(&format!("{key} = {}\n", toml::inline(entries)));
                }
            }
            if !edits.remove.is_empty() {
                out.push_str(&format!("remove = {}\n", toml::list(&edits.remove)));
            }
        }
        out
    }
}

/// Methods with what comes with them: GET brings HEAD.
fn methods_of(methods: &[String]) -> impl Iterator<Item = &str> {
    let head = methods.iter().any(|method| method == "GET") && !methods.iter().any(|method| method == "HEAD");
    methods.iter().map(String::as_str).chain(head.then_some("HEAD"))
}

/// Gives priorities, so that Edgeward asks the routes in the order they stand in: 0 as long as its own order is the same.
pub(super) fn prioritise(routes: &mut [Route<'_>]) {
    let mut runs: Vec<Vec<usize>> = Vec::new();
    for index in 0..routes.len() {
        let fits = runs.last().is_some_and(|run| {
            run.iter().all(|before| match (routes.get(*before), routes.get(index)) {
                (Some(before), Some(after)) => goes_first(before, after),
                _ => true,
            })
        });
        match runs.last_mut() {
            Some(run) if fits => run.push(index),
            _ => runs.push(vec![index]),
        }
    }
    for (priority, run) in (0_i32..).zip(runs.iter().rev()) {
        for index in run {
            if let Some(route) = routes.get_mut(*index) {
                route.priority = priority;
            }
        }
    }
}

/// Whether Edgeward asks `before` before `after` by itself, or never both.
fn goes_first(before: &Route<'_>, after: &Route<'_>) -> bool {
    let more_specific = before.predicates_count() >= after.predicates_count();
    match (&before.path, &after.path) {
        (RoutePath::Exact(one), RoutePath::Exact(two)) => one != two || more_specific,
        (RoutePath::Prefix(one), RoutePath::Prefix(two)) => {
            if one == two {
                more_specific
            } else {
                two.strip_prefix(one.as_str()).is_none_or(|rest| !rest.starts_with('/'))
            }
        }
        (RoutePath::Regex(one), RoutePath::Regex(two)) => one != two || more_specific,
        (RoutePath::All, RoutePath::All) => more_specific,
        (one, two) => one.rank() < two.rank(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priorities(paths: &[&str]) -> Vec<i32> {
        let path = |text: &&str| match text.strip_prefix('~') {
            Some(regex) => RoutePath::Regex(regex.to_owned()),
            None if *text == "/*" => RoutePath::All,
            None => match text.strip_suffix("/*") {
                Some(prefix) => RoutePath::Prefix(prefix.to_owned()),
                None => RoutePath::Exact((*text).to_owned()),
            },
        };
        let respond = || Target::Respond { status: 200, text: None, content_type: None };
        let mut routes: Vec<_> = paths.iter().map(|text| Route::new(path(text), respond())).collect();
        prioritise(&mut routes);
        routes.iter().map(|route| route.priority).collect()
    }

    #[test]
    fn priorities_are_given_only_where_the_orders_differ() {
        assert_eq!(priorities(&["/a", "/a/b/*", "/a/*", "~x", "~y", "/*"]), [0, 0, 0, 0, 0, 0]);
        assert_eq!(priorities(&["/a", "~x", "/a/*", "/*"]), [1, 1, 0, 0], "a regex before a prefix");
        assert_eq!(priorities(&["/s/*", "~x", "/a/*", "/*"]), [1, 1, 0, 0], "`^~` before it");
        assert_eq!(priorities(&["/a/*", "/a/b/*"]), [1, 0], "a shorter prefix before a longer");
        assert_eq!(priorities(&["/*", "/a", "/*"]), [1, 0, 0], "what the server says before its locations");
        assert_eq!(priorities(&["~x", "~y", "~x"]), [0, 0, 0]);
    }
}
