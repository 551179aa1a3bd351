//! Sessions: begun by a password, carried on by refresh tokens, ended by a logout or by a refresh token used twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use serde_json::{Map, Value};

use super::answer::{self, Tokens};
use super::body;
use super::secrets::{self, RefreshToken};
use super::throttle::Attempt;
use super::{Login, Refused, Request};
use crate::base::clock::{self, Moment};
use crate::base::problem::Parts;
use crate::base::reason::Reason;
use crate::identity::password::{Check, CheckError};
use crate::identity::token::Token;
use crate::store::{KEPT_OF_ALL, Rotation, StoreError, User};

/// How soon a store that is down may be back.
const STORE_RETRY: Duration = Duration::from_secs(5);
/// How long a login waits at most until a token holds although all of its user's were just revoked: the rest of the
/// second, and as much as clocks may be apart.
const SETTLE_MAX: Duration = Duration::from_secs(3);
/// Between two looks at the clock.
const SETTLE_PAUSE: Duration = Duration::from_millis(20);

impl Login {
    pub(super) async fn login(&self, request: &Request, body: &[u8]) -> Result<Response<Bytes>, Refused> {
        let body::Credentials { username, password } = read(request, body, body::credentials)?;
        let now = clock::now();
        let admitted = self.live.throttle.login(request.address, &username, &self.settings.failures, now);
        let attempt = admitted.map_err(|wait| {
            Refused::new(Reason::RateLimited, "too many failed logins of the address or the account")
                .after(wait)
        })?;
        // Nothing that a token says may be older than the moment it is issued at: whatever is revoked while the password
        // is checked is revoked of it, too.
        let mut at = clock::unix_now();
        let mut user = self.prove(attempt, &username, password.clone()).await?;
        self.live.throttle.succeeded(attempt, clock::now());
        let until = clock::now() + SETTLE_MAX;
        while let Some(later) = self.settled(&user, at, until).await? {
            at = later;
            user = self.again(&user, password.clone()).await?.ok_or_else(changed)?;
        }
        let refresh_lifetime = self.settings.refresh_lifetime.filter(|_| !request.prefers_text);
        let Some(lifetime) = refresh_lifetime else {
            return Ok(answer::tokens(self.issue(&user, None, at)?, request.prefers_text));
        };
        let (refresh, family) = (refresh_token()?, secrets::name().ok_or_else(no_random)?);
        let mut tokens = self.issue(&user, Some(&family), at)?;
        let (provider, until) = (&**self.provider.name(), after(at, lifetime));
        self.store
            .begin_family(&family, &user.name, provider, &refresh.digest, until, at)
            .await
            .map_err(unavailable)?;
        if self.again(&user, password).await?.is_none() {
            self.store.end_family_of(&refresh.digest, at).await.map_err(unavailable)?;
            return Err(changed());
        }
        tokens.refresh = Some(refresh.text);
        Ok(answer::tokens(tokens, false))
    }

    /// `user` as he is by now, if he may still log in by `password`: who was given another one meanwhile, or disabled, must
    /// not keep what began with the old one.
    async fn again(&self, user: &User, password: String) -> Result<Option<User>, Refused> {
        let now = self.store.user(&user.name).await.map_err(unavailable)?;
        let Some(now) = now.filter(|now| !now.disabled) else { return Ok(None) };
        if now.password == user.password {
            return Ok(Some(now));
        }
        // Another hash, which may be a better one of the same password: a login beside this one made it.
        let (cost, bounds) = (self.settings.cost, self.settings.bounds);
        let check = self.live.hashers.check(password, Some(now.password.clone()), cost, bounds).await;
        Ok(matches!(check, Ok(Check::Right { .. })).then_some(now))
    }

