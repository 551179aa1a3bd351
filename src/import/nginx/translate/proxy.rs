//! `proxy_pass` and `grpc_pass`: to which servers, and what becomes of the path.

use super::super::parse::Directive;
use super::super::pattern;
use super::super::vars::{Env, Part, escape};
use super::Translator;
use super::content::Site;
use super::route::{How, Route, RoutePath, Target};
use super::upstream::Destination;

/// Where a `proxy_pass` points.
#[derive(Debug, PartialEq, Eq)]
struct Pass {
    tls: bool,
    /// Name of a block, `host:port`, or `unix:path`.
    host: String,
    /// What stands after it.
    path: Vec<Part>,
}

impl<'a> Translator<'a> {
    pub(super) fn proxied(
        &mut self,
        directive: &'a Directive,
        site: &Site<'a, '_>,
        env: &Env,
        rewrite: Option<&(String, String)>,
    ) -> Route<'a> {
        let grpc = directive.name == "grpc_pass";
        let pass = match read(&env.expand(directive.arg(0)), grpc) {
            Ok(pass) => pass,
            Err(why) => {
                self.drop(directive, format!("answers 501: {why}"));
                return self.unsaid(site, &format!("{}: {why}", directive.text()));
            }
        };
        self.done(directive);
        let scope = &site.location.scope;
        let to = Destination { host: &pass.host, tls: pass.tls, grpc, source: directive };
        let upstream = match self.upstream(scope, &to, env) {
            Ok(upstream) => upstream,
            Err(why) => {
                self.nearly(directive, format!("answers 502: {why}"));
                let mut route =
                    self.route(site, Target::Respond { status: 502, text: None, content_type: None });
                route.comments.push(format!("{}: {why}", directive.text()));
                return route;
            }
        };
        let mut route = self.route(site, Target::Upstream(upstream));
        let path = match rewrite {
            Some((regex, path)) => route.rewrite(How::Regex(regex, path)),
            None => self.own_path(directive, site, env, &pass.path, &mut route),
        };
        if let Err(why) = path {
            // Nothing is sent to a path that nobody knows.
            self.drop(directive, format!("answers 501: {why}"));
            return self.unsaid(site, &format!("{}: {why}", directive.text()));
        }
        self.request_headers(scope, grpc, env, &mut route);
        route
    }

    /// The path that stands in `proxy_pass`: it takes the place of the location's.
    fn own_path(
        &mut self,
        directive: &'a Directive,
        site: &Site<'a, '_>,
        env: &Env,
        path: &[Part],
        route: &mut Route<'a>,
    ) -> Result<(), String> {
        let [Part::Text(written)] = path else { return self.path_of_variables(directive, env, path, route) };
        let (uri, query) =
            written.split_once('?').map_or((written.as_str(), None), |(uri, query)| (uri, Some(query)));
        if query.is_some() {
            self.nearly(directive, "the query in it is missing");
        }
        let Some(literal) = &site.location.literal else { return Ok(()) };
        let literal = pattern::encode_path(literal);
        let to = pattern::encode_written(uri);
        if to == literal {
            return Ok(());
        }
        if matches!(site.path, RoutePath::Exact(_)) {
            return route.rewrite(How::Path(&escape(&to)));
        }
        let (cut, cut_to) = (literal.strip_suffix('/'), to.strip_suffix('/'));
        if let (Some(cut), Some(_)) = (cut, cut_to) {
            return route.rewrite(How::Prefix(if cut.is_empty() { "/" } else { cut }, &to));
        }
        if cut.is_none() && cut_to.is_some() {
            self.nearly(directive, "of two slashes one is sent");
        }
        let regex = format!("^{}(.*)$", pattern::escape(&literal));
        route.rewrite(How::Regex(&regex, &format!("{}{{1}}", escape(&to))))
    }

    /// A path made of variables: nginx sends it as it is.
    fn path_of_variables(
        &mut self,
        directive: &'a Directive,
        env: &Env,
        path: &[Part],
        route: &mut Route<'a>,
    ) -> Result<(), String> {
        match path {
            [] => return Ok(()),
            [Part::Var(name)] if name == "request_uri" => return Ok(()),
            [Part::Var(name), rest @ ..] if name == "uri" || name == "document_uri" => {
                let query = |part: &Part| matches!(part, Part::Var(name) if matches!(name.as_str(), "is_args" | "args" | "query_string"));
                if rest.iter().all(query) {
                    if rest.is_empty() {
                        self.nearly(directive, "the request's query goes along");
                    }
                    return Ok(());
                }
            }
            _ => {}
        }
        let sends_query = path.iter().any(|part| {
            matches!(part, Part::Var(name) if matches!(name.as_str(), "args" | "query_string" | "request_uri"))
        });
        let mut to = String::new();
        for part in path {
            match part {
                Part::Text(text) => {
                    let (text, query) =
                        text.split_once('?').map_or((text.as_str(), false), |(text, _)| (text, true));
                    to.push_str(&escape(text));
                    if query {
                        break;
                    }
                }
                Part::Var(name) if matches!(name.as_str(), "is_args" | "args" | "query_string") => {}
                Part::Var(name) if name == "request_uri" => to.push_str("{request.path}"),
                Part::Var(name) => {
                    let reference =
                        env.reference(name).ok_or_else(|| format!("${name} has no equivalent"))?;
                    to.push_str(&format!("{{{reference}}}"));
                }
            }
        }
        if !sends_query {
            self.nearly(directive, "the request's query goes along");
        }
        if !to.starts_with('/') {
            to.insert(0, '/');
        }
        route.rewrite(How::Path(&to))
    }
}

