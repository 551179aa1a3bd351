//! `rewrite`: redirects, and other paths for what answers.

use super::super::parse::Directive;
use super::super::pattern::{self, Below, Translated};
use super::super::vars::{Env, Part, escape};
use super::Translator;
use super::access::close;
use super::content::{Rewriting, Site, UNSAID_STATUS};
use super::locations::{Location, Locations};
use super::redirect::elsewhere;
use super::route::{Route, RoutePath, Target};

impl<'a> Translator<'a> {
    pub(super) fn rewrite(
        &mut self,
        directive: &'a Directive,
        site: &Site<'a, '_>,
        env: &Env,
        locations: &Locations<'a>,
        out: &mut Rewriting<'a>,
    ) {
        let (source, replacement, flag) = (directive.arg(0), directive.arg(1), directive.arg(2));
        let Translated::Same(regex) = pattern::path_regex(source, false) else {
            return self.drop(directive, "Edgeward's regexes know no look-around and no back references");
        };
        let inner = env.matched_by(Some(&regex));
        let parts = inner.expand(replacement);
        let absolute =
            ["http://", "https://", "$scheme://"].iter().any(|scheme| replacement.starts_with(scheme));
        if absolute || matches!(flag, "redirect" | "permanent") {
            let Some(path) = self.path_of(&regex, site) else {
                return self
                    .drop(directive, "its regex and the location's path cannot be asked for together");
            };
            let status = if flag == "permanent" { 301 } else { 302 };
            match elsewhere(&parts, &env.matched_by(path.regex()), &path, true) {
                Ok(found) => {
                    match found.note {
                        Some(note) => self.nearly(directive, note),
                        None => self.done(directive),
                    }
                    let mut route = self.route(site, Target::Redirect { to: found.to, status });
                    route.path = path.clone();
                    route.source = Some(directive);
                    self.common(&site.location.scope.clone(), env, &mut route);
                    if takes_all(&regex, site) {
                        out.end = Some(route);
                        out.over = true;
                    } else {
                        out.before.push(route);
                    }
                }
                Err(why) => {
                    self.drop(directive, why);
                }
            }
            return;
        }
        let (to, note) = match self.path_template(&parts, &inner) {
            Ok(found) => found,
            Err(why) => return self.drop(directive, why),
        };
        match note {
            Some(note) => self.nearly(directive, note),
            None => self.done(directive),
        }
        if flag == "break" && !site.location.is_server && self.may_stand_alone(site) {
            out.rewrite = Some((regex, to));
            out.over = true;
            return;
        }
        self.internal(directive, site, env, locations, Rewritten { regex, to, flag }, out);
    }

    /// A path that another location answers, or with `break` the same.
    fn internal(
        &mut self,
        directive: &'a Directive,
        site: &Site<'a, '_>,
        env: &Env,
        locations: &Locations<'a>,
        rewritten: Rewritten<'_>,
        out: &mut Rewriting<'a>,
    ) {
        let Rewritten { regex, to, flag } = rewritten;
        let Some(path) = self.path_of(&regex, site) else {
            return self.drop(directive, "its regex and the location's path cannot be asked for together");
        };
        if flag.is_empty() {
            self.nearly(directive, "what would be rewritten again is not");
        }
        let env = env.matched_by(path.regex());
        let rewrite = (regex.clone(), to.clone());
        let routes = if flag == "break" && !site.location.is_server {
            // Nothing more of the rewrite phase; what comes after it holds.
            self.content_routes(&Site { location: site.location, path }, &env, locations, Some(&rewrite))
        } else {
            match self.location_of(&to, locations) {
                Found::None => {
                    self.drop(
                        directive,
                        format!(
                            "answers {UNSAID_STATUS}: which location answers the new path cannot be told"
                        ),
                    );
                    vec![self.unsaid(&Site { location: site.location, path }, &directive.text())]
                }
                Found::Closed(by) => {
                    let why = format!("the new path may be one of location {by}, which keeps people out");
                    self.drop(directive, format!("CLOSED, answers 403: {why}"));
                    let there = Site { location: site.location, path };
                    let mut route =
                        self.route(&there, Target::Respond { status: 403, text: None, content_type: None });
                    close(&mut route, &why);
                    vec![route]
                }
                Found::Location { location, instead: Some(status), .. } => {
                    self.drop(
                        directive,
                        format!("answers {status}, as location {} does", location.block.arg(0)),
                    );
                    let there = Site { location: site.location, path };
                    vec![self.route(&there, Target::Respond { status, text: None, content_type: None })]
                }
                Found::Location { location, certain, instead: None } => {
                    if !certain {
                        self.nearly(
                            directive,
                            format!(
                                "the new path is answered as by location {}",
                                location.literal.clone().unwrap_or_default()
                            ),
                        );
                    }
                    self.elsewhere_routes(
                        directive,
                        &Site { location: &location, path },
                        &env,
                        locations,
                        Some(&rewrite),
                    )
                }
            }
        };
        let all = takes_all(&regex, site);
        let count = routes.len();
        for (index, mut route) in routes.into_iter().enumerate() {
            route.source = Some(directive);
            if all && index + 1 == count {
                out.end = Some(route);
                out.over = true;
            } else {
                out.before.push(route);
            }
        }
    }

