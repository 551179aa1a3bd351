//! Header blocks (RFC 7541), as far as it takes to say what is wrong with one.
//!
//! The library gives PROTOCOL_ERROR for every block that it does not take. One that cannot be decoded has an error of its
//! own (RFC 9113 section 4.3); one that can, and has a name or a value that HTTP/2 does not know, has not. So the blocks of
//! the last read are kept, and looked at once the library has given up. Of long ones the fields are counted before. And
//! what the library drops without a word is looked for in each as soon as it is complete: [`Oddities`].

use super::huffman::decompressed;
use super::reader::{END_HEADERS, Frame, Kind, PADDED, WITH_PRIORITY};
use crate::base::wire::octets::is_token;
use crate::ingress::http2_head::FIELDS_MAX;

/// Bytes of blocks that are kept at most; more than `limits.header_bytes` mostly allows.
const BYTES_MAX: usize = 64 * 1024;
/// Bytes for which room is kept.
const BYTES_COMMON: usize = 1024;
/// Fields of the static table, and how many there can be in a dynamic one of 4096 bytes, at 32 bytes each and more.
const STATIC: usize = 61;
const DYNAMIC_MAX: usize = 4096 / 32;
/// The largest dynamic table that was offered.
const TABLE_BYTES: usize = 4096;

/// The blocks that came last.
#[derive(Debug, Clone, Default)]
pub(super) struct Blocks {
    bytes: Vec<u8>,
    /// Where each begins.
    starts: Vec<usize>,
    /// Bytes of the frame's payload that stand before its part of the block, and of that part, still to come.
    before: usize,
    part: usize,
    /// There were more than are kept.
    is_cut: bool,
    /// The last frame's part is the end of its block.
    is_last: bool,
    names: Names,
}

/// What malformed requests have and the library does not tell (RFC 9113 sections 8.1 and 8.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Oddities {
    /// It has pseudo-headers, which trailers may not have.
    pub(super) names_pseudo: bool,
    /// Its path has a fragment.
    pub(super) has_fragment: bool,
}

/// What the fields of the dynamic table are, the last that came in the lowest bit. Those that had to leave it are the oldest,
/// so nobody has to know which.
#[derive(Debug, Clone, Copy, Default)]
struct Names {
    pseudo: u128,
    path: u128,
    fragment: u128,
}

impl Blocks {
    /// All that is complete is done with; with `goes_on` the last is not. How many fields it had that no request has.
    pub(super) fn settle(&mut self, goes_on: bool) -> usize {
        let Some(last) = self.starts.last() else { return 0 };
        let kept_from = if goes_on { *last } else { self.bytes.len() };
        let complete = self.starts.len() - usize::from(goes_on);
        let excess = if kept_from > FIELDS_MAX { self.excess(complete) } else { 0 };
        self.bytes.drain(..kept_from);
        if self.bytes.is_empty() && self.bytes.capacity() > BYTES_COMMON {
            self.bytes = Vec::new();
        }
        self.starts.clear();
        if goes_on {
            self.starts.push(0);
        } else {
            self.is_cut = false;
        }
        excess
    }

    /// Fields of the first blocks beyond those that requests have.
    fn excess(&self, blocks: usize) -> usize {
        self.each().take(blocks).map(|block| fields(block).saturating_sub(FIELDS_MAX)).sum()
    }

    /// The blocks that are kept.
    fn each(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.starts.iter().skip(1).copied().chain([self.bytes.len()]);
        self.starts.iter().zip(ends).map(|(start, end)| self.bytes.get(*start..end).unwrap_or_default())
    }

    /// HEADERS or CONTINUATION, of whose payload nothing came yet.
    pub(super) fn begin(&mut self, frame: &Frame) {
        let is_first = frame.kind == Kind::Headers;
        if is_first {
            self.starts.push(self.bytes.len());
        }
        let flag = |flag, bytes| if is_first && frame.flags & flag != 0 { bytes } else { 0 };
        self.is_last = frame.flags & END_HEADERS != 0;
        self.before = flag(PADDED, 1) + flag(WITH_PRIORITY, 5);
        // A frame is no longer than a `u32`.
        let padding = flag(PADDED, 1) * (frame.padding.saturating_sub(1) as usize);
        self.part = (frame.length as usize).saturating_sub(self.before + padding);
    }

