//! The fields of a head that decide framing, routing and the life of the connection (RFC 9112 sections 5 to 7 and 9).

use super::line::RequestLine;
use super::{Framing, HEADER_LINES_MAX, Rule, Span};
use crate::base::authority::{agree, is_authority, is_host};
use crate::base::wire::octets::{TOKEN, is, is_token, trim};

/// Options in all `Connection` fields together. The proxy's own parser refuses the tenth.
const CONNECTION_OPTIONS_MAX: usize = 9;

/// What the field lines said so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    lines: usize,
    host: Option<Span>,
    content_length: Option<u64>,
    chunked: bool,
    options: usize,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    upgrade_lines: usize,
    upgrade_websocket: bool,
    websocket_keys: usize,
    websocket_key_valid: bool,
    websocket_version_13: bool,
    expects_continue: bool,
}

impl Fields {
    /// Takes in one field line.
    pub(super) fn read(&mut self, buf: &[u8], line: Span, version_11: bool) -> Result<(), Rule> {
        self.lines += 1;
        if self.lines > HEADER_LINES_MAX {
            return Err(Rule::FieldLines);
        }
        let (name, value) = split_field(line.of(buf))?;
        // By length first: most names are none of these, and one comparison settles that.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.read_host(buf, line, value),
            6 if name.eq_ignore_ascii_case(b"expect") => self.read_expect(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade_lines += 1;
                self.upgrade_websocket = value.eq_ignore_ascii_case(b"websocket");
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => self.read_connection(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.read_content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.read_transfer_encoding(value, version_11)
            }
            17 if name.eq_ignore_ascii_case(b"sec-websocket-key") => {
                self.websocket_keys += 1;
                self.websocket_key_valid = is_websocket_key(value);
                Ok(())
            }
            21 if name.eq_ignore_ascii_case(b"sec-websocket-version") => {
                self.websocket_version_13 = value == b"13";
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The framing of the body (RFC 9112 section 6.3); both kinds at once are how requests are smuggled.
    pub(super) fn framing(&self) -> Result<Framing, Rule> {
        match (self.chunked, self.content_length) {
            (true, Some(_)) => Err(Rule::LengthAndChunked),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::None),
        }
    }

    /// The host asked for (RFC 9112 section 3.2).
    ///
    /// An absolute target and `Host` must name the same place, where the RFC lets the target win: a server behind that
    /// looks at the other one would see another host.
    pub(super) fn host(&self, buf: &[u8], request: &RequestLine) -> Result<Option<Span>, Rule> {
        match (self.host, request.authority) {
            (Some(host), Some((authority, port))) if !agree(host.of(buf), authority.of(buf), port) => {
                Err(Rule::HostDiffers)
            }
            (None, _) if request.version_11 => Err(Rule::HostMissing),
            (host, authority) => Ok(host.or(authority.map(|(authority, _)| authority))),
        }
    }

    /// Whether the connection stays open (RFC 9112 section 9.3).
    pub(super) fn keeps_alive(&self, version_11: bool) -> bool {
        !self.close && (version_11 || self.keep_alive)
    }

    pub(super) fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// The fields of an opening handshake (RFC 6455 section 4.2.1).
    pub(super) fn is_websocket_handshake(&self) -> bool {
        self.connection_upgrade
            && self.upgrade_lines == 1
            && self.upgrade_websocket
            && self.websocket_keys == 1
            && self.websocket_key_valid
            && self.websocket_version_13
    }

    fn read_host(&mut self, buf: &[u8], line: Span, value: &[u8]) -> Result<(), Rule> {
        if self.host.is_some() {
            return Err(Rule::HostRepeated);
        }
        // A port may be written without its digits (RFC 3986 section 3.2.3); it is not part of the span.
        let bare = value.strip_suffix(b":").filter(|host| is_host(host));
        if bare.is_none() && !is_authority(value) {
            return Err(Rule::HostInvalid);
        }
        // The value holds no spaces, so it is the last text of its line; only spaces can follow it.
        let trailing = line.of(buf).iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let start = line.end - trailing - value.len();
        self.host = Some(Span { start, end: start + bare.unwrap_or(value).len() });
        Ok(())
    }

    fn read_expect(&mut self, value: &[u8]) -> Result<(), Rule> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Rule::Expectation);
        }
        self.expects_continue = true;
        Ok(())
    }

    fn read_content_length(&mut self, value: &[u8]) -> Result<(), Rule> {
        // Repeated lengths are refused even when equal: only a broken or hostile client sends them.
        if self.content_length.is_some() {
            return Err(Rule::LengthRepeated);
        }
        self.content_length = Some(parse_length(value).ok_or(Rule::LengthInvalid)?);
        Ok(())
    }

    fn read_transfer_encoding(&mut self, value: &[u8], version_11: bool) -> Result<(), Rule> {
        if self.chunked {
            return Err(Rule::CodingRepeated);
        }
        if !version_11 {
            return Err(Rule::CodingIn10);
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Rule::Coding);
        }
        self.chunked = true;
        Ok(())
    }

    fn read_connection(&mut self, value: &[u8]) -> Result<(), Rule> {
        // Empty elements of a list are to be ignored (RFC 9110 section 5.6.1.2).
        for option in value.split(|byte| *byte == b',').map(trim).filter(|option| !option.is_empty()) {
            self.options += 1;
            if self.options > CONNECTION_OPTIONS_MAX {
                return Err(Rule::ConnectionOptions);
            }
            if !is_token(option) {
                return Err(Rule::ConnectionToken);
            }
            if is_protected(option) {
                return Err(Rule::ConnectionProtected);
            }
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
        Ok(())
    }
}

