//! Reads the head of an HTTP/1 request strictly, before anything else does (RFC 9112).
//!
//! The proxy's own parser repairs what it should refuse and refuses without a log line. So every head passes here
//! first: what two servers could read in two ways is refused, by a [`Rule`] whose reason is answered, logged and counted
//! like any other. Pure: bytes in, verdict out.

mod fields;
mod line;
mod rule;

pub use self::rule::Rule;
use crate::base::wire::octets::{VISIBLE, all};
use fields::Fields;
pub use line::METHOD_BYTES_MAX;
use line::RequestLine;

/// Header lines in one head. Browsers send about twenty; each costs the proxy an entry in its map.
pub const HEADER_LINES_MAX: usize = 100;

/// Reads one head, however its bytes arrive: each byte is looked at once. Make a new one for each head.
#[derive(Debug, Clone)]
pub struct HeadScanner {
    header_bytes: usize,
    /// Bytes known to hold no line end but those already read.
    looked: usize,
    /// Where the line being received starts.
    line_start: usize,
    stage: Stage,
    request: RequestLine,
    fields: Fields,
}

/// What is known after some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Well-formed so far, but not complete.
    Partial,
    /// A complete head. Bytes after [`Head::len`] belong to the body or the next request.
    Complete(Head),
    /// Not acceptable, whatever follows. Where the next request would start is unknown: close after answering.
    Refused(Rule),
}

/// A complete and acceptable head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head, with the empty line that ends it and those tolerated before it.
    pub len: usize,
    /// HTTP/1.1, or a later minor version; otherwise 1.0.
    pub version_11: bool,
    /// How the body is framed.
    pub body: Framing,
    /// A valid WebSocket opening handshake (RFC 6455 section 4.2.1). Any other `Upgrade` is to be ignored.
    pub upgrade: bool,
    /// Whether the client wants the connection kept (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// The client holds its body back until it reads `100 Continue`.
    pub expect_continue: bool,
    /// The method.
    pub method: Span,
    /// The request target as sent: origin form, absolute form, or `*`.
    pub target: Span,
    /// `Host`, or the authority of an absolute target; `None` only for HTTP/1.0.
    pub host: Option<Span>,
}

impl Head {
    /// Spells in `buf`, the one that was scanned, in the common way what is right and not everything behind takes: the version
    /// as 1.1, and a `Host` without a port as one without a colon.
    pub fn respell(&self, buf: &mut [u8]) {
        let digit = buf.get_mut(self.target.end + b" HTTP/1.".len()).filter(|_| self.version_11);
        digit.into_iter().for_each(|digit| *digit = b'1');
        // A colon right behind a host: one in front of a port is part of it.
        let colon = self.host.and_then(|host| buf.get_mut(host.end)).filter(|byte| **byte == b':');
        colon.into_iter().for_each(|colon| *colon = b' ');
    }
}

/// How a request body is framed (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`; see [`crate::base::wire::chunked`].
    Chunked,
}

/// A part of the scanned buffer, by byte offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// After the last byte.
    pub end: usize,
}

impl Span {
    /// The bytes of `buf` it stands for; empty if `buf` is not the buffer that was scanned.
    pub fn of(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start..self.end).unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Before the request line.
    Start,
    Fields,
    Done(Status),
}

impl HeadScanner {
    /// A scanner for a head of at most `header_bytes`, from the first byte to the empty line at its end.
    pub fn new(header_bytes: usize) -> Self {
        Self {
            header_bytes,
            looked: 0,
            line_start: 0,
            stage: Stage::Start,
            request: RequestLine::default(),
            fields: Fields::default(),
        }
    }

    /// Judges `buf`, all bytes received since the head began: each call's `buf` starts with the previous one's.
    ///
    /// The verdict does not depend on how the bytes were split over calls. After it is final, every call repeats it.
    pub fn scan(&mut self, buf: &[u8]) -> Status {
        if let Stage::Done(status) = self.stage {
            return status;
        }
        // Bytes past the limit are never looked at, so that the verdict does not depend on how many came at once.
        let window = buf.get(..self.header_bytes).unwrap_or(buf);
        let status = match self.read_lines(window) {
            Ok(Some(head)) => Status::Complete(head),
            Ok(None) if window.len() < self.header_bytes => return Status::Partial,
            Ok(None) if matches!(self.stage, Stage::Start) && self.line_start == 0 => {
                Status::Refused(Rule::LineLength)
            }
            Ok(None) => Status::Refused(Rule::HeadLength),
            Err(rule) => Status::Refused(rule),
        };
        self.stage = Stage::Done(status);
        status
    }