    /// More of the payload.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let passed = self.before.min(bytes.len());
        self.before -= passed;
        let part = bytes.get(passed..).unwrap_or_default();
        let part = part.get(..self.part).unwrap_or(part);
        self.part -= part.len();
        if self.bytes.len() + part.len() > BYTES_MAX {
            self.is_cut = true;
        } else {
            self.bytes.extend_from_slice(part);
        }
    }

    /// Looks at the last block, if its end is what was taken last.
    pub(super) fn completed(&mut self) -> Option<Oddities> {
        if !std::mem::take(&mut self.is_last) {
            return None;
        }
        if self.before + self.part > 0 {
            self.is_last = true;
            return None;
        }
        if self.is_cut {
            // What it left in the table is not known.
            self.names = Names::default();
            return None;
        }
        let start = self.starts.last()?;
        let mut rest = self.bytes.get(*start..)?;
        let mut odd = Oddities::default();
        while let Some(found) = raw(&mut rest) {
            self.names.look_at(found, &mut odd);
        }
        Some(odd)
    }

    /// Whether one of them cannot be decoded, when it is known that there is something wrong with one.
    pub(super) fn cannot_be_decoded(&self) -> bool {
        if self.is_cut {
            return false;
        }
        let mut refers_to_table = false;
        for block in self.each() {
            match look_at(block) {
                Looks::Broken => return true,
                Looks::Malformed => return false,
                Looks::Good { refers_to_table: refers } => refers_to_table |= refers,
            }
        }
        // Then it is the one thing that is not looked at: a field that is not, or no longer, in the dynamic table.
        refers_to_table
    }
}

impl Names {
    fn look_at(&mut self, field: Raw<'_>, odd: &mut Oddities) {
        match field {
            Raw::TableSize(_) => {}
            Raw::Indexed(index) => {
                odd.names_pseudo |= self.is_pseudo(index);
                odd.has_fragment |= in_table(self.fragment, index);
            }
            Raw::Literal { name, value, is_kept } => {
                let (is_pseudo, is_path) = match name {
                    RawName::Indexed(index) => (self.is_pseudo(index), self.is_path(index)),
                    RawName::Literal(name) => {
                        let is_pseudo = name.is_pseudo();
                        (is_pseudo, is_pseudo && name.read().as_deref() == Some(b":path"))
                    }
                };
                let has_fragment = is_path && value.has_fragment();
                if is_kept {
                    self.pseudo = self.pseudo << 1 | u128::from(is_pseudo);
                    self.path = self.path << 1 | u128::from(is_path);
                    self.fragment = self.fragment << 1 | u128::from(has_fragment);
                }
                odd.names_pseudo |= is_pseudo;
                odd.has_fragment |= has_fragment;
            }
        }
    }

    fn is_pseudo(&self, index: usize) -> bool {
        (1..=LAST_PSEUDO).contains(&index) || in_table(self.pseudo, index)
    }

    fn is_path(&self, index: usize) -> bool {
        PATHS.contains(&index) || in_table(self.path, index)
    }
}

/// The bit of the dynamic table's field with this index.
fn in_table(bits: u128, index: usize) -> bool {
    index
        .checked_sub(STATIC + 1)
        .and_then(|at| u32::try_from(at).ok())
        .is_some_and(|at| bits.checked_shr(at).is_some_and(|bits| bits & 1 == 1))
}

/// What a block looks like without the dynamic table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// It cannot be decoded.
    Broken,
    /// A field of it can be none.
    Malformed,
    Good {
        /// Whether a field of it is taken from the dynamic table.
        refers_to_table: bool,
    },
}

