//! Who is known: consumers, their keys and subjects, and what was revoked. Lives as long as the process.
//!
//! It holds what the configuration says and what the store says, and follows both (see [`super::sync`]). Requests ask it
//! without a lock: a question reads the index of that moment, and the next request the next one.
//!
//! A consumer that stands in both is the one of the configuration, with the groups, the plan, the keys and the subjects
//! written there; keys that the store has for it are its, too. A subject that stands in both is whose the configuration
//! says.

mod stored;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::stored::{StoredKey, Use};
use super::consumer::{ApiKey, Consumer};
use super::revoked::RevokedSet;
use super::token::{Refusal, RevokedBy, Token};
use crate::base::reason::Reason;
use crate::base::secret::Secret;
use crate::cluster::revocations::{Channel, Revocation};
use crate::store::changes::Changes;
use crate::store::{ConsumerRow, KEPT_OF_ALL, KeyRow, Revoked};

/// Longest leeway of a provider.
pub const LEEWAY_MAX: Duration = Duration::from_secs(KEPT_AFTER_END.unsigned_abs());
/// Seconds for which a revocation is kept beyond the end of its tokens: as long as any provider may take them then.
const KEPT_AFTER_END: i64 = 3600;
/// Seconds within which a key's use is not recorded again.
const USE_RECORDED_EVERY: i64 = 30;

/// SHA-256 of an API key.
type KeyHash = [u8; 32];

/// Who is known at the moment.
#[derive(Debug)]
pub struct Directory {
    index: ArcSwap<Index>,
    tokens: RevokedSet,
    subjects: RevokedSet,
    /// Keys of stores by their visible beginning, with the end that other instances or the store told of: see [`ends`].
    keys: RevokedSet,
    /// Consumers of stores, with the moment up to which they are no more.
    consumers: RevokedSet,
    known: Mutex<Known>,
    generation: watch::Sender<u64>,
    /// Tells other instances what was revoked.
    channel: OnceLock<Arc<Channel>>,
}

/// What the configuration says of consumers.
#[derive(Debug, Default)]
pub struct Configured {
    /// In the order of the file.
    pub consumers: Vec<ConfiguredConsumer>,
}

/// A consumer of the configuration.
#[derive(Debug)]
pub struct ConfiguredConsumer {
    /// What is known of it.
    pub consumer: Arc<Consumer>,
    /// Its keys, as they are shown by clients.
    pub keys: Vec<Secret>,
    /// Whose tokens are its: provider and `sub`.
    pub subjects: Vec<(String, String)>,
}

/// What both say, from which the index is made.
#[derive(Debug, Default)]
struct Known {
    configured: Arc<Configured>,
    /// Whether there is a store that was never read.
    awaits_store: bool,
    /// Each with the moment since which it is there.
    consumers: HashMap<String, (Arc<Consumer>, i64)>,
    subjects: HashMap<(String, String), String>,
    keys: HashMap<String, Arc<StoredKey>>,
}

/// What requests ask.
#[derive(Debug, Default)]
struct Index {
    consumers: HashMap<Arc<str>, Arc<Consumer>>,
    keys: HashMap<KeyHash, Entry>,
    /// By provider, then by subject.
    subjects: HashMap<Box<str>, HashMap<Box<str>, Arc<Consumer>>>,
    awaits_store: bool,
    /// Names that stand in both the configuration and the store.
    clashes: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    /// `None` if its consumer is unknown.
    key: Option<Arc<ApiKey>>,
    id: Box<str>,
    revoked_at: Option<i64>,
    used: Option<Arc<Use>>,
}

/// What there is, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Consumers of both.
    pub consumers: usize,
    /// API keys of both, also those that do not hold any more.
    pub keys: usize,
    /// Revoked tokens.
    pub revoked_tokens: usize,
    /// Subjects whose tokens were revoked up to a moment.
    pub revoked_subjects: usize,
    /// What revocations take of memory.
    pub revoked_bytes: usize,
    /// Consumers that stand in the configuration and in the store.
    pub clashes: Vec<Arc<str>>,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            index: ArcSwap::default(),
            tokens: RevokedSet::default(),
            subjects: RevokedSet::default(),
            keys: RevokedSet::default(),
            consumers: RevokedSet::default(),
            known: Mutex::default(),
            generation: watch::Sender::new(0),
            channel: OnceLock::new(),
        }
    }
}