/// A decimal length. Kept within 63 bits, as everything behind counts.
pub(super) fn parse_length(value: &[u8]) -> Option<u64> {
    // Not `str::parse`, which takes a sign.
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit).filter(|sum| *sum <= i64::MAX as u64)
    })
}

/// 16 bytes in base64 (RFC 6455 section 4.1).
fn is_websocket_key(value: &[u8]) -> bool {
    value.len() == 24
        && value.strip_suffix(b"==").is_some_and(|digits| {
            digits.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        })
}

/// Fields that no `Connection` may name: naming one has the next hop remove it, and with it the framing, the host, who
/// is asking, or where from (RFC 9110 section 7.6.1, last paragraph but one).
fn is_protected(option: &[u8]) -> bool {
    const NAMES: &[&[u8]] = &[
        b"host",
        b"transfer-encoding",
        b"authorization",
        b"cookie",
        b"date",
        b"expect",
        b"forwarded",
        b"max-forwards",
        b"origin",
        b"range",
        b"traceparent",
        b"tracestate",
        b"via",
        b"x-api-key",
        b"x-real-ip",
        b"x-request-id",
    ];
    const PREFIXES: &[&[u8]] = &[b"content-", b"x-forwarded-", b"sec-", b"if-"];
    NAMES.iter().any(|name| option.eq_ignore_ascii_case(name))
        || PREFIXES
            .iter()
            .any(|prefix| option.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
}

/// Splits a field line without its end into name and trimmed value (RFC 9112 section 5).
///
/// The line must hold no control byte but HTAB. Refused: a line that continues the one before (obs-fold), a name that
/// is not a token, and therefore a space before the colon.
fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Rule> {
    let name_len = line.iter().position(|byte| !is(*byte, TOKEN)).ok_or(Rule::NoColon)?;
    match line.split_at_checked(name_len) {
        Some((name, [b':', value @ ..])) if !name.is_empty() => Ok((name, trim(value))),
        Some(([], [b' ' | b'\t', ..])) => Err(Rule::Folded),
        _ => Err(Rule::FieldName),
    }
}
