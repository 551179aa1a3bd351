//! Counters of limits that all instances share: one round trip, one step, by Redis's own clock.
//!
//! [`Counters::take`] asks for all shared limits of a request at once. A script looks at every window of every one of them
//! and counts only if all admit the request, as one step: nothing can come between, so no interleaving of requests of any
//! number of instances lets more through than the law ([`law`]). The moment is that of Redis, which is one for all;
//! instances' clocks differ.
//!
//! A window's state says nothing of rates, so another configuration goes on with it, and goes by itself when nothing of it
//! counts any more. What stands in its place and was not written by the script ([`Failure::Nonsense`]) is never taken for
//! an empty counter.

mod law;
mod lease;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use smallvec::SmallVec;

use self::law::Encoded;
pub use self::law::{BucketLaw, COUNT_MAX, Law, WindowLaw};
use self::lease::Leases;
use super::connection::{Failure, Redis};
use super::script::Script;
use crate::base::{clock, task};

/// Limits above so many requests a second are counted in batches.
const LEASED_ABOVE: u64 = 1000;

/// How long what nobody waits for may take.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_millis(500);

/// The counters that instances share.
#[derive(Debug)]
pub struct Counters {
    redis: Arc<Redis>,
    prefix: Box<str>,
    lease: Duration,
    take: Script,
    give_back: Script,
    limits: Mutex<HashMap<Identity, Weak<SharedLimit>>>,
    /// What tests set the clock to, in microseconds; 0 = Redis's own.
    #[cfg(test)]
    moment: std::sync::atomic::AtomicU64,
}

/// What makes a limit the same in two configurations of this process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    name: Box<str>,
    law: Law,
}

/// One limit that instances share.
#[derive(Debug)]
pub struct SharedLimit {
    /// What the names of its keys begin with.
    keys: Box<str>,
    law: Encoded,
    leases: Option<Leases>,
}

/// Stands for what a request is counted by: a hash that is the same on all instances. Nothing of a value can be read off
/// it without guessing the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SharedKey([u8; 16]);

impl SharedKey {
    /// The key for `value`, by which a limit of this `kind` counts: limits of another kind have other counters.
    pub fn new(kind: &str, value: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&kind.len().to_le_bytes());
        context.update(kind.as_bytes());
        context.update(value);
        let mut key = [0; 16];
        key.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self(key)
    }
}

/// A request, for one limit.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The limit.
    pub limit: &'a Arc<SharedLimit>,
    /// What it is counted by.
    pub key: SharedKey,
    /// What it costs; at least 1.
    pub cost: u64,
}

/// What a window says to a request, the request left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Whole requests that still fit.
    pub left: u64,
    /// Nanoseconds until the request fits; 0 = it does.
    pub wait: u64,
    /// Nanoseconds until nothing counts any more.
    pub empty_in: u64,
}

/// How a limit stands for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The shortest window, then the longer ones.
    pub rooms: SmallVec<[Room; 2]>,
    /// Whether this limit admits it.
    pub admitted: bool,
    /// Nanoseconds until it may go on, where it waits for its place.
    pub delay: u64,
    /// Needed to give back what was counted.
    pub receipt: Receipt,
}

/// Where and when a request was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The moment of Redis, in microseconds.
    at: u64,
    /// How long the request was to wait, in microseconds.
    delay: u64,
    /// Whether it was counted from a batch that this instance holds.
    leased: bool,
}

/// What all limits say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether all admit the request: then it is counted in all of them, else in none.
    pub admitted: bool,
    /// In the order in which they were asked; `None` for those that were not, because another refused before.
    pub standings: SmallVec<[Option<Standing>; 2]>,
}

/// What one key of the script's answer says.
struct Told {
    standing: Standing,
    cost: u64,
}

impl Counters {
    pub(super) fn new(redis: Arc<Redis>, prefix: &str, lease: Duration) -> Arc<Self> {
        Arc::new(Self {
            redis,
            prefix: prefix.into(),
            lease,
            take: Script::new(include_str!("take.lua")),
            give_back: Script::new(include_str!("give_back.lua")),
            limits: Mutex::default(),
            #[cfg(test)]
            moment: Default::default(),
        })
    }

    /// The limit called `name` under `law`. The same for as long as somebody holds it.
    pub fn limit(&self, name: &str, law: &Law) -> Arc<SharedLimit> {
        let mut limits = self.limits.lock();
        limits.retain(|_, limit| limit.strong_count() > 0);
        let identity = Identity { name: name.into(), law: law.clone() };
        if let Some(limit) = limits.get(&identity).and_then(Weak::upgrade) {
            return limit;
        }
        let waits = law.bucket.is_some_and(|bucket| bucket.queue > 0);
        let is_leased = law.per_second() > LEASED_ABOVE && !self.lease.is_zero() && !waits;
        let limit = Arc::new(SharedLimit {
            keys: format!("{}limit:{name}:", self.prefix).into(),
            law: law.encoded(),
            leases: law
                .bucket
                .filter(|_| is_leased)
                .map(|bucket| Leases::new(law.per_second(), bucket.burst, self.lease)),
        });
        limits.insert(identity, Arc::downgrade(&limit));
        limit
    }

