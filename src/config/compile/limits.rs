//! Rate limits: from what is written to what routes hold, with the counters of the process.

use std::sync::Arc;

use indexmap::IndexMap;

use super::{Compiler, check_name};
use crate::base::decode::{join_key, push_index, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::names::nearest;
use crate::base::origin::At;
use crate::cluster::Cluster;
use crate::policy::rate_limit::{Limits, Part, RateLimit};

/// By name, in the order of the file.
pub(super) type RateLimits = IndexMap<String, Arc<RateLimit>>;

/// The limits of one route, in the places where they are asked.
#[derive(Default)]
pub(super) struct InOrder {
    pub(super) before_authentication: Limits,
    pub(super) after_authorization: Limits,
}

impl Compiler<'_> {
    /// All limits.
    pub(super) fn rate_limits(self, cluster: Option<&Arc<Cluster>>, out: &mut Diagnostics) -> RateLimits {
        let counters = cluster.map(|cluster| cluster.counters());
        let mut limits = IndexMap::with_capacity(self.raw.rate_limits.len());
        for (name, limit) in self.raw.rate_limits.iter() {
            let path = join_key("rate_limits", name);
            check_name(name, &limit.origin, &path, out);
            if let Some(settings) = limit.compile(name, &path, &limit.origin, self.runtime.generation, out) {
                let metrics = self.runtime.metrics.limit(name);
                limits
                    .insert(name.clone(), RateLimit::new(settings, &self.runtime.limits, counters, metrics));
            }
        }
        limits
    }

    /// Those that a route names. `path` is that of the list; an account is known to `logins` only.
    pub(super) fn limits_of(
        self,
        names: &[At<String>],
        limits: &RateLimits,
        (path, logins): (&str, bool),
        out: &mut Diagnostics,
    ) -> InOrder {
        let mut found = InOrder::default();
        for (index, name) in names.iter().enumerate() {
            let mut path = path.to_owned();
            push_index(&mut path, index);
            if let Some(first) = names.iter().take(index).find(|earlier| earlier.value == name.value) {
                out.error("invalid-value", &name.origin, path, format!("{} stands here twice", quote(name)))
                    .related(&first.origin, "first written here");
                continue;
            }
            let Some(limit) = limits.get(&name.value) else {
                // One that is there but broken has been reported.
                if !self.declared.rate_limits.contains(&name.value) {
                    let message = format!("the limit {} is not defined", quote(name));
                    let known = self.declared.rate_limits.iter().map(String::as_str);
                    let near = nearest(name, known);
                    let problem = out.error("undefined", &name.origin, path, message);
                    match near {
                        Some(_) => problem.suggest(near),
                        None => problem.hint(format!("define it: {}", join_key("[rate_limits", name) + "]")),
                    };
                }
                continue;
            };
            if !logins && limit.settings().key.has(&Part::Account) {
                let message =
                    format!("{} counts by the account that a login tries: no route has one", quote(name));
                out.error("invalid-value", &name.origin, path, message)
                    .hint("name it in `rate_limits` of [identity.login]")
                    .related(&limit.settings().origin, "the limit");
                continue;
            }
            let modes = found.before_authentication.modes().union(found.after_authorization.modes());
            if modes.contradicts(limit.settings().modes) {
                let message =
                    format!("{} writes the same headers as an earlier limit, in another form", quote(name));
                out.error("conflicting-headers", &name.origin, path, message)
                    .hint("give the limits of a route the same `headers`")
                    .related(&limit.settings().origin, "the limit");
            }
            let place = if limit.settings().key.is_address_alone() {
                &mut found.before_authentication
            } else {
                &mut found.after_authorization
            };
            place.0.push(limit.clone());
        }
        found
    }
}
