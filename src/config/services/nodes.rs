//! The tables that somebody would have written for a service.

use std::sync::Arc;

use super::decode::{at, check_endpoints};
use super::endpoint::{self, Ask, Place};
use super::{EndpointRaw, EndpointType, ServiceRaw};
use crate::base::decode::{Entry, Kind, Node, Table};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::Origin;
use crate::config::Loaded;
use crate::routing::MethodSet;

/// The route of a service, and the upstreams that only it brings.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) route: Node,
    pub(super) upstreams: Vec<(String, Node)>,
}

/// What routes and upstreams of services are called begins with this.
const PREFIX: &str = "service:";

/// The tables of `raw`, which was read from `node`; `None`, reported, where there can be none.
pub(super) fn of(raw: &ServiceRaw, node: &Node, loaded: &Loaded, out: &mut Diagnostics) -> Option<Made> {
    let name: Arc<str> = raw.name.as_str().into();
    check_endpoints(node, &name, out);
    let maker = Maker { raw, node, loaded, name };
    maker.check_path(out);
    let endpoints = maker.endpoints(out);
    let mut route = Table::new();
    maker.put(&mut route, "name", Node::string(format!("{PREFIX}{}", maker.name), maker.at("name")));
    for key in ["path", "hosts"] {
        if let Some(node) = node.get(key).filter(|node| node.as_array().is_none_or(|list| !list.is_empty())) {
            maker.put(&mut route, key, node.clone());
        }
    }
    maker.put(&mut route, "methods", maker.methods());
    if let Some(auth) = maker.auth(out) {
        maker.put(&mut route, "auth", auth);
    }
    if out.has_errors() {
        return None;
    }
    let mut upstreams = Vec::new();
    match endpoints.as_slice() {
        [one] if maker.is_passed_on(one) => maker.pass_on(one, &mut route, &mut upstreams),
        _ => {
            let legs = endpoints.iter().map(|endpoint| maker.leg(endpoint, &mut upstreams)).collect();
            let legs = Node { origin: maker.at("endpoints"), kind: Kind::Array(legs) };
            let aggregate = maker.table("endpoints", [("legs", legs)]);
            maker.put(&mut route, "aggregate", aggregate);
        }
    }
    Some(Made { route: Node { origin: maker.at(""), kind: Kind::Table(route) }, upstreams })
}

struct Maker<'a> {
    raw: &'a ServiceRaw,
    node: &'a Node,
    loaded: &'a Loaded,
    name: Arc<str>,
}

struct Endpoint<'a> {
    raw: &'a EndpointRaw,
    node: Option<&'a Node>,
    index: usize,
    place: Place,
}