impl Directory {
    /// The key that a client shows, and whose it is.
    ///
    /// # Errors
    /// Unknown, expired, revoked, or its consumer is gone; or the store was never read, and the key may stand there.
    pub fn key(&self, presented: &str, unix_now: i64) -> Result<Arc<ApiKey>, Refusal> {
        let index = self.index.load();
        let invalid = |detail: String| Refusal::new(Reason::ApiKeyInvalid, detail);
        let Some(entry) = index.keys.get(&hash_key(presented)) else {
            return Err(if index.awaits_store {
                Refusal::new(
                    Reason::StoreUnavailable,
                    "the store was not read yet, and the key is not configured",
                )
            } else {
                invalid("no such API key".to_owned())
            });
        };
        if let Some(at) = entry.revoked_at {
            return Err(invalid(format!("the API key {} was revoked {} s ago", entry.id, unix_now - at)));
        }
        if let Some(end) = self.told_end(entry).filter(|end| *end <= unix_now) {
            let detail =
                format!("the API key {} was ended {} s ago, another instance says", entry.id, unix_now - end);
            return Err(invalid(detail));
        }
        let Some(key) = &entry.key else {
            return Err(invalid(format!("the consumer of the API key {} is not there", entry.id)));
        };
        if let Some(end) = key.expires_at.filter(|end| *end <= unix_now) {
            return Err(invalid(format!("the API key {} expired {} s ago", entry.id, unix_now - end)));
        }
        if let Some(used) = &entry.used
            && used.last.load(Ordering::Relaxed) + USE_RECORDED_EVERY <= unix_now
        {
            used.last.store(unix_now, Ordering::Relaxed);
        }
        Ok(key.clone())
    }

    /// When `key`, which was good once, ends, in Unix seconds: that may have been brought forward. `i64::MAX` = never,
    /// `None` = it is revoked or gone. Looks through all of them.
    pub fn end_of(&self, key: &ApiKey) -> Option<i64> {
        let index = self.index.load();
        let entries = index.keys.values().filter(|entry| entry.id == key.id && entry.revoked_at.is_none());
        let ends = entries.filter_map(|entry| {
            let known = entry.key.as_ref().filter(|known| known.consumer.name == key.consumer.name)?;
            let told = self.told_end(entry).unwrap_or(i64::MAX);
            Some(known.expires_at.unwrap_or(i64::MAX).min(told))
        });
        ends.max()
    }

    /// When the key of `entry` ends, if that was told: the store may not have been read since. Of the configuration's
    /// nobody tells.
    fn told_end(&self, entry: &Entry) -> Option<i64> {
        entry.used.as_ref().and_then(|_| self.keys.before("", &entry.id)).map(ends)
    }

    /// The consumer called `name`.
    pub fn consumer(&self, name: &str) -> Option<Arc<Consumer>> {
        self.index.load().consumers.get(name).cloned()
    }

    /// Whose the tokens of `subject` of `provider` are.
    pub fn consumer_of(&self, provider: &str, subject: &str) -> Option<Arc<Consumer>> {
        self.index.load().subjects.get(provider)?.get(subject).cloned()
    }

    /// Whether `token` was revoked: by its `jti`, or with all of its subject that were issued no later. One that does not
    /// say when it was issued counts as issued before.
    pub fn is_revoked(&self, token: &Token) -> bool {
        self.revocation_of(token).is_some()
    }

