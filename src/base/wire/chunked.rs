//! Reads the framing of a chunked body strictly (RFC 9112 section 7.1): where it ends, and that it is one.

use super::octets::{TOKEN, is};
use crate::base::reason::Reason;

/// Digits of a chunk size. Sixteen hold any 64-bit number; more are leading zeros that nobody needs.
const SIZE_DIGITS_MAX: usize = 16;
/// Bytes of the extensions of one chunk. None are in use; endless ones would carry data past every limit.
const EXTENSION_BYTES_MAX: usize = 256;
/// Bytes of all trailers together.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// Follows one chunked body through whatever pieces it arrives in. Make a new one for each body.
#[derive(Debug, Clone, Default)]
pub struct ChunkScanner {
    state: State,
    /// Bytes of trailers so far.
    trailer_bytes: usize,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy)]
enum State {
    Size {
        digits: usize,
        size: u64,
    },
    /// Whitespace that should not be there, before an extension (RFC 9112 section 7.1.1).
    SizeSpace {
        bytes: usize,
        size: u64,
    },
    Extension {
        bytes: usize,
        size: u64,
    },
    SizeLineFeed {
        size: u64,
    },
    Data {
        remaining: u64,
    },
    DataCarriageReturn,
    DataLineFeed,
    TrailerLine,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

impl Default for State {
    fn default() -> Self {
        Self::Size { digits: 0, size: 0 }
    }
}

impl ChunkScanner {
    /// Takes in `buf`, the next bytes received: how many of them belong to this body, and whether it ended with them.
    ///
    /// Until the end all of `buf` belongs to it; afterwards nothing does. After an error the framing is lost, and the
    /// connection must not carry another request.
    ///
    /// # Errors
    /// [`Reason::RequestMalformed`] if it is no chunked body, or its extensions or trailers are too large.
    pub fn advance(&mut self, buf: &[u8]) -> Result<(usize, bool), Reason> {
        self.decode(buf, |_| {})
    }

    /// The same, and hands the bytes of data among them to `data`, piece by piece.
    ///
    /// # Errors
    /// As [`ChunkScanner::advance`].
    pub fn decode(&mut self, buf: &[u8], mut data: impl FnMut(&[u8])) -> Result<(usize, bool), Reason> {
        let mut rest = buf;
        while let Some((&byte, after)) = rest.split_first() {
            self.state = match self.state {
                State::Done => break,
                State::Data { remaining } => {
                    let here = usize::try_from(remaining).unwrap_or(usize::MAX).min(rest.len());
                    let (piece, after) = rest.split_at_checked(here).unwrap_or_default();
                    data(piece);
                    rest = after;
                    self.state = match remaining - here as u64 {
                        0 => State::DataCarriageReturn,
                        remaining => State::Data { remaining },
                    };
                    continue;
                }
                state => self.step(state, byte)?,
            };
            rest = after;
        }
        Ok((buf.len() - rest.len(), matches!(self.state, State::Done)))
    }

    /// What follows `byte` in `state`.
    fn step(&mut self, state: State, byte: u8) -> Result<State, Reason> {
        match (state, byte) {
            (State::Size { digits, size }, _) if byte.is_ascii_hexdigit() && digits < SIZE_DIGITS_MAX => {
                // Lengths are kept within 63 bits, as everything behind counts.
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                let size =
                    size.checked_mul(16).map(|size| size + digit).filter(|size| *size <= i64::MAX as u64);
                size.map(|size| State::Size { digits: digits + 1, size }).ok_or(Reason::RequestMalformed)
            }
            (State::Size { digits: 1.., size } | State::SizeSpace { size, .. }, b';') => {
                Ok(State::Extension { bytes: 1, size })
            }
            (State::Size { digits: 1.., size }, b' ' | b'\t') => Ok(State::SizeSpace { bytes: 1, size }),
            (State::SizeSpace { bytes, size }, b' ' | b'\t') if bytes < EXTENSION_BYTES_MAX => {
                Ok(State::SizeSpace { bytes: bytes + 1, size })
            }
            (State::Size { digits: 1.., size } | State::Extension { size, .. }, b'\r') => {
                Ok(State::SizeLineFeed { size })
            }
            (State::Extension { bytes, size }, _) if is_value(byte) && bytes < EXTENSION_BYTES_MAX => {
                Ok(State::Extension { bytes: bytes + 1, size })
            }
            (State::SizeLineFeed { size: 0 }, b'\n') => Ok(State::TrailerLine),
            (State::SizeLineFeed { size }, b'\n') => Ok(State::Data { remaining: size }),
            (State::DataCarriageReturn, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::default()),
            (State::TrailerLine, b'\r') => Ok(State::LastLineFeed),
            (State::LastLineFeed, b'\n') => Ok(State::Done),
            (State::TrailerLine | State::TrailerName, _) if is(byte, TOKEN) => {
                self.trailer(State::TrailerName)
            }
            (State::TrailerName, b':') => self.trailer(State::TrailerValue),
            (State::TrailerValue, b'\r') => self.trailer(State::TrailerLineFeed),
            (State::TrailerValue, _) if is_value(byte) => self.trailer(State::TrailerValue),
            (State::TrailerLineFeed, b'\n') => self.trailer(State::TrailerLine),
            _ => Err(Reason::RequestMalformed),
        }
    }

