//! Whether a failed attempt may be repeated: the policy of one upstream, pure.
//!
//! The rules protect in this order: never repeat what may have had an effect, never repeat after a byte of the answer
//! went out, never longer than the request's time, never more than the budget (see [`super::budget`]) allows.

use std::time::Duration;

use http::Method;

/// Longest pause before a retry that doubling may reach; a configured `backoff` above it stays as it is.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Attempts a policy may allow. Each one repeats the request's whole cost; more than a handful only adds load.
pub const ATTEMPTS_MAX: u32 = 10;

/// When an upstream's requests are repeated.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all; 1 turns retries off.
    pub attempts: u32,
    /// Which failures are repeated.
    pub on: Conditions,
    /// Repeat also methods that are not idempotent.
    pub non_idempotent: bool,
    /// Pause before the first retry, on average; doubles with each.
    pub backoff: Duration,
    /// Share of requests that may be retries, 0 to 1.
    pub budget: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 2,
            on: Conditions::default(),
            non_idempotent: false,
            backoff: Duration::from_millis(25),
            budget: 0.2,
        }
    }
}

/// Which failures are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// No connection was made: nothing was sent.
    pub connect: bool,
    /// The connection broke before an answer.
    pub reset: bool,
    /// The server was silent for too long.
    pub timeout: bool,
    /// Answer 502.
    pub status_502: bool,
    /// Answer 503.
    pub status_503: bool,
    /// Answer 504.
    pub status_504: bool,
    /// Any answer from 500 to 599.
    pub status_5xx: bool,
}

impl Conditions {
    /// No failure at all.
    pub const NONE: Self = Self {
        connect: false,
        reset: false,
        timeout: false,
        status_502: false,
        status_503: false,
        status_504: false,
        status_5xx: false,
    };

    /// Whether an answer with `status` is among them.
    pub fn has_status(self, status: u16) -> bool {
        match status {
            502 => self.status_502 || self.status_5xx,
            503 => self.status_503 || self.status_5xx,
            504 => self.status_504 || self.status_5xx,
            500..=599 => self.status_5xx,
            _ => false,
        }
    }
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            connect: true,
            reset: true,
            status_502: true,
            status_503: true,
            status_504: true,
            ..Self::NONE
        }
    }
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or no TLS on it: nothing of the request was sent.
    Connect,
    /// The connection broke before the answer's header was complete.
    Reset,
    /// The server was silent for too long.
    Timeout {
        /// Whether the whole request had been sent; before that the silence may be the client's.
        body_sent: bool,
    },
    /// It answered, with this status.
    Status(u16),
    /// What it sent is not HTTP.
    BadResponse,
}

impl Failure {
    /// The metric label: one of a closed set.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout { .. } => "timeout",
            Self::Status(502) => "502",
            Self::Status(503) => "503",
            Self::Status(504) => "504",
            Self::Status(_) => "5xx",
            Self::BadResponse => "bad_response",
        }
    }
}

/// What the decision depends on besides the failure.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// Whether what was read of the body so far can be sent again.
    pub replayable: bool,
    /// Whether a byte of the answer went to the client.
    pub answer_started: bool,
    /// Attempts made so far, the failed one included.
    pub attempts: u32,
    /// What is left of the request's time; `None` without a deadline.
    pub time_left: Option<Duration>,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this pause.
    Retry(Duration),
    /// Answer with what there is.
    GiveUp(GiveUp),
}

/// Why a failed attempt is not repeated; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUp {
    /// The policy does not repeat this failure.
    NotListed,
    /// All attempts are used up.
    Attempts,
    /// The request may have had an effect.
    Unsafe,
    /// The body cannot be sent again.
    Body,
    /// The client has seen a part of the answer.
    Answered,
    /// The request's time is nearly over.
    Time,
    /// The upstream's retry budget is spent.
    Budget,
}

impl RetryPolicy {
    /// Decides, but for the budget. `jitter` is any number; all of its values make the pause even between half and one
    /// and a half times its nominal length, so that requests that failed together do not come back together.
    pub fn decide(&self, failure: Failure, situation: &Situation<'_>, jitter: u32) -> Decision {
        let after = self.pause(situation.attempts, jitter);
        let refusal = if situation.answer_started {
            Some(GiveUp::Answered)
        } else if !self.lists(failure) {
            Some(GiveUp::NotListed)
        } else if situation.attempts >= self.attempts {
            Some(GiveUp::Attempts)
        } else if failure != Failure::Connect && !self.non_idempotent && !is_idempotent(situation.method) {
            Some(GiveUp::Unsafe)
        } else if !situation.replayable {
            Some(GiveUp::Body)
        } else if situation.time_left.is_some_and(|left| left <= after) {
            Some(GiveUp::Time)
        } else {
            None
        };
        refusal.map_or(Decision::Retry(after), Decision::GiveUp)
    }

    fn lists(&self, failure: Failure) -> bool {
        match failure {
            Failure::Connect => self.on.connect,
            Failure::Reset => self.on.reset,
            Failure::Timeout { body_sent } => self.on.timeout && body_sent,
            Failure::Status(status) => self.on.has_status(status),
            Failure::BadResponse => false,
        }
    }

