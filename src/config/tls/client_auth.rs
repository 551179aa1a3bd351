//! `[listeners.client_auth]`: whose certificates clients may show, and whether they must.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::pair::{Fault, Side, contains, read};

/// Authorities of one file. The whole public web has some hundred and fifty.
const ROOTS_MAX: usize = 1024;
/// Names of authorities sent with each request for a certificate; with more none is sent, which asks for any.
const HINT_BYTES_MAX: usize = 16 * 1024;

/// Tells policies apart: equal where the same clients get in by the same certificates.
pub type PolicyId = [u8; 32];

/// What a listener wants of its clients.
#[derive(Debug)]
pub(super) struct ClientAuth {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) id: PolicyId,
    /// The subject of a certificate that no authority's can be: nothing that it signed is believed.
    pub(super) no_authority: Option<String>,
}

impl ClientAuth {
    /// Trusts the authorities in `ca`. `required`: who shows no certificate does not get in.
    pub(super) fn load(ca: &Path, required: bool, provider: &Arc<CryptoProvider>) -> Result<Self, Fault> {
        let certificates = parse(ca, &read(ca, Side::Cert)?)?;
        let no_authority = certificates.iter().find_map(|certificate| no_authority(certificate));
        let mut roots = RootCertStore::empty();
        let mut id = Context::new(&SHA256);
        id.update(&[u8::from(required)]);
        let unusable = || {
            let message = format!("{} has a certificate that cannot be used", ca.display());
            Fault::new(Side::Cert, "tls-unusable-certificate", message)
                .hint("an X.509 certificate of version 3 is needed")
        };
        for certificate in certificates {
            id.update(&certificate.len().to_be_bytes());
            id.update(&certificate);
            roots.add(certificate).map_err(|_| unusable())?;
        }
        let hint_bytes: usize = roots.subjects().iter().map(|subject| subject.as_ref().len() + 2).sum();
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        if hint_bytes > HINT_BYTES_MAX {
            builder = builder.clear_root_hint_subjects();
        }
        if !required {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build().map_err(|_| unusable())?;
        let mut policy = PolicyId::default();
        policy.iter_mut().zip(id.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Ok(Self { verifier, id: policy, no_authority })
    }
}

/// The subject of `certificate` if it is neither an authority's nor signed by itself, which stands for its one holder.
fn no_authority(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let is_leaf = !certificate.is_ca() && certificate.subject() != certificate.issuer();
    is_leaf.then(|| certificate.subject().to_string())
}

/// The certificates in `text`.
fn parse(file: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let fault = |message: String| Fault::new(Side::Cert, "tls-no-certificate", message);
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(text)
        .take(ROOTS_MAX + 1)
        .collect::<Result<_, _>>()
        .map_err(|_| fault(format!("{} has a certificate that is cut off or damaged", file.display())))?;
    if certificates.len() > ROOTS_MAX {
        return Err(fault(format!("{} has more than {ROOTS_MAX} certificates", file.display())));
    }
    if certificates.is_empty() {
        let fault = fault(format!("{} has no certificate in it", file.display()));
        return Err(if contains(text, b"PRIVATE KEY-----") {
            fault.hint(
                "it holds a private key; the certificate of the authority is needed, which has no secrets",
            )
        } else if text.first() == Some(&0x30) {
            fault.hint("it looks like DER; convert it: openssl x509 -inform der -in FILE -out FILE.pem")
        } else {
            fault.hint("a PEM file is needed, with \"-----BEGIN CERTIFICATE-----\"")
        });
    }
    Ok(certificates)
}