    /// Counts a byte of the trailers.
    fn trailer(&mut self, next: State) -> Result<State, Reason> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX { Err(Reason::RequestMalformed) } else { Ok(next) }
    }
}

/// A byte that may stand in a field value or an extension: anything but control bytes; HTAB passes.
fn is_value(byte: u8) -> bool {
    byte >= 0x20 && byte != 0x7f || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The verdict on `body` given in pieces that end at `cuts`: bytes consumed and whether it ended.
    fn scan_in_pieces(body: &[u8], cuts: &[usize]) -> Result<(usize, bool), Reason> {
        let mut scanner = ChunkScanner::default();
        let mut ends: Vec<usize> =
            cuts.iter().map(|cut| cut % (body.len() + 1)).chain([body.len()]).collect();
        ends.sort_unstable();
        let (mut at, mut consumed, mut done) = (0, 0, false);
        for end in ends {
            let (here, ended) = scanner.advance(&body[at..end])?;
            assert!(ended || here == end - at, "a body that goes on takes everything");
            consumed += here;
            done = ended;
            at = end;
        }
        Ok((consumed, done))
    }

    #[test]
    fn whole_bodies() {
        for (body, expected) in [
            ("0\r\n\r\n", (5, true)),
            ("5\r\nhello\r\n0\r\n\r\nGET /", (15, true)),
            ("000A\r\n0123456789\r\n0\r\n\r\n", (23, true)),
            ("3;name=\"a;b\"\r\nabc\r\n0;x\r\nA: b\r\nC:\t\r\n\r\n", (37, true)),
            ("5\r\nhel", (6, false)),
            ("", (0, false)),
            ("0\r\n", (3, false)),
            ("5 \t; x = y\r\nhello\r\n0 ;\r\n\r\n", (26, true)),
        ] {
            assert_eq!(scan_in_pieces(body.as_bytes(), &[]), Ok(expected), "{body:?}");
        }
    }

    #[test]
    fn broken_bodies() {
        let long_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(EXTENSION_BYTES_MAX));
        let long_trailer = format!("0\r\na: {}\r\n\r\n", "x".repeat(TRAILER_BYTES_MAX));
        let many_trailers = format!("0\r\n{}\r\n", "a:b\r\n".repeat(TRAILER_BYTES_MAX / 4));
        for body in [
            "\r\n",
            "g\r\n",
            " 5\r\n",
            "5 \r\n",
            "5 \n",
            "5 ;x\n",
            "5 5;x\r\n",
            " ;x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x5\r\n",
            ";x\r\n",
            "5\n",
            "5\rx",
            "5\r\nhello0\r\n",
            "5\r\nhello\n",
            "5\r\nhello\rx",
            "00000000000000001\r\n",
            "8000000000000000\r\n",
            "ffffffffffffffff\r\n",
            "1;a\nb\r\n",
            "1;a\0\r\n",
            "0\r\n\n",
            "0\r\n\rx",
            "0\r\na\r\n\r\n",
            "0\r\n: b\r\n",
            "0\r\na : b\r\n",
            "0\r\na: b\r\n c\r\n",
            "0\r\na: b\n",
            "0\r\na: \0\r\n",
            "0\r\na: b\rc\r\n",
            &long_extension,
            &long_trailer,
            &many_trailers,
        ] {
            assert_eq!(scan_in_pieces(body.as_bytes(), &[]), Err(Reason::RequestMalformed), "{body:?}");
        }
    }

    proptest! {
        /// Chunks of any sizes are followed to their end, and no byte of the next request is taken.
        #[test]
        fn follows_any_body(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            trailers in prop::collection::vec("[a-z]{1,5}: [ -~]{0,9}", 0..3),
            next in prop::collection::vec(any::<u8>(), 0..20),
            cuts in prop::collection::vec(any::<usize>(), 0..8),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                body.extend(chunk);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n");
            for trailer in &trailers {
                body.extend(trailer.as_bytes());
                body.extend(b"\r\n");
            }
            body.extend(b"\r\n");
            let len = body.len();
            body.extend(&next);
            prop_assert_eq!(scan_in_pieces(&body, &cuts), Ok((len, true)));
            let mut data = Vec::new();
            let whole = ChunkScanner::default().decode(&body, |piece| data.extend_from_slice(piece));
            prop_assert_eq!(whole, Ok((len, true)));
            prop_assert_eq!(data, chunks.concat());
        }

        /// Where pieces end makes no difference, and nothing panics.
        #[test]
        fn splitting_changes_nothing(body in "[0-9a-f;: \r\n\0]{0,40}", cuts in prop::collection::vec(any::<usize>(), 0..8)) {
            prop_assert_eq!(scan_in_pieces(body.as_bytes(), &cuts), scan_in_pieces(body.as_bytes(), &[]));
        }

        /// A chunk-size line that passes is read the same by `httparse`, which reads it next.
        #[test]
        fn httparse_agrees(size in "[0-9a-fA-F]{1,16}", extension in "(;[ -~]{0,12})?") {
            let line = format!("{size}{extension}\r\n");
            let mut scanner = ChunkScanner::default();
            if scanner.advance(line.as_bytes()).is_ok() {
                let size = u64::from_str_radix(&size, 16).unwrap();
                prop_assert_eq!(httparse::parse_chunk_size(line.as_bytes()), Ok(httparse::Status::Complete((line.len(), size))));
            }
        }
    }
}
