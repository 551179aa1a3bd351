//! `[[listeners.certificates]]` and `[listeners.client_auth]`: from files to what a TLS listener answers with and asks
//! for, every mistake a diagnostic.
//!
//! ```text
//! pairs of files ─► pair (read, parsed, checked against each other) ─► resolver (by the name a client asks for) ─┐
//! authorities ────► client_auth (whose certificates clients may show) ───────────────────────────────────────────┼─► config
//! the process ────► sessions (keys that outlive configurations) ─────────────────────────────────────────────────┘
//! ```

mod client_auth;
mod pair;
mod resolver;
mod sessions;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use ::aws_lc_rs::digest::{Context, SHA256};
use http::HeaderValue;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection};

pub use self::client_auth::PolicyId;
pub use self::sessions::Sessions;
use super::process::{CertificateFiles, ListenerSettings};
use crate::base::client_cert::ClientCert;
use crate::base::diagnostic::{Diagnostic, Diagnostics};
use client_auth::ClientAuth;
pub(super) use pair::RELATIVE_HINT;
use pair::{Fault, Loaded, Side};
use resolver::Resolver;
use sessions::Resumption;

/// TLS of one listener.
#[derive(Debug)]
pub struct ListenerTls {
    /// What handshakes run on.
    pub config: Arc<ServerConfig>,
    /// `Strict-Transport-Security` for every answer of the listener.
    pub hsts: Option<HeaderValue>,
    names: Arc<Resolver>,
    client_auth: Option<ClientAuth>,
    content: [u8; 32],
    /// Held so that the next configuration finds it. None where clients are asked for certificates.
    _resumption: Option<Arc<Resumption>>,
}

impl ListenerTls {
    /// Tells apart who is let in by which certificates; `None` where clients are not asked for any.
    pub fn client_policy(&self) -> Option<PolicyId> {
        self.client_auth.as_ref().map(|client_auth| client_auth.id)
    }

    /// Differs where certificates or the authorities of clients differ, whatever their files are called.
    pub fn content(&self) -> [u8; 32] {
        self.content
    }

    /// Whether the hosts `one` and `other` (lower case; `None`: a client that sends no name) have the same certificates
    /// here, so that a connection made for one may serve the other.
    pub fn shares_certificate(&self, one: Option<&str>, other: Option<&str>) -> bool {
        self.names.is_same(one, other)
    }

    /// The certificate that the client of `connection`, whose handshake on [`Self::config`] is done, has proved to own.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn client_cert(
        &self,
        connection: &ServerConnection,
    ) -> Result<Option<Arc<ClientCert>>, rustls::Error> {
        let shown = self.client_auth.as_ref().and_then(|_| connection.peer_certificates()?.first());
        let Some(leaf) = shown else { return Ok(None) };
        let unreadable = || rustls::Error::General("the client's certificate cannot be read".to_owned());
        ClientCert::read(leaf).map(Arc::new).map(Some).ok_or_else(unreadable)
    }
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

/// Loads what `listener` needs for TLS: itself, and the certificates in use, the default first.
///
/// `path` is the listener's configuration path, `now` the wall clock. Reads files and nothing else; the crypto provider
/// is named explicitly and never the process's default. TLS 1.2 and 1.3; ALPN offers `h2` if the listener speaks it;
/// sessions resume by tickets under keys from `sessions`, so that a ticket is worth nothing at a listener with other
/// certificates. Where clients are asked for certificates nothing is resumed: the library would take a session back
/// without a look at the certificate it was made with, or at the one that the client has by now.
///
/// `None` if the listener has no certificates or anything is unusable; then `out` says why.
pub fn compile(
    listener: &ListenerSettings,
    path: &str,
    sessions: &Sessions,
    now: SystemTime,
    out: &mut Diagnostics,
) -> Option<(ListenerTls, Vec<CertificateFacts>)> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut resolver = Resolver::default();
    let mut facts = Vec::new();
    let mut policy = Context::new(&SHA256);
    for files in &listener.certificates {
        let mut report = Report { files, path, out };
        match pair::load(&files.cert, &files.key, &provider) {
            Err(faults) => faults.iter().for_each(|fault| report.fault(fault)),
            Ok(loaded) => {
                report.check(&loaded, now, facts.is_empty());
                for certificate in &loaded.key.cert {
                    policy.update(&certificate.len().to_be_bytes());
                    policy.update(certificate);
                }
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
    let client_auth = match &listener.client_auth {
        None => None,
        Some(wanted) => match ClientAuth::load(&wanted.ca, wanted.required, &provider) {
            Ok(client_auth) => {
                if let Some(subject) = &client_auth.no_authority {
                    let message = format!(
                        "\"{subject}\" in {} is not the certificate of an authority",
                        wanted.ca.display()
                    );
                    let path = format!("{path}.client_auth.ca");
                    out.warning("tls-not-an-authority", &wanted.ca.origin, path, message).hint(
                        "nothing is signed by it: the certificate of who signs clients' ones is needed",
                    );
                }
                Some(client_auth)
            }
            Err(fault) => {
                let path = format!("{path}.client_auth.ca");
                let problem = out.error(fault.code, &wanted.ca.origin, path, fault.message);
                fault.hint.map(|hint| problem.hint(hint));
                return None;
            }
        },
    };
    if facts.is_empty() || facts.len() < listener.certificates.len() {
        return None;
    }
    if let Some(client_auth) = &client_auth {
        policy.update(&client_auth.id);
    }
    let mut key = [0; 32];
    key.iter_mut().zip(policy.finish().as_ref()).for_each(|(to, from)| *to = *from);
    let resumption = match client_auth {
        Some(_) => Ok(None),
        None => sessions.of(&listener.name, key).map(Some),
    };
    let built = resumption.and_then(|resumption| {
        let names = Arc::new(resolver);
        let config = server_config(
            provider,
            names.clone(),
            client_auth.as_ref(),
            resumption.as_deref(),
            listener.http2,
        )?;
        let (config, hsts) = (Arc::new(config), listener.hsts.clone());
        Ok(ListenerTls { config, hsts, names, client_auth, content: key, _resumption: resumption })
    });
    match built {
        Ok(tls) => Some((tls, facts)),
        Err(error) => {
            out.error("tls-unavailable", &listener.origin, path, format!("TLS cannot be set up: {error}"));
            None
        }
    }
}

fn server_config(
    provider: Arc<CryptoProvider>,
    names: Arc<Resolver>,
    client_auth: Option<&ClientAuth>,
    resumption: Option<&Resumption>,
    http2: bool,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12])?;
    let builder = match client_auth {
        Some(client_auth) => builder.with_client_cert_verifier(client_auth.verifier.clone()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(names);
    match resumption {
        Some(resumption) => {
            config.ticketer = resumption.ticketer.clone();
            config.session_storage = resumption.cache.clone();
        }
        None => {
            // By default there is no ticketer.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
    }
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
