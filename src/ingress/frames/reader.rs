//! Finds the frames in one direction of an HTTP/2 connection (RFC 9113 section 4.1), whatever pieces the bytes come in.

use super::rules::{FLOW_CONTROL_ERROR, PROTOCOL_ERROR};

/// Bytes of a frame's header.
const HEAD_BYTES: usize = 9;
/// Where the kind stands in it.
const KIND_AT: usize = 3;
/// Bytes of a payload that are looked at: those of HEADERS up to the first field, with padding, a priority and two table
/// sizes before it.
const KEPT_BYTES: usize = 16;

/// `END_STREAM`, of DATA and HEADERS.
pub const END_STREAM: u8 = 0x1;
/// `END_HEADERS`, of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 0x4;
/// `ACK`, of SETTINGS and PING.
pub(super) const ACK: u8 = 0x1;
/// `PADDED`, of DATA and HEADERS.
pub(super) const PADDED: u8 = 0x8;
/// `PRIORITY`, of HEADERS.
pub(super) const WITH_PRIORITY: u8 = 0x20;
/// Bytes of a setting.
const SETTING_BYTES: u32 = 6;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A part of a body.
    Data,
    /// The beginning of a header block.
    Headers,
    /// Advice that nobody follows any more.
    Priority,
    /// The end of one stream.
    RstStream,
    /// Settings, or their acknowledgement.
    Settings,
    /// The announcement of a push.
    PushPromise,
    /// A question whether the other side is there, or its answer.
    Ping,
    /// The end of the connection.
    GoAway,
    /// Room for more data.
    WindowUpdate,
    /// More of a header block.
    Continuation,
    /// Anything else: to be ignored.
    Unknown,
}

impl Kind {
    /// How many kinds there are.
    pub(super) const COUNT: usize = Self::Unknown as usize + 1;
    /// A byte that is no kind at all (of those reserved for experiments, RFC 9113 section 11.2).
    pub(super) const HIDDEN: u8 = 0xf7;

    fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::RstStream,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Unknown,
        }
    }

    /// Bytes of a payload of `length` that are kept.
    fn kept(self, flags: u8, length: u32) -> usize {
        match (self, length) {
            (Self::RstStream | Self::WindowUpdate, 4) => 4,
            (Self::GoAway, 8..) => 8,
            (Self::Data, 1..) if flags & PADDED != 0 => 1,
            // One after the other.
            (Self::Settings, 1..) if flags & ACK == 0 && length.is_multiple_of(SETTING_BYTES) => {
                SETTING_BYTES as usize
            }
            // No more than a `u32`, and no more than fits.
            (Self::Headers, _) => (length as usize).min(KEPT_BYTES),
            _ => 0,
        }
    }
}

/// One frame, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Its flags; what they mean depends on the kind.
    pub flags: u8,
    /// The stream it belongs to; 0 for the connection.
    pub stream: u32,
    /// Bytes of its payload, padding included.
    pub length: u32,
    /// The error code of RST_STREAM and GOAWAY; `None` too if such a frame has no room for it.
    pub code: Option<u32>,
    /// The last stream that GOAWAY says was looked at.
    pub last_stream: Option<u32>,
    /// By how much WINDOW_UPDATE opens a window.
    pub increment: Option<u32>,
    /// Bytes of DATA or HEADERS that are padding, with the one that says so.
    pub padding: u32,
    /// The error of a setting that has a value it may not have (RFC 9113 section 6.5.2).
    pub bad_setting: Option<u32>,
    /// Whether a header block begins with more changes of the table's size than the two there may be (RFC 7541 section 4.2).
    pub resizes: bool,
}

impl Frame {
    /// Bytes of the payload without padding.
    pub fn content(&self) -> u32 {
        self.length.saturating_sub(self.padding)
    }
}

