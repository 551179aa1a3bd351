//! `[routes.auth]`: who may use a route, and how that is proved.
//!
//! ```text
//! credentials: what is shown ─► identify: whose it is ─► requirements: whether that is enough
//!      two of a kind: 400            bad: 401                       403
//! ```
//!
//! The first kind of `with` that is **present** decides. A bad one is refused: the next kind is never tried, or a token
//! that was revoked could be followed by an anonymous request.

mod challenge;
mod config;
pub mod credentials;
mod requirements;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;

pub use config::{AuthRaw, AuthTable, Known};
pub use credentials::Places;
pub use requirements::Requirements;

use self::credentials::Found;
use crate::base::client_cert::ClientCert;
use crate::base::clock::Moment;
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::identity::consumer::Consumer;
use crate::identity::consumers::CERTIFICATES;
use crate::identity::directory::Directory;
use crate::identity::jwks::KeyWait;
use crate::identity::principal::{Principal, Proof};
use crate::identity::provider::{Providers, Verified};
use crate::identity::token::{Refusal, Token};
use crate::routing::expression::{Expression, Failed};

/// Which proofs a route accepts, and what they have to amount to.
#[derive(Debug, Clone)]
pub struct Auth {
    /// In the order of `with`; every kind once.
    kinds: Box<[Kind]>,
    /// Those whose tokens are taken.
    providers: Providers,
    directory: Arc<Directory>,
    places: Arc<Places>,
    requirements: Requirements,
}

/// A kind of proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A token of one of the providers.
    Jwt,
    /// An API key.
    ApiKey,
    /// A client certificate.
    Mtls,
    /// None at all.
    None,
}

impl Kind {
    /// As metrics call it.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::ApiKey => "api_key",
            Self::Mtls => "mtls",
            Self::None => "none",
        }
    }
}

/// What a request shows.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Its headers, as the client sent them.
    pub headers: &'a HeaderMap,
    /// Its query.
    pub query: Option<&'a str>,
    /// The certificate that the client has proved to own. One that does not verify never gets this far: the listener
    /// refuses it.
    pub certificate: Option<&'a Arc<ClientCert>>,
    /// When.
    pub at: Moment,
    /// Keys were waited for: it is not done again.
    pub has_waited: bool,
}

/// Who shows it.
#[derive(Debug)]
pub enum Identified {
    /// This one.
    Known(Principal),
    /// Nobody, and that will do.
    Nobody,
    /// The key of its token may be on its way: wait, then ask again.
    Wait(KeyWait),
    /// What it shows proves nothing.
    Refused(Box<Denied>),
}

/// A request that is refused for who it is from, or is not.
#[derive(Debug, Clone)]
pub struct Denied {
    /// The answer.
    pub problem: Problem,
    /// What was shown: `none`, `jwt`, `api_key` or `mtls`.
    pub scheme: &'static str,
    /// The whole reason, for the log and `explain` alone.
    pub detail: String,
}

impl Auth {
    /// Wants a certificate of everybody.
    #[cfg(test)]
    pub(crate) fn with_certificate() -> Self {
        Self {
            kinds: [Kind::Mtls].into(),
            providers: Providers::default(),
            directory: Arc::default(),
            places: Arc::default(),
            requirements: Requirements::default(),
        }
    }

    /// Who shows `shown`. A token that was seen before costs a lookup; nothing waits.
    pub fn identify(&self, shown: &Shown<'_>) -> Identified {
        // Both are in the same header: read once, and never if neither is asked for.
        let authorization = match credentials::authorization(shown.headers) {
            Ok(found) => found,
            Err(_) if !self.takes(Kind::Jwt) && !self.takes(Kind::ApiKey) => None,
            Err(credentials::Ambiguous) => {
                let kind = if self.takes(Kind::Jwt) { Kind::Jwt } else { Kind::ApiKey };
                return self.refuse(
                    kind,
                    Refusal::new(Reason::CredentialsAmbiguous, "several Authorization headers"),
                );
            }
        };
        for kind in &self.kinds {
            let judged = match kind {
                Kind::Jwt => match self.places.token(authorization, shown.headers) {
                    Found::Nothing => continue,
                    Found::Several(where_) => Err(ambiguous(where_)),
                    Found::One(compact) => match self.verify(&compact, shown) {
                        Ok(Ok(principal)) => Ok(principal),
                        Ok(Err(wait)) => return Identified::Wait(wait),
                        Err(refusal) => Err(refusal),
                    },
                },
                Kind::ApiKey => match self.places.key(authorization, shown.headers, shown.query) {
                    Found::Nothing => continue,
                    Found::Several(where_) => Err(ambiguous(where_)),
                    Found::One(key) => self.key(&key, shown),
                },
                Kind::Mtls => match shown.certificate {
                    None => continue,
                    Some(certificate) => Ok(self.certificate(certificate)),
                },
                Kind::None => return Identified::Nobody,
            };
            return match judged {
                Ok(principal) => Identified::Known(principal),
                Err(refusal) => self.refuse(*kind, refusal),
            };
        }
        let mut denied = self.nothing_shown();
        if let Some(authorization) = authorization {
            denied.detail.push_str(&format!("; Authorization {authorization}"));
        }
        Identified::Refused(Box::new(denied))
    }

