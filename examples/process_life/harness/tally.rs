//! What clients did and what became of it, by kind.

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Failures of a kind that are kept in full.
const SHOWN_MAX: usize = 5;

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// GETs on a connection that is kept.
    Get,
    /// A connection idles, then carries a POST: not idempotent, so no client may send it twice.
    IdlePost,
    /// Each request on a connection of its own.
    Fresh,
    /// GETs and POSTs, several at once on one HTTP/2 connection.
    Http2,
    /// Event streams of a few seconds.
    Events,
    /// Bodies that drip.
    Upload,
    /// Messages that come back, one after the other, for as long as the socket lives.
    WebSocket,
}

impl Kind {
    pub const ALL: [Self; 7] =
        [Self::Get, Self::IdlePost, Self::Fresh, Self::Http2, Self::Events, Self::Upload, Self::WebSocket];

    fn name(self) -> &'static str {
        match self {
            Self::Get => "keep-alive GET",
            Self::IdlePost => "POST after idling",
            Self::Fresh => "new connection",
            Self::Http2 => "HTTP/2 stream",
            Self::Events => "event stream",
            Self::Upload => "slow upload",
            Self::WebSocket => "WebSocket message",
        }
    }
}

/// Something that clients count.
#[derive(Debug, Clone, Copy)]
pub enum Count {
    /// A request (or message) was begun.
    Request,
    /// It was answered, whole and right.
    Answer,
    /// A connection was opened.
    Connection,
    /// The gateway said that it closes: `Connection: close`, GOAWAY, a close frame.
    Announced,
    /// The gateway closed a connection on which nothing was under way.
    ClosedIdle,
    /// HTTP/2 said that a request had not been looked at; it was sent again on a new connection.
    SentAgain,
    /// Still open when the process it belonged to had been leaving for the grace period.
    Outlived,
}

const COUNTS: usize = 7;

/// The counts of a run.
#[derive(Debug)]
pub struct Tally {
    began: Instant,
    kinds: [Counts; Kind::ALL.len()],
    doing: Mutex<String>,
    /// When processes were told to leave.
    leaving: Mutex<Vec<Instant>>,
}

#[derive(Debug, Default)]
struct Counts {
    counts: [AtomicU64; COUNTS],
    failures: AtomicU64,
    shown: Mutex<Vec<String>>,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            kinds: Default::default(),
            doing: Mutex::new("start".to_owned()),
            leaving: Mutex::default(),
        }
    }

    /// What is being done to the gateway from now on: failures are reported with it.
    pub fn doing(&self, what: String) {
        *self.doing.lock().unwrap() = what;
    }

    /// A process is told to leave now.
    pub fn leaves(&self) {
        self.leaving.lock().unwrap().push(Instant::now());
    }

    /// Whether a process was told to leave of which that is true.
    pub fn any_left(&self, when: impl Fn(Instant) -> bool) -> bool {
        self.leaving.lock().unwrap().iter().any(|told| when(*told))
    }

    pub fn add(&self, kind: Kind, count: Count) {
        self.kinds[kind as usize].counts[count as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Something was lost.
    pub fn fail(&self, kind: Kind, what: &str) {
        let counts = &self.kinds[kind as usize];
        counts.failures.fetch_add(1, Ordering::Relaxed);
        let mut shown = counts.shown.lock().unwrap();
        if shown.len() < SHOWN_MAX {
            let at = self.began.elapsed().as_secs_f64();
            let left = self.leaving.lock().unwrap();
            let left: Vec<String> = left
                .iter()
                .rev()
                .take(3)
                .map(|told| format!("{:.1}", told.elapsed().as_secs_f64()))
                .collect();
            let left = if left.is_empty() {
                String::new()
            } else {
                format!("; processes were told to leave {} s before", left.join(", "))
            };
            shown.push(format!(
                "{}, at {at:.3} s, {}{left}: {what}",
                kind.name(),
                self.doing.lock().unwrap()
            ));
        }
    }

    pub fn get(&self, kind: Kind, count: Count) -> u64 {
        self.kinds[kind as usize].counts[count as usize].load(Ordering::Relaxed)
    }

    /// Failures of a kind.
    pub fn lost(&self, kind: Kind) -> u64 {
        self.kinds[kind as usize].failures.load(Ordering::Relaxed)
    }

    /// Failures of all kinds.
    pub fn failures(&self) -> u64 {
        Kind::ALL.into_iter().map(|kind| self.lost(kind)).sum()
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The counts as a table, then the first failures in full.
    pub fn report(&self) -> String {
        let mut text = format!(
            "{:<18} {:>9} {:>9} {:>7} {:>7} {:>7} {:>6} {:>8} {:>7}\n",
            "", "requests", "answers", "conns", "told", "idle", "again", "outlived", "failed"
        );
        for (kind, counts) in Kind::ALL.into_iter().zip(&self.kinds) {
            let of = |count: Count| self.get(kind, count);
            writeln!(
                text,
                "{:<18} {:>9} {:>9} {:>7} {:>7} {:>7} {:>6} {:>8} {:>7}",
                kind.name(),
                of(Count::Request),
                of(Count::Answer),
                of(Count::Connection),
                of(Count::Announced),
                of(Count::ClosedIdle),
                of(Count::SentAgain),
                of(Count::Outlived),
                counts.failures.load(Ordering::Relaxed),
            )
            .unwrap();
        }
        for counts in &self.kinds {
            for failure in counts.shown.lock().unwrap().iter() {
                writeln!(text, "FAILED {failure}").unwrap();
            }
        }
        text
    }

    /// What does not add up: a kind that did nothing, or requests whose end nobody knows.
    pub fn gaps(&self) -> Vec<String> {
        let mut gaps = Vec::new();
        for (kind, counts) in Kind::ALL.into_iter().zip(&self.kinds) {
            let (asked, answered) = (self.get(kind, Count::Request), self.get(kind, Count::Answer));
            let lost = counts.failures.load(Ordering::Relaxed) + self.get(kind, Count::Outlived);
            if answered == 0 {
                gaps.push(format!("{}: not one answer", kind.name()));
            }
            if asked > answered + lost {
                gaps.push(format!("{}: {} requests have no end", kind.name(), asked - answered - lost));
            }
        }
        gaps
    }
}
