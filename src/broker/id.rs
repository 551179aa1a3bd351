//! Correlation ids: unique, and such that nobody who has not seen one can make one up.

use std::fmt;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const NUMBER: usize = 8;
const PROOF: usize = 16;
const BYTES: usize = NUMBER + PROOF;

/// A correlation id: a number of this process, and a proof that the number was given out here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id([u8; BYTES]);

impl Id {
    /// Reads what [`fmt::Display`] writes; `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; BYTES];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(BYTES) => Some(Self(bytes)),
            _ => None,
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// Not the proof: who can read it could answer in a service's stead.
impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0.first_chunk::<NUMBER>().copied().unwrap_or_default();
        write!(f, "Id({})", u64::from_be_bytes(number))
    }
}

/// Gives ids out, and knows them again.
pub(super) struct Ids {
    key: hmac::Key,
    next: AtomicU64,
}

impl Ids {
    /// With a key of its own.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn new() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key)?;
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), next: AtomicU64::new(0) })
    }

    /// The next one.
    pub(super) fn next(&self) -> Id {
        let number = self.next.fetch_add(1, Relaxed).to_be_bytes();
        let mut id = [0; BYTES];
        let proof = self.proof(&number);
        for (to, from) in id.iter_mut().zip(number.iter().chain(&proof)) {
            *to = *from;
        }
        Id(id)
    }

    /// Whether `id` was given out here.
    pub(super) fn is_own(&self, id: &Id) -> bool {
        let (Some(number), Some(proof)) = (id.0.first_chunk::<NUMBER>(), id.0.last_chunk::<PROOF>()) else {
            return false;
        };
        u64::from_be_bytes(*number) < self.next.load(Relaxed)
            && constant_time::verify_slices_are_equal(proof, &self.proof(number)).is_ok()
    }

    fn proof(&self, number: &[u8; NUMBER]) -> [u8; PROOF] {
        let tag = hmac::sign(&self.key, number);
        tag.as_ref().first_chunk::<PROOF>().copied().unwrap_or_default()
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ids").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_known_again() {
        let (ids, others) = (Ids::new().unwrap(), Ids::new().unwrap());
        let given: Vec<Id> = (0..1000).map(|_| ids.next()).collect();
        let texts: HashSet<String> = given.iter().map(Id::to_string).collect();
        assert_eq!(texts.len(), 1000);
        for id in &given {
            let text = id.to_string();
            assert_eq!(text.len(), 32);
            assert_eq!(Id::parse(&text), Some(*id));
            assert!(ids.is_own(id));
            assert!(!others.is_own(id), "another process gave it out");
        }
    }

    /// The number of the next call can be guessed; its proof cannot.
    #[test]
    fn an_id_that_was_not_given_out_is_not_known() {
        let ids = Ids::new().unwrap();
        let id = ids.next();
        let twin = Ids { key: ids.key.clone(), next: AtomicU64::new(7) };
        assert!(!ids.is_own(&twin.next()), "right, but not given out yet");
        for byte in 0..BYTES {
            let mut forged = id;
            forged.0[byte] ^= 1;
            assert!(!ids.is_own(&forged));
        }
        assert_eq!(format!("{id:?}"), "Id(0)");
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read_without_a_panic(text in ".{0,64}") {
            if let Some(id) = Id::parse(&text) {
                proptest::prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
