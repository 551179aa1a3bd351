//! Random numbers for names that must not clash: fast, not secret.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use fastrand::Rng;

thread_local! {
    /// Two generators with seeds of their own. Each has 64 bits of state: one alone, asked twice, would give two
    /// threads that ever meet the same state the same 128 bit names from then on.
    static RNGS: RefCell<(Rng, Rng)> = RefCell::new((seeded(1), seeded(2)));
}

/// 128 random bits.
pub(super) fn bits128() -> [u8; 16] {
    let (high, low) = RNGS.with_borrow_mut(|(high, low)| (high.u64(..), low.u64(..)));
    ((u128::from(high) << 64) | u128::from(low)).to_be_bytes()
}

/// 64 random bits.
pub(super) fn bits64() -> [u8; 8] {
    RNGS.with_borrow_mut(|(high, _)| high.u64(..)).to_be_bytes()
}

/// Seeds from the operating system, by way of the keys that the standard library takes from it for its hash maps.
fn seeded(which: u8) -> Rng {
    Rng::with_seed(RandomState::new().hash_one(which))
}

/// `bytes` in lowercase hexadecimal, into `text`, which is twice as long.
pub(super) fn write_hex(bytes: &[u8], text: &mut [u8]) {
    for (byte, pair) in bytes.iter().zip(text.as_chunks_mut::<2>().0) {
        *pair = PAIRS.get(usize::from(*byte)).copied().unwrap_or_default();
    }
}

/// Each byte in two digits.
#[expect(clippy::indexing_slicing, reason = "worked out by the compiler, which would refuse it")]
static PAIRS: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};

/// The bytes that `text` says in lowercase hexadecimal; `None` for anything else, uppercase included.
pub(super) fn read_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        for digit in pair {
            let nibble = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            *byte = (*byte << 4) | nibble;
        }
    }
    Some(bytes)
}
