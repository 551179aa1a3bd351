//! Percent-encoding (RFC 3986 section 2.1) of the parts of a target, both ways.

use std::borrow::Cow;

/// Whether `byte` is unreserved (RFC 3986 section 2.3): encoded or not, it means the same.
pub const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether `byte` may stand in a segment as it is: `pchar` of RFC 3986 section 3.3, but for `%`.
pub fn is_segment_byte(byte: u8) -> bool {
    // Asked of every byte of every path: one look instead of a dozen comparisons.
    SEGMENT_BYTES.get(usize::from(byte)).is_some_and(|plain| *plain)
}

#[expect(clippy::indexing_slicing, reason = "computed by the compiler, which would refuse")]
static SEGMENT_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        let sub_delimiter =
            matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=');
        table[byte as usize] = is_unreserved(byte) || sub_delimiter || matches!(byte, b':' | b'@');
        byte += 1;
    }
    table
};

/// A query as it may stand in a target: `query` of RFC 3986 section 3.4. What may not stand there is encoded, as is a `%`
/// that escapes nothing: browsers leave both as they are. Borrows if there is neither.
pub fn strict_query(query: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| is_segment_byte(byte) || matches!(byte, b'/' | b'?');
    let is_escape = |rest: &[u8]| matches!(rest, [b'%', high, low, ..] if hex_pair(*high, *low).is_some());
    let bytes = query.as_bytes();
    let first = (0..bytes.len()).find(|at| {
        bytes.get(*at).is_some_and(|byte| !is_plain(*byte)) && !bytes.get(*at..).is_some_and(is_escape)
    });
    let Some((good, mut rest)) = first.and_then(|first| query.split_at_checked(first)) else {
        return Cow::Borrowed(query);
    };
    let mut out = String::with_capacity(query.len() + 16);
    out.push_str(good);
    while let Some(char) = rest.chars().next() {
        let (here, after) = rest.split_at_checked(char.len_utf8()).unwrap_or((rest, ""));
        for &byte in here.as_bytes() {
            if is_plain(byte) || is_escape(rest.as_bytes()) {
                out.push(char::from(byte));
            } else {
                push_escaped(&mut out, byte);
            }
        }
        rest = after;
    }
    Cow::Owned(out)
}

/// The byte that two hex digits stand for.
pub fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// Appends `byte` as `%XX`, in upper case.
pub fn push_escaped(out: &mut String, byte: u8) {
    let digit = |value: u8| char::from(if value < 10 { b'0' + value } else { b'A' + value - 10 });
    out.push('%');
    out.push(digit(byte >> 4));
    out.push(digit(byte & 15));
}

/// Appends a value as (part of) one path segment: whatever it holds, it adds no slash, query or fragment.
///
/// A value of dots alone still reads as `.` or `..`: dots cannot be encoded away. Whoever builds a path from values
/// checks the result with [`super::path::check_built`].
pub fn push_segment(out: &mut String, value: &[u8]) {
    push_with(out, value, is_segment_byte);
}

/// Appends a value as (part of) the value of one query parameter: it adds no parameter.
pub fn push_query(out: &mut String, value: &[u8]) {
    push_with(out, value, is_unreserved);
}

fn push_with(out: &mut String, value: &[u8], plain: impl Fn(u8) -> bool) {
    for &byte in value {
        if plain(byte) { out.push(char::from(byte)) } else { push_escaped(out, byte) }
    }
}

/// What an encoded path segment stands for; a `%` that escapes nothing stands for itself. Borrows if nothing is encoded.
pub fn decode_segment(text: &str) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text.as_bytes()).is_none() {
        return Cow::Borrowed(text.as_bytes());
    }
    Cow::Owned(Decode { bytes: text.as_bytes(), plus: false }.collect())
}

/// What a name or value of a query stands for: like [`decode_segment`], and `+` is a space, as forms write it.
pub fn decode_query(text: &str) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', text.as_bytes()).is_none() {
        return Cow::Borrowed(text.as_bytes());
    }
    Cow::Owned(Decode { bytes: text.as_bytes(), plus: true }.collect())
}

/// Whether a name or value of a query stands for `value`; without building it.
pub fn query_means(text: &str, value: &[u8]) -> bool {
    Decode { bytes: text.as_bytes(), plus: true }.eq(value.iter().copied())
}

/// The name and value pairs of a query, still encoded, in order. A parameter without `=` has an empty value.
pub fn query_pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

struct Decode<'a> {
    bytes: &'a [u8],
    plus: bool,
}

impl Iterator for Decode<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        if let (b'%', [high, low, after @ ..]) = (first, rest)
            && let Some(byte) = hex_pair(*high, *low)
        {
            self.bytes = after;
            return Some(byte);
        }
        self.bytes = rest;
        Some(if self.plus && first == b'+' { b' ' } else { first })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_query_is_read_as_forms_write_it() {
        assert_eq!(decode_query("a+b%2Bc%zz%"), Cow::<[u8]>::Owned(b"a b+c%zz%".to_vec()));
        assert!(query_means("%61+b", b"a b") && !query_means("a", b"ab") && !query_means("ab", b"a"));
        let pairs: Vec<_> = query_pairs("a=1&&b&c=d=e&=x").collect();
        assert_eq!(pairs, [("a", "1"), ("b", ""), ("c", "d=e"), ("", "x")]);
    }

    #[test]
    fn a_query_that_may_stand_in_a_target() {
        for plain in ["", "a=b&c", "a/b?c", "%00%fF", "!$&'()*+,;=:@-._~"] {
            assert!(matches!(strict_query(plain), Cow::Borrowed(_)), "{plain}");
        }
        for (query, strict) in [
            ("a[]=1", "a%5B%5D=1"),
            ("{|}^`\\\"<>#", "%7B%7C%7D%5E%60%5C%22%3C%3E%23"),
            ("%", "%25"),
            ("%4", "%254"),
            ("%zz%41", "%25zz%41"),
            ("%%41", "%25%41"),
            ("[%41", "%5B%41"),
            ("\u{e9}", "%C3%A9"),
        ] {
            assert_eq!(strict_query(query), strict);
        }
    }

    proptest! {
        /// It means the same to who decodes it, and is its own strict form.
        #[test]
        fn a_strict_query_means_the_same(query in "[ -~]{0,30}") {
            let strict = strict_query(&query);
            prop_assert_eq!(decode_query(&strict), decode_query(&query));
            prop_assert!(matches!(strict_query(&strict), Cow::Borrowed(_)));
        }

        #[test]
        fn values_survive_and_stay_where_they_land(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let (mut segment, mut query) = (String::new(), String::new());
            push_segment(&mut segment, &value);
            push_query(&mut query, &value);
            prop_assert!(!segment.contains(['/', '?', '#', '\\', ' ']));
            prop_assert!(!query.contains(['&', '=', '#', '+', ' ', ';']));
            prop_assert_eq!(decode_segment(&segment).into_owned(), value.clone());
            prop_assert_eq!(decode_query(&query).into_owned(), value.clone());
            prop_assert!(query_means(&query, &value));
        }
    }
}
