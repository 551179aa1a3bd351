//! An exchange that messages go to, and the channel by which it was last reached.

use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;

use super::lane::Lane;
use super::message::Name;
use super::{Link, LinkId};

/// An exchange, as a configuration names it. Its channel is looked for by name once for each connection. Cheap to clone.
#[derive(Clone)]
pub struct Exchange(Arc<Known>);

struct Known {
    name: Name,
    reached: ArcSwapOption<(LinkId, Weak<Lane>)>,
}

impl Exchange {
    /// The exchange called `name`.
    pub fn new(name: Name) -> Self {
        Self(Arc::new(Known { name, reached: ArcSwapOption::empty() }))
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.0.name
    }

    /// Its channel on `link`.
    pub(super) fn lane(&self, link: &Link) -> Arc<Lane> {
        if let Some((id, lane)) = self.0.reached.load().as_deref()
            && *id == link.id
            && let Some(lane) = lane.upgrade()
        {
            return lane;
        }
        let lane = link.exchange(self.name());
        self.0.reached.store(Some(Arc::new((link.id, Arc::downgrade(&lane)))));
        lane
    }
}

impl PartialEq for Exchange {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Exchange {}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}
