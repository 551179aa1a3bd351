//! What a route writes under `ip`, and what becomes of it.

use ipnet::IpNet;

use super::{IpRules, Networks};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::At;
use crate::keys;

keys! {
    /// Which client addresses may use a route; others get 403.
    pub struct IpRaw {
        /// Networks that may; empty = all.
        allow: Vec<At<IpNet>> = Vec::new(),
        /// Networks that may not; wins over `allow`.
        deny: Vec<At<IpNet>> = Vec::new(),
    }
}

impl IpRaw {
    /// The rules; `None` if there are none. `path` is the configuration path of the table.
    pub fn compile(&self, path: &str, out: &mut Diagnostics) -> Option<IpRules> {
        for (index, allow) in self.allow.iter().enumerate() {
            if let Some(deny) = self.deny.iter().find(|deny| deny.contains(&allow.value)) {
                let message = format!("{} is allowed here but denied as part of {}", allow.value, deny.value);
                out.warning("allow-denied", &allow.origin, format!("{path}.allow[{index}]"), message)
                    .hint("`deny` wins: remove one of the two")
                    .related(&deny.origin, "denied here");
            }
        }
        let networks = |list: &[At<IpNet>]| Networks::new(list.iter().map(|network| network.value));
        let allow = (!self.allow.is_empty()).then(|| networks(&self.allow));
        let deny = networks(&self.deny);
        (allow.is_some() || !deny.is_empty()).then(|| IpRules::new(allow, deny))
    }
}
