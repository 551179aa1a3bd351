//! What is counted of logins, and of the passwords they bring.

use std::time::Duration;

use super::cells::{Gauge, Histogram, SECONDS, Words};

/// What becomes of a request for a session.
const OUTCOMES: &[&str] = &["ok", "failed", "throttled", "busy", "malformed", "unavailable"];

/// The metrics of `[identity.login]`.
#[derive(Debug)]
pub struct LoginMetrics {
    /// By [`SessionStep`].
    pub(super) outcomes: [Words; SessionStep::ALL.len()],
    pub(super) password: Histogram,
    pub(super) waiting: Gauge,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionStep {
    /// A session, for a password.
    Login,
    /// New tokens, for a refresh token.
    Refresh,
    /// Its end.
    Logout,
}

impl SessionStep {
    pub(super) const ALL: [Self; 3] = [Self::Login, Self::Refresh, Self::Logout];

    /// The value of the label `step`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Refresh => "refresh",
            Self::Logout => "logout",
        }
    }
}

impl Default for LoginMetrics {
    fn default() -> Self {
        let outcomes = SessionStep::ALL.map(|step| match step {
            SessionStep::Refresh => Words::known(&[OUTCOMES, &["reused"]].concat()),
            _ => Words::known(OUTCOMES),
        });
        Self { outcomes, password: Histogram::new(&SECONDS), waiting: Gauge::default() }
    }
}

impl LoginMetrics {
    /// A `step` came to its `outcome`: one of the words of this file.
    pub fn ended(&self, step: SessionStep, outcome: &'static str) {
        if let Some(outcomes) = SessionStep::ALL.iter().position(|known| *known == step) {
            self.outcomes.get(outcomes).into_iter().for_each(|outcomes| outcomes.inc(outcome));
        }
    }

    /// A password was checked, on a thread for that.
    pub fn password_checked(&self, took: Duration) {
        self.password.observe(took.as_secs_f64());
    }

    /// So many wait for such a thread now.
    pub fn passwords_waiting(&self, count: usize) {
        self.waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The time that checked passwords took in all, in seconds, and how many they were.
    #[cfg(test)]
    pub fn passwords(&self) -> (f64, u64) {
        let reading = self.password.read();
        (reading.sum, reading.count)
    }
}
