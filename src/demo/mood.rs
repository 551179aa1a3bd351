//! How a sample service feels: well, slow, failing, or both.

use std::time::Duration;

use http::StatusCode;

/// Where its mood is changed.
pub(super) const PREFIX: &str = "/_demo/";

/// Longest delay that can be asked for.
const DELAY_MAX_MS: u64 = 60_000;

/// How a sample service feels.
#[derive(Debug, Default)]
pub(super) struct Mood {
    delay_ms: u64,
    failure: Option<StatusCode>,
}

impl Mood {
    /// How much longer than usual an answer takes.
    pub(super) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// The status of every answer, when it is failing.
    pub(super) fn failure(&self) -> Option<StatusCode> {
        self.failure
    }

    /// Does `slow?ms=`, `fail?status=` or `heal`, and says how it feels now, or what is wrong with the command.
    pub(super) fn change(&mut self, command: &str, query: &str) -> Result<String, &'static str> {
        match command {
            "slow" => {
                let delay = number(query, "ms").filter(|ms| *ms <= DELAY_MAX_MS);
                self.delay_ms = delay.ok_or("slow wants ?ms= with a number up to 60000")?;
            }
            "fail" => {
                let status = number(query, "status").filter(|status| (400..600).contains(status));
                let status = status.and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
                self.failure = Some(status.ok_or("fail wants ?status= with a number from 400 to 599")?);
            }
            "heal" => *self = Self::default(),
            _ => return Err("it can be told slow?ms=, fail?status=, heal, stop?service= and start?service="),
        }
        Ok(self.describe())
    }

    fn describe(&self) -> String {
        match (self.delay_ms, self.failure) {
            (0, None) => "well".to_owned(),
            (0, Some(status)) => format!("failing with {}", status.as_u16()),
            (ms, None) => format!("slow by {ms} ms"),
            (ms, Some(status)) => format!("slow by {ms} ms and failing with {}", status.as_u16()),
        }
    }
}

/// The number of the parameter `name`.
fn number(query: &str, name: &str) -> Option<u64> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}
