//! Chooses the certificate for a handshake by the name the client asks for.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use smallvec::SmallVec;

/// Certificates by name. A lookup hashes the name, and once more the part after its first dot; it allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    exact: HashMap<Box<str>, Choices>,
    /// `*.example.com` under `example.com`.
    wildcard: HashMap<Box<str>, Choices>,
    /// The first certificate: for clients that send no name, or one that no certificate has.
    default: Choices,
}

/// Certificates for one name with keys of different kinds, as with RSA for old clients beside ECDSA; one, nearly always.
type Choices = SmallVec<[Arc<CertifiedKey>; 1]>;

impl Resolver {
    /// Adds a certificate under `names`. A name for which there is one of the same kind stays with the earlier; the
    /// first such name is returned.
    pub(super) fn add(&mut self, names: &[String], key: Arc<CertifiedKey>) -> Option<String> {
        let is_first = self.default.is_empty();
        let mut taken = None;
        let mut beside_default = is_first;
        for name in names {
            let choices = match name.strip_prefix("*.") {
                Some(parent) => self.wildcard.entry(parent.into()).or_default(),
                None => self.exact.entry(name.as_str().into()).or_default(),
            };
            if choices.iter().any(|other| other.key.algorithm() == key.key.algorithm()) {
                taken.get_or_insert_with(|| name.clone());
                continue;
            }
            // The other kind for a name of the default certificate is also the default for clients that need it.
            beside_default |= choices.iter().zip(&self.default).any(|(one, other)| Arc::ptr_eq(one, other));
            choices.push(key.clone());
        }
        if beside_default && !self.default.iter().any(|other| other.key.algorithm() == key.key.algorithm()) {
            self.default.push(key);
        }
        taken
    }

    /// The certificates for `name`, which is in lower case: those with that name, else those with a wildcard for it
    /// (RFC 9525 section 6.3: for one label), else the default.
    pub(super) fn choices(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let named = name.and_then(|name| {
            self.exact
                .get(name)
                .or_else(|| name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent)))
        });
        named.unwrap_or(&self.default)
    }
}

impl Resolver {
    /// Whether clients that ask for `one` and for `other` (lower case) get the same certificates.
    pub(super) fn is_same(&self, one: Option<&str>, other: Option<&str>) -> bool {
        let (one, other) = (self.choices(one), self.choices(other));
        one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        pick(self.choices(hello.server_name()), hello.signature_schemes()).cloned()
    }
}

/// The first whose signature the client understands, else the first: the client then says what it misses.
fn pick<'c>(choices: &'c [Arc<CertifiedKey>], schemes: &[SignatureScheme]) -> Option<&'c Arc<CertifiedKey>> {
    choices.iter().find(|choice| choice.key.choose_scheme(schemes).is_some()).or_else(|| choices.first())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    fn certificate(algorithm: &'static SignatureAlgorithm) -> Arc<CertifiedKey> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).unwrap();
        Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key))
    }

    /// A client that knows only RSA gets the RSA certificate, also when it sends no name.
    #[test]
    fn the_kind_of_key_follows_the_client() {
        let ecdsa = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        let rsa = certificate(&rcgen::PKCS_RSA_SHA256);
        let other = certificate(&rcgen::PKCS_ED25519);
        let mut resolver = Resolver::default();
        assert_eq!(resolver.add(&["a.example".to_owned(), "*.a.example".to_owned()], ecdsa.clone()), None);
        assert_eq!(resolver.add(&["b.example".to_owned()], other), None);
        assert_eq!(resolver.add(&["a.example".to_owned()], rsa.clone()), None);
        for name in [Some("a.example"), None, Some("c.example")] {
            let pick = |schemes: &[SignatureScheme]| pick(resolver.choices(name), schemes).cloned().unwrap();
            assert!(Arc::ptr_eq(&pick(&[SignatureScheme::RSA_PSS_SHA256]), &rsa));
            assert!(Arc::ptr_eq(&pick(&[SignatureScheme::ECDSA_NISTP256_SHA256]), &ecdsa));
            assert!(Arc::ptr_eq(&pick(&[]), &ecdsa));
        }
        assert_eq!(resolver.choices(Some("x.a.example")).len(), 1);
        assert!(resolver.is_same(Some("a.example"), None) && resolver.is_same(Some("c.example"), None));
        assert!(!resolver.is_same(Some("a.example"), Some("b.example")));
        assert!(!resolver.is_same(Some("a.example"), Some("x.a.example")), "the RSA one is not for that");
        assert!(Resolver::default().choices(Some("a.example")).is_empty());
    }
}
