//! TLS towards servers: certificates read and checked when the configuration is compiled, because Pingora panics on
//! what it cannot use when it connects.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use pingora::protocols::tls::CaType;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Largest certificate or key file read.
pub const PEM_BYTES_MAX: u64 = 4 << 20;

/// How connections to an upstream's servers are secured.
#[derive(Clone, Default)]
pub struct TlsPolicy {
    /// The name servers must prove; `None` = each server's own name.
    pub sni: Option<Arc<str>>,
    /// Roots trusted instead of the system's.
    pub ca: Option<Arc<CaType>>,
    /// Certificate and key shown to servers.
    pub client: Option<Arc<CertKey>>,
    /// Tells policies apart that differ in anything secret or not: connections are never shared between them.
    fingerprint: u64,
}

impl TlsPolicy {
    /// The policy made of these parts.
    pub fn new(sni: Option<Arc<str>>, ca: Option<Arc<CaType>>, client: Option<Arc<CertKey>>) -> Self {
        let mut hasher = DefaultHasher::new();
        sni.hash(&mut hasher);
        ca.as_deref()
            .map(|ca| ca.iter().map(|cert| cert.borrow_raw_cert()).collect::<Vec<_>>())
            .hash(&mut hasher);
        client
            .as_deref()
            .map(|client| {
                let chain = std::iter::once(client.leaf()).chain(client.intermediates());
                (client.key(), chain.map(|cert| cert.borrow_raw_cert()).collect::<Vec<_>>())
            })
            .hash(&mut hasher);
        Self { sni, ca, client, fingerprint: hasher.finish() }
    }

    /// A number that differs where anything of the policy differs.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl std::fmt::Debug for TlsPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsPolicy")
            .field("sni", &self.sni)
            .field("ca", &self.ca.as_deref().map(<[WrappedX509]>::len))
            .field("client", &self.client.is_some())
            .finish()
    }
}

/// Why a certificate or key cannot be used. Displays as a fragment that completes "the file …".
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// Longer than [`PEM_BYTES_MAX`].
    #[error("is larger than 4 MiB")]
    TooLarge,
    /// No such PEM section in it.
    #[error("contains no {0}")]
    Missing(&'static str),
    /// A PEM section is broken.
    #[error("is not valid PEM")]
    Pem,
    /// Decodes, but is no certificate that can be used.
    #[error("contains a certificate that cannot be used")]
    Certificate,
    /// Decodes, but is no key that can be used.
    #[error("contains a private key that cannot be used")]
    Key,
    /// Key and certificate do not belong together.
    #[error("is not the key of the certificate")]
    Mismatch,
}

/// Whether `name` can be proved by a certificate: a DNS name or an IP address.
pub fn is_server_name(name: &str) -> bool {
    ServerName::try_from(name).is_ok()
}

/// Reads the certificates of an authority.
pub fn load_ca(path: &Path) -> Result<Arc<CaType>, TlsError> {
    let certificates = parse_certificates(&read(path)?)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|_| TlsError::Certificate)?;
    }
    unless_panic(|| certificates.iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509)).collect())
}

/// Which of the two files of a client certificate is at fault.
#[derive(Debug)]
pub enum ClientError {
    /// The certificate's.
    Certificate(TlsError),
    /// The key's.
    Key(TlsError),
}

/// Reads a client certificate (leaf first) and its key.
pub fn load_client(certificate: &Path, key: &Path) -> Result<Arc<CertKey>, ClientError> {
    let chain =
        read(certificate).and_then(|pem| parse_certificates(&pem)).map_err(ClientError::Certificate)?;
    let key = read(key).and_then(|pem| parse_key(&pem)).map_err(ClientError::Key)?;
    let der = key.secret_der().to_vec();
    // Pingora guesses the kind of key from its bytes when it connects.
    PrivateKeyDer::try_from(der.clone()).map_err(|_| ClientError::Key(TlsError::Key))?;
    CertifiedKey::from_der(chain.clone(), key, &rustls::crypto::aws_lc_rs::default_provider()).map_err(
        |error| match error {
            rustls::Error::InconsistentKeys(_) => ClientError::Key(TlsError::Mismatch),
            rustls::Error::InvalidCertificate(_) => ClientError::Certificate(TlsError::Certificate),
            _ => ClientError::Key(TlsError::Key),
        },
    )?;
    unless_panic(|| {
        Arc::new(CertKey::new(chain.iter().map(|certificate| certificate.to_vec()).collect(), der))
    })
    .map_err(ClientError::Certificate)
}

