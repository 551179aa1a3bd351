//! Keys in PEM files (RFC 7468).

use rustls::pki_types::pem::{PemObject, SectionKind};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::Public;
use crate::identity::jwt::algorithm::Kind;

/// Reads the public key of the first section of `pem`: a `PUBLIC KEY`, or that of a `CERTIFICATE`.
///
/// # Errors
/// Completes "the file …".
pub fn public_key(pem: &[u8]) -> Result<Public, String> {
    let (kind, der) = match <(SectionKind, Vec<u8>)>::from_pem_slice(pem) {
        Ok(section) => section,
        // A form of its own, which the reader of the library does not know.
        Err(_) => return rsa_public_key(pem),
    };
    match kind {
        SectionKind::PublicKey => spki(&der),
        SectionKind::Certificate => {
            let (_, certificate) =
                X509Certificate::from_der(&der).map_err(|_| "holds a broken certificate".to_owned())?;
            spki(certificate.public_key().raw)
        }
        SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
            Err("holds a private key where the public one is enough".to_owned())
        }
        _ => Err("holds no public key".to_owned()),
    }
}

/// PKCS#1, which says nothing but modulus and exponent.
fn rsa_public_key(pem: &[u8]) -> Result<Public, String> {
    const NOTHING: &str = "holds no public key in PEM";
    let text = std::str::from_utf8(pem).map_err(|_| NOTHING.to_owned())?;
    let (_, rest) = text.split_once("-----BEGIN RSA PUBLIC KEY-----").ok_or_else(|| NOTHING.to_owned())?;
    let (body, _) = rest.split_once("-----END RSA PUBLIC KEY-----").ok_or_else(|| NOTHING.to_owned())?;
    // The same section under the name that the reader knows.
    let renamed = format!("-----BEGIN PUBLIC KEY-----{body}-----END PUBLIC KEY-----\n");
    let (_, der) =
        <(SectionKind, Vec<u8>)>::from_pem_slice(renamed.as_bytes()).map_err(|_| NOTHING.to_owned())?;
    rsa(&der)
}

/// The key of a SubjectPublicKeyInfo (RFC 5280 section 4.1).
fn spki(der: &[u8]) -> Result<Public, String> {
    let broken = || "holds a broken public key".to_owned();
    let (rest, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| broken())?;
    if !rest.is_empty() {
        return Err(broken());
    }
    let (algorithm, bytes) = (&info.algorithm, &info.subject_public_key.data);
    let oid = &algorithm.algorithm;
    let made = if *oid == OID_PKCS1_RSAENCRYPTION {
        return rsa(bytes);
    } else if *oid == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
        let curve = curve.ok_or_else(broken)?;
        if curve == OID_EC_P256 {
            Public::ec(Kind::P256, bytes)
        } else if curve == OID_NIST_EC_P384 {
            Public::ec(Kind::P384, bytes)
        } else {
            return Err("holds a key of another curve than P-256 and P-384".to_owned());
        }
    } else if *oid == OID_SIG_ED25519 {
        Public::ed25519(bytes)
    } else {
        return Err("holds a key that is neither RSA nor EC nor Ed25519".to_owned());
    };
    made.map_err(|weak| format!("holds a key that {weak}"))
}

/// The key of an RSAPublicKey (RFC 8017 appendix A.1.1).
pub(in crate::identity) fn rsa(der: &[u8]) -> Result<Public, String> {
    let (rest, key) = RSAPublicKey::from_der(der).map_err(|_| "holds a broken RSA key".to_owned())?;
    if !rest.is_empty() {
        return Err("holds a broken RSA key".to_owned());
    }
    Public::rsa(key.modulus, key.exponent).map_err(|weak| format!("holds a key that {weak}"))
}
