//! `[identity.login]`: what answers its paths, and their routes, made from `[defaults]` as if they stood in the file.

use std::sync::Arc;

use indexmap::IndexMap;

use super::limits::RateLimits;
use super::{Compiler, services};
use crate::base::decode::{Size, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::names::nearest;
use crate::base::origin::{At, Origin};
use crate::config::login::LoginRaw;
use crate::config::route::RouteRaw;
use crate::identity::login::body::BODY_BYTES_MAX;
use crate::identity::login::{Login, Step};
use crate::identity::provider::Provider;
use crate::policy::rate_limit::{Limits, Part, RateLimit};
use crate::routing::MethodSet;

/// Providers named in a hint.
const PROVIDERS_SHOWN_MAX: usize = 5;

type Providers = IndexMap<String, Arc<Provider>>;

/// The configuration path of the table.
pub(super) const PATH: &str = "identity.login";

impl Compiler<'_> {
    /// What answers logins and what belongs to them; `None` without the table, and where it is wrong.
    pub(super) fn login(self, providers: &Providers, out: &mut Diagnostics) -> Option<Arc<Login>> {
        let Some(raw) = self.raw.identity.login.as_ref() else {
            self.advise_provider(out);
            return None;
        };
        raw.check_paths(PATH, out);
        let cookie = self.raw.identity.token_cookie.0.as_ref().map(|name| name.as_str());
        let settings = raw.settings(&self.raw.identity.realm.0, cookie, PATH, out);
        if !self.declared.has_store {
            let message = "there is no store with users who could log in";
            out.error("no-store", &raw.origin, PATH, message).hint("add [store] with a `url`");
        }
        let provider = self.issuing(raw, providers, out)?;
        let identity = &self.runtime.identity;
        let store = identity.store(&self.raw.store.as_ref()?.url);
        let (directory, live) = (identity.directory().clone(), identity.logins().clone());
        Some(Arc::new(Login::new(provider, store, directory, live, settings)))
    }

    /// Who left out the provider is told which to write.
    fn advise_provider(self, out: &mut Diagnostics) {
        let able = self.raw.identity.providers.iter();
        let able = able.filter(|(_, provider)| provider.signing_key.is_some() || provider.secret.is_some());
        let names: Vec<String> =
            able.map(|(name, _)| format!("`provider = {}`", quote(name))).take(PROVIDERS_SHOWN_MAX).collect();
        let hint = if names.is_empty() {
            "name a provider with a `signing_key`: a table [identity.providers.NAME]".to_owned()
        } else {
            format!("write {}", names.join(" or "))
        };
        out.advise("missing-key", PATH, "the key \"provider\" is missing", &hint);
    }

    /// The provider whose tokens are given.
    fn issuing(self, raw: &LoginRaw, providers: &Providers, out: &mut Diagnostics) -> Option<Arc<Provider>> {
        let (name, path) = (&raw.provider, format!("{PATH}.provider"));
        let Some(provider) = providers.get(&name.value) else {
            // One that is there but broken has been reported.
            if !self.declared.providers.contains(&name.value) {
                let message = format!("the provider {} is not defined", quote(name));
                let known = self.declared.providers.iter().map(String::as_str);
                out.error("undefined", &name.origin, path, message).suggest(nearest(name, known));
            }
            return None;
        };
        let written = self.raw.identity.providers.get(&name.value);
        // Where there is one that cannot be read, that has been told.
        let is_told = |key: &str| {
            let path = format!("identity.providers.{}.{key}", name.value);
            out.iter().any(|problem| problem.path == path || problem.path.starts_with(&format!("{path}.")))
        };
        let has_key = written.is_some_and(|at| at.signing_key.is_some() || at.secret.is_some())
            || is_told("signing_key")
            || is_told("secret");
        if provider.issuer().is_none() && !has_key {
            let message = format!("the provider {} cannot issue tokens", quote(name));
            out.error("cannot-issue", &name.origin, path, message)
                .hint("give it a `signing_key`, or a `secret`, or name another one");
            return None;
        }
        Some(provider.clone())
    }

    /// The routes of `login`. What `[defaults]` say holds for them, but for `auth`: whoever logs in has no credentials.
    pub(super) fn login_routes(
        self,
        login: &Login,
        limits: &RateLimits,
        out: &mut Diagnostics,
    ) -> Vec<(Step, At<RouteRaw>)> {
        let Some(raw) = &self.raw.identity.login else { return Vec::new() };
        let steps = Step::ALL.into_iter().filter(|step| login.offers(*step));
        let made: Vec<_> =
            steps.filter_map(|step| Some((step, self.login_route(raw, step, limits)?))).collect();
        self.check_taken(&made, out);
        made
    }

    /// The limits of `[identity.login]` that count by the account: asked when it is known which that is.
    pub(super) fn account_limits(self, step: Step, limits: &RateLimits) -> Limits {
        let names = self.raw.identity.login.as_ref().map_or(&[][..], |raw| raw.rate_limits.as_slice());
        let found =
            names.iter().filter_map(|name| limits.get(&name.value)).filter(|limit| is_of_account(limit));
        Limits(found.filter(|_| step == Step::Login).cloned().collect())
    }

    fn login_route(self, raw: &At<LoginRaw>, step: Step, limits: &RateLimits) -> Option<At<RouteRaw>> {
        let mut route = self.raw.defaults.route()?;
        let path = raw.path_of(step);
        let origin = if path.origin == Origin::Default { &raw.origin } else { &path.origin };
        route.name = Some(At::new(step.name().to_owned(), origin.clone()));
        route.path = path.clone();
        route.methods = At::new(MethodSet::named(step.method().as_str()).ok()?, Origin::Default);
        if !raw.hosts.is_empty() {
            route.hosts = raw.hosts.clone();
        }
        if !raw.rate_limits.is_empty() && step != Step::Keys {
            let others = raw.rate_limits.iter();
            let others =
                others.filter(|name| !limits.get(&name.value).is_some_and(|limit| is_of_account(limit)));
            route.rate_limits = At::new(others.cloned().collect(), raw.rate_limits.origin.clone());
        }
        if raw.cors.is_some() {
            route.cors.clone_from(&raw.cors);
        }
        route.auth = None;
        route.body_bytes = Some(At::new(Size(BODY_BYTES_MAX as u64), Origin::Default));
        Some(At::new(route, raw.origin.clone()))
    }

    /// Reports routes of the file that would get what is meant for one of `made`, or the other way round.
    fn check_taken(self, made: &[(Step, At<RouteRaw>)], out: &mut Diagnostics) {
        let positions = self.route_positions();
        for (route, position) in self.raw.routes.iter().zip(positions) {
            // Nobody who writes to the database gets a password to read, be it for one host only.
            let is_taken = |at: &RouteRaw| match services::is_row(&route.origin) {
                true => services::may_take(route, at),
                false => are_alike(at, route),
            };
            for (step, at) in made.iter().filter(|(_, at)| is_taken(at)) {
                let message = format!("{} is a path of [identity.login]", quote(route.path.as_str()));
                let (key, path) = (step.path_key(), format!("routes[{position}].path"));
                let name = at.name.as_ref().map_or(&at.origin, |name| &name.origin);
                out.error("path-taken", &route.path.origin, path, message)
                    .hint(format!("give the route another path, or set `identity.login.{key}`"))
                    .related(name, "logins are set up here");
            }
        }
    }
}

fn is_of_account(limit: &RateLimit) -> bool {
    limit.settings().key.has(&Part::Account)
}

/// Whether nothing but their order tells which of both gets a request that is meant for `made`.
fn are_alike(made: &RouteRaw, route: &RouteRaw) -> bool {
    let same_hosts = match (made.hosts.as_slice(), route.hosts.as_slice()) {
        ([], []) => true,
        (ours, theirs) => ours.iter().any(|host| theirs.iter().any(|other| other.value == host.value)),
    };
    let asks_no_more = route.headers.is_empty()
        && route.query.is_empty()
        && route.cookies.is_empty()
        && route.when.is_none();
    let has_method = route.methods.is_empty() || route.methods.includes(made.methods.value);
    same_hosts && asks_no_more && has_method && made.path.same_paths(&route.path)
}
