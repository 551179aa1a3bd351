//! Which bytes may stand where: one table for everything that reads HTTP/1 bytes.

use super::head::Rule;

/// `tchar` (RFC 9110 section 5.6.2).
pub(crate) const TOKEN: u8 = 1;
/// Visible ASCII (RFC 5234 VCHAR).
pub(super) const VISIBLE: u8 = 2;
/// May stand in a path: RFC 3986 `pchar` and `/`, and what browsers leave unencoded there. Not `\`, which some servers
/// take for `/`.
pub(super) const PATH: u8 = 4;
/// May stand in a query: RFC 3986 `query`, and what browsers leave unencoded there.
pub(super) const QUERY: u8 = 8;

/// Whether `byte` has all bits of `class`.
#[inline]
pub(super) fn is(byte: u8, class: u8) -> bool {
    #[expect(clippy::indexing_slicing, reason = "a table of 256 indexed by a byte")]
    let bits = CLASSES[usize::from(byte)];
    bits & class == class
}

/// Whether every byte of `text` has all bits of `class`.
#[inline]
pub(super) fn all(text: &[u8], class: u8) -> bool {
    text.iter().all(|byte| is(*byte, class))
}

/// Whether `text` is a token (RFC 9110 section 5.6.2).
#[inline]
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && all(text, TOKEN)
}

/// `text` without the spaces and tabs around it (RFC 9110 section 5.6.3 OWS).
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    let is_content = |byte: &u8| !matches!(byte, b' ' | b'\t');
    match (text.iter().position(is_content), text.iter().rposition(is_content)) {
        (Some(first), Some(last)) => text.get(first..=last).unwrap_or_default(),
        _ => &[],
    }
}

/// Splits a field line without its end into name and trimmed value (RFC 9112 section 5).
///
/// The line must hold no control byte but HTAB. Refused: a line that continues the one before (obs-fold), a name that
/// is not a token, and therefore a space before the colon.
pub(super) fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Rule> {
    let name_len = line.iter().position(|byte| !is(*byte, TOKEN)).ok_or(Rule::NoColon)?;
    match line.split_at_checked(name_len) {
        Some((name, [b':', value @ ..])) if !name.is_empty() => Ok((name, trim(value))),
        Some(([], [b' ' | b'\t', ..])) => Err(Rule::Folded),
        _ => Err(Rule::FieldName),
    }
}

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        let value = byte as u8;
        let mut bits = 0;
        if value.is_ascii_alphanumeric()
            || matches!(
                value,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            bits |= TOKEN;
        }
        if value.is_ascii_graphic() {
            bits |= VISIBLE;
            if !matches!(value, b'#' | b'?' | b'<' | b'>' | b'`' | b'\\') {
                bits |= PATH;
            }
            if !matches!(value, b'#' | b'<' | b'>' | b'"') {
                bits |= QUERY;
            }
        }
        #[expect(clippy::indexing_slicing, reason = "below 256")]
        {
            table[byte] = bits;
        }
        byte += 1;
    }
    table
}
