//! Watches the frames of an HTTP/2 connection, between the socket and the library.
//!
//! The library refuses some requests by itself: their header is malformed, too large, or one stream too many. It answers
//! or resets them, and says nothing of it. Here both directions pass by, so it shows: a stream that the client opened, that
//! was not handed to us, and that an answer or a reset of ours has ended. Nothing is copied, and nothing is held up but
//! floods ([`calm`](self)) and frames that break the [`rules`](self): those connections are ended from here, since the
//! library has PROTOCOL_ERROR for nearly everything where the specification is more precise. Pure but for the lock around it.

mod block;
mod calm;
mod huffman;
mod reader;
mod rules;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use self::block::{Blocks, Oddities};
use self::calm::Calm;
pub use self::reader::{END_HEADERS, END_STREAM, Frame, FrameReader, Kind, Piece};
use self::rules::{PROTOCOL_ERROR, Place, Rules};

/// COMPRESSION_ERROR (RFC 9113 section 7), as the last byte of a code.
pub const COMPRESSION_ERROR: u8 = 9;
/// PROTOCOL_ERROR.
const GENERAL: u8 = 1;
/// Bytes of the client's preface (RFC 9113 section 3.4).
const PREFACE_BYTES: u32 = 24;
/// Opened streams of which it is not known yet what becomes of them. The library looks at all it has read before it
/// reads on, so they are those of one read; more cannot be told apart, and only a flood has them.
const UNDECIDED_MAX: usize = 2048;

/// What one connection does, as its frames tell. Kept by `ingress::stream`, asked by `ingress::http2`.
#[derive(Debug)]
pub struct FrameWatch {
    watch: Mutex<Watch>,
    /// Whether nothing more is to be read.
    over: AtomicBool,
}

/// The state machine behind [`FrameWatch`].
#[derive(Debug, Clone)]
pub struct Watch {
    inbound: FrameReader,
    outbound: FrameReader,
    calm: Calm,
    flooded: bool,
    rules: Rules,
    /// The error of the first frame that broke them.
    broken: Option<u32>,
    /// Of the last read.
    blocks: Blocks,
    /// Frames of the client, by kind.
    received: [u32; Kind::COUNT],
    /// The last stream that the client opened.
    last_opened: u32,
    /// Streams above are ignored by the library: it has said goodbye.
    last_accepted: u32,
    /// The stream whose header block is being received.
    block: Option<u32>,
    /// Whether the last header block opened its stream; it is trailers otherwise.
    block_opens: bool,
    /// Opened, undecided, and with a fragment in their paths; in the order of their numbers.
    fragments: VecDeque<u32>,
    /// Opened, and neither handed over nor ended yet; in the order of their numbers.
    undecided: VecDeque<u32>,
    /// Opened, and their bodies are under way; in the order of their numbers. Of no more than [`UNDECIDED_MAX`].
    bodies: VecDeque<u32>,
    /// Opened, and their answers are not complete; in the order of their numbers. Of no more than [`UNDECIDED_MAX`].
    answers: VecDeque<u32>,
    /// Ended by the library, and not told yet.
    ended: VecDeque<Ended>,
    /// The error that the library, or we, gave as the end of the connection.
    error: Option<u32>,
}

/// A stream that the library ended without handing it over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its number.
    pub stream: u32,
    /// By what.
    pub by: EndedBy,
}

/// How the library ended a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// With an answer. There is only one that it gives: 431.
    Answer,
    /// With RST_STREAM, and this code.
    Reset(u32),
}

/// What came of bytes of the client's.
#[derive(Debug)]
pub struct Seen {
    /// How many of them the library may see.
    pub passed: usize,
    /// Where the kinds of those frames stand that it is not to see.
    pub hidden: Vec<usize>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The error that the client was told.
    pub error: Option<u32>,
    /// Opened streams of which nothing came.
    pub undecided: usize,
    /// Streams that the client reset.
    pub resets: u32,
}

