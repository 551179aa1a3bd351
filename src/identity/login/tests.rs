//! Sessions from their beginning to their end, against a store in a file.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::throttle::Failures;
use super::{Live, Login, Settings, Step};
use crate::base::clock;
use crate::base::decode::Rate;
use crate::base::reason::Reason;
use crate::identity::directory::Directory;
use crate::identity::jwt::Rules;
use crate::identity::jwt::algorithm::{Algorithm, Algorithms, Kind};
use crate::identity::keys::KeySet;
use crate::identity::password::{self, Bounds, Cost};
use crate::identity::provider::{self, Keys, Provider, Providers};
use crate::identity::signing::{self, Issuer, SigningKey};
use crate::identity::token::Token;
use crate::store::{Store, StoreUrl, User, UserChange};
use crate::telemetry::metrics::Metrics;

const CHEAP: Cost = Cost { memory_kib: 1024, passes: 1 };
const DAY: Rate = Rate { count: 20, per: Duration::from_secs(86_400) };

struct Case {
    login: Login,
    store: Store,
    directory: Arc<Directory>,
    verifier: Providers,
    metrics: Arc<Metrics>,
    directory_of_store: TempDir,
}

fn settings() -> Settings {
    Settings {
        realm: "shop".into(),
        token_cookie: Some("session".into()),
        lifetime: Duration::from_secs(3600),
        refresh_lifetime: Some(Duration::from_secs(86_400)),
        cost: CHEAP,
        bounds: Bounds { workers: 1, queue: 8 },
        failures: Failures { per_address: DAY, per_account: DAY },
    }
}

fn provider() -> Arc<Provider> {
    let (key, _) = SigningKey::generate(Algorithm::Es256).unwrap();
    let algorithms: Algorithms = [Algorithm::Es256].into_iter().collect();
    let keys = KeySet::new([signing::verifying(key.public(), Algorithms::of(Kind::P256))]);
    let settings = provider::Settings {
        name: "local".into(),
        rules: Rules {
            issuer: Some("https://edge.example.com/".into()),
            audience: ["shop".into()].into(),
            typ: None,
            leeway: 0,
            require: ["exp".into()].into(),
            roles_claim: "https://example.com/roles".into(),
        },
        algorithms,
        keys: Keys::Fixed(keys),
        issuer: Issuer::new(key, Algorithm::Es256, &[]),
        consumer: None,
        generated: None,
    };
    Arc::new(Provider::new(settings))
}

async fn case(settings: Settings) -> Case {
    let directory_of_store = tempfile::tempdir().unwrap();
    let path = directory_of_store.path().join("users.db");
    let store = Store::new(StoreUrl::Sqlite(path));
    for (name, password, disabled) in [("alice", "wonderland", false), ("bob", "builder", true)] {
        let password = password::hash(password, CHEAP).unwrap();
        let roles = vec!["admin".to_owned(), "user".to_owned()];
        let user = User { name: name.to_owned(), password, roles, disabled };
        store.add_user(&user, 1).await.unwrap();
    }
    let (directory, provider, metrics) = (Arc::<Directory>::default(), provider(), Metrics::new());
    let live = Live::new(metrics.clone(), clock::now());
    let login = Login::new(provider.clone(), store.clone(), directory.clone(), live, settings);
    let verifier = Providers::new([provider]);
    Case { login, store, directory, verifier, metrics, directory_of_store }
}

/// What came of a request: the body of an answer, or why there is none.
type Outcome = Result<String, (Reason, String)>;

impl Case {
    async fn ask(&self, step: Step, headers: &[(http::HeaderName, &str)], body: impl Into<Bytes>) -> Outcome {
        let mut map = HeaderMap::new();
        map.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in headers {
            map.insert(name, HeaderValue::from_str(value).unwrap());
        }
        let request = self.login.read(&map, "192.0.2.1".parse().unwrap());
        match self.login.answer(step, &request, body.into()).await {
            Ok(response) => Ok(String::from_utf8(response.into_body().to_vec()).unwrap()),
            Err(refused) => Err((refused.problem.reason, refused.detail)),
        }
    }

