//! What tells two configurations apart: what a reload changes, by name, and what it cannot change.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

use indexmap::IndexMap;

use super::raw::ConfigRaw;
use super::snapshot::{Listener, Route, Snapshot, Target};
use crate::base::decode::{NetworkList, Setting, Value, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::{At, Origin};

/// What a configuration consists of beside its routes, as written: compared when the next one comes.
#[derive(Debug, Default)]
pub struct Outline {
    /// The effective settings of the tables of the process, such as `limits.body_bytes`.
    process: Vec<Setting>,
    listeners: IndexMap<String, Part>,
    upstreams: IndexMap<String, Part>,
    providers: IndexMap<String, Part>,
    consumers: IndexMap<String, Part>,
    rate_limits: IndexMap<String, Part>,
    plans: IndexMap<String, Part>,
    brokers: IndexMap<String, Part>,
    cluster: Option<Part>,
}

/// One named table.
#[derive(Debug, Default)]
struct Part {
    origin: Origin,
    settings: Vec<Setting>,
    /// Tells apart what the files named by the settings contained.
    content: u64,
}

impl Outline {
    /// The outline of `raw`.
    pub(super) fn of(raw: &ConfigRaw) -> Self {
        let mut process = Vec::new();
        raw.server.settings("server", &raw.server.origin, &mut process);
        raw.limits.settings("limits", &raw.limits.origin, &mut process);
        raw.log.settings("log", &raw.log.origin, &mut process);
        raw.identity.settings("identity", &raw.identity.origin, &mut process);
        // Parts of their own, below.
        process.retain(|setting| !setting.key.starts_with("identity.providers"));
        if let Some(store) = &raw.store {
            store.settings("store", &store.origin, &mut process);
        }
        if let Some(admin) = &raw.admin {
            admin.settings("admin", &admin.origin, &mut process);
        }
        let listeners = raw.listeners.iter().map(|listener| {
            let mut part = Part { origin: listener.origin.clone(), ..Part::default() };
            listener.settings("", &listener.origin, &mut part.settings);
            // Whether there is TLS is settled when the socket is announced; with which certificates is not.
            part.settings.push(Setting {
                key: "tls".to_owned(),
                value: (!listener.certificates.is_empty()).to_string(),
                origin: listener.certificates.origin.clone(),
                needs_upgrade: true,
            });
            (listener.name.value.clone(), part)
        });
        let upstreams = raw.upstreams.iter().map(|(name, upstream)| {
            let mut part = Part { origin: upstream.origin.clone(), ..Part::default() };
            upstream.settings("", &upstream.origin, &mut part.settings);
            (name.clone(), part)
        });
        let providers = raw.identity.providers.iter().map(|(name, provider)| {
            let mut part = Part { origin: provider.origin.clone(), ..Part::default() };
            provider.settings("", &provider.origin, &mut part.settings);
            (name.clone(), part)
        });
        let consumers = raw.consumers.iter().map(|(name, consumer)| {
            let mut part = Part { origin: consumer.origin.clone(), ..Part::default() };
            consumer.settings("", &consumer.origin, &mut part.settings);
            (name.clone(), part)
        });
        let rate_limits = raw.rate_limits.iter().map(|(name, limit)| {
            let mut part = Part { origin: limit.origin.clone(), ..Part::default() };
            limit.settings("", &limit.origin, &mut part.settings);
            part.content = networks(&limit.allow);
            (name.clone(), part)
        });
        let plans = raw.plans.iter().map(|(name, plan)| {
            let mut part = Part { origin: plan.origin.clone(), ..Part::default() };
            plan.settings("", &plan.origin, &mut part.settings);
            (name.clone(), part)
        });
        let brokers = raw.brokers.iter().map(|(name, broker)| {
            let mut part = Part { origin: broker.origin.clone(), ..Part::default() };
            broker.settings("", &broker.origin, &mut part.settings);
            (name.clone(), part)
        });
        let cluster = raw.cluster.as_ref().map(|cluster| {
            let mut part = Part { origin: cluster.origin.clone(), ..Part::default() };
            cluster.settings("", &cluster.origin, &mut part.settings);
            // Its own place would show the password.
            for setting in part.settings.iter_mut().filter(|setting| setting.key == "redis") {
                setting.origin = cluster.origin.clone();
            }
            part
        });
        Self {
            process,
            listeners: listeners.collect(),
            upstreams: upstreams.collect(),
            providers: providers.collect(),
            consumers: consumers.collect(),
            rate_limits: rate_limits.collect(),
            plans: plans.collect(),
            brokers: brokers.collect(),
            cluster,
        }
    }

    /// Adds what is not shown of the cluster: its password, and what its files contain.
    pub(super) fn cluster_content(&mut self, content: u64) {
        if let Some(part) = &mut self.cluster {
            part.content = content;
        }
    }

    /// Adds what is not shown of the broker: its password, and what its files contain.
    pub(super) fn broker_content(&mut self, name: &str, content: u64) {
        if let Some(part) = self.brokers.get_mut(name) {
            part.content = content;
        }
    }

    /// Adds what the listener's certificate files contain.
    pub(super) fn listener_content(&mut self, listener: &Listener) {
        if let Some(part) = self.listeners.get_mut(&listener.name) {
            part.content = hash(|hasher| {
                for certificate in &listener.certificates {
                    certificate.file.hash(hasher);
                }
                listener.tls.as_ref().map(|tls| tls.content()).hash(hasher);
            });
        }
    }

    /// Adds what the provider's key files and secrets contain.
    pub(super) fn provider_content(&mut self, name: &str, content: u64) {
        if let Some(part) = self.providers.get_mut(name) {
            part.content = content;
        }
    }

    /// Adds what the consumer's keys are.
    pub(super) fn consumer_content(&mut self, name: &str, content: u64) {
        if let Some(part) = self.consumers.get_mut(name) {
            part.content = content;
        }
    }

    /// Adds what the upstream's certificate files contain.
    pub(super) fn upstream_content(&mut self, name: &str, content: u64) {
        if let Some(part) = self.upstreams.get_mut(name) {
            part.content = content;
        }
    }
}

/// What a reload changes, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// What is new.
    pub added: Vec<String>,
    /// What is gone.
    pub removed: Vec<String>,
    /// What is still there, and different.
    pub altered: Vec<String>,
}