fn look_at(block: &[u8]) -> Looks {
    let mut rest = block;
    let mut refers_to_table = false;
    let mut is_first = true;
    while !rest.is_empty() {
        let Some(field) = field(&mut rest) else { return Looks::Broken };
        match field {
            Field::TableSize(size) if !is_first || size > TABLE_BYTES => return Looks::Broken,
            Field::TableSize(_) => continue,
            Field::Indexed(index) => refers_to_table |= index > STATIC,
            Field::Literal { name, value } => {
                if !is_well_formed(&name, &value) {
                    return Looks::Malformed;
                }
                refers_to_table |= matches!(name, Name::Indexed(index) if index > STATIC);
            }
        }
        is_first = false;
    }
    Looks::Good { refers_to_table }
}

/// How many fields there are in a block, as far as it can be decoded; not what they are.
fn fields(block: &[u8]) -> usize {
    let mut rest = block;
    let mut count = 0;
    while raw(&mut rest).is_some() {
        count += 1;
    }
    count
}

/// A representation of a field as it came (RFC 7541 section 6).
enum Raw<'a> {
    TableSize(usize),
    Indexed(usize),
    Literal {
        name: RawName<'a>,
        value: RawText<'a>,
        /// It goes into the dynamic table.
        is_kept: bool,
    },
}

enum RawName<'a> {
    Indexed(usize),
    Literal(RawText<'a>),
}

/// A text as it came (section 5.2).
#[derive(Clone, Copy)]
struct RawText<'a> {
    bytes: &'a [u8],
    is_compressed: bool,
}

impl RawText<'_> {
    fn read(self) -> Option<Vec<u8>> {
        if self.is_compressed { decompressed(self.bytes) } else { Some(self.bytes.to_vec()) }
    }

    /// Whether it begins with a colon, whose code is 1011100.
    fn is_pseudo(self) -> bool {
        match self.bytes.first() {
            Some(first) if self.is_compressed => first >> 1 == 0b101_1100,
            first => first == Some(&b':'),
        }
    }

    fn has_fragment(self) -> bool {
        if !self.is_compressed {
            return self.bytes.contains(&b'#');
        }
        // Its code begins with nine ones, which hardly anything else has.
        let has_nine_ones = self.bytes.array_windows().any(|pair| {
            let pair = u16::from_be_bytes(*pair);
            let two = pair & pair << 1;
            let four = two & two << 2;
            (four & four << 4) & pair << 8 != 0
        });
        has_nine_ones && decompressed(self.bytes).is_some_and(|text| text.contains(&b'#'))
    }
}

/// Takes a representation of a field; `None` if it is none.
fn raw<'a>(rest: &mut &'a [u8]) -> Option<Raw<'a>> {
    let first = byte(rest)?;
    let (bits, is_kept) = match first {
        0x80.. => return Some(Raw::Indexed(integer(first, 7, rest)?)),
        0x40..0x80 => (6, true),
        0x20..0x40 => return Some(Raw::TableSize(integer(first, 5, rest)?)),
        // Not kept in the table, for now or ever.
        ..0x20 => (4, false),
    };
    let name = match integer(first, bits, rest)? {
        0 => RawName::Literal(raw_text(rest)?),
        index => RawName::Indexed(index),
    };
    Some(Raw::Literal { name, value: raw_text(rest)?, is_kept })
}

fn raw_text<'a>(rest: &mut &'a [u8]) -> Option<RawText<'a>> {
    let first = byte(rest)?;
    let length = integer(first, 7, rest)?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(RawText { bytes, is_compressed: first & 0x80 != 0 })
}

enum Field {
    TableSize(usize),
    Indexed(usize),
    Literal { name: Name, value: Vec<u8> },
}

enum Name {
    Indexed(usize),
    Literal(Vec<u8>),
}

/// Takes a field; `None` if it cannot be decoded.
fn field(rest: &mut &[u8]) -> Option<Field> {
    Some(match raw(rest)? {
        Raw::TableSize(size) => Field::TableSize(size),
        Raw::Indexed(index) => Field::Indexed(of_some_table(index)?),
        Raw::Literal { name: RawName::Indexed(index), value, .. } => {
            Field::Literal { name: Name::Indexed(of_some_table(index)?), value: value.read()? }
        }
        Raw::Literal { name: RawName::Literal(name), value, .. } => {
            Field::Literal { name: Name::Literal(name.read()?), value: value.read()? }
        }
    })
}

