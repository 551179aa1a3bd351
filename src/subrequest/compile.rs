//! From `[routes.aggregate]` as written to a plan: every name resolved, every reference checked, no cycle.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::config::{AggregateRaw, BodyNode, BodyRaw, LegRaw};
use super::input::{BodyTemplate, Piece, Reference, RequestTemplate, Root};
use super::json::{DEPTH_MAX, Json};
use super::plan::{Bounds, ForEach, Leg, Plan, Service};
use super::reach;
use super::read::{Filter, Path, Reading, path as read_path};
use super::shape::{Formula, Shape};
use crate::base::decode::quote;
use crate::base::diagnostic::Diagnostics;
use crate::base::names::nearest;
use crate::base::origin::{At, Origin};
use crate::broker::{Broker, queue_name};
use crate::routing::config::Written;
use crate::routing::template::{Finder, Scope, Template};
use crate::routing::{Mistake, PathPattern};
use crate::telemetry::metrics::LegMetrics;
use crate::upstream::Upstream;

/// Legs of one route: the widest known have seven, and each is a call of every request.
const LEGS_MAX: usize = 64;
/// Names that templates have for the request: no leg may have one of them.
const SOURCES: [&str; 8] = ["path", "query", "header", "cookie", "jwt", "consumer", "client", "request"];
/// Names that only legs' templates have.
const LEG_SOURCES: [&str; 2] = ["body", "item"];

/// Finds the upstream called so at this configuration path.
pub type FindUpstream<'a> = dyn Fn(&At<String>, &str, &mut Diagnostics) -> Option<Arc<Upstream>> + 'a;

/// Finds the broker called so at this configuration path.
pub type FindBroker<'a> = dyn Fn(&At<String>, &str, &mut Diagnostics) -> Option<Broker> + 'a;

/// Reads a template that stands at this configuration path.
type ReadValue<'a> = dyn FnMut(&At<Written>, String, &mut Diagnostics) -> Option<Template> + 'a;

/// What compiling asks of the rest of the configuration.
pub struct Surroundings<'a> {
    /// The route's path.
    pub pattern: &'a PathPattern,
    /// The upstream of a name; reports one that is not there.
    pub upstream: &'a FindUpstream<'a>,
    /// The broker of a name; reports one that is not there.
    pub broker: &'a FindBroker<'a>,
    /// What is counted of the leg of a name.
    pub metrics: &'a dyn Fn(&str) -> Arc<LegMetrics>,
}

impl AggregateRaw {
    /// The plan; `None` beside errors. `path` is the configuration path of the table, `origin` where it stands.
    pub fn compile(
        &self,
        path: &str,
        origin: &Origin,
        around: &Surroundings<'_>,
        out: &mut Diagnostics,
    ) -> Option<Plan> {
        let names = self.names(path, origin, out)?;
        let compiler = Compiler { raw: self, names: &names, around, path };
        let mut legs = Vec::with_capacity(self.legs.len());
        for index in 0..self.legs.len() {
            legs.push(compiler.leg(index, out));
        }
        self.check_bounds(path, out);
        let shape = self.shape(&names, path, out);
        let legs: Vec<Leg> = legs.into_iter().collect::<Option<_>>()?;
        reach::check(&legs, self, path, out);
        let order = reach::order(&legs, self, path, out)?;
        reach::check_merge(&legs, self, path, out);
        let wants_body = legs.iter().any(|leg| {
            matches!(leg.request.body, BodyTemplate::Client)
                || leg.request.references.iter().any(|reference| reference.root == Root::Body)
        });
        Some(Plan {
            legs: legs.into(),
            order: order.into(),
            timeout: self.timeout.as_ref().map(|at| at.value),
            on_failure: *self.on_failure,
            report: *self.report,
            completed_header: self.completed_header.value.clone(),
            shape,
            bounds: Bounds {
                calls: usize::from(*self.max_calls),
                leg_bytes: usize::try_from(self.leg_bytes.0).unwrap_or(usize::MAX),
                total_bytes: usize::try_from(self.total_bytes.0).unwrap_or(usize::MAX),
                depth: usize::from(*self.depth),
            },
            wants_body,
        })
    }

