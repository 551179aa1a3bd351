//! Finds the frames in one direction of an HTTP/2 connection (RFC 9113 section 4.1), whatever pieces the bytes come in.

/// Bytes of a frame's header.
const HEAD_BYTES: usize = 9;
/// Bytes of a payload that are looked at: those of HEADERS up to the first field, with padding, a priority and two table
/// sizes before it.
const KEPT_BYTES: usize = 16;

/// `END_STREAM`, of DATA and HEADERS.
pub const END_STREAM: u8 = 0x1;
/// `END_HEADERS`, of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 0x4;
/// `PADDED`, of DATA and HEADERS.
const PADDED: u8 = 0x8;
/// `PRIORITY`, of HEADERS.
const WITH_PRIORITY: u8 = 0x20;

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
    fn kept(self, flags: u8, length: u32) -> usize {
        match (self, length) {
            (Self::RstStream | Self::WindowUpdate, 4) => 4,
            (Self::GoAway, 8..) => 8,
            (Self::Data, 1..) if flags & PADDED != 0 => 1,
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
    /// Bytes of DATA that are padding, with the one that says so.
    pub padding: u32,
    /// Whether a header block begins with more changes of the table's size than the two there may be (RFC 7541 section 4.2).
    pub resizes: bool,
}

impl Frame {
    /// Bytes of the payload without padding.
    pub fn content(&self) -> u32 {
        self.length.saturating_sub(self.padding)
    }
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
            let kept = frame.kind.kept(frame.flags, frame.length);
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
            resizes: false,
        };
        let kept = self.need - HEAD_BYTES;
        match kind {
            _ if kept == 0 => {}
            Kind::RstStream => frame.code = Some(first),
            Kind::GoAway => (frame.code, frame.last_stream) = (Some(second), Some(first & STREAM_BITS)),
            Kind::WindowUpdate => frame.increment = Some(first & STREAM_BITS),
            Kind::Data => frame.padding = 1 + u32::from(a),
            Kind::Headers => frame.resizes = resizes(flags, rest.get(..kept).unwrap_or_default()),
            _ => {}
        }
        frame
    }
}

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
