//! What a configuration declares, whether or not it could be decoded.
//!
//! A reference to something broken is not a reference to nothing, and a path counts the broken elements before it.

use indexmap::IndexSet;

use super::route::TARGETS;
use crate::base::decode::Node;
use crate::base::origin::{At, Origin};

/// Names and places of what stands in the files.
#[derive(Debug, Default, Clone)]
pub(super) struct Declared {
    pub(super) upstreams: IndexSet<String>,
    pub(super) brokers: IndexSet<String>,
    /// Of `[identity.providers]`.
    pub(super) providers: IndexSet<String>,
    pub(super) consumers: IndexSet<String>,
    pub(super) rate_limits: IndexSet<String>,
    pub(super) plans: IndexSet<String>,
    pub(super) has_store: bool,
    pub(super) listener_names: IndexSet<String>,
    /// In the order of the file.
    pub(super) listeners: Vec<Origin>,
    pub(super) routes: Vec<Origin>,
    /// Which of the routes have a target, be it a broken one.
    pub(super) has_target: Vec<bool>,
}

impl Declared {
    /// What the merged `root` declares.
    pub(super) fn of(root: &Node) -> Self {
        let elements = |key| root.get(key).and_then(Node::as_array).unwrap_or(&[]);
        let origins = |key| elements(key).iter().map(|node| node.origin.clone()).collect();
        let name = |node: &Node| node.get("name").and_then(Node::as_str).map(str::to_owned);
        let keys = |node: Option<&Node>| {
            let table = node.and_then(Node::as_table);
            table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
        };
        let named = |key| keys(root.get(key));
        let has_target = |node: &Node| TARGETS.iter().any(|target| node.get(target).is_some());
        Self {
            upstreams: named("upstreams"),
            brokers: named("brokers"),
            providers: keys(root.get("identity").and_then(|identity| identity.get("providers"))),
            consumers: named("consumers"),
            rate_limits: named("rate_limits"),
            plans: named("plans"),
            has_store: root.get("store").is_some(),
            listener_names: elements("listeners").iter().filter_map(name).collect(),
            listeners: origins("listeners"),
            routes: origins("routes"),
            has_target: elements("routes").iter().map(has_target).collect(),
        }
    }

    /// Where `decoded`, those of `all` that could be, stand among all.
    pub(super) fn positions<T>(all: &[Origin], decoded: &[At<T>]) -> Vec<usize> {
        let mut all = all.iter().enumerate();
        let position =
            |at: &At<T>| all.find(|(_, origin)| **origin == at.origin).map_or(0, |(index, _)| index);
        decoded.iter().map(position).collect()
    }
}