    /// The legs' names, each fit to be one and given once.
    fn names(&self, path: &str, origin: &Origin, out: &mut Diagnostics) -> Option<Vec<&str>> {
        if self.legs.is_empty() {
            out.error("missing-key", origin, path, "the aggregate has no legs")
                .hint("add [[routes.aggregate.legs]] with a name, an upstream and a path");
            return None;
        }
        if let Some(leg) = self.legs.get(LEGS_MAX) {
            let message = format!("there are {} legs, at most {LEGS_MAX} are allowed", self.legs.len());
            out.error("leg-too-many", &leg.origin, format!("{path}.legs"), message);
            return None;
        }
        let mut names: Vec<&str> = Vec::with_capacity(self.legs.len());
        for (index, leg) in self.legs.iter().enumerate() {
            let (name, place) = (leg.name.as_str(), format!("{path}.legs[{index}].name"));
            if SOURCES.contains(&name) || LEG_SOURCES.contains(&name) {
                let message =
                    format!("a leg cannot be called {}: templates have that name already", quote(name));
                out.error("invalid-value", &leg.name.origin, place, message).hint("choose another name");
            } else if !is_name(name) {
                let message = format!("{} is not the name of a leg", quote(name));
                out.error("invalid-value", &leg.name.origin, place, message)
                    .hint("a name has letters, digits, `_` and `-`, and begins with a letter");
            } else if let Some(first) = names.iter().position(|other| *other == name) {
                let problem = out.error(
                    "duplicate-name",
                    &leg.name.origin,
                    place,
                    format!("two legs are called {}", quote(name)),
                );
                if let Some(first) = self.legs.get(first) {
                    problem.related(&first.name.origin, "first used here");
                }
            }
            names.push(name);
        }
        Some(names)
    }

    fn check_bounds(&self, path: &str, out: &mut Diagnostics) {
        let mut not_zero = |origin: &Origin, key: &str, is_zero: bool| {
            if is_zero {
                out.error("invalid-value", origin, format!("{path}.{key}"), "0 would allow nothing");
            }
        };
        not_zero(&self.max_calls.origin, "max_calls", *self.max_calls == 0);
        not_zero(&self.leg_bytes.origin, "leg_bytes", self.leg_bytes.0 == 0);
        not_zero(&self.total_bytes.origin, "total_bytes", self.total_bytes.0 == 0);
        if let Some(timeout) = &self.timeout {
            not_zero(&timeout.origin, "timeout", timeout.is_zero());
        }
        for (index, leg) in self.legs.iter().enumerate() {
            let key = |key: &str| format!("legs[{index}].{key}");
            not_zero(&leg.concurrency.origin, &key("concurrency"), *leg.concurrency == 0);
            not_zero(&leg.max_elements.origin, &key("max_elements"), *leg.max_elements == 0);
            if let Some(timeout) = leg_timeout(leg) {
                not_zero(&timeout.origin, &key("timeout"), timeout.is_zero());
            }
        }
        let depth = usize::from(*self.depth);
        if depth == 0 || depth > DEPTH_MAX {
            let message = format!("{depth} is not between 1 and {DEPTH_MAX}");
            out.error("invalid-value", &self.depth.origin, format!("{path}.depth"), message);
        }
        let header = self.completed_header.as_str();
        if crate::policy::transform::OF_THE_HOP.contains(&header) || header.starts_with("content-") {
            let message = format!("{} is a header of HTTP itself", quote(header));
            out.error(
                "invalid-value",
                &self.completed_header.origin,
                format!("{path}.completed_header"),
                message,
            )
            .hint("choose a name of its own, such as \"X-Krakend-Completed\"");
        }
    }

    fn shape(&self, names: &[&str], path: &str, out: &mut Diagnostics) -> Option<Shape> {
        if self.shape.is_empty() {
            return None;
        }
        let mut formulas = Vec::with_capacity(self.shape.len());
        for (name, text) in self.shape.iter() {
            match Formula::compile(text.text(), names) {
                Ok(formula) => formulas.push((name.as_str().into(), formula)),
                Err(mistake) => text.report(&text.origin, &format!("{path}.shape.{name}"), mistake, out),
            }
        }
        Some(Shape(formulas))
    }
}