    async fn log_in(&self, username: &str, password: &str) -> Outcome {
        let body = json!({ "username": username, "password": password }).to_string();
        self.ask(Step::Login, &[], body).await
    }

    /// Access and refresh token.
    async fn session(&self) -> (String, String) {
        pair(&self.log_in("alice", "wonderland").await.unwrap())
    }

    async fn change(&self, change: UserChange) {
        let now = clock::unix_now();
        assert!(self.store.change_user("alice", &change, None, now).await.unwrap());
    }

    async fn refresh(&self, token: &str) -> Outcome {
        self.ask(Step::Refresh, &[], json!({ "refresh_token": token }).to_string()).await
    }

    /// The token, if it verifies and was not revoked.
    fn holds(&self, access: &str) -> Option<Arc<Token>> {
        let verified = self.verifier.verify(access, &crate::base::clock::Moment::now());
        let provider::Verified::Ok(token) = verified else { panic!("{verified:?}") };
        (!self.directory.is_revoked(&token)).then_some(token)
    }
}

fn roles(token: &Token) -> Vec<&str> {
    token.roles.iter().map(|role| &**role).collect()
}

fn pair(answer: &str) -> (String, String) {
    let answer: Value = serde_json::from_str(answer).unwrap();
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["expires_in"], 3600);
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    (text("access_token"), text("refresh_token"))
}

#[tokio::test]
async fn a_password_gives_a_token_that_says_all() {
    let case = case(settings()).await;
    let (access, refresh) = case.session().await;
    let token = case.holds(&access).unwrap();
    assert_eq!(token.subject.as_deref(), Some("alice"));
    assert_eq!(roles(&token), ["admin", "user"]);
    for claim in ["jti", "sub", "iss", "aud", "iat", "exp", "https://example.com/roles"] {
        assert!(token.claims.contains_key(claim), "{claim}");
    }
    assert_eq!(token.expires_at.unwrap() - token.issued_at.unwrap(), 3600);
    assert!(refresh.starts_with("ewr_"));
    assert_ne!(token.id, case.holds(&case.session().await.0).unwrap().id);

    let body = json!({ "username": "alice", "password": "wonderland" }).to_string();
    let bare = case.ask(Step::Login, &[(ACCEPT, "text/plain")], body).await.unwrap();
    assert_eq!(case.holds(&bare).unwrap().subject.as_deref(), Some("alice"));
}

/// One answer for three causes; which it was, only the log hears.
#[tokio::test]
async fn who_is_wrong_learns_nothing() {
    let case = case(settings()).await;
    for (username, password, told) in [
        ("carol", "x", "no such user"),
        ("alice", "x", "another password than that of alice"),
        ("bob", "builder", "bob is disabled"),
        ("bob", "x", "bob is disabled"),
        ("Alice", "wonderland", "no such user"),
    ] {
        let (reason, detail) = case.log_in(username, password).await.unwrap_err();
        assert_eq!(reason, Reason::LoginFailed, "{username}");
        assert!(detail.contains(told), "{detail}");
    }
    let text = case.metrics.render(false);
    assert!(text.contains("edgeward_logins_total{step=\"login\",outcome=\"failed\"} 5"), "{text}");
}

#[tokio::test]
async fn hashes_rise_with_the_cost() {
    let dear = Cost { memory_kib: 2048, passes: 2 };
    let case = case(Settings { cost: dear, ..settings() }).await;
    let stored = async || case.store.user("alice").await.unwrap().unwrap().password;
    let before = stored().await;
    case.log_in("alice", "x").await.unwrap_err();
    assert_eq!(stored().await, before);
    // Two at once: one of them stores the better hash, and both are let in.
    let (one, other) = tokio::join!(case.log_in("alice", "wonderland"), case.log_in("alice", "wonderland"));
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    let after = stored().await;
    assert!(after.contains("m=2048,t=2"), "{after}");
    case.log_in("alice", "wonderland").await.unwrap();
    assert_eq!(stored().await, after);
}