/// An index that some table could have.
fn of_some_table(index: usize) -> Option<usize> {
    (1..=STATIC + DYNAMIC_MAX).contains(&index).then_some(index)
}

/// An integer (section 5.1) whose `first` byte has `bits` bits for it.
fn integer(first: u8, bits: u8, rest: &mut &[u8]) -> Option<usize> {
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(first) & most;
    if value < most {
        return Some(value);
    }
    // Four more bytes are more than anything here is long.
    for shift in [0, 7, 14, 21] {
        let byte = byte(rest)?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

/// Whether a literal field is one of HTTP/2 (RFC 9113 sections 8.2 and 8.3).
fn is_well_formed(name: &Name, value: &[u8]) -> bool {
    let is_text = value.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..));
    let is_pseudo = match name {
        Name::Indexed(index) => *index <= LAST_PSEUDO,
        Name::Literal(name) if name.starts_with(b":") => {
            if !PSEUDO.contains(&name.as_slice()) {
                return false;
            }
            true
        }
        Name::Literal(name) => {
            if !is_token(name) || name.iter().any(u8::is_ascii_uppercase) {
                return false;
            }
            false
        }
    };
    let is_method = match name {
        Name::Indexed(index) => METHODS.contains(index),
        Name::Literal(name) => name == b":method",
    };
    is_text && (!is_pseudo || std::str::from_utf8(value).is_ok()) && (!is_method || is_token(value))
}

/// The pseudo-headers that a block may name, known for requests or not.
const PSEUDO: [&[u8]; 6] = [b":authority", b":method", b":path", b":scheme", b":protocol", b":status"];
/// The last of them in the static table (RFC 7541 appendix A), and the methods in it.
const LAST_PSEUDO: usize = 14;
const METHODS: [usize; 2] = [2, 3];
const PATHS: [usize; 2] = [4, 5];

#[cfg(test)]
mod tests {
    use super::super::huffman::tests::compressed;
    use super::*;

    const GOOD: Looks = Looks::Good { refers_to_table: false };
    const OLD: Looks = Looks::Good { refers_to_table: true };

    #[test]
    fn fields_beyond_those_of_requests_are_counted() {
        let name_and_value = b"\x00\x01x\x02\xff\xff";
        let cookie = [&b"\x0f\x11\x7f\x80\x08"[..], &[0xff; 1151]].concat();
        for (block, count) in [
            (b"\x82\x86\xff\x00\x84".to_vec(), 4),
            (name_and_value.repeat(3), 3),
            (b"\x40\x01x\x00\x41\x01y\x3f\xe1\x1f".to_vec(), 3),
            ([cookie, vec![0x82]].concat(), 2),
            (b"\x82\x00\x05xy".to_vec(), 1),
        ] {
            assert_eq!(fields(&block), count, "{block:?}");
        }
        let mut blocks = Blocks::default();
        for bytes in [vec![0xbe; FIELDS_MAX], vec![0xbe; FIELDS_MAX + 7], vec![0xbe; FIELDS_MAX + 5]] {
            blocks.starts.push(blocks.bytes.len());
            blocks.bytes.extend(bytes);
        }
        // The last is not complete yet.
        assert_eq!((blocks.settle(true), blocks.bytes.len()), (7, FIELDS_MAX + 5));
        assert_eq!((blocks.settle(false), blocks.settle(false), blocks.bytes.len()), (5, 0, 0));
    }

