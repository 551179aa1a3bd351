//! `edgeward token …`.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::args::Token as Command;
use super::{Failure, Session, missing, moment, on_store, report};
use crate::app::Fetcher;
use crate::base::clock::{self, Moment};
use crate::base::decode::quote;
use crate::base::out;
use crate::cli::{PROBLEMS, fail, print, run};
use crate::config::{self, Compiled, Runtime, render};
use crate::identity::directory::Directory;
use crate::identity::live::Live;
use crate::identity::provider::{Provider, Providers, Verified};
use crate::identity::sync::Follower;
use crate::identity::token::Token;
use crate::store::Store;

/// Longest token that is read.
const TOKEN_BYTES_MAX: u64 = 1 << 20;
/// How long the end of a second is waited for: these together make 3 seconds, the rest of it and clocks that differ.
const SETTLE_TRIES: usize = 150;
const SETTLE_PAUSE: Duration = Duration::from_millis(20);
/// How long keys may take to be fetched.
const KEYS_TIMEOUT: Duration = Duration::from_secs(5);

/// Carries `command` out.
pub(in crate::cli) fn run(config: Option<&Path>, command: Command, json: bool) -> u8 {
    match command {
        Command::Revoke { jti, subject, provider, keep } => on_store(config, json, async |session| {
            let kept_until = session.after(keep);
            revoke(session, jti.as_deref(), subject.as_deref(), provider.as_deref(), kept_until).await
        }),
        Command::Verify { token } => match token.map_or_else(read_token, Ok) {
            Ok(token) => with_providers(config, async |setting| verify(setting, token.trim(), json).await),
            Err(error) => fail(&format!("cannot read the token: {error}")),
        },
        Command::Issue { provider, subject, roles, lifetime, claims } => {
            with_providers(config, async |setting| {
                let wanted = Wanted { provider, subject, roles, lifetime, claims };
                report(issue(setting, wanted, json).await)
            })
        }
    }
}

async fn revoke(
    session: &Session,
    jti: Option<&str>,
    subject: Option<&str>,
    provider: Option<&str>,
    kept_until: i64,
) -> Result<String, Failure> {
    if let Some(provider) = provider {
        session.check_provider(provider)?;
    }
    let of = provider.unwrap_or_default();
    if let Some(jti) = jti {
        session.store.revoke_token(jti, of, kept_until).await?;
    }
    if let Some(subject) = subject {
        session.store.revoke_subject(of, subject, session.now, kept_until).await?;
    }
    session.say(
        || {
            json!({
                "jti": jti,
                "subject": subject,
                "provider": provider,
                "issued_before": subject.map(|_| moment(session.now)),
                "kept_until": moment(kept_until),
            })
        },
        || {
            let whose =
                provider.map_or_else(|| "any provider".to_owned(), |name| format!("the provider {name}"));
            let what = match (jti, subject) {
                (Some(jti), _) => format!("the token {jti} of {whose} is revoked"),
                (None, subject) => format!(
                    "tokens of {} of {whose} that were issued up to {} are revoked",
                    subject.unwrap_or_default(),
                    moment(session.now)
                ),
            };
            format!("{what}; kept until {}\n", moment(kept_until))
        },
    )
}

