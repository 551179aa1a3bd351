//! How much a client may make us do for nothing.
//!
//! Every frame that asks for work without being a part of a request costs one from a budget; what is useful, and time,
//! pay back into it. A client that lives by requests never comes near its end; one that only sends PING, SETTINGS or
//! resets is there after [`BUDGET`] frames.

use std::time::Instant;

use super::reader::{END_STREAM, Frame, Kind};

/// Frames that a client may have open at once. Twice what browsers and gRPC clients can cause in the worst moment: 128
/// streams opened and reset, each with its window updates and priorities.
const BUDGET: i32 = 1000;
/// What a second pays back: keep-alive probes are one a second at most, bandwidth probes one a round trip, and those go
/// with data.
const PER_SECOND: u32 = 200;
/// What a frame of an answer pays back: the window updates for it, on its stream and on the connection, a probe of the
/// bandwidth, and a reset of its stream.
const PER_ANSWER_FRAME: i32 = 4;
/// The same for a small one: less, so that windows of a few bytes do not pay for themselves.
const PER_SMALL_FRAME: i32 = 2;
const SMALL_BYTES: u32 = 64;

/// The budget of one connection.
#[derive(Debug, Clone)]
pub(super) struct Calm {
    left: i32,
    /// Up to when time was paid back.
    paid: Instant,
}

impl Calm {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BUDGET, paid: now }
    }

    /// A frame of the client's; `is_of_body`: it belongs to a stream whose body is under way. False: the budget is spent.
    /// The clock is looked at only where it would be.
    pub(super) fn received(&mut self, frame: &Frame, is_of_body: bool, now: impl Fn() -> Instant) -> bool {
        let ends = matches!(frame.kind, Kind::Data | Kind::Headers) && frame.flags & END_STREAM != 0;
        if ends {
            // What ends a body, be it empty or trailers, comes once a stream, which was paid for.
            return is_of_body || self.spend(now);
        }
        if frame.kind != Kind::Data || frame.length == 0 {
            return self.spend(now);
        }
        // Small pieces are as they are in gRPC; but they pay for nothing else.
        if is_of_body && frame.length >= SMALL_BYTES {
            self.pay_back(1);
        }
        true
    }

    /// A frame of ours. False: the budget is spent.
    pub(super) fn sent(&mut self, frame: &Frame, now: impl Fn() -> Instant) -> bool {
        match frame.kind {
            // Our resets are provoked.
            Kind::RstStream => return self.spend(now),
            Kind::Data if frame.length < SMALL_BYTES => self.pay_back(PER_SMALL_FRAME),
            Kind::Data | Kind::Headers => self.pay_back(PER_ANSWER_FRAME),
            _ => {}
        }
        true
    }

    fn pay_back(&mut self, amount: i32) {
        self.left = self.left.saturating_add(amount).min(BUDGET);
    }

    fn spend(&mut self, now: impl Fn() -> Instant) -> bool {
        self.left -= 1;
        if self.left >= 0 {
            return true;
        }
        let now = now();
        let since = now.saturating_duration_since(self.paid);
        self.paid = now;
        let due = since.as_millis().saturating_mul(u128::from(PER_SECOND)) / 1000;
        self.pay_back(i32::try_from(due).unwrap_or(BUDGET));
        self.left >= 0
    }
}