/// Reads the argument of `proxy_pass` or `grpc_pass`.
fn read(parts: &[Part], grpc: bool) -> Result<Pass, String> {
    let variable = |part: Option<&Part>| match part {
        Some(Part::Var(name)) => format!("${name} is not known before requests come"),
        _ => "it names no server".to_owned(),
    };
    let Some(Part::Text(first)) = parts.first() else { return Err(variable(parts.first())) };
    let rest = parts.get(1..).unwrap_or_default();
    let (scheme, after) = match first.split_once("://") {
        Some((scheme, after)) => (scheme, after),
        None if grpc => ("grpc", first.as_str()),
        None => return Err("it has no scheme".to_owned()),
    };
    let tls = match scheme {
        "http" if !grpc => false,
        "https" if !grpc => true,
        "grpc" if grpc => false,
        "grpcs" if grpc => true,
        other => return Err(format!("the scheme {other} is not known")),
    };
    let (host, path) = if let Some(socket) = after.strip_prefix("unix:") {
        match socket.split_once(':') {
            Some((socket, path)) => (format!("unix:{socket}"), path),
            None if rest.is_empty() => (format!("unix:{socket}"), ""),
            None => return Err(variable(rest.first())),
        }
    } else {
        match after.find(['/', '?']) {
            Some(at) => {
                let (host, path) = after.split_at_checked(at).unwrap_or((after, ""));
                (host.to_owned(), path)
            }
            // A variable right after the host must begin the path.
            None => match rest.first() {
                None => (after.to_owned(), ""),
                Some(Part::Var(name)) if matches!(name.as_str(), "request_uri" | "uri" | "document_uri") => {
                    (after.to_owned(), "")
                }
                other => return Err(variable(other)),
            },
        }
    };
    if host.is_empty() {
        return Err(variable(rest.first()));
    }
    let mut all: Vec<Part> = Vec::new();
    if !path.is_empty() {
        all.push(Part::Text(path.to_owned()));
    }
    all.extend(rest.iter().cloned());
    Ok(Pass { tls, host, path: all })
}

#[cfg(test)]
mod tests {
    use super::super::super::vars::parts;
    use super::*;

    #[test]
    fn destinations_are_read() {
        let pass = |text: &str| read(&parts(text), false).map(|pass| (pass.host, pass.tls, pass.path.len()));
        assert_eq!(pass("http://app"), Ok(("app".to_owned(), false, 0)));
        assert_eq!(pass("https://10.0.0.1:8443/x/"), Ok(("10.0.0.1:8443".to_owned(), true, 1)));
        assert_eq!(pass("http://app$request_uri"), Ok(("app".to_owned(), false, 1)));
        assert_eq!(pass("http://unix:/run/app.sock:/x"), Ok(("unix:/run/app.sock".to_owned(), false, 1)));
        assert_eq!(pass("http://unix:/run/app.sock"), Ok(("unix:/run/app.sock".to_owned(), false, 0)));
        assert!(pass("http://$backend").unwrap_err().contains("$backend is not known"));
        assert!(pass("http://app$x").is_err() && pass("app").is_err());
        assert_eq!(read(&parts("grpcs://app:443"), true).map(|pass| pass.tls), Ok(true));
    }
}
