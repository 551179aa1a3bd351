//! Files: `root`, `alias`, `index`, `try_files`, `autoindex`.

use super::super::parse::Directive;
use super::super::pattern;
use super::super::vars::Env;
use super::Translator;
use super::access::close;
use super::content::{Site, UNSAID_STATUS};
use super::known::is_handler;
use super::locations::{Location, Locations};
use super::rewrite::Found;
use super::route::{Files, How, Route, RoutePath, Target};

impl<'a> Translator<'a> {
    /// The files of a location that nothing else answers.
    pub(super) fn files(
        &mut self,
        site: &Site<'a, '_>,
        env: &Env,
        rewrite: Option<&(String, String)>,
    ) -> Route<'a> {
        let scope = &site.location.scope;
        let Some(directive) = scope.nearest_of(&["root", "alias"]).last().copied() else {
            // nginx' own directory of examples.
            let mut route = self.route(site, Target::Respond { status: 404, text: None, content_type: None });
            if !site.location.is_server {
                self.nearly(site.location.block, "answers 404: it names no files of its own");
            }
            route.comments.push("nothing is named that answers".to_owned());
            return route;
        };
        let expanded = env.expand(directive.arg(0));
        let mut route =
            self.route(site, Target::Respond { status: UNSAID_STATUS, text: None, content_type: None });
        let alias = directive.name == "alias";
        let (root, path) = match (env.constant(directive.arg(0)), alias, &site.path) {
            (Some(root), false, _) => (root, None),
            // The path of the file itself.
            (Some(file), true, RoutePath::Exact(_)) => one_file(&file),
            (Some(root), true, _) => match &site.location.literal {
                Some(literal) if is_file(literal, &root) => {
                    self.nearly(directive, "the file is sent for longer paths, too");
                    one_file(&root)
                }
                Some(literal) => {
                    (root.clone(), Some(("prefix", self.alias_prefix(directive, literal, &root))))
                }
                None => {
                    return self.no_files(directive, site, "with a regex its alias needs the regex' groups");
                }
            },
            // `alias /data/$1`: the text up to the first variable is the root.
            (None, true, RoutePath::Regex(_)) => {
                let [super::super::vars::Part::Text(start), rest @ ..] = expanded.as_slice() else {
                    return self.no_files(directive, site, "its directory is not known before requests come");
                };
                let (root, name) = start.rsplit_once('/').unwrap_or((start, ""));
                match env.template(rest) {
                    Ok(template) => (
                        root.to_owned(),
                        Some(("path", format!("/{}{template}", super::super::vars::escape(name)))),
                    ),
                    Err(variable) => {
                        return self.no_files(directive, site, &format!("${variable} has no equivalent"));
                    }
                }
            }
            (None, ..) => {
                return self.no_files(directive, site, "its directory is not known before requests come");
            }
        };
        self.done(directive);
        let rewritten = match (rewrite, &path) {
            (Some((regex, to)), _) => route.rewrite(How::Regex(regex, to)),
            (None, Some(("prefix", prefix))) if prefix.is_empty() => Ok(()),
            (None, Some(("prefix", prefix))) => route.rewrite(How::Prefix(prefix, "/")),
            (None, Some((_, template))) => route.rewrite(How::Path(template)),
            (None, None) => Ok(()),
        };
        if let Err(why) = rewritten {
            return self.no_files(directive, site, &why);
        }
        let root = self.under_prefix(&root);
        let root = if root.len() > 1 { root.trim_end_matches('/').to_owned() } else { root };
        let index = self.index(site);
        route.target =
            Target::Files(Files { root, index, fallback: None, listing: scope.is_on("autoindex") });
        route
    }

    /// What of the path is cut off before an alias takes its place; empty for nothing.
    fn alias_prefix(&mut self, directive: &'a Directive, literal: &str, root: &str) -> String {
        let prefix = pattern::encode_path(literal);
        if prefix.ends_with('/') != root.ends_with('/') {
            self.nearly(
                directive,
                "location and alias both end in a slash, or neither does: joined with one",
            );
        }
        prefix.trim_end_matches('/').to_owned()
    }

    fn no_files(&mut self, directive: &'a Directive, site: &Site<'a, '_>, why: &str) -> Route<'a> {
        self.drop(directive, format!("answers {UNSAID_STATUS}: {why}"));
        self.unsaid(site, &format!("{}: {why}", directive.text()))
    }

    /// Names that may stand in a directory.
    fn index(&mut self, site: &Site<'a, '_>) -> Vec<String> {
        let usual = || vec!["index.html".to_owned()];
        let Some(directive) = site.location.scope.one("index") else { return usual() };
        let plain = |name: &&String| !name.contains('$') && is_below(name) && !name.ends_with(".php");
        let names: Vec<String> = directive.args.iter().filter(plain).cloned().collect();
        if names.len() == directive.args.len() {
            self.done(directive);
        } else {
            self.nearly(directive, "names without variables, of files that are sent as they are");
        }
        if names.is_empty() { usual() } else { names }
    }

    /// `try_files`; `None` where files as they are say the same.
    pub(super) fn try_files(
        &mut self,
        directive: &'a Directive,
        site: &Site<'a, '_>,
        env: &Env,
        locations: &Locations<'a>,
        rewrite: Option<&(String, String)>,
    ) -> Option<Route<'a>> {
        let (last, tried) = directive.args.split_last()?;
        let finds_files = tried.iter().any(|name| name == "$uri" || name == "$request_filename");
        let others =
            tried.iter().any(|name| !matches!(name.as_str(), "$uri" | "$uri/" | "$request_filename"));
        if let Some(name) = last.strip_prefix('@') {
            let Some(location) = locations.named.get(&format!("@{name}")).cloned() else {
                self.drop(directive, format!("@{name} is not there"));
                return Some(self.unsaid(site, &directive.text()));
            };
            self.nearly(directive, format!("files are not looked for first: everything goes to @{name}"));
            // What is inherited is the named location's; its own access rules hold.
            let location = Location { literal: site.location.literal.clone(), ..location };
            let there = Site { location: &location, path: site.path.clone() };
            let mut routes = self.elsewhere_routes(directive, &there, env, locations, rewrite);
            if let (Some(route), true) = (routes.pop(), routes.is_empty()) {
                return Some(route);
            }
            let why = format!("@{name} asks more of a request than can be said here");
            let status = if self.keeps_out(&location.scope) { 403 } else { UNSAID_STATUS };
            self.drop(directive, format!("answers {status}: {why}"));
            let mut route = self.unsaid(site, &why);
            if status == 403 {
                close(&mut route, &why);
            }
            return Some(route);
        }
        // With its own handler the files come first, and what is left goes on to it.
        let handled = site.location.scope.own().iter().any(|other| is_handler(&other.name));
        if handled {
            self.nearly(directive, "files are not looked for first");
            return None;
        }
        let mut route = self.files(site, env, rewrite);
        let Target::Files(files) = &mut route.target else { return Some(route) };
        if others || !finds_files {
            self.nearly(directive, "looked for is the path alone, and its index");
        } else {
            self.done(directive);
        }
        let path = last.split('?').next().unwrap_or_default();
        if let Some(status) = last.strip_prefix('=') {
            if status != "404" {
                self.nearly(directive, "what is not there is answered 404");
            }
        } else if path.starts_with('/')
            && !path.contains('$')
            && !path.ends_with('/')
            && !path.ends_with(".php")
        {
            // A path of the server: inside an alias it is cut as all others are.
            let cut = site.location.literal.as_deref().filter(|_| {
                site.location
                    .scope
                    .nearest_of(&["root", "alias"])
                    .last()
                    .is_some_and(|directive| directive.name == "alias")
            });
            let fallback =
                cut.map_or(path, |cut| path.strip_prefix(cut.trim_end_matches('/')).unwrap_or(path));
            let fallback = fallback.trim_start_matches('/');
            let to = super::super::vars::escape(&pattern::encode_path(path));
            let there = match self.location_of(&to, locations) {
                Found::Location { location, instead: None, .. } => Some(location),
                _ => None,
            };
            let there = there.filter(|there| self.same_files(there, site.location));
            if let (Some(there), true) = (there, is_below(fallback)) {
                if there.block.id != site.location.block.id
                    && !there.is_server
                    && !there.scope.own().is_empty()
                {
                    self.nearly(
                        directive,
                        format!("{path} is sent as this location says, not as {}", there.block.text()),
                    );
                }
                files.fallback = Some(fallback.to_owned());
            } else {
                self.nearly(
                    directive,
                    format!("what is not there is answered 404: {last} is another location's, with other files or rules"),
                );
            }
        } else {
            self.nearly(directive, format!("what is not there is answered 404, not by {last}"));
        }
        Some(route)
    }
}