impl Maker<'_> {
    fn at(&self, column: &str) -> Origin {
        at(&self.name, column)
    }

    /// Adds an entry that stands where its value does.
    fn put(&self, table: &mut Table, key: &str, node: Node) {
        table.insert(key.to_owned(), Entry { key: node.origin.clone(), node });
    }

    fn table<const N: usize>(&self, column: &str, entries: [(&str, Node); N]) -> Node {
        let mut table = Table::new();
        entries.into_iter().for_each(|(key, node)| self.put(&mut table, key, node));
        Node { origin: self.at(column), kind: Kind::Table(table) }
    }

    fn text(&self, column: &str, text: impl Into<String>) -> Node {
        Node::string(text, self.at(column))
    }

    fn list(&self, column: &str, texts: impl Iterator<Item = String>) -> Node {
        let nodes = texts.map(|text| self.text(column, text)).collect();
        Node { origin: self.at(column), kind: Kind::Array(nodes) }
    }

    /// What routes of a file have an order for, rows do not.
    fn check_path(&self, out: &mut Diagnostics) {
        if self.raw.path.is_regex() {
            out.error("invalid-value", &self.at("path"), "", "the path of a service is not a regex")
                .hint("write /a/b, /a/{id} or /a/*; a regex can stand in a file of the configuration");
        }
    }

    fn endpoints(&self, out: &mut Diagnostics) -> Vec<Endpoint<'_>> {
        let nodes = self.node.get("endpoints").and_then(Node::as_array).unwrap_or_default();
        let mut endpoints = Vec::with_capacity(self.raw.endpoints.len());
        for (index, raw) in self.raw.endpoints.iter().enumerate() {
            let place = match *raw.r#type {
                EndpointType::HttpGet | EndpointType::HttpPost => endpoint::http(&raw.url),
                EndpointType::Amqp => endpoint::queue(&raw.url),
            };
            match place {
                Ok(place) => endpoints.push(Endpoint { raw, node: nodes.get(index), index, place }),
                Err((message, hint)) => {
                    out.error("invalid-value", &raw.url.origin, "", message).hint = hint.map(str::to_owned);
                }
            }
        }
        endpoints
    }

    /// Those written, or those that fit the endpoints.
    fn method_set(&self) -> MethodSet {
        if !self.raw.methods.is_empty() {
            return *self.raw.methods;
        }
        let only_asks = self.raw.endpoints.iter().all(|endpoint| *endpoint.r#type == EndpointType::HttpGet);
        MethodSet::named(if only_asks { "GET" } else { "POST" }).unwrap_or_default()
    }

    fn has_get(&self) -> bool {
        self.method_set().includes(MethodSet::named("GET").unwrap_or_default())
    }

    fn methods(&self) -> Node {
        self.list("methods", self.method_set().iter().map(str::to_owned))
    }

    /// Who may use it, where it says so: whoever has a token of any provider with all of the roles. Where `[defaults]`
    /// say how that is proved, their way holds.
    fn auth(&self, out: &mut Diagnostics) -> Option<Node> {
        let roles =
            self.node.get("roles").filter(|roles| roles.as_array().is_some_and(|list| !list.is_empty()))?;
        let mut auth = Table::new();
        self.put(&mut auth, "roles", roles.clone());
        let inherited = self.loaded.under.routes.as_ref().and_then(|defaults| defaults.get("auth"));
        if inherited.is_none_or(|entry| entry.node.get("with").is_none()) {
            let providers = self.loaded.raw.iter().flat_map(|raw| raw.identity.providers.keys());
            let with = self.list("roles", providers.map(|name| format!("jwt:{name}")));
            if with.as_array().is_none_or(<[Node]>::is_empty) {
                out.error(
                    "no-provider",
                    &self.at("roles"),
                    "",
                    "nobody can hold a role: there is no provider of tokens",
                )
                .hint("add [identity.providers.NAME] to the configuration, or `auth` to its [defaults]");
            }
            self.put(&mut auth, "with", with);
        }
        Some(Node { origin: self.at("roles"), kind: Kind::Table(auth) })
    }

    /// Whether a single endpoint gets the request as it is, and the client its answer as it is. Else the answer is put
    /// together from what endpoints say, be it from one.
    fn is_passed_on(&self, endpoint: &Endpoint<'_>) -> bool {
        let only = |name: &str| {
            let named = MethodSet::named(name).unwrap_or_default();
            named.includes(self.method_set())
        };
        let fits = match (&endpoint.place, *endpoint.raw.r#type) {
            (Place::Queue { .. }, _) => only("POST"),
            (Place::Server { ask, .. } | Place::Upstream { ask, .. }, of) => {
                ask.query.is_empty() && only(if of == EndpointType::HttpGet { "GET" } else { "POST" })
            }
        };
        fits && endpoint.raw.group.is_none()
    }

    fn pass_on(&self, endpoint: &Endpoint<'_>, route: &mut Table, upstreams: &mut Vec<(String, Node)>) {
        let url = endpoint.column("url");
        match &endpoint.place {
            Place::Queue { .. } => self.put(route, "amqp", self.queue(endpoint)),
            Place::Server { ask, .. } | Place::Upstream { ask, .. } => {
                let upstream = self.upstream(endpoint, upstreams);
                self.put(route, "upstream", upstream);
                let rewrite = self.table(&url, [("path", self.text(&url, ask.path.clone()))]);
                self.put(route, "rewrite", rewrite);
                if let Some(timeout) = endpoint.written("timeout") {
                    self.put(route, "timeout", timeout);
                }
            }
        }
    }

    fn leg(&self, endpoint: &Endpoint<'_>, upstreams: &mut Vec<(String, Node)>) -> Node {
        let (whole, url) = (endpoint.column(""), endpoint.column("url"));
        let mut leg = Table::new();
        let name = endpoint.written("name");
        let name = name.unwrap_or_else(|| self.text(&whole, format!("endpoint-{}", endpoint.index + 1)));
        self.put(&mut leg, "name", name);
        match &endpoint.place {
            Place::Queue { .. } => self.put(&mut leg, "amqp", self.queue(endpoint)),
            Place::Server { ask, .. } | Place::Upstream { ask, .. } => {
                let upstream = self.upstream(endpoint, upstreams);
                self.put(&mut leg, "upstream", upstream);
                self.ask(ask, &url, &mut leg);
                if let Some(timeout) = endpoint.written("timeout") {
                    self.put(&mut leg, "timeout", timeout);
                }
            }
        }
        if *endpoint.raw.r#type == EndpointType::HttpPost {
            self.put(&mut leg, "method", self.text(&endpoint.column("type"), "POST"));
        }
        // A queue that is asked without a body gets the parameters of path and query.
        let asks_queue = *endpoint.raw.r#type == EndpointType::Amqp && self.has_get();
        if *endpoint.raw.r#type != EndpointType::HttpGet && !asks_queue {
            self.put(&mut leg, "body", self.text(&endpoint.column("type"), "request"));
        }
        for key in ["required", "group"] {
            if let Some(node) = endpoint.written(key) {
                self.put(&mut leg, key, node);
            }
        }
        Node { origin: self.at(&whole), kind: Kind::Table(leg) }
    }

    fn ask(&self, ask: &Ask, url: &str, leg: &mut Table) {
        self.put(leg, "path", self.text(url, ask.path.clone()));
        if ask.query.is_empty() {
            return;
        }
        let mut query = Table::new();
        for (name, value) in &ask.query {
            self.put(&mut query, name, self.text(url, value.clone()));
        }
        self.put(leg, "query", Node { origin: self.at(url), kind: Kind::Table(query) });
    }

    fn queue(&self, endpoint: &Endpoint<'_>) -> Node {
        let url = endpoint.column("url");
        let Place::Queue { broker, queue } = &endpoint.place else { return Node::empty_table() };
        let mut table = Table::new();
        self.put(&mut table, "broker", self.text(&url, broker.clone()));
        self.put(&mut table, "queue", self.text(&url, queue.clone()));
        if let Some(timeout) = endpoint.written("timeout") {
            self.put(&mut table, "timeout", timeout);
        }
        Node { origin: self.at(&url), kind: Kind::Table(table) }
    }

    /// The name of the upstream of an endpoint; one that stands in no file is made. Services that name the same server
    /// share it, and with it what is known of its health.
    fn upstream(&self, endpoint: &Endpoint<'_>, upstreams: &mut Vec<(String, Node)>) -> Node {
        let url = endpoint.column("url");
        let (tls, authority) = match &endpoint.place {
            Place::Server { tls, authority, .. } => (*tls, authority),
            Place::Upstream { name, .. } => return self.text(&url, name.clone()),
            Place::Queue { .. } => return self.text(&url, ""),
        };
        let name = format!("{PREFIX}{}://{authority}", if tls { "https" } else { "http" });
        if !upstreams.iter().any(|(known, _)| *known == name) {
            let servers = self.list(&url, std::iter::once(authority.clone()));
            // What [upstream_defaults] say of TLS is not what the URL says.
            let kind = if tls { Kind::Table(Table::new()) } else { Kind::Boolean(false) };
            let tls = Node { origin: self.at(&url), kind };
            let host = self.text(&url, "server");
            upstreams
                .push((name.clone(), self.table(&url, [("servers", servers), ("tls", tls), ("host", host)])));
        }
        self.text(&url, name)
    }
}

impl Endpoint<'_> {
    fn column(&self, key: &str) -> String {
        let dot = if key.is_empty() { "" } else { "." };
        format!("endpoints[{}]{dot}{key}", self.index)
    }

    /// What stands under `key` of the endpoint.
    fn written(&self, key: &str) -> Option<Node> {
        self.node?.get(key).cloned()
    }
}
