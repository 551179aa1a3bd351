//! Finds the frames in one direction of an HTTP/2 connection (RFC 9113 section 4.1), whatever pieces the bytes come in.

/// Bytes of a frame's header.
const HEAD_BYTES: usize = 9;
/// Bytes of a payload that are looked at: those of GOAWAY that say up to where and why.
const KEPT_BYTES: usize = 8;

/// `END_STREAM`, of DATA and HEADERS.
pub const END_STREAM: u8 = 0x1;
/// `END_HEADERS`, of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 0x4;

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
    fn kept(self, length: u32) -> usize {
        match (self, length) {
            (Self::RstStream, 4) => 4,
            (Self::GoAway, 8..) => KEPT_BYTES,
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
}

impl FrameReader {
    /// A reader whose first frame begins after `before` bytes: the preface of a client, nothing before a server's.
    pub fn new(before: u32) -> Self {
        Self { pass: before, have: 0, need: HEAD_BYTES, buffer: [0; HEAD_BYTES + KEPT_BYTES] }
    }

    /// Takes in the next bytes, and hands every frame whose header is complete to `see`.
    pub fn feed(&mut self, bytes: &[u8], mut see: impl FnMut(Frame)) {
        let mut rest = bytes;
        loop {
            let passed = rest.len().min(usize::try_from(self.pass).unwrap_or(usize::MAX));
            // Not more than `pass`, which is a `u32`.
            self.pass -= passed as u32;
            rest = rest.get(passed..).unwrap_or_default();
            if rest.is_empty() {
                return;
            }
            let wanted = self.need - self.have;
            let (here, after) = rest.split_at(wanted.min(rest.len()));
            if let Some(room) = self.buffer.get_mut(self.have..self.have + here.len()) {
                room.copy_from_slice(here);
            }
            self.have += here.len();
            rest = after;
            if self.have < self.need {
                return;
            }
            let frame = self.frame();
            let kept = frame.kind.kept(frame.length);
            if self.need == HEAD_BYTES && kept > 0 {
                self.need += kept;
                continue;
            }
            // Below `length`, a `u32`.
            self.pass = frame.length - kept as u32;
            self.have = 0;
            self.need = HEAD_BYTES;
            see(frame);
        }
    }

    /// The frame in the buffer; its code, only if that was waited for.
    fn frame(&self) -> Frame {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3, rest @ ..] = self.buffer;
        let [a, b, c, d, e, f, g, h] = rest;
        let kind = Kind::from_byte(kind);
        let (first, second) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        let complete = self.need > HEAD_BYTES;
        let (code, last_stream) = match kind {
            Kind::RstStream if complete => (Some(first), None),
            Kind::GoAway if complete => (Some(second), Some(first & STREAM_BITS)),
            _ => (None, None),
        };
        Frame {
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & STREAM_BITS,
            length: u32::from_be_bytes([0, l0, l1, l2]),
            code,
            last_stream,
        }
    }
}

/// The highest bit of a stream's number is reserved.
const STREAM_BITS: u32 = 0x7fff_ffff;
