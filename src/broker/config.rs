//! `[brokers.NAME]`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::url::{BrokerText, BrokerUrl};
use crate::base::decode::{ConfigPath, Value};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::Origin;
use crate::keys;

const CHANNELS_MAX: u16 = 64;
/// Most messages under way at once.
pub(super) const PENDING_MAX: u32 = 65_536;
const CONNECT_TIMEOUT_MIN: Duration = Duration::from_millis(10);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(60);

keys! {
    /// A message broker that speaks AMQP 0-9-1, such as RabbitMQ.
    pub struct BrokerRaw {
        /// `amqp://USER:PASSWORD@HOST:PORT/VHOST`, `amqps://` with TLS; also { env = "NAME" }. The default virtual host is `/%2f`.
        url: required BrokerText,
        /// PEM file of the authorities that sign the certificate of an `amqps://` broker; absent = those of the system.
        ca: optional ConfigPath,
        /// Channels that calls share; each exchange that is published to has one of its own.
        channels: u16 = 4,
        /// Most messages under way: calls that wait for their answer, and what waits to be confirmed. Beyond: 503.
        max_pending: u32 = 4096,
        /// How long a connection may take to be made, TLS and login included.
        connect_timeout: Duration = Duration::from_secs(5),
    }
}

/// `[brokers.NAME]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerSettings {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is.
    pub url: BrokerUrl,
    /// The authorities of its certificate; `None` = those of the system.
    pub ca: Option<Vec<CertificateDer<'static>>>,
    /// Channels that calls share, at least 1.
    pub channels: u16,
    /// Most messages under way, at least 1.
    pub max_pending: u32,
    /// Longest time that connecting may take.
    pub connect_timeout: Duration,
}

impl BrokerSettings {
    /// Tells apart what is not shown: passwords, and what files contain.
    pub fn content(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.url.exposed().hash(&mut hasher);
        self.ca.iter().flatten().for_each(|certificate| certificate.as_ref().hash(&mut hasher));
        hasher.finish()
    }
}

impl BrokerRaw {
    /// The settings; reads the file of authorities. `path` is the configuration path of the table and `origin` its place:
    /// that of the URL would show the password.
    pub fn compile(
        &self,
        name: &str,
        path: &str,
        origin: &Origin,
        out: &mut Diagnostics,
    ) -> Option<BrokerSettings> {
        let url = BrokerUrl::parse(self.url.0.expose()).map_err(|why| {
            out.error("invalid-value", origin, format!("{path}.url"), format!("the URL of the broker {why}"))
                .hint("such as \"amqp://user:password@host:5672/%2f\"");
        });
        if *self.channels == 0 || *self.channels > CHANNELS_MAX {
            let message = format!("{} is not between 1 and {CHANNELS_MAX}", *self.channels);
            out.error("invalid-value", &self.channels.origin, format!("{path}.channels"), message);
        }
        if *self.max_pending == 0 || *self.max_pending > PENDING_MAX {
            let message = format!("{} is not between 1 and {PENDING_MAX}", *self.max_pending);
            out.error("invalid-value", &self.max_pending.origin, format!("{path}.max_pending"), message);
        }
        if !(CONNECT_TIMEOUT_MIN..=CONNECT_TIMEOUT_MAX).contains(&*self.connect_timeout) {
            let message =
                format!("{} is not between \"10ms\" and \"1m\"", self.connect_timeout.value.render());
            let place = format!("{path}.connect_timeout");
            out.error("invalid-value", &self.connect_timeout.origin, place, message);
        }
        let is_tls = url.as_ref().is_ok_and(BrokerUrl::is_tls);
        if let Some(ca) = self.ca.as_ref().filter(|_| url.is_ok() && !is_tls) {
            let message = "\"ca\" does nothing here: the connection has no TLS";
            out.error("unused-key", &ca.origin, format!("{path}.ca"), message)
                .hint("write amqps:// in `url` for a connection with TLS");
        }
        let ca = self.ca.as_ref().filter(|_| is_tls).and_then(|file| {
            let shown = file.value.0.display();
            let problem = match std::fs::read(&file.value.0) {
                Err(error) => ("unreadable-file", format!("cannot read {shown}: {error}")),
                Ok(pem) => match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
                    Ok(certificates) if !certificates.is_empty() => return Some(certificates),
                    _ => ("invalid-value", "there is no certificate in PEM in this file".to_owned()),
                },
            };
            out.error(problem.0, &file.origin, format!("{path}.ca"), problem.1);
            None
        });
        Some(BrokerSettings {
            name: name.into(),
            url: url.ok()?,
            ca,
            channels: *self.channels,
            max_pending: *self.max_pending,
            connect_timeout: *self.connect_timeout,
        })
    }
}
