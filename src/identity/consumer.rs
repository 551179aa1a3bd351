//! Consumers: the parties that use the gateway's services, each with keys, subjects, groups and a plan.

use std::sync::Arc;

use super::usage::Accounts;

/// A party that uses services: an app, a partner, a team.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Consumer {
    /// Unique among those of the configuration and of the store.
    pub name: Arc<str>,
    /// What it belongs to; counted as its roles.
    pub groups: Box<[Box<str>]>,
    /// The plan that bounds its use; `None`: what the route says.
    pub plan: Option<Box<str>>,
    /// When it became one, in Unix seconds: periods of quotas may begin with that.
    pub since: Option<i64>,
    /// What it has used.
    pub accounts: Accounts,
}

/// An API key that is known and valid.
#[derive(Debug, Default)]
pub struct ApiKey {
    /// What may be shown of it: its visible prefix, or `CONSUMER#INDEX` of the configuration.
    pub id: Box<str>,
    /// Whose it is.
    pub consumer: Arc<Consumer>,
    /// When it ends, in Unix seconds.
    pub expires_at: Option<i64>,
    /// A plan of its own, in place of its consumer's.
    pub plan: Option<Box<str>>,
    /// When it was made, in Unix seconds.
    pub since: Option<i64>,
    /// What was used with it under a plan of its own.
    pub accounts: Accounts,
}
