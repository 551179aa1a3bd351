//! The head of a server's answer, read strictly (RFC 9112): an answer that two readers could take for two things is none.
//! Pure: bytes in, verdict out.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Version};
use pingora::http::ResponseHeader;

use crate::base::wire::fields;
use crate::base::wire::octets::trim;

/// Bytes of one head.
pub const HEAD_BYTES_MAX: usize = 128 * 1024;

/// The head of an answer.
#[derive(Debug)]
pub struct Answer {
    /// Status, phrase and fields.
    pub head: ResponseHeader,
    /// What follows it.
    pub body: Framing,
    /// Whether the connection may be used again once the body was read whole.
    pub keep_alive: bool,
}

/// How the body of an answer is framed (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// By chunks.
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

/// Reads one head, however its bytes arrive. Make a new one for each head, interim ones too.
#[derive(Debug, Default)]
pub struct Reader {
    /// Up to where no end was found.
    looked: usize,
}

impl Reader {
    /// Takes the head off `input`, which holds all that came since the last one; `None` as long as it is not complete.
    ///
    /// # Errors
    /// What is wrong with it, whatever may follow.
    pub fn read(&mut self, input: &mut BytesMut, method: &Method) -> Result<Option<Answer>, &'static str> {
        const START: &[u8] = b"HTTP/1.";
        if input.iter().zip(START).any(|(is, must)| is != must) {
            return Err("the answer is not HTTP/1");
        }
        match self.end(input) {
            Some(end) if end <= HEAD_BYTES_MAX => parse(&input.split_to(end).freeze(), method).map(Some),
            None if input.len() <= HEAD_BYTES_MAX => Ok(None),
            _ => Err("the head of the answer is longer than 128 KiB"),
        }
    }

    /// Where the empty line ends that ends the head.
    fn end(&mut self, input: &[u8]) -> Option<usize> {
        while let Some(at) = memchr::memchr(b'\n', input.get(self.looked..)?) {
            let next = self.looked + at + 1;
            match input.get(next..)? {
                [b'\n', ..] => return Some(next + 1),
                [b'\r', b'\n', ..] => return Some(next + 2),
                [] | [b'\r'] => {
                    // Whether the next line is the empty one is not known yet: this line end is looked at again.
                    self.looked = next - 1;
                    return None;
                }
                _ => self.looked = next,
            }
        }
        self.looked = input.len();
        None
    }
}

fn parse(head: &Bytes, method: &Method) -> Result<Answer, &'static str> {
    let end = memchr::memchr(b'\n', head).ok_or("the head has no end")?;
    let line = head.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (version, status, phrase) = status_line(line).ok_or("the status line is malformed")?;
    let headers = fields::read(head, end + 1)?;
    let (body, keep_alive) = framing(version, status, method, &headers)?;
    let mut parts = http::Response::new(()).into_parts().0;
    parts.status = status;
    parts.version = version;
    parts.headers = headers;
    let mut head = ResponseHeader::from(parts);
    if status.canonical_reason() != Some(phrase) && head.set_reason_phrase(Some(phrase)).is_err() {
        return Err("the status line is malformed");
    }
    Ok(Answer { head, body, keep_alive })
}

/// `HTTP/1.x`, a space, three digits, and the phrase behind another space, if there is one (RFC 9112 section 4).
fn status_line(line: &[u8]) -> Option<(Version, StatusCode, &str)> {
    let (version, rest) = match line.split_at_checked(9)? {
        (b"HTTP/1.1 ", rest) => (Version::HTTP_11, rest),
        (b"HTTP/1.0 ", rest) => (Version::HTTP_10, rest),
        _ => return None,
    };
    let (status, rest) = rest.split_at_checked(3)?;
    let phrase = if rest.is_empty() { rest } else { rest.strip_prefix(b" ")? };
    if !phrase.iter().all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f)) {
        return None;
    }
    // One that is no text says nothing to anybody.
    Some((version, StatusCode::from_bytes(status).ok()?, std::str::from_utf8(phrase).unwrap_or_default()))
}

/// Judges the head of an answer that Pingora has read, which forgives more: it is held to what is asked of others here.
///
/// # Errors
/// What is wrong with it.
pub fn check(head: &ResponseHeader, method: &Method) -> Result<(), &'static str> {
    // Lines that were folded come with their line ends.
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f);
    if !head.headers.values().all(|value| value.as_bytes().iter().all(is_text)) {
        return Err("a control byte in a header");
    }
    framing(head.version, head.status, method, &head.headers).map(drop)
}

/// Judges an answer to a WebSocket handshake: what follows a 101 is a WebSocket, or nobody knows what it is (RFC 6455 section
/// 4.2.2).
///
/// # Errors
/// What is wrong with it.
pub fn check_switch(head: &ResponseHeader) -> Result<(), &'static str> {
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    let mut upgrades = head.headers.get_all(header::UPGRADE).iter();
    let is_websocket = upgrades.next().is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && upgrades.next().is_none();
    let says_so = head.headers.get_all(header::CONNECTION).iter().any(|options| {
        let mut options = options.as_bytes().split(|byte| *byte == b',').map(trim);
        options.any(|option| option.eq_ignore_ascii_case(b"upgrade"))
    });
    if is_websocket && says_so && head.version == Version::HTTP_11 {
        Ok(())
    } else {
        Err("101 to something else than a WebSocket")
    }
}

fn framing(
    version: Version,
    status: StatusCode,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(Framing, bool), &'static str> {
    let mut length = None;
    let mut coding: Option<&HeaderValue> = None;
    let (mut close, mut keep) = (false, false);
    for (name, value) in headers {
        if name == header::CONTENT_LENGTH {
            // Repeated ones are refused even when they agree: only a broken or hostile server sends them.
            if length.replace(parse_length(value).ok_or("Content-Length is not a number")?).is_some() {
                return Err("Content-Length is repeated");
            }
        } else if name == header::TRANSFER_ENCODING {
            if coding.replace(value).is_some() {
                return Err("Transfer-Encoding is repeated");
            }
        } else if name == header::CONNECTION {
            for option in value.as_bytes().split(|byte| *byte == b',').map(trim) {
                close |= option.eq_ignore_ascii_case(b"close");
                keep |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
    }
    let keep_alive = !close && (version == Version::HTTP_11 || keep);
    if let Some(coding) = coding {
        if length.is_some() {
            return Err("both Content-Length and Transfer-Encoding");
        }
        if version != Version::HTTP_11 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err("a transfer coding other than chunked");
        }
    }
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(match (bodiless, coding, length) {
        (true, ..) => (Framing::None, keep_alive),
        (false, Some(_), _) => (Framing::Chunked, keep_alive),
        (false, None, Some(length)) => (Framing::Length(length), keep_alive),
        (false, None, None) => (Framing::UntilClose, false),
    })
}

/// A decimal length within 63 bits, as everything behind counts.
fn parse_length(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    // Not `str::parse` alone, which takes a sign.
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|length| *length <= i64::MAX as u64)
}

#[cfg(test)]
mod tests;