impl<'a> Translator<'a> {
    /// Whether a location sends the same files as another, and to whom that one does.
    fn same_files(&self, one: &Location<'a>, other: &Location<'a>) -> bool {
        if one.block.id == other.block.id {
            return true;
        }
        let root = |location: &Location<'a>| location.scope.nearest_of(&["root", "alias"]).last().copied();
        let same_root = match (root(one), root(other)) {
            (Some(one), Some(other)) => {
                one.name == "root" && other.name == "root" && one.arg(0) == other.arg(0)
            }
            _ => false,
        };
        let answers = one.scope.own().iter().any(|directive| {
            is_handler(&directive.name) || matches!(directive.name.as_str(), "return" | "rewrite" | "if")
        });
        // What the server itself says has been asked before any location.
        same_root && (one.is_server || !answers) && !self.is_stricter(one, other)
    }
}

/// The directory of a file, and the path of the request that stands for it.
fn one_file(file: &str) -> (String, Option<(&'static str, String)>) {
    let (root, name) = file.rsplit_once('/').unwrap_or((".", file));
    let root = if root.is_empty() { "/" } else { root };
    let name = super::super::vars::escape(&pattern::encode_path(name));
    (root.to_owned(), Some(("path", format!("/{name}"))))
}

/// Whether an alias names a file, as far as names tell: neither it nor the location ends in a slash, and both in one name
/// with an extension.
fn is_file(literal: &str, alias: &str) -> bool {
    let extension = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.')
            .filter(|(stem, end)| !stem.is_empty() && !end.is_empty())
            .map(|(_, end)| end.to_owned())
    };
    extension(literal).is_some() && extension(literal) == extension(alias)
}

/// Whether a name stays below its directory.
fn is_below(name: &str) -> bool {
    !name.is_empty()
        && !name.chars().any(char::is_control)
        && name.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}
