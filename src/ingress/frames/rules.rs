//! What a client's frame may be, and when (RFC 9113 sections 4 to 6): sizes, streams, padding, values, the order of pieces.
//!
//! Every rule here ends the connection with the error that the specification names, also where it would do to reset the
//! stream (section 5.4.1 leaves that to the receiver). What takes more than frames to see, the library judges: header blocks
//! and what stands in them, flow control, and frames of streams that we reset ourselves, which may cross our word.

use std::collections::VecDeque;

use super::reader::{ACK, FRAME_BYTES_COMMON, Frame, Kind, PADDED, WITH_PRIORITY};

/// Errors (RFC 9113 section 7).
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;

/// Gaps between streams that are remembered. Clients leave none; a gap that is forgotten counts as streams that were used.
const GAPS_MAX: usize = 16;
/// Streams that we reset before the client was done with them, and that are remembered.
const GIVEN_UP_MAX: usize = 256;

/// What has to be known of a connection beside its frames.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    /// Whether the first frame came.
    begun: bool,
    /// SETTINGS of ours that are not acknowledged.
    unacknowledged: u32,
    /// Ranges of streams that the client passed over: never opened, and closed by a later one.
    gaps: VecDeque<(u32, u32)>,
    /// What the client sends on these may have crossed our reset.
    given_up: VecDeque<u32>,
    /// Nothing is known of streams up to this one that are not open.
    unsure: u32,
}

/// Where on the connection a frame came.
pub(super) struct Place {
    /// The last stream that the client opened before.
    pub(super) last_opened: u32,
    /// The stream whose header block is not complete.
    pub(super) block: Option<u32>,
    /// Whether the client has not said yet that its side of this frame's stream is over.
    pub(super) is_body_open: bool,
}

/// What a stream of the client's is to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Idle,
    Open,
    /// Its side is over: it said so, or reset the stream.
    Over,
    /// Never opened, and too late for that.
    PassedOver,
    Unknown,
}

impl Rules {
    /// The error of the connection that `frame` is at its `place`, if it is one. Called for each frame of the client's.
    pub(super) fn broken_by(&mut self, frame: &Frame, place: &Place) -> Option<u32> {
        let is_first = !std::mem::replace(&mut self.begun, true);
        if frame.length > FRAME_BYTES_COMMON {
            // More was never offered.
            return Some(FRAME_SIZE_ERROR);
        }
        if is_first && (frame.kind != Kind::Settings || frame.flags & ACK != 0) {
            return Some(PROTOCOL_ERROR);
        }
        match place.block {
            Some(stream) if (frame.kind, frame.stream) != (Kind::Continuation, stream) => {
                return Some(PROTOCOL_ERROR);
            }
            None if frame.kind == Kind::Continuation => return Some(PROTOCOL_ERROR),
            _ => {}
        }
        if frame.kind != Kind::Unknown && (frame.stream == 0) != may_be_of_connection(frame) {
            return Some(PROTOCOL_ERROR);
        }
        size_error(frame).or_else(|| self.state_error(frame, place))
    }

    /// The error of a frame of the right size on the right kind of stream.
    fn state_error(&mut self, frame: &Frame, place: &Place) -> Option<u32> {
        let standing = self.standing(frame.stream, place);
        match frame.kind {
            // Clients cannot push, and their streams are odd.
            Kind::PushPromise => Some(PROTOCOL_ERROR),
            Kind::Headers if frame.stream.is_multiple_of(2) => Some(PROTOCOL_ERROR),
            Kind::Headers if standing == Standing::PassedOver => Some(PROTOCOL_ERROR),
            Kind::Headers | Kind::Data if standing == Standing::Over => Some(STREAM_CLOSED),
            Kind::Data if standing == Standing::PassedOver => Some(STREAM_CLOSED),
            Kind::Data | Kind::RstStream if standing == Standing::Idle => Some(PROTOCOL_ERROR),
            Kind::WindowUpdate if frame.increment == Some(0) => Some(PROTOCOL_ERROR),
            Kind::WindowUpdate if frame.stream != 0 && standing == Standing::Idle => Some(PROTOCOL_ERROR),
            Kind::Settings if frame.flags & ACK != 0 => match self.unacknowledged.checked_sub(1) {
                Some(left) => {
                    self.unacknowledged = left;
                    None
                }
                None => Some(PROTOCOL_ERROR),
            },
            Kind::Settings => frame.bad_setting,
            _ => None,
        }
    }

