//! Passwords: Argon2id (RFC 9106) in PHC strings, and how one is checked without telling who exists.
//!
//! Everything here takes as long as a password is meant to take. Requests go through [`Hashers`].

mod workers;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};

pub use workers::{Bounds, Busy, CheckError, Hashers};

/// Longest password that is hashed or checked, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// What hashing one password costs whoever does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// How often the memory is passed over.
    pub passes: u32,
}

impl Cost {
    /// Least memory that may be configured, in KiB.
    pub const MEMORY_KIB_MIN: u32 = 1024;
    /// Most memory that may be configured, and that a stored hash may ask for, in KiB.
    pub const MEMORY_KIB_MAX: u32 = 1024 * 1024;
    /// Most passes that may be configured, and that a stored hash may ask for.
    pub const PASSES_MAX: u32 = 64;
    /// Memory times passes, in KiB, below which OWASP's Password Storage Cheat Sheet finds a hash too cheap: its cheapest
    /// set is 7 MiB and five passes.
    pub const WORK_ADVISED: u64 = 7 * 1024 * 5;

    /// Memory written to: what the time is proportional to, in KiB.
    pub fn work(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.passes)
    }
}

/// The first choice of OWASP's Password Storage Cheat Sheet: 19 MiB, two passes.
impl Default for Cost {
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, passes: 2 }
    }
}

/// Why a password cannot be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// There is nothing to hash.
    #[error("the password is empty")]
    Empty,
    /// It is longer than [`PASSWORD_BYTES_MAX`].
    #[error("the password is longer than {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// The cost is out of bounds, there is no memory for it, or no random salt.
    #[error("the password cannot be hashed: {0}")]
    Failed(&'static str),
}

/// What came of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// It is the one; where the stored hash is cheaper than hashes are now, with one to store instead.
    Right {
        /// A better hash of it to store.
        upgraded: Option<String>,
    },
    /// It is another one, or there is no such user.
    Wrong,
    /// Nobody can tell: what is stored is not a hash of Argon2, or asks for more than any may cost.
    Unreadable(String),
}

/// Hashes `password` with a salt of its own: a PHC string such as `$argon2id$v=19$m=19456,t=2,p=1$…$…`.
pub fn hash(password: &str, cost: Cost) -> Result<String, HashError> {
    hash_within(password, cost, &mut Vec::new())
}

/// What the dearest of the stored hashes costs that a process has met: what others are made up to, so that a wrong
/// password takes as long whoever it is tried of. Goes back only with the process.
#[derive(Debug, Default)]
pub struct Dearest(AtomicU64);

impl Dearest {
    /// The dearer one of `cost` and what was met.
    fn or(&self, cost: Cost) -> Cost {
        let met = unpacked(self.0.load(Relaxed));
        if met.work() > cost.work() { met } else { cost }
    }

    fn meet(&self, cost: Cost) {
        let packed = u64::from(cost.memory_kib) << 32 | u64::from(cost.passes);
        let dearer = |met| (unpacked(met).work() < cost.work()).then_some(packed);
        let _or_there_was_one_as_dear = self.0.fetch_update(Relaxed, Relaxed, dearer);
    }
}

fn unpacked(packed: u64) -> Cost {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
    Cost { memory_kib: half(packed >> 32), passes: half(packed) }
}