impl Changes {
    /// What is different in `new`.
    pub fn between(old: &Snapshot, new: &Snapshot) -> Self {
        let mut changes = Self::default();
        let process = |outline: &Outline| {
            outline.process.iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect()
        };
        changes.compare("", &process(&old.outline), &process(&new.outline));
        let parts = |parts: &IndexMap<String, Part>| {
            parts
                .iter()
                .map(|(name, part)| (name.clone(), fingerprint(&part.settings, part.content)))
                .collect()
        };
        changes.compare("listener ", &parts(&old.outline.listeners), &parts(&new.outline.listeners));
        changes.compare("upstream ", &parts(&old.outline.upstreams), &parts(&new.outline.upstreams));
        changes.compare("provider ", &parts(&old.outline.providers), &parts(&new.outline.providers));
        changes.compare("consumer ", &parts(&old.outline.consumers), &parts(&new.outline.consumers));
        changes.compare("broker ", &parts(&old.outline.brokers), &parts(&new.outline.brokers));
        changes.compare("rate limit ", &parts(&old.outline.rate_limits), &parts(&new.outline.rate_limits));
        changes.compare("plan ", &parts(&old.outline.plans), &parts(&new.outline.plans));
        let routes = |snapshot: &Snapshot| -> IndexMap<String, u64> {
            snapshot.routes.iter().map(|route| (route.name.to_string(), route_fingerprint(route))).collect()
        };
        let (before, after) = (routes(old), routes(new));
        changes.compare("route ", &before, &after);
        if route_fingerprint(&old.unmatched) != route_fingerprint(&new.unmatched) {
            changes.altered.push("defaults".to_owned());
        }
        if changes.is_empty() && !before.keys().eq(after.keys()) {
            changes.altered.push("the order of routes".to_owned());
        }
        changes
    }

    fn compare<V: PartialEq>(&mut self, kind: &str, old: &IndexMap<String, V>, new: &IndexMap<String, V>) {
        for (name, value) in new {
            match old.get(name) {
                None => self.added.push(format!("{kind}{name}")),
                Some(before) if before != value => self.altered.push(format!("{kind}{name}")),
                Some(_) => {}
            }
        }
        let gone = old.keys().filter(|name| !new.contains_key(*name));
        self.removed.extend(gone.map(|name| format!("{kind}{name}")));
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.altered.is_empty()
    }

