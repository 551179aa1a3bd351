//! Which bytes may stand where: one table for everything that reads HTTP/1 bytes.

/// `tchar` (RFC 9110 section 5.6.2).
pub const TOKEN: u8 = 1;
/// Visible ASCII (RFC 5234 VCHAR).
pub const VISIBLE: u8 = 2;
/// May stand in a path: RFC 3986 `pchar` and `/`, and what browsers leave unencoded there. Not `\`, which some servers
/// take for `/`.
pub const PATH: u8 = 4;
/// May stand in a query: RFC 3986 `query`, and what browsers leave unencoded there.
pub const QUERY: u8 = 8;

/// Whether `byte` has all bits of `class`.
#[inline]
pub fn is(byte: u8, class: u8) -> bool {
    #[expect(clippy::indexing_slicing, reason = "a table of 256 indexed by a byte")]
    let bits = CLASSES[usize::from(byte)];
    bits & class == class
}

/// Whether every byte of `text` has all bits of `class`.
#[inline]
pub fn all(text: &[u8], class: u8) -> bool {
    text.iter().all(|byte| is(*byte, class))
}

/// Whether `text` is a token (RFC 9110 section 5.6.2).
#[inline]
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && all(text, TOKEN)
}

/// `text` without the spaces and tabs around it (RFC 9110 section 5.6.3 OWS).
pub fn trim(text: &[u8]) -> &[u8] {
    let is_content = |byte: &u8| !matches!(byte, b' ' | b'\t');
    match (text.iter().position(is_content), text.iter().rposition(is_content)) {
        (Some(first), Some(last)) => text.get(first..=last).unwrap_or_default(),
        _ => &[],
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
