//! Providers: who vouches for tokens, with which keys, and under which rules.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;

use super::cache::TokenCache;
use super::jwks::{KeyWait, Remote};
use super::jwt::algorithm::Algorithms;
use super::jwt::{Jws, Rules, json};
use super::keys::{KeySet, Unverified};
use super::signing::Issuer;
use super::token::{Refusal, Token};
use crate::base::clock::{self, Moment};
use crate::base::reason::Reason;

/// Everything the configuration says about one provider, checked.
#[derive(Debug)]
pub struct Settings {
    /// Its name.
    pub name: Arc<str>,
    /// What its tokens have to say.
    pub rules: Rules,
    /// What its tokens may be signed with.
    pub algorithms: Algorithms,
    /// Where its keys come from.
    pub keys: Keys,
    /// Signs tokens of its own.
    pub issuer: Option<Issuer>,
    /// The consumer that all its tokens are.
    pub consumer: Option<Arc<str>>,
    /// A signing key that is in no file yet.
    pub generated: Option<Generated>,
}

/// A signing key that was made for a file that is not there: see [`Provider::keep_generated`].
pub struct Generated {
    /// The file.
    pub path: PathBuf,
    /// What is to stand in it.
    pub pem: String,
}

impl std::fmt::Debug for Generated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generated").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Where the keys of a provider come from.
#[derive(Debug)]
pub enum Keys {
    /// They are part of the configuration.
    Fixed(KeySet),
    /// They are fetched.
    Fetched(Arc<Remote>),
}

/// Somebody who vouches for tokens. Outlives a reload that does not change it.
#[derive(Debug)]
pub struct Provider {
    name: Arc<str>,
    rules: Rules,
    algorithms: Algorithms,
    keys: Keys,
    issuer: Option<Issuer>,
    consumer: Option<Arc<str>>,
    generated: Mutex<Option<Generated>>,
    cache: TokenCache,
    /// The keys that the tokens in `cache` were verified with.
    cached: AtomicU64,
}

/// What came of verifying a token.
#[derive(Debug)]
pub enum Verified {
    /// It is good. Whether it was revoked is another question, to be asked each time.
    Ok(Arc<Token>),
    /// It is not.
    Refused(Refusal),
    /// Its key may be on its way: wait, then verify again. [`Providers::verify_within`] does.
    Wait(KeyWait),
}

impl Provider {
    /// The provider that `settings` describe.
    pub fn new(settings: Settings) -> Self {
        let Settings { name, rules, algorithms, keys, issuer, consumer, generated } = settings;
        let (generated, cache) = (Mutex::new(generated), TokenCache::default());
        Self { name, rules, algorithms, keys, issuer, consumer, generated, cache, cached: AtomicU64::new(0) }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What `iss` of its tokens is; `None` = anything.
    pub fn issuer_claim(&self) -> Option<&str> {
        self.rules.issuer.as_deref()
    }

    /// What one of `aud` of its tokens is; empty = anything.
    pub fn audience(&self) -> &[Box<str>] {
        &self.rules.audience
    }

    /// Seconds for which its tokens are taken after their end, as clocks differ.
    pub fn leeway(&self) -> i64 {
        self.rules.leeway
    }

    /// The name of the claim or the path of its roles.
    pub fn roles_claim(&self) -> &str {
        &self.rules.roles_claim
    }

    /// What its tokens may be signed with.
    pub fn algorithms(&self) -> Algorithms {
        self.algorithms
    }

    /// The consumer that all its tokens are.
    pub fn consumer(&self) -> Option<&Arc<str>> {
        self.consumer.as_ref()
    }

    /// Signs tokens of this provider; `None` if it cannot.
    pub fn issuer(&self) -> Option<&Issuer> {
        self.issuer.as_ref()
    }

    /// How its keys stand, for `/readyz?verbose`.
    pub fn status(&self, now: Instant) -> String {
        match &self.keys {
            Keys::Fixed(set) => format!("{} keys of the configuration", set.len()),
            Keys::Fetched(remote) => remote.status(now),
        }
    }

    /// Whether its keys come over the network.
    pub fn is_fetched(&self) -> bool {
        matches!(self.keys, Keys::Fetched(_))
    }

    /// Whether tokens can be verified at `now`, so far as that depends on keys that are fetched.
    pub fn has_keys(&self, now: Instant) -> bool {
        match &self.keys {
            Keys::Fixed(_) => true,
            Keys::Fetched(remote) => remote.held().usable_until.is_some_and(|until| now < until),
        }
    }

    /// Writes the signing key that was made for it into its file, for nobody else to read; `own` gives the file to whom the
    /// process is going to be. Compiling a configuration makes no file: this is for who puts it into force.
    ///
    /// # Errors
    /// The file system says no, or the file is there by now. The text names the file.
    pub fn keep_generated(&self, own: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), String> {
        let mut generated = self.generated.lock();
        let Some(Generated { path, pem }) = &*generated else { return Ok(()) };
        let write = || {
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                std::fs::create_dir_all(parent)?;
            }
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(pem.as_bytes())?;
            file.sync_all()?;
            own(path)
        };
        write().map_err(|error| {
            format!(
                "the signing key of the provider \"{}\" cannot be written to {}: {error}",
                self.name,
                path.display()
            )
        })?;
        *generated = None;
        Ok(())
    }