    /// One line for each change, long lists cut short.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (what, names) in [("added", &self.added), ("removed", &self.removed), ("altered", &self.altered)]
        {
            for name in names.iter().take(SHOWN_MAX) {
                // Writing to a string cannot fail.
                let _infallible = writeln!(text, "{what} {name}");
            }
            if let Some(more) = names.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
                let _infallible = writeln!(text, "{what} {more} more");
            }
        }
        text
    }

    /// Counts, for one line of the log.
    pub fn summary(&self) -> String {
        if self.is_empty() {
            return "nothing changed".to_owned();
        }
        let counts = [("added", &self.added), ("removed", &self.removed), ("altered", &self.altered)];
        let counts = counts.iter().filter(|(_, names)| !names.is_empty());
        counts.map(|(what, names)| format!("{} {what}", names.len())).collect::<Vec<_>>().join(", ")
    }
}

/// Changes of one kind that are listed by name.
const SHOWN_MAX: usize = 50;

/// Reports everything in `new` that only a new process can have: listeners and what binds them, threads, privileges,
/// and the like.
pub fn needs_upgrade(old: &Snapshot, new: &Snapshot, out: &mut Diagnostics) {
    let (before, after) = (&old.outline, &new.outline);
    refuse_settings("", &before.process, &after.process, &Origin::Default, out);
    refuse_cluster(before.cluster.as_ref(), after.cluster.as_ref(), out);
    for (name, part) in &after.listeners {
        match before.listeners.get(name) {
            Some(old) => {
                let path = format!("listeners.{name}.");
                refuse_settings(&path, &old.settings, &part.settings, &part.origin, out);
            }
            None => refuse(
                &format!("listeners.{name}"),
                &part.origin,
                &format!("the listener {} is new", quote(name)),
                out,
            ),
        }
    }
    for name in before.listeners.keys().filter(|name| !after.listeners.contains_key(*name)) {
        refuse(
            &format!("listeners.{name}"),
            &Origin::Default,
            &format!("the listener {} is gone", quote(name)),
            out,
        );
    }
}

fn refuse_cluster(old: Option<&Part>, new: Option<&Part>, out: &mut Diagnostics) {
    match (old, new) {
        (None, None) => {}
        (None, Some(new)) => refuse("cluster", &new.origin, "[cluster] is new", out),
        (Some(_), None) => refuse("cluster", &Origin::Default, "[cluster] is gone", out),
        (Some(old), Some(new)) => {
            let shown = |part: &Part| -> Vec<_> {
                part.settings.iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect()
            };
            if shown(old) != shown(new) {
                refuse_settings("cluster.", &old.settings, &new.settings, &new.origin, out);
            } else if old.content != new.content {
                refuse(
                    "cluster",
                    &new.origin,
                    "the password or the certificates of [cluster] are others",
                    out,
                );
            }
        }
    }
}

fn refuse_settings(path: &str, old: &[Setting], new: &[Setting], place: &Origin, out: &mut Diagnostics) {
    let fixed = |settings: &[Setting]| -> IndexMap<String, (String, Origin)> {
        let fixed = settings.iter().filter(|setting| setting.needs_upgrade);
        fixed.map(|setting| (setting.key.clone(), (setting.value.clone(), setting.origin.clone()))).collect()
    };
    let (old, new) = (fixed(old), fixed(new));
    for (key, (value, origin)) in &new {
        let key_path = format!("{path}{key}");
        let origin = if *origin == Origin::Default { place } else { origin };
        match old.get(key) {
            Some((before, _)) if before == value => {}
            Some((before, _)) if key == "tls" => {
                let message =
                    if before == "true" { "the listener has lost TLS" } else { "the listener has got TLS" };
                refuse(&key_path, origin, message, out);
            }
            Some((before, _)) => refuse(&key_path, origin, &format!("{key_path} was {before}"), out),
            None => refuse(&key_path, origin, &format!("{key_path} was not set"), out),
        }
    }
    for (key, (before, _)) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
        let key_path = format!("{path}{key}");
        refuse(&key_path, place, &format!("{key_path} was {before} and is gone"), out);
    }
}

fn refuse(path: &str, origin: &Origin, what: &str, out: &mut Diagnostics) {
    out.error("needs-upgrade", origin, path, format!("needs an upgrade: {what}"))
        .hint("a reload cannot change this in a running process: `edgeward upgrade` replaces it without losing a request");
}

fn fingerprint(settings: &[Setting], content: u64) -> u64 {
    hash(|hasher| {
        for setting in settings {
            (&setting.key, &setting.value).hash(hasher);
        }
        content.hash(hasher);
    })
}

/// What the files of networks contain.
fn networks(lists: &[At<NetworkList>]) -> u64 {
    hash(|hasher| lists.iter().for_each(|list| list.hash(hasher)))
}