    fn pause(&self, attempts: u32, jitter: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(16);
        let nominal = self.backoff.saturating_mul(1 << doublings).min(BACKOFF_MAX.max(self.backoff));
        nominal / 2 + nominal.mul_f64(f64::from(jitter) / f64::from(u32::MAX))
    }
}

/// Whether repeating a request with this method has the effect of making it once (RFC 9110 section 9.2.2; QUERY: RFC
/// 10008 section 2).
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    ) || method.as_str() == "QUERY"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first_failure(method: &Method) -> Situation<'_> {
        Situation { method, replayable: true, answer_started: false, attempts: 1, time_left: None }
    }

    fn everything() -> Conditions {
        Conditions { connect: true, reset: true, timeout: true, status_5xx: true, ..Conditions::default() }
    }

    #[test]
    fn connect_failures_are_repeated_for_any_method() {
        let policy = RetryPolicy::default();
        let decision = policy.decide(Failure::Connect, &first_failure(&Method::POST), u32::MAX / 2);
        assert!(matches!(decision, Decision::Retry(_)));
    }

    #[test]
    fn what_may_have_had_an_effect_is_not_repeated() {
        let policy = RetryPolicy { on: everything(), ..RetryPolicy::default() };
        let post = first_failure(&Method::POST);
        for failure in [Failure::Reset, Failure::Timeout { body_sent: true }, Failure::Status(503)] {
            assert_eq!(policy.decide(failure, &post, 0), Decision::GiveUp(GiveUp::Unsafe));
            assert!(matches!(policy.decide(failure, &first_failure(&Method::PUT), 0), Decision::Retry(_)));
        }
        let wide = RetryPolicy { non_idempotent: true, ..policy };
        assert!(matches!(wide.decide(Failure::Reset, &post, 0), Decision::Retry(_)));
    }

    #[test]
    fn defaults_leave_timeouts_and_500_alone() {
        let policy = RetryPolicy::default();
        let get = first_failure(&Method::GET);
        for failure in [Failure::Timeout { body_sent: true }, Failure::Status(500), Failure::BadResponse] {
            assert_eq!(policy.decide(failure, &get, 0), Decision::GiveUp(GiveUp::NotListed));
        }
        for status in [502, 503, 504] {
            assert!(matches!(policy.decide(Failure::Status(status), &get, 0), Decision::Retry(_)));
        }
        let slow_client =
            RetryPolicy { on: everything(), ..policy }.decide(Failure::Timeout { body_sent: false }, &get, 0);
        assert_eq!(slow_client, Decision::GiveUp(GiveUp::NotListed));
    }

    #[test]
    fn limits_hold() {
        let policy = RetryPolicy::default();
        let get = first_failure(&Method::GET);
        let cases = [
            (Situation { answer_started: true, ..get }, GiveUp::Answered),
            (Situation { attempts: 2, ..get }, GiveUp::Attempts),
            (Situation { replayable: false, ..get }, GiveUp::Body),
            (Situation { time_left: Some(Duration::from_millis(10)), ..get }, GiveUp::Time),
        ];
        for (situation, why) in cases {
            assert_eq!(policy.decide(Failure::Connect, &situation, 0), Decision::GiveUp(why));
        }
    }

    proptest! {
        /// The pause is between half and one and a half times the doubled backoff, and bounded.
        #[test]
        fn pauses_are_bounded(attempts in 0_u32..100, jitter in any::<u32>(), backoff_ms in 0_u64..5_000) {
            let backoff = Duration::from_millis(backoff_ms);
            let policy = RetryPolicy { backoff, ..RetryPolicy::default() };
            let pause = policy.pause(attempts, jitter);
            prop_assert!(pause >= backoff / 2);
            prop_assert!(pause <= (BACKOFF_MAX.max(backoff)).mul_f64(1.5) + Duration::from_nanos(1));
        }

        /// Nothing is ever repeated after the answer began, nor beyond the attempts, nor past the deadline.
        #[test]
        fn never_beyond_the_limits(
            status in 100_u16..600,
            attempts in 1_u32..12,
            allowed in 1_u32..=ATTEMPTS_MAX,
            left_ms in 0_u64..200,
            answer_started in any::<bool>(),
            replayable in any::<bool>(),
            jitter in any::<u32>(),
        ) {
            let policy = RetryPolicy { attempts: allowed, on: everything(), ..RetryPolicy::default() };
            let time_left = Some(Duration::from_millis(left_ms));
            let situation = Situation { method: &Method::GET, replayable, answer_started, attempts, time_left };
            for failure in [Failure::Connect, Failure::Reset, Failure::Status(status)] {
                if let Decision::Retry(after) = policy.decide(failure, &situation, jitter) {
                    prop_assert!(!answer_started && replayable && attempts < allowed);
                    prop_assert!(after < Duration::from_millis(left_ms));
                    prop_assert!(!matches!(failure, Failure::Status(status) if status < 500));
                }
            }
        }
    }
}
