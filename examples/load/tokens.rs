//! Tokens as an identity provider issues them.

use std::io;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

/// In the year 2096.
const LATER: u64 = 4_000_000_000;
const LONG_AGO: u64 = 1_600_000_000;

/// One line a token, `valid` or what is wrong with it first.
pub(crate) fn write(key: &str, count: u64, issuer: &str, audience: &str) -> io::Result<()> {
    let key = PrivatePkcs8KeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).map_err(io::Error::other)?;
    let claims = |number: u64| {
        json!({
            "iss": issuer, "aud": audience, "exp": LATER, "iat": LONG_AGO, "jti": format!("0a1b2c3d-{number:08}"),
            "sub": format!("auth0|{number:024}"), "role": "reader", "scope": "openid profile email",
            "email": format!("somebody-{number}@example.com"),
        })
    };
    for number in 0..count {
        crate::say(&format!("valid {}", sign(&key, &claims(number))?));
    }
    for (what, name, value) in [
        ("expired", "exp", json!(LONG_AGO)),
        ("issuer", "iss", json!("https://elsewhere.example.com/")),
        ("audience", "aud", json!("another")),
        ("role", "role", json!("nobody")),
    ] {
        let mut claims = claims(0);
        if let Some(claim) = claims.get_mut(name) {
            *claim = value;
        }
        crate::say(&format!("{what} {}", sign(&key, &claims)?));
    }
    // The signature of one token under the claims of another.
    let (one, other) = (sign(&key, &claims(1))?, sign(&key, &claims(2))?);
    let (Some((signed, _)), Some((_, signature))) = (one.rsplit_once('.'), other.rsplit_once('.')) else {
        return Err(io::Error::other("a token without dots"));
    };
    crate::say(&format!("signature {signed}.{signature}"));
    Ok(())
}

fn sign(key: &RsaKeyPair, claims: &Value) -> io::Result<String> {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed =
        format!("{}.{}", part(&json!({ "alg": "RS256", "typ": "JWT", "kid": "load" })), part(claims));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(io::Error::other)?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