    /// By what `token` was revoked, if it was: see [`Directory::is_revoked`].
    pub fn revocation_of(&self, token: &Token) -> Option<RevokedBy> {
        if let Some(id) = &token.id
            && self.tokens.before(&token.provider, id).is_some()
        {
            return Some(RevokedBy::Id(id.clone()));
        }
        let subject = token.subject.as_deref()?;
        let before = self.subject_revoked_before(&token.provider, subject)?;
        let issued_at = token.issued_at;
        issued_at.is_none_or(|issued| issued <= before).then(|| RevokedBy::Subject {
            subject: subject.into(),
            before,
            issued_at,
        })
    }

    /// Up to which moment the tokens of `subject` were revoked, if they were.
    pub fn subject_revoked_before(&self, provider: &str, subject: &str) -> Option<i64> {
        self.subjects.before(provider, subject)
    }

    /// Revokes in this process, at once, and tells other instances over `[cluster]`;
    /// [`crate::store::Store::revoke_token`] keeps it. `provider` may be empty: whoever issued it. The token expires at
    /// `expires_at`.
    pub fn revoke_token(&self, provider: &str, jti: &str, expires_at: i64) {
        let (provider, id) = (provider.to_owned(), jti.to_owned());
        self.revoke(Revocation::Token { provider, id, until: expires_at });
    }

    /// Revokes in this process, at once, and tells other instances: the tokens of `subject` that were issued at
    /// `issued_before` or earlier; the last of them expires at `until`.
    pub fn revoke_subject(&self, provider: &str, subject: &str, issued_before: i64, until: i64) {
        let (provider, subject) = (provider.to_owned(), subject.to_owned());
        self.revoke(Revocation::Subject { provider, subject, issued_before, until });
    }

    fn revoke(&self, revocation: Revocation) {
        if self.add(&revocation) {
            self.tell(revocation);
            self.changed();
        }
    }

    /// Another instance has revoked something.
    pub fn hear(&self, revocation: &Revocation) {
        match (self.add(revocation), revocation) {
            (false, _) => {}
            // What requests ask does not look for it each time.
            (true, Revocation::Consumer { .. }) => self.publish(&self.known.lock()),
            (true, _) => self.changed(),
        }
    }

    /// Tells other instances over `channel` what is revoked from now on. Only the first call does anything.
    pub fn share(&self, channel: Arc<Channel>) {
        // There is one for the life of the process.
        let _another = self.channel.set(channel);
    }

    /// Whether that was not known before.
    fn add(&self, revocation: &Revocation) -> bool {
        let nobodys = String::new();
        let (set, provider, name, before) = match revocation {
            Revocation::Token { provider, id, .. } => (&self.tokens, provider, id, i64::MAX),
            Revocation::Subject { provider, subject, issued_before, .. } => {
                (&self.subjects, provider, subject, *issued_before)
            }
            Revocation::Key { id, ends_at, .. } => (&self.keys, &nobodys, id, ends(*ends_at)),
            Revocation::Consumer { name, removed_at, .. } => (&self.consumers, &nobodys, name, *removed_at),
        };
        // As far as the set can tell moments apart.
        let is_new = set.before(provider, name).is_none_or(|known| known < before.clamp(0, u32::MAX.into()));
        set.add(provider, name, before, revocation.until().saturating_add(KEPT_AFTER_END));
        is_new
    }

    fn tell(&self, revocation: Revocation) {
        if let Some(channel) = self.channel.get()
            && let Err(full) = channel.publish(revocation)
        {
            tracing::error!("another instance may not hear of a revocation: {full}");
        }
    }

    /// Counts changes that may take something away from somebody: streams that were let in ask again after each.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Takes what a configuration says in place of what the one before said.
    pub fn configure(&self, configured: Arc<Configured>) {
        let mut known = self.known.lock();
        known.configured = configured;
        self.publish(&known);
    }

    /// Whether there is a store that was never read: what is unknown may stand there.
    pub fn awaits_store(&self) -> bool {
        self.index.load().awaits_store
    }

    /// There is a store: until it is read, what is unknown may stand there.
    pub fn await_store(&self) {
        let mut known = self.known.lock();
        known.awaits_store = true;
        self.publish(&known);
    }

