//! Which samples can be stopped and started.

use std::sync::Arc;

use crate::base::service::Switch;

/// The switches of samples by their names.
#[derive(Debug, Clone, Default)]
pub struct Switches(Arc<[(&'static str, Switch)]>);

impl Switches {
    /// These.
    pub fn new(switches: impl IntoIterator<Item = (&'static str, Switch)>) -> Self {
        Self(switches.into_iter().collect())
    }

    pub(super) fn find(&self, wanted: &str) -> Option<&Switch> {
        self.0.iter().find(|(name, _)| *name == wanted).map(|(_, switch)| switch)
    }

    /// All names, for people.
    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }
}