#[tokio::test]
async fn refresh_tokens_rotate_and_carry_the_roles_of_now() {
    let case = case(settings()).await;
    let (first, refresh) = case.session().await;
    case.change(UserChange::Roles(vec!["user".to_owned()])).await;
    let (second, next) = pair(&case.refresh(&refresh).await.unwrap());
    assert_ne!(refresh, next);
    assert_eq!(roles(&case.holds(&second).unwrap()), ["user"]);
    let session = |access: &str| case.holds(access).unwrap().claims["sid"].clone();
    assert_eq!(session(&first), session(&second));
    pair(&case.refresh(&next).await.unwrap());
}

/// Whoever of the two is the thief: neither goes on.
#[tokio::test]
async fn a_refresh_token_used_twice_ends_its_session() {
    let case = case(settings()).await;
    let (other, other_refresh) = case.session().await;
    let (access, refresh) = case.session().await;
    let (newer, next) = pair(&case.refresh(&refresh).await.unwrap());
    let (reason, detail) = case.refresh(&refresh).await.unwrap_err();
    assert_eq!(reason, Reason::RefreshInvalid);
    assert!(detail.contains("used twice"), "{detail}");
    assert_eq!(case.refresh(&next).await.unwrap_err().0, Reason::RefreshInvalid);
    for token in [&access, &newer, &other] {
        assert!(case.holds(token).is_none());
    }
    // Kept also for tokens that were issued when `lifetime` was a longer one.
    let changes = case.store.changes(0, case.store.last_change().await.unwrap()).await.unwrap();
    let [revocation] = &changes.revocations[..] else { panic!("{changes:?}") };
    let kept = revocation.kept_until - revocation.issued_before;
    assert_eq!(u64::try_from(kept).unwrap(), crate::store::KEPT_OF_ALL.as_secs());
    // The user's other session goes on, and what it gets in this very second holds. An old one shown again does no harm.
    let (later, _) = pair(&case.refresh(&other_refresh).await.unwrap());
    assert!(case.holds(&later).is_some());
    assert_eq!(case.refresh(&refresh).await.unwrap_err().0, Reason::RefreshInvalid);
    assert!(case.holds(&later).is_some());
}

#[tokio::test]
async fn what_is_no_refresh_token_is_refused() {
    let case = case(settings()).await;
    let (access, refresh) = case.session().await;
    let unknown = super::secrets::RefreshToken::new().unwrap().text;
    for token in ["x", &access, &unknown, &refresh[4..]] {
        assert_eq!(case.refresh(token).await.unwrap_err().0, Reason::RefreshInvalid, "{token}");
    }
    let hash = password::hash("wonderland", CHEAP).unwrap();
    for change in [UserChange::Password(hash), UserChange::Disabled(true)] {
        let (_, refresh) = case.session().await;
        case.change(change).await;
        assert_eq!(case.refresh(&refresh).await.unwrap_err().0, Reason::RefreshInvalid);
    }
}

