//! Circuit breaker of one server: stops sending when it keeps failing, and lets one request at a time try it again.
//!
//! ```text
//!            failures / error ratio            open_for passed, one request admitted
//!   Closed ─────────────────────────► Open ─────────────────────────────────────► HalfOpen
//!     ▲                                ▲                                              │
//!     │                                └───────────── the probe failed ◄──────────────┤
//!     └───────────────────────────────────────────── the probe succeeded ◄────────────┘
//! ```
//! Pure: takes `now`, returns what changed. Every admission is answered by exactly one [`Breaker::settle`]; a request
//! that says nothing about the server (the client left) settles as [`Verdict::Neutral`] and frees the probe's place.

use std::time::{Duration, Instant};

/// When to open, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerSettings {
    /// What opens it.
    pub trip: Trip,
    /// How long nothing is sent after it opened.
    pub open_for: Duration,
}

/// What opens a breaker.
#[derive(Debug, Clone, PartialEq)]
pub enum Trip {
    /// This many failures without a success between them; at least 1.
    Consecutive(u32),
    /// Failures make up at least this share of the last `window`.
    Ratio {
        /// 0 to 1.
        ratio: f64,
        /// Fewer requests than this in the window prove nothing; at least 1.
        min_requests: u32,
        /// How far back is looked.
        window: Duration,
    },
}

/// What one request said about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Success,
    /// It does not.
    Failure,
    /// Nothing either way.
    Neutral,
}

/// The state, without its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// No request passes.
    Open,
    /// One request at a time passes.
    HalfOpen,
}

impl BreakerState {
    /// As logged and shown.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Proof that a request was admitted; given back to [`Breaker::settle`].
#[derive(Debug)]
#[must_use = "a probe that is never settled keeps the breaker half open"]
pub struct Permit {
    probe: bool,
}

impl Permit {
    /// The permit of a request that passes a closed breaker; taking it from [`Breaker::admit`] would change nothing.
    pub(super) const fn ordinary() -> Self {
        Self { probe: false }
    }

    /// Whether this request decides alone whether the breaker closes.
    pub fn is_probe(&self) -> bool {
        self.probe
    }
}

/// Whether a request may pass at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Pass,
    /// It may not; asking again makes sense after this long. Zero while a probe is under way: nobody knows how long it takes.
    Shut(Duration),
}

/// The breaker of one server.
#[derive(Debug, Default)]
pub struct Breaker {
    state: State,
}

#[derive(Debug)]
enum State {
    Closed { consecutive: u32, window: Window },
    Open { until: Instant },
    HalfOpen { probing: bool },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { consecutive: 0, window: Window::default() }
    }
}

impl Breaker {
    /// The state as of the last admission or settlement; an expired `Open` stays `Open` until a request tries it.
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether [`Breaker::admit`] would admit; changes nothing.
    pub fn gate(&self, now: Instant) -> Gate {
        match self.state {
            State::Closed { .. } | State::HalfOpen { probing: false } => Gate::Pass,
            State::HalfOpen { probing: true } => Gate::Shut(Duration::ZERO),
            State::Open { until } if now >= until => Gate::Pass,
            State::Open { until } => Gate::Shut(until.saturating_duration_since(now)),
        }
    }

    /// Whether a success now would change nothing, so that reporting it may be skipped.
    pub fn is_idle(&self) -> bool {
        matches!(&self.state, State::Closed { consecutive: 0, window } if window.is_empty())
    }