/// Whether `password` is the one of `stored`. Where it is not, takes as long without a `stored` hash, with a broken one,
/// and with one that was cheaper to make, as with one of `cost`, or with the `dearest` that was met; `memory` is worked in,
/// and may be used again.
pub fn check(
    password: &str,
    stored: Option<&str>,
    cost: Cost,
    dearest: &Dearest,
    memory: &mut Vec<Block>,
) -> Check {
    let Some(stored) = stored else {
        spend(password, dearest.or(cost), memory);
        return Check::Wrong;
    };
    let (stored, verdict) = match Stored::read(stored) {
        Ok(stored) => {
            dearest.meet(stored.cost());
            let verdict = stored.is_of(password, memory);
            (Some(stored), verdict)
        }
        Err(why) => (None, Err(why)),
    };
    match (stored, verdict) {
        (Some(stored), Ok(true)) => {
            // One that cannot be made now is made the next time.
            let upgraded = stored.is_cheaper_than(cost).then(|| hash_within(password, cost, memory).ok());
            Check::Right { upgraded: upgraded.flatten() }
        }
        (Some(stored), Ok(false)) => {
            let (full, done) = (dearest.or(cost), stored.cost().work());
            if let Some(rest) = full.work().checked_sub(done).and_then(|rest| share(rest, full)) {
                spend(password, rest, memory);
            }
            Check::Wrong
        }
        (_, verdict) => {
            spend(password, dearest.or(cost), memory);
            Check::Unreadable(verdict.err().unwrap_or_default())
        }
    }
}

/// The cost that is `work` KiB of memory times passes, with no more memory than `cost` has; `None` for too little to do.
fn share(work: u64, cost: Cost) -> Option<Cost> {
    let passes = work.div_ceil(u64::from(cost.memory_kib.max(1))).max(1);
    let memory_kib = u32::try_from(work / passes).ok().filter(|kib| *kib >= Params::MIN_M_COST)?;
    Some(Cost { memory_kib, passes: u32::try_from(passes).ok()? })
}

/// Does what checking a password of `cost` takes, for nothing.
fn spend(password: &str, cost: Cost, memory: &mut Vec<Block>) {
    let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
    let spent = parameters(cost).and_then(|parameters| {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters);
        fill(&argon2, password, b"nobody's own salt", &mut output, memory)
    });
    // It can fail where the real thing fails as well; the answer is the same.
    std::hint::black_box((spent.is_ok(), output));
}

fn hash_within(password: &str, cost: Cost, memory: &mut Vec<Block>) -> Result<String, HashError> {
    if password.is_empty() {
        return Err(HashError::Empty);
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(HashError::TooLong);
    }
    let mut salt = [0; argon2::RECOMMENDED_SALT_LEN];
    SystemRandom::new().fill(&mut salt).map_err(|_| HashError::Failed("no random numbers"))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters(cost)?);
    let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
    fill(&argon2, password, &salt, &mut output, memory)?;
    let unwritable = |_| HashError::Failed("it cannot be written");
    let written = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(argon2.params()).map_err(unwritable)?,
        salt: Some(Salt::new(&salt).map_err(|_| HashError::Failed("it cannot be written"))?),
        hash: Some(Output::new(&output).map_err(|_| HashError::Failed("it cannot be written"))?),
    };
    Ok(written.to_string())
}

/// One lane: more of them only help where each has a core of its own.
fn parameters(cost: Cost) -> Result<Params, HashError> {
    let within = cost.memory_kib <= Cost::MEMORY_KIB_MAX && cost.passes <= Cost::PASSES_MAX;
    let parameters = Params::new(cost.memory_kib, cost.passes, 1, Some(Params::DEFAULT_OUTPUT_LEN)).ok();
    parameters.filter(|_| within).ok_or(HashError::Failed("its cost is out of bounds"))
}

fn fill(
    argon2: &Argon2<'_>,
    password: &str,
    salt: &[u8],
    output: &mut [u8],
    memory: &mut Vec<Block>,
) -> Result<(), HashError> {
    let blocks = argon2.params().block_count();
    if memory.try_reserve(blocks.saturating_sub(memory.len())).is_err() {
        return Err(HashError::Failed("there is not enough memory"));
    }
    memory.resize(blocks.max(memory.len()), Block::new());
    argon2
        .hash_password_into_with_memory(password.as_bytes(), salt, output, memory)
        .map_err(|_| HashError::Failed("its parameters do not fit"))
}

/// A stored hash, read.
struct Stored {
    algorithm: Algorithm,
    version: Version,
    parameters: Params,
    salt: Salt,
    hash: Output,
}

