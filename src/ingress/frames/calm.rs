//! How much a client may make us do for nothing.
//!
//! Every frame that asks for work without being a part of a request costs one from a budget; what is useful, and time,
//! pay back into it. A client that lives by requests never comes near its end; one that only sends PING or resets is there
//! after [`BUDGET`] frames, one that sends SETTINGS sooner. What makes us reset streams for its errors has a smaller one, and
//! only time pays back into that: whoever sends requests in between would else go on for ever. So has what it asks for and
//! then gives up.

use std::time::Instant;

use super::reader::{ACK, END_STREAM, Frame, Kind};

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
/// What a stream's window costs that opens by less than the smallest message of gRPC with its frame: more than the answer's frame pays
/// back that just fits into it.
const PER_TINY_WINDOW: i32 = PER_SMALL_FRAME + 1;
const TINY_WINDOW: u32 = 14;
/// What SETTINGS cost: they may move the windows of all streams. Nobody sends more than a few, to begin with and when the
/// bandwidth turns out to be larger.
const PER_SETTINGS: i32 = 4;
/// Bytes of them that cost one more. Nobody has twenty settings.
const SETTINGS_BYTES: u32 = 128;
/// What a header block costs that only changes the table's size: no encoder does it more often than twice.
const PER_RESIZES: i32 = 50;
/// Fields that no request has, of one block, which cost one: to decode them takes as long as a frame.
const EXCESS_FIELDS: usize = 16;
/// Streams that we may have to reset for a client's errors (CVE-2025-8671). Some are nobody's fault: DATA that was under way
/// when its stream was ended.
const FAULTS: i32 = 100;
/// What a second pays back of them.
const FAULTS_PER_SECOND: u32 = 10;

/// Requests that a client may give up before their answer is complete (CVE-2023-44487). Each costs a connection to its
/// service, however far the answer came and whatever it paid back.
const CANCELS: i32 = 500;
/// What a second pays back of them; so does every answer that was taken whole.
const CANCELS_PER_SECOND: u32 = 50;

/// The budgets of one connection.
#[derive(Debug, Clone)]
pub(super) struct Calm {
    work: Budget,
    faults: Budget,
    cancels: Budget,
}

/// Something that is spent, and comes back with time.
#[derive(Debug, Clone)]
struct Budget {
    left: i32,
    most: i32,
    per_second: u32,
    /// Up to when time was paid back.
    paid: Instant,
}

impl Calm {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            work: Budget::new(BUDGET, PER_SECOND, now),
            faults: Budget::new(FAULTS, FAULTS_PER_SECOND, now),
            cancels: Budget::new(CANCELS, CANCELS_PER_SECOND, now),
        }
    }

    /// The client reset a stream whose answer was not complete. False: the budget is spent.
    pub(super) fn cancelled(&mut self, now: impl Fn() -> Instant) -> bool {
        self.cancels.spend(1, now)
    }

    /// An answer was sent to its end.
    pub(super) fn completed(&mut self) {
        self.cancels.pay_back(1);
    }

    /// Blocks of the client's had so many fields that no request has. False: the budget is spent.
    pub(super) fn decoded(&mut self, excess: usize, now: impl Fn() -> Instant) -> bool {
        // A block is of no more than 64 KiB.
        excess == 0 || self.work.spend((excess / EXCESS_FIELDS) as i32, now)
    }

    /// A frame of the client's; `is_of_body`: it belongs to a stream whose body is under way. False: the budget is spent.
    /// The clock is looked at only where it would be.
    pub(super) fn received(&mut self, frame: &Frame, is_of_body: bool, now: impl Fn() -> Instant) -> bool {
        let ends = matches!(frame.kind, Kind::Data | Kind::Headers) && frame.flags & END_STREAM != 0;
        // What ends a body, be it empty or trailers, comes once a stream, which was paid for.
        let is_paid = ends && is_of_body;
        let cost = match frame.kind {
            Kind::Headers if frame.resizes => PER_RESIZES,
            _ if is_paid => return true,
            Kind::Data if frame.content() > 0 && !ends => {
                // Small pieces are as they are in gRPC; but they pay for nothing else.
                if is_of_body && frame.content() >= SMALL_BYTES {
                    self.work.pay_back(1);
                }
                return true;
            }
            // Below a hundredth of a `u32`.
            Kind::Settings if frame.flags & ACK == 0 => PER_SETTINGS + (frame.length / SETTINGS_BYTES) as i32,
            // Of a stream alone: a client that opens windows by every piece it read opens the connection's as well.
            Kind::WindowUpdate if frame.stream != 0 && frame.increment.is_some_and(|by| by < TINY_WINDOW) => {
                PER_TINY_WINDOW
            }
            _ => 1,
        };
        self.work.spend(cost, now)
    }

    /// A frame of ours. False: a budget is spent.
    pub(super) fn sent(&mut self, frame: &Frame, now: impl Fn() -> Instant) -> bool {
        match frame.kind {
            // Our resets are provoked.
            Kind::RstStream => {
                let is_fault = frame.code.is_some_and(|code| FAULT_CODES.contains(&code));
                // Both are spent.
                (!is_fault || self.faults.spend(1, &now)) & self.work.spend(1, &now)
            }
            Kind::Data if frame.length < SMALL_BYTES => self.work.pay_back(PER_SMALL_FRAME),
            Kind::Data | Kind::Headers => self.work.pay_back(PER_ANSWER_FRAME),
            _ => true,
        }
    }
}

/// PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED and FRAME_SIZE_ERROR: what only a client's error brings about.
const FAULT_CODES: [u32; 4] = [1, 3, 5, 6];

impl Budget {
    fn new(most: i32, per_second: u32, now: Instant) -> Self {
        Self { left: most, most, per_second, paid: now }
    }

    /// Always true: paying back spends nothing.
    fn pay_back(&mut self, amount: i32) -> bool {
        self.left = self.left.saturating_add(amount).min(self.most);
        true
    }

    fn spend(&mut self, amount: i32, now: impl Fn() -> Instant) -> bool {
        self.left = self.left.saturating_sub(amount);
        if self.left >= 0 {
            return true;
        }
        let now = now();
        let since = now.saturating_duration_since(self.paid);
        self.paid = now;
        let due = since.as_millis().saturating_mul(u128::from(self.per_second)) / 1000;
        self.pay_back(i32::try_from(due).unwrap_or(self.most));
        self.left >= 0
    }
}