/// What can stand in a template and in `Server-Timing` as it is.
fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[derive(Clone, Copy)]
struct Compiler<'a> {
    raw: &'a AggregateRaw,
    names: &'a [&'a str],
    around: &'a Surroundings<'a>,
    path: &'a str,
}

impl Compiler<'_> {
    fn leg(self, index: usize, out: &mut Diagnostics) -> Option<Leg> {
        let raw = self.raw.legs.get(index)?;
        let path = format!("{}.legs[{index}]", self.path);
        let service = self.service(raw, &path, out);
        let for_each = raw.for_each.as_ref().map(|text| self.for_each(text, index, raw, &path, out));
        let request = self.request(raw, index, &path, out);
        let reading = reading(raw, &path, out);
        let group = raw.group.as_ref().map(|group| {
            if group.is_empty() || group.chars().any(char::is_control) {
                let message = format!("{} is not the name of a member", quote(group));
                out.error("invalid-value", &group.origin, format!("{path}.group"), message);
            }
            group.value.as_str().into()
        });
        if let (Some(fallback), true) = (&raw.fallback, *raw.required) {
            let message = "\"fallback\" does nothing beside \"required\"";
            out.error("unused-key", &fallback.origin, format!("{path}.fallback"), message)
                .hint("the failure of a required leg is the answer's failure")
                .related(&raw.required.origin, "required here");
        }
        if raw.for_each.is_none() {
            for (key, origin) in
                [("concurrency", &raw.concurrency.origin), ("max_elements", &raw.max_elements.origin)]
            {
                if *origin != Origin::Default {
                    let message = format!("\"{key}\" does nothing without \"for_each\"");
                    out.error("unused-key", origin, format!("{path}.{key}"), message);
                }
            }
        }
        let request = request?;
        let for_each = match for_each {
            Some(each) => Some(each?),
            None => None,
        };
        let mut waits_on: Vec<usize> = request
            .references
            .iter()
            .filter_map(|reference| match reference.root {
                Root::Leg(leg) => Some(leg),
                _ => None,
            })
            .chain(for_each.as_ref().map(|each| each.source))
            .collect();
        waits_on.sort_unstable();
        waits_on.dedup();
        Some(Leg {
            name: raw.name.as_str().into(),
            service: service?,
            request,
            waits_on: waits_on.into(),
            for_each,
            reading,
            required: *raw.required,
            group,
            fallback: raw.fallback.as_ref().map(|value| Json::from(&value.value)),
            timeout: leg_timeout(raw).map(|at| at.value),
            metrics: (self.around.metrics)(&raw.name),
        })
    }

    /// Who is asked.
    fn service(self, raw: &At<LegRaw>, path: &str, out: &mut Diagnostics) -> Option<Service> {
        let Some(amqp) = &raw.amqp else {
            let Some(upstream) = &raw.upstream else {
                out.error("missing-key", &raw.origin, path, "the leg asks nobody")
                    .hint("add `upstream` and `path`, or `amqp`");
                return None;
            };
            return (self.around.upstream)(upstream, &format!("{path}.upstream"), out).map(Service::Upstream);
        };
        if let Some(upstream) = &raw.upstream {
            let message = "a leg asks one service: \"amqp\" does not go with \"upstream\"";
            out.error("conflicting-keys", &amqp.origin, format!("{path}.amqp"), message)
                .related(&upstream.origin, "the other service");
        }
        let http = [
            raw.path.as_ref().map(|at| ("path", &at.origin)),
            Some(("method", &raw.method.origin)),
            Some(("query", &raw.query.origin)),
        ];
        for (key, origin) in http.into_iter().flatten() {
            if *origin != Origin::Default && raw.upstream.is_none() {
                let message = format!("\"{key}\" does nothing beside \"amqp\"");
                out.error("unused-key", origin, format!("{path}.{key}"), message)
                    .hint("what the queue gets is the `body`");
            }
        }
        if let (Some(own), Some(other)) = (&amqp.timeout, &raw.timeout) {
            let message = "the leg has two timeouts";
            out.error("conflicting-keys", &own.origin, format!("{path}.amqp.timeout"), message)
                .related(&other.origin, "the other one");
        }
        let broker = (self.around.broker)(&amqp.broker, &format!("{path}.amqp.broker"), out);
        let queue = queue_name(&amqp.queue).map_err(|why| {
            let message = format!("{} {why}", quote(&amqp.queue));
            out.error("invalid-value", &amqp.queue.origin, format!("{path}.amqp.queue"), message)
                .hint("write the name of the queue as it is");
        });
        Some(Service::Queue { broker: broker?, queue: queue.ok()? })
    }

    fn for_each(
        self,
        text: &At<String>,
        own: usize,
        raw: &LegRaw,
        path: &str,
        out: &mut Diagnostics,
    ) -> Option<ForEach> {
        let place = format!("{path}.for_each");
        let (root, rest) = text.split_once('.').unwrap_or((text, ""));
        let Some(source) = self.names.iter().position(|name| *name == root) else {
            let message = format!("no leg is called {}", quote(root));
            out.error("undefined", &text.origin, place, message)
                .suggest(nearest(root, self.names.iter().copied().filter(|name| *name != raw.name.as_str())))
                .hint = hint_unless_near(
                root,
                self.names,
                "it names an array in another leg's answer, such as \"order.items\"",
            );
            return None;
        };
        if source == own {
            out.error("leg-cycle", &text.origin, place, "a leg cannot go through its own answer");
            return None;
        }
        let inner = if rest.is_empty() { Some(Path::default()) } else { read_path(rest) };
        let Some(inner) = inner else {
            let message = format!("{} is not a path", quote(text));
            out.error("invalid-value", &text.origin, place, message).hint("write \"order.items\"");
            return None;
        };
        Some(ForEach {
            source,
            path: inner,
            concurrency: usize::from(*raw.concurrency).max(1),
            calls: usize::from(*raw.max_elements),
        })
    }

    fn request(
        self,
        raw: &At<LegRaw>,
        own: usize,
        path: &str,
        out: &mut Diagnostics,
    ) -> Option<RequestTemplate> {
        let references = RefCell::new(Vec::new());
        let scope = Scope { pattern: self.around.pattern, groups: None };
        let find = |name: &str| self.find(name, own, raw.for_each.is_some(), &references);
        let mut value = |written: &At<Written>, place: String, out: &mut Diagnostics| {
            written.warn_of_variables(&written.origin, &place, out);
            match Template::value_with(written.text(), scope, &find) {
                Ok(template) => Some(template),
                Err(mistake) => {
                    written.report(&written.origin, &place, mistake, out);
                    None
                }
            }
        };
        let target = match &raw.path {
            Some(written) => path_template(written, &format!("{path}.path"), scope, &find, out).map(Some),
            // A queue has none.
            None if raw.amqp.is_some() => Some(None),
            None => {
                // One who asks nobody lacks more than that.
                if raw.upstream.is_some() {
                    out.error("missing-key", &raw.origin, path, "the key \"path\" is missing");
                }
                None
            }
        };
        let mut query = Vec::with_capacity(raw.query.len());
        for (name, written) in raw.query.iter() {
            let mut encoded = String::new();
            crate::routing::escape::push_query(&mut encoded, name.as_bytes());
            if let Some(template) = value(written, format!("{path}.query.{name}"), out) {
                query.push((encoded.into(), template));
            }
        }
        let mut headers = Vec::with_capacity(raw.headers.len());
        for (name, written) in raw.headers.iter() {
            check_header(name.name(), &written.origin, &format!("{path}.headers"), out);
            if let Some(template) = value(written, format!("{path}.headers.{}", name.name()), out) {
                headers.push((name.name().clone(), template));
            }
        }
        let mut forward = Vec::with_capacity(raw.forward_headers.len());
        for (index, name) in raw.forward_headers.iter().enumerate() {
            check_header(name.name(), &name.origin, &format!("{path}.forward_headers[{index}]"), out);
            forward.push(name.name().clone());
        }
        let body = match raw.body.as_ref().map(|body| &body.value) {
            None if raw.amqp.is_some() => {
                let names = self.around.pattern.capture_names();
                Some(BodyTemplate::Parameters(names.map(Box::from).collect()))
            }
            None => Some(BodyTemplate::None),
            Some(BodyRaw::Client) => Some(BodyTemplate::Client),
            Some(BodyRaw::Json(node)) => {
                piece(node, &format!("{path}.body"), &mut value, out).map(BodyTemplate::Json)
            }
        };
        let is_get = raw.amqp.is_none() && raw.method.as_str() == "GET";
        if let (Some(body), true) = (&raw.body, is_get) {
            out.error("conflicting-keys", &body.origin, format!("{path}.body"), "a GET has no body")
                .hint("set `method`, such as \"POST\"");
        }
        Some(RequestTemplate {
            // What a message sets off is not known to be harmless twice.
            method: if raw.amqp.is_some() { Method::POST } else { raw.method.method() },
            path: target?,
            query: query.into(),
            headers: headers.into(),
            forward: forward.into(),
            body: body?,
            references: references.into_inner().into(),
        })
    }

    /// What templates may refer to beside the request's head.
    fn find(
        self,
        name: &str,
        own: usize,
        has_item: bool,
        references: &RefCell<Vec<Reference>>,
    ) -> Option<Result<usize, Mistake>> {
        let (root, rest) = name.split_once('.').unwrap_or((name, ""));
        if SOURCES.contains(&root) {
            return None;
        }
        let root_at = 0..root.len();
        let root = match root {
            "body" => Root::Body,
            "item" if has_item => Root::Item,
            "item" => {
                return Some(Err(Mistake::new(root_at, "there is no `item` without `for_each`")
                    .hint("for_each = \"order.items\" makes a call for each element")));
            }
            leg => match self.names.iter().position(|known| *known == leg) {
                Some(leg) if leg == own => {
                    return Some(Err(Mistake::new(root_at, "a leg cannot refer to its own answer")));
                }
                Some(leg) => Root::Leg(leg),
                None => {
                    let mistake =
                        Mistake::new(root_at, format!("`{leg}` is neither a leg nor a source of values"));
                    let known = self.names.iter().copied().chain(SOURCES).chain(LEG_SOURCES);
                    return Some(Err(match nearest(leg, known) {
                        Some(near) => mistake.hint(format!("did you mean `{near}`?")),
                        None => mistake.hint(format!("legs: {}", self.names.join(", "))),
                    }));
                }
            },
        };
        let path =
            if rest.is_empty() && !name.ends_with('.') { Some(Path::default()) } else { read_path(rest) };
        let Some(path) = path else {
            return Some(Err(Mistake::new(0..name.len(), format!("`{name}` is not a path"))));
        };
        let reference = Reference { root, path };
        let mut references = references.borrow_mut();
        let known = references.iter().position(|other| *other == reference);
        Some(Ok(known.unwrap_or_else(|| {
            references.push(reference);
            references.len() - 1
        })))
    }
}

