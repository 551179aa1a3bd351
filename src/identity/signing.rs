//! Tokens of our own: signing them, and publishing what verifies them.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value, json};

use super::jwt::algorithm::{Algorithm, Kind};
use super::keys::{Key, Public, pem};

/// The private half of a key pair.
pub struct SigningKey {
    pair: Pair,
    public: Public,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public.thumbprint()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads the private key of a PEM file: PKCS#8, or the older forms of RSA and EC keys.
    ///
    /// # Errors
    /// Completes "the file …".
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
            let is_locked = pem.windows(9).any(|window| window == b"ENCRYPTED");
            let what = if is_locked { "only an encrypted private key" } else { "no private key in PEM" };
            format!("holds {what}")
        })?;
        match &der {
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()).ok().map(Pair::Rsa),
            PrivateKeyDer::Sec1(key) => ec(key.secret_sec1_der()),
            PrivateKeyDer::Pkcs8(key) => {
                let key = key.secret_pkcs8_der();
                let rsa = || RsaKeyPair::from_pkcs8(key).ok().map(Pair::Rsa);
                let ed25519 = || Ed25519KeyPair::from_pkcs8_maybe_unchecked(key).ok().map(Pair::Ed25519);
                ec(key).or_else(rsa).or_else(ed25519)
            }
            _ => None,
        }
        .ok_or_else(|| {
            "holds a private key that is none of RSA (2048 bits or more), P-256, P-384, Ed25519".to_owned()
        })
        .and_then(Self::new)
    }

    /// Makes a key for `algorithm`, and what to write into its file.
    ///
    /// # Errors
    /// There is none for secrets; or no randomness.
    pub fn generate(algorithm: Algorithm) -> Result<(Self, String), String> {
        let failed = |_| "no key could be made".to_owned();
        let (pair, document) = match algorithm.kind() {
            Kind::P256 | Kind::P384 => {
                let curve = match algorithm.kind() {
                    Kind::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
                    _ => &ECDSA_P384_SHA384_FIXED_SIGNING,
                };
                let pair = EcdsaKeyPair::generate(curve).map_err(failed)?;
                let document = pair.to_pkcs8v1().map_err(failed)?;
                (Pair::Ec(pair), document.as_ref().to_vec())
            }
            Kind::Ed25519 => {
                let pair = Ed25519KeyPair::generate().map_err(failed)?;
                let document = pair.to_pkcs8().map_err(failed)?;
                (Pair::Ed25519(pair), document.as_ref().to_vec())
            }
            Kind::Rsa => {
                use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
                let document: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                let document = document.as_ref().to_vec();
                (Pair::Rsa(pair), document)
            }
            Kind::Secret => return Err("a secret is not generated".to_owned()),
        };
        Ok((Self::new(pair)?, to_pem(&document)))
    }

    fn new(pair: Pair) -> Result<Self, String> {
        let public = match &pair {
            Pair::Rsa(pair) => pem::rsa(pair.public_key().as_ref())?,
            Pair::Ec(pair) => {
                let point = pair.public_key().as_ref();
                let kind = if point.len() == 65 { Kind::P256 } else { Kind::P384 };
                Public::ec(kind, point).map_err(|weak| format!("holds a key that {weak}"))?
            }
            Pair::Ed25519(pair) => Public::ed25519(pair.public_key().as_ref())
                .map_err(|weak| format!("holds a key that {weak}"))?,
        };
        Ok(Self { pair, public })
    }

    /// Its public half.
    pub fn public(&self) -> &Public {
        &self.public
    }

    pub(in crate::identity) fn sign(
        &self,
        algorithm: Algorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, SignError> {
        match &self.pair {
            Pair::Rsa(pair) => {
                let encoding = rsa_encoding(algorithm).ok_or(SignError)?;
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), message, &mut signature).map_err(|_| SignError)?;
                Ok(signature)
            }
            Pair::Ec(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message).map_err(|_| SignError)?;
                Ok(signature.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

fn ec(der: &[u8]) -> Option<Pair> {
    [&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED_SIGNING]
        .into_iter()
        .find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, der).ok())
        .map(Pair::Ec)
}