    /// Nothing, if a token of `user` that says it was issued `at` would hold. Otherwise all up to then were revoked: tokens
    /// count in seconds, and that one goes with them. Then this waits for the next second, and says which it is; `user` has
    /// to be read again, since more may have happened meanwhile.
    async fn settled(&self, user: &User, at: i64, until: Instant) -> Result<Option<i64>, Refused> {
        let provider = self.provider.name();
        let known = self.directory.subject_revoked_before(provider, &user.name);
        let stored = self.store.subject_revoked_before(provider, &user.name).await.map_err(unavailable)?;
        let Some(before) = known.max(stored).filter(|before| *before >= at) else { return Ok(None) };
        while clock::unix_now() <= before {
            let ahead = before.saturating_sub(clock::unix_now());
            if ahead > SETTLE_MAX.as_secs().cast_signed() || clock::now() >= until {
                let detail =
                    format!("tokens of {} were revoked up to a moment {ahead} s from now", user.name);
                let wait = Duration::from_secs(ahead.clamp(1, 3600).unsigned_abs());
                return Err(Refused::new(Reason::LoginBusy, detail).after(wait));
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
        Ok(Some(clock::unix_now()))
    }

    /// The user whose `password` it is; `attempt` stays counted if it is nobody's.
    async fn prove(&self, attempt: Attempt, username: &str, password: String) -> Result<User, Refused> {
        let uncounted = |refused: Refused| {
            self.live.throttle.uncounted(attempt);
            refused
        };
        let user = self.store.user(username).await.map_err(|error| uncounted(unavailable(error)))?;
        // A user who is disabled is checked as one who is not there.
        let stored = user.as_ref().filter(|user| !user.disabled).map(|user| user.password.clone());
        let (cost, bounds) = (self.settings.cost, self.settings.bounds);
        let check = self.live.hashers.check(password, stored, cost, bounds).await;
        let failed = |detail: &str| Refused::new(Reason::LoginFailed, detail);
        let check = check.map_err(|error| {
            uncounted(match error {
                CheckError::Busy(busy) => {
                    Refused::new(Reason::LoginBusy, "too many passwords wait already").after(busy.retry_after)
                }
                CheckError::Lost => Refused::new(Reason::Internal, "the password was not checked"),
            })
        })?;
        match (check, user) {
            (Check::Right { upgraded }, Some(mut user)) => {
                if let Some(upgraded) = upgraded {
                    self.upgrade(&mut user, upgraded).await;
                }
                Ok(user)
            }
            (_, None) => Err(failed("there is no such user")),
            (_, Some(user)) if user.disabled => Err(failed(&format!("the user {} is disabled", user.name))),
            (Check::Unreadable(why), Some(user)) => {
                Err(failed(&format!("the stored hash of {} cannot be used: {why}", user.name)))
            }
            (_, Some(user)) => Err(failed(&format!("another password than that of {}", user.name))),
        }
    }

    /// Stores a better hash of the same password. The login does not depend on it: the next one tries again.
    async fn upgrade(&self, user: &mut User, upgraded: String) {
        match self.store.replace_password(&user.name, &user.password, &upgraded).await {
            Ok(true) => user.password = upgraded,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(user = %user.name, %error, "a better hash of a password was not stored");
            }
        }
    }

    pub(super) async fn refresh(&self, request: &Request, body: &[u8]) -> Result<Response<Bytes>, Refused> {
        let shown = read(request, body, body::refresh_token)?;
        let attempt = self.admit(request)?;
        let invalid = |detail: &str| Refused::new(Reason::RefreshInvalid, detail);
        let Some(digest) = RefreshToken::read(&shown) else {
            return Err(invalid("it has not the form of a refresh token"));
        };
        let Some(lifetime) = self.settings.refresh_lifetime else {
            return Err(invalid("there are no refresh tokens any more"));
        };
        let (next, mut at) = (refresh_token()?, clock::unix_now());
        let until = after(at, lifetime);
        let rotation = self.store.rotate(self.provider.name(), &digest, &next.digest, until, at).await;
        if !matches!(rotation, Ok(Rotation::Unknown)) {
            self.live.throttle.uncounted(attempt);
        }
        let (user, family) = match rotation.map_err(unavailable)? {
            Rotation::Rotated { user, family } => (user, family),
            Rotation::Unknown => return Err(invalid("nobody was given this refresh token")),
            Rotation::Expired => {
                return Err(invalid("the refresh token has expired, or its session was ended"));
            }
            Rotation::Reused { user, ends } => return Err(self.reused(&user, ends, at).await),
        };
        let until = clock::now() + SETTLE_MAX;
        let user = loop {
            let user = match self.store.user(&user).await.map_err(unavailable)? {
                Some(user) if !user.disabled => user,
                _ => {
                    self.store.end_family_of(&next.digest, at).await.map_err(unavailable)?;
                    return Err(invalid("its user is disabled, or there is none any more"));
                }
            };
            match self.settled(&user, at, until).await? {
                Some(later) => at = later,
                None => break user,
            }
        };
        let mut tokens = self.issue(&user, Some(&family), at)?;
        tokens.refresh = Some(next.text);
        Ok(answer::tokens(tokens, request.prefers_text))
    }

    /// Somebody uses a refresh token a second time: he or the one before has stolen it. The family has ended; the access
    /// tokens that it was used for go with all of the user's of this moment, since which they are nobody knows. Other
    /// sessions of the user get new ones for their own refresh tokens.
    async fn reused(&self, user: &str, ends: bool, at: i64) -> Refused {
        if ends && let Err(error) = self.revoke_all_of(user, at).await {
            tracing::error!(user, %error, "access tokens could not be revoked after a refresh token was used twice");
        }
        let detail = format!("a refresh token of {user} was used twice: its session is ended");
        Refused { outcome: "reused", ..Refused::new(Reason::RefreshInvalid, detail) }
    }

    pub(super) async fn logout(&self, request: &Request, body: &[u8]) -> Result<Response<Bytes>, Refused> {
        let shown = if body.is_empty() { None } else { Some(read(request, body, body::refresh_token)?) };
        let compact = request.token.clone()?;
        if shown.is_none() && compact.is_none() {
            let detail = "neither an access token nor a refresh token";
            return Err(Refused::new(Reason::CredentialsRequired, detail));
        }
        let verified = match &compact {
            Some(compact) => Some(self.verifier.verify_within(compact, None).await),
            None => None,
        };
        let mut has_ended = false;
        let token = match (verified, &compact) {
            (Some(Ok(token)), _) => Some(token),
            // Its session may go on by a refresh token: ending it takes that it was the user's, not that it still holds.
            (Some(Err(refusal)), Some(compact)) if refusal.reason == Reason::TokenExpired => {
                has_ended = true;
                Some(Arc::new(self.verifier.verify_ended(compact, &Moment::now())?))
            }
            // With the refresh token it can be ended all the same.
            (Some(Err(_)), _) if shown.is_some() => None,
            (Some(Err(refusal)), _) => return Err(refusal.into()),
            (None, _) => None,
        };
        // Who shows a token that still holds may end it, this once. All else may be made up, or be the same again and again.
        let is_proven = token.as_ref().is_some_and(|token| !has_ended && !self.directory.is_revoked(token));
        let attempt = if is_proven { None } else { Some(self.admit(request)?) };
        let ended = self.end(token.as_deref(), shown.as_deref()).await;
        if let Some(attempt) = attempt
            && !matches!(ended, Ok(false))
        {
            self.live.throttle.uncounted(attempt);
        }
        ended.map(|_| answer::done())
    }

    /// Lets an attempt through that may turn out to be in vain.
    fn admit(&self, request: &Request) -> Result<Attempt, Refused> {
        let admitted = self.live.throttle.other(request.address, &self.settings.failures, clock::now());
        admitted.map_err(|wait| {
            Refused::new(Reason::RateLimited, "too many unknown tokens of the address").after(wait)
        })
    }

    /// Ends an access token, the session it is of, and that of a refresh token: what is there of them. Whether anything was
    /// left to end. What the directory knows is looked for in the store all the same, as it may have been down at the time.
    async fn end(&self, token: Option<&Token>, refresh: Option<&str>) -> Result<bool, Refused> {
        let mut any = false;
        if let Some(token) = token {
            let (Some(id), Some(expires_at)) = (&token.id, token.expires_at) else {
                return Err(Refused::new(Reason::TokenInvalid, "a token without jti cannot be revoked"));
            };
            let provider = self.provider.name();
            // What has expired needs no revoking.
            if expires_at.saturating_add(self.provider.leeway()) >= clock::unix_now() {
                self.directory.revoke_token(provider, id, expires_at);
                any |= self.store.revoke_token(id, provider, expires_at).await.map_err(unavailable)?;
            }
            if let Some(family) = token.claims.get(SESSION_CLAIM).and_then(Value::as_str) {
                any |= self.store.end_family(family, clock::unix_now()).await.map_err(unavailable)?;
            }
        }
        // One that nobody was given has nothing to end (RFC 7009 section 2.2).
        if let Some(digest) = refresh.and_then(RefreshToken::read) {
            any |= self.store.end_family_of(&digest, clock::unix_now()).await.map_err(unavailable)?;
        }
        Ok(any)
    }

    /// Revokes the access tokens of `user` that were issued up to `at`, here at once and for all others by the store.
    async fn revoke_all_of(&self, user: &str, at: i64) -> Result<(), StoreError> {
        let (provider, until) = (self.provider.name(), after(at, KEPT_OF_ALL));
        self.directory.revoke_subject(provider, user, at, until);
        self.store.revoke_subject(provider, user, at, until).await.map(drop)
    }

    /// An access token for `user`, issued `at`.
    fn issue(&self, user: &User, family: Option<&str>, at: i64) -> Result<Tokens, Refused> {
        let mut claims = Map::new();
        claims.insert("jti".into(), secrets::name().ok_or_else(no_random)?.into());
        claims.insert("sub".into(), user.name.as_str().into());
        if let Some(issuer) = self.provider.issuer_claim() {
            claims.insert("iss".into(), issuer.into());
        }
        match self.provider.audience() {
            [] => None,
            [only] => claims.insert("aud".into(), (**only).into()),
            several => claims.insert("aud".into(), several.iter().map(|name| &**name).collect()),
        };
        claims.insert("iat".into(), at.into());
        claims.insert("exp".into(), after(at, self.settings.lifetime).into());
        if let Some(family) = family {
            claims.insert(SESSION_CLAIM.into(), family.into());
        }
        claims.insert(self.provider.roles_claim().to_owned(), user.roles.clone().into());
        let issued = self.provider.issuer().map(|issuer| issuer.issue(&claims));
        let Some(Ok(access)) = issued else {
            return Err(Refused::new(Reason::Internal, "no token could be signed"));
        };
        Ok(Tokens { access, lifetime: self.settings.lifetime, refresh: None })
    }
}

/// The session a token belongs to (OpenID Connect Front-Channel Logout section 3).
const SESSION_CLAIM: &str = "sid";

/// Reads what has to be a JSON body.
fn read<T>(
    request: &Request,
    body: &[u8],
    read: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<T, Refused> {
    if !request.is_json {
        return Err(malformed("the content type is not application/json".to_owned()));
    }
    read(body).map_err(malformed)
}

/// What cannot be read, and why: what the client sent is the client's to mend. `why` says nothing of its values.
fn malformed(why: String) -> Refused {
    let mut refused = Refused::new(Reason::LoginMalformed, why);
    let explanation = Some(format!("The request cannot be read: {}.", refused.detail).into());
    refused.problem.parts = Some(Box::new(Parts { explanation, ..Parts::default() }));
    refused
}

fn changed() -> Refused {
    Refused::new(Reason::LoginFailed, "the user was changed during the login")
}

fn refresh_token() -> Result<RefreshToken, Refused> {
    RefreshToken::new().ok_or_else(no_random)
}

fn no_random() -> Refused {
    Refused::new(Reason::Internal, "no random numbers")
}

fn unavailable(error: StoreError) -> Refused {
    Refused::new(Reason::StoreUnavailable, error.to_string()).after(STORE_RETRY)
}

fn after(at: i64, lifetime: Duration) -> i64 {
    at.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX))
}
