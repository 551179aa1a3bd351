//! Tokens that were verified: a token seen before costs a lookup instead of a signature.
//!
//! A table of fixed places, a few to choose from for each token. Readers take no lock, and no two tokens share an entry: a
//! place is found by a hash whose seed nobody outside knows, and then the whole text is compared.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use foldhash::quality::RandomState;

use super::token::Token;

/// Places in all. Each holds a token with what was read from it, two to four KiB.
const PLACES: usize = 16 << 10;
/// Places that one token may take.
const CHOICES: usize = 4;
/// Most memory of all entries, in bytes, as estimated by [`size_of_entry`].
const BYTES_MAX: usize = 64 << 20;

/// Verified tokens of one provider, by their text.
pub struct TokenCache {
    hasher: RandomState,
    /// Made when the first token comes: most providers of a large configuration see none.
    places: OnceLock<Box<[ArcSwapOption<Entry>]>>,
    bytes: AtomicUsize,
    /// Where room is made next.
    hand: AtomicUsize,
}

#[derive(Debug)]
struct Entry {
    compact: Box<str>,
    token: Arc<Token>,
    /// The keys it was verified with.
    generation: u64,
    /// When it holds no longer, in Unix seconds, leeway included.
    until: i64,
    bytes: usize,
}

impl std::fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCache").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Default for TokenCache {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            places: OnceLock::new(),
            bytes: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
        }
    }
}

impl TokenCache {
    /// The token whose text is `compact`, if it was verified with the keys of `generation` and still holds at `now`.
    pub fn get(&self, compact: &str, generation: u64, now: i64) -> Option<Arc<Token>> {
        self.choices(compact)?.iter().find_map(|place| {
            let entry = place.load();
            let entry = entry.as_ref().filter(|entry| *entry.compact == *compact)?;
            (entry.generation == generation && now < entry.until).then(|| entry.token.clone())
        })
    }

    /// Keeps `token`, verified from `compact` with the keys of `generation`, until `until`. `now` is to tell what may go.
    pub fn put(&self, compact: &str, token: &Arc<Token>, generation: u64, until: i64, now: i64) {
        let bytes = size_of_entry(compact, token);
        if bytes > BYTES_MAX / PLACES * 16 {
            // One that would push a dozen others out is verified each time.
            return;
        }
        self.places.get_or_init(|| (0..PLACES).map(|_| ArcSwapOption::empty()).collect());
        let Some(choices) = self.choices(compact) else { return };
        // The place of the same token, one that is free or dead, or the one that ends first.
        let rank = |place: &&ArcSwapOption<Entry>| match &*place.load() {
            Some(entry) if *entry.compact == *compact => i64::MIN,
            Some(entry) if entry.generation == generation && now < entry.until => entry.until,
            _ => i64::MIN + 1,
        };
        let Some(place) = choices.iter().min_by_key(rank) else { return };
        let entry = Entry { compact: compact.into(), token: token.clone(), generation, until, bytes };
        self.bytes.fetch_add(bytes, Relaxed);
        self.free(place.swap(Some(Arc::new(entry))));
        while self.bytes.load(Relaxed) > BYTES_MAX && self.make_room() {}
    }

    /// Forgets everything: the keys have changed.
    pub fn clear(&self) {
        for place in self.places.get().into_iter().flatten() {
            self.free(place.swap(None));
        }
    }

    /// How many tokens are kept, and how much memory they take, in bytes.
    pub fn usage(&self) -> (usize, usize) {
        let places = self.places.get().into_iter().flatten();
        (places.filter(|place| place.load().is_some()).count(), self.bytes.load(Relaxed))
    }

    fn choices(&self, compact: &str) -> Option<&[ArcSwapOption<Entry>]> {
        use std::hash::BuildHasher;
        let places = self.places.get()?;
        let hash = self.hasher.hash_one(compact.as_bytes());
        let set = usize::try_from(hash % (PLACES / CHOICES) as u64).unwrap_or(0);
        places.get(set * CHOICES..(set + 1) * CHOICES)
    }

    /// Empties the next place in turn; `false` if there was nothing in any.
    fn make_room(&self) -> bool {
        let Some(places) = self.places.get() else { return false };
        (0..PLACES).any(|_| {
            let place = places.get(self.hand.fetch_add(1, Relaxed) % PLACES);
            let entry = place.and_then(|place| place.swap(None));
            let found = entry.is_some();
            self.free(entry);
            found
        })
    }

    fn free(&self, entry: Option<Arc<Entry>>) {
        if let Some(entry) = entry {
            self.bytes.fetch_sub(entry.bytes, Relaxed);
        }
    }
}

/// About what an entry takes: text, payload, and claims, whose strings are as long as the payload and whose tree has a
/// node of a hundred bytes or so for every eight of it at worst; and what services are told of it.
fn size_of_entry(compact: &str, token: &Token) -> usize {
    compact.len() + token.payload.len() * 11 + 512
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn token(payload: usize) -> Arc<Token> {
        Arc::new(Token {
            provider: "p".into(),
            subject: None,
            id: None,
            issued_at: None,
            expires_at: None,
            roles: Box::default(),
            scopes: Box::default(),
            claims: Map::new(),
            payload: vec![0; payload].into(),
            forms: Default::default(),
        })
    }

    #[test]
    fn an_entry_is_hit_by_its_text_keys_and_time_alone() {
        let (cache, kept) = (TokenCache::default(), token(10));
        assert!(cache.get("a.b.c", 1, 0).is_none());
        cache.put("a.b.c", &kept, 1, 100, 0);
        assert!(Arc::ptr_eq(&cache.get("a.b.c", 1, 99).unwrap(), &kept));
        assert!(cache.get("a.b.d", 1, 0).is_none());
        assert!(cache.get("a.b.c ", 1, 0).is_none());
        assert!(cache.get("a.b.c", 2, 0).is_none(), "other keys");
        assert!(cache.get("a.b.c", 1, 100).is_none(), "over");
        cache.put("a.b.c", &kept, 2, 100, 0);
        assert!(cache.get("a.b.c", 2, 0).is_some());
        assert_eq!(cache.usage().0, 1, "the same token takes one place");
        cache.clear();
        assert_eq!(cache.usage(), (0, 0));
    }

    /// A client that makes the gateway see ever new tokens does not make it grow.
    #[test]
    fn stays_within_its_bounds() {
        let cache = TokenCache::default();
        let large = token(2_000);
        for index in 0..3 * PLACES {
            cache.put(&format!("token {index}"), &large, 1, 100, 0);
        }
        let (tokens, bytes) = cache.usage();
        assert!(tokens <= PLACES && bytes <= BYTES_MAX, "{tokens} tokens in {bytes} bytes");
        assert!(tokens > 1_000, "{tokens}");
        cache.clear();
        assert_eq!(cache.usage(), (0, 0), "what goes in comes out");
    }

    #[test]
    fn what_is_over_goes_first() {
        let cache = TokenCache::default();
        for index in 0..PLACES {
            cache.put(&format!("old {index}"), &token(1), 1, 10, 0);
        }
        for index in 0..PLACES / 2 {
            cache.put(&format!("new {index}"), &token(1), 1, 1_000, 20);
        }
        let kept =
            (0..PLACES / 2).filter(|index| cache.get(&format!("new {index}"), 1, 20).is_some()).count();
        assert!(kept > PLACES * 2 / 5, "{kept}");
    }
}