#[tokio::test]
async fn a_logout_ends_the_token_and_its_session() {
    let case = case(settings()).await;
    let bearer = |access: &str| format!("Bearer {access}");
    // By the access token alone.
    let (access, refresh) = case.session().await;
    assert_eq!(case.ask(Step::Logout, &[(AUTHORIZATION, &bearer(&access))], "").await, Ok(String::new()));
    assert!(case.holds(&access).is_none());
    assert_eq!(case.refresh(&refresh).await.unwrap_err().0, Reason::RefreshInvalid);
    // By the refresh token alone.
    let (_, refresh) = case.session().await;
    let body = json!({ "refresh_token": refresh }).to_string();
    assert_eq!(case.ask(Step::Logout, &[], body.clone()).await, Ok(String::new()));
    assert_eq!(case.refresh(&refresh).await.unwrap_err().0, Reason::RefreshInvalid);
    // Once more, and by one that was never given: there is nothing left to end.
    assert_eq!(case.ask(Step::Logout, &[], body).await, Ok(String::new()));
    assert_eq!(case.ask(Step::Logout, &[], r#"{"refresh_token":"x"}"#).await, Ok(String::new()));
    // By nothing, and by what proves nothing.
    assert_eq!(case.ask(Step::Logout, &[], "").await.unwrap_err().0, Reason::CredentialsRequired);
    let (access, _) = case.session().await;
    let forged = bearer(&access[..access.len() - 4]);
    assert_eq!(case.ask(Step::Logout, &[(AUTHORIZATION, &forged)], "").await.unwrap_err().0.status(), 401);
    assert!(case.holds(&access).is_some());
}

/// Made-up refresh tokens and tokens that have ended write nothing, and are slowed down; a token that holds is not.
#[tokio::test]
async fn a_logout_in_vain_writes_nothing_and_is_slowed_down() {
    let failures = Failures { per_address: Rate { count: 4, ..DAY }, ..settings().failures };
    let case = case(Settings { failures, ..settings() }).await;
    let (access, refresh) = case.session().await;
    let (last, _) = case.session().await;
    let bearer = format!("Bearer {access}");
    let end = async || case.ask(Step::Logout, &[(AUTHORIZATION, &bearer)], "").await;
    let mut changes = case.directory.subscribe();
    assert_eq!(end().await, Ok(String::new()));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let written = case.store.last_change().await.unwrap();
    for _ in 0..2 {
        assert_eq!(end().await, Ok(String::new()));
    }
    for token in [&refresh, &super::secrets::RefreshToken::new().unwrap().text] {
        let body = json!({ "refresh_token": token }).to_string();
        assert_eq!(case.ask(Step::Logout, &[], body).await, Ok(String::new()));
    }
    assert_eq!(end().await.unwrap_err().0, Reason::RateLimited);
    assert_eq!(case.store.last_change().await.unwrap(), written);
    assert!(!changes.has_changed().unwrap(), "streams are not asked again");
    let last = format!("Bearer {last}");
    assert_eq!(case.ask(Step::Logout, &[(AUTHORIZATION, &last)], "").await, Ok(String::new()));
}

#[tokio::test]
async fn a_logout_takes_the_token_of_the_cookie() {
    let mut case = case(settings()).await;
    let (access, refresh) = case.session().await;
    let (cookie, bearer) = (format!("a=b; session={access}"), format!("Bearer {access}"));
    let both = case.ask(Step::Logout, &[(COOKIE, &cookie), (AUTHORIZATION, &bearer)], "").await;
    assert_eq!(both.unwrap_err().0, Reason::CredentialsAmbiguous);
    case.login.settings.token_cookie = None;
    assert_eq!(
        case.ask(Step::Logout, &[(COOKIE, &cookie)], "").await.unwrap_err().0,
        Reason::CredentialsRequired
    );
    assert!(case.holds(&access).is_some());
    case.login.settings = settings();
    assert_eq!(case.ask(Step::Logout, &[(COOKIE, &cookie)], "").await, Ok(String::new()));
    assert!(case.holds(&access).is_none());
    assert_eq!(case.refresh(&refresh).await.unwrap_err().0, Reason::RefreshInvalid);
}

/// What ended here while the store was down is put there by the next try.
#[tokio::test]
async fn a_logout_is_stored_later_if_the_store_was_down() {
    let mut case = case(settings()).await;
    let (access, refresh) = case.session().await;
    let bearer = format!("Bearer {access}");
    case.login.store = Store::new(StoreUrl::Sqlite(case.directory_of_store.path().to_owned()));
    let ended = case.ask(Step::Logout, &[(AUTHORIZATION, &bearer)], "").await;
    assert_eq!(ended.unwrap_err().0, Reason::StoreUnavailable);
    case.login.store = case.store.clone();
    let before = case.store.last_change().await.unwrap();
    assert_eq!(case.ask(Step::Logout, &[(AUTHORIZATION, &bearer)], "").await, Ok(String::new()));
    assert!(case.store.last_change().await.unwrap() > before);
    assert_eq!(case.refresh(&refresh).await.unwrap_err().0, Reason::RefreshInvalid);
}

#[tokio::test]
async fn failures_are_slowed_down_before_any_password_work() {
    let failures = Failures { per_account: Rate { count: 3, ..DAY }, per_address: Rate { count: 6, ..DAY } };
    let case = case(Settings { failures, ..settings() }).await;
    for _ in 0..3 {
        assert_eq!(case.log_in("carol", "x").await.unwrap_err().0, Reason::LoginFailed);
    }
    let (_, checked) = case.metrics.logins().passwords();
    assert_eq!(case.log_in("carol", "x").await.unwrap_err().0, Reason::RateLimited);
    assert_eq!(case.metrics.logins().passwords().1, checked);
    for _ in 0..50 {
        case.log_in("alice", "wonderland").await.unwrap();
    }
    for _ in 0..3 {
        assert_eq!(case.log_in("alice", "x").await.unwrap_err().0, Reason::LoginFailed);
    }
    assert_eq!(case.log_in("dave", "x").await.unwrap_err().0, Reason::RateLimited, "the address");
}

#[tokio::test]
async fn a_store_that_is_down_is_a_503_and_no_failure() {
    let failures = Failures { per_account: Rate { count: 1, ..DAY }, per_address: Rate { count: 1, ..DAY } };
    let mut case = case(Settings { failures, ..settings() }).await;
    let (access, refresh) = case.session().await;
    case.login.store = Store::new(StoreUrl::Sqlite(case.directory_of_store.path().to_owned()));
    for _ in 0..3 {
        assert_eq!(case.log_in("alice", "wonderland").await.unwrap_err().0, Reason::StoreUnavailable);
        assert_eq!(case.refresh(&refresh).await.unwrap_err().0, Reason::StoreUnavailable);
    }
    assert!(case.holds(&access).is_some(), "everything else goes on");
    let bearer = format!("Bearer {access}");
    let ended = case.ask(Step::Logout, &[(AUTHORIZATION, &bearer)], "").await;
    assert_eq!(ended.unwrap_err().0, Reason::StoreUnavailable);
    assert!(case.holds(&access).is_none(), "here it ended all the same");
}

#[tokio::test]
async fn keys_are_published() {
    let case = case(settings()).await;
    let jwks: Value = serde_json::from_str(&case.ask(Step::Keys, &[], "").await.unwrap()).unwrap();
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 1);
    assert_eq!(jwks["keys"][0]["kty"], "EC");
    assert!(jwks["keys"][0].get("d").is_none());
    assert!(Step::ALL.iter().all(|step| case.login.offers(*step)));
}

#[test]
fn one_bearer_token_is_read() {
    let read = |lines: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, HeaderValue::from_static(line));
        }
        super::bearer(&headers).map_err(|refusal| refusal.reason)
    };
    assert_eq!(read(&[]), Ok(None));
    assert_eq!(read(&["Bearer a.b.c"]), Ok(Some("a.b.c".into())));
    assert_eq!(read(&["bEARER  a.b.c "]), Ok(Some("a.b.c".into())));
    assert_eq!(read(&["Bearer a", "Bearer b"]), Err(Reason::CredentialsAmbiguous));
    assert_eq!(read(&["Basic a"]), Err(Reason::TokenMalformed));
    assert_eq!(read(&["Bearer"]), Err(Reason::TokenMalformed));
}

