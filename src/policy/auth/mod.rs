//! `[routes.auth]`: who may use a route, and how that is proved.

mod config;

pub use config::AuthRaw;

use super::Verdict;
use crate::base::client_cert::ClientCert;
use crate::base::reason::Reason;

/// Which proofs a route accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth {
    /// A verified client certificate is one.
    certificate: bool,
    /// Who has nothing to show passes, too.
    anonymous: bool,
}

impl Auth {
    /// Wants a certificate of everybody.
    pub fn with_certificate() -> Self {
        Self { certificate: true, anonymous: false }
    }

    /// Judges a request on a connection whose client has proved to own `certificate`. One that does not verify never
    /// gets this far: the listener refuses it.
    pub fn check(&self, certificate: Option<&ClientCert>) -> Verdict {
        if self.anonymous || self.certificate && certificate.is_some() {
            Verdict::Pass
        } else {
            Verdict::refuse(Reason::CertificateRequired)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::decode::decode_str;
    use crate::base::diagnostic::Diagnostics;
    use crate::keys;

    keys! {
        /// A route.
        struct RouteRaw {
            /// Its auth.
            auth: optional AuthRaw,
        }
    }

    fn compile(text: &str) -> (Option<Auth>, Diagnostics) {
        let (raw, mut out) = decode_str::<RouteRaw>(text);
        let auth = raw.and_then(|raw| raw.auth).and_then(|auth| auth.compile("routes[0].auth", &mut out));
        (auth, out)
    }

    fn certificate() -> ClientCert {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        ClientCert::read(made.der()).unwrap()
    }

    #[test]
    fn a_certificate_opens_what_asks_for_one() {
        let certificate = certificate();
        let judge = |text: &str| {
            let (auth, out) = compile(text);
            assert!(out.is_empty(), "{out:?}");
            let judge = |shown| auth.map_or(Verdict::Pass, |auth| auth.check(shown)).reason();
            (judge(Some(&certificate)), judge(None))
        };
        let refused = Some(Reason::CertificateRequired);
        assert_eq!(judge("auth = { with = ['mtls'] }"), (None, refused));
        assert_eq!(judge("auth = { with = ['mtls', 'none'] }"), (None, None));
        assert_eq!(judge("auth = { with = ['none'] }"), (None, None));
        assert_eq!(judge("auth = 'none'"), (None, None));
        assert_eq!(judge(""), (None, None));
    }

    #[test]
    fn what_says_nothing_is_an_error() {
        for text in [
            "auth = {}",
            "auth = false",
            "auth = 'mtls'",
            "auth = { with = [] }",
            "auth = { with = 'mtls' }",
            "auth = { with = ['none', 'mtls'] }",
            "auth = { with = ['mtls', 'mtls'] }",
            "auth = { with = ['tls'] }",
            "auth = { with = ['jwt:a'] }",
            "auth = { with = ['api_key'] }",
            "auth = { with = ['mtls'], extra = 1 }",
        ] {
            assert!(compile(text).1.has_errors(), "{text}");
        }
    }
}
