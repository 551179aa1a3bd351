//! Public keys, checked when they are made.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Value, json};

use super::roca;
use crate::identity::jwt::algorithm::Kind;

/// The public half of a key pair: valid, and strong enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public(Form);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// Big-endian, no zero in front.
    Rsa {
        n: Box<[u8]>,
        e: Box<[u8]>,
    },
    /// The uncompressed point: 4, x, y.
    P256(Box<[u8]>),
    /// The uncompressed point: 4, x, y.
    P384(Box<[u8]>),
    Ed25519(Box<[u8]>),
}

/// Why a key is no good. Displays as a fragment that completes "the key …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Weak {
    /// RSA under 2048 bits (RFC 7518 section 3.3).
    #[error("has {0} bits, fewer than 2048")]
    Short(usize),
    /// RSA over 8192 bits: a signature would take too long to verify.
    #[error("has {0} bits, more than 8192")]
    Long(usize),
    /// An exponent under which signatures prove nothing, or none at all.
    #[error("has an exponent that is not odd, 3 or more, and of at most 32 bits")]
    Exponent,
    /// Made by hardware whose keys can be factored (CVE-2017-15361).
    #[error("was made by hardware with the ROCA flaw (CVE-2017-15361): others can compute its private half")]
    Roca,
    /// Not a point of its curve, or not a key at all.
    #[error("is not a valid key of its kind")]
    Invalid,
}

/// Longest RSA modulus, in bits.
const RSA_BITS_MAX: usize = 8192;
/// Shortest RSA modulus, in bits.
const RSA_BITS_MIN: usize = 2048;

impl Public {
    /// An RSA key of the modulus `n` and the exponent `e`, both big-endian.
    ///
    /// # Errors
    /// [`Weak`], whatever it is.
    pub fn rsa(n: &[u8], e: &[u8]) -> Result<Self, Weak> {
        let (n, e) = (without_zeros(n), without_zeros(e));
        let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        if bits < RSA_BITS_MIN {
            return Err(Weak::Short(bits));
        }
        if bits > RSA_BITS_MAX {
            return Err(Weak::Long(bits));
        }
        let odd = e.last().is_some_and(|last| last % 2 == 1);
        if !odd || e.len() > 4 || e == [1] {
            return Err(Weak::Exponent);
        }
        if n.last().is_some_and(|last| last % 2 == 0) {
            return Err(Weak::Invalid);
        }
        if roca::is_marked(n) {
            return Err(Weak::Roca);
        }
        let components = RsaPublicKeyComponents { n, e };
        components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).map_err(|_| Weak::Invalid)?;
        Ok(Self(Form::Rsa { n: n.into(), e: e.into() }))
    }

    /// The `point` of a curve, uncompressed: 4, x, y.
    ///
    /// # Errors
    /// [`Weak::Invalid`] if it is not on that curve.
    pub fn ec(kind: Kind, point: &[u8]) -> Result<Self, Weak> {
        // Other forms of a point would be another text for the same key.
        if point.first() != Some(&4) {
            return Err(Weak::Invalid);
        }
        match kind {
            Kind::P256 => {
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| Weak::Invalid)?;
                Ok(Self(Form::P256(point.into())))
            }
            Kind::P384 => {
                ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).map_err(|_| Weak::Invalid)?;
                Ok(Self(Form::P384(point.into())))
            }
            _ => Err(Weak::Invalid),
        }
    }

    /// An Ed25519 key of its 32 bytes (RFC 8032).
    ///
    /// # Errors
    /// [`Weak::Invalid`].
    pub fn ed25519(bytes: &[u8]) -> Result<Self, Weak> {
        ParsedPublicKey::new(&ED25519, bytes).map_err(|_| Weak::Invalid)?;
        Ok(Self(Form::Ed25519(bytes.into())))
    }

    /// What kind of key it is.
    pub fn kind(&self) -> Kind {
        match &self.0 {
            Form::Rsa { .. } => Kind::Rsa,
            Form::P256(_) => Kind::P256,
            Form::P384(_) => Kind::P384,
            Form::Ed25519(_) => Kind::Ed25519,
        }
    }

    /// As the library wants it.
    pub(super) fn verifying(&self) -> DecodingKey {
        match &self.0 {
            Form::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            Form::P256(point) | Form::P384(point) => DecodingKey::from_ec_der(point),
            Form::Ed25519(bytes) => DecodingKey::from_ed_der(bytes),
        }
    }

    /// Its members in a JSON Web Key that tell it apart (RFC 7638 section 3.2), in lexicographic order.
    pub fn members(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let curve = |name: &str, point: &[u8]| {
            let (x, y) = point.get(1..).map_or((&[][..], &[][..]), |point| point.split_at(point.len() / 2));
            json!({ "crv": name, "kty": "EC", "x": text(x), "y": text(y) })
        };
        match &self.0 {
            Form::Rsa { n, e } => json!({ "e": text(e), "kty": "RSA", "n": text(n) }),
            Form::P256(point) => curve("P-256", point),
            Form::P384(point) => curve("P-384", point),
            Form::Ed25519(bytes) => json!({ "crv": "Ed25519", "kty": "OKP", "x": text(bytes) }),
        }
    }

    /// Its thumbprint (RFC 7638) with SHA-256, in base64url: the same wherever it is computed.
    pub fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, self.members().to_string().as_bytes()))
    }
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}