/// Tokens count in seconds: one of the second in which all of the user's were revoked would go with them.
#[tokio::test]
async fn what_is_issued_right_after_a_revocation_holds() {
    let case = case(settings()).await;
    let (old, refresh) = case.session().await;
    let until = clock::unix_now() + 3600;
    let revoke = async |before: i64| {
        case.store.revoke_subject("local", "alice", before, until).await.unwrap();
        case.directory.revoke_subject("local", "alice", before, until);
    };
    revoke(clock::unix_now()).await;
    let (access, _) = case.session().await;
    let token = case.holds(&access).unwrap();
    assert!(token.issued_at.unwrap() <= clock::unix_now(), "it is not from the future");
    assert!(case.holds(&old).is_none());
    revoke(clock::unix_now()).await;
    assert!(case.holds(&access).is_none());
    let (newer, next) = pair(&case.refresh(&refresh).await.unwrap());
    assert!(case.holds(&newer).is_some());
    // Whoever is told by another process' clock, which is far ahead, does not wait for it.
    let began = clock::now();
    revoke(clock::unix_now() + 600).await;
    assert_eq!(case.log_in("alice", "wonderland").await.unwrap_err().0, Reason::LoginBusy);
    assert_eq!(case.refresh(&next).await.unwrap_err().0, Reason::LoginBusy);
    assert!(clock::now() - began < Duration::from_secs(2));
}

