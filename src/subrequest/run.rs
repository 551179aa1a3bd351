//! Runs a plan: every leg starts the moment its inputs are there, under one deadline.
//!
//! All legs of a request run in its own task: nothing is spawned, and dropping the future drops every call under way.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use http::Method;
use tokio::sync::Notify;
use tokio::task::unconstrained;

use super::config::OnFailure;
use super::input::{Inputs, Made, Sight, Unmade};
use super::json::{self, Json};
use super::outcome::Failure;
use super::plan::{ForEach, Leg, Plan};
use crate::base::{clock, fault, panics};

/// Calls services for legs.
pub trait Caller: Sync {
    /// Makes one call. Its time is over at `call.deadline`, after which the future is dropped.
    fn call(&self, call: LegCall<'_>) -> impl Future<Output = Result<Answer, Failure>> + Send;

    /// The moment.
    fn now(&self) -> Instant {
        clock::now()
    }
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub struct LegCall<'a> {
    /// For whom.
    pub leg: &'a Leg,
    /// What is asked.
    pub made: &'a Made,
    /// When its time is over.
    pub deadline: Option<Instant>,
    /// Largest answer.
    pub bytes_max: usize,
    /// What is left for all answers: every piece is taken from it before it is kept.
    pub room: &'a Room,
    /// Counts the attempts.
    pub attempts: &'a AtomicU32,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body; of no interest unless the status is 2xx.
    pub body: Bytes,
}

/// Bytes that may still be kept.
#[derive(Debug)]
pub struct Room(AtomicUsize);

impl Room {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    /// Takes `bytes`, or nothing if there are not so many.
    pub fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// A leg that is over.
#[derive(Debug)]
pub struct Settled {
    /// What is read of it by others, and merged: its answer as it counts, or what stands in for it.
    pub value: Option<Json>,
    /// How it ended.
    pub state: State,
    /// The last status that came.
    pub status: Option<u16>,
    /// How long it took.
    pub took: Duration,
    /// Attempts of all its calls.
    pub attempts: u32,
    /// What became of each element, for `for_each`.
    pub elements: Option<Elements>,
}

/// How a leg ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// With its answer.
    Done,
    /// It was not asked: an input is missing.
    Skipped(Failure),
    /// Without one.
    Failed(Failure),
    /// For some elements with one, for others without: why not for the first of those.
    Partly(Failure),
}

/// The elements of `for_each`.
#[derive(Debug, Default)]
pub struct Elements {
    /// How many calls were made: equal ones are made once.
    pub calls: usize,
    /// The places of those that have no answer.
    pub missing: Vec<usize>,
}

impl Settled {
    /// Whether all of it is there.
    pub fn is_complete(&self) -> bool {
        self.state == State::Done
    }