    /// Whether there is anybody to ask at the moment.
    pub fn is_up(&self) -> bool {
        self.redis.is_up()
    }

    /// Asks all limits at once. Takes no longer than `cluster.timeout`.
    ///
    /// # Errors
    /// Nobody can say how the limits stand; each does as its `on_store_failure` says. The request may have been counted.
    pub async fn take(self: &Arc<Self>, asks: &[Ask<'_>]) -> Result<Answer, Failure> {
        let deadline = clock::now() + self.redis.timeout();
        let mut standings: SmallVec<[Option<Standing>; 2]> = asks.iter().map(|_| None).collect();
        // From batches first: what they refuse costs no round trip, and nobody else is asked.
        let mut admitted = true;
        let mut failed = None;
        for (ask, standing) in asks.iter().zip(&mut standings) {
            let Some(leases) = &ask.limit.leases else { continue };
            match leases.take(self, ask, deadline).await {
                Ok(told) => {
                    admitted = told.admitted;
                    *standing = Some(told);
                }
                Err(failure) => failed = Some(failure),
            }
            if !admitted || failed.is_some() {
                break;
            }
        }
        let others: SmallVec<[usize; 2]> =
            (0..asks.len()).filter(|at| standings.get(*at).is_some_and(Option::is_none)).collect();
        if failed.is_none() && admitted && !others.is_empty() {
            let wanted: SmallVec<[Wanted<'_>; 2]> = others
                .iter()
                .filter_map(|at| asks.get(*at))
                .map(|ask| Wanted { ask: *ask, least: ask.cost, most: ask.cost })
                .collect();
            match self.ask(&wanted, deadline).await {
                Ok((all, told)) => {
                    admitted &= all;
                    for (at, told) in others.iter().zip(told) {
                        if let Some(standing) = standings.get_mut(*at) {
                            *standing = Some(told.standing);
                        }
                    }
                }
                Err(failure) => failed = Some(failure),
            }
        }
        if failed.is_some() || !admitted {
            for (ask, standing) in asks.iter().zip(&standings) {
                if let (Some(leases), Some(standing)) = (&ask.limit.leases, standing)
                    && standing.admitted
                {
                    self.undo(leases, ask, standing.receipt);
                }
            }
        }
        match failed {
            Some(failure) => Err(failure),
            None => Ok(Answer { admitted, standings }),
        }
    }

    /// How a limit stands for `key`, with what this instance holds for it; nothing is counted.
    ///
    /// # Errors
    /// Nobody can say.
    pub async fn look(&self, limit: &Arc<SharedLimit>, key: SharedKey) -> Result<Standing, Failure> {
        let deadline = clock::now() + self.redis.timeout();
        // More than ever passes: refused, and so not counted.
        let ask = Ask { limit, key, cost: REFUSED };
        let wanted = [Wanted { ask, least: REFUSED, most: REFUSED }];
        let (_, told) = self.ask(&wanted, deadline).await?;
        let mut standing = told.into_iter().next().map(|told| told.standing).ok_or(Failure::Slow)?;
        let held = limit.leases.as_ref().map_or(0, |leases| leases.held(key));
        for room in &mut standing.rooms {
            room.left = room.left.saturating_add(held);
        }
        Ok(standing)
    }

    /// Gives back what was counted for a request that does not count after all. In the background; what gets lost on the
    /// way stays counted.
    pub fn give_back(self: &Arc<Self>, ask: &Ask<'_>, receipt: Receipt) {
        // Never into a batch: what has drained since it was counted must not pass a second time.
        self.return_later(ask.limit, ask.key, ask.cost, receipt);
    }

    /// Gives back at once what the same question has counted.
    fn undo(self: &Arc<Self>, leases: &Leases, ask: &Ask<'_>, receipt: Receipt) {
        if receipt.leased {
            leases.put_back(ask);
        } else {
            self.return_later(ask.limit, ask.key, ask.cost, receipt);
        }
    }

    fn return_later(
        self: &Arc<Self>,
        limit: &Arc<SharedLimit>,
        key: SharedKey,
        amount: u64,
        receipt: Receipt,
    ) {
        // Without a runtime the process is ending.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (counters, limit) = (self.clone(), limit.clone());
        drop(task::spawn("give back", async move {
            let name = limit.key(key);
            let rest = |command: &mut Cmd| {
                command.arg(1).arg(&name).arg(counters.moment()).arg(amount);
                command.arg(receipt.at).arg(receipt.delay);
                // Without the memory, which comes first.
                for number in limit.law.arguments.iter().skip(1) {
                    command.arg(*number);
                }
            };
            // What came of it is in the metrics.
            drop(counters.give_back.run(&counters.redis, rest, GIVE_BACK_TIMEOUT).await);
        }));
    }

    /// One round trip for all of `wanted`: whether all were admitted, and what each was told.
    async fn ask(
        &self,
        wanted: &[Wanted<'_>],
        deadline: Instant,
    ) -> Result<(bool, SmallVec<[Told; 2]>), Failure> {
        let names: SmallVec<[String; 2]> =
            wanted.iter().map(|wanted| wanted.ask.limit.key(wanted.ask.key)).collect();
        let rest = |command: &mut Cmd| {
            command.arg(wanted.len());
            for name in &names {
                command.arg(name);
            }
            command.arg(self.moment());
            for wanted in wanted {
                let (least, most) = (wanted.least.min(REFUSED), wanted.most.min(COUNT_MAX));
                command.arg(least.max(1)).arg(most.max(1));
                for number in &wanted.ask.limit.law.arguments {
                    command.arg(*number);
                }
            }
        };
        let left = deadline.saturating_duration_since(clock::now());
        let answer = self.take.run(&self.redis, rest, left).await?;
        read(&answer.value, wanted).inspect_err(|failure| {
            self.redis.metrics().failed(failure.word());
            if matches!(failure, Failure::OutOfStep(_)) {
                self.redis.distrust(answer.link);
            }
        })
    }

    /// Forgets batches that nobody uses.
    pub(super) fn tidy(self: &Arc<Self>) {
        let limits: Vec<_> = self.limits.lock().values().filter_map(Weak::upgrade).collect();
        for limit in limits {
            if let Some(leases) = &limit.leases {
                leases.tidy(self, &limit);
            }
        }
    }

    #[cfg(not(test))]
    fn moment(&self) -> u64 {
        0
    }

    #[cfg(test)]
    fn moment(&self) -> u64 {
        self.moment.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// More than any limit admits: no cost is told that is larger.
const REFUSED: u64 = COUNT_MAX + 1;

/// What is asked for at one key: as much between `least` and `most` as fits.
struct Wanted<'a> {
    ask: Ask<'a>,
    least: u64,
    most: u64,
}

impl SharedLimit {
    fn key(&self, key: SharedKey) -> String {
        let mut name = String::with_capacity(self.keys.len() + 22);
        name.push_str(&self.keys);
        URL_SAFE_NO_PAD.encode_string(key.0, &mut name);
        name
    }

    /// Permits that one instance holds at most beside those that requests have: by so much may each instance be ahead of
    /// the law. 0 = none, every request is counted on its own.
    pub fn batch_max(&self) -> u64 {
        self.leases.as_ref().map_or(0, Leases::batch_max)
    }
}

/// Reads the script's answer, which has numbers in their places, or is none.
fn read(answer: &Value, wanted: &[Wanted<'_>]) -> Result<(bool, SmallVec<[Told; 2]>), Failure> {
    let Value::Array(values) = answer else {
        return Err(Failure::OutOfStep("the script answered with no list"));
    };
    let mut numbers = values.iter().map(|value| match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    });
    let mut next =
        || numbers.next().flatten().ok_or(Failure::OutOfStep("the script's answer is no list of numbers"));
    let status = next()?;
    let at = next()?;
    if status > 1 {
        let index = usize::try_from(at).unwrap_or(0).wrapping_sub(1);
        let key = wanted.get(index).map(|wanted| wanted.ask.limit.key(wanted.ask.key));
        return Err(Failure::Nonsense(format!("{} is no counter", key.unwrap_or_default())));
    }
    let mut all: SmallVec<[Told; 2]> = SmallVec::with_capacity(wanted.len());
    for wanted in wanted {
        let (admitted, cost, delay) = (next()? == 1, next()?, next()?);
        let mut rooms = SmallVec::new();
        for _ in 0..wanted.ask.limit.law.windows {
            let (left, wait, empty_in) = (next()?, next()?, next()?);
            rooms.push(Room { left, wait: nanos(wait), empty_in: nanos(empty_in) });
        }
        let receipt = Receipt { at, delay, leased: false };
        let standing = Standing { rooms, admitted, delay: nanos(delay), receipt };
        if cost < wanted.least || cost > wanted.most.max(wanted.least) {
            return Err(Failure::OutOfStep("the script counted what nobody asked for"));
        }
        all.push(Told { standing, cost });
    }
    if status == 1 && !all.iter().all(|told| told.standing.admitted) {
        return Err(Failure::OutOfStep("the script contradicts itself"));
    }
    Ok((status == 1, all))
}

fn nanos(micros: u64) -> u64 {
    micros.saturating_mul(1000)
}
