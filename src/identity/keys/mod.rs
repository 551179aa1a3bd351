//! Keys that verify tokens, and sets of them.
//!
//! A key is checked when it is read ([`Public::rsa`] and its kin): one that is weak, inconsistent or meant for something
//! else never gets into a set. What a token may be verified with is decided by [`KeySet::verify`] alone.

pub mod jwk;
pub mod pem;
mod public;
mod roca;
#[cfg(test)]
mod tests;

use jsonwebtoken::DecodingKey;

pub use self::public::{Public, Weak};

use super::jwt::Jws;
use super::jwt::algorithm::{Algorithm, Algorithms, Kind};
use super::jwt::compact::shown;
use super::token::Refusal;
use crate::base::reason::Reason;

/// One key that verifies.
pub struct Key {
    /// What tokens call it; `None`: nothing.
    id: Option<Box<str>>,
    /// What it may verify: one kind of key, and of that only what it is declared for.
    algorithms: Algorithms,
    /// Its public half; `None` for a secret.
    public: Option<Public>,
    /// As the library wants it.
    verifying: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// Why a token cannot be judged by a set of keys.
#[derive(Debug)]
pub enum Unverified {
    /// It names a key that the set does not have; perhaps a later one has it.
    UnknownKey(Refusal),
    /// It is refused for good.
    Refused(Refusal),
}

impl Unverified {
    /// What the client is told.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::UnknownKey(refusal) | Self::Refused(refusal) => refusal,
        }
    }
}

impl Key {
    /// A secret for those of `algorithms` that it is long enough for (RFC 7518 section 3.2).
    pub fn secret(id: Option<Box<str>>, secret: &[u8], algorithms: Algorithms) -> Self {
        let fits = |algorithm: &Algorithm| secret.len() >= algorithm.secret_bytes_min();
        let algorithms = algorithms.and(Algorithms::of(Kind::Secret)).iter().filter(fits).collect();
        Self { id, algorithms, public: None, verifying: DecodingKey::from_secret(secret) }
    }

    /// A public key for those of `algorithms` that it can serve.
    pub fn public(id: Option<Box<str>>, public: Public, algorithms: Algorithms) -> Self {
        let algorithms = algorithms.and(Algorithms::of(public.kind()));
        let verifying = public.verifying();
        Self { id, algorithms, public: Some(public), verifying }
    }

    /// What tokens call it.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// What it may verify.
    pub fn algorithms(&self) -> Algorithms {
        self.algorithms
    }

    /// Its public half; `None` for a secret.
    pub fn public_half(&self) -> Option<&Public> {
        self.public.as_ref()
    }

    /// Whether both verify the same tokens.
    fn is_same(&self, other: &Self) -> bool {
        let material = |key: &DecodingKey| key.try_get_as_bytes().map(<[u8]>::to_vec).ok();
        self.id == other.id
            && self.algorithms == other.algorithms
            && self.public == other.public
            && material(&self.verifying) == material(&other.verifying)
    }
}

/// Most keys of one set: identity providers publish fewer than ten.
pub const KEYS_MAX: usize = 128;

/// The keys of one provider at one moment. Immutable.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    /// A set of `keys`; what stands there twice counts once.
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Self {
        let mut set = Self::default();
        for key in keys {
            if !set.keys.iter().any(|known| known.is_same(&key)) {
                set.keys.push(key);
            }
        }
        set
    }

    /// Its keys.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether both hold the same keys, in any order.
    pub fn is_same(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.keys.iter().all(|key| other.keys.iter().any(|other| key.is_same(other)))
    }

    /// Verifies the signature of `token`, whose algorithm has to be one of `allowed`.
    ///
    /// Exactly one key has to fit. It is the one that the token names and that serves its algorithm; if none has that
    /// name, or the token gives none, the only one that serves it (of those without a name, if the token gives one).
    /// Nothing is tried out.
    ///
    /// # Errors
    /// [`Unverified::UnknownKey`] where only the key is missing.
    pub fn verify(&self, token: &Jws<'_>, allowed: Algorithms) -> Result<(), Unverified> {
        let algorithm = token.algorithm;
        if !allowed.contains(algorithm) {
            return Err(refused(format!("algorithm {} is not among those allowed", algorithm.as_str())));
        }
        let key = self.choose(token)?;
        let verified = jsonwebtoken::crypto::verify(
            token.signature,
            token.signed.as_bytes(),
            &key.verifying,
            algorithm.library(),
        );
        match verified {
            Ok(true) => Ok(()),
            _ => Err(refused(match key.id() {
                Some(id) => format!("the signature is not that of the key {}", shown(id)),
                None => "the signature is wrong".to_owned(),
            })),
        }
    }

    fn choose(&self, token: &Jws<'_>) -> Result<&Key, Unverified> {
        let serving = |key: &&Key| key.algorithms.contains(token.algorithm);
        let named: Vec<&Key> = match token.key_id.as_deref() {
            None => self.keys.iter().filter(serving).collect(),
            Some(id) => {
                let has_name = |key: &&Key| key.id() == Some(id);
                if self.keys.iter().any(|key| has_name(&key)) {
                    self.keys.iter().filter(has_name).filter(serving).collect()
                } else {
                    self.keys.iter().filter(|key| key.id.is_none()).filter(serving).collect()
                }
            }
        };
        let algorithm = token.algorithm.as_str();
        match (&named[..], token.key_id.as_deref()) {
            ([key], _) => Ok(key),
            ([], Some(id)) if self.keys.iter().any(|key| key.id() == Some(id)) => {
                Err(refused(format!("the key {} is not for {algorithm}", shown(id))))
            }
            ([], Some(id)) => Err(Unverified::UnknownKey(invalid(format!("no key is called {}", shown(id))))),
            ([], None) => Err(Unverified::UnknownKey(invalid(format!("no key is for {algorithm}")))),
            (several, Some(id)) => {
                Err(refused(format!("{} keys for {algorithm} are called {}", several.len(), shown(id))))
            }
            (several, None) => Err(refused(format!(
                "the token does not say which of {} keys for {algorithm} it was signed with",
                several.len()
            ))),
        }
    }
}

fn invalid(detail: String) -> Refusal {
    Refusal::new(Reason::TokenInvalid, detail)
}

fn refused(detail: String) -> Unverified {
    Unverified::Refused(invalid(detail))
}
