//! Keys and tokens in a logged query are shown as `***`.

use std::borrow::Cow;

/// Parameters whose values are never logged, compared without regard to case. They are what OAuth 2.0 (RFC 6749,
/// RFC 6750 section 2.3), OpenID Connect, signed URLs and common API keys are called.
const SECRET_PARAMETERS: &[&str] = &[
    "access_token",
    "api-key",
    "api_key",
    "apikey",
    "auth_token",
    "client_assertion",
    "client_secret",
    "code_verifier",
    "id_token",
    "id_token_hint",
    "jwt",
    "passwd",
    "password",
    "refresh_token",
    "secret",
    "sig",
    "signature",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-api-key",
    "x-goog-signature",
];

/// What stands in place of a secret.
pub(super) const MASK: &[u8] = b"***";

/// What is a secret: the above, and the parameter in which the configuration has API keys sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Mask(pub(super) Option<Box<str>>);

impl Mask {
    /// Whether the value of the parameter `name` is never logged.
    pub(super) fn is_secret(&self, name: &[u8]) -> bool {
        let mut secrets = SECRET_PARAMETERS.iter().copied().chain(self.0.as_deref());
        secrets.any(|secret| name.eq_ignore_ascii_case(secret.as_bytes()))
    }

    /// `url` with the secrets in its query replaced. Most have none and are passed through.
    pub(super) fn url<'u>(&self, url: &'u [u8]) -> Cow<'u, [u8]> {
        match memchr::memchr(b'?', url).and_then(|at| url.split_at_checked(at + 1)) {
            Some((before, rest)) => match self.query(rest) {
                Cow::Borrowed(_) => Cow::Borrowed(url),
                Cow::Owned(masked) => Cow::Owned([before, &masked].concat()),
            },
            None => Cow::Borrowed(url),
        }
    }

    /// `query` (without its question mark) with the secrets in it replaced.
    pub(super) fn query<'q>(&self, query: &'q [u8]) -> Cow<'q, [u8]> {
        let mut parameters = query.split(|byte| *byte == b'&');
        if !parameters.any(|parameter| self.secret_name(parameter).is_some()) {
            return Cow::Borrowed(query);
        }
        let mut masked = Vec::with_capacity(query.len());
        for (index, parameter) in query.split(|byte| *byte == b'&').enumerate() {
            if index > 0 {
                masked.push(b'&');
            }
            match self.secret_name(parameter) {
                Some(name) => {
                    masked.extend_from_slice(name);
                    masked.push(b'=');
                    masked.extend_from_slice(MASK);
                }
                None => masked.extend_from_slice(parameter),
            }
        }
        Cow::Owned(masked)
    }

    /// The name of `parameter`, as written, if it is a secret with a value. Names that are percent-encoded to hide are
    /// decoded first: what a service would take for a token is one.
    fn secret_name<'p>(&self, parameter: &'p [u8]) -> Option<&'p [u8]> {
        let (name, value) = parameter.split_at_checked(memchr::memchr(b'=', parameter)?)?;
        let secret = if memchr::memchr2(b'%', b'+', name).is_some() {
            self.is_secret(&percent_decoded(name))
        } else {
            self.is_secret(name)
        };
        (secret && value.len() > 1).then_some(name)
    }
}

fn percent_decoded(name: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((byte, after)) = rest.split_first() {
        let code = after.split_at_checked(2).filter(|_| *byte == b'%').and_then(|(digits, after)| {
            let digits = std::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        });
        let (byte, after) = code.unwrap_or((if *byte == b'+' { b' ' } else { *byte }, after));
        decoded.push(byte);
        rest = after;
    }
    decoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        for (written, shown) in [
            ("/a?b=c", "/a?b=c"),
            ("/a?token=s3cret", "/a?token=***"),
            ("/a?x=1&Access_Token=s3cret&y=2#f", "/a?x=1&Access_Token=***&y=2#f"),
            ("/a?%74oken=s3cret", "/a?%74oken=***"),
            ("/a?token", "/a?token"),
            ("/a?token=", "/a?token="),
            ("/a?tokens=5", "/a?tokens=5"),
            ("/token=a", "/token=a"),
            ("https://x/?a=?&sig=1", "https://x/?a=?&sig=***"),
            ("", ""),
            ("?", "?"),
        ] {
            assert_eq!(String::from_utf8_lossy(&Mask::default().url(written.as_bytes())), shown);
        }
    }

    #[test]
    fn the_parameter_of_api_keys_is_one() {
        let mask = Mask(Some("my key".into()));
        for (written, shown) in [
            ("/a?my+key=s3cret&token=t", "/a?my+key=***&token=***"),
            ("/a?My%20%4bey=s3cret", "/a?My%20%4bey=***"),
            ("/a?key=open", "/a?key=open"),
        ] {
            assert_eq!(String::from_utf8_lossy(&mask.url(written.as_bytes())), shown);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_no_secret_stays(before in prop::collection::vec(any::<u8>(), 0..40), at in 0..40_usize) {
            let mut text = before;
            let at = at.min(text.len());
            text.splice(at..at, *b"?&token=s3cret&");
            let mask = Mask::default();
            let shown = mask.url(&text);
            prop_assert!(memchr::memmem::find(&shown, b"s3cret").is_none());
        }
    }
}
