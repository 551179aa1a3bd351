//! `if`: routes with predicates, where its condition is not known before requests come.

use super::super::parse::Directive;
use super::super::pattern::{self, Below};
use super::super::scope::Scope;
use super::super::vars::Env;
use super::Translator;
use super::condition::Condition;
use super::content::{Rewriting, Site};
use super::known::is_handler;
use super::locations::{Location, Locations};
use super::route::{Predicate, Route, RoutePath};

impl<'a> Translator<'a> {
    pub(super) fn conditional(
        &mut self,
        directive: &'a Directive,
        site: &Site<'a, '_>,
        env: &mut Env,
        locations: &Locations<'a>,
        out: &mut Rewriting<'a>,
    ) {
        let body = directive.inner();
        match self.condition(directive, env) {
            Condition::Is(true) => {
                self.done(directive);
                self.rewrite_block(body, site, env, locations, out);
                if out.end.is_none()
                    && !site.location.is_server
                    && let Some(route) = self.conditional_content(directive, site, env, locations)
                {
                    let mut routes = self.except_methods(site, route);
                    out.end = routes.pop();
                    out.before.extend(routes);
                    out.over = true;
                }
            }
            Condition::Is(false) => {
                self.done(directive);
                for inner in body {
                    self.done(inner);
                }
            }
            Condition::AnyOf(any) if any.contains(&Predicate::Certificate) => {
                self.unsaid_condition(directive, "a certificate can be asked for, not noticed", env, out);
            }
            // The routes refuse by themselves who shows none.
            Condition::Not(Predicate::Certificate) => {
                self.nearly(directive, "answers 401 without a certificate");
                for inner in body {
                    self.done(inner);
                }
                out.proved = true;
            }
            Condition::AnyOf(any) => {
                for predicate in any {
                    // A path is asked for by the route's own; its groups are what `$1` is then.
                    let (there, inner) = match &predicate {
                        Predicate::Path(regex) => match joined(site, regex) {
                            Some(path) => {
                                (Site { path: path.clone(), ..site.clone() }, env.matched_by(path.regex()))
                            }
                            None => {
                                return self.unsaid_condition(
                                    directive,
                                    "two regexes for one path",
                                    env,
                                    out,
                                );
                            }
                        },
                        _ => (site.clone(), env.clone()),
                    };
                    let Some(answers) = self.conditional_answer(directive, &there, &inner, locations) else {
                        return self.unsaid_condition(
                            directive,
                            "what it does cannot be made a route",
                            env,
                            out,
                        );
                    };
                    self.done(directive);
                    for mut route in answers {
                        let asked =
                            matches!(predicate, Predicate::Path(_)) || route.narrow(predicate.clone());
                        if !asked {
                            return self.unsaid_condition(directive, "it asks twice for one name", env, out);
                        }
                        out.before.push(route);
                    }
                }
            }
            Condition::Not(predicate) => {
                let mut answers =
                    self.conditional_answer(directive, site, env, locations).unwrap_or_default();
                match (answers.pop(), answers.is_empty()) {
                    (Some(answer), true) => {
                        self.done(directive);
                        if matches!(&predicate, Predicate::Methods(methods) if methods.iter().any(|name| name == "GET") && !methods.iter().any(|name| name == "HEAD"))
                        {
                            self.nearly(directive, "HEAD goes with GET");
                        }
                        out.required.push((predicate, answer));
                    }
                    _ => self.unsaid_condition(directive, "what it does cannot be made a route", env, out),
                }
            }
            Condition::Unsaid(why) => self.unsaid_condition(directive, &why, env, out),
        }
    }

    /// A condition that cannot be said: closed, if it keeps anybody out.
    fn unsaid_condition(
        &mut self,
        directive: &'a Directive,
        why: &str,
        env: &mut Env,
        out: &mut Rewriting<'a>,
    ) {
        let body = directive.inner();
        for set in body.iter().filter(|inner| inner.name == "set") {
            env.forget(set.arg(0).trim_start_matches('$'));
        }
        if self.keeps_out(&Scope::of(body)) {
            self.drop(directive, format!("CLOSED, answers 403: {why}"));
            out.closed = Some(format!("{}: {why}", directive.text()));
            out.over = true;
        } else {
            self.drop(directive, why);
        }
    }

    /// The routes of an `if` whose condition a predicate says; the last is for all that come there.
    fn conditional_answer(
        &mut self,
        directive: &'a Directive,
        site: &Site<'a, '_>,
        env: &Env,
        locations: &Locations<'a>,
    ) -> Option<Vec<Route<'a>>> {
        // Nor does nginx take a condition inside a condition.
        if directive.inner().iter().any(|inner| inner.name == "if") {
            return None;
        }
        let mut env = env.clone();
        let mut inner = Rewriting::default();
        self.rewrite_block(directive.inner(), site, &mut env, locations, &mut inner);
        if inner.closed.is_some() || !inner.required.is_empty() {
            return None;
        }
        let mut routes = inner.before;
        match inner.end {
            Some(end) => routes.push(end),
            None if inner.rewrite.is_some() && !site.location.is_server => {
                routes.extend(self.content_routes(site, &env, locations, inner.rewrite.as_ref()));
            }
            None => {
                if let Some(route) = self.conditional_content(directive, site, &env, locations) {
                    routes.extend(self.except_methods(site, route));
                }
            }
        }
        (!routes.is_empty()).then_some(routes)
    }

    /// What answers inside an `if` of a location, if it says so.
    fn conditional_content(
        &mut self,
        directive: &'a Directive,
        site: &Site<'a, '_>,
        env: &Env,
        locations: &Locations<'a>,
    ) -> Option<Route<'a>> {
        let answers =
            |inner: &Directive| matches!(inner.name.as_str(), "root" | "alias") || is_handler(&inner.name);
        if !directive.inner().iter().any(answers) {
            return None;
        }
        let location = Location {
            block: directive,
            scope: site.location.scope.within(directive.inner()),
            literal: site.location.literal.clone(),
            is_server: false,
        };
        Some(self.content(&Site { location: &location, path: site.path.clone() }, env, locations, None))
    }
}

/// The path of a site's requests that `regex` finds, too.
fn joined(site: &Site<'_, '_>, regex: &str) -> Option<RoutePath> {
    match &site.path {
        RoutePath::All => Some(RoutePath::Regex(regex.to_owned())),
        RoutePath::Exact(_) => None,
        _ => match pattern::below(&pattern::encode_path(site.location.literal.as_deref()?), regex) {
            Below::Exact(both) => Some(RoutePath::Regex(both)),
            Below::Never | Below::Unsaid => None,
        },
    }
}
