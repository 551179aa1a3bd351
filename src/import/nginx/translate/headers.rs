//! Headers that are set, hidden and added.

use super::super::scope::Scope;
use super::super::units;
use super::super::vars::{Env, Part};
use super::Translator;
use super::route::{Route, RoutePath, Target};
use crate::policy::transform::OF_THE_HOP;
use crate::routing::PathPattern;
use crate::routing::template::{Scope as Names, Template};

/// What Edgeward tells servers by itself: the header, and variables that say the same.
const BY_ITSELF: &[(&str, &[&str])] = &[
    ("x-real-ip", &["remote_addr", "realip_remote_addr", "proxy_protocol_addr"]),
    ("x-forwarded-for", &["proxy_add_x_forwarded_for", "remote_addr"]),
    ("x-forwarded-proto", &["scheme"]),
    ("x-forwarded-host", &["host", "http_host"]),
    ("x-forwarded-port", &["server_port"]),
    ("x-request-id", &["request_id"]),
    ("connection", &["connection_upgrade", "http_connection"]),
    ("upgrade", &["http_upgrade"]),
];

/// What frames a message or is made anew on each connection.
const OWN: [&str; 6] = ["connection", "upgrade", "te", "trailer", "transfer-encoding", "content-length"];

/// Why a header is not edited: it is none, or the gateway makes it.
fn not_ours_to_edit(lower: &str) -> Option<&'static str> {
    if http::HeaderName::from_bytes(lower.as_bytes()).is_err() {
        return Some("is no header's name");
    }
    let own = OF_THE_HOP.contains(&lower) || lower == "x-request-id";
    own.then_some("the gateway sets it itself")
}

/// The template of a header's value on a route with this path; why there is none.
fn header_template(env: &Env, value: &str, path: &RoutePath) -> Result<String, String> {
    let template =
        env.template(&env.expand(value)).map_err(|variable| format!("${variable} has no equivalent"))?;
    let pattern = PathPattern::parse(&path.text()).map_err(|mistake| mistake.message)?;
    Template::value(&template, Names { pattern: &pattern, groups: None })
        .map_err(|mistake| mistake.message)?;
    if template.trim().is_empty() { Err("its value is empty".to_owned()) } else { Ok(template) }
}

impl<'a> Translator<'a> {
    /// `proxy_set_header`, `Host` aside, and what is said of headers by other directives.
    pub(super) fn request_headers(
        &mut self,
        scope: &Scope<'a>,
        grpc: bool,
        env: &Env,
        route: &mut Route<'a>,
    ) {
        for directive in scope.nearest(if grpc { "grpc_set_header" } else { "proxy_set_header" }) {
            let (name, value) = (directive.arg(0), directive.arg(1));
            let lower = name.to_ascii_lowercase();
            if lower == "host" {
                continue;
            }
            // As it is written: a scheme that is known here is still the scheme.
            let written = super::super::vars::parts(value);
            let by_itself = BY_ITSELF.iter().any(|(known, variables)| {
                *known == lower
                    && matches!(written.as_slice(), [Part::Var(variable)] if variables.contains(&variable.as_str()) || (*known == "connection" && self.maps.get(variable).is_some_and(|map| map.arg(0) == "$http_upgrade")))
            });
            if by_itself {
                self.done_as(directive, "Edgeward does so by itself");
                continue;
            }
            if OWN.contains(&lower.as_str()) {
                self.done_as(directive, "Edgeward frames messages and opens WebSockets by itself");
                continue;
            }
            if lower.starts_with("x-forwarded-") || lower == "x-real-ip" || lower == "forwarded" {
                let sent = format!("$http_{}", lower.replace('-', "_"));
                if value == sent
                    || written.iter().any(|part| matches!(part, Part::Var(name) if name.starts_with("http_")))
                {
                    self.nearly(
                        directive,
                        "what clients say of it is believed from server.trusted_proxies only",
                    );
                    continue;
                }
            }
            if let Some(why) = not_ours_to_edit(&lower) {
                self.drop(directive, why);
                continue;
            }
            route.request.set.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            route.request.remove.retain(|known| !known.eq_ignore_ascii_case(name));
            if value.trim().is_empty() {
                self.done(directive);
                route.request.remove.push(name.to_owned());
                continue;
            }
            match header_template(env, value, &route.path) {
                Ok(template) => {
                    // Here a value that is missing takes the whole header along.
                    let optional =
                        ["{header.", "{query.", "{cookie."].iter().any(|name| template.contains(name));
                    if optional && written.len() > 1 {
                        self.nearly(directive, "not sent where one of its values is missing");
                    } else {
                        self.done(directive);
                    }
                    route.request.set.push((name.to_owned(), template));
                }
                Err(variable) => {
                    // What the client says under this name must not pass for what nginx would have said.
                    route.request.remove.push(name.to_owned());
                    self.drop(directive, format!("{variable}; the client's {name} is removed"));
                }
            }
        }
    }

    /// `add_header`, `expires`, `proxy_hide_header`.
    pub(super) fn response_headers(&mut self, scope: &Scope<'a>, env: &Env, route: &mut Route<'a>) {
        if matches!(route.target, Target::Upstream(_)) {
            for directive in scope.nearest("proxy_hide_header") {
                if let Some(why) = not_ours_to_edit(&directive.arg(0).to_ascii_lowercase()) {
                    self.drop(directive, why);
                } else {
                    self.done(directive);
                    if !route.response.remove.iter().any(|known| known.eq_ignore_ascii_case(directive.arg(0)))
                    {
                        route.response.remove.push(directive.arg(0).to_owned());
                    }
                }
            }
        }
        for directive in scope.nearest("add_header") {
            let (name, value) = (directive.arg(0), directive.arg(1));
            if let Some(why) = not_ours_to_edit(&name.to_ascii_lowercase()) {
                self.drop(directive, why);
                continue;
            }
            if value.trim().is_empty() {
                self.done(directive);
                continue;
            }
            match header_template(env, value, &route.path) {
                Ok(template) => {
                    if directive.arg(2) == "always" {
                        self.done(directive);
                    } else {
                        self.nearly(directive, "on errors, too, as with `always`");
                    }
                    route.response.set.push((name.to_owned(), template));
                }
                Err(variable) => self.drop(directive, variable),
            }
        }
        // Twice the same name is two headers.
        let set = std::mem::take(&mut route.response.set);
        for (name, value) in set {
            let known = route.response.set.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name));
            if known {
                route.response.add.push((name, value))
            } else {
                route.response.set.push((name, value))
            }
        }
        self.expires(scope, route);
    }

    fn expires(&mut self, scope: &Scope<'a>, route: &mut Route<'a>) {
        let Some(directive) = scope.one("expires") else { return };
        let time = directive.args.iter().find(|arg| *arg != "modified").map_or("", String::as_str);
        let control = match time {
            "off" => return self.done(directive),
            "epoch" => "no-cache".to_owned(),
            "max" => "max-age=315360000".to_owned(),
            negative if negative.starts_with('-') => "no-cache".to_owned(),
            time => match units::duration(time) {
                Some(time) => format!("max-age={}", time.as_secs()),
                None => return self.drop(directive, "is no time known before requests come"),
            },
        };
        self.nearly(directive, "Cache-Control alone, which says the same, and on errors, too");
        if !route.response.set.iter().any(|(name, _)| name.eq_ignore_ascii_case("cache-control")) {
            route.response.set.push(("Cache-Control".to_owned(), control));
        }
    }
}