    /// Why it is not.
    pub fn failure(&self) -> Option<Failure> {
        self.state.failure()
    }
}

/// What came of all legs.
#[derive(Debug)]
pub struct Run {
    /// In the order of the plan.
    pub legs: Vec<Settled>,
    /// The leg whose failure ended the request.
    pub fatal: Option<usize>,
}

/// Runs `plan`. What has not arrived at `deadline` has failed; a leg whose failure is the answer's ends all others.
pub async fn run<C: Caller>(
    plan: &Plan,
    inputs: Inputs<'_>,
    caller: &C,
    began: Instant,
    deadline: Option<Instant>,
) -> Run {
    let settled: Vec<OnceLock<Settled>> = plan.legs.iter().map(|_| OnceLock::new()).collect();
    let own = plan.timeout.and_then(|timeout| began.checked_add(timeout));
    let work = Work {
        plan,
        inputs,
        caller,
        deadline: earlier(own, deadline),
        settled: &settled,
        room: Room::new(plan.bounds.total_bytes),
        calls_left: AtomicUsize::new(plan.bounds.calls),
        time_is_over: Notify::new(),
    };
    let fatal = work.all().await;
    let now = caller.now();
    let unfinished = if fatal.is_some() { Failure::Cancelled } else { Failure::Timeout };
    let legs = settled.into_iter().zip(&plan.legs).map(|(slot, leg)| {
        slot.into_inner().unwrap_or_else(|| {
            let took = now.saturating_duration_since(began);
            Settled::without_answer(leg, State::Failed(unfinished), took)
        })
    });
    let legs: Vec<Settled> = legs.collect();
    let fatal = fatal.or_else(|| legs.iter().zip(&plan.legs).position(|(leg, of)| is_fatal(plan, of, leg)));
    Run { legs, fatal }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn is_fatal(plan: &Plan, leg: &Leg, settled: &Settled) -> bool {
    match settled.state {
        State::Done => false,
        // What was not asked has not failed, unless it is needed.
        State::Skipped(_) => leg.required,
        State::Failed(_) | State::Partly(_) => leg.required || plan.on_failure == OnFailure::Fail,
    }
}

impl Settled {
    fn without_answer(leg: &Leg, state: State, took: Duration) -> Self {
        Self { value: leg.fallback.clone(), state, status: None, took, attempts: 0, elements: None }
    }
}

struct Work<'a, C> {
    plan: &'a Plan,
    inputs: Inputs<'a>,
    caller: &'a C,
    deadline: Option<Instant>,
    settled: &'a [OnceLock<Settled>],
    room: Room,
    calls_left: AtomicUsize,
    /// Tells legs under way that nothing more is waited for.
    time_is_over: Notify,
}

impl<C: Caller> Work<'_, C> {
    /// Until all have settled, time is over, or one has failed that must not.
    async fn all(&self) -> Option<usize> {
        // One timer for all of them.
        let mut time_is_over = pin!(over(self.deadline));
        let mut running = FuturesUnordered::new();
        let mut waiting: Vec<usize> = self.plan.order.to_vec();
        loop {
            waiting.retain(|index| {
                let Some(leg) = self.plan.legs.get(*index) else { return false };
                let is_ready = leg.waits_on.iter().all(|other| self.is_settled(*other));
                if is_ready {
                    let index = *index;
                    running.push(async move { (index, leg, self.leg_contained(leg).await) });
                }
                !is_ready
            });
            let next = tokio::select! {
                biased;
                next = running.next() => Some(next?),
                () = &mut time_is_over => None,
            };
            let Some((index, leg, settled)) = next else {
                self.time_is_over.notify_waiters();
                // All of them have their say in this very turn.
                while let Some(Some((index, _, settled))) = unconstrained(running.next()).now_or_never() {
                    self.settle(index, settled);
                }
                return None;
            };
            let fatal = is_fatal(self.plan, leg, &settled);
            self.settle(index, settled);
            if fatal {
                return Some(index);
            }
        }
    }

    fn settle(&self, leg: usize, settled: Settled) {
        if let Some(slot) = self.settled.get(leg) {
            // Each runs once.
            drop(slot.set(settled));
        }
    }

    fn is_settled(&self, leg: usize) -> bool {
        self.settled.get(leg).is_none_or(|slot| slot.get().is_some())
    }

    /// A panic in a leg is its failure, not that of the others.
    async fn leg_contained(&self, leg: &Leg) -> Settled {
        let started = self.caller.now();
        let said = match panics::contained(self.leg(leg)).await {
            Ok(settled) => return settled,
            Err(said) => said,
        };
        tracing::error!(leg = %leg.name, "leg ended by a panic: {said}");
        let took = self.caller.now().saturating_duration_since(started);
        Settled::without_answer(leg, State::Failed(Failure::Panicked), took)
    }

    async fn leg(&self, leg: &Leg) -> Settled {
        let started = self.caller.now();
        let own = leg.timeout.and_then(|timeout| started.checked_add(timeout));
        let deadline = earlier(own, self.deadline);
        let attempts = AtomicU32::new(0);
        let mut settled = match &leg.for_each {
            None => tokio::select! {
                biased;
                settled = self.once(leg, deadline, &attempts) => settled,
                () = self.time_is_over.notified() => {
                    Settled::without_answer(leg, State::Failed(Failure::Timeout), Duration::ZERO)
                }
            },
            Some(each) => self.each(leg, each, deadline, &attempts).await,
        };
        settled.took = self.caller.now().saturating_duration_since(started);
        settled.attempts = attempts.into_inner();
        settled
    }

    fn sight<'s>(&'s self, item: Option<&'s Json>) -> Sight<'s> {
        Sight { inputs: self.inputs, settled: self.settled, item, body_bytes: self.plan.bounds.leg_bytes }
    }

    async fn once(&self, leg: &Leg, deadline: Option<Instant>, attempts: &AtomicU32) -> Settled {
        let without = |state| Settled::without_answer(leg, state, Duration::ZERO);
        let made = match leg.request.make(&self.sight(None)) {
            Ok(made) => made,
            Err(why) => return without(unmade(why)),
        };
        if !self.take_calls(1) {
            return without(State::Failed(Failure::TooManyCalls));
        }
        match self.call(leg, &made, deadline, attempts).await {
            Ok((status, value)) => Settled { value, status: Some(status), ..without(State::Done) },
            Err(failure) => Settled { status: status_of(failure), ..without(State::Failed(failure)) },
        }
    }

