//! What the configuration says of logins, checked.

use std::time::Duration;

use super::throttle::Failures;
use crate::identity::password::{Bounds, Cost};

/// `[identity.login]`, as far as it can be checked by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What `WWW-Authenticate` calls that which is protected.
    pub realm: Box<str>,
    /// The cookie that access tokens may stand in, beside `Authorization`.
    pub token_cookie: Option<Box<str>>,
    /// How long an access token is valid.
    pub lifetime: Duration,
    /// How long a refresh token is; `None`: there are none.
    pub refresh_lifetime: Option<Duration>,
    /// What a password costs.
    pub cost: Cost,
    /// How many are checked, and wait.
    pub bounds: Bounds,
    /// How often one may be wrong.
    pub failures: Failures,
}