#[tokio::test]
async fn a_password_changed_while_a_login_waits_ends_it() {
    let case = case(settings()).await;
    let now = clock::unix_now();
    case.store.revoke_subject("local", "alice", now + 1, now + 3600).await.unwrap();
    let change = async {
        // The login is past its password by then: it waits for a whole second at least.
        tokio::time::sleep(Duration::from_millis(600)).await;
        case.change(UserChange::Password(password::hash("other", CHEAP).unwrap())).await;
    };
    let (outcome, ()) = tokio::join!(case.log_in("alice", "wonderland"), change);
    let (reason, detail) = outcome.unwrap_err();
    assert_eq!((reason, &*detail), (Reason::LoginFailed, "the user was changed during the login"));
}

/// A session outlives its access tokens: one that has ended still ends it, and revokes nothing else.
#[tokio::test]
async fn a_logout_takes_a_token_that_has_expired() {
    let case = case(settings()).await;
    let (access, refresh) = case.session().await;
    let provider = &case.verifier.all()[0];
    let mut claims = case.holds(&access).unwrap().claims.clone();
    let now = clock::unix_now();
    claims.insert("iat".to_owned(), (now - 90_000).into());
    claims.insert("exp".to_owned(), (now - 86_400).into());
    let expired = provider.issuer().unwrap().issue(&claims).unwrap();
    let logout =
        async |token: &str| case.ask(Step::Logout, &[(AUTHORIZATION, &format!("Bearer {token}"))], "").await;
    // Badly signed, of another audience, or from the future at its end: never.
    let last = expired.len() - 10;
    let other = if expired.as_bytes()[last] == b'A' { 'B' } else { 'A' };
    let forged = format!("{}{other}{}", &expired[..last], &expired[last + 1..]);
    assert_eq!(logout(&forged).await.unwrap_err().0, Reason::TokenInvalid);
    for (name, value) in [("aud", Value::from("another")), ("nbf", (now - 1000).into())] {
        let mut wrong = claims.clone();
        wrong.insert(name.to_owned(), value);
        let wrong = provider.issuer().unwrap().issue(&wrong).unwrap();
        assert_eq!(logout(&wrong).await.unwrap_err().0.status(), 401, "{name}");
    }
    assert!(case.holds(&access).is_some());
    let written = case.directory.facts().revoked_tokens;
    assert_eq!(logout(&expired).await, Ok(String::new()));
    assert_eq!(case.directory.facts().revoked_tokens, written, "what has expired is not revoked");
    assert_eq!(case.refresh(&refresh).await.unwrap_err().0, Reason::RefreshInvalid);
    // It opens nothing.
    let verified = case.verifier.verify(&expired, &crate::base::clock::Moment::now());
    assert!(
        matches!(verified, provider::Verified::Refused(refusal) if refusal.reason == Reason::TokenExpired)
    );
}
