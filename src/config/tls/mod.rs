//! `[[listeners.certificates]]`: from files to what a TLS listener answers with, every mistake a diagnostic.
//!
//! ```text
//! raw (two paths) ─► pattern (one `*` = many pairs) ─► pair (files ─► checked certificate and key) ─► resolver (by SNI)
//! ```

mod pair;
mod pattern;
mod resolver;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::{TLS12, TLS13};

use crate::base::decode::ConfigPath;
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::At;
use crate::keys;
use pair::{Fault, Loaded, Side};
use resolver::Resolver;

keys! {
    /// A certificate with its key. Chosen by the names in the certificate; the first of a listener is the default.
    pub struct CertificateRaw {
        /// PEM file: the server's own certificate first, then intermediates. One `*` in the file name stands for many files.
        cert: required ConfigPath,
        /// PEM file with the private key (PKCS#8, PKCS#1 or SEC1). A `*` takes what it took in `cert`.
        key: required ConfigPath,
    }
}

/// TLS of one listener.
#[derive(Debug, Clone)]
pub struct ListenerTls {
    /// What handshakes run on.
    pub config: Arc<ServerConfig>,
    /// The certificates in use, the default first.
    pub certificates: Vec<CertificateFacts>,
}

/// What is known of a certificate, for metrics and the start-up report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its file.
    pub file: PathBuf,
    /// The host names it is chosen for, lower-case, wildcards as `*.example.com`.
    pub names: Vec<String>,
    /// When it expires, in seconds since the Unix epoch.
    pub not_after: i64,
}

/// Loads the certificates of one listener.
///
/// `path` is the listener's configuration path, `now` the wall clock. Reads files and nothing else; the crypto provider
/// is named explicitly and never the process's default. TLS 1.2 and 1.3; ALPN offers `h2` if `http2`; sessions resume by
/// tickets under keys of this value alone, so that a ticket is worth nothing at a listener with other rules.
///
/// `None` if there are no certificates or any of them is unusable; then `out` says why.
pub fn compile(
    certificates: &[At<CertificateRaw>],
    http2: bool,
    path: &str,
    now: SystemTime,
    out: &mut Diagnostics,
) -> Option<ListenerTls> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut resolver = Resolver::default();
    let mut facts = Vec::new();
    let mut complete = true;
    for (index, raw) in certificates.iter().enumerate() {
        let mut entry =
            Entry { raw, path: format!("{path}.certificates[{index}]"), provider: &provider, now, out };
        match entry.load() {
            None => complete = false,
            Some(pairs) => {
                for loaded in pairs {
                    entry.check(&loaded, facts.is_empty());
                    if let Some(other) = resolver.add(&loaded.names, loaded.key) {
                        entry.shadowed(&loaded.file, &other);
                    }
                    facts.push(CertificateFacts {
                        file: loaded.file,
                        names: loaded.names,
                        not_after: loaded.not_after,
                    });
                }
            }
        }
    }
    if !complete || facts.is_empty() {
        return None;
    }
    match server_config(provider, resolver, http2) {
        Ok(config) => Some(ListenerTls { config: Arc::new(config), certificates: facts }),
        Err(error) => {
            let origin = certificates.first().map(|raw| raw.origin.clone()).unwrap_or_default();
            out.error("tls-unavailable", &origin, path, format!("TLS cannot be set up: {error}"));
            None
        }
    }
}

fn server_config(
    provider: Arc<CryptoProvider>,
    resolver: Resolver,
    http2: bool,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    if http2 {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(config)
}

/// One element of the list while it is being loaded.
struct Entry<'a> {
    raw: &'a CertificateRaw,
    path: String,
    provider: &'a CryptoProvider,
    now: SystemTime,
    out: &'a mut Diagnostics,
}

impl Entry<'_> {
    /// All pairs it stands for; `None`, reported, if any of them is unusable.
    fn load(&mut self) -> Option<Vec<Loaded>> {
        let expanded = match pattern::expand(&self.raw.cert, &self.raw.key) {
            Ok(expanded) => expanded,
            Err(fault) => {
                self.report(&fault);
                return None;
            }
        };
        for alone in &expanded.without_key {
            let message = format!("{} is left out: it has no key file", alone.display());
            self.out.warning("tls-no-key", &self.raw.key.origin, format!("{}.key", self.path), message);
        }
        let mut loaded = Vec::with_capacity(expanded.pairs.len());
        let mut complete = true;
        for (cert, key) in expanded.pairs {
            match pair::load(&cert, &key, self.provider) {
                Ok(pair) => loaded.push(pair),
                Err(faults) => {
                    complete = false;
                    faults.iter().for_each(|fault| self.report(fault));
                }
            }
        }
        complete.then_some(loaded)
    }

    fn report(&mut self, fault: &Fault) {
        let (origin, key) = match fault.side {
            Side::Cert => (&self.raw.cert.origin, "cert"),
            Side::Key => (&self.raw.key.origin, "key"),
        };
        let problem =
            self.out.error(fault.code, origin, format!("{}.{key}", self.path), fault.message.as_str());
        if let Some(hint) = &fault.hint {
            problem.hint(hint.as_str());
        }
    }

    /// Warns of what works, but will not satisfy clients.
    fn check(&mut self, loaded: &Loaded, is_default: bool) {
        let now = self.now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let file = loaded.file.display();
        if now > loaded.not_after {
            let message = format!("the certificate in {file} expired on {}", date(loaded.not_after));
            self.warn("tls-expired", message).hint("clients refuse it: put a renewed one in its place");
        } else if now < loaded.not_before {
            let message =
                format!("the certificate in {file} is not valid before {}", date(loaded.not_before));
            self.warn("tls-not-yet-valid", message).hint("clients refuse it until then; is the clock right?");
        }
        // One for addresses alone is right as the default: clients send no name with an address.
        if loaded.names.is_empty() && !(is_default && loaded.has_addresses) {
            let message = format!("the certificate in {file} names no host");
            let hint = if is_default {
                "clients will not accept it for any name; make one with a subject alternative name"
            } else {
                "only the first certificate is used without a name; make one with a subject alternative name"
            };
            self.warn("tls-no-names", message).hint(hint);
        }
    }

    fn shadowed(&mut self, file: &Path, name: &str) {
        let message =
            format!("\"{name}\" of {} is already in an earlier certificate of the same kind", file.display());
        self.warn("tls-duplicate-name", message).hint("the earlier one is used");
    }

    fn warn(&mut self, code: &'static str, message: String) -> &mut crate::base::diagnostic::Diagnostic {
        self.out.warning(code, &self.raw.cert.origin, format!("{}.cert", self.path), message)
    }
}

/// The day of `seconds` since the epoch, in UTC.
fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "a day beyond all calendars".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests;