    /// The routes of a location for requests whose path was another one's: `site` has that path.
    ///
    /// What the location asks of the path, or makes of it, cannot be said then.
    pub(super) fn elsewhere_routes(
        &mut self,
        directive: &'a Directive,
        site: &Site<'a, '_>,
        env: &Env,
        locations: &Locations<'a>,
        rewrite: Option<&(String, String)>,
    ) -> Vec<Route<'a>> {
        let block = site.location.scope.own();
        let asks = |directive: &Directive| {
            directive.name == "if"
                && directive.args.iter().any(|arg| {
                    ["$uri", "$document_uri", "$request_filename", "${uri}", "-f", "-d", "-e", "-x"]
                        .iter()
                        .any(|name| arg.contains(name))
                })
        };
        let why = if self.redirections >= REDIRECTIONS_MAX {
            "locations lead to each other without end"
        } else if !site.location.is_server && rewrites(block) {
            "the location rewrites the path again"
        } else if block.iter().any(asks) {
            "the location asks for the new path"
        } else {
            self.redirections += 1;
            let mut env = env.clone();
            let routes = self.location_routes_of(site, &mut env, locations, rewrite);
            self.redirections -= 1;
            return routes;
        };
        let status = if self.keeps_out(&site.location.scope) { 403 } else { UNSAID_STATUS };
        self.drop(directive, format!("answers {status}: {why}"));
        let mut route = self.unsaid(site, why);
        if status == 403 {
            close(&mut route, why);
        }
        vec![route]
    }

    /// The location of a path that begins as the template does.
    pub(super) fn location_of(&self, to: &str, locations: &Locations<'a>) -> Found<'a> {
        let (literal, whole) = match to.find('{') {
            Some(at) => (to.get(..at).unwrap_or_default(), false),
            None => (to, true),
        };
        let end = to.rsplit('}').next().filter(|_| !whole).unwrap_or_default();
        let mut certain = true;
        // Those that might be it, if the rest of the path were known.
        let mut skipped: Vec<&Location<'a>> = Vec::new();
        for placed in &locations.placed {
            let location = &placed.location;
            let (found, possible) = match (&placed.path, &location.literal) {
                _ if placed.redirected.is_some() => continue,
                (RoutePath::Exact(path), _) => {
                    (whole && path == literal, !whole && path.starts_with(literal))
                }
                (RoutePath::Regex(regex), None) => {
                    let fits =
                        regex::bytes::Regex::new(regex).is_ok_and(|regex| regex.is_match(literal.as_bytes()));
                    (whole && fits, !whole && pattern::may_find(regex, literal, end))
                }
                (_, Some(prefix)) => {
                    let prefix = pattern::encode_path(prefix);
                    let longer: Vec<(String, &Location<'a>)> = prefixes_longer_than(&prefix, locations);
                    let found = literal.starts_with(&prefix)
                        && !longer.iter().any(|(other, _)| literal.starts_with(other.as_str()));
                    if found && !whole {
                        // Wherever they stand in the order: of prefixes the longest counts.
                        let possible = longer.iter().filter(|(other, _)| other.starts_with(literal));
                        for (_, other) in possible {
                            certain = false;
                            skipped.push(other);
                        }
                    }
                    (found, !whole && prefix.starts_with(literal))
                }
                _ => (false, true),
            };
            if found {
                if let Some(by) = skipped.iter().find(|other| self.is_stricter(other, location)) {
                    return Found::Closed(by.block.args.join(" "));
                }
                let instead = placed.instead.as_ref().map(|(status, _)| *status);
                return Found::Location { location: location.clone(), certain, instead };
            }
            if possible {
                certain = false;
                skipped.push(location);
            }
        }
        Found::None
    }

    /// Whether a location may keep out whom another lets in.
    pub(super) fn is_stricter(&self, one: &Location<'a>, other: &Location<'a>) -> bool {
        let rules = |location: &Location<'a>| -> Vec<u32> {
            location.scope.nearest_of(&["allow", "deny"]).iter().map(|rule| rule.id).collect()
        };
        let closing = |location: &Location<'a>| self.closing(&location.scope).map(|directive| directive.id);
        self.refuses(&one.scope)
            || rules(one) != rules(other) && self.keeps_out(&one.scope)
            || closing(one).is_some() && closing(one) != closing(other)
    }

    /// The path of a route that takes what `regex` finds at a site.
    fn path_of(&self, regex: &str, site: &Site<'a, '_>) -> Option<RoutePath> {
        if takes_all(regex, site) {
            // A template may need the groups; without any the path stays as it is.
            let grouped = regex.contains('(');
            return Some(if grouped { RoutePath::Regex(regex.to_owned()) } else { site.path.clone() });
        }
        match (&site.path, &site.location.literal) {
            (RoutePath::All, _) => Some(RoutePath::Regex(regex.to_owned())),
            (RoutePath::Exact(path), _) => {
                let found =
                    regex::bytes::Regex::new(regex).is_ok_and(|regex| regex.is_match(path.as_bytes()));
                found
                    .then(|| RoutePath::Regex(format!("^{}$", pattern::escape(path))))
                    .filter(|_| !regex.contains('('))
            }
            (_, Some(literal)) => match pattern::below(&pattern::encode_path(literal), regex) {
                Below::Exact(both) => Some(RoutePath::Regex(both)),
                Below::Never | Below::Unsaid => None,
            },
            (RoutePath::Regex(own), None) if own == regex => Some(RoutePath::Regex(regex.to_owned())),
            _ => None,
        }
    }

    /// Whether the location's own handling stays right for paths that the regex does not find: without a path of its own
    /// in `proxy_pass`, they go on as they are.
    fn may_stand_alone(&self, site: &Site<'a, '_>) -> bool {
        let rewrites = site.location.scope.own_named("rewrite").count();
        let plain = |directive: &Directive| {
            directive
                .arg(0)
                .split_once("://")
                .is_none_or(|(_, rest)| !rest.contains('/') && !rest.contains('$'))
        };
        rewrites == 1 && site.location.scope.own_named("proxy_pass").all(plain)
    }

    /// The template of a path with groups of a rewrite's own regex; a query in it is missing.
    pub(super) fn path_template(
        &self,
        parts: &[Part],
        env: &Env,
    ) -> Result<(String, Option<&'static str>), String> {
        let mut to = String::new();
        for part in parts {
            match part {
                Part::Text(text) => match text.split_once('?') {
                    Some((path, rest)) => {
                        to.push_str(&escape(path));
                        let note = (!rest.is_empty() || parts.last() != Some(part))
                            .then_some("the query in it is missing: the request's goes along");
                        return finish(to, note.or(Some("the request's query goes along")));
                    }
                    None => to.push_str(&escape(text)),
                },
                Part::Var(name) if env.capture(name).is_some() => to.push_str(&format!("{{{name}}}")),
                Part::Var(name) if matches!(name.as_str(), "is_args" | "args" | "query_string") => {}
                Part::Var(name) if name == "request_uri" => to.push_str("{request.path}"),
                Part::Var(name) => match env.reference(name) {
                    Some(reference) => to.push_str(&format!("{{{reference}}}")),
                    None => return Err(format!("${name} has no equivalent")),
                },
            }
        }
        finish(to, None)
    }
}

