//! The whole configuration as written: the sum of what each feature declares.

use std::sync::LazyLock;

use indexmap::IndexMap;

use super::identity::IdentityRaw;
use super::log::LogRaw;
use super::process::{AdminRaw, LimitsRaw, ListenerRaw, ServerRaw};
use super::route::{ROUTE_DEFAULTS, RouteRaw};
use crate::base::decode::{
    Decoder, Entry, Key, Keys, Kind, Node, Presence, Shape, TableShape, Value, check_partial, decode_str,
};
use crate::base::origin::{At, Origin};
use crate::broker::BrokerRaw;
use crate::cluster::config::ClusterRaw;
use crate::identity::consumers::ConsumerRaw;
use crate::keys;
use crate::policy::plan::PlanRaw;
use crate::policy::rate_limit::RateLimitRaw;
use crate::store::config::StoreRaw;
use crate::upstream::config::UpstreamRaw;

keys! {
    /// The configuration of Edgeward.
    pub struct ConfigRaw {
        /// Files with more routes and upstreams: names, or patterns with `*` whose files count by name.
        include: Vec<At<String>> = Vec::new(),
        /// The process.
        server: ServerRaw = ServerRaw::default(),
        /// What bounds every client.
        limits: LimitsRaw = LimitsRaw::default(),
        /// Where connections are accepted.
        listeners: upgrade Vec<At<ListenerRaw>> = Vec::new(),
        /// The listener for operators; absent = none.
        admin: optional AdminRaw,
        /// What is logged.
        log: LogRaw = LogRaw::default(),
        /// How services learn who a request is from.
        identity: IdentityRaw = IdentityRaw::default(),
        /// Where users, consumers, API keys and revocations are kept; absent = nowhere.
        store: upgrade optional StoreRaw,
        /// Parties that use services, by name, beside those of the store.
        consumers: IndexMap<String, At<ConsumerRaw>> = IndexMap::new(),
        /// What instances share over Redis: counters of limits, and revocations; absent = nothing.
        cluster: upgrade optional ClusterRaw,
        /// What every upstream has unless it says otherwise.
        upstream_defaults: UpstreamDefaults = UpstreamDefaults,
        /// Groups of servers, by name.
        upstreams: IndexMap<String, At<UpstreamRaw>> = IndexMap::new(),
        /// Message brokers, by name.
        brokers: IndexMap<String, At<BrokerRaw>> = IndexMap::new(),
        /// How many requests pass, by name: routes name them in `rate_limits`.
        rate_limits: IndexMap<String, At<RateLimitRaw>> = IndexMap::new(),
        /// What bounds the use of consumers and API keys, by name: they name theirs, routes in `auth.plan` that of the others.
        plans: IndexMap<String, At<PlanRaw>> = IndexMap::new(),
        /// What every route has unless it says otherwise, and what governs requests that match no route.
        defaults: RouteDefaults = RouteDefaults::default(),
        /// Which requests are answered, by what; the best match wins, then the order of the file.
        routes: Vec<At<RouteRaw>> = Vec::new(),
    }
}

/// Keys of a route that `[defaults]` may hold; none is required there.
pub(super) static ROUTE_DEFAULT_KEYS: LazyLock<Vec<Key>> =
    LazyLock::new(|| subset(RouteRaw::KEYS, |name| ROUTE_DEFAULTS.contains(&name)));

/// Keys of an upstream that `[upstream_defaults]` may hold: all but its servers.
pub(super) static UPSTREAM_DEFAULT_KEYS: LazyLock<Vec<Key>> =
    LazyLock::new(|| subset(UpstreamRaw::KEYS, |name| name != "servers"));

fn subset(keys: &[Key], kept: impl Fn(&str) -> bool) -> Vec<Key> {
    let optional = |key: &Key| match key.presence {
        Presence::Required => Key { presence: Presence::Optional, ..*key },
        _ => *key,
    };
    keys.iter().filter(|key| kept(key.name)).map(optional).collect()
}

/// `[defaults]`: laid under every route before it is decoded; here it is a route of its own, for requests that match none.
#[derive(Debug, Clone, Default)]
pub struct RouteDefaults(pub Option<Box<RouteRaw>>);

impl Value for RouteDefaults {
    fn shape() -> Shape {
        Shape::Table(TableShape {
            doc: &["What every route has unless it says otherwise."],
            keys: &ROUTE_DEFAULT_KEYS,
        })
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let mut node = node.clone();
        let Kind::Table(table) = &mut node.kind else { return cx.expected(&node, "a table") };
        let path = Entry { key: Origin::Default, node: Node::string("/*", Origin::Default) };
        table.insert("path".to_owned(), path);
        Some(Self(RouteRaw::decode(&node, cx).map(Box::new)))
    }

    fn render(&self) -> String {
        self.0.as_ref().map_or_else(|| "{}".to_owned(), |raw| raw.render())
    }
}

impl RouteDefaults {
    /// The route they come to by themselves, for `/*` and without a target; `None` if they are broken.
    pub(super) fn route(&self) -> Option<RouteRaw> {
        match &self.0 {
            Some(route) => Some((**route).clone()),
            None => decode_str::<Self>("").0?.0.map(|route| *route),
        }
    }
}

/// `[upstream_defaults]`: laid under every upstream before it is decoded, and gone by then.
#[derive(Debug, Clone, Default)]
pub struct UpstreamDefaults;

impl Value for UpstreamDefaults {
    fn shape() -> Shape {
        let doc = &["What every upstream has unless it says otherwise."];
        Shape::Table(TableShape { doc, keys: &UPSTREAM_DEFAULT_KEYS })
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        check_partial(node, &UPSTREAM_DEFAULT_KEYS, cx);
        Some(Self)
    }

    fn render(&self) -> String {
        "{}".to_owned()
    }
}
