//! Scripts that Redis runs as one step.

use std::time::Duration;

use redis::{Cmd, Script as Known};

use super::connection::{Answer, Failure, Redis};
use crate::base::clock;

/// A script, called by the hash of its text: Redis keeps it from the first time on.
#[derive(Debug)]
pub(super) struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, hash: Known::new(text).get_hash().to_owned() }
    }

    /// Runs it: one round trip, two where Redis was started since the last time. `rest` adds number of keys, keys and
    /// arguments.
    pub(super) async fn run(
        &self,
        redis: &Redis,
        rest: impl Fn(&mut Cmd),
        limit: Duration,
    ) -> Result<Answer, Failure> {
        let began = clock::now();
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash);
        rest(&mut command);
        match redis.call(&command, limit).await {
            Err(Failure::NoScript) => {
                let mut command = redis::cmd("EVAL");
                command.arg(self.text);
                rest(&mut command);
                let left = limit.saturating_sub(clock::now().saturating_duration_since(began));
                redis.call(&command, left).await
            }
            done => done,
        }
    }
}