    /// Begins what runs beside requests: fetching keys. On the current runtime.
    pub fn start(&self) {
        if let Keys::Fetched(remote) = &self.keys {
            remote.start();
        }
    }

    /// Waits until keys were fetched for the first time, or could not be.
    pub async fn warm(&self) {
        if let Keys::Fetched(remote) = &self.keys {
            remote.warm().await;
        }
    }

    /// How many verified tokens are kept, and how much memory they take.
    pub fn cached(&self) -> (usize, usize) {
        self.cache.usage()
    }

    /// The keys there are, and their generation; `None` if there are none that may be used.
    fn keys_at(&self, now: Instant) -> Option<(KeysNow<'_>, u64)> {
        match &self.keys {
            Keys::Fixed(set) => Some((KeysNow::Fixed(set), 0)),
            Keys::Fetched(remote) => {
                let held = remote.held();
                let generation = held.generation;
                held.usable_until
                    .is_some_and(|until| now < until)
                    .then(|| (KeysNow::Fetched(held.set.clone()), generation))
            }
        }
    }

    /// The generation of the keys that may be used at `now`.
    fn generation_at(&self, now: Instant) -> Option<u64> {
        match &self.keys {
            Keys::Fixed(_) => Some(0),
            Keys::Fetched(remote) => {
                let held = remote.held();
                held.usable_until.is_some_and(|until| now < until).then_some(held.generation)
            }
        }
    }

    /// `compact`, if it was verified before and still holds.
    fn cached_token(&self, compact: &str, at: &Moment, unix_now: i64) -> Option<Arc<Token>> {
        self.cache.get(compact, self.generation_at(at.now)?, unix_now)
    }

    /// Verifies `compact`, taken apart as `jws`, with `claims` in it.
    fn verify_cold(
        &self,
        compact: &str,
        jws: Jws<'_>,
        claims: serde_json::Map<String, serde_json::Value>,
        at: &Moment,
        unix_now: i64,
    ) -> Result<Arc<Token>, Outcome> {
        let generation = self.verify_signed(&jws, at)?;
        let token = Arc::new(self.rules.check(&self.name, claims, jws.payload, unix_now)?);
        if self.cached.swap(generation, Relaxed) != generation {
            // Found by nobody any more: this only gives the memory back.
            self.cache.clear();
        }
        let until = token.expires_at.map_or(i64::MAX, |exp| exp.saturating_add(self.rules.leeway));
        self.cache.put(compact, &token, generation, until, unix_now);
        Ok(token)
    }

    /// Verifies the signature of `jws`, and what comes before it; gives the generation of the keys.
    fn verify_signed(&self, jws: &Jws<'_>, at: &Moment) -> Result<u64, Outcome> {
        // Before anything is computed or asked for.
        if !self.algorithms.contains(jws.algorithm) {
            let detail = format!("algorithm {} is not among those allowed", jws.algorithm.as_str());
            return Err(Refusal::new(Reason::TokenInvalid, detail).into());
        }
        self.rules.check_type(jws.typ.as_deref())?;
        let Some((keys, generation)) = self.keys_at(at.now) else {
            return Err(self.without_key(jws, Refusal::new(Reason::KeysUnavailable, "no keys"), at));
        };
        match keys.set().verify(jws, self.algorithms) {
            Ok(()) => Ok(generation),
            Err(Unverified::Refused(refusal)) => Err(refusal.into()),
            Err(Unverified::UnknownKey(refusal)) => Err(self.without_key(jws, refusal, at)),
        }
    }

    fn without_key(&self, jws: &Jws<'_>, refusal: Refusal, at: &Moment) -> Outcome {
        match &self.keys {
            Keys::Fixed(_) => Outcome::Refused(refusal),
            Keys::Fetched(remote) => match remote.unknown(jws.key_id.as_deref(), refusal, at.now) {
                Ok(wait) => Outcome::Wait(wait),
                Err(refusal) => Outcome::Refused(refusal),
            },
        }
    }
}

enum KeysNow<'p> {
    Fixed(&'p KeySet),
    Fetched(Arc<KeySet>),
}

impl KeysNow<'_> {
    fn set(&self) -> &KeySet {
        match self {
            Self::Fixed(set) => set,
            Self::Fetched(set) => set,
        }
    }
}

/// Why there is no token (yet).
enum Outcome {
    Refused(Refusal),
    Wait(KeyWait),
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The providers whose tokens one route takes.
#[derive(Debug, Clone, Default)]
pub struct Providers {
    all: Box<[Arc<Provider>]>,
}

/// A token taken apart, its claims, and who is to verify it.
type Read<'t, 'p> = (Jws<'t>, serde_json::Map<String, serde_json::Value>, &'p Arc<Provider>);

/// How often a token is verified again because of keys that came in the meantime.
const WAITS_MAX: usize = 3;

impl Providers {
    /// Takes tokens of `all`, which can be told apart: see [`Providers::alike`].
    pub fn new(all: impl IntoIterator<Item = Arc<Provider>>) -> Self {
        Self { all: all.into_iter().collect() }
    }

