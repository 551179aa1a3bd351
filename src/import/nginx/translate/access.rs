//! Who may come in: `allow`, `deny`, and what closes a route because it cannot be said.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::parse::Directive;
use super::super::scope::Scope;
use super::Translator;
use super::known::{Known, known};
use super::route::{Edits, Route, Target};
use crate::import::report::Verdict;
use crate::import::toml;

/// What nothing can be but refused with, where it cannot be said who may come in.
const CLOSED_STATUS: u16 = 403;

impl<'a> Translator<'a> {
    /// Whether a block keeps anybody out, by itself or by what is around it; also under a condition.
    pub(super) fn keeps_out(&self, scope: &Scope<'a>) -> bool {
        self.refuses(scope)
            || self.closing(scope).is_some()
            || scope.nearest_of(&["allow", "deny"]).iter().any(|rule| rule.name == "deny")
    }

    /// Whether a block refuses anybody by its own words.
    pub(super) fn refuses(&self, scope: &Scope<'a>) -> bool {
        scope.own().iter().any(|directive| match directive.name.as_str() {
            "deny" | "internal" => true,
            "return" => directive.arg(0).parse::<u16>().is_ok_and(|status| status >= 400),
            "if" | "limit_except" => {
                let inner = scope.within(directive.inner());
                self.refuses(&inner) || self.closing(&inner).is_some()
            }
            _ => false,
        })
    }

    /// Guards a route that nginx' access phase would: addresses, or closed altogether.
    pub(super) fn guard(&mut self, scope: &Scope<'a>, route: &mut Route<'a>) {
        let rules = scope.nearest_of(&["allow", "deny"]);
        let any_suffices = scope.value("satisfy") == Some("any");
        if let Some(closing) = self.closing(scope) {
            let why = match known(&closing.name) {
                Some(Known::Closes(why)) => why,
                _ => "this importer does not know it, and it may keep people out",
            };
            // With `satisfy any` an address that is allowed suffices; for all others it stays closed.
            let addresses_suffice =
                any_suffices && rules.iter().any(|rule| rule.name == "deny" && rule.arg(0) == "all");
            if addresses_suffice {
                self.drop(closing, format!("{why}: only the allowed addresses come in"));
            } else {
                self.drop(closing, format!("CLOSED, answers {CLOSED_STATUS}: {why}"));
                close(route, &format!("{} cannot be said", closing.text()));
                return;
            }
        }
        if !rules.is_empty() && self.takes_other_addresses(scope) {
            let why = "the addresses of clients come from where Edgeward does not take them";
            if let Some(rule) = rules.first() {
                self.drop(rule, format!("CLOSED, answers {CLOSED_STATUS}: {why}"));
            }
            close(route, why);
            return;
        }
        self.addresses(&rules, route);
    }

    /// The directive that may keep people out and cannot be said.
    pub(super) fn closing(&self, scope: &Scope<'a>) -> Option<&'a Directive> {
        if let Some(unknown) =
            scope.all_in_servers().find(|one| known(&one.name).is_none() && one.arg(0) != "off")
        {
            return Some(unknown);
        }
        let all: Vec<&'a Directive> = scope.all().collect();
        let counts = |directive: &&'a Directive| {
            matches!(known(&directive.name), Some(Known::Closes(_)))
                && scope
                    .one(&directive.name)
                    .is_some_and(|nearest| nearest.id == directive.id && nearest.arg(0) != "off")
        };
        // What only configures another does not close by itself.
        let configures = |name: &str| {
            matches!(
                name,
                "auth_basic_user_file" | "auth_request_set" | "auth_jwt_key_file" | "secure_link_md5"
            ) || name.ends_with("_rules")
                || name.ends_with("_file") && name.starts_with("modsecurity")
        };
        all.into_iter().filter(counts).find(|directive| !configures(&directive.name))
    }