/// How long the leg may take, wherever that stands.
fn leg_timeout(raw: &LegRaw) -> Option<&At<Duration>> {
    raw.timeout.as_ref().or_else(|| raw.amqp.as_ref()?.timeout.as_ref())
}

fn path_template(
    written: &At<Written>,
    place: &str,
    scope: Scope<'_>,
    find: Finder<'_>,
    out: &mut Diagnostics,
) -> Option<Template> {
    if let Some(at) = written.text().find(['?', '#']) {
        let mistake = Mistake::new(at..at + 1, "the path of a leg has no query")
            .hint("write query = { name = \"value\" }; a literal `?` is written %3F");
        written.report(&written.origin, place, mistake, out);
        return None;
    }
    written.warn_of_variables(&written.origin, place, out);
    match Template::path_with(written.text(), scope, find) {
        Ok(template) => Some(template),
        Err(mistake) => {
            written.report(&written.origin, place, mistake, out);
            None
        }
    }
}

fn hint_unless_near(root: &str, names: &[&str], hint: &str) -> Option<String> {
    match nearest(root, names.iter().copied()) {
        Some(near) => Some(format!("did you mean \"{near}\"?")),
        None => Some(hint.to_owned()),
    }
}

/// Headers by which the gateway says what it can read.
fn check_header(name: &http::HeaderName, origin: &Origin, path: &str, out: &mut Diagnostics) {
    let own = ["accept-encoding", "content-type", "content-encoding", "traceparent", "tracestate", "via"];
    if own.contains(&name.as_str()) {
        let message = format!("{} is set by the gateway itself", quote(name.as_str()));
        out.error("invalid-value", origin, path, message).hint("leave it out");
    }
}