/// The prefixes that are longer than one, encoded, with their locations.
fn prefixes_longer_than<'l, 'a>(
    prefix: &str,
    locations: &'l Locations<'a>,
) -> Vec<(String, &'l Location<'a>)> {
    locations
        .placed
        .iter()
        .filter(|placed| placed.redirected.is_none() && !matches!(placed.path, RoutePath::Exact(_)))
        .filter_map(|placed| {
            Some((pattern::encode_path(placed.location.literal.as_deref()?), &placed.location))
        })
        .filter(|(other, _)| other.len() > prefix.len())
        .collect()
}

/// Which location answers a path.
pub(super) enum Found<'a> {
    /// This one, as far as can be told; `instead`: a status in place of what it says.
    Location {
        location: Location<'a>,
        certain: bool,
        instead: Option<u16>,
    },
    /// It may be this one, which keeps people out.
    Closed(String),
    None,
}

/// Deepest that locations lead to others.
const REDIRECTIONS_MAX: usize = 8;

/// Whether a block makes another path of the request's.
fn rewrites(block: &[Directive]) -> bool {
    block
        .iter()
        .any(|directive| directive.name == "rewrite" || directive.name == "if" && rewrites(directive.inner()))
}

struct Rewritten<'f> {
    regex: String,
    to: String,
    flag: &'f str,
}

fn finish(to: String, note: Option<&'static str>) -> Result<(String, Option<&'static str>), String> {
    if to.starts_with('/') {
        Ok((to, note))
    } else {
        Err("the new path does not start with \"/\"".to_owned())
    }
}

/// Whether the regex finds every path of the site, so that nothing after it is reached.
fn takes_all(regex: &str, site: &Site<'_, '_>) -> bool {
    const EVERYTHING: [&str; 7] = ["^", ".*", "^.*$", "^(.*)$", "(.*)", "^/(.*)$", "^/"];
    if EVERYTHING.contains(&regex) {
        return matches!(site.path, RoutePath::All);
    }
    // A location's prefix again, and anything after it.
    let (Some(literal), false) = (&site.location.literal, site.location.is_server) else { return false };
    let prefix = pattern::escape(&pattern::encode_path(literal));
    let rest = regex.strip_prefix('^').and_then(|regex| regex.strip_prefix(prefix.as_str()));
    matches!(rest, Some("" | "(.*)" | "(.*)$" | ".*" | ".*$")) && !matches!(site.path, RoutePath::Exact(_))
}
