//! Plans: from what is written to what routes hold, with the usage of the process.

use std::sync::Arc;

use indexmap::IndexMap;

use super::{Compiler, check_name};
use crate::base::decode::{join_key, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::names::nearest;
use crate::base::origin::At;
use crate::cluster::Cluster;
use crate::policy::auth::AuthRaw;
use crate::policy::plan::{Gate, Plan, Plans, Surroundings, is_from_anniversary};

/// All plans of a configuration.
pub(super) struct Compiled {
    /// By name, in the order of the file.
    pub(super) by_name: IndexMap<String, Arc<Plan>>,
    /// As requests find them.
    all: Arc<Plans>,
    /// Whether anybody can have one: consumers of a store may name any, also one that is not here.
    bounds_anybody: bool,
}

impl Compiler<'_> {
    pub(super) fn plans(self, cluster: Option<&Arc<Cluster>>, out: &mut Diagnostics) -> Compiled {
        let ledger = self.runtime.identity.usage();
        let around = Surroundings {
            limits: &self.runtime.limits,
            cluster: cluster.map(|cluster| cluster.counters()),
            ledger,
            generation: self.runtime.generation,
        };
        let mut by_name = IndexMap::with_capacity(self.raw.plans.len());
        for (name, plan) in self.raw.plans.iter() {
            let path = join_key("plans", name);
            check_name(name, &plan.origin, &path, out);
            let settings = plan.compile(name, &path, &plan.origin, out);
            if let Some(quota) = plan.quota.as_ref().filter(|_| !self.declared.has_store) {
                let message = "the quota counts in memory only: each start of the process begins it anew";
                out.warning("quota-not-kept", &quota.origin, format!("{path}.quota"), message)
                    .hint("add [store] with url = \"sqlite:run/edgeward.db\"");
            }
            let metrics = self.runtime.metrics.plan(name);
            by_name.insert(name.clone(), Plan::new(name, &plan.origin, settings, around, metrics));
        }
        self.check_plans_of_consumers(out);
        let all = Plans::new(by_name.values(), ledger);
        let bounds_anybody = !by_name.is_empty() || self.declared.has_store;
        Compiled { by_name, all, bounds_anybody }
    }

    /// What a route with `auth` asks about plans. `path` is that of `auth`.
    pub(super) fn gate(
        self,
        auth: &AuthRaw,
        plans: &Compiled,
        path: &str,
        out: &mut Diagnostics,
    ) -> Option<Gate> {
        let AuthRaw::Table(table) = auth else { return None };
        let default = table.plan.as_ref().and_then(|name| {
            self.check_plan(name, &format!("{path}.plan"), out);
            plans.by_name.get(&name.value).cloned()
        });
        plans.bounds_anybody.then(|| Gate::new(plans.all.clone(), default))
    }

    fn check_plans_of_consumers(self, out: &mut Diagnostics) {
        for (name, consumer) in self.raw.consumers.iter() {
            let Some(plan) = &consumer.plan else { continue };
            let path = join_key("consumers", name) + ".plan";
            self.check_plan(plan, &path, out);
            let begins = self.raw.plans.get(&plan.value).filter(|plan| is_from_anniversary(plan));
            let since = join_key("consumers", name) + ".since";
            let is_broken = out.iter().any(|problem| problem.path == since);
            if let (Some(written), None, false) = (begins, &consumer.since, is_broken) {
                let message = format!("the quota of {} begins on the consumer's anniversary", quote(plan));
                out.error("missing-key", &plan.origin, path, message)
                    .hint("add `since`, such as since = \"2026-01-31\", to the consumer")
                    .related(&written.quota_from.origin, "as it says here");
            }
        }
    }

    fn check_plan(self, name: &At<String>, path: &str, out: &mut Diagnostics) {
        // One that is there but broken has been reported.
        if self.declared.plans.contains(&name.value) {
            return;
        }
        let message = format!("the plan {} is not defined", quote(name));
        let near = nearest(name, self.declared.plans.iter().map(String::as_str));
        let problem = out.error("undefined", &name.origin, path, message);
        match near {
            Some(_) => problem.suggest(near),
            None => problem.hint(format!("define it: {}]", join_key("[plans", name))),
        };
    }
}