/// What there is to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// A stream that was ended, told once.
    pub ended: Option<Ended>,
    /// The client does nothing but keep us busy: the connection is to be ended.
    pub flooded: bool,
    /// A frame broke the rules: the connection is to be ended with this error.
    pub broken: Option<u32>,
    /// How often the client said goodbye: the connection is over once nothing is open on it.
    pub goodbyes: u32,
    /// The stream whose header block has begun and is not complete.
    pub block: Option<u32>,
}

impl FrameWatch {
    /// A watch on a connection of which nothing was read yet.
    pub fn new(now: Instant) -> Self {
        Self { watch: Mutex::new(Watch::new(now)), over: AtomicBool::new(false) }
    }

    /// Bytes of the client's, before the library sees them; says how many of them it may see. Goodbyes are made unknown
    /// frames, which it passes over: it would close at the first although more of something else is coming.
    pub fn received(&self, bytes: &mut [u8], now: impl Fn() -> Instant) -> usize {
        let mut watch = self.watch.lock();
        let seen = watch.received(bytes, now);
        for at in seen.hidden {
            if let Some(kind) = bytes.get_mut(at) {
                *kind = Kind::HIDDEN;
            }
        }
        self.over.store(watch.flooded || watch.broken.is_some(), Ordering::Relaxed);
        seen.passed
    }

    /// Bytes of the library's, as they are written.
    pub fn sent(&self, bytes: &[u8], now: impl Fn() -> Instant) {
        self.watch.lock().sent(bytes, now);
    }

    /// Whether these bytes of the library's, which are about to be written, end with GOAWAY and the general error, although it
    /// is a header block that cannot be decoded: then their last byte is to be [`COMPRESSION_ERROR`].
    pub fn is_vague(&self, bytes: &[u8]) -> bool {
        // Hardly ever.
        bytes.last() == Some(&GENERAL) && self.watch.lock().is_vague(bytes)
    }

    /// The library handed `stream` over: whatever becomes of it is no longer its doing. Whether there was a fragment in its
    /// path, which the library has taken off.
    pub fn handed_over(&self, stream: u32) -> bool {
        self.watch.lock().handed_over(stream)
    }

    /// What there is to do.
    pub fn glance(&self) -> Glance {
        self.watch.lock().glance()
    }

    /// Whether nothing more is to be read: the connection is to be ended.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// How the connection ended.
    pub fn end(&self) -> End {
        let watch = self.watch.lock();
        let resets = watch.received.get(Kind::RstStream as usize).copied().unwrap_or(0);
        End { error: watch.error, undecided: watch.undecided.len(), resets }
    }

    /// The kind of frames that came most often: what a flood consists of.
    pub fn most_received(&self) -> &'static str {
        self.watch.lock().most_received()
    }
}

impl Watch {
    /// As [`FrameWatch::new`].
    pub fn new(now: Instant) -> Self {
        Self {
            inbound: FrameReader::new(PREFACE_BYTES),
            outbound: FrameReader::new(0),
            calm: Calm::new(now),
            flooded: false,
            rules: Rules::default(),
            broken: None,
            blocks: Blocks::default(),
            received: [0; Kind::COUNT],
            last_opened: 0,
            last_accepted: u32::MAX,
            block: None,
            block_opens: false,
            fragments: VecDeque::new(),
            undecided: VecDeque::new(),
            bodies: VecDeque::new(),
            answers: VecDeque::new(),
            ended: VecDeque::new(),
            error: None,
        }
    }

