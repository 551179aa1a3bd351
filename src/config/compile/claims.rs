//! What goes by the name of the identity's header before the gateway has set it: there only the client's own claim stands.

use http::HeaderName;

use super::Compiler;
use crate::base::decode::{Value, join_key};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::Origin;
use crate::config::declared::Declared;
use crate::policy::rate_limit::Part;

/// Keys of a route in which templates stand.
const TEMPLATES: [&str; 6] = ["redirect", "respond", "rewrite", "request", "response", "aggregate"];

impl Compiler<'_> {
    /// Warns of predicates, templates and hashes that read one of the identity's headers.
    pub(super) fn check_claims(self, out: &mut Diagnostics) {
        for name in self.raw.identity.headers().iter().filter_map(|(_, header)| header.0.as_ref()) {
            self.check_claim(name, out);
        }
    }

    fn check_claim(self, name: &HeaderName, out: &mut Diagnostics) {
        let mut warn = |origin: &Origin, path: String| {
            let message = format!("the header {name} says here what the client sent, not who it is");
            out.warning("identity-of-client", origin, path, message)
                .hint("it is set for services only; `auth` asks who it is, `{jwt.sub}` or `{client.cert.subject}` says it");
        };
        let reference = format!("{{header.{name}}}");
        let positions = Declared::positions(&self.declared.routes, &self.raw.routes);
        for (route, position) in self.raw.routes.iter().zip(positions) {
            let path = format!("routes[{position}]");
            if let Some(wanted) = route.headers.get(name) {
                warn(&wanted.origin, join_key(&join_key(&path, "headers"), name.as_str()));
            }
            let mut settings = Vec::new();
            route.settings("", &route.origin, &mut settings);
            for setting in settings {
                let table = setting.key.split('.').next().unwrap_or_default();
                if TEMPLATES.contains(&table) && setting.value.to_ascii_lowercase().contains(&reference) {
                    warn(&setting.origin, format!("{path}.{}", setting.key));
                }
            }
        }
        let counted = Part::Header(name.clone());
        for (limit, raw) in self.raw.rate_limits.iter().filter(|(_, raw)| raw.key.0.contains(&counted)) {
            warn(&raw.key.origin, format!("{}.key", join_key("rate_limits", limit)));
        }
        let hashed = format!("\"header:{name}\"");
        for (upstream, raw) in self.raw.upstreams.iter() {
            if raw.balance.render().to_ascii_lowercase().contains(&hashed) {
                warn(&raw.balance.origin, format!("{}.balance", join_key("upstreams", upstream)));
            }
        }
    }
}
