//! Random values that must not be guessed: refresh tokens and the names of tokens and families.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;

/// What every refresh token begins with: people and scanners see what they have found.
const PREFIX: &str = "ewr_";

/// What is random in a refresh token, in bytes.
const SECRET_BYTES: usize = 32;

/// A refresh token. Only its digest is stored: with 256 random bits there is nothing to guess, so no salt and no time
/// are needed.
pub(super) struct RefreshToken {
    pub(super) text: String,
    pub(super) digest: [u8; 32],
}

impl RefreshToken {
    /// A new one; `None` without random numbers.
    pub(super) fn new() -> Option<Self> {
        let text = format!("{PREFIX}{}", BASE64.encode(random::<SECRET_BYTES>()?));
        let digest = digest_of(&text);
        Some(Self { text, digest })
    }

    /// The digest of what a client shows; `None` if it has not even the form.
    pub(super) fn read(shown: &str) -> Option<[u8; 32]> {
        let secret = BASE64.decode(shown.strip_prefix(PREFIX)?).ok()?;
        (secret.len() == SECRET_BYTES).then(|| digest_of(shown))
    }
}

fn digest_of(text: &str) -> [u8; 32] {
    digest(&SHA256, text.as_bytes()).as_ref().try_into().unwrap_or_default()
}

/// A name that nobody has used, of 127 random bits; `None` without random numbers. It begins with a letter: one that began
/// with a hyphen would be an option to a shell's commands, whoever copies it there.
pub(super) fn name() -> Option<String> {
    let mut bytes = random::<16>()?;
    bytes[0] &= 0x7f;
    Some(BASE64.encode(bytes))
}

fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok().map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refresh_tokens_are_known_by_their_form_and_digest() {
        let (one, other) = (RefreshToken::new().unwrap(), RefreshToken::new().unwrap());
        assert_ne!(one.digest, other.digest);
        assert_eq!(RefreshToken::read(&one.text), Some(one.digest));
        for wrong in ["", "ewr_", &one.text[1..], &one.text[..one.text.len() - 1], "ewr_!!!!", "abc"] {
            assert_eq!(RefreshToken::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_can_be_copied_to_a_command_line() {
        for _ in 0..1000 {
            let name = name().unwrap();
            assert!(name.len() == 22 && name.starts_with(|c: char| c.is_ascii_alphabetic()), "{name}");
        }
    }
}