fn rsa_encoding(algorithm: Algorithm) -> Option<&'static dyn RsaEncoding> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_SHA512,
        Algorithm::Ps256 => &RSA_PSS_SHA256,
        Algorithm::Ps384 => &RSA_PSS_SHA384,
        Algorithm::Ps512 => &RSA_PSS_SHA512,
        _ => return None,
    })
}

fn to_pem(pkcs8: &[u8]) -> String {
    let body = STANDARD.encode(pkcs8);
    let mut text = "-----BEGIN PRIVATE KEY-----\n".to_owned();
    let mut rest = body.as_str();
    while !rest.is_empty() {
        // RFC 7468 section 2: lines of 64. Base64 is ASCII.
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    text
}

/// The library could not sign. It does not say why, and there is no reason known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token could not be signed")]
pub struct SignError;

/// What a provider signs with.
#[derive(Debug)]
enum Signer {
    /// A key pair.
    Key(SigningKey),
    /// A secret, which verifies as well.
    Secret(Box<hmac::Key>),
}

/// Issues tokens that its provider verifies.
#[derive(Debug)]
pub struct Issuer {
    algorithm: Algorithm,
    signer: Signer,
    /// The header of every token, in base64url.
    header: Box<str>,
    jwks: Bytes,
}

impl Issuer {
    /// Signs with `key`; `others` are public keys that are published as well: those before it, and those to come.
    ///
    /// `None` if `key` cannot serve `algorithm`.
    pub fn new(key: SigningKey, algorithm: Algorithm, others: &[Public]) -> Option<Self> {
        (algorithm.kind() == key.public.kind()).then(|| {
            let id = key.public.thumbprint();
            let jwks = jwks(
                std::iter::once((&key.public, Some(algorithm))).chain(others.iter().map(|key| (key, None))),
            );
            Self::with(Signer::Key(key), algorithm, Some(&id), jwks)
        })
    }

    /// Signs with a shared `secret`. It has no name in tokens, since a name made from it could be used to guess it, and is
    /// not published.
    ///
    /// `None` if `algorithm` is not one of secrets.
    pub fn with_secret(secret: &[u8], algorithm: Algorithm) -> Option<Self> {
        let hmac = match algorithm {
            Algorithm::Hs256 => hmac::HMAC_SHA256,
            Algorithm::Hs384 => hmac::HMAC_SHA384,
            Algorithm::Hs512 => hmac::HMAC_SHA512,
            _ => return None,
        };
        let key = hmac::Key::new(hmac, secret);
        Some(Self::with(Signer::Secret(Box::new(key)), algorithm, None, jwks(std::iter::empty())))
    }

    fn with(signer: Signer, algorithm: Algorithm, id: Option<&str>, jwks: Bytes) -> Self {
        let mut header = json!({ "alg": algorithm.as_str(), "typ": "JWT" });
        if let (Some(id), Some(header)) = (id, header.as_object_mut()) {
            header.insert("kid".to_owned(), id.into());
        }
        Self { algorithm, signer, header: URL_SAFE_NO_PAD.encode(header.to_string()).into(), jwks }
    }

    /// A token that says `claims`, in compact form. All of them are the caller's: `iss`, `aud`, `iat` and `exp` as well.
    ///
    /// # Errors
    /// The library failed.
    pub fn issue(&self, claims: &Map<String, Value>) -> Result<String, SignError> {
        let payload = serde_json::to_vec(claims).map_err(|_| SignError)?;
        let mut token = String::with_capacity(self.header.len() + payload.len() * 4 / 3 + 400);
        token.push_str(&self.header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = match &self.signer {
            Signer::Key(key) => key.sign(self.algorithm, token.as_bytes())?,
            Signer::Secret(key) => hmac::sign(key, token.as_bytes()).as_ref().to_vec(),
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// What its tokens are signed with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The document with the public keys (RFC 7517 section 5), as JSON. Without any for a secret.
    pub fn jwks(&self) -> Bytes {
        self.jwks.clone()
    }
}

/// The set of `keys`, each once, under its thumbprint.
fn jwks<'k>(keys: impl Iterator<Item = (&'k Public, Option<Algorithm>)>) -> Bytes {
    let mut entries: Vec<Value> = Vec::new();
    for (key, algorithm) in keys {
        let id = key.thumbprint();
        if entries.iter().any(|entry| entry.get("kid").and_then(Value::as_str) == Some(&id)) {
            continue;
        }
        let mut entry = key.members();
        if let Some(entry) = entry.as_object_mut() {
            entry.insert("kid".to_owned(), id.into());
            entry.insert("use".to_owned(), "sig".into());
            if let Some(algorithm) = algorithm {
                entry.insert("alg".to_owned(), algorithm.as_str().into());
            }
        }
        entries.push(entry);
    }
    json!({ "keys": entries }).to_string().into()
}

/// The key that verifies tokens of a signing key, for `algorithms`.
pub fn verifying(public: &Public, algorithms: super::jwt::algorithm::Algorithms) -> Key {
    Key::public(Some(public.thumbprint().into()), public.clone(), algorithms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::jwt::Jws;
    use crate::identity::jwt::algorithm::Algorithms;
    use crate::identity::keys::KeySet;
    use crate::identity::keys::jwk::{Secrets, parse_set};

    fn claims() -> Map<String, Value> {
        json!({ "sub": "alice", "roles": ["user"] }).as_object().unwrap().clone()
    }

    fn all() -> Algorithms {
        Algorithm::ALL.iter().copied().collect()
    }

    /// What is issued is verified by what is published, for every algorithm; and only with that algorithm.
    #[test]
    fn what_is_published_verifies_what_is_issued() {
        for algorithm in Algorithm::ALL.iter().copied().filter(|algorithm| algorithm.kind() != Kind::Secret) {
            let (key, pem) = SigningKey::generate(algorithm).unwrap();
            let again = SigningKey::from_pem(pem.as_bytes()).unwrap();
            assert_eq!(again.public(), key.public());
            let issuer = Issuer::new(again, algorithm, &[]).unwrap();
            let mut skipped = Vec::new();
            let set = parse_set(&issuer.jwks(), Secrets::Refused, &mut skipped).unwrap();
            assert!(skipped.is_empty() && set.len() == 1);
            let token = issuer.issue(&claims()).unwrap();
            let jws = Jws::parse(&token).unwrap();
            assert_eq!(
                (jws.algorithm, jws.key_id.as_deref()),
                (algorithm, Some(&*key.public().thumbprint()))
            );
            set.verify(&jws, all()).unwrap();
            assert!(set.verify(&jws, Algorithms::default()).is_err());
            let payload: Value = serde_json::from_slice(&jws.payload).unwrap();
            assert_eq!(payload, Value::Object(claims()));
        }
    }

    #[test]
    fn a_secret_signs_and_is_not_published() {
        let secret = [7; 64];
        for algorithm in [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512] {
            let issuer = Issuer::with_secret(&secret, algorithm).unwrap();
            assert_eq!(&issuer.jwks()[..], b"{\"keys\":[]}");
            let token = issuer.issue(&claims()).unwrap();
            let jws = Jws::parse(&token).unwrap();
            assert_eq!(jws.key_id, None);
            KeySet::new([Key::secret(None, &secret, all())]).verify(&jws, all()).unwrap();
        }
        assert!(Issuer::with_secret(&secret, Algorithm::Es256).is_none());
    }

    /// The key before and the key to come stand beside the one that signs, each once.
    #[test]
    fn other_keys_are_published_as_well() {
        let key = || SigningKey::generate(Algorithm::Es256).unwrap().0;
        let (old, new) = (key(), key());
        let others = [old.public().clone(), new.public().clone()];
        let issuer = Issuer::new(new, Algorithm::Es256, &others).unwrap();
        let set = parse_set(&issuer.jwks(), Secrets::Refused, &mut Vec::new()).unwrap();
        assert_eq!(set.len(), 2);
        let before = Issuer::new(old, Algorithm::Es256, &[]).unwrap().issue(&claims()).unwrap();
        set.verify(&Jws::parse(&before).unwrap(), all()).unwrap();
    }

    #[test]
    fn a_key_signs_for_its_own_kind_alone() {
        for algorithm in [Algorithm::Es384, Algorithm::Rs256, Algorithm::EdDsa, Algorithm::Hs256] {
            let key = SigningKey::generate(Algorithm::Es256).unwrap().0;
            assert!(Issuer::new(key, algorithm, &[]).is_none());
        }
        assert!(SigningKey::generate(Algorithm::Hs256).is_err());
        for nonsense in [
            "",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        ] {
            assert!(SigningKey::from_pem(nonsense.as_bytes()).is_err(), "{nonsense}");
        }
    }
}
