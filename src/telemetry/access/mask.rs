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

/// Whether the value of the parameter `name` is never logged.
pub(super) fn is_secret(name: &[u8]) -> bool {
    SECRET_PARAMETERS.iter().any(|secret| name.eq_ignore_ascii_case(secret.as_bytes()))
}

/// `url` with the secrets in its query replaced. Most have none and are passed through.
pub(super) fn url(url: &[u8]) -> Cow<'_, [u8]> {
    match memchr::memchr(b'?', url).and_then(|at| url.split_at_checked(at + 1)) {
        Some((before, rest)) => match query(rest) {
            Cow::Borrowed(_) => Cow::Borrowed(url),
            Cow::Owned(masked) => Cow::Owned([before, &masked].concat()),
        },
        None => Cow::Borrowed(url),
    }
}

/// `query` (without its question mark) with the secrets in it replaced.
pub(super) fn query(query: &[u8]) -> Cow<'_, [u8]> {
    let has_secret = query.split(|byte| *byte == b'&').any(|parameter| secret_name(parameter).is_some());
    if !has_secret {
        return Cow::Borrowed(query);
    }
    let mut masked = Vec::with_capacity(query.len());
    for (index, parameter) in query.split(|byte| *byte == b'&').enumerate() {
        if index > 0 {
            masked.push(b'&');
        }
        match secret_name(parameter) {
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
fn secret_name(parameter: &[u8]) -> Option<&[u8]> {
    let (name, value) = parameter.split_at_checked(memchr::memchr(b'=', parameter)?)?;
    let secret = if memchr::memchr(b'%', name).is_some() {
        is_secret(&percent_decoded(name))
    } else {
        is_secret(name)
    };
    (secret && value.len() > 1).then_some(name)
}

fn percent_decoded(name: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((byte, after)) = rest.split_first() {
        let code = after.split_at_checked(2).filter(|_| *byte == b'%').and_then(|(digits, after)| {
            let digits = std::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        });
        let (byte, after) = code.unwrap_or((*byte, after));
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
            assert_eq!(String::from_utf8_lossy(&url(written.as_bytes())), shown);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_no_secret_stays(before in prop::collection::vec(any::<u8>(), 0..40), at in 0..40_usize) {
            let mut text = before;
            let at = at.min(text.len());
            text.splice(at..at, *b"?&token=s3cret&");
            let shown = url(&text);
            prop_assert!(memchr::memmem::find(&shown, b"s3cret").is_none());
        }
    }
}
