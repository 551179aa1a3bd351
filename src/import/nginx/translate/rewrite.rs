//! `rewrite`: redirects, and other paths for what answers.

use super::super::parse::Directive;
use super::super::pattern::{self, Translated};
use super::super::vars::{Env, Part, escape};
use super::Translator;
use super::content::{Rewriting, Site};
use super::locations::{Location, Locations};
use super::redirect::elsewhere;
use super::route::{RoutePath, Target};

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
        let location = if flag == "break" && !site.location.is_server {
            site.location.clone()
        } else {
            let (found, certain) = self.location_of(&to, locations);
            let Some(found) = found else {
                return self.drop(directive, "which location answers the new path cannot be told");
            };
            if !certain {
                self.nearly(
                    directive,
                    format!(
                        "the new path is answered as by location {}",
                        found.literal.clone().unwrap_or_default()
                    ),
                );
            }
            found
        };
        if flag.is_empty() {
            self.nearly(directive, "what would be rewritten again is not");
        }
        let env = env.matched_by(path.regex());
        let there = Site { location: &location, path };
        let mut route = if let Some(returned) =
            location.scope.own_named("return").next().filter(|_| !location.is_server)
        {
            self.returned(returned, &there, &env)
        } else {
            self.content(&there, &env, locations, Some(&(regex.clone(), to)))
        };
        route.source = Some(directive);
        if takes_all(&regex, site) {
            out.end = Some(route);
            out.over = true;
        } else {
            out.before.push(route);
        }
    }

    /// The location of a path that begins as the template does; whether that is certain.
    fn location_of(&self, to: &str, locations: &Locations<'a>) -> (Option<Location<'a>>, bool) {
        let (literal, whole) = match to.find('{') {
            Some(at) => (to.get(..at).unwrap_or_default(), false),
            None => (to, true),
        };
        let mut certain = true;
        for placed in &locations.placed {
            let found = match (&placed.path, &placed.location.literal) {
                _ if placed.redirected.is_some() => continue,
                (RoutePath::Exact(path), _) => {
                    certain &= whole || !path.starts_with(literal);
                    whole && path == literal
                }
                (_, Some(prefix)) => {
                    let prefix = pattern::encode_path(prefix);
                    certain &= whole || literal.starts_with(&prefix) || !prefix.starts_with(literal);
                    literal.starts_with(&prefix)
                }
                (RoutePath::Regex(regex), None) => {
                    let fits =
                        regex::bytes::Regex::new(regex).is_ok_and(|regex| regex.is_match(literal.as_bytes()));
                    certain &= whole;
                    whole && fits
                }
                _ => false,
            };
            if found {
                return (Some(placed.location.clone()), certain);
            }
        }
        (None, false)
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
                (both, true) => Some(RoutePath::Regex(both)),
                _ => None,
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