    /// Takes a place for one request, if there is one. The second value is the state entered, if it changed.
    pub fn admit(&mut self, now: Instant) -> Option<(Permit, Option<BreakerState>)> {
        match &mut self.state {
            State::Closed { .. } => Some((Permit { probe: false }, None)),
            State::Open { until } if now >= *until => {
                self.state = State::HalfOpen { probing: true };
                Some((Permit { probe: true }, Some(BreakerState::HalfOpen)))
            }
            State::HalfOpen { probing } if !*probing => {
                *probing = true;
                Some((Permit { probe: true }, None))
            }
            State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Reports what an admitted request found; returns the state entered, if it changed.
    ///
    /// While open or half open only the probe's verdict counts: requests from before the trip would only repeat what
    /// is known, or close the breaker by luck.
    pub fn settle(
        &mut self,
        permit: Permit,
        verdict: Verdict,
        now: Instant,
        settings: &BreakerSettings,
    ) -> Option<BreakerState> {
        match (&mut self.state, permit.probe) {
            (State::Closed { .. }, _) => self.record(verdict, now, settings),
            (State::HalfOpen { probing }, true) => match verdict {
                Verdict::Success => self.enter(State::default()),
                Verdict::Failure => self.enter(State::Open { until: now + settings.open_for }),
                Verdict::Neutral => {
                    *probing = false;
                    None
                }
            },
            (State::Open { .. } | State::HalfOpen { .. }, _) => None,
        }
    }

    /// Counts a verdict that belongs to no admission of its own: an answer that broke off after it had begun.
    ///
    /// Counts only while closed.
    pub fn record(
        &mut self,
        verdict: Verdict,
        now: Instant,
        settings: &BreakerSettings,
    ) -> Option<BreakerState> {
        let State::Closed { consecutive, window } = &mut self.state else { return None };
        let trips = match (&settings.trip, verdict) {
            (_, Verdict::Neutral) => false,
            (Trip::Consecutive(_), Verdict::Success) => {
                *consecutive = 0;
                false
            }
            (Trip::Consecutive(failures), Verdict::Failure) => {
                *consecutive = consecutive.saturating_add(1);
                *consecutive >= *failures
            }
            (Trip::Ratio { ratio, min_requests, window: length }, _) => {
                window.add(verdict == Verdict::Failure, now, *length);
                let (failed, all) = window.totals();
                verdict == Verdict::Failure
                    && all >= u64::from(*min_requests)
                    && ratio_reached(failed, all, *ratio)
            }
        };
        if trips { self.enter(State::Open { until: now + settings.open_for }) } else { None }
    }

    fn enter(&mut self, state: State) -> Option<BreakerState> {
        self.state = state;
        Some(self.state())
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of one window are far below 2^52")]
fn ratio_reached(failed: u64, all: u64, ratio: f64) -> bool {
    failed as f64 >= all as f64 * ratio
}

/// Counts of the last while, in slices that are forgotten one at a time.
#[derive(Debug, Default)]
struct Window {
    slices: [Slice; WINDOW_SLICES],
    /// Start of the newest slice.
    newest: Option<Instant>,
    /// Index of the newest slice.
    at: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Slice {
    failed: u64,
    all: u64,
}

/// The window moves in steps of a tenth: what is counted is between 90% and 100% of its length.
const WINDOW_SLICES: usize = 10;

impl Window {
    fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    fn add(&mut self, failed: bool, now: Instant, length: Duration) {
        self.advance(now, length);
        if let Some(slice) = self.slices.get_mut(self.at) {
            slice.all += 1;
            slice.failed += u64::from(failed);
        }
    }

    fn totals(&self) -> (u64, u64) {
        self.slices.iter().fold((0, 0), |(failed, all), slice| (failed + slice.failed, all + slice.all))
    }

    fn advance(&mut self, now: Instant, length: Duration) {
        let step = (length / u32::try_from(WINDOW_SLICES).unwrap_or(1)).max(Duration::from_millis(1));
        let Some(newest) = self.newest else {
            self.newest = Some(now);
            return;
        };
        let passed = now.saturating_duration_since(newest).as_nanos() / step.as_nanos().max(1);
        let passed = usize::try_from(passed).unwrap_or(usize::MAX);
        if passed >= WINDOW_SLICES {
            *self = Self { newest: Some(now), ..Self::default() };
            return;
        }
        for _ in 0..passed {
            self.at = (self.at + 1) % WINDOW_SLICES;
            if let Some(slice) = self.slices.get_mut(self.at) {
                *slice = Slice::default();
            }
        }
        self.newest = Some(newest + step * u32::try_from(passed).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn after_failures(failures: u32) -> BreakerSettings {
        BreakerSettings { trip: Trip::Consecutive(failures), open_for: 10 * SECOND }
    }

    fn half_failing() -> BreakerSettings {
        let trip = Trip::Ratio { ratio: 0.5, min_requests: 4, window: 10 * SECOND };
        BreakerSettings { trip, open_for: 10 * SECOND }
    }

    fn request(
        breaker: &mut Breaker,
        verdict: Verdict,
        now: Instant,
        settings: &BreakerSettings,
    ) -> Option<BreakerState> {
        let (permit, _) = breaker.admit(now).expect("admitted");
        breaker.settle(permit, verdict, now, settings)
    }

    #[test]
    fn opens_after_consecutive_failures_only() {
        let (mut breaker, settings, now) = (Breaker::default(), after_failures(3), clock::now());
        for verdict in [Verdict::Failure, Verdict::Failure, Verdict::Success, Verdict::Failure] {
            assert_eq!(request(&mut breaker, verdict, now, &settings), None);
        }
        assert_eq!(
            request(&mut breaker, Verdict::Neutral, now, &settings),
            None,
            "a client that leaves is no proof"
        );
        assert_eq!(request(&mut breaker, Verdict::Failure, now, &settings), None);
        assert_eq!(request(&mut breaker, Verdict::Failure, now, &settings), Some(BreakerState::Open));
        assert_eq!(breaker.gate(now + 4 * SECOND), Gate::Shut(6 * SECOND));
        assert!(breaker.admit(now + 4 * SECOND).is_none());
    }

    #[test]
    fn half_open_admits_one_probe_which_decides() {
        let (mut breaker, settings, start) = (Breaker::default(), after_failures(1), clock::now());
        request(&mut breaker, Verdict::Failure, start, &settings);
        let now = start + 10 * SECOND;
        let (probe, entered) = breaker.admit(now).expect("open_for has passed");
        assert!(probe.is_probe());
        assert_eq!(entered, Some(BreakerState::HalfOpen));
        assert_eq!(breaker.gate(now), Gate::Shut(Duration::ZERO));
        assert!(breaker.admit(now).is_none());
        assert_eq!(breaker.settle(probe, Verdict::Failure, now, &settings), Some(BreakerState::Open));

        let later = now + 10 * SECOND;
        let (abandoned, _) = breaker.admit(later).expect("open_for has passed again");
        assert_eq!(breaker.settle(abandoned, Verdict::Neutral, later, &settings), None);
        let (probe, _) = breaker.admit(later).expect("the abandoned probe freed its place");
        assert_eq!(breaker.settle(probe, Verdict::Success, later, &settings), Some(BreakerState::Closed));
        assert!(breaker.is_idle());
    }

    /// Requests admitted before the trip come back while it is open or half open: they change nothing.
    #[test]
    fn stragglers_do_not_decide() {
        let (mut breaker, settings, start) = (Breaker::default(), after_failures(1), clock::now());
        let (early, _) = breaker.admit(start).expect("closed");
        let (earlier, _) = breaker.admit(start).expect("closed");
        request(&mut breaker, Verdict::Failure, start, &settings);
        assert_eq!(breaker.settle(early, Verdict::Success, start, &settings), None);
        let (_probe, _) = breaker.admit(start + 10 * SECOND).expect("open_for has passed");
        assert_eq!(breaker.settle(earlier, Verdict::Success, start + 10 * SECOND, &settings), None);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
    }

    #[test]
    fn ratio_needs_enough_requests_and_forgets_old_ones() {
        let (mut breaker, settings, start) = (Breaker::default(), half_failing(), clock::now());
        for _ in 0..3 {
            assert_eq!(request(&mut breaker, Verdict::Failure, start, &settings), None, "too few to tell");
        }
        let later = start + 11 * SECOND;
        assert_eq!(
            request(&mut breaker, Verdict::Failure, later, &settings),
            None,
            "the first three are old"
        );
        for _ in 0..3 {
            request(&mut breaker, Verdict::Success, later + SECOND, &settings);
        }
        assert_eq!(request(&mut breaker, Verdict::Failure, later + SECOND, &settings), None, "2 of 5");
        assert_eq!(
            request(&mut breaker, Verdict::Failure, later + SECOND, &settings),
            Some(BreakerState::Open),
            "3 of 6"
        );
    }

    #[derive(Debug, Clone)]
    enum Step {
        Admit,
        Settle(usize, Verdict),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let verdict = prop_oneof![Just(Verdict::Success), Just(Verdict::Failure), Just(Verdict::Neutral)];
        let step = prop_oneof![
            4 => Just(Step::Admit),
            4 => (any::<usize>(), verdict).prop_map(|(which, verdict)| Step::Settle(which, verdict)),
            1 => (0_u64..15_000).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// Whatever happens in whatever order: at most one probe at a time, nothing admitted while open, and once all
        /// requests are settled a quiet `open_for` is enough to be admitted again.
        #[test]
        fn never_stuck_and_never_two_probes(steps in steps(), by_ratio in any::<bool>()) {
            let settings = if by_ratio { half_failing() } else { after_failures(2) };
            let (mut breaker, mut now) = (Breaker::default(), clock::now());
            let mut permits = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                    Step::Admit => {
                        let gate = breaker.gate(now);
                        let admitted = breaker.admit(now);
                        prop_assert_eq!(gate == Gate::Pass, admitted.is_some());
                        permits.extend(admitted.map(|(permit, _)| permit));
                        prop_assert!(permits.iter().filter(|permit| permit.is_probe()).count() <= 1);
                    }
                    Step::Settle(which, verdict) if !permits.is_empty() => {
                        let permit = permits.swap_remove(which % permits.len());
                        let before = breaker.state();
                        let entered = breaker.settle(permit, verdict, now, &settings);
                        prop_assert_eq!(entered.unwrap_or(before), breaker.state());
                        if entered == Some(BreakerState::Open) {
                            prop_assert_eq!(verdict, Verdict::Failure);
                            prop_assert!(breaker.admit(now).is_none());
                        }
                    }
                    Step::Settle(..) => {}
                }
            }
            for permit in permits {
                breaker.settle(permit, Verdict::Neutral, now, &settings);
            }
            prop_assert!(breaker.admit(now + settings.open_for).is_some());
        }

        /// The window never counts more than happened, nor anything older than its length.
        #[test]
        fn window_counts_recent_requests(gaps in proptest::collection::vec(0_u64..3_000, 1..100)) {
            let (length, mut now) = (10 * SECOND, clock::now());
            let (mut window, mut times) = (Window::default(), Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                times.push(now);
                window.add(true, now, length);
                let (failed, all) = window.totals();
                let within = |span: Duration| times.iter().filter(|at| now - **at < span).count() as u64;
                prop_assert_eq!(failed, all);
                prop_assert!(all <= within(length + SECOND), "{} counted, {} recent", all, within(length + SECOND));
                prop_assert!(all >= within(length - SECOND), "{} counted, {} recent", all, within(length - SECOND));
            }
        }
    }
}
