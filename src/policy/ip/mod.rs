//! `[routes.ip]`: which addresses may use a route.

mod config;

pub use config::IpRaw;

use std::net::IpAddr;

use super::Verdict;
use super::networks::Networks;
use crate::base::reason::Reason;

/// Who may come: `deny` wins, and an `allow` refuses everybody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IpRules {
    /// `None` = everybody who is not denied.
    allow: Option<Networks>,
    deny: Networks,
}

impl IpRules {
    /// Refuses `deny`, and if `allow` is given everybody outside of it.
    pub fn new(allow: Option<Networks>, deny: Networks) -> Self {
        Self { allow, deny }
    }

    /// Judges `client`, the address after trusted proxies. IPv4 mapped into IPv6 counts as IPv4.
    pub fn check(&self, client: IpAddr) -> Verdict {
        let allowed = self.allow.as_ref().is_none_or(|allow| allow.contains(client));
        if allowed && !self.deny.contains(client) { Verdict::Pass } else { Verdict::refuse(Reason::IpDenied) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::decode::decode_str;
    use crate::base::diagnostic::{Diagnostics, Severity};

    fn compile(text: &str) -> (Option<IpRules>, Diagnostics) {
        let (raw, mut out) = decode_str::<IpRaw>(text);
        (raw.and_then(|raw| raw.compile("routes[0].ip", &mut out)), out)
    }

    #[track_caller]
    fn passes(rules: &IpRules, address: &str) -> bool {
        rules.check(address.parse().unwrap()) == Verdict::Pass
    }

    #[test]
    fn deny_wins_over_allow() {
        let (rules, out) = compile("allow = ['10.0.0.0/8', '2001:db8::/32']\ndeny = ['10.9.0.0/16']");
        let rules = rules.unwrap();
        assert!(out.is_empty());
        assert!(passes(&rules, "10.1.1.1"));
        assert!(passes(&rules, "::ffff:10.1.1.1"));
        assert!(passes(&rules, "2001:db8::1"));
        assert!(!passes(&rules, "10.9.1.1"));
        assert!(!passes(&rules, "::ffff:10.9.1.1"));
        assert!(!passes(&rules, "192.0.2.1"));
    }

    #[test]
    fn without_allow_everybody_else_passes() {
        let (rules, _) = compile("deny = ['192.0.2.1', '::/0']");
        let rules = rules.unwrap();
        assert!(passes(&rules, "192.0.2.2"));
        assert!(!passes(&rules, "192.0.2.1"));
        assert!(!passes(&rules, "2001:db8::1"));
    }

    /// `allow = []` lifts an inherited list: it must not lock everybody out.
    #[test]
    fn an_empty_allow_is_no_rule() {
        assert!(compile("allow = []\ndeny = []").0.is_none());
        assert!(passes(&compile("allow = []\ndeny = ['10.0.0.0/8']").0.unwrap(), "192.0.2.1"));
    }

    #[test]
    fn an_allowed_network_that_is_denied_is_warned_of() {
        let (rules, out) = compile("allow = ['10.1.0.0/16', '10.0.0.0/7']\ndeny = ['10.0.0.0/8']");
        assert!(rules.is_some());
        let warnings: Vec<_> = out.iter().collect();
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].severity, Severity::Warning);
        assert_eq!(warnings[0].path, "routes[0].ip.allow[0]");
        assert_eq!(warnings[0].message, "10.1.0.0/16 is allowed here but denied as part of 10.0.0.0/8");
        assert!(warnings[0].related.is_some());
    }

    #[test]
    fn what_is_no_network_is_an_error() {
        for text in ["allow = ['10.0.0.5/8']", "deny = ['example.com']", "deny = '10.0.0.0/8'", "block = []"]
        {
            assert!(compile(text).1.has_errors(), "{text}");
        }
    }
}