    /// Takes what changed in the store; `is_all` when there is nothing more at the moment.
    pub(super) fn apply(&self, changes: Changes, is_all: bool, unix_now: i64) {
        // What was there when the store was first read, others have heard long ago.
        let is_first = self.known.lock().awaits_store;
        for row in changes.revocations {
            if row.kept_until.saturating_add(KEPT_AFTER_END) < unix_now {
                continue;
            }
            let (provider, until) = (row.provider, row.kept_until);
            let revocation = match row.what {
                Revoked::Token => Revocation::Token { provider, id: row.value, until },
                Revoked::Subject => {
                    let issued_before = row.issued_before;
                    Revocation::Subject { provider, subject: row.value, issued_before, until }
                }
            };
            // A command has put it there: other instances may have other stores.
            if self.add(&revocation) && !is_first {
                self.tell(revocation);
            }
        }
        let kept_until = unix_now.saturating_add(i64::try_from(KEPT_OF_ALL.as_secs()).unwrap_or(i64::MAX));
        let mut known = self.known.lock();
        let mut ended = Vec::new();
        for row in changes.consumers {
            if row.removed {
                let (name, removed_at) = (row.name.clone(), row.since);
                ended.push(Revocation::Consumer { name, removed_at, until: kept_until });
            }
            known.consumer(row);
        }
        for row in changes.subjects {
            let name = (row.provider, row.subject);
            match row.consumer {
                Some(consumer) => known.subjects.insert(name, consumer),
                None => known.subjects.remove(&name),
            };
        }
        for row in changes.keys {
            let id = row.id.clone();
            let before = known.keys.get(&id).cloned();
            known.key(row);
            let Some(now) = known.keys.get(&id) else { continue };
            let (was, is) = (before.as_ref().map_or(i64::MAX, |before| before.end()), now.end());
            // A new key that ends some day has not had its end brought forward.
            if is < was && (before.is_some() || now.revoked_at.is_some()) {
                let until = before.as_ref().and_then(|before| before.expires_at).unwrap_or(kept_until);
                ended.push(Revocation::Key { id, ends_at: is, until });
            }
        }
        // Those who cannot reach the store hear of it as well. What was there when it was first read says it for itself.
        for revocation in ended.into_iter().filter(|_| !is_first) {
            if self.add(&revocation) {
                self.tell(revocation);
            }
        }
        if is_all {
            known.awaits_store = false;
            self.publish(&known);
        }
    }

    /// Forgets what the store said: it is another one, or an older state of it. Revocations stay, which errs on the side
    /// of refusing.
    pub(super) fn forget_store(&self) {
        let mut known = self.known.lock();
        let configured = known.configured.clone();
        *known = Known { configured, awaits_store: true, ..Known::default() };
    }

    /// Forgets revocations of tokens that have expired.
    pub(super) fn forget(&self, unix_now: i64) {
        self.tokens.forget(unix_now);
        self.subjects.forget(unix_now);
        self.keys.forget(unix_now);
        self.consumers.forget(unix_now);
    }

    /// The keys of the store that were used since this was last asked, each with when.
    pub(super) fn take_used(&self) -> Vec<(Box<str>, i64)> {
        let known = self.known.lock();
        let used = known.keys.values().filter_map(|key| {
            let last = key.used.last.load(Ordering::Relaxed);
            let recorded = key.used.recorded.swap(last, Ordering::Relaxed);
            (last > recorded).then(|| (key.id.clone(), last))
        });
        used.collect()
    }

    /// The use of `keys` could not be recorded: it is told again.
    pub(super) fn give_back_used(&self, keys: &[(Box<str>, i64)]) {
        let known = self.known.lock();
        for key in keys.iter().filter_map(|(id, _)| known.keys.get(&**id)) {
            key.used.recorded.store(0, Ordering::Relaxed);
        }
    }

    /// What there is, in numbers.
    pub fn facts(&self) -> Facts {
        let index = self.index.load();
        Facts {
            consumers: index.consumers.len(),
            keys: index.keys.len(),
            revoked_tokens: self.tokens.len(),
            revoked_subjects: self.subjects.len(),
            revoked_bytes: [&self.tokens, &self.subjects, &self.keys, &self.consumers]
                .map(RevokedSet::bytes)
                .iter()
                .sum(),
            clashes: index.clashes.clone(),
        }
    }

