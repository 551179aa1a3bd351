//! `[identity.login]`: a name and a password for tokens, tokens for newer ones, and their end.
//!
//! ```text
//! login    throttle ─► user in the store ─► password, on a thread for that ─► tokens, a family of refresh tokens begins
//! refresh  throttle ─► refresh token exchanged in the store ─► the user as he is now ─► tokens
//! logout   access token verified ─► it and its family end
//! ```
//!
//! What a client may not tell apart (no such user, another password, a user who is disabled) has one answer and takes the
//! same time; which of them it was stands in [`Refused::detail`], for the log.

pub mod body;
pub mod throttle;

mod answer;
mod secrets;
mod session;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use http::{Method, Response};

pub use self::settings::Settings;
use self::throttle::Throttle;
use super::directory::Directory;
use super::jwt::algorithm::Kind;
use super::password::Hashers;
use super::provider::{Provider, Providers};
use super::signing::Issuer;
use super::token::{Refusal, in_cookies};
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::store::Store;
use crate::telemetry::metrics::{Metrics, SessionStep};

/// What a request to one of the paths of `[identity.login]` is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Tokens, for a name and a password.
    Login,
    /// Newer tokens, for a refresh token.
    Refresh,
    /// The end of tokens.
    Logout,
    /// The public keys that tokens are verified with.
    Keys,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Login, Self::Refresh, Self::Logout, Self::Keys];

    /// The name of its route.
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Refresh => "refresh",
            Self::Logout => "logout",
            Self::Keys => "jwks",
        }
    }

    /// The key that says where it is.
    pub fn path_key(self) -> &'static str {
        match self {
            Self::Login => "path",
            Self::Refresh => "refresh_path",
            Self::Logout => "logout_path",
            Self::Keys => "jwks_path",
        }
    }

    /// The one method it is asked for by; GET includes HEAD.
    pub fn method(self) -> Method {
        if self == Self::Keys { Method::GET } else { Method::POST }
    }

    /// How it is counted; [`Step::Keys`] is not.
    fn counted(self) -> Option<SessionStep> {
        match self {
            Self::Login => Some(SessionStep::Login),
            Self::Refresh => Some(SessionStep::Refresh),
            Self::Logout => Some(SessionStep::Logout),
            Self::Keys => None,
        }
    }
}

/// What logins of a process share, whatever the configuration of the moment.
#[derive(Debug)]
pub struct Live {
    hashers: Arc<Hashers>,
    throttle: Throttle,
    metrics: Arc<Metrics>,
}

impl Live {
    /// For one process, at `now`.
    pub fn new(metrics: Arc<Metrics>, now: Instant) -> Arc<Self> {
        let hashers = Hashers::new(metrics.clone());
        Arc::new(Self { hashers, throttle: Throttle::new(now), metrics })
    }
}

/// `[identity.login]`, compiled.
pub struct Login {
    /// Issues the tokens.
    provider: Arc<Provider>,
    /// The same, as who verifies them.
    verifier: Providers,
    store: Store,
    directory: Arc<Directory>,
    live: Arc<Live>,
    settings: Settings,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("provider", self.provider.name())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What is needed of a request's head.
#[derive(Debug)]
pub struct Request {
    /// The client's address, after trusted proxies.
    pub address: IpAddr,
    is_json: bool,
    prefers_text: bool,
    token: Result<Option<String>, Refusal>,
}

impl Request {
    /// The account that `body` tries to log in to, if it is a login that can be read.
    pub fn account(&self, step: Step, body: &[u8]) -> Option<String> {
        let is_login = step == Step::Login && self.is_json;
        is_login.then(|| body::credentials(body).ok()).flatten().map(|credentials| credentials.username)
    }
}

/// The one token of a request: that of `Authorization`, or of the cookie called `cookie`.
fn shown(headers: &HeaderMap, cookie: Option<&str>) -> Result<Option<String>, Refusal> {
    let bearer = bearer(headers)?;
    let cookies = cookie.into_iter().flat_map(|name| in_cookies(headers, name));
    let cookies = cookies.map(|value| String::from_utf8_lossy(value).into_owned());
    let mut all = bearer.into_iter().chain(cookies);
    match (all.next(), all.next()) {
        (only, None) => Ok(only),
        _ => Err(Refusal::new(
            Reason::CredentialsAmbiguous,
            "tokens in the Authorization header and cookies, or in several cookies",
        )),
    }
}

/// The token of `Authorization: Bearer` (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        let several = headers.contains_key(AUTHORIZATION);
        let refusal = || Refusal::new(Reason::CredentialsAmbiguous, "several Authorization headers");
        return if several { Err(refusal()) } else { Ok(None) };
    };
    let malformed = || Refusal::new(Reason::TokenMalformed, "Authorization is no Bearer token");
    let (scheme, token) = line.to_str().ok().and_then(|line| line.split_once(' ')).ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed());
    }
    Ok(Some(token.trim().to_owned()))
}