impl Stored {
    fn read(text: &str) -> Result<Self, String> {
        let read = PasswordHash::new(text).map_err(|error| format!("not a PHC string: {error}"))?;
        let algorithm = Algorithm::try_from(read.algorithm.as_str())
            .map_err(|_| format!("a hash of {}, not of Argon2", read.algorithm.as_str()))?;
        // RFC 9106 section 3.1: what comes without a version is of the first one.
        let version = read.version.map_or(Ok(Version::V0x10), Version::try_from);
        let version = version.map_err(|_| "an unknown version of Argon2".to_owned())?;
        let parameters = Params::try_from(&read).map_err(|error| format!("its parameters: {error}"))?;
        let (Some(salt), Some(hash)) = (read.salt, read.hash) else {
            return Err("it has no salt, or no hash".to_owned());
        };
        if parameters.m_cost() > Cost::MEMORY_KIB_MAX
            || parameters.t_cost() > Cost::PASSES_MAX
            || hash.len() < HASH_BYTES_MIN
        {
            return Err("its parameters are out of bounds".to_owned());
        }
        Ok(Self { algorithm, version, parameters, salt, hash })
    }

    fn is_of(&self, password: &str, memory: &mut Vec<Block>) -> Result<bool, String> {
        let argon2 = Argon2::new(self.algorithm, self.version, self.parameters.clone());
        let mut output = [0; Output::MAX_LENGTH];
        let output = output.get_mut(..self.hash.len()).ok_or("it is too long")?;
        fill(&argon2, password, &self.salt, output, memory).map_err(|error| error.to_string())?;
        Ok(aws_lc_rs::constant_time::verify_slices_are_equal(output, self.hash.as_bytes()).is_ok())
    }

    fn cost(&self) -> Cost {
        Cost { memory_kib: self.parameters.m_cost(), passes: self.parameters.t_cost() }
    }

    /// Whether a hash of `cost` is the better one to have. One that cost more is left as it is.
    fn is_cheaper_than(&self, cost: Cost) -> bool {
        let own = self.cost();
        self.algorithm != Algorithm::Argon2id
            || self.version != Version::V0x13
            || self.hash.len() < Params::DEFAULT_OUTPUT_LEN
            || self.salt.len() < argon2::RECOMMENDED_SALT_LEN
            || own.work() < cost.work()
            || own.memory_kib < cost.memory_kib && own.work() == cost.work()
    }
}

