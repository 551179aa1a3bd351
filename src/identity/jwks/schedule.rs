//! When a key set is fetched, how long it is good for, and what a token is told whose key is not in it. Pure: takes the
//! time, does nothing.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// How long a set is good for that does not say.
pub const FRESH_DEFAULT: Duration = Duration::from_secs(600);
/// Least time a set is good for, whatever it says: nobody is asked more than once a minute.
pub const FRESH_MIN: Duration = Duration::from_secs(60);
/// Longest time a set is good for, whatever it says: a key that was withdrawn is gone after that.
pub const FRESH_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long the last good set is used after that, while no new one can be had.
pub const STALE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Least time between two fetches for the sake of unknown keys: tokens are easily made up.
pub const COOLDOWN: Duration = Duration::from_secs(10);
/// First pause after a failure; doubles with each.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest pause after failures while there is no set at all.
const BACKOFF_MAX_WITHOUT: Duration = Duration::from_secs(10);
/// Longest pause after failures while the last good set is used.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Names of unknown keys kept in mind.
const NAMES_MAX: usize = 1024;

/// When the next fetch is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Now.
    Fetch,
    /// Then, unless something comes up.
    At(Instant),
}

/// What becomes of a token whose key is not in the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// It is refused: the provider was asked and does not have that key.
    Refuse,
    /// It waits for the fetch that is under way or about to begin.
    Wait,
    /// Nobody can say: there is no set, or only one past its time. Worth another try after this long.
    Unavailable(Duration),
}

/// State of one key set.
#[derive(Debug)]
pub struct Schedule {
    due: Instant,
    fetching: bool,
    /// In a row.
    failures: u32,
    success: Option<Success>,
    /// When a fetch began last for the sake of unknown keys.
    asked: Option<Instant>,
    /// Unknown keys that wait for a fetch to begin.
    wanted: HashSet<Box<str>>,
    /// Unknown keys that the fetch under way is for.
    sought: HashSet<Box<str>>,
    /// Keys that a fetch did not find, and when it ended.
    missing: HashMap<Box<str>, Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Success {
    at: Instant,
    fresh_for: Duration,
}

impl Schedule {
    /// Nothing known at `now`; the first fetch is due.
    pub fn new(now: Instant) -> Self {
        Self {
            due: now,
            fetching: false,
            failures: 0,
            success: None,
            asked: None,
            wanted: HashSet::new(),
            sought: HashSet::new(),
            missing: HashMap::new(),
        }
    }

    /// When to fetch, as seen at `now`. One fetch at a time: not to be asked while one is under way.
    pub fn next(&self, now: Instant) -> Next {
        if now >= self.due { Next::Fetch } else { Next::At(self.due) }
    }

    /// A fetch begins.
    pub fn begin(&mut self, now: Instant) {
        self.fetching = true;
        self.sought = std::mem::take(&mut self.wanted);
        if !self.sought.is_empty() {
            self.asked = Some(now);
        }
    }

    /// The fetch brought a set that says to be good for `max_age`.
    pub fn succeeded(&mut self, now: Instant, max_age: Option<Duration>) {
        let fresh_for = max_age.unwrap_or(FRESH_DEFAULT).clamp(FRESH_MIN, FRESH_MAX);
        self.success = Some(Success { at: now, fresh_for });
        self.failures = 0;
        // Ahead of time, so that a set never runs out while there are new ones.
        self.due = now + fresh_for * 4 / 5;
        self.missing.retain(|_, at| now < *at + COOLDOWN);
        let sought = std::mem::take(&mut self.sought);
        let room = NAMES_MAX.saturating_sub(self.missing.len());
        self.missing.extend(sought.into_iter().take(room).map(|kid| (kid, now)));
        self.end();
    }

    /// The fetch brought nothing.
    pub fn failed(&mut self, now: Instant) {
        let longest = if self.success.is_some() { BACKOFF_MAX } else { BACKOFF_MAX_WITHOUT };
        let pause = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.due = now + pause;
        self.sought.clear();
        self.end();
    }

    /// Who joined the fetch that ends asks again if it did not help.
    fn end(&mut self) {
        self.fetching = false;
        self.wanted.clear();
    }

    /// What becomes of a token at `now` whose key is called `kid` and not in the set.
    pub fn unknown(&mut self, kid: &str, now: Instant) -> Unknown {
        let Some(success) = self.success.filter(|success| now < success.usable_until()) else {
            // The first answer is worth waiting for; one that has just failed is not.
            let is_first = self.failures == 0 && (self.fetching || now >= self.due);
            return if is_first { Unknown::Wait } else { self.unavailable(now) };
        };
        if self.missing.get(kid).is_some_and(|at| now < *at + COOLDOWN) {
            return Unknown::Refuse;
        }
        if self.failures > 0 {
            // What cannot be asked cannot be told. Past its time the set proves nothing; before, it is believed.
            return if now < success.at + success.fresh_for {
                Unknown::Refuse
            } else {
                self.unavailable(now)
            };
        }
        if self.wanted.len() >= NAMES_MAX && !self.wanted.contains(kid) {
            return self.unavailable(now);
        }
        self.wanted.insert(kid.into());
        if !self.fetching {
            let allowed = self.asked.map_or(now, |asked| now.max(asked + COOLDOWN));
            self.due = self.due.min(allowed);
        }
        Unknown::Wait
    }

    fn unavailable(&self, now: Instant) -> Unknown {
        Unknown::Unavailable(self.due.saturating_duration_since(now).max(Duration::from_secs(1)))
    }

    /// Until when the set may be used; `None` before the first.
    pub fn usable_until(&self) -> Option<Instant> {
        self.success.map(|success| success.usable_until())
    }

    /// When a set was fetched last.
    pub fn last_success(&self) -> Option<Instant> {
        self.success.map(|success| success.at)
    }
}

impl Success {
    fn usable_until(self) -> Instant {
        self.at + self.fresh_for + STALE_MAX
    }
}
