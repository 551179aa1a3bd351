//! Reading: the grammar of RFC 8259, no more and no less, within a depth.

use super::{Json, Object};

/// Deepest nesting that may be asked for: each level takes a frame of the stack.
pub const DEPTH_MAX: usize = 128;

/// Why a text is not taken. Displays as a fragment that completes "the answer …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not UTF-8.
    #[error("is not UTF-8")]
    NotUtf8,
    /// Not JSON.
    #[error("is not JSON")]
    Syntax,
    /// Nested more deeply than allowed.
    #[error("is nested too deeply")]
    TooDeep,
    /// An object has a key twice.
    #[error("has a key twice in one object")]
    DuplicateKey,
}

/// Reads a text. At most `depth` arrays and objects, [`DEPTH_MAX`] at the most, may lie in each other.
pub fn parse(bytes: &[u8], depth: usize) -> Result<Json, Fault> {
    // Some services put a byte order mark before what they send, which a reader may ignore (section 8.1).
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|_| Fault::NotUtf8)?;
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(depth.min(DEPTH_MAX))?;
    reader.space();
    if reader.at < text.len() { Err(Fault::Syntax) } else { Ok(value) }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Steps over `byte`, if it is next.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn since(&self, start: usize) -> &'t str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn value(&mut self, depth: usize) -> Result<Json, Fault> {
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth.checked_sub(1).ok_or(Fault::TooDeep)?),
            Some(b'[') => self.array(depth.checked_sub(1).ok_or(Fault::TooDeep)?),
            Some(b'"') => self.string().map(Json::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            _ => Err(Fault::Syntax),
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, Fault> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(Fault::Syntax);
        }
        self.at += word.len();
        Ok(value)
    }

    fn array(&mut self, depth: usize) -> Result<Json, Fault> {
        self.at += 1;
        let mut elements = Vec::new();
        self.space();
        if self.take(b']') {
            return Ok(Json::Array(elements));
        }
        loop {
            elements.push(self.value(depth)?);
            self.space();
            if self.take(b']') {
                return Ok(Json::Array(elements));
            }
            if !self.take(b',') {
                return Err(Fault::Syntax);
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, Fault> {
        self.at += 1;
        let mut members = Object::default();
        self.space();
        if self.take(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(Fault::Syntax);
            }
            let key = self.string()?;
            self.space();
            if !self.take(b':') {
                return Err(Fault::Syntax);
            }
            let value = self.value(depth)?;
            if members.insert(key, value).is_some() {
                return Err(Fault::DuplicateKey);
            }
            self.space();
            if self.take(b'}') {
                return Ok(Json::Object(members));
            }
            if !self.take(b',') {
                return Err(Fault::Syntax);
            }
        }
    }

    /// `-? int frac? exp?` (section 6).
    fn number(&mut self) -> Result<Json, Fault> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(Json::Number(self.since(start).into()))
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(Fault::Syntax) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<Box<str>, Fault> {
        self.at += 1;
        let start = self.at;
        self.plain()?;
        if self.take(b'"') {
            // The common case: nothing is escaped.
            let end = self.at - 1;
            return Ok(self.text.get(start..end).unwrap_or_default().into());
        }
        let mut decoded = self.since(start).to_owned();
        loop {
            // `plain` has stopped at a backslash.
            self.at += 1;
            decoded.push(self.escape()?);
            let start = self.at;
            self.plain()?;
            decoded.push_str(self.since(start));
            if self.take(b'"') {
                return Ok(decoded.into());
            }
        }
    }

    /// Steps up to the next quote or backslash.
    fn plain(&mut self) -> Result<(), Fault> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let length = memchr::memchr2(b'"', b'\\', rest).ok_or(Fault::Syntax)?;
        let plain = rest.get(..length).unwrap_or_default();
        // All of them, without a branch for each: so the compiler looks at many at once.
        if plain.iter().fold(false, |found, byte| found | (*byte < 0x20)) {
            return Err(Fault::Syntax);
        }
        self.at += length;
        Ok(())
    }

    /// What an escape stands for; its backslash is behind.
    fn escape(&mut self) -> Result<char, Fault> {
        let byte = self.peek().ok_or(Fault::Syntax)?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex()?;
                let code = match unit {
                    // Half a character by itself is none.
                    0xdc00..0xe000 => return Err(Fault::Syntax),
                    0xd800..0xdc00 => {
                        if !(self.take(b'\\') && self.take(b'u')) {
                            return Err(Fault::Syntax);
                        }
                        let low = self.hex()?;
                        if !(0xdc00..0xe000).contains(&low) {
                            return Err(Fault::Syntax);
                        }
                        0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
                    }
                    _ => unit,
                };
                char::from_u32(code).ok_or(Fault::Syntax)?
            }
            _ => return Err(Fault::Syntax),
        })
    }

    fn hex(&mut self) -> Result<u32, Fault> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16)).ok_or(Fault::Syntax)?;
            value = value << 4 | digit;
            self.at += 1;
        }
        Ok(value)
    }
}
