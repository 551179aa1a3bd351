//! How values are made safe for a line: nginx' three ways, and strict JSON.

/// `escape` of an access log format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escape {
    /// `"`, `\` and everything but printable ASCII become `\xXX`; an absent value is `-`.
    #[default]
    Default,
    /// `"` and `\` get a backslash, control characters become `\n` or `\u00XX`; an absent value is empty. Bytes that
    /// are not UTF-8 stay as they are, as with nginx: the built-in `json` format is the one that always parses.
    Json,
    /// As it is; an absent value is empty. A client can forge lines.
    None,
}

impl Escape {
    /// The words of the configuration.
    pub const ALL: [(&'static str, Self); 3] =
        [("default", Self::Default), ("json", Self::Json), ("none", Self::None)];
}

/// Writes `value` as nginx does with this `escape`.
pub(super) fn write(value: &[u8], escape: Escape, out: &mut Vec<u8>) {
    match escape {
        Escape::Default => write_runs(value, is_special, out, |byte, out| {
            out.extend([b'\\', b'x', hex(byte >> 4), hex(byte & 15)]);
        }),
        Escape::Json => write_runs(value, is_special_in_json, out, write_json_escape),
        Escape::None => out.extend_from_slice(value),
    }
}

/// Writes `value` as a JSON string with its quotes. What is not UTF-8 becomes U+FFFD, so that any reader takes the
/// line.
pub(in crate::telemetry) fn write_json_string(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if std::str::from_utf8(value).is_ok() {
        write_runs(value, is_special_in_json, out, write_json_escape);
    } else {
        for chunk in value.utf8_chunks() {
            write_runs(chunk.valid().as_bytes(), is_special_in_json, out, write_json_escape);
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

/// Whether nginx' default escaping concerns `byte`.
fn is_special(byte: u8) -> bool {
    is_special_in_json(byte) | (byte > 0x7e)
}

fn is_special_in_json(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Copies `value` in runs; only the bytes that are special go through `escape`.
fn write_runs(
    mut value: &[u8],
    special: impl Fn(u8) -> bool,
    out: &mut Vec<u8>,
    escape: impl Fn(u8, &mut Vec<u8>),
) {
    while let Some(at) = first(value, &special) {
        let (plain, rest) = value.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, rest)) = rest.split_first() else { return };
        escape(*byte, out);
        value = rest;
    }
    out.extend_from_slice(value);
}

/// The first special byte; in nearly every value there is none.
fn first(value: &[u8], special: impl Fn(u8) -> bool) -> Option<usize> {
    // Whole blocks without a branch per byte: the compiler makes vector instructions of it.
    let blocks = value.as_chunks::<16>().0.iter();
    let plain =
        blocks.take_while(|block| !block.iter().fold(false, |found, byte| found | special(*byte))).count();
    let rest = value.get(plain * 16..)?;
    rest.iter().position(|byte| special(*byte)).map(|within| plain * 16 + within)
}

fn write_json_escape(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend([hex(byte >> 4), hex(byte & 15)]);
            return;
        }
    };
    out.extend([b'\\', short]);
}

fn hex(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(value: &[u8], escape: Escape) -> Vec<u8> {
        let mut out = Vec::new();
        write(value, escape, &mut out);
        out
    }

    #[test]
    fn as_nginx_does() {
        let value = "a\"b\\c\n\t\u{1}\u{7f}\u{e4} ~".as_bytes();
        assert_eq!(escaped(value, Escape::Default), br#"a\x22b\x5Cc\x0A\x09\x01\x7F\xC3\xA4 ~"#);
        assert_eq!(escaped(value, Escape::Json), "a\\\"b\\\\c\\n\\t\\u0001\u{7f}\u{e4} ~".as_bytes());
        assert_eq!(escaped(value, Escape::None), value);
        assert_eq!(escaped(b"\x08\x0c\r\x1f\xff", Escape::Json), b"\\b\\f\\r\\u001F\xff");
    }

    proptest! {
        /// Nothing a client sends can end a quoted value or a line.
        #[test]
        fn default_escaping_is_printable_and_unambiguous(value in prop::collection::vec(any::<u8>(), 0..80)) {
            let line = escaped(&value, Escape::Default);
            prop_assert!(line.iter().all(|byte| (0x20..=0x7e).contains(byte) && *byte != b'"'));
            let mut back = Vec::new();
            let mut rest = &line[..];
            while let Some((byte, after)) = rest.split_first() {
                if *byte == b'\\' {
                    prop_assert_eq!(after[0], b'x');
                    back.push(u8::from_str_radix(std::str::from_utf8(&after[1..3]).unwrap(), 16).unwrap());
                    rest = &after[3..];
                } else {
                    back.push(*byte);
                    rest = after;
                }
            }
            prop_assert_eq!(back, value);
        }

        #[test]
        fn json_strings_always_parse(value in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut out = Vec::new();
            write_json_string(&value, &mut out);
            let text: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(text, String::from_utf8_lossy(&value));
        }
    }
}