/// What is found in one direction.
pub enum Piece<'b> {
    /// A frame, with what is looked at of its payload.
    Frame(Frame, &'b [u8]),
    /// More of the payload of a part of a header block.
    OfBlock(&'b [u8]),
    /// The kind of a GOAWAY, of which perhaps no more than that came yet.
    Goodbye,
}

/// Follows the frames of one direction. Knows no errors: whatever comes is cut into frames by the lengths in it.
#[derive(Debug, Clone)]
pub struct FrameReader {
    /// Bytes of a payload, or of the preface, still to pass over.
    pass: u32,
    /// Bytes of `buffer` that are filled.
    have: usize,
    /// Bytes of `buffer` that are waited for.
    need: usize,
    buffer: [u8; HEAD_BYTES + KEPT_BYTES],
    /// Bytes of the payload that were looked at.
    looked_at: u32,
    bad_setting: Option<u32>,
    /// Whether what is passed over is a part of a header block.
    in_block: bool,
}

impl FrameReader {
    /// A reader whose first frame begins after `before` bytes: the preface of a client, nothing before a server's.
    pub fn new(before: u32) -> Self {
        let buffer = [0; HEAD_BYTES + KEPT_BYTES];
        let need = HEAD_BYTES;
        Self { pass: before, have: 0, need, buffer, looked_at: 0, bad_setting: None, in_block: false }
    }

    /// Takes in the next bytes, and hands every frame whose header is complete, with what is looked at of its payload, to
    /// `see`; and how many of `bytes` there are up to there.
    pub fn feed(&mut self, bytes: &[u8], mut see: impl FnMut(Piece<'_>, usize)) {
        let mut rest = bytes;
        loop {
            let passed = rest.len().min(usize::try_from(self.pass).unwrap_or(usize::MAX));
            // Not more than `pass`, which is a `u32`.
            self.pass -= passed as u32;
            let (payload, after) = rest.split_at(passed);
            rest = after;
            if self.in_block && passed > 0 {
                see(Piece::OfBlock(payload), bytes.len() - rest.len());
            }
            if rest.is_empty() {
                return;
            }
            let wanted = self.need - self.have;
            let (here, after) = rest.split_at(wanted.min(rest.len()));
            if let Some(room) = self.buffer.get_mut(self.have..self.have + here.len()) {
                room.copy_from_slice(here);
            }
            let had = self.have;
            self.have += here.len();
            rest = after;
            if had <= KIND_AT
                && self.have > KIND_AT
                && self.buffer.get(KIND_AT).is_some_and(|kind| *kind == Kind::GoAway as u8)
            {
                see(Piece::Goodbye, bytes.len() - rest.len() - (self.have - KIND_AT - 1));
            }
            if self.have < self.need {
                return;
            }
            let mut frame = self.frame();
            let kept = frame.kind.kept(frame.flags, frame.length);
            if self.need == HEAD_BYTES && kept > 0 {
                self.need += kept;
                continue;
            }
            // Below `length`, a `u32`.
            self.looked_at += kept as u32;
            if frame.kind == Kind::Settings && kept > 0 {
                self.bad_setting = self.bad_setting.or_else(|| self.setting());
                if self.looked_at < frame.length {
                    self.have = HEAD_BYTES;
                    continue;
                }
            }
            frame.bad_setting = self.bad_setting.take();
            self.pass = frame.length - std::mem::take(&mut self.looked_at);
            self.have = 0;
            self.need = HEAD_BYTES;
            self.in_block = matches!(frame.kind, Kind::Headers | Kind::Continuation);
            let kept = self.buffer.get(HEAD_BYTES..HEAD_BYTES + kept).unwrap_or_default();
            see(Piece::Frame(frame, kept), bytes.len() - rest.len());
        }
    }

    /// Whether the bytes so far end inside of a part of a header block.
    pub(super) fn is_in_block(&self) -> bool {
        self.in_block && self.pass > 0
    }

    /// The frame in the buffer; what its payload says, only if that was waited for.
    fn frame(&self) -> Frame {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3, rest @ ..] = self.buffer;
        let [a, b, c, d, e, f, g, h, ..] = rest;
        let kind = Kind::from_byte(kind);
        let (first, second) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        let mut frame = Frame {
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & STREAM_BITS,
            length: u32::from_be_bytes([0, l0, l1, l2]),
            code: None,
            last_stream: None,
            increment: None,
            padding: 0,
            bad_setting: None,
            resizes: false,
        };
        let kept = self.need - HEAD_BYTES;
        match kind {
            _ if kept == 0 => {}
            Kind::RstStream => frame.code = Some(first),
            Kind::GoAway => (frame.code, frame.last_stream) = (Some(second), Some(first & STREAM_BITS)),
            Kind::WindowUpdate => frame.increment = Some(first & STREAM_BITS),
            Kind::Data => frame.padding = 1 + u32::from(a),
            Kind::Headers => {
                frame.padding = if flags & PADDED != 0 { 1 + u32::from(a) } else { 0 };
                frame.resizes = resizes(flags, rest.get(..kept).unwrap_or_default());
            }
            _ => {}
        }
        frame
    }

    /// The error of the setting in the buffer.
    fn setting(&self) -> Option<u32> {
        let [_, _, _, _, _, _, _, _, _, a, b, c, d, e, f, ..] = self.buffer;
        let value = u32::from_be_bytes([c, d, e, f]);
        match u16::from_be_bytes([a, b]) {
            ENABLE_PUSH | ENABLE_CONNECT_PROTOCOL if value > 1 => Some(PROTOCOL_ERROR),
            INITIAL_WINDOW_SIZE if value > WINDOW_MAX => Some(FLOW_CONTROL_ERROR),
            MAX_FRAME_SIZE if !(FRAME_BYTES_COMMON..=FRAME_BYTES_MAX).contains(&value) => {
                Some(PROTOCOL_ERROR)
            }
            _ => None,
        }
    }
}

/// Settings, by number (RFC 9113 section 6.5.2, RFC 8441 section 3).
const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;
/// The largest window there is.
const WINDOW_MAX: u32 = 0x7fff_ffff;
/// Bytes of a payload that each side takes, unless it says that it takes more; and that it can say.
pub(super) const FRAME_BYTES_COMMON: u32 = 1 << 14;
const FRAME_BYTES_MAX: u32 = (1 << 24) - 1;

/// Whether a header block, of which this is the beginning with what stands before it, changes the table's size more often
/// than twice.
fn resizes(flags: u8, payload: &[u8]) -> bool {
    let before = usize::from(flags & PADDED != 0) + if flags & WITH_PRIORITY != 0 { 5 } else { 0 };
    let mut block = payload.get(before..).unwrap_or_default().iter();
    let (length, mut sizes) = (block.len(), 0);
    while let Some(byte) = block.next() {
        if byte & 0xe0 != 0x20 {
            return false;
        }
        sizes += 1;
        // All five bits set: the number goes on up to a byte without its highest bit.
        if byte & 0x1f == 0x1f {
            let _last = block.find(|byte| **byte & 0x80 == 0);
        }
        if sizes > 2 || length - block.len() > SIZES_BYTES {
            return true;
        }
    }
    false
}

/// What two sizes take: the table is never larger than 4096 bytes.
const SIZES_BYTES: usize = 6;

/// The highest bit of a stream's number is reserved.
const STREAM_BITS: u32 = 0x7fff_ffff;