    /// As [`FrameWatch::received`], but for what is to be hidden.
    pub fn received(&mut self, bytes: &[u8], now: impl Fn() -> Instant) -> Seen {
        let mut seen = Seen { passed: bytes.len(), hidden: Vec::new() };
        let mut reader = self.inbound.clone();
        // The library has taken all that was complete before, or said why not.
        let excess = self.blocks.settle(self.block.is_some() || reader.is_in_block());
        self.flooded |= !self.calm.decoded(excess, &now);
        reader.feed(bytes, |piece, end| {
            let was_broken = self.broken.is_some();
            match piece {
                Piece::Frame(frame, payload) => {
                    if matches!(frame.kind, Kind::Headers | Kind::Continuation) {
                        self.blocks.begin(&frame);
                        self.blocks.take(payload);
                    }
                    self.see_received(&frame, &now);
                }
                Piece::OfBlock(payload) => self.blocks.take(payload),
                Piece::Goodbye => return seen.hidden.push(end - 1),
            }
            if let Some(odd) = self.blocks.completed() {
                self.see_block(odd);
            }
            if self.broken.is_some() && !was_broken {
                // Without its last byte that is no frame yet.
                seen.passed = end - 1;
            }
        });
        self.inbound = reader;
        seen
    }

    /// As [`FrameWatch::sent`].
    pub fn sent(&mut self, bytes: &[u8], now: impl Fn() -> Instant) {
        let mut reader = self.outbound.clone();
        reader.feed(bytes, |piece, _| {
            if let Piece::Frame(frame, _) = piece {
                self.see_sent(&frame, &now);
            }
        });
        self.outbound = reader;
    }

    /// As [`FrameWatch::is_vague`].
    pub fn is_vague(&self, bytes: &[u8]) -> bool {
        if self.broken.is_some() {
            return false;
        }
        let mut last = None;
        self.outbound.clone().feed(bytes, |piece, end| {
            if let Piece::Frame(frame, _) = piece {
                last = (end == bytes.len()).then_some((frame.kind, frame.code));
            }
        });
        last == Some((Kind::GoAway, Some(PROTOCOL_ERROR))) && self.blocks.cannot_be_decoded()
    }

    /// As [`FrameWatch::handed_over`].
    pub fn handed_over(&mut self, stream: u32) -> bool {
        let has_fragment = take(&mut self.fragments, stream);
        // It may have been ended since it was read: then whoever got it finds that out, and tells.
        if !self.decide(stream) && !self.ended.is_empty() {
            self.ended.retain(|ended| ended.stream != stream);
        }
        has_fragment
    }

    /// As [`FrameWatch::glance`].
    pub fn glance(&mut self) -> Glance {
        Glance {
            ended: self.ended.pop_front(),
            flooded: self.flooded,
            broken: self.broken,
            goodbyes: self.received.get(Kind::GoAway as usize).copied().unwrap_or(0),
            block: self.block,
        }
    }

    /// Whether this budget of calm is spent.
    pub fn is_flooded(&self) -> bool {
        self.flooded
    }

    /// Opened streams of which nothing is known yet.
    pub fn undecided(&self) -> usize {
        self.undecided.len()
    }

    fn see_received(&mut self, frame: &Frame, now: impl Fn() -> Instant) {
        if let Some(count) = self.received.get_mut(frame.kind as usize) {
            *count = count.saturating_add(1);
        }
        let is_body_open = self.bodies.binary_search(&frame.stream).is_ok();
        let place = Place { last_opened: self.last_opened, block: self.block, is_body_open };
        if self.broken.is_none() && !self.flooded {
            self.broken = self.rules.broken_by(frame, &place);
        }
        // Clients open odd streams, in ascending order; HEADERS of another stream are its trailers, or an error.
        let opens = frame.kind == Kind::Headers
            && frame.stream % 2 == 1
            && frame.stream > self.last_opened
            && self.block.is_none();
        if frame.kind == Kind::Headers {
            self.block_opens = opens;
        }
        if opens {
            self.rules.opened(frame.stream, self.last_opened);
            self.last_opened = frame.stream;
            if frame.stream <= self.last_accepted && self.undecided.len() < UNDECIDED_MAX {
                self.undecided.push_back(frame.stream);
            }
            if self.answers.len() < UNDECIDED_MAX {
                self.answers.push_back(frame.stream);
            }
        }
        match frame.kind {
            Kind::Headers if frame.flags & END_HEADERS == 0 => self.block = Some(frame.stream),
            Kind::Continuation if frame.flags & END_HEADERS != 0 => self.block = None,
            _ => {}
        }
        let is_of_body = !opens && is_body_open;
        let ends = matches!(frame.kind, Kind::Data | Kind::Headers) && frame.flags & END_STREAM != 0;
        if opens && !ends {
            if self.bodies.len() < UNDECIDED_MAX {
                self.bodies.push_back(frame.stream);
            } else {
                self.rules.lost_sight_of(frame.stream);
            }
        } else if is_of_body && (ends || frame.kind == Kind::RstStream) {
            take(&mut self.bodies, frame.stream);
        }
        if frame.kind == Kind::RstStream && take(&mut self.answers, frame.stream) {
            self.flooded |= !self.calm.cancelled(&now);
        }
        self.flooded |= !self.calm.received(frame, is_of_body, now);
    }

