//! One certificate file and one key file: read, parsed, and checked against each other.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::base::authority::is_host;

/// Size of a certificate or key file. A chain takes a few kilobytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Certificates in one file. Clients give up on chains longer than ten.
const CHAIN_MAX: usize = 32;
/// Names of one certificate. Public authorities stop at a hundred.
const NAMES_MAX: usize = 10_000;

/// What to think of where a file is not found; of use only where its path was written as a relative one.
pub(in crate::config) const RELATIVE_HINT: &str = "a relative path starts at the directory of this file";

/// A certificate that can be served.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    /// Host names, lower-case, wildcards as `*.example.com`.
    pub(super) names: Vec<String>,
    /// Whether it also names IP addresses.
    pub(super) has_addresses: bool,
    /// Seconds since the Unix epoch.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

/// Which of the two names is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Cert,
    Key,
}

/// Why a pair cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) side: Side,
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<&'static str>,
}

impl Fault {
    pub(super) fn new(side: Side, code: &'static str, message: String) -> Self {
        Self { side, code, message, hint: None }
    }

    pub(super) fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }
}

/// Loads a pair. Both files are looked at even if one of them is broken.
pub(super) fn load(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<Loaded, Vec<Fault>> {
    let chain = read(cert, Side::Cert).and_then(|text| parse_chain(cert, &text));
    let key_der = read(key, Side::Key).and_then(|text| parse_key(key, &text));
    match (chain, key_der) {
        (Ok(chain), Ok(key_der)) => join(cert, chain, key, key_der, provider).map_err(|fault| vec![fault]),
        (chain, key_der) => Err([chain.err(), key_der.err()].into_iter().flatten().collect()),
    }
}

/// An I/O error without the number that nobody knows by heart.
fn why_unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}

pub(super) fn read(file: &Path, side: Side) -> Result<Vec<u8>, Fault> {
    let mut text = Vec::new();
    let outcome = File::open(file).and_then(|open| open.take(FILE_BYTES_MAX + 1).read_to_end(&mut text));
    match outcome {
        Ok(_) if text.len() as u64 > FILE_BYTES_MAX => {
            Err(Fault::new(side, "tls-unreadable", format!("{} is larger than 1 MiB", file.display())))
        }
        Ok(_) => Ok(text),
        Err(error) => {
            let message = format!("{} cannot be read: {}", file.display(), why_unreadable(&error));
            let fault = Fault::new(side, "tls-unreadable", message);
            Err(match error.kind() {
                io::ErrorKind::NotFound => fault.hint(RELATIVE_HINT),
                io::ErrorKind::PermissionDenied => {
                    fault.hint("the user that runs edgeward must be able to read it")
                }
                _ => fault,
            })
        }
    }
}

/// The certificates in `text`, in order.
pub(super) fn parse_chain(file: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let broken = |_: pem::Error| {
        let message = format!("{} has a certificate that is cut off or damaged", file.display());
        Fault::new(Side::Cert, "tls-no-certificate", message)
    };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(text).take(CHAIN_MAX + 1).collect::<Result<_, _>>().map_err(broken)?;
    if chain.len() > CHAIN_MAX {
        let message = format!("{} has more than {CHAIN_MAX} certificates", file.display());
        return Err(Fault::new(Side::Cert, "tls-no-certificate", message)
            .hint("it should hold the server's certificate and its intermediates, not all authorities"));
    }
    if chain.is_empty() {
        let fault = Fault::new(
            Side::Cert,
            "tls-no-certificate",
            format!("{} has no certificate in it", file.display()),
        );
        return Err(if contains(text, b"PRIVATE KEY-----") {
            fault.hint("it holds a private key: are `cert` and `key` swapped?")
        } else if text.first() == Some(&0x30) {
            fault.hint("it looks like DER; convert it: openssl x509 -inform der -in FILE -out FILE.pem")
        } else {
            fault.hint("a PEM file is needed, with \"-----BEGIN CERTIFICATE-----\"")
        });
    }
    Ok(chain)
}