/// Shortest hash that proves anything: half of what is made here.
const HASH_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 1024, passes: 1 };

    fn judge(password: &str, stored: Option<&str>, cost: Cost) -> Check {
        check(password, stored, cost, &Dearest::default(), &mut Vec::new())
    }

    #[test]
    fn a_hash_is_of_its_password_alone() {
        let stored = hash("correct horse", CHEAP).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=1024,t=1,p=1$"), "{stored}");
        assert_ne!(stored, hash("correct horse", CHEAP).unwrap(), "each has its own salt");
        assert_eq!(judge("correct horse", Some(&stored), CHEAP), Check::Right { upgraded: None });
        for other in ["", "correct hors", "correct horse ", "Correct horse", "correct\0horse"] {
            assert_eq!(judge(other, Some(&stored), CHEAP), Check::Wrong, "{other:?}");
        }
        assert_eq!(judge("correct horse", None, CHEAP), Check::Wrong);
        assert_eq!(hash("", CHEAP), Err(HashError::Empty));
        assert_eq!(hash(&"x".repeat(PASSWORD_BYTES_MAX + 1), CHEAP), Err(HashError::TooLong));
    }

    /// From RFC 9106's reference implementation (`echo -n password | argon2 somesalt …`), as other programs store them.
    #[test]
    fn hashes_of_others_are_understood() {
        for (stored, upgrade) in [
            ("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", true),
            ("$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA", true),
        ] {
            let right = judge("password", Some(stored), CHEAP);
            assert!(
                matches!(&right, Check::Right { upgraded } if upgraded.is_some() == upgrade),
                "{stored}: {right:?}"
            );
            assert_eq!(judge("passwore", Some(stored), CHEAP), Check::Wrong, "{stored}");
        }
    }

    #[test]
    fn a_hash_is_upgraded_when_costs_rise_and_never_downgraded() {
        let dear = Cost { memory_kib: 2048, passes: 2 };
        let stored = hash("secret", CHEAP).unwrap();
        let Check::Right { upgraded: Some(better) } = judge("secret", Some(&stored), dear) else {
            panic!("not upgraded")
        };
        assert!(better.contains("m=2048,t=2"), "{better}");
        assert_eq!(judge("secret", Some(&better), dear), Check::Right { upgraded: None });
        assert_eq!(judge("secret", Some(&better), CHEAP), Check::Right { upgraded: None });
        assert_eq!(judge("wrong", Some(&stored), dear), Check::Wrong, "only who knows it upgrades it");
    }

    #[test]
    fn what_is_no_hash_proves_nothing() {
        for stored in [
            "",
            "secret",
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
            "$argon2id$v=19$m=1024,t=1,p=1$c29tZXNhbHQ",
            "$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=1024,t=4294967295,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=1024,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO0",
            "$argon2id$v=99$m=1024,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
        ] {
            let verdict = judge("secret", Some(stored), CHEAP);
            assert!(matches!(verdict, Check::Unreadable(_)), "{stored}: {verdict:?}");
        }
    }

    /// Of a cheaper hash the rest is made up for, so that the time does not tell who has not logged in for long.
    #[test]
    fn the_rest_of_a_cheaper_hash_is_made_up_for() {
        let cost = Cost::default();
        for done in [CHEAP, Cost { memory_kib: 19 * 1024, passes: 1 }, Cost { memory_kib: 7168, passes: 5 }] {
            let rest = share(cost.work() - done.work(), cost).unwrap_or(Cost { memory_kib: 0, passes: 0 });
            let total = done.work() + rest.work();
            assert!(total.abs_diff(cost.work()) <= 16, "{done:?} + {rest:?}");
            assert!(rest.memory_kib <= cost.memory_kib);
        }
        assert_eq!(share(3, cost), None);
    }

    /// What is worked in tells what was spent.
    #[test]
    fn a_hash_that_costs_more_than_the_configured_cost_is_made_up_to() {
        let dearest = Dearest::default();
        let spent = |stored: Option<&str>| {
            let mut memory = Vec::new();
            let verdict = check("wrong", stored, CHEAP, &dearest, &mut memory);
            assert!(!matches!(verdict, Check::Right { .. }));
            memory.len()
        };
        let cheap = hash("a", CHEAP).unwrap();
        let dear = hash("b", Cost { memory_kib: 4096, passes: 1 }).unwrap();
        assert_eq!([spent(None), spent(Some(&cheap)), spent(Some("broken"))], [1024; 3]);
        assert_eq!(spent(Some(&dear)), 4096);
        assert_eq!([spent(None), spent(Some(&dear)), spent(Some("broken"))], [4096; 3]);
        assert_eq!(spent(Some(&cheap)), 4096 - 1024, "beside the 1024 that it costs itself");
        // The dearest stays, and is done as it is: within the bounds of passes and memory.
        let many = Cost { memory_kib: 1024, passes: 64 };
        dearest.meet(many);
        dearest.meet(CHEAP);
        assert_eq!(dearest.or(CHEAP), many);
        assert!(share(many.work() - 8, many).is_some_and(|rest| parameters(rest).is_ok()));
    }

    /// The memory of one check is that of the next, whatever it needs of it.
    #[test]
    fn memory_is_used_again() {
        let mut memory = Vec::new();
        let small = hash("a", CHEAP).unwrap();
        let large = hash("b", Cost { memory_kib: 4096, passes: 1 }).unwrap();
        for _ in 0..2 {
            for (password, stored) in [("a", &small), ("b", &large)] {
                let verdict = check(password, Some(stored), CHEAP, &Dearest::default(), &mut memory);
                assert_eq!(verdict, Check::Right { upgraded: None });
            }
        }
        assert_eq!(memory.len(), 4096);
    }
}