    /// Whether that is enough. `when` says whether an expression holds for the request and who it is from; it is asked
    /// last.
    pub fn authorize(
        &self,
        principal: Option<&Principal>,
        when: impl FnOnce(&Expression) -> Result<bool, Failed>,
    ) -> Result<(), Box<Denied>> {
        let Err((reason, detail)) = self.requirements.check(principal, when) else { return Ok(()) };
        let Some(principal) = principal.filter(|_| reason != Reason::CredentialsRequired) else {
            return Err(Box::new(Denied { detail, ..self.nothing_shown_for(reason) }));
        };
        let scheme = principal.proof.scheme();
        let mut problem = Problem::new(reason);
        if scheme == Kind::Jwt.scheme() {
            problem.challenges = vec![challenge::insufficient(&self.places.realm, &self.requirements.scopes)];
        }
        Err(Box::new(Denied { problem, scheme, detail }))
    }

    /// Whether `kind` is one of those it takes.
    pub fn takes(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// The providers whose tokens it takes.
    pub fn providers(&self) -> &Providers {
        &self.providers
    }

    /// What proofs have to amount to.
    pub fn requirements(&self) -> &Requirements {
        &self.requirements
    }

    fn verify(&self, compact: &str, shown: &Shown<'_>) -> Result<Result<Principal, KeyWait>, Refusal> {
        let token = match self.providers.verify(compact, &shown.at) {
            Verified::Ok(token) => token,
            Verified::Refused(refusal) => return Err(refusal),
            Verified::Wait(wait) if shown.has_waited => return Err(wait.refusal()),
            Verified::Wait(wait) => return Ok(Err(wait)),
        };
        // Each time: it may have been good a moment ago.
        if let Some(by) = self.directory.revocation_of(&token) {
            let detail = format!("provider {}: the token was revoked {by}", token.provider);
            return Err(Refusal::new(Reason::TokenRevoked, detail));
        }
        let (consumer, leeway) = self.owner(&token)?;
        let until = token.expires_at.map(|end| end.saturating_add(leeway));
        Ok(Ok(Principal { proof: Proof::Token(token), consumer, until }))
    }

    /// Whose token it is: that subject's consumer, else that of all of the provider's. And for how long it is taken after
    /// its end.
    ///
    /// # Errors
    /// All of the provider's are one consumer's, which is not there (any more): without its groups and its plan they
    /// would be bounded by nothing.
    fn owner(&self, token: &Token) -> Result<(Option<Arc<Consumer>>, i64), Refusal> {
        let provider = self.providers.all().iter().find(|provider| *provider.name() == token.provider);
        let of_subject =
            token.subject.as_ref().and_then(|subject| self.directory.consumer_of(&token.provider, subject));
        let leeway = provider.map_or(0, |provider| provider.leeway());
        let name = provider.and_then(|provider| provider.consumer());
        let (None, Some(name)) = (&of_subject, name) else { return Ok((of_subject, leeway)) };
        // Asked first: the store may be read in between.
        let awaits_store = self.directory.awaits_store();
        match self.directory.consumer(name) {
            Some(consumer) => Ok((Some(consumer), leeway)),
            None if awaits_store => {
                let detail = format!("the store was not read yet, and the consumer {name} is not configured");
                Err(Refusal::new(Reason::StoreUnavailable, detail))
            }
            None => {
                let detail =
                    format!("provider {}: the consumer of its tokens, {name}, is not there", token.provider);
                Err(Refusal::new(Reason::TokenRevoked, detail))
            }
        }
    }

    fn key(&self, key: &str, shown: &Shown<'_>) -> Result<Principal, Refusal> {
        let key = self.directory.key(key, unix_seconds(&shown.at))?;
        let (consumer, until) = (Some(key.consumer.clone()), key.expires_at);
        Ok(Principal { proof: Proof::ApiKey(key), consumer, until })
    }

    fn certificate(&self, certificate: &Arc<ClientCert>) -> Principal {
        let name = certificate.principal().and_then(|name| name.to_str().ok());
        let consumer = name.and_then(|name| self.directory.consumer_of(CERTIFICATES, name));
        let until = Some(certificate.not_after);
        Principal { proof: Proof::Certificate(certificate.clone()), consumer, until }
    }

    fn refuse(&self, kind: Kind, refusal: Refusal) -> Identified {
        let Refusal { reason, detail, retry_after } = refusal;
        let mut problem = Problem::new(reason);
        if reason.status() == 503 {
            // What is missing is fetched all the while.
            problem.retry_after = Some(retry_after.unwrap_or(RETRY_AFTER));
        } else {
            problem.challenges.extend(challenge::refused(kind, &self.places.realm, reason));
        }
        Identified::Refused(Box::new(Denied { problem, scheme: kind.scheme(), detail }))
    }

    /// Nothing of what it takes was shown.
    fn nothing_shown(&self) -> Denied {
        let only_certificates = self.kinds.iter().all(|kind| matches!(kind, Kind::Mtls | Kind::None));
        let reason =
            if only_certificates { Reason::CertificateRequired } else { Reason::CredentialsRequired };
        self.nothing_shown_for(reason)
    }

    fn nothing_shown_for(&self, reason: Reason) -> Denied {
        let mut problem = Problem::new(reason);
        if reason.status() == 401 {
            let kinds = self.kinds.iter().filter_map(|kind| challenge::wanted(*kind, &self.places.realm));
            problem.challenges = kinds.collect();
        }
        let kinds: Vec<_> = self.kinds.iter().map(|kind| kind.scheme()).collect();
        let detail = format!("nothing was shown of {}", kinds.join(", "));
        Denied { problem, scheme: Kind::None.scheme(), detail }
    }
}

/// When to ask again where nobody says when.
const RETRY_AFTER: Duration = Duration::from_secs(5);

fn ambiguous(where_: &str) -> Refusal {
    Refusal::new(Reason::CredentialsAmbiguous, format!("several at once: {where_}"))
}

fn unix_seconds(at: &Moment) -> i64 {
    let since = at.wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}