fn piece(node: &BodyNode, path: &str, value: &mut ReadValue<'_>, out: &mut Diagnostics) -> Option<Piece> {
    Some(match node {
        BodyNode::Fixed(fixed) => Piece::Fixed(Json::from(fixed)),
        BodyNode::Text(written) => {
            let template = value(written, path.to_owned(), out)?;
            match (template.sole_other(), template.constant()) {
                (Some(number), _) => Piece::Alone(number),
                (None, Some(text)) => Piece::Fixed(Json::string(&text)),
                (None, None) => Piece::Text(template),
            }
        }
        BodyNode::List(nodes) => {
            let pieces = nodes.iter().enumerate();
            let pieces = pieces.map(|(index, node)| piece(node, &format!("{path}[{index}]"), value, out));
            Piece::Array(pieces.collect::<Vec<_>>().into_iter().collect::<Option<_>>()?)
        }
        BodyNode::Table(members) => {
            let pieces = members.iter().map(|(name, node)| {
                Some((name.as_str().into(), piece(node, &format!("{path}.{name}"), value, out)?))
            });
            Piece::Object(pieces.collect::<Vec<_>>().into_iter().collect::<Option<_>>()?)
        }
    })
}

fn reading(raw: &LegRaw, path: &str, out: &mut Diagnostics) -> Reading {
    let mut read = |text: &At<String>, place: String| {
        let found = read_path(text);
        if found.is_none() {
            let message = format!("{} is not a path", quote(text));
            out.error("invalid-value", &text.origin, place, message)
                .hint("write names with dots between them: \"address.zip\"");
        }
        found
    };
    let target =
        raw.target.as_ref().and_then(|text| read(text, format!("{path}.target"))).unwrap_or_default();
    let mut list = |texts: &[At<String>], key: &str| -> Box<[Path]> {
        let paths = texts.iter().enumerate();
        paths.filter_map(|(index, text)| read(text, format!("{path}.{key}[{index}]"))).collect()
    };
    let (allow, deny) = (list(&raw.allow, "allow"), list(&raw.deny, "deny"));
    let mut rename = Vec::with_capacity(raw.rename.len());
    for (from, to) in raw.rename.iter() {
        let place = format!("{path}.rename.{from}");
        let is_path = read_path(from).filter(|path| path.last().is_some_and(|last| &**last != "*"));
        let Some(from) = is_path else {
            out.error(
                "invalid-value",
                &to.origin,
                place,
                format!("{} is not the path of a member", quote(from)),
            );
            continue;
        };
        if to.is_empty() || to.contains('.') {
            out.error("invalid-value", &to.origin, place, format!("{} is not a member's name", quote(to)))
                .hint("a member keeps its place: the new name has no dots");
            continue;
        }
        rename.push((from, to.value.as_str().into()));
    }
    if let (Some(_), Some(first)) = (raw.allow.first(), raw.deny.first()) {
        let message = "\"deny\" does not go with \"allow\"";
        out.error("conflicting-keys", &first.origin, format!("{path}.deny"), message)
            .related(&raw.allow.origin, "what is allowed");
    }
    let filter = match (allow.is_empty(), deny.is_empty()) {
        (false, _) => Some(Filter::Allow(allow)),
        (true, false) => Some(Filter::Deny(deny)),
        (true, true) => None,
    };
    Reading { target, filter, rename: rename.into() }
}