    /// Reads every line that `buf` completes; the head, if one of them ends it.
    fn read_lines(&mut self, buf: &[u8]) -> Result<Option<Head>, Rule> {
        while let Some(at) = find_control(buf, self.looked) {
            // CR LF ends a line. No other control byte may stand anywhere: not NUL, not a bare CR or LF.
            match (buf.get(at), buf.get(at + 1)) {
                (Some(b'\r'), Some(b'\n')) => {}
                (Some(b'\r'), None) => {
                    self.looked = at;
                    return Ok(None);
                }
                (Some(b'\r'), _) => return Err(Rule::BareCr),
                (Some(b'\n'), _) => return Err(Rule::BareLf),
                (Some(0), _) => return Err(Rule::Nul),
                _ => return Err(Rule::ControlByte),
            }
            let line = Span { start: self.line_start, end: at };
            self.line_start = at + 2;
            self.looked = self.line_start;
            if self.read_line(buf, line)? {
                return self.finish(buf).map(Some);
            }
        }
        self.looked = buf.len();
        Ok(None)
    }

    /// Takes in one line without its end; `true` for the empty one after the fields.
    fn read_line(&mut self, buf: &[u8], line: Span) -> Result<bool, Rule> {
        match self.stage {
            // Some clients send line ends too many after a body (RFC 9112 section 2.2).
            Stage::Start if line.start == line.end => {}
            Stage::Start => {
                self.request = RequestLine::parse(buf, line)?;
                self.stage = Stage::Fields;
            }
            Stage::Fields if line.start == line.end => return Ok(true),
            Stage::Fields => self.fields.read(buf, line, self.request.version_11)?,
            Stage::Done(_) => {}
        }
        Ok(false)
    }

    /// What can only be judged when all fields are known.
    fn finish(&self, buf: &[u8]) -> Result<Head, Rule> {
        let (request, fields) = (&self.request, &self.fields);
        let body = fields.framing()?;
        // Who sends one must not (RFC 9110 section 9.3.8), and so servers do not look for its end.
        if request.is_trace && !matches!(body, Framing::None | Framing::Length(0)) {
            return Err(Rule::TraceBody);
        }
        Ok(Head {
            len: self.line_start,
            version_11: request.version_11,
            body,
            upgrade: request.version_11
                && request.is_get
                && matches!(body, Framing::None)
                && fields.is_websocket_handshake(),
            keep_alive: fields.keeps_alive(request.version_11),
            // An expectation in HTTP/1.0 must be ignored, and without a body there is nothing to hold back.
            expect_continue: request.version_11
                && fields.expects_continue()
                && !matches!(body, Framing::None | Framing::Length(0)),
            method: request.method,
            target: request.target,
            host: fields.host(buf, request)?,
        })
    }
}

/// The length that a `Content-Length` says (RFC 9110 section 8.6), if it says one.
pub(super) fn length(value: &[u8]) -> Option<u64> {
    fields::parse_length(value)
}

/// Checks the `:path` of an HTTP/2 request as the target of an HTTP/1 request is.
///
/// # Errors
/// The rule that it breaks.
pub(super) fn check_path(path: &[u8]) -> Result<(), Rule> {
    match path {
        _ if !all(path, VISIBLE) => Err(Rule::TargetBytes),
        [b'/', ..] => line::check_path_and_query(path),
        b"*" => Ok(()),
        _ => Err(Rule::TargetForm),
    }
}

/// The first control byte other than HTAB in `buf` at or after `from`.
fn find_control(buf: &[u8], from: usize) -> Option<usize> {
    let rest = buf.get(from..)?;
    // Lines are short: eight bytes at a time, and the place comes with the answer.
    let (words, tail) = rest.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let found = controls(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(from + index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let within = tail.iter().position(|byte| is_control(*byte))?;
    Some(from + words.len() * 8 + within)
}

/// The top bit of each byte of `word` that is a control byte (RFC 5234 CTL) other than HTAB.
#[inline]
fn controls(word: u64) -> u64 {
    const fn all(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    // The top bit of each byte that is zero: no sum leaves its byte, as the top bits are taken out before.
    let zeros = |word: u64| !(((word & all(0x7f)) + all(0x7f)) | word | all(0x7f));
    (zeros(word & all(0xe0)) & !zeros(word ^ all(b'\t'))) | zeros(word ^ all(0x7f))
}

/// A control byte (RFC 5234 CTL) that is not HTAB.
#[inline]
fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') | (byte == 0x7f)
}

#[cfg(test)]
mod tests;