    /// The first two of `all` whose tokens nobody can tell apart before they are verified: of the same issuer, or both of
    /// any. Of such two the first would judge alone.
    pub fn alike(all: &[Arc<Provider>]) -> Option<(usize, usize)> {
        (0..all.len()).find_map(|second| {
            let issuer = all.get(second)?.issuer_claim();
            let first = all.iter().take(second).position(|other| other.issuer_claim() == issuer)?;
            Some((first, second))
        })
    }

    /// The providers, in the order given.
    pub fn all(&self) -> &[Arc<Provider>] {
        &self.all
    }

    /// Verifies a token in compact form. Costs a lookup if that was done before.
    ///
    /// Who is to verify it is chosen by `iss`, literally: the provider of that issuer, else the one that takes any. Another
    /// one is never tried. Whether the token was revoked is not asked.
    pub fn verify(&self, compact: &str, at: &Moment) -> Verified {
        let unix_now = unix_seconds(at);
        for provider in &self.all {
            // Another route may have had it verified by a provider that this one would not have chosen.
            if let Some(token) = provider.cached_token(compact, at, unix_now)
                && self.choose(token.claims.get("iss")).is_ok_and(|chosen| Arc::ptr_eq(chosen, provider))
            {
                return Verified::Ok(token);
            }
        }
        let (jws, claims, provider) = match self.read(compact) {
            Ok(read) => read,
            Err(refusal) => return Verified::Refused(refusal),
        };
        match provider.verify_cold(compact, jws, claims, at, unix_now) {
            Ok(token) => Verified::Ok(token),
            Err(Outcome::Refused(refusal)) => Verified::Refused(refusal.by(&provider.name)),
            Err(Outcome::Wait(wait)) => Verified::Wait(wait),
        }
    }

    /// Takes a token apart, and chooses who is to verify it.
    fn read<'t>(&self, compact: &'t str) -> Result<Read<'t, '_>, Refusal> {
        let jws = Jws::parse(compact)?;
        let claims = json::object(&jws.payload)
            .map_err(|why| Refusal::new(Reason::TokenMalformed, format!("payload: {why}")))?;
        let provider = self.choose(claims.get("iss"))?;
        Ok((jws, claims, provider))
    }

    /// A token that was good until it ended, which may be long ago: for whoever wants to end what is left of it, and
    /// nothing else. It is verified each time.
    ///
    /// # Errors
    /// It is not well signed by a key of today, or was never good.
    pub fn verify_ended(&self, compact: &str, at: &Moment) -> Result<Token, Refusal> {
        let (jws, claims, provider) = self.read(compact)?;
        match provider.verify_signed(&jws, at) {
            Ok(_) => provider.rules.check_ended(&provider.name, claims, jws.payload, unix_seconds(at)),
            Err(Outcome::Refused(refusal)) => Err(refusal),
            Err(Outcome::Wait(wait)) => Err(wait.refusal()),
        }
        .map_err(|refusal| refusal.by(&provider.name))
    }

    /// Like [`Providers::verify`], and waits for keys that are on their way, no longer than to `until`.
    ///
    /// # Errors
    /// Why the token is refused.
    pub async fn verify_within(&self, compact: &str, until: Option<Instant>) -> Result<Arc<Token>, Refusal> {
        let mut last = None;
        for _ in 0..=WAITS_MAX {
            match self.verify(compact, &Moment::now()) {
                Verified::Ok(token) => return Ok(token),
                Verified::Refused(refusal) => return Err(refusal),
                Verified::Wait(wait) => {
                    last = Some(wait.refusal());
                    if until.is_some_and(|until| clock::now() >= until) {
                        break;
                    }
                    wait.done(until).await;
                }
            }
        }
        Err(last.unwrap_or_else(|| Refusal::new(Reason::KeysUnavailable, "keys did not come in time")))
    }

    fn choose(&self, issuer: Option<&serde_json::Value>) -> Result<&Arc<Provider>, Refusal> {
        // One alone says more clearly what is wrong.
        if let [only] = &self.all[..] {
            return Ok(only);
        }
        let issuer = issuer.and_then(serde_json::Value::as_str);
        let named = self.all.iter().find(|provider| issuer.is_some() && provider.issuer_claim() == issuer);
        named.or_else(|| self.all.iter().find(|provider| provider.issuer_claim().is_none())).ok_or_else(
            || {
                let detail = match issuer {
                    Some(issuer) => format!("iss {} is nobody's here", super::jwt::compact::shown(issuer)),
                    None => "iss is missing, and several issuers are trusted".to_owned(),
                };
                Refusal::new(Reason::TokenInvalid, detail)
            },
        )
    }
}

#[expect(clippy::cast_possible_truncation, reason = "seconds of this era fit")]
fn unix_seconds(at: &Moment) -> i64 {
    clock::unix_seconds(at.wall) as i64
}