fn route_fingerprint(route: &Route) -> u64 {
    let content = match &route.target {
        // It may have come from a file.
        Target::Respond(answer) => hash(|hasher| answer.body().hash(hasher)),
        _ => 0,
    };
    // Networks may have come from a file, too.
    fingerprint(&route.settings, content ^ hash(|hasher| route.guard.ip.hash(hasher)))
}

fn hash(feed: impl FnOnce(&mut DefaultHasher)) -> u64 {
    let mut hasher = DefaultHasher::new();
    feed(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::decode::Surroundings;
    use crate::config::{self, Runtime};

    fn snapshot(text: &str) -> Snapshot {
        let surroundings = Surroundings {
            env: &|_| None,
            read: &|_| Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
        };
        let compiled =
            config::load_text(Path::new("x.toml"), text, surroundings).compile(&Runtime::detached());
        let problems: Vec<_> = compiled.diagnostics.iter().map(|problem| problem.message.clone()).collect();
        compiled.snapshot.unwrap_or_else(|| panic!("{problems:?}"))
    }

    const BASE: &str = "[server]\nthreads = 2\n[[listeners]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n\
        [upstreams.u]\nservers = [\"127.0.0.1:1\"]\n[upstreams.v]\nservers = [\"127.0.0.1:2\"]\n\
        [[routes]]\nname = \"r\"\npath = \"/r\"\nupstream = \"u\"\n\
        [[routes]]\nname = \"s\"\npath = \"/s\"\nrespond = { text = \"1\" }\n";

    #[test]
    fn changes_are_named() {
        let old = snapshot(BASE);
        assert!(Changes::between(&old, &snapshot(BASE)).is_empty());
        // Comments and places do not count.
        assert!(Changes::between(&old, &snapshot(&format!("# x\n{BASE}"))).is_empty());
        let new = BASE
            .replace(
                "[upstreams.v]\nservers = [\"127.0.0.1:2\"]",
                "[upstreams.w]\nservers = [\"127.0.0.1:2\"]",
            )
            .replace("127.0.0.1:1\"", "127.0.0.1:9\"")
            .replace("text = \"1\"", "text = \"2\"")
            + "[limits]\nbody_bytes = \"1KiB\"\n[defaults]\naccess_log = true\n";
        let changes = Changes::between(&old, &snapshot(&new));
        assert_eq!(changes.added, ["upstream w"]);
        assert_eq!(changes.removed, ["upstream v"]);
        assert_eq!(changes.altered, ["limits.body_bytes", "upstream u", "route s", "defaults"]);
        assert_eq!(changes.summary(), "1 added, 1 removed, 4 altered");
        assert!(
            changes.text().starts_with("added upstream w\nremoved upstream v\naltered limits.body_bytes\n")
        );
    }

    #[test]
    fn the_order_of_routes_is_a_change() {
        let (r, s) = BASE.split_at(BASE.find("[[routes]]\nname = \"s\"").unwrap());
        let (head, r) = r.split_at(r.find("[[routes]]").unwrap());
        let changes = Changes::between(&snapshot(BASE), &snapshot(&format!("{head}{s}{r}")));
        assert_eq!(changes.altered, ["the order of routes"]);
    }

    #[test]
    fn what_binds_the_process_needs_an_upgrade() {
        let refused = |new: &str| {
            let mut out = Diagnostics::default();
            needs_upgrade(&snapshot(BASE), &snapshot(new), &mut out);
            out.iter().map(|problem| problem.path.clone()).collect::<Vec<_>>()
        };
        assert!(refused(&BASE.replace("text = \"1\"", "text = \"2\"")).is_empty());
        assert_eq!(refused(&BASE.replace("threads = 2", "threads = 3")), ["server.threads"]);
        assert_eq!(
            refused(&BASE.replace("threads = 2", "pid_file = \"p\"")),
            ["server.threads", "server.pid_file"]
        );
        assert_eq!(refused(&BASE.replace("127.0.0.1:0", "127.0.0.2:0")), ["listeners.a.address"]);
        assert_eq!(refused(&BASE.replace("name = \"a\"", "name = \"b\"")), ["listeners.b", "listeners.a"]);
        assert_eq!(refused(&format!("{BASE}[admin]\n")), ["admin.address"]);
        assert_eq!(refused(&format!("{BASE}[limits]\nupstream_idle = 3\n")), ["limits.upstream_idle"]);
    }
}
