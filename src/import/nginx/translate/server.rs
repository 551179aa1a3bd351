//! `server` blocks: which hosts they answer, and the routes of each.

use std::sync::LazyLock;

use regex::Regex;

use super::super::parse::Directive;
use super::super::scope::Scope;
use super::super::vars::Env;
use super::Translator;
use super::listen::Listener;
use super::route::Route;
use crate::import::toml;
use crate::routing::HostPattern;

/// A `server` block.
#[derive(Debug)]
pub(super) struct Server<'a> {
    pub(super) block: &'a Directive,
    pub(super) scope: Scope<'a>,
    names: Vec<HostPattern>,
    /// Indexes of its listeners.
    pub(super) listeners: Vec<usize>,
}

/// A `server` block, translated.
#[derive(Debug)]
pub(super) struct ServerRoutes<'a> {
    title: String,
    block: &'a Directive,
    groups: Vec<Group<'a>>,
    comments: Vec<String>,
}

/// Routes for the same hosts and listeners.
#[derive(Debug)]
struct Group<'a> {
    hosts: Vec<String>,
    listeners: Vec<usize>,
    routes: Vec<(String, Route<'a>)>,
}

/// Hosts, and which they are where it is one.
type HostCopy = (Vec<String>, Option<String>);

/// Hosts for which a server that depends on the host is written out, at most.
const HOSTS_MAX: usize = 64;