/// Why there are no tokens.
#[derive(Debug)]
pub struct Refused {
    /// What the client is told.
    pub problem: Box<Problem>,
    /// What the log is told.
    pub detail: String,
    /// How it is counted.
    outcome: &'static str,
}

impl Refused {
    /// For a limit that has no room for it.
    pub fn limited(problem: Problem) -> Self {
        Self {
            problem: Box::new(problem),
            detail: "a rate limit of the account".to_owned(),
            outcome: "throttled",
        }
    }

    /// For a body that is longer than any of these.
    pub fn too_large() -> Self {
        Self::new(Reason::BodyTooLarge, "the body is longer than that of any login")
    }

    fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let outcome = match reason {
            Reason::LoginMalformed | Reason::BodyTooLarge => "malformed",
            Reason::RateLimited => "throttled",
            Reason::LoginBusy => "busy",
            Reason::StoreUnavailable | Reason::Internal | Reason::KeysUnavailable => "unavailable",
            _ => "failed",
        };
        Self { problem: Box::new(Problem::new(reason)), detail: detail.into(), outcome }
    }

    /// With what a 401 has to say (RFC 9110 section 15.5.2): that tokens are wanted here, and no more than the code says.
    fn challenging(mut self, realm: &str) -> Self {
        if self.problem.reason.status() == 401 {
            self.problem.challenges = vec![format!("Bearer realm=\"{realm}\"")];
        }
        self
    }

    fn after(mut self, retry_after: Duration) -> Self {
        self.problem.retry_after = Some(retry_after);
        self
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let refused = Self::new(refusal.reason, refusal.detail);
        match refusal.retry_after {
            Some(after) => refused.after(after),
            None => refused,
        }
    }
}

impl Login {
    /// Puts it together: tokens of `provider`, which can issue them, users of `store`.
    pub fn new(
        provider: Arc<Provider>,
        store: Store,
        directory: Arc<Directory>,
        live: Arc<Live>,
        settings: Settings,
    ) -> Self {
        let verifier = Providers::new([provider.clone()]);
        Self { provider, verifier, store, directory, live, settings }
    }

    /// Reads the `headers` of a request from `address`.
    pub fn read(&self, headers: &HeaderMap, address: IpAddr) -> Request {
        let mut types = headers.get_all(CONTENT_TYPE).iter();
        let is_json = body::is_json(types.next().map(http::HeaderValue::as_bytes)) && types.next().is_none();
        let token = shown(headers, self.settings.token_cookie.as_deref());
        Request { address, is_json, prefers_text: answer::prefers_text(headers), token }
    }

    /// Whether `step` is there to be asked for.
    pub fn offers(&self, step: Step) -> bool {
        match step {
            Step::Login | Step::Logout => true,
            Step::Refresh => self.settings.refresh_lifetime.is_some(),
            Step::Keys => {
                self.provider.issuer().is_some_and(|issuer| issuer.algorithm().kind() != Kind::Secret)
            }
        }
    }

    /// What `step` does, in a few words.
    pub fn describe(&self, step: Step) -> String {
        let provider = self.provider.name();
        match step {
            Step::Login => format!("a token of {provider}, for a username and a password"),
            Step::Refresh => format!("a newer token of {provider}, for a refresh token"),
            Step::Logout => format!("204, and the end of a token of {provider}"),
            Step::Keys => format!("the public keys of {provider}"),
        }
    }

    /// Answers `request`, whose body is `body`.
    pub async fn answer(
        &self,
        step: Step,
        request: &Request,
        body: Bytes,
    ) -> Result<Response<Bytes>, Refused> {
        let done = match step {
            Step::Login => self.login(request, &body).await,
            Step::Refresh => self.refresh(request, &body).await,
            Step::Logout => self.logout(request, &body).await,
            Step::Keys => {
                let jwks = self.provider.issuer().map(Issuer::jwks).unwrap_or_default();
                return Ok(answer::keys(jwks, KEYS_MAX_AGE));
            }
        };
        if let Some(step) = step.counted() {
            let outcome = done.as_ref().map_or_else(|refused| refused.outcome, |_| "ok");
            self.live.metrics.logins().ended(step, outcome);
        }
        done.map_err(|refused| refused.challenging(&self.settings.realm))
    }
}

/// How long public keys may be kept: a new one is published that long before it signs.
const KEYS_MAX_AGE: Duration = Duration::from_secs(300);