    /// A block is complete: of the last stream that was opened, or of trailers.
    fn see_block(&mut self, odd: Oddities) {
        if !self.block_opens {
            if odd.names_pseudo && self.broken.is_none() && !self.flooded {
                self.broken = Some(PROTOCOL_ERROR);
            }
        } else if odd.has_fragment && self.undecided.back() == Some(&self.last_opened) {
            self.fragments.push_back(self.last_opened);
        }
    }

    fn see_sent(&mut self, frame: &Frame, now: impl Fn() -> Instant) {
        let ends = matches!(frame.kind, Kind::Data | Kind::Headers) && frame.flags & END_STREAM != 0;
        if ends && take(&mut self.answers, frame.stream) {
            self.calm.completed();
        }
        match (frame.kind, frame.code) {
            (Kind::Headers, _) => self.see_ended(frame.stream, EndedBy::Answer),
            (Kind::Settings, _) => self.rules.sent_settings(frame),
            (Kind::RstStream, Some(code)) => {
                if take(&mut self.bodies, frame.stream) {
                    self.rules.gave_up(frame.stream);
                }
                take(&mut self.answers, frame.stream);
                self.see_ended(frame.stream, EndedBy::Reset(code));
            }
            (Kind::GoAway, Some(0)) => {
                // The client will send these elsewhere; that is no refusal.
                let last = frame.last_stream.unwrap_or(u32::MAX);
                self.last_accepted = self.last_accepted.min(last);
                self.undecided.retain(|stream| *stream <= last);
            }
            (Kind::GoAway, code) => self.error = code,
            _ => {}
        }
        self.flooded |= !self.calm.sent(frame, now);
    }

    fn see_ended(&mut self, stream: u32, by: EndedBy) {
        if self.decide(stream) {
            take(&mut self.fragments, stream);
            self.ended.push_back(Ended { stream, by });
        }
    }

    /// Something became of `stream`; true if that was not known before.
    fn decide(&mut self, stream: u32) -> bool {
        take(&mut self.undecided, stream)
    }

    fn most_received(&self) -> &'static str {
        const WORDS: [&str; Kind::COUNT] = [
            "DATA",
            "HEADERS",
            "PRIORITY",
            "RST_STREAM",
            "SETTINGS",
            "PUSH_PROMISE",
            "PING",
            "GOAWAY",
            "WINDOW_UPDATE",
            "CONTINUATION",
            "unknown",
        ];
        let most = self.received.iter().zip(WORDS).max_by_key(|(count, _)| **count);
        most.map_or("unknown", |(_, word)| word)
    }
}

/// Takes `stream` out of `streams`, which are in order; false if it is not among them.
fn take(streams: &mut VecDeque<u32>, stream: u32) -> bool {
    let Ok(at) = streams.binary_search(&stream) else { return false };
    streams.remove(at);
    if streams.is_empty() && streams.capacity() > UNDECIDED_COMMON {
        *streams = VecDeque::new();
    }
    true
}

/// Room kept for streams of a kind; what a burst took more is given back.
const UNDECIDED_COMMON: usize = 64;

#[cfg(test)]
mod tests;