/// Pingora's own copies of certificates are read by another version of the parser than the one that checked them, and
/// panic where it fails.
fn unless_panic<T>(make: impl FnOnce() -> T) -> Result<T, TlsError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(make)).map_err(|_| TlsError::Certificate)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    use std::io::Read;

    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > PEM_BYTES_MAX { Err(TlsError::TooLarge) } else { Ok(bytes) }
}

/// At least one certificate, each one readable by everything that will read it.
fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| TlsError::Pem)?;
    if certificates.is_empty() {
        return Err(TlsError::Missing("certificate"));
    }
    if certificates.iter().any(|der| X509Certificate::from_der(der).is_err()) {
        return Err(TlsError::Certificate);
    }
    Ok(certificates)
}

fn parse_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    use rustls::pki_types::pem::Error;

    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        Error::NoItemsFound => TlsError::Missing("private key"),
        _ => TlsError::Pem,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        }
    }

    fn certificate() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["users.internal".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn reads_what_fits_together() {
        let (files, (cert, key)) = (Files::new(), certificate());
        let (cert, key) = (files.write("cert.pem", &cert), files.write("key.pem", &key));
        assert_eq!(load_ca(&cert).unwrap().len(), 1);
        let client = load_client(&cert, &key).unwrap();
        assert!(client.intermediates().is_empty());
    }

    #[test]
    fn refuses_what_would_fail_later() {
        let files = Files::new();
        let ((cert, key), (_, other_key)) = (certificate(), certificate());
        let cert = files.write("cert.pem", &cert);
        let key = files.write("key.pem", &key);
        let other = files.write("other.pem", &other_key);
        let empty = files.write("empty.pem", "");
        let broken =
            files.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        assert!(matches!(load_client(&cert, &other), Err(ClientError::Key(TlsError::Mismatch))));
        assert!(matches!(load_client(&cert, &cert), Err(ClientError::Key(TlsError::Missing(_)))));
        assert!(matches!(load_client(&key, &key), Err(ClientError::Certificate(TlsError::Missing(_)))));
        assert!(matches!(load_ca(&empty), Err(TlsError::Missing("certificate"))));
        assert!(matches!(load_ca(&broken), Err(TlsError::Certificate)));
        assert!(matches!(load_ca(Path::new("/nonexistent/ca.pem")), Err(TlsError::Read(_))));
    }

    #[test]
    fn every_part_tells_policies_apart() {
        let (files, (first, key)) = (Files::new(), certificate());
        let (second, _) = certificate();
        let (first, key) = (files.write("a.pem", &first), files.write("key.pem", &key));
        let second = files.write("b.pem", &second);
        let policies = [
            TlsPolicy::new(None, None, None),
            TlsPolicy::new(Some("a".into()), None, None),
            TlsPolicy::new(Some("b".into()), None, None),
            TlsPolicy::new(None, Some(load_ca(&first).unwrap()), None),
            TlsPolicy::new(None, Some(load_ca(&second).unwrap()), None),
            TlsPolicy::new(None, None, Some(load_client(&first, &key).unwrap())),
        ];
        let prints: std::collections::HashSet<_> = policies.iter().map(TlsPolicy::fingerprint).collect();
        assert_eq!(prints.len(), policies.len());
        let again = TlsPolicy::new(None, Some(load_ca(&first).unwrap()), None);
        assert_eq!(again.fingerprint(), policies[3].fingerprint());
    }
}
