//! Of who somebody says he is: tokens, and the keys they are signed with.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::base::clock::{self, Moment};
use crate::identity::jwt::{Algorithm, Rules, algorithm::Algorithms};
use crate::identity::keys::jwk::{Secrets, parse_set};
use crate::identity::keys::{Key, KeySet};
use crate::identity::provider::{Keys, Provider, Providers, Settings, Verified};

/// The secret of [`token`]; the seed `good` is signed with it.
const TOKEN_SECRET: &[u8] = b"a secret that fuzzers do not know";

/// A token is refused, or it is signed with our secret and says what it must. A second look sees the same, also by what was
/// kept of the first.
///
/// The bytes are a token as it comes; behind a byte of 1 its header and its claims, a line each, which are signed here: no
/// fuzzer finds a signature.
pub fn token(bytes: &[u8]) {
    let made;
    let text = match bytes.split_first() {
        Some((1, said)) => {
            made = signed(said);
            &made
        }
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(_) => return,
        },
    };
    let all: Algorithms = Algorithm::ALL.iter().copied().collect();
    let provider = Provider::new(Settings {
        name: "local".into(),
        rules: Rules {
            issuer: Some("me".into()),
            audience: ["shop".into()].into(),
            typ: None,
            leeway: 0,
            require: ["exp".into()].into(),
            roles_claim: "roles".into(),
        },
        algorithms: [Algorithm::Hs256].into_iter().collect(),
        keys: Keys::Fixed(KeySet::new([Key::secret(None, TOKEN_SECRET, all)])),
        issuer: None,
        consumer: None,
        generated: None,
    });
    let providers = Providers::new([std::sync::Arc::new(provider)]);
    let wall = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
    let at = Moment { now: clock::now(), wall };
    let look = || match providers.verify(text, &at) {
        Verified::Ok(token) => Ok(token),
        Verified::Refused(refusal) => Err(refusal),
        Verified::Wait(_) => panic!("there is nothing to wait for"),
    };
    let (first, second) = (look(), look());
    match (first, second) {
        (Err(first), Err(second)) => assert_eq!(first, second),
        (Ok(first), Ok(second)) => {
            assert!(std::sync::Arc::ptr_eq(&first, &second));
            let (signed, signature) = text.rsplit_once('.').unwrap();
            assert_eq!(signature_of(signed), signature);
            assert_eq!(first.claims["iss"], "me");
            assert!(first.expires_at.unwrap() > 1_800_000_000);
        }
        (first, second) => panic!("{first:?} and then {second:?}"),
    }
}

fn signed(said: &[u8]) -> String {
    let at = said.iter().position(|byte| *byte == b'\n').unwrap_or(said.len());
    let (header, claims) = said.split_at(at);
    let claims = claims.strip_prefix(b"\n").unwrap_or(claims);
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    format!("{signed}.{}", signature_of(&signed))
}

fn signature_of(signed: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, TOKEN_SECRET);
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()))
}

/// A set of keys is refused, or each key taken from it is public, serves something, and published again it is the same key.
pub fn key_set(bytes: &[u8]) {
    let Ok(set) = parse_set(bytes, Secrets::Refused, &mut Vec::new()) else { return };
    for key in set.keys() {
        assert!(!key.algorithms().is_empty());
        let public = key.public_half().expect("no secret is taken from a published set");
        let again =
            parse_set(public.members().to_string().as_bytes(), Secrets::Refused, &mut Vec::new()).unwrap();
        assert_eq!(again.keys()[0].public_half(), Some(public));
    }
}