    fn publish(&self, known: &Known) {
        self.index.store(Arc::new(known.index(&self.consumers)));
        self.changed();
    }

    fn changed(&self) {
        self.generation.send_modify(|generation| *generation = generation.wrapping_add(1));
    }
}

impl Known {
    fn consumer(&mut self, row: ConsumerRow) {
        if row.removed {
            self.consumers.remove(&row.name);
            return;
        }
        let consumer = Consumer {
            name: row.name.as_str().into(),
            groups: row.groups.into_iter().map(String::into_boxed_str).collect(),
            plan: row.plan.map(String::into_boxed_str),
            since: Some(row.since),
            ..Consumer::default()
        };
        self.consumers.insert(row.name, (Arc::new(consumer), row.since));
    }

    fn key(&mut self, row: KeyRow) {
        let used = self.keys.get(&row.id).map(|key| key.used.clone());
        let id = row.id.clone();
        if let Some(key) = StoredKey::of(row, used) {
            self.keys.insert(id, Arc::new(key));
        }
    }

    /// Without consumers that are `gone`, whether or not the store was read since.
    fn index(&self, gone: &RevokedSet) -> Index {
        let mut index = Index { awaits_store: self.awaits_store, ..Index::default() };
        let there = self.consumers.values().filter(|(one, since)| {
            let gone = if gone.is_empty() { None } else { gone.before("", &one.name) };
            gone.is_none_or(|removed_at| removed_at < *since)
        });
        index.consumers = there.map(|(one, _)| (one.name.clone(), one.clone())).collect();
        for one in &self.configured.consumers {
            if index.consumers.insert(one.consumer.name.clone(), one.consumer.clone()).is_some() {
                index.clashes.push(one.consumer.name.clone());
            }
        }
        for ((provider, subject), consumer) in &self.subjects {
            if let Some(consumer) = index.consumers.get(&**consumer).cloned() {
                index.subject(provider, subject, consumer);
            }
        }
        for key in self.keys.values() {
            let consumer = index.consumers.get(&*key.consumer);
            let entry = Entry {
                key: consumer.map(|consumer| Arc::new(key.shown(consumer))),
                id: key.id.clone(),
                revoked_at: key.revoked_at,
                used: Some(key.used.clone()),
            };
            index.keys.insert(key.hash, entry);
        }
        // Last: what the configuration says stands.
        for one in &self.configured.consumers {
            for (provider, subject) in &one.subjects {
                index.subject(provider, subject, one.consumer.clone());
            }
            for (number, secret) in one.keys.iter().enumerate() {
                let id: Box<str> = format!("{}#{number}", one.consumer.name).into();
                let key = ApiKey { id: id.clone(), consumer: one.consumer.clone(), ..ApiKey::default() };
                let entry = Entry { key: Some(Arc::new(key)), id, revoked_at: None, used: None };
                index.keys.insert(hash_key(secret.expose()), entry);
            }
        }
        index
    }
}

impl Index {
    fn subject(&mut self, provider: &str, subject: &str, consumer: Arc<Consumer>) {
        match self.subjects.get_mut(provider) {
            Some(subjects) => {
                subjects.insert(subject.into(), consumer);
            }
            None => {
                self.subjects.insert(provider.into(), HashMap::from([(subject.into(), consumer)]));
            }
        }
    }
}

/// The end of a key as a set holds it, and back: of two, a set keeps the later, and of a key the earlier end counts.
fn ends(at: i64) -> i64 {
    i64::from(u32::MAX) - at.clamp(0, i64::from(u32::MAX))
}

/// What is kept of an API key.
pub fn hash_key(key: &str) -> KeyHash {
    let mut hash = [0; 32];
    let digest = digest::digest(&digest::SHA256, key.as_bytes());
    hash.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    hash
}
