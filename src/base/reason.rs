//! Why a request ended without an upstream's answer: one closed list that feeds the problem code, the status, the
//! log, the metrics, the gRPC status and `explain`.

/// Why a request ended without an upstream's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The head is not HTTP, or its framing is ambiguous.
    RequestMalformed,
    /// `Host` missing, repeated, malformed, or other than the authority of the target.
    BadHost,
    /// The path cannot be normalised: bad percent-encoding, NUL, or `..` above the root.
    BadPath,
    /// The head did not arrive within `limits.header_timeout`.
    HeaderTimeout,
    /// The client fell silent in the body for longer than `limits.body_timeout`.
    BodyTimeout,
    /// The client sent its body more slowly than `limits.min_body_rate`.
    BodyTooSlow,
    /// The request target is longer than the head may be.
    UriTooLong,
    /// The head is larger than `limits.header_bytes`.
    HeaderTooLarge,
    /// The body is larger than `body_bytes`.
    BodyTooLarge,
    /// `Expect` asks for something other than `100-continue`.
    ExpectationFailed,
    /// CONNECT, or an upgrade other than to WebSocket.
    MethodUnsupported,
    /// The connection's TLS does not belong to the requested host.
    Misdirected,
    /// No route matches.
    RouteNotFound,
    /// A route matches, but not for this method.
    MethodNotAllowed,
    /// The path names no file of the route's `files`.
    FileNotFound,
    /// What is there is not sent: no permission, a link out of the root, a directory without index.
    FileForbidden,
    /// The file could not be read.
    FileFailed,
    /// `If-Match` or `If-Unmodified-Since` does not hold.
    PreconditionFailed,
    /// The file has none of the bytes that `Range` asks for.
    RangeNotSatisfiable,
    /// The route's `ip` rules refuse the client's address.
    IpDenied,
    /// The route wants a client certificate, and the connection has none.
    CertificateRequired,
    /// The route wants to know who asks, and the request has no credentials.
    CredentialsRequired,
    /// Credentials of one kind stand in several places (RFC 6750 section 2).
    CredentialsAmbiguous,
    /// The token is not a signed JSON Web Token in compact form, or larger than allowed.
    TokenMalformed,
    /// Nobody the route trusts vouches for the token: signature, key, algorithm, issuer, audience or a claim is wrong.
    TokenInvalid,
    /// The token was valid, and is no longer.
    TokenExpired,
    /// The token says that it holds later.
    TokenNotYetValid,
    /// The token, or all of its subject up to a moment, was revoked.
    TokenRevoked,
    /// The keys of the token's provider were never fetched.
    KeysUnavailable,
    /// The API key is unknown, expired or revoked.
    ApiKeyInvalid,
    /// Who asks does not hold the roles that the route wants.
    RoleMissing,
    /// The token lacks a scope that the route wants.
    ScopeMissing,
    /// The route's `auth.when` does not hold, or cannot be evaluated.
    RuleDenied,
    /// A route's `when` cannot be evaluated for the request.
    ExpressionFailed,
    /// The body of a login, refresh or logout is not what it has to be.
    LoginMalformed,
    /// No such user, another password, or a user who is disabled: which of them, only the log says.
    LoginFailed,
    /// The refresh token is unknown, used up, expired or revoked.
    RefreshInvalid,
    /// More passwords wait to be checked than the queue holds.
    LoginBusy,
    /// The store did not answer, or not in time.
    StoreUnavailable,
    /// A rate limit has no room for the request.
    RateLimited,
    /// The plan's quota for the period is used up.
    QuotaExceeded,
    /// Who asks has a plan that is not defined.
    PlanUnknown,
    /// As many requests are under way as the limit allows.
    ConcurrencyExceeded,
    /// The limit's counters cannot be reached, and it denies without them.
    LimitUnavailable,
    /// All servers of the upstream are unhealthy or ejected.
    NoServer,
    /// No address of the upstream's servers is known yet.
    NotReady,
    /// As many requests are under way to the upstream as it admits.
    UpstreamFull,
    /// The circuit breakers of all servers are open.
    CircuitOpen,
    /// No connection could be made.
    ConnectFailed,
    /// No connection could be made in time.
    ConnectTimeout,
    /// TLS with the server failed.
    UpstreamTls,
    /// The server closed or reset before it answered.
    UpstreamReset,
    /// The server's answer is not HTTP.
    BadResponse,
    /// The server was silent for longer than `timeouts.read`.
    UpstreamTimeout,
    /// The request's own deadline passed.
    DeadlineExceeded,
    /// The body is not of a media type that can be read here.
    MediaType,
    /// The body has to be JSON, and is not.
    BodyNotJson,
    /// What the answer needs of the request is missing in it, or cannot be used.
    InputMissing,
    /// A leg that the answer needs was refused by its service, with a status of its own.
    LegRefused,
    /// A leg that the answer needs failed.
    LegFailed,
    /// A leg that the answer needs found no server.
    LegUnavailable,
    /// A leg that the answer needs took too long.
    LegTimeout,
    /// No leg had an answer.
    NoLegAnswered,
    /// No leg had an answer in time.
    AllLegsTimedOut,
    /// There is no connection to the message broker.
    BrokerDown,
    /// As many messages are on their way to the broker as may be.
    BrokerFull,
    /// The broker could not take the message in.
    BrokerRejected,
    /// The connection to the broker broke before the answer came.
    BrokerLost,
    /// The broker does not allow the message.
    BrokerRefused,
    /// No answer came from the queue, or no confirmation from the broker, in time.
    BrokerTimeout,
    /// No queue takes the message.
    NoQueue,
    /// The exchange does not exist.
    NoExchange,
    /// What answered the message did not answer with JSON.
    BadReply,
    /// The answer to the message is larger than allowed.
    ReplyTooLarge,
    /// The client went away.
    ClientClosed,
    /// The client took nothing of the answer in for `limits.body_timeout`, or more slowly than `limits.min_body_rate`.
    ClientTooSlow,
    /// A limit of the process is reached.
    Overloaded,
    /// A defect of the gateway; the log says more.
    Internal,
}