fn read_token() -> std::io::Result<String> {
    let mut text = String::new();
    std::io::stdin().lock().take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The providers of a configuration without errors, and its store.
struct Setting {
    providers: Vec<Arc<Provider>>,
    store: Option<Store>,
}

fn with_providers(config: Option<&Path>, work: impl AsyncFnOnce(Setting) -> u8) -> u8 {
    let path = match run::find(config) {
        Ok(path) => path,
        Err(status) => return status,
    };
    run::install_provider();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let _entered = runtime.enter();
    let detached = Runtime::for_questions();
    let identity = Live::new(detached.metrics.clone(), Arc::new(Fetcher::new()));
    let compiled = config::load(&path, config::surroundings()).compile(&Runtime { identity, ..detached });
    let Compiled { sources, diagnostics, snapshot: Some(snapshot), .. } = compiled else {
        let colour = out::complaints_are_read();
        out::complain(&render::text(&compiled.diagnostics, &compiled.sources, colour));
        return PROBLEMS;
    };
    drop((sources, diagnostics));
    let providers = snapshot.providers.values().cloned().collect();
    runtime.block_on(work(Setting { providers, store: snapshot.store.clone() }))
}

async fn verify(setting: Setting, compact: &str, json: bool) -> u8 {
    for provider in &setting.providers {
        provider.start();
    }
    // What is not there by then is not waited for again below.
    let warm = futures_util::future::join_all(setting.providers.iter().map(|provider| provider.warm()));
    let fetched = tokio::time::timeout(KEYS_TIMEOUT, warm).await.is_ok();
    let providers = Providers::new(setting.providers.iter().cloned());
    let verified = match providers.verify(compact, &Moment::now()) {
        Verified::Wait(wait) if fetched => {
            wait.done(Some(clock::now() + KEYS_TIMEOUT)).await;
            providers.verify(compact, &Moment::now())
        }
        verified => verified,
    };
    let (token, problem) = match verified {
        Verified::Ok(token) => {
            let problem = revoked(setting.store, &token).await;
            (Some(token), problem)
        }
        Verified::Refused(refusal) => (None, Some((refusal.reason.code().to_owned(), refusal.detail))),
        Verified::Wait(_) => {
            (None, Some(("auth.keys_unavailable".to_owned(), "the provider's keys do not come".to_owned())))
        }
    };
    let text = if json {
        let value = json!({
            "valid": problem.is_none(),
            "code": problem.as_ref().map(|(code, _)| code),
            "detail": problem.as_ref().map(|(_, detail)| detail),
            "provider": token.as_ref().map(|token| token.provider.to_string()),
            "claims": token.as_ref().map(|token| Value::Object(token.claims.clone())),
        });
        format!("{value:#}\n")
    } else {
        let claims = token.as_ref().map(|token| format!("{:#}\n", Value::Object(token.claims.clone())));
        let verdict = match (&token, &problem) {
            (Some(token), None) => format!("valid: a token of {}\n", token.provider),
            (_, Some((code, detail))) => format!("not valid: {detail} ({code})\n"),
            (None, None) => String::new(),
        };
        verdict + &claims.unwrap_or_default()
    };
    let printed = print(&text);
    if problem.is_some() { PROBLEMS } else { printed }
}

/// Whether the store says that the token was revoked; it may also not answer.
async fn revoked(store: Option<Store>, token: &Token) -> Option<(String, String)> {
    let directory = Arc::new(Directory::default());
    if let Err(error) = Follower::new(store?, directory.clone()).catch_up().await {
        return Some((
            "store.unavailable".to_owned(),
            format!("whether it was revoked is not known: {error}"),
        ));
    }
    let by = directory.revocation_of(token)?;
    Some(("auth.token_revoked".to_owned(), format!("it was revoked {by}")))
}

/// A token to be issued.
struct Wanted {
    provider: Option<String>,
    subject: String,
    roles: Vec<String>,
    lifetime: Duration,
    claims: Vec<String>,
}

async fn issue(setting: Setting, wanted: Wanted, json: bool) -> Result<String, Failure> {
    let provider = issuing(&setting.providers, wanted.provider.as_deref())?;
    let issuer = provider.issuer().ok_or_else(|| {
        Failure(format!("the provider {} has neither a signing key nor a secret", quote(provider.name())))
    })?;
    let now = settled(setting.store.as_ref(), provider.name(), &wanted.subject).await?;
    let lifetime = i64::try_from(wanted.lifetime.as_secs()).unwrap_or(i64::MAX);
    let id = crate::telemetry::request_id::RequestId::random().to_string();
    let mut claims = Map::new();
    let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    if let Some(issuer) = provider.issuer_claim() {
        put("iss", issuer.into());
    }
    put("sub", wanted.subject.into());
    match provider.audience() {
        [] => {}
        [one] => drop(put("aud", (**one).into())),
        several => drop(put("aud", several.iter().map(|one| Value::from(&**one)).collect())),
    }
    put("iat", now.into());
    put("exp", now.saturating_add(lifetime).into());
    put("jti", id.into());
    if !wanted.roles.is_empty() {
        put(provider.roles_claim(), wanted.roles.into());
    }
    for claim in &wanted.claims {
        let (name, value) =
            claim.split_once('=').ok_or_else(|| Failure(format!("{} is not NAME=VALUE", quote(claim))))?;
        put(name, serde_json::from_str(value).unwrap_or_else(|_| value.into()));
    }
    let token = issuer.issue(&claims).map_err(|error| Failure(format!("it cannot be signed: {error}")))?;
    Ok(if json {
        format!("{:#}\n", json!({ "token": token, "claims": claims }))
    } else {
        format!("{token}\n")
    })
}

/// The moment to issue a token of `subject` at: in the second in which all of them were revoked, the next one. A store that
/// does not answer keeps nobody from issuing.
async fn settled(store: Option<&Store>, provider: &str, subject: &str) -> Result<i64, Failure> {
    let Some(store) = store else { return Ok(clock::unix_now()) };
    let before = store.subject_revoked_before(provider, subject).await.ok().flatten();
    for _ in 0..SETTLE_TRIES {
        if before.is_none_or(|before| before < clock::unix_now()) {
            return Ok(clock::unix_now());
        }
        tokio::time::sleep(SETTLE_PAUSE).await;
    }
    let before = before.unwrap_or_default();
    Err(Failure(format!(
        "the tokens of {} are revoked up to {}: one that is issued now would not hold",
        quote(subject),
        moment(before)
    )))
}

/// The provider called `name`, or the only one that can issue.
fn issuing<'a>(all: &'a [Arc<Provider>], name: Option<&str>) -> Result<&'a Arc<Provider>, Failure> {
    if let Some(name) = name {
        return all.iter().find(|one| **one.name() == *name).ok_or_else(|| missing("provider", name));
    }
    let mut able = all.iter().filter(|one| one.issuer().is_some());
    match (able.next(), able.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Failure("no provider has a signing key or a secret".to_owned())),
        (Some(one), Some(other)) => Err(Failure(format!(
            "several providers can issue tokens ({}, {}, …): name one with --provider",
            one.name(),
            other.name()
        ))),
    }
}
