//! The name of a request, from the first log line to the last hop.

use std::fmt;

use super::random;

/// Longest identifier accepted from elsewhere: what fits a UUID, a trace id or a W3C id several times over.
const FOREIGN_LEN_MAX: usize = 128;

/// The identifier of one request: 32 hexadecimal digits of our own, or what a trusted peer sent as `X-Request-Id`.
///
/// Always visible ASCII, so it can stand in a header, a log line and a URN as it is. Not a secret: it tells requests
/// apart, nothing more.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(Repr);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Repr {
    Own([u8; 32]),
    Foreign(Box<str>),
}

impl RequestId {
    /// A new one, random, without allocation.
    pub fn random() -> Self {
        let mut text = [0; 32];
        random::write_hex(&random::bits128(), &mut text);
        Self(Repr::Own(text))
    }

    /// One that a trusted peer sent. `None` unless it matches `^[A-Za-z0-9._-]{1,128}$`.
    pub fn foreign(text: &[u8]) -> Option<Self> {
        let valid = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > FOREIGN_LEN_MAX || !text.iter().all(valid) {
            return None;
        }
        std::str::from_utf8(text).ok().map(|text| Self(Repr::Foreign(text.into())))
    }

    /// As sent in `X-Request-Id`.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Own(text) => text,
            Repr::Foreign(text) => text.as_bytes(),
        }
    }

    /// As sent in `X-Request-Id`.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // Hexadecimal digits are always UTF-8; the fallback only spares a panic.
            Repr::Own(text) => std::str::from_utf8(text).unwrap_or_default(),
            Repr::Foreign(text) => text,
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn own_ones_are_32_hex_digits_and_differ_across_threads() {
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(|| (0..1000).map(|_| RequestId::random()).collect::<Vec<_>>()))
            .collect();
        let ids: Vec<RequestId> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        for id in &ids {
            assert_eq!(id.as_str().len(), 32);
            assert!(id.as_str().bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
        }
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }

    #[test]
    fn foreign_ones_are_taken_only_if_harmless() {
        for good in ["a", "0f8fad5b-d9cb-469f-a165-70867728950e", "a.b_c-D9", &"x".repeat(128)] {
            assert_eq!(RequestId::foreign(good.as_bytes()).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a\n", "\u{e4}", "a\"", "a/b", &"x".repeat(129)] {
            assert_eq!(RequestId::foreign(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_taken_is_unchanged(bytes in prop::collection::vec(any::<u8>(), 0..140)) {
            if let Some(id) = RequestId::foreign(&bytes) {
                prop_assert_eq!(id.as_bytes(), &bytes[..]);
                prop_assert!(http::HeaderValue::from_bytes(id.as_bytes()).is_ok());
            }
        }
    }
}
