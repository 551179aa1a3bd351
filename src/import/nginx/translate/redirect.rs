//! `return`: fixed answers and redirects.

use super::super::parse::Directive;
use super::super::vars::{Env, Part, escape};
use super::Translator;
use super::content::{Site, UNSAID_STATUS};
use super::route::{Route, RoutePath, Target};
use crate::routing::PathPattern;
use crate::routing::template::{Scope as Names, Template};

/// Another address as a template, with what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Elsewhere {
    pub(super) to: String,
    pub(super) note: Option<&'static str>,
}

impl<'a> Translator<'a> {
    /// The route of a `return`.
    pub(super) fn returned(&mut self, directive: &'a Directive, site: &Site<'a, '_>, env: &Env) -> Route<'a> {
        let respond = |status: u16| Target::Respond { status, text: None, content_type: None };
        let (status, text) = match directive.arg(0).parse::<u16>() {
            Ok(status) => (status, directive.args.get(1)),
            Err(_) => (302, directive.args.first()),
        };
        let mut route = match (status, text) {
            (301 | 302 | 303 | 307 | 308, Some(text)) => {
                match elsewhere(&env.expand(text), env, &site.path, false) {
                    Ok(found) => {
                        match found.note {
                            Some(note) => self.nearly(directive, note),
                            None => self.done(directive),
                        }
                        self.route(site, Target::Redirect { to: found.to, status })
                    }
                    Err(why) => {
                        self.drop(directive, format!("answers {UNSAID_STATUS}: {why}"));
                        self.unsaid(site, &format!("{}: {why}", directive.text()))
                    }
                }
            }
            (444, _) => {
                self.nearly(directive, "answers 403, where nginx closes without an answer");
                self.route(site, respond(403))
            }
            (200..=599, None) => {
                self.done(directive);
                self.route(site, respond(status))
            }
            (200..=599, Some(text)) => {
                let content_type = self.content_type(site);
                let (text, whole) = match env.constant(text) {
                    Some(text) => (text, true),
                    None => (text.clone(), false),
                };
                if whole {
                    self.done(directive);
                } else {
                    self.nearly(
                        directive,
                        "the text is sent as it is written, with the names of its variables",
                    );
                }
                let text = (!text.is_empty() && !matches!(status, 204 | 205 | 304)).then_some(text);
                let content_type = text.as_ref().and(content_type);
                self.route(site, Target::Respond { status, text, content_type })
            }
            _ => {
                self.drop(directive, format!("answers {UNSAID_STATUS}: {status} is no status"));
                self.unsaid(site, &directive.text())
            }
        };
        let scope = site.location.scope.clone();
        self.common(&scope, env, &mut route);
        route
    }

    /// The type of a text that is returned: by `default_type`, which is what nginx falls back on.
    fn content_type(&mut self, site: &Site<'a, '_>) -> Option<String> {
        let scope = &site.location.scope;
        let directive = scope.one("default_type");
        if let Some(directive) = directive {
            self.done(directive);
        }
        let extension = match &site.path {
            RoutePath::Exact(path) => {
                path.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map(|(_, end)| end)
            }
            _ => None,
        };
        let by_extension = extension.and_then(|extension| {
            let types = scope.nearest("types");
            types
                .iter()
                .flat_map(|types| types.inner())
                .find(|entry| entry.args.iter().any(|known| known.eq_ignore_ascii_case(extension)))
                .map(|entry| entry.name.clone())
        });
        // What nginx knows where no types are given.
        let usual = match extension {
            Some("html") => "text/html",
            Some("gif") => "image/gif",
            Some("jpg") => "image/jpeg",
            _ => "text/plain",
        };
        let written =
            by_extension.unwrap_or_else(|| directive.map_or(usual, |directive| directive.arg(0)).to_owned());
        http::HeaderValue::from_str(&written).is_ok().then_some(written)
    }
}

/// The template of another address. `keeps_query`: nginx adds the query by itself, as `rewrite` does.
pub(super) fn elsewhere(
    parts: &[Part],
    env: &Env,
    path: &RoutePath,
    keeps_query: bool,
) -> Result<Elsewhere, String> {
    let mut to = String::new();
    let mut query_goes_along = keeps_query;
    let mut parts = parts;
    let var = |part: Option<&Part>| match part {
        Some(Part::Var(name)) => name.as_str().to_owned(),
        _ => String::new(),
    };
    // The same scheme and host again: the path alone says it.
    if let [Part::Var(scheme), Part::Text(text), Part::Var(host), rest @ ..] = parts
        && scheme == "scheme"
        && text == "://"
        && (host == "host" || host == "http_host")
    {
        parts = rest;
    }
    let mut index = 0;
    while let Some(part) = parts.get(index) {
        index += 1;
        match part {
            Part::Text(text) => to.push_str(&escape(text)),
            Part::Var(name) => match name.as_str() {
                "is_args" if matches!(var(parts.get(index)).as_str(), "args" | "query_string") => {
                    index += 1;
                    query_goes_along = true;
                }
                "args" | "query_string" if to.ends_with('?') => {
                    to.pop();
                    query_goes_along = true;
                }
                "args" | "query_string" | "is_args" => return Err("a query stands after a path".to_owned()),
                "request_uri" => {
                    query_goes_along |= !to.contains('?');
                    to.push_str("{request.path}");
                }
                other => match env.reference(other) {
                    Some(reference) => to.push_str(&format!("{{{reference}}}")),
                    None => return Err(format!("${other} has no equivalent")),
                },
            },
        }
    }
    // `?` at the end keeps nginx from adding the query; here it would stay.
    let ended = keeps_query && to.ends_with('?');
    if ended {
        to.pop();
    }
    if to.starts_with("{request.path}") {
        let scheme = env.constant("$scheme").ok_or("the scheme is not known")?;
        to = format!("{scheme}://{{request.host}}{to}");
    }
    let pattern = PathPattern::parse(&path.text()).map_err(|mistake| mistake.message)?;
    Template::location(&to, Names { pattern: &pattern, groups: None }).map_err(|mistake| mistake.message)?;
    let note = (ended || !(query_goes_along || to.contains('?'))).then_some("the request's query goes along");
    Ok(Elsewhere { to, note })
}

#[cfg(test)]
mod tests {
    use super::super::super::vars::parts;
    use super::*;

    #[test]
    fn addresses_become_templates() {
        let mut env = Env::default();
        env.set_text("scheme", "https");
        let to = |text: &str, env: &Env| {
            elsewhere(&env.expand(text), env, &RoutePath::All, false)
                .map(|found| (found.to, found.note.is_none()))
        };
        for (text, expected) in [
            ("https://$host$request_uri", Ok(("https://{request.host}{request.path}", true))),
            ("https://www.example.com$request_uri", Ok(("https://www.example.com{request.path}", true))),
            ("/new/?x=$arg_y", Ok(("/new/?x={query.y}", true))),
            ("/new", Ok(("/new", false))),
            ("/new$is_args$args", Ok(("/new", true))),
            ("$request_uri", Ok(("https://{request.host}{request.path}", true))),
            ("https://$http_x/", Err(())),
            ("/$unknown", Err(())),
        ] {
            let got = to(text, &env);
            match expected {
                Ok((template, same)) => assert_eq!(got, Ok((template.to_owned(), same)), "{text}"),
                Err(()) => assert!(got.is_err(), "{text}: {got:?}"),
            }
        }
        let open = Env::default();
        assert_eq!(elsewhere(&parts("$scheme://$host/x"), &open, &RoutePath::All, false).unwrap().to, "/x");
    }
}
