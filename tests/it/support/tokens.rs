//! Whoever vouches for tokens: keys made for the test, and tokens signed by them. Signs with the library alone, so that
//! nothing of the gateway's own is trusted to be right.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// Signs tokens.
pub struct Signer {
    header: Header,
    key: EncodingKey,
    public: Option<(String, Value)>,
}

/// 32 bytes, as HS256 wants at least.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The moment in Unix seconds.
pub fn unix_now() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}

impl Signer {
    /// HS256 with [`SECRET`].
    pub fn secret() -> Self {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        Self { header: Header::new(Algorithm::HS256), key, public: None }
    }

    /// RS256 with a new key, called `kid` in tokens and key sets.
    pub fn rsa(kid: &str) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid,
            "n": number(pair.public_key().modulus().big_endian_without_leading_zero()),
            "e": number(pair.public_key().exponent().big_endian_without_leading_zero()),
        });
        // Out of its wrapper (PKCS #8), whose length is that of every key of this size.
        let bare = &private.as_ref()[26..];
        assert_eq!(bare[0], 0x30, "a sequence");
        let key = EncodingKey::from_rsa_der(bare);
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::RS256) };
        Self { header, key, public: Some((pem("PUBLIC KEY", public.as_ref()), jwk)) }
    }

    /// A token with these claims, and `iat` and `exp` where they do not say otherwise; `null` leaves one out.
    pub fn sign(&self, claims: Value) -> String {
        let now = unix_now();
        let mut all = json!({ "iat": now, "exp": now + 300 });
        let all = all.as_object_mut().unwrap();
        all.extend(claims.as_object().unwrap().clone());
        all.retain(|_, value| !value.is_null());
        jsonwebtoken::encode(&self.header, &all, &self.key).unwrap()
    }

    /// The same, as the value of `Authorization`.
    pub fn bearer(&self, claims: Value) -> String {
        format!("Bearer {}", self.sign(claims))
    }

    /// Its public key in PEM.
    pub fn public_pem(&self) -> &str {
        &self.public.as_ref().expect("a pair").0
    }

    /// Its public key as a key of a set.
    pub fn jwk(&self) -> Value {
        self.public.as_ref().expect("a pair").1.clone()
    }
}

/// A key set of these.
pub fn key_set(signers: &[&Signer]) -> Value {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() })
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line)).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
