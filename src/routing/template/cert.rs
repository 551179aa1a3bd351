//! What templates may say of a client's certificate.

use std::borrow::Cow;

use crate::base::client_cert::ClientCert;

/// A field of `client.cert`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::routing) enum CertField {
    Subject,
    Issuer,
    Serial,
    Fingerprint,
    Uri,
    Dns,
    Email,
    NotAfter,
}

impl CertField {
    /// Their names, in the order declared.
    pub(in crate::routing) const NAMES: [&str; 8] =
        ["subject", "issuer", "serial", "fingerprint", "uri", "dns", "email", "not_after"];

    const ALL: [Self; 8] = [
        Self::Subject,
        Self::Issuer,
        Self::Serial,
        Self::Fingerprint,
        Self::Uri,
        Self::Dns,
        Self::Email,
        Self::NotAfter,
    ];

    /// The field called `name`.
    pub(in crate::routing) fn named(name: &str) -> Option<Self> {
        let mut fields = Self::ALL.into_iter().zip(Self::NAMES);
        fields.find(|(_, known)| *known == name).map(|(field, _)| field)
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES.get(self as usize).copied().unwrap_or_default()
    }

    /// Its value; `None` where the certificate has none.
    pub(in crate::routing) fn of(self, cert: &ClientCert) -> Option<Cow<'_, str>> {
        match self {
            Self::Subject => Some((*cert.subject).into()),
            Self::Issuer => Some((*cert.issuer).into()),
            Self::Serial => Some((*cert.serial).into()),
            Self::Fingerprint => Some((*cert.sha256).into()),
            Self::Uri => cert.uri.as_deref().map(Cow::from),
            Self::Dns => cert.dns.as_deref().map(Cow::from),
            Self::Email => cert.email.as_deref().map(Cow::from),
            Self::NotAfter => {
                jiff::Timestamp::from_second(cert.not_after).ok().map(|at| at.to_string().into())
            }
        }
    }
}
