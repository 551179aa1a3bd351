//! `[[listeners.certificates]]`: from files to what a TLS listener answers with, every mistake a diagnostic.
//!
//! ```text
//! pairs of files ─► pair (read, parsed, checked against each other) ─► resolver (by the name a client asks for)
//! ```

mod pair;
mod resolver;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::{TLS12, TLS13};

use super::process::{CertificateFiles, ListenerSettings};
use crate::base::diagnostic::{Diagnostic, Diagnostics};
use pair::{Fault, Loaded, Side};
use resolver::Resolver;

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

/// Loads the certificates of `listener`.
///
/// `path` is the listener's configuration path, `now` the wall clock. Reads files and nothing else; the crypto provider
/// is named explicitly and never the process's default. TLS 1.2 and 1.3; ALPN offers `h2` if the listener speaks it;
/// sessions resume by tickets under keys of this value alone, so that a ticket is worth nothing at a listener with other
/// rules.
///
/// `None` if the listener has no certificates or any of them is unusable; then `out` says why.
pub fn compile(
    listener: &ListenerSettings,
    path: &str,
    now: SystemTime,
    out: &mut Diagnostics,
) -> Option<ListenerTls> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut resolver = Resolver::default();
    let mut facts = Vec::new();
    for files in &listener.certificates {
        let mut report = Report { files, path, out };
        match pair::load(&files.cert, &files.key, &provider) {
            Err(faults) => faults.iter().for_each(|fault| report.fault(fault)),
            Ok(loaded) => {
                report.check(&loaded, now, facts.is_empty());
                if let Some(name) = resolver.add(&loaded.names, loaded.key) {
                    report.shadowed(&name);
                }
                facts.push(CertificateFacts {
                    file: files.cert.value.clone(),
                    names: loaded.names,
                    not_after: loaded.not_after,
                });
            }
        }
    }
    if facts.is_empty() || facts.len() < listener.certificates.len() {
        return None;
    }
    match server_config(provider, resolver, listener.http2) {
        Ok(config) => Some(ListenerTls { config: Arc::new(config), certificates: facts }),
        Err(error) => {
            out.error("tls-unavailable", &listener.origin, path, format!("TLS cannot be set up: {error}"));
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

/// Reports about one pair of files.
struct Report<'a> {
    files: &'a CertificateFiles,
    /// Of the listener.
    path: &'a str,
    out: &'a mut Diagnostics,
}

impl Report<'_> {
    fn fault(&mut self, fault: &Fault) {
        let origin = match fault.side {
            Side::Cert => &self.files.cert.origin,
            Side::Key => &self.files.key.origin,
        };
        let path = format!("{}.certificates", self.path);
        let problem = self.out.error(fault.code, origin, path, fault.message.as_str());
        if let Some(hint) = fault.hint {
            problem.hint(hint);
        }
    }

    /// Warns of what works, but will not satisfy clients.
    fn check(&mut self, loaded: &Loaded, now: SystemTime, is_default: bool) {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let file = self.files.cert.display();
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

    fn shadowed(&mut self, name: &str) {
        let file = self.files.cert.display();
        let message = format!("\"{name}\" of {file} is already in an earlier certificate of the same kind");
        self.warn("tls-duplicate-name", message).hint("the earlier one is used");
    }

    fn warn(&mut self, code: &'static str, message: String) -> &mut Diagnostic {
        self.out.warning(code, &self.files.cert.origin, format!("{}.certificates", self.path), message)
    }
}

/// The day of `seconds` since the epoch, in UTC.
fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "a day beyond all calendars".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests;
