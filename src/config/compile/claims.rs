//! What goes by the name of the identity's header before the gateway has set it: there only the client's own claim stands.

use http::HeaderName;

use super::Compiler;
use crate::base::decode::{Setting, Value, join_key};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::Origin;
use crate::config::declared::Declared;
use crate::policy::rate_limit::Part;

/// Keys of a route in which templates stand.
const TEMPLATES: [&str; 6] = ["redirect", "respond", "rewrite", "request", "response", "aggregate"];

impl Compiler<'_> {
    /// Warns of predicates, templates and hashes that read one of the identity's headers.
    pub(super) fn check_claims(self, out: &mut Diagnostics) {
        let headers = self.raw.identity.headers();
        let names: Vec<(&HeaderName, String)> = headers
            .iter()
            .filter_map(|(_, header)| header.0.as_ref())
            .map(|name| (name, format!("{{header.{name}}}")))
            .collect();
        if !names.is_empty() {
            self.check_routes(&names, out);
        }
        names.iter().for_each(|(name, _)| self.check_others(name, out));
    }

    /// `names` are headers, each as a template refers to it. (There may be ten thousand routes: their settings are worked
    /// out once.)
    fn check_routes(self, names: &[(&HeaderName, String)], out: &mut Diagnostics) {
        let positions = Declared::positions(&self.declared.routes, &self.raw.routes);
        for (route, position) in self.raw.routes.iter().zip(positions) {
            let path = format!("routes[{position}]");
            for (name, _) in names {
                if let Some(wanted) = route.headers.get(*name) {
                    let path = join_key(&join_key(&path, "headers"), name.as_str());
                    warn(name, &wanted.origin, path, out);
                }
            }
            let mut settings = Vec::new();
            route.settings("", &route.origin, &mut settings);
            let is_template = |setting: &&Setting| {
                let table = setting.key.split('.').next().unwrap_or_default();
                TEMPLATES.contains(&table) && setting.value.contains('{')
            };
            for setting in settings.iter().filter(is_template) {
                let value = setting.value.to_ascii_lowercase();
                for (name, _) in names.iter().filter(|(_, reference)| value.contains(reference)) {
                    warn(name, &setting.origin, format!("{path}.{}", setting.key), out);
                }
            }
        }
    }

    fn check_others(self, name: &HeaderName, out: &mut Diagnostics) {
        let counted = Part::Header(name.clone());
        for (limit, raw) in self.raw.rate_limits.iter().filter(|(_, raw)| raw.key.0.contains(&counted)) {
            warn(name, &raw.key.origin, format!("{}.key", join_key("rate_limits", limit)), out);
        }
        let hashed = format!("\"header:{name}\"");
        for (upstream, raw) in self.raw.upstreams.iter() {
            if raw.balance.render().to_ascii_lowercase().contains(&hashed) {
                warn(name, &raw.balance.origin, format!("{}.balance", join_key("upstreams", upstream)), out);
            }
        }
    }
}

fn warn(name: &HeaderName, origin: &Origin, path: String, out: &mut Diagnostics) {
    let message = format!("the header {name} says here what the client sent, not who it is");
    out.warning("identity-of-client", origin, path, message).hint(
        "it is set for services only; `auth` asks who it is, `{jwt.sub}` or `{client.cert.subject}` says it",
    );
}