    fn standing(&self, stream: u32, place: &Place) -> Standing {
        if stream > place.last_opened || stream.is_multiple_of(2) {
            Standing::Idle
        } else if place.is_body_open {
            Standing::Open
        } else if stream <= self.unsure || self.given_up.contains(&stream) {
            Standing::Unknown
        } else if self.gaps.iter().any(|(first, last)| (first..=last).contains(&&stream)) {
            Standing::PassedOver
        } else {
            Standing::Over
        }
    }

    /// The client opened `stream`, after `last`.
    pub(super) fn opened(&mut self, stream: u32, last: u32) {
        // The first is 1.
        let next = if last == 0 { 1 } else { last + 2 };
        if stream > next {
            if self.gaps.len() == GAPS_MAX {
                self.gaps.pop_front();
            }
            self.gaps.push_back((next, stream - 2));
        }
    }

    /// We reset `stream`, whose client was not done with it.
    pub(super) fn gave_up(&mut self, stream: u32) {
        if self.given_up.len() == GIVEN_UP_MAX
            && let Some(oldest) = self.given_up.pop_front()
        {
            self.lost_sight_of(oldest);
        }
        self.given_up.push_back(stream);
    }

    /// Nothing is remembered of `stream`.
    pub(super) fn lost_sight_of(&mut self, stream: u32) {
        self.unsure = self.unsure.max(stream);
    }

    /// SETTINGS of ours.
    pub(super) fn sent_settings(&mut self, frame: &Frame) {
        if frame.flags & ACK == 0 {
            self.unacknowledged = self.unacknowledged.saturating_add(1);
        }
    }
}

/// Whether a frame of this kind belongs to the connection rather than to a stream; for those that may do either, it is as it
/// should be.
fn may_be_of_connection(frame: &Frame) -> bool {
    match frame.kind {
        Kind::Settings | Kind::Ping | Kind::GoAway => true,
        Kind::WindowUpdate => frame.stream == 0,
        _ => false,
    }
}

/// The error of a payload that is too small or too large for its kind, or for its padding.
fn size_error(frame: &Frame) -> Option<u32> {
    let is_padded = u32::from(frame.flags & PADDED != 0);
    let fixed = match frame.kind {
        Kind::Data => is_padded,
        Kind::Headers => is_padded + if frame.flags & WITH_PRIORITY != 0 { 5 } else { 0 },
        Kind::Settings if frame.flags & ACK != 0 && frame.length > 0 => return Some(FRAME_SIZE_ERROR),
        Kind::Settings => return (!frame.length.is_multiple_of(6)).then_some(FRAME_SIZE_ERROR),
        Kind::Priority => return (frame.length != 5).then_some(FRAME_SIZE_ERROR),
        Kind::RstStream | Kind::WindowUpdate => return (frame.length != 4).then_some(FRAME_SIZE_ERROR),
        Kind::Ping => return (frame.length != 8).then_some(FRAME_SIZE_ERROR),
        Kind::GoAway => return (frame.length < 8).then_some(FRAME_SIZE_ERROR),
        Kind::PushPromise | Kind::Continuation | Kind::Unknown => return None,
    };
    if frame.length < fixed {
        return Some(FRAME_SIZE_ERROR);
    }
    // The byte that says how much padding there is counts as such.
    let most = frame.length - fixed + is_padded;
    (frame.padding > most).then_some(PROTOCOL_ERROR)
}