    /// What each of these blocks, one after the other on a connection, is found to have.
    #[test]
    fn what_the_library_does_not_tell_is_found_in_any_form() {
        let (none, pseudo, fragment) = (
            Oddities::default(),
            Oddities { names_pseudo: true, has_fragment: false },
            Oddities { names_pseudo: true, has_fragment: true },
        );
        let mut blocks = Blocks::default();
        for (block, expected) in [
            (&b"\x40\x01x\x01y"[..], none),
            (b"\x87", pseudo),
            (b"\x8e", pseudo),
            (b"\x8f\xbe", none),
            // Kept: the authority, then a path, each under its name in a table.
            (b"\x41\x01a", pseudo),
            (b"\xbe", pseudo),
            (b"\xbf", none),
            (b"\x40\x05:path\x02/#", fragment),
            (b"\xbe", fragment),
            (b"\xbf", pseudo),
            // Under the name of that path, compressed, and not kept; then one that is right.
            (b"\x0f\x2f\x84\x60\x7f\xf5\x1f", fragment),
            (b"\x0f\x2f\x02/x", pseudo),
            (b"\x0f\x30\x02/#", pseudo),
            // What is in no path may have one.
            (b"\x40\x01x\x02/#", none),
            (b"\x01\x02a#", pseudo),
            (b"\x3f\xe1\x1f\xc0", pseudo),
            (b"\x00\x84\xb9\x58\xd3\x3f\x02/#", fragment),
            (b"", none),
        ] {
            blocks.begin(&Frame {
                kind: Kind::Headers,
                flags: END_HEADERS,
                stream: 1,
                length: block.len() as u32,
                code: None,
                last_stream: None,
                increment: None,
                padding: 0,
                bad_setting: None,
                resizes: false,
            });
            if !block.is_empty() {
                assert_eq!(blocks.completed(), None);
            }
            let (first, second) = block.split_at(block.len() / 2);
            blocks.take(first);
            blocks.take(second);
            assert_eq!(blocks.completed(), Some(expected), "{block:?}");
            assert_eq!(blocks.completed(), None);
            blocks.settle(false);
        }
    }

    /// The filter that spares decompressing hardly ever anything lets every fragment pass.
    #[test]
    fn fragments_are_found_wherever_they_stand() {
        for before in 0..40 {
            for text in ["0", "/", "X", "!"] {
                let path = format!("{}#{}", text.repeat(before), text);
                let bytes = compressed(path.as_bytes());
                assert_eq!(decompressed(&bytes).as_deref(), Some(path.as_bytes()));
                assert!(RawText { bytes: &bytes, is_compressed: true }.has_fragment(), "{path}");
                let without = compressed(path.replace('#', ">").as_bytes());
                assert!(!RawText { bytes: &without, is_compressed: true }.has_fragment(), "{path}");
            }
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_told_from_what_is_malformed() {
        for (block, looks) in [
            (&b"\x82\x86\x84\x41\x01a"[..], GOOD),
            (b"\x3f\xe1\x1f\x20\x82", GOOD),
            (b"\xbe", OLD),
            (b"\x7e\x01a", OLD),
            (b"\x40", Looks::Broken),
            (b"\x40\x01a", Looks::Broken),
            (b"\x40\x05ab", Looks::Broken),
            (b"\x80", Looks::Broken),
            (b"\xff\xff\xff\xff\xff", Looks::Broken),
            (b"\xff\xff\xff\xff\xff\x01", Looks::Broken),
            // No table has so many fields.
            (b"\xff\x3f", Looks::Broken),
            (b"\xff\x3e", OLD),
            (b"\x82\x21", Looks::Broken),
            (b"\x3f\xe2\x1f\x82", Looks::Broken),
            (b"\0\x83\x49\x50\x90\x01a", Looks::Broken),
            (b"\0\x01x\x83\x49\x50\x90", Looks::Broken),
            (b"\0\x01X\x01a", Looks::Malformed),
            (b"\0\x01 \x01a", Looks::Malformed),
            (b"\0\0\x01a", Looks::Malformed),
            (b"\0\x02:x\x01a", Looks::Malformed),
            (b"\0\x07:status\x03200", GOOD),
            (b"\0\x01x\x01\n", Looks::Malformed),
            (b"\x02\x01\x20", Looks::Malformed),
            (b"\x04\x01\xff", Looks::Malformed),
            (b"\0\x01x\x01\xff", GOOD),
            // What comes first.
            (b"\0\x01X\x01a\x80", Looks::Malformed),
            (b"\x80\0\x01X\x01a", Looks::Broken),
        ] {
            assert_eq!(look_at(block), looks, "{block:?}");
        }
    }
}