    fn take_calls(&self, calls: usize) -> bool {
        self.calls_left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(calls)).is_ok()
    }

    /// One call: the status, and what of the answer counts; nothing where the service has none to give.
    async fn call(
        &self,
        leg: &Leg,
        made: &Made,
        deadline: Option<Instant>,
        attempts: &AtomicU32,
    ) -> Result<(u16, Option<Json>), Failure> {
        if deadline.is_some_and(|at| self.caller.now() >= at) {
            return Err(Failure::Timeout);
        }
        fault::point("leg", &*leg.name);
        let bytes_max = self.plan.bounds.leg_bytes;
        let call = LegCall { leg, made, deadline, bytes_max, room: &self.room, attempts };
        // The deadline of all legs ends them all.
        let own = deadline.filter(|_| deadline != self.deadline);
        let answer = match own {
            None => self.caller.call(call).await?,
            Some(at) => {
                let call = self.caller.call(call);
                tokio::time::timeout_at(at.into(), call).await.map_err(|_| Failure::Timeout)??
            }
        };
        let value = match answer.status {
            // No Content, Reset Content: there is nothing to read.
            204 | 205 => None,
            200..=299 => Some(self.read(leg, &answer.body)?),
            status => return Err(Failure::Status(status)),
        };
        Ok((answer.status, value))
    }

    fn read(&self, leg: &Leg, body: &[u8]) -> Result<Json, Failure> {
        let answer = json::parse(body, self.plan.bounds.depth).map_err(Failure::Unreadable)?;
        let value = leg.reading.apply(answer).ok_or(Failure::NoTarget)?;
        let stands_alone = self.plan.shape.is_some() || leg.group.is_some() || leg.for_each.is_some();
        match value {
            Json::Object(_) | Json::Null => Ok(value),
            value if stands_alone => Ok(value),
            // Merged at the top it would vanish.
            _ => Err(Failure::NeedsGroup),
        }
    }

    async fn each(
        &self,
        leg: &Leg,
        each: &ForEach,
        deadline: Option<Instant>,
        attempts: &AtomicU32,
    ) -> Settled {
        let without = |state| Settled::without_answer(leg, state, Duration::ZERO);
        let source = self.settled.get(each.source).and_then(|slot| slot.get()?.value.as_ref());
        let items = match source.and_then(|value| value.at(&each.path)) {
            Some(Json::Array(items)) => items,
            None | Some(Json::Null) => {
                return without(State::Skipped(Failure::InputMissing { of_client: false }));
            }
            Some(_) => return without(State::Failed(Failure::NotList)),
        };
        if leg.group.is_none()
            && self.plan.shape.is_none()
            && !items.iter().all(|item| matches!(item, Json::Object(_)))
        {
            // Nothing but an object can hold an answer under a name.
            return without(State::Failed(Failure::NeedsGroup));
        }
        let mut results: Vec<Option<Result<Option<Json>, Failure>>> = Vec::with_capacity(items.len());
        results.resize_with(items.len(), || None);
        let wanted = match self.distinct(leg, each, items, &mut results) {
            Ok(wanted) => wanted,
            Err(failure) => return without(State::Failed(failure)),
        };
        let calls = wanted.len();
        if !self.take_calls(calls) {
            return without(State::Failed(Failure::TooManyCalls));
        }
        let (mut status, mut unfinished) = (None, Failure::Cancelled);
        {
            let mut time_is_over = pin!(self.time_is_over.notified());
            let mut all: Vec<BoxFuture<'_, _>> = Vec::with_capacity(calls);
            for (made, places) in &wanted {
                let call = self.call(leg, made, deadline, attempts);
                all.push(async move { (places, call.await) }.boxed());
            }
            let mut under_way = stream::iter(all).buffer_unordered(each.concurrency);
            loop {
                let next = tokio::select! {
                    biased;
                    next = under_way.next() => next,
                    () = &mut time_is_over => {
                        unfinished = Failure::Timeout;
                        None
                    }
                };
                let Some((places, result)) = next else { break };
                status = match &result {
                    Ok((status, _)) => Some(*status),
                    Err(failure) => status_of(*failure).or(status),
                };
                let failed = result.is_err();
                self.spread(places, result.map(|(_, value)| value), &mut results);
                if failed && is_fatal(self.plan, leg, &without(State::Failed(Failure::Timeout))) {
                    // The others are of no use any more.
                    break;
                }
            }
        }
        Settled { status, ..self.gather(leg, calls, results, unfinished, without) }
    }

    /// The calls to be made, each with the places of the elements that it is for. Elements that cannot be asked for have
    /// their result already.
    ///
    /// # Errors
    /// There are more than may be made, or what they send is larger than all answers may be: found before more is built.
    fn distinct(
        &self,
        leg: &Leg,
        each: &ForEach,
        items: &[Json],
        results: &mut [Option<Result<Option<Json>, Failure>>],
    ) -> Result<Vec<(Made, Vec<usize>)>, Failure> {
        let calls_max = each.calls.min(self.calls_left.load(Relaxed));
        let mut bytes_left = self.plan.bounds.total_bytes;
        let mut wanted: Vec<(Made, Vec<usize>)> = Vec::new();
        let mut known: HashMap<Made, usize> = HashMap::new();
        // Twice may be meant where a call has an effect.
        let is_once = matches!(leg.request.method, Method::GET | Method::PUT | Method::DELETE);
        for ((place, item), result) in items.iter().enumerate().zip(results) {
            let made = match leg.request.make(&self.sight(Some(item))) {
                Ok(made) => made,
                Err(why) => {
                    *result = Some(Err(unmade(why).failure().unwrap_or(Failure::RequestTooLarge)));
                    continue;
                }
            };
            bytes_left = bytes_left.checked_sub(made.bytes()).ok_or(Failure::RequestTooLarge)?;
            let is_full = wanted.len() >= calls_max;
            let same = known.get(&made).filter(|_| is_once).and_then(|index| wanted.get_mut(*index));
            match same {
                Some((_, places)) => places.push(place),
                None if is_full => return Err(Failure::TooManyCalls),
                None => {
                    known.insert(made.clone(), wanted.len());
                    wanted.push((made, vec![place]));
                }
            }
        }
        Ok(wanted)
    }

    /// Gives all elements that asked the same their answer; each copy takes its room.
    fn spread(
        &self,
        places: &[usize],
        result: Result<Option<Json>, Failure>,
        results: &mut [Option<Result<Option<Json>, Failure>>],
    ) {
        let bytes = match (&result, places.len()) {
            (Ok(Some(value)), 2..) => value.to_vec().len(),
            _ => 0,
        };
        for (copy, place) in places.iter().enumerate() {
            let Some(slot) = results.get_mut(*place) else { continue };
            let fits = copy == 0 || self.room.take(bytes);
            *slot = Some(if fits { result.clone() } else { Err(Failure::TooLarge) });
        }
    }

    /// What came of all elements. Those without a result are `unfinished`.
    fn gather(
        &self,
        leg: &Leg,
        calls: usize,
        results: Vec<Option<Result<Option<Json>, Failure>>>,
        unfinished: Failure,
        without: impl Fn(State) -> Settled,
    ) -> Settled {
        let mut elements = Elements { calls, missing: Vec::new() };
        let (mut first, mut only_skipped): (Option<Failure>, _) = (None, true);
        // What has failed says more than what was let go of because of it, and that more than what was not asked.
        let weight = |failure: &Failure| match failure {
            Failure::InputMissing { .. } => 0,
            Failure::Cancelled => 1,
            _ => 2,
        };
        let total = results.len();
        let answers = results.into_iter().enumerate().map(|(place, result)| match result {
            Some(Ok(value)) => value.unwrap_or(Json::Null),
            other => {
                let failure = other.and_then(Result::err).unwrap_or(unfinished);
                let skipped = matches!(failure, Failure::InputMissing { .. });
                if first.as_ref().is_none_or(|first| weight(first) < weight(&failure)) {
                    first = Some(failure);
                }
                only_skipped &= skipped;
                elements.missing.push(place);
                leg.fallback.clone().unwrap_or(Json::Null)
            }
        });
        let value = Some(Json::Array(answers.collect()));
        let state = match first {
            None => State::Done,
            Some(failure) if only_skipped => State::Skipped(failure),
            Some(failure) if elements.missing.len() == total => State::Failed(failure),
            Some(failure) => State::Partly(failure),
        };
        Settled { value, elements: Some(elements), ..without(state) }
    }
}

impl State {
    /// Why not all of it is there.
    pub const fn failure(self) -> Option<Failure> {
        match self {
            Self::Done => None,
            Self::Skipped(failure) | Self::Failed(failure) | Self::Partly(failure) => Some(failure),
        }
    }
}

fn status_of(failure: Failure) -> Option<u16> {
    if let Failure::Status(status) = failure { Some(status) } else { None }
}

fn unmade(why: Unmade) -> State {
    match why {
        Unmade::Missing { of_client } => State::Skipped(Failure::InputMissing { of_client }),
        Unmade::TooLarge => State::Failed(Failure::RequestTooLarge),
    }
}

/// Resolves at `deadline`.
async fn over(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
