//! `[identity.login]` as written, and what can be said of it by itself.

use std::time::Duration;

use crate::base::decode::{Rate, Size, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::{At, Origin};
use crate::base::units::format_duration;
use crate::identity::login::throttle::Failures;
use crate::identity::login::{Settings, Step};
use crate::identity::password::{Bounds, Cost};
use crate::keys;
use crate::policy::cors::CorsRaw;
use crate::routing::{HostPattern, PathPattern};

keys! {
    /// Logging in with a name and a password from the store: `POST {"username", "password"}` gives a token.
    pub struct LoginRaw {
        /// Where one logs in.
        path: PathPattern = fixed("/login"),
        /// Where a refresh token is exchanged for new tokens.
        refresh_path: PathPattern = fixed("/refresh"),
        /// Where tokens are given up.
        logout_path: PathPattern = fixed("/logout"),
        /// Where the provider's public keys are published.
        jwks_path: PathPattern = fixed("/.well-known/jwks.json"),
        /// The provider that issues the tokens, and verifies them: one with a `signing_key`, or a secret.
        provider: required String,
        /// How long a token is valid.
        lifetime: Duration = Duration::from_secs(3600),
        /// How long one may go on without a password, from the last refresh; absent = there are no refresh tokens.
        refresh_lifetime: optional Duration,
        /// Host names of these paths; absent = those of `[defaults]`, else all.
        hosts: Vec<At<HostPattern>> = Vec::new(),
        /// Limits of these paths but the last, in place of those of `[defaults]`; those that count by `"account"` are asked of logins.
        rate_limits: Vec<At<String>> = Vec::new(),
        /// Which pages of other origins may use these paths, in place of that of `[defaults]`.
        cors: optional CorsRaw,
        /// What checking a password costs, and how much of that goes on at once.
        passwords: PasswordsRaw = PasswordsRaw::default(),
        /// How often one may be wrong.
        failures: FailuresRaw = FailuresRaw::default(),
    }
}

keys! {
    /// Argon2id. Hashes that were cheaper are made anew when their user logs in.
    pub struct PasswordsRaw {
        /// Memory of one password, from 1MiB to 1GiB.
        memory: Size = Size(u64::from(Cost::default().memory_kib) << 10),
        /// How often that is passed over, 1 to 64.
        passes: u16 = 2,
        /// Passwords checked at once, each on a thread of its own; 0 = half as many as there are cores.
        workers: u16 = 0,
        /// Passwords that may wait; beyond, logins are answered 503.
        queue: u16 = 64,
    }
}

keys! {
    /// Failed logins that are let pass before an answer is 429, evenly over the period; right ones do not count.
    pub struct FailuresRaw {
        /// Of one address; of IPv6, of one /56.
        per_address: Rate = Rate { count: 30, per: Duration::from_secs(900) },
        /// Of one account. Networks from which it was logged in to have as many of their own.
        per_account: Rate = Rate { count: 10, per: Duration::from_secs(900) },
    }
}

/// Longest lifetime of anything: beyond, sums of times mean nothing any more, and revocations are forgotten too early.
const LIFETIME_MAX: Duration = crate::store::KEPT_OF_ALL;

impl LoginRaw {
    /// The settings, `realm` and `token_cookie` being those of `[identity]`; `path` is the configuration path of the table.
    pub fn settings(
        &self,
        realm: &str,
        token_cookie: Option<&str>,
        path: &str,
        out: &mut Diagnostics,
    ) -> Settings {
        self.check_lifetimes(path, out);
        Settings {
            realm: realm.into(),
            token_cookie: token_cookie.map(Box::from),
            lifetime: *self.lifetime,
            refresh_lifetime: self.refresh_lifetime.as_ref().map(|at| at.value),
            cost: self.passwords.cost(&format!("{path}.passwords"), out),
            bounds: self.passwords.bounds(&format!("{path}.passwords"), out),
            failures: Failures {
                per_address: *self.failures.per_address,
                per_account: *self.failures.per_account,
            },
        }
    }

    fn check_lifetimes(&self, path: &str, out: &mut Diagnostics) {
        let refresh = self.refresh_lifetime.as_ref().map(|at| ("refresh_lifetime", at));
        for (key, at) in [("lifetime", &self.lifetime)].into_iter().chain(refresh) {
            let message = match **at {
                lifetime if lifetime < Duration::from_secs(1) => "tokens would be over before they are used",
                lifetime if lifetime > LIFETIME_MAX => {
                    "tokens would outlive whoever has them: at most ten years"
                }
                _ => continue,
            };
            out.error("invalid-value", &at.origin, format!("{path}.{key}"), message);
        }
        if let Some((key, at)) = refresh.filter(|(_, at)| at.value < *self.lifetime) {
            let message = format!(
                "refresh tokens ({}) would be over before the tokens that they renew ({})",
                format_duration(**at),
                format_duration(*self.lifetime),
            );
            let related = (self.lifetime.origin != Origin::Default).then_some(&self.lifetime.origin);
            let problem = out.error("invalid-value", &at.origin, format!("{path}.{key}"), message);
            related.into_iter().for_each(|origin| {
                problem.related(origin, "the other of the two");
            });
        }
    }

    /// Where `step` is asked for.
    pub fn path_of(&self, step: Step) -> &At<PathPattern> {
        match step {
            Step::Login => &self.path,
            Step::Refresh => &self.refresh_path,
            Step::Logout => &self.logout_path,
            Step::Keys => &self.jwks_path,
        }
    }

    /// Reports paths that are none of one place, or stand for two things.
    pub fn check_paths(&self, path: &str, out: &mut Diagnostics) {
        let paths = Step::ALL.map(|step| (step.path_key(), self.path_of(step)));
        for (index, (key, at)) in paths.iter().enumerate() {
            let text = at.as_str();
            if text.starts_with('~') || text.contains(['{', '*']) {
                let message = format!("{} has to be one path, without parameters", quote(text));
                out.error("invalid-value", &at.origin, format!("{path}.{key}"), message);
            } else if let Some((other, first)) =
                paths.iter().take(index).find(|(_, earlier)| earlier.as_str() == text)
            {
                // Told where it is written; of two that are, at the second.
                let (key, other, origin, related) = match (&at.origin, &first.origin) {
                    (Origin::Default, written) => (other, key, written, None),
                    (written, Origin::Default) => (key, other, written, None),
                    (written, earlier) => (key, other, written, Some(earlier)),
                };
                let message = format!("{} is `{other}` already", quote(text));
                let problem = out.error("path-taken", origin, format!("{path}.{key}"), message);
                related.into_iter().for_each(|origin| {
                    problem.related(origin, "the other of the two");
                });
            }
        }
    }
}

impl PasswordsRaw {
    /// What one password costs.
    pub fn cost(&self, path: &str, out: &mut Diagnostics) -> Cost {
        let memory_kib = u32::try_from(self.memory.0 >> 10).unwrap_or(u32::MAX);
        let cost = Cost { memory_kib, passes: u32::from(*self.passes) };
        if !(Cost::MEMORY_KIB_MIN..=Cost::MEMORY_KIB_MAX).contains(&cost.memory_kib) {
            let message = "the memory of a password is between 1MiB and 1GiB";
            out.error("out-of-range", &self.memory.origin, format!("{path}.memory"), message);
        } else if !(1..=Cost::PASSES_MAX).contains(&cost.passes) {
            let message = "the passes of a password are between 1 and 64";
            out.error("out-of-range", &self.passes.origin, format!("{path}.passes"), message);
        } else if cost.work() < Cost::WORK_ADVISED {
            let at =
                if self.memory.origin == Origin::Default { &self.passes.origin } else { &self.memory.origin };
            let message = "passwords are cheap to guess at this cost when the store is stolen";
            out.warning("cheap-passwords", at, path, message)
                .hint("OWASP advises 19MiB and 2 passes, or no less than 35MiB for memory times passes");
        }
        cost
    }

    fn bounds(&self, path: &str, out: &mut Diagnostics) -> Bounds {
        if *self.workers > WORKERS_MAX {
            let message = format!("at most {WORKERS_MAX} passwords are checked at once");
            out.error("out-of-range", &self.workers.origin, format!("{path}.workers"), message);
        }
        if *self.queue == 0 {
            let message = "at least one password has to wait for its thread";
            out.error("out-of-range", &self.queue.origin, format!("{path}.queue"), message);
        }
        let half = || std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let workers = if *self.workers == 0 { half() } else { usize::from(*self.workers) };
        Bounds { workers, queue: usize::from(*self.queue) }
    }
}

/// Most threads for passwords.
const WORKERS_MAX: u16 = 64;

/// A path of this source code.
#[allow(clippy::unreachable, reason = "each is a literal below, and every test of logins parses them")]
fn fixed(path: &str) -> PathPattern {
    PathPattern::parse(path).unwrap_or_else(|_| unreachable!("a path without parameters"))
}
