//! What a route asks of a request before it is dispatched: one folder a policy.
//!
//! Policies are pure: they see facts and give a [`Verdict`]; who calls them answers, logs and counts.

pub mod auth;
pub mod body_limit;
pub mod ip;
pub mod networks;
pub mod transform;
pub mod trusted;

use std::net::IpAddr;

use crate::base::client_cert::ClientCert;
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use auth::Auth;
use body_limit::BodyLimit;
use ip::IpRules;

/// The policies of one route, in the order they run. The order is part of the security model: it is fixed, and each
/// field says why it stands where it does.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    /// First: costs two comparisons, and who may not come in learns nothing about what comes after.
    pub ip: Option<IpRules>,
    /// Before anything that is done for the one who asks: what a stranger may not use costs him nothing to try.
    pub auth: Option<Auth>,
    /// Last, right before the body is touched: what other policies refuse is told so, whatever it would have sent.
    pub body: Option<BodyLimit>,
}

/// What policies may know of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// The client, after trusted proxies.
    pub client: IpAddr,
    /// `Content-Length`, if the request has one.
    pub content_length: Option<u64>,
    /// The certificate that the client has proved to own.
    pub certificate: Option<&'a ClientCert>,
}

/// What a policy decides.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// On to the next.
    Pass,
    /// Answered here; nothing after it runs.
    Refuse(Problem),
}

impl Verdict {
    /// Refuses for `reason`, with nothing to add.
    pub fn refuse(reason: Reason) -> Self {
        Self::Refuse(Problem::new(reason))
    }

    /// Why it refuses; `None` if it passes.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Pass => None,
            Self::Refuse(problem) => Some(problem.reason),
        }
    }
}

/// By reason: whether a request passes, and if not why.
impl PartialEq for Verdict {
    fn eq(&self, other: &Self) -> bool {
        self.reason() == other.reason()
    }
}

impl Chain {
    /// Asks one policy after the other; the first refusal is the answer.
    pub fn check(&self, facts: &RequestFacts<'_>) -> Verdict {
        // Every field by name: a new policy does not compile until it has its place here.
        let Self { ip, auth, body } = self;
        if let Some(ip) = ip
            && let refusal @ Verdict::Refuse(_) = ip.check(facts.client)
        {
            return refusal;
        }
        if let Some(auth) = auth
            && let refusal @ Verdict::Refuse(_) = auth.check(facts.certificate)
        {
            return refusal;
        }
        body.map_or(Verdict::Pass, |body| body.check(facts.content_length))
    }

    /// The keys of the policies that this route has, in the order they run: for `explain`.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let Self { ip, auth, body } = self;
        let names = [
            ip.is_some().then_some("ip"),
            auth.is_some().then_some("auth"),
            body.is_some().then_some("body_bytes"),
        ];
        names.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use networks::Networks;

    fn facts(client: &str, content_length: Option<u64>) -> RequestFacts<'static> {
        RequestFacts { client: client.parse().unwrap(), content_length, certificate: None }
    }

    #[test]
    fn a_route_without_policies_passes_everything() {
        assert_eq!(Chain::default().check(&facts("192.0.2.1", Some(u64::MAX))), Verdict::Pass);
        assert_eq!(Chain::default().names().count(), 0);
    }

    /// Whoever may not come in must not learn how much they could have sent.
    #[test]
    fn addresses_are_judged_before_bodies() {
        let deny = Networks::new(["192.0.2.0/24".parse().unwrap()]);
        let chain = Chain { ip: Some(IpRules::new(None, deny)), auth: None, body: Some(BodyLimit::new(10)) };
        let judge = |client, length| chain.check(&facts(client, length)).reason();
        assert_eq!(judge("192.0.2.1", Some(11)), Some(Reason::IpDenied));
        assert_eq!(judge("198.51.100.1", Some(11)), Some(Reason::BodyTooLarge));
        assert_eq!(judge("198.51.100.1", Some(10)), None);
        assert_eq!(judge("198.51.100.1", None), None);
        assert_eq!(chain.names().collect::<Vec<_>>(), ["ip", "body_bytes"]);
    }

    /// An address that may not come in is not told that a certificate would help; a stranger not how much he may send.
    #[test]
    fn addresses_before_certificates_before_bodies() {
        let deny = Networks::new(["192.0.2.0/24".parse().unwrap()]);
        let auth = Some(Auth::with_certificate());
        let chain = Chain { ip: Some(IpRules::new(None, deny)), auth, body: Some(BodyLimit::new(10)) };
        let judge = |client, length| chain.check(&facts(client, length)).reason();
        assert_eq!(judge("192.0.2.1", Some(11)), Some(Reason::IpDenied));
        assert_eq!(judge("198.51.100.1", Some(11)), Some(Reason::CertificateRequired));
        assert_eq!(chain.names().collect::<Vec<_>>(), ["ip", "auth", "body_bytes"]);
    }
}