impl<'a> Translator<'a> {
    /// All servers, translated.
    pub(super) fn servers(&mut self, http: &Scope<'a>) -> Vec<ServerRoutes<'a>> {
        let mut servers: Vec<Server<'a>> = Vec::new();
        for block in http.own_named("server") {
            let scope = http.within(block.inner());
            let names = self.names(&scope);
            servers.push(Server { block, scope, names, listeners: Vec::new() });
        }
        self.gather_listeners(&mut servers);
        (0..servers.len()).filter_map(|index| self.server(index, &servers)).collect()
    }

    /// The hosts of `server_name` that can be said.
    fn names(&mut self, scope: &Scope<'a>) -> Vec<HostPattern> {
        let mut names = Vec::new();
        for directive in scope.own_named("server_name") {
            self.done(directive);
            for name in &directive.args {
                match host_patterns(name) {
                    Hosts::These(patterns) => names.extend(patterns),
                    Hosts::Nearly(pattern) => {
                        self.nearly(directive, format!("{name} becomes {pattern}"));
                        names.push(pattern);
                    }
                    Hosts::Nothing => {}
                    Hosts::Unsaid => self.nearly(
                        directive,
                        format!(
                            "{name} cannot be said: such hosts get the default server; name them in `hosts`"
                        ),
                    ),
                }
            }
        }
        names.dedup();
        names
    }

    fn server(&mut self, index: usize, servers: &[Server<'a>]) -> Option<ServerRoutes<'a>> {
        let server = servers.get(index)?;
        let title = match server.names.first() {
            Some(name) => name.to_string(),
            None => "default".to_owned(),
        };
        let mut translated = ServerRoutes {
            title: title.clone(),
            block: server.block,
            groups: Vec::new(),
            comments: Vec::new(),
        };
        let copies = self.copies(index, servers);
        if copies.is_empty() {
            translated.comments.push("no request reaches this server".to_owned());
        }
        for (hosts, listeners) in copies {
            for listeners in self.by_scheme(index, server, listeners) {
                let (copies, no_hosts) = self.by_host(server, &hosts);
                for (hosts, known) in copies {
                    let mut env = Env::default();
                    if known.is_none() {
                        env.exclude_hosts(no_hosts.clone());
                    }
                    if let Some(host) = &known {
                        env.set_text("host", host);
                        env.set_text("http_host", host);
                    }
                    env.set_text(
                        "server_name",
                        &server.names.first().map(ToString::to_string).unwrap_or_default(),
                    );
                    let tls: Vec<bool> = listeners
                        .iter()
                        .filter_map(|at| self.listeners.get(*at))
                        .map(|listener| listener.tls)
                        .collect();
                    if tls.iter().all(|tls| *tls) || !tls.contains(&true) {
                        let tls = tls.contains(&true);
                        env.set_text("scheme", if tls { "https" } else { "http" });
                        env.set_text("https", if tls { "on" } else { "" });
                    }
                    self.only_port(&listeners, &mut env);
                    let all = |test: fn(&Listener<'a>) -> bool| {
                        listeners.iter().all(|at| self.listeners.get(*at).is_some_and(test))
                    };
                    let (all_prove, all_asked) = (all(Listener::proves_clients), all(Listener::asks_clients));
                    if all_prove || !all_asked {
                        env.set_text("ssl_client_verify", if all_prove { "SUCCESS" } else { "NONE" });
                    }
                    let mut routes = self.server_routes(server.block, &server.scope, &env);
                    if let Some(why) = self.closed.get(&index) {
                        routes.truncate(1);
                        for route in &mut routes {
                            route.shut(why);
                        }
                    }
                    if all_asked && self.proving.contains(&index) {
                        routes.iter_mut().for_each(Route::prove);
                    }
                    let routes =
                        routes.into_iter().map(|route| (self.route_name(&title, &route), route)).collect();
                    translated.groups.push(Group { hosts, listeners: listeners.clone(), routes });
                }
            }
        }
        Some(translated)
    }

    fn only_port(&self, listeners: &[usize], env: &mut Env) {
        let mut ports: Vec<String> = listeners
            .iter()
            .filter_map(|at| match self.listeners.get(*at)?.address {
                super::listen::Address::Tcp(address) => Some(address.port().to_string()),
                super::listen::Address::Unix(_) => None,
            })
            .collect();
        ports.dedup();
        if let [port] = ports.as_slice() {
            env.set_text("server_port", port);
        }
    }

    /// For which hosts and on which listeners the server's routes have to stand. No hosts: any, where it is the default.
    fn copies(&self, index: usize, servers: &[Server<'a>]) -> Vec<(Vec<String>, Vec<usize>)> {
        let Some(server) = servers.get(index) else { return Vec::new() };
        let (mut as_default, mut by_name) = (Vec::new(), Vec::new());
        for at in &server.listeners {
            let Some(listener) = self.listeners.get(*at) else { continue };
            if listener.default_server() != Some(index) {
                by_name.push(*at);
                continue;
            }
            as_default.push(*at);
            // A wildcard of another server must not take what this one names.
            let others = listener
                .servers
                .iter()
                .filter(|other| **other != index)
                .filter_map(|other| servers.get(*other));
            let taken = others.flat_map(|other| &other.names).any(|other| {
                matches!(other, HostPattern::Wildcard(_)) && server.names.iter().any(|own| covers(other, own))
            });
            if taken {
                by_name.push(*at);
            }
        }
        let names: Vec<String> = server.names.iter().map(ToString::to_string).collect();
        let mut copies = Vec::new();
        if !by_name.is_empty() && !names.is_empty() {
            copies.push((names, by_name));
        }
        if !as_default.is_empty() {
            copies.push((Vec::new(), as_default));
        }
        copies
    }

    /// Splits listeners with and without TLS where the server's answers depend on which it is.
    fn by_scheme(&self, index: usize, server: &Server<'a>, listeners: Vec<usize>) -> Vec<Vec<usize>> {
        let depends = mentions(
            server.block.inner(),
            &["$scheme", "$https", "$server_port", "${scheme}", "$ssl_client_verify"],
        ) || self.proving.contains(&index);
        let tls = |at: &usize| self.listeners.get(*at).is_some_and(|listener| listener.tls);
        let (secure, plain): (Vec<usize>, Vec<usize>) = listeners.iter().copied().partition(|at| tls(at));
        if !depends || secure.is_empty() || plain.is_empty() {
            return vec![listeners];
        }
        vec![plain, secure]
    }

    /// Writes each host out where the server's answers depend on which it is.
    ///
    /// Also the hosts that requests of the last, where no host is named, have not got.
    fn by_host(&self, server: &Server<'a>, hosts: &[String]) -> (Vec<HostCopy>, Vec<String>) {
        let whole = vec![(hosts.to_vec(), None)];
        let mut known: Vec<String> = Vec::new();
        let depends = self.hosts_asked(server.block.inner(), &mut known);
        if !depends {
            return (whole, Vec::new());
        }
        for name in &server.names {
            if let HostPattern::Exact(name) = name {
                known.push(name.to_string());
            }
        }
        known.sort();
        known.dedup();
        known.retain(|name| {
            HostPattern::parse(name).is_ok_and(|pattern| matches!(pattern, HostPattern::Exact(_)))
        });
        let (mut known, mut no_hosts): (Vec<String>, Vec<String>) = known
            .into_iter()
            .partition(|name| hosts.is_empty() || server.names.iter().any(|pattern| pattern.matches(name)));
        known.truncate(HOSTS_MAX);
        no_hosts.extend(known.iter().cloned());
        if known.is_empty() {
            return (whole, no_hosts);
        }
        let mut all: Vec<_> = known.iter().map(|name| (vec![name.clone()], Some(name.clone()))).collect();
        let rest: Vec<String> = hosts.iter().filter(|host| !known.contains(host)).cloned().collect();
        if hosts.is_empty() || !rest.is_empty() {
            all.push((rest, None));
        }
        (all, no_hosts)
    }

    /// Whether conditions or maps of the server ask for the host; the hosts they name.
    fn hosts_asked(&self, block: &[Directive], known: &mut Vec<String>) -> bool {
        let mut asked = false;
        for directive in block {
            if directive.name == "if" {
                let text = directive.args.join(" ");
                if text.contains("$host") || text.contains("$http_host") {
                    asked = true;
                    let words = text.split(['=', ' ', '(', ')', '"', '\'', '!']);
                    known.extend(
                        words
                            .filter(|word| !word.is_empty() && !word.starts_with(['$', '~']))
                            .map(str::to_owned),
                    );
                }
            }
            for (name, map) in &self.maps {
                let of_host = matches!(map.arg(0), "$host" | "$http_host" | "$server_name");
                if of_host
                    && mentions(
                        std::slice::from_ref(directive),
                        &[&format!("${name}"), &format!("${{{name}}}")],
                    )
                {
                    asked = true;
                    known.extend(
                        map.inner()
                            .iter()
                            .map(|entry| entry.name.to_ascii_lowercase())
                            .filter(|key| key != "default" && !key.starts_with('~')),
                    );
                }
            }
            asked |= self.hosts_asked(directive.inner(), known);
        }
        asked
    }

    fn route_name(&mut self, title: &str, route: &Route<'_>) -> String {
        // Names have a bound, and are read in logs.
        let name = format!("{} {}", visible(title, 80), visible(&route.path.text(), 60));
        let count = self.route_names.entry(name.clone()).or_insert(0);
        *count += 1;
        if *count == 1 { name } else { format!("{name} ({count})") }
    }

    pub(super) fn render_server(&self, server: &ServerRoutes<'a>) -> String {
        let mut out = format!("# --- {} ({})\n", server.title, self.place(server.block));
        for comment in &server.comments {
            out.push_str(&toml::comment(comment));
        }
        out.push_str(&self.dropped_in(server.block.inner()));
        let usable = self.listeners.iter().filter(|listener| listener.usable).count();
        for group in &server.groups {
            let listeners: Vec<String> = if group.listeners.len() == usable {
                Vec::new()
            } else {
                group
                    .listeners
                    .iter()
                    .filter_map(|at| self.listeners.get(*at))
                    .map(|listener| listener.name.clone())
                    .collect()
            };
            for (at, (name, route)) in group.routes.iter().enumerate() {
                out.push('\n');
                if let Some(source) = route.source {
                    out.push_str(&toml::comment(&format!("{}: {}", self.place(source), source.text())));
                    // Once for each block, at the last of its routes: the one that is for all its requests.
                    let later = group.routes.iter().skip(at + 1).filter_map(|(_, route)| route.source);
                    if source.id != server.block.id && !later.into_iter().any(|other| other.id == source.id) {
                        out.push_str(&self.dropped_in(source.inner()));
                    }
                }
                out.push_str(&route.render(name, &group.hosts, &listeners));
            }
        }
        out
    }
}

/// Whether `wildcard` stands for hosts that `pattern` does, too.
fn covers(wildcard: &HostPattern, pattern: &HostPattern) -> bool {
    let HostPattern::Wildcard(parent) = wildcard else { return false };
    match pattern {
        HostPattern::Exact(name) => wildcard.matches(name),
        HostPattern::Wildcard(own) => {
            own == parent || wildcard.matches(own) || parent.ends_with(&format!(".{own}"))
        }
    }
}

/// Whether any directive of the block, however deep, holds one of `texts`.
pub(super) fn mentions(block: &[Directive], texts: &[&str]) -> bool {
    block.iter().any(|directive| {
        directive.args.iter().any(|arg| texts.iter().any(|text| arg.contains(text)))
            || mentions(directive.inner(), texts)
    })
}

enum Hosts {
    These(Vec<HostPattern>),
    Nearly(HostPattern),
    /// Names that no request has, such as `_`.
    Nothing,
    Unsaid,
}

/// A regex for everything below a domain.
static BELOW_DOMAIN: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^~\^?\(?(?:\?P?<\w+>)?(?:\.\+|\.\*|\[\^\.\]\+|\[[\w-]+\]\+|\\w\+)\)?\\\.((?:[A-Za-z0-9-]|\\\.)+)\$$").ok()
});

/// What can be seen of a text, cut to `bytes`.
fn visible(text: &str, bytes: usize) -> String {
    let shown = text.get(..text.floor_char_boundary(bytes)).unwrap_or_default();
    shown.replace(char::is_control, "?")
}

fn host_patterns(name: &str) -> Hosts {
    if let Some(found) = BELOW_DOMAIN.as_ref().and_then(|regex| regex.captures(name)) {
        let parent = found.get(1).map_or("", |group| group.as_str()).replace("\\.", ".");
        return match HostPattern::parse(&format!("*.{parent}")) {
            Ok(pattern) => Hosts::Nearly(pattern),
            Err(_) => Hosts::Unsaid,
        };
    }
    if name.starts_with('~') || name.contains('$') {
        return Hosts::Unsaid;
    }
    let texts = match name.strip_prefix('.') {
        Some(bare) => vec![bare.to_owned(), format!("*.{bare}")],
        None => vec![name.to_owned()],
    };
    let no_name = |text: &str| !text.bytes().any(|byte| byte.is_ascii_alphanumeric());
    if no_name(name) {
        return Hosts::Nothing;
    }
    match texts.iter().map(|text| HostPattern::parse(text)).collect::<Result<Vec<_>, _>>() {
        Ok(patterns) => Hosts::These(patterns),
        Err(_) => Hosts::Unsaid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_said_as_far_as_they_can_be() {
        let said = |name: &str| match host_patterns(name) {
            Hosts::These(patterns) => patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Hosts::Nearly(pattern) => format!("~{pattern}"),
            Hosts::Nothing => "nothing".to_owned(),
            Hosts::Unsaid => "unsaid".to_owned(),
        };
        for (name, expected) in [
            ("Example.com", "example.com"),
            ("*.example.com", "*.example.com"),
            (".example.com", "example.com *.example.com"),
            ("_", "nothing"),
            ("", "nothing"),
            ("www.*", "unsaid"),
            (r"~^(?<sub>.+)\.example\.com$", "~*.example.com"),
            (r"~^www\d+\.example\.com$", "unsaid"),
        ] {
            assert_eq!(said(name), expected, "{name}");
        }
    }

    #[test]
    fn a_wildcard_covers_what_is_below_it() {
        let pattern = |text: &str| HostPattern::parse(text).unwrap();
        assert!(
            covers(&pattern("*.a.com"), &pattern("x.a.com"))
                && !covers(&pattern("*.a.com"), &pattern("a.com"))
        );
        assert!(
            covers(&pattern("*.com"), &pattern("*.a.com"))
                && covers(&pattern("*.b.a.com"), &pattern("*.a.com"))
        );
        assert!(!covers(&pattern("a.com"), &pattern("a.com")));
    }
}