/// The first private key in `text`.
pub(super) fn parse_key(file: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, Fault> {
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => {
            let fault =
                Fault::new(Side::Key, "tls-no-key", format!("{} has no private key in it", file.display()));
            Err(if contains(text, b"ENCRYPTED PRIVATE KEY") {
                fault.hint("it is encrypted; take the passphrase off: openssl pkey -in FILE -out FILE.plain")
            } else if contains(text, b"-----BEGIN CERTIFICATE-----") {
                fault.hint("it holds a certificate: are `cert` and `key` swapped?")
            } else if contains(text, b"-----BEGIN PUBLIC KEY-----") {
                fault.hint("it holds the public key; the private one is needed")
            } else if text.first() == Some(&0x30) {
                fault.hint("it looks like DER; convert it: openssl pkey -inform der -in FILE -out FILE.pem")
            } else {
                fault.hint("a PEM file is needed, with \"-----BEGIN PRIVATE KEY-----\"")
            })
        }
        Err(_) => {
            let message = format!("{} has a private key that is cut off or damaged", file.display());
            Err(Fault::new(Side::Key, "tls-no-key", message))
        }
    }
}

/// Puts a chain and a key together, if they belong together.
pub(super) fn join(
    cert: &Path,
    chain: Vec<CertificateDer<'static>>,
    key: &Path,
    key_der: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<Loaded, Fault> {
    // An old-style encrypted key passes for a PKCS#1 or SEC1 one until its content is looked at.
    let signing_key = provider.key_provider.load_private_key(key_der).map_err(|_| {
        let message = format!("{} has a key that cannot be used", key.display());
        Fault::new(Side::Key, "tls-unusable-key", message).hint(
            "RSA from 2048 bits, ECDSA on P-256, P-384 or P-521, and Ed25519 work, without a passphrase",
        )
    })?;
    let unusable = || {
        let message = format!("{} has a certificate that cannot be used", cert.display());
        Fault::new(Side::Cert, "tls-unusable-certificate", message)
            .hint("an X.509 certificate of version 3 is needed")
    };
    let leaf = chain.first().ok_or_else(unusable)?;
    let facts = Facts::read(leaf).ok_or_else(unusable)?;
    if facts.has_too_many_names {
        let message = format!("{} has a certificate with more than {NAMES_MAX} names", cert.display());
        return Err(Fault::new(Side::Cert, "tls-unusable-certificate", message)
            .hint("several certificates can share a listener, and one may have a wildcard for a name"));
    }
    let (not_before, not_after) = (facts.not_before, facts.not_after);
    let certified = CertifiedKey::new(chain, signing_key);
    match certified.keys_match() {
        Ok(()) => {}
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let message = format!(
                "the key in {} is not the key of the certificate in {}",
                key.display(),
                cert.display()
            );
            let fault = Fault::new(Side::Key, "tls-key-mismatch", message);
            return Err(if belongs_to_later(&certified) {
                fault.hint(
                    "it is the key of a later one in that file: the server's own certificate must come first",
                )
            } else {
                fault.hint(
                    "both must come from the same request; a renewed certificate may have got a new key",
                )
            });
        }
        Err(_) => return Err(unusable()),
    }
    Ok(Loaded {
        key: Arc::new(certified),
        names: facts.names,
        has_addresses: facts.has_addresses,
        not_before,
        not_after,
    })
}

/// Whether the key fits a certificate of the chain other than the first.
fn belongs_to_later(certified: &CertifiedKey) -> bool {
    certified
        .cert
        .iter()
        .skip(1)
        .any(|other| CertifiedKey::new(vec![other.clone()], certified.key.clone()).keys_match().is_ok())
}

/// What a certificate says about itself.
struct Facts {
    names: Vec<String>,
    has_too_many_names: bool,
    has_addresses: bool,
    not_before: i64,
    not_after: i64,
}

impl Facts {
    /// Reads `der`; `None` if it is no certificate.
    fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let mut names = Vec::new();
        let mut has_addresses = false;
        let all = || alternatives.iter().flat_map(|names| names.value.general_names.iter());
        let has_too_many_names = all().nth(NAMES_MAX).is_some();
        for name in all().take(NAMES_MAX) {
            match name {
                GeneralName::DNSName(name) => names.extend(host_name(name)),
                GeneralName::IPAddress(_) => has_addresses = true,
                _ => {}
            }
        }
        if names.is_empty() && !has_addresses {
            // Clients stopped looking here long ago, but some of the certificates that machines give each other have no more.
            let common = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
            names.extend(common.and_then(host_name));
        }
        names.sort_unstable();
        names.dedup();
        let validity = certificate.validity();
        Some(Self {
            names,
            has_too_many_names,
            has_addresses,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }
}

/// `name` in lower case, if a client can ask for it: a host name, or `*.` and a host name.
fn host_name(name: &str) -> Option<String> {
    let host = name.strip_prefix("*.").unwrap_or(name);
    is_host(host.as_bytes()).then(|| name.trim_end_matches('.').to_ascii_lowercase())
}

pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}