    /// `allow` and `deny`, of which nginx takes the first that fits.
    fn addresses(&mut self, rules: &[&'a Directive], route: &mut Route<'a>) {
        if rules.is_empty() {
            return;
        }
        let mut list = Vec::new();
        for rule in rules {
            let allow = rule.name == "allow";
            match networks(rule.arg(0)) {
                Some(networks) => {
                    if self.verdicts.of(rule.id).is_none() {
                        self.done(rule);
                    }
                    list.extend(networks.into_iter().map(|network| (allow, network)));
                }
                None if rule.arg(0) == "unix:" => {
                    self.nearly(rule, "clients of unix sockets have no address and pass")
                }
                None => self.verdicts.note(rule.id, Verdict::Dropped, "is no network"),
            }
        }
        let (allowed, denied) = first_match(&list);
        let everybody = [IpNet::from(IpAddr::from([0_u8; 4])), IpNet::from(IpAddr::from([0_u16; 8]))]
            .map(|address| IpNet::new(address.addr(), 0).unwrap_or(address));
        let ends_closed =
            everybody.iter().all(|all| list.iter().any(|(allow, network)| !allow && network == all));
        let written = if ends_closed && allowed.is_empty() {
            ("deny", everybody.to_vec())
        } else if ends_closed {
            ("allow", allowed)
        } else if denied.is_empty() {
            return;
        } else {
            ("deny", denied)
        };
        let (key, networks) = written;
        let networks: Vec<String> = networks
            .iter()
            .map(|network| {
                if network.prefix_len() == network.max_prefix_len() {
                    network.addr().to_string()
                } else {
                    network.to_string()
                }
            })
            .collect();
        let written = toml::inline([(key, toml::list(networks))]);
        // Of a location that this one leads to.
        let other = route.keys.iter().find(|(key, value)| *key == "ip" && *value != written);
        if other.is_some() {
            if let Some(rule) = rules.first() {
                self.drop(
                    rule,
                    format!("CLOSED, answers {CLOSED_STATUS}: the location it leads to has other addresses"),
                );
            }
            close(route, "two lists of addresses hold at once");
            return;
        }
        route.key("ip", written);
    }
}

/// Closes a route: nobody comes in.
pub(super) fn close(route: &mut Route<'_>, why: &str) {
    route.comments.push(format!("CLOSED: {why}"));
    route.target = Target::Respond { status: CLOSED_STATUS, text: None, content_type: None };
    route.keys.retain(|(key, _)| *key == "access_log");
    route.request = Edits::default();
}

/// The networks that an argument of `allow` or `deny` stands for.
fn networks(text: &str) -> Option<Vec<IpNet>> {
    if text == "all" {
        return Some(vec!["0.0.0.0/0".parse().ok()?, "::/0".parse().ok()?]);
    }
    if let Ok(network) = text.parse::<IpNet>() {
        return Some(vec![network.trunc()]);
    }
    Some(vec![IpNet::from(text.parse::<IpAddr>().ok()?)])
}

/// What is allowed and what is denied where the first rule that fits decides: each list without what an earlier rule of
/// the other kind has decided.
fn first_match(rules: &[(bool, IpNet)]) -> (Vec<IpNet>, Vec<IpNet>) {
    let (mut allowed, mut denied): (Vec<IpNet>, Vec<IpNet>) = (Vec::new(), Vec::new());
    for (allow, network) in rules {
        let (own, other) = if *allow { (&mut allowed, &denied) } else { (&mut denied, &allowed) };
        let mut left = vec![*network];
        for hole in other {
            left = left.into_iter().flat_map(|network| without(network, *hole)).collect();
        }
        for network in left {
            if !own.iter().any(|known| known.contains(&network)) {
                own.push(network);
            }
        }
    }
    (allowed, denied)
}

/// `network` without `hole`: halves of halves, at most one for each bit.
fn without(network: IpNet, hole: IpNet) -> Vec<IpNet> {
    if hole.contains(&network) {
        return Vec::new();
    }
    if !network.contains(&hole) {
        return vec![network];
    }
    match network.subnets(network.prefix_len() + 1) {
        Ok(halves) => halves.flat_map(|half| without(half, hole)).collect(),
        Err(_) => vec![network],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(text: &str) -> Vec<(bool, IpNet)> {
        text.split_whitespace()
            .flat_map(|rule| {
                let (allow, network) = rule.split_at(1);
                networks(network).unwrap().into_iter().map(move |network| (allow == "+", network))
            })
            .collect()
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let (allowed, _) = first_match(&rules("-192.168.1.1 +192.168.1.0/30 -all"));
        assert_eq!(
            allowed.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["192.168.1.0/32", "192.168.1.2/31"]
        );
        let (_, denied) = first_match(&rules("+10.0.0.1 -10.0.0.0/31 +all"));
        assert_eq!(denied.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/32"]);
    }

    proptest! {
        #[test]
        fn lists_say_what_the_rules_say(
            list in proptest::collection::vec((any::<bool>(), 0_u8..16, 28_u8..=32), 0..6),
            address in 0_u8..16,
        ) {
            let list: Vec<(bool, IpNet)> = list
                .into_iter()
                .map(|(allow, last, length)| {
                    (allow, IpNet::new(IpAddr::from([10, 0, 0, last]), length).unwrap().trunc())
                })
                .collect();
            let (allowed, denied) = first_match(&list);
            let address = IpAddr::from([10, 0, 0, address]);
            let expected = list.iter().find(|(_, network)| network.contains(&address)).map(|(allow, _)| *allow);
            let said = |list: &[IpNet]| list.iter().any(|network| network.contains(&address));
            prop_assert_eq!((said(&allowed), said(&denied)), (expected == Some(true), expected == Some(false)));
        }
    }
}
