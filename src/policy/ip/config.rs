//! What a route writes under `ip`, and what becomes of it.

use super::{IpRules, Networks};
use crate::base::decode::NetworkList;
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::At;
use crate::keys;

keys! {
    /// Which client addresses may use a route; others get 403.
    pub struct IpRaw {
        /// Networks that may; empty = all. Also `"file:PATH"`: those in a file, one a line.
        allow: Vec<At<NetworkList>> = Vec::new(),
        /// Networks that may not; wins over `allow`.
        deny: Vec<At<NetworkList>> = Vec::new(),
    }
}

impl IpRaw {
    /// The rules; `None` if there are none. `path` is the configuration path of the table.
    pub fn compile(&self, path: &str, out: &mut Diagnostics) -> Option<IpRules> {
        for (index, allow) in self.allow.iter().enumerate() {
            // What stands in files changes without anybody who writes this.
            let [network] = &***allow else { continue };
            let covers = |deny: &&At<NetworkList>| matches!(&****deny, [deny] if deny.contains(network));
            if allow.is_file() {
                continue;
            }
            if let Some(deny) = self.deny.iter().filter(|deny| !deny.is_file()).find(covers) {
                let message = format!("{} is allowed here but denied as part of {}", network, deny.shown());
                out.warning("allow-denied", &allow.origin, format!("{path}.allow[{index}]"), message)
                    .hint("`deny` wins: remove one of the two")
                    .related(&deny.origin, "denied here");
            }
        }
        let networks =
            |lists: &[At<NetworkList>]| Networks::new(lists.iter().flat_map(|list| list.iter().copied()));
        let allow = (!self.allow.is_empty()).then(|| networks(&self.allow));
        let deny = networks(&self.deny);
        (allow.is_some() || !deny.is_empty()).then(|| IpRules::new(allow, deny))
    }
}