impl Reason {
    /// Every reason, for tables and tests.
    pub const ALL: &'static [Self] = &[
        Self::RequestMalformed,
        Self::BadHost,
        Self::BadPath,
        Self::HeaderTimeout,
        Self::BodyTimeout,
        Self::BodyTooSlow,
        Self::UriTooLong,
        Self::HeaderTooLarge,
        Self::BodyTooLarge,
        Self::ExpectationFailed,
        Self::MethodUnsupported,
        Self::Misdirected,
        Self::RouteNotFound,
        Self::MethodNotAllowed,
        Self::FileNotFound,
        Self::FileForbidden,
        Self::FileFailed,
        Self::PreconditionFailed,
        Self::RangeNotSatisfiable,
        Self::IpDenied,
        Self::CertificateRequired,
        Self::CredentialsRequired,
        Self::CredentialsAmbiguous,
        Self::TokenMalformed,
        Self::TokenInvalid,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::TokenRevoked,
        Self::KeysUnavailable,
        Self::ApiKeyInvalid,
        Self::RoleMissing,
        Self::ScopeMissing,
        Self::RuleDenied,
        Self::ExpressionFailed,
        Self::LoginMalformed,
        Self::LoginFailed,
        Self::RefreshInvalid,
        Self::LoginBusy,
        Self::StoreUnavailable,
        Self::RateLimited,
        Self::QuotaExceeded,
        Self::PlanUnknown,
        Self::ConcurrencyExceeded,
        Self::LimitUnavailable,
        Self::NoServer,
        Self::NotReady,
        Self::CircuitOpen,
        Self::UpstreamFull,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::UpstreamTls,
        Self::UpstreamReset,
        Self::BadResponse,
        Self::UpstreamTimeout,
        Self::DeadlineExceeded,
        Self::MediaType,
        Self::BodyNotJson,
        Self::InputMissing,
        Self::LegRefused,
        Self::LegFailed,
        Self::LegUnavailable,
        Self::LegTimeout,
        Self::NoLegAnswered,
        Self::AllLegsTimedOut,
        Self::BrokerDown,
        Self::BrokerFull,
        Self::BrokerRejected,
        Self::BrokerLost,
        Self::BrokerRefused,
        Self::BrokerTimeout,
        Self::NoQueue,
        Self::NoExchange,
        Self::BadReply,
        Self::ReplyTooLarge,
        Self::ClientClosed,
        Self::ClientTooSlow,
        Self::Overloaded,
        Self::Internal,
    ];

    /// The HTTP status. 499 is never sent, only logged: nobody is there to read it, or the answer has begun.
    pub const fn status(self) -> u16 {
        self.row().0
    }

    /// The stable machine code of the problem document.
    pub const fn code(self) -> &'static str {
        self.row().1
    }

    /// What the client may read: nothing about the inside.
    pub const fn detail(self) -> &'static str {
        self.row().2
    }

    /// The gRPC status code (google.rpc.Code).
    pub const fn grpc_status(self) -> u8 {
        match self {
            Self::FileNotFound => 5,
            Self::IpDenied
            | Self::FileForbidden
            | Self::RoleMissing
            | Self::ScopeMissing
            | Self::PlanUnknown
            | Self::RuleDenied => 7,
            Self::PreconditionFailed | Self::LegRefused => 9,
            Self::RangeNotSatisfiable => 11,
            Self::CertificateRequired
            | Self::CredentialsRequired
            | Self::TokenMalformed
            | Self::TokenInvalid
            | Self::TokenExpired
            | Self::TokenNotYetValid
            | Self::TokenRevoked
            | Self::ApiKeyInvalid
            | Self::LoginFailed
            | Self::RefreshInvalid => 16,
            Self::CredentialsAmbiguous
            | Self::ExpressionFailed
            | Self::LoginMalformed
            | Self::MediaType
            | Self::BodyNotJson
            | Self::InputMissing => 3,
            Self::RouteNotFound | Self::MethodNotAllowed | Self::MethodUnsupported => 12,
            Self::HeaderTimeout
            | Self::BodyTimeout
            | Self::BodyTooSlow
            | Self::ConnectTimeout
            | Self::UpstreamTimeout
            | Self::LegTimeout
            | Self::AllLegsTimedOut
            | Self::BrokerTimeout
            | Self::DeadlineExceeded => 4,
            Self::BodyTooLarge
            | Self::HeaderTooLarge
            | Self::UriTooLong
            | Self::RateLimited
            | Self::QuotaExceeded
            | Self::ConcurrencyExceeded => 8,
            Self::NoServer
            | Self::NotReady
            | Self::CircuitOpen
            | Self::UpstreamFull
            | Self::ConnectFailed
            | Self::UpstreamTls
            | Self::UpstreamReset
            | Self::BadResponse
            | Self::KeysUnavailable
            | Self::LoginBusy
            | Self::StoreUnavailable
            | Self::LimitUnavailable
            | Self::LegFailed
            | Self::LegUnavailable
            | Self::NoLegAnswered
            | Self::BrokerDown
            | Self::BrokerFull
            | Self::BrokerRejected
            | Self::BrokerLost
            | Self::BrokerRefused
            | Self::NoQueue
            | Self::NoExchange
            | Self::BadReply
            | Self::ReplyTooLarge
            | Self::Overloaded => 14,
            Self::ClientClosed | Self::ClientTooSlow => 1,
            Self::RequestMalformed
            | Self::BadHost
            | Self::BadPath
            | Self::ExpectationFailed
            | Self::Misdirected
            | Self::FileFailed
            | Self::Internal => 13,
        }
    }

    /// Whether the client is at fault (and the gateway and its upstreams are not).
    pub const fn is_client_fault(self) -> bool {
        self.status() < 500
    }

    const fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::RequestMalformed => (400, "request.malformed", "The request is not valid HTTP."),
            Self::BadHost => (400, "request.bad_host", "The Host header is missing, repeated or not valid."),
            Self::BadPath => (400, "request.bad_path", "The path is not valid."),
            Self::HeaderTimeout => {
                (408, "request.header_timeout", "The request header did not arrive in time.")
            }
            Self::BodyTimeout => (408, "request.body_timeout", "The request body did not arrive in time."),
            Self::BodyTooSlow => (408, "request.body_too_slow", "The request body arrived too slowly."),
            Self::UriTooLong => (414, "request.uri_too_long", "The request target is too long."),
            Self::HeaderTooLarge => (431, "request.header_too_large", "The request header is too large."),
            Self::BodyTooLarge => (413, "request.body_too_large", "The request body is too large."),
            Self::ExpectationFailed => (417, "request.expectation_failed", "The expectation cannot be met."),
            Self::MethodUnsupported => {
                (501, "request.method_unsupported", "The method is not supported here.")
            }
            Self::Misdirected => (421, "request.misdirected", "The host does not belong to this connection."),
            Self::RouteNotFound => (404, "route.not_found", "There is nothing at this address."),
            Self::MethodNotAllowed => {
                (405, "route.method_not_allowed", "The method is not allowed here; see Allow.")
            }
            Self::FileNotFound => (404, "file.not_found", "There is no file at this address."),
            Self::FileForbidden => (403, "file.forbidden", "What is at this address is not sent."),
            Self::FileFailed => (500, "file.failed", "The file could not be read."),
            Self::PreconditionFailed => {
                (412, "file.precondition_failed", "The file is not what the request expects.")
            }
            Self::RangeNotSatisfiable => {
                (416, "file.range_not_satisfiable", "The file does not have the requested range.")
            }
            Self::IpDenied => (403, "access.ip_denied", "Access from this address is not allowed."),
            Self::CertificateRequired => {
                (401, "auth.certificate_required", "A client certificate is needed here.")
            }
            Self::CredentialsRequired => (401, "auth.credentials_required", "Credentials are needed here."),
            Self::CredentialsAmbiguous => {
                (400, "auth.credentials_ambiguous", "Send one credential, in one place.")
            }
            Self::TokenMalformed => (401, "auth.token_malformed", "The token is not valid."),
            Self::TokenInvalid => (401, "auth.token_invalid", "The token is not valid."),
            Self::TokenExpired => (401, "auth.token_expired", "The token has expired."),
            Self::TokenNotYetValid => (401, "auth.token_not_yet_valid", "The token is not valid yet."),
            Self::TokenRevoked => (401, "auth.token_revoked", "The token is no longer valid."),
            Self::KeysUnavailable => {
                (503, "auth.keys_unavailable", "Tokens cannot be verified at the moment.")
            }
            Self::ApiKeyInvalid => (401, "auth.api_key_invalid", "The API key is not valid."),
            Self::RoleMissing => (403, "auth.role_missing", "A role is missing that is needed here."),
            Self::ScopeMissing => (403, "auth.scope_missing", "The token lacks a scope that is needed here."),
            Self::RuleDenied => (403, "auth.denied", "This is not allowed."),
            Self::ExpressionFailed => (400, "route.expression_failed", "The request cannot be matched."),
            Self::LoginMalformed => (400, "login.malformed", "The request is not a login."),
            Self::LoginFailed => (401, "login.failed", "The user name or the password is wrong."),
            Self::RefreshInvalid => (401, "login.refresh_invalid", "The refresh token is not valid."),
            Self::LoginBusy => (503, "login.busy", "Too many logins at the moment."),
            Self::StoreUnavailable => (503, "store.unavailable", "This is not possible at the moment."),
            Self::RateLimited => (429, "limit.exceeded", "Too many requests."),
            Self::QuotaExceeded => (429, "limit.quota_exceeded", "The quota is used up."),
            Self::PlanUnknown => (403, "limit.plan_unknown", "The plan of this client is not available."),
            Self::ConcurrencyExceeded => (429, "limit.concurrency_exceeded", "Too many requests at once."),
            Self::LimitUnavailable => (503, "limit.unavailable", "This is not possible at the moment."),
            Self::NoServer => (503, "upstream.no_server", "No server is available at the moment."),
            Self::NotReady => (503, "upstream.not_ready", "The service is not ready yet."),
            Self::UpstreamFull => (503, "upstream.full", "The service has as much to do as it can."),
            Self::CircuitOpen => (503, "upstream.circuit_open", "The service is recovering from failures."),
            Self::ConnectFailed => (502, "upstream.connect_failed", "The service could not be reached."),
            Self::ConnectTimeout => {
                (504, "upstream.connect_timeout", "The service could not be reached in time.")
            }
            Self::UpstreamTls => (502, "upstream.tls_failed", "The service could not be reached securely."),
            Self::UpstreamReset => {
                (502, "upstream.reset", "The service closed the connection without an answer.")
            }
            Self::BadResponse => (502, "upstream.bad_response", "The service gave no valid answer."),
            Self::UpstreamTimeout => (504, "upstream.timeout", "The service did not answer in time."),
            Self::DeadlineExceeded => {
                (504, "request.deadline_exceeded", "The answer was not complete in time.")
            }
            Self::MediaType => (415, "request.media_type", "The body has to be JSON."),
            Self::BodyNotJson => (400, "request.body_not_json", "The body is not JSON."),
            Self::InputMissing => {
                (400, "aggregate.input_missing", "Something is missing in the request, or cannot be used.")
            }
            Self::LegRefused => {
                (400, "aggregate.leg_refused", "A service that the answer needs refused the request.")
            }
            Self::LegFailed => (502, "aggregate.leg_failed", "A service that the answer needs failed."),
            Self::LegUnavailable => {
                (503, "aggregate.leg_unavailable", "A service that the answer needs is not available.")
            }
            Self::LegTimeout => {
                (504, "aggregate.leg_timeout", "A service that the answer needs did not answer in time.")
            }
            Self::NoLegAnswered => {
                (502, "aggregate.nothing_answered", "None of the services behind this had an answer.")
            }
            Self::AllLegsTimedOut => {
                (504, "aggregate.timeout", "None of the services behind this answered in time.")
            }
            Self::BrokerDown => (503, "broker.down", "The service cannot be reached at the moment."),
            Self::BrokerFull => (503, "broker.full", "The service has as much to do as it can."),
            Self::BrokerRejected => (503, "broker.rejected", "The service takes nothing in at the moment."),
            Self::BrokerLost => (502, "broker.lost", "The service was lost before it answered."),
            Self::BrokerRefused => (502, "broker.refused", "The service could not be asked."),
            Self::BrokerTimeout => (504, "broker.timeout", "The service did not answer in time."),
            Self::NoQueue => (503, "broker.no_queue", "No service takes this at the moment."),
            Self::NoExchange => (502, "broker.no_exchange", "The service could not be reached."),
            Self::BadReply => (502, "broker.bad_reply", "The service gave no valid answer."),
            Self::ReplyTooLarge => (502, "broker.reply_too_large", "The service's answer is too large."),
            Self::ClientClosed => (499, "client.closed", "The client closed the connection."),
            Self::ClientTooSlow => (499, "client.too_slow", "The client took the answer in too slowly."),
            Self::Overloaded => (503, "gateway.overloaded", "Too much is going on at the moment."),
            Self::Internal => (500, "gateway.internal", "Something went wrong on our side."),
        }
    }
}

/// The standard phrase of a status, as used for a problem's title (RFC 9457 section 4.2.1).
pub fn phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Codes are a contract: each reason has its own, in the form `area.what`.
    #[test]
    fn codes_are_unique_and_well_formed() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(
                reason
                    .code()
                    .split_once('.')
                    .is_some_and(|(area, what)| !area.is_empty() && !what.is_empty())
            );
            assert!((400..600).contains(&reason.status()));
            assert!(reason.detail().ends_with('.'));
        }
    }
}
