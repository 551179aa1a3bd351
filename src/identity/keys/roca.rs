//! Tells RSA keys made by a certain kind of hardware, which anybody can factor (CVE-2017-15361, "ROCA").

/// The primes of the published test. Modulo each, the moduli in question are powers of 65537.
const PRIMES: &[u32] = &[
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
    107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Whether the modulus `n` (big-endian) bears the mark. By chance one in about 2^30 others does.
pub(super) fn is_marked(n: &[u8]) -> bool {
    PRIMES.iter().all(|prime| {
        let rest = n.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let powers = std::iter::successors(Some(1), |power| Some(power * (65_537 % prime) % prime));
        // The powers repeat within `prime` steps.
        powers.take(*prime as usize).any(|power| power == rest)
    })
}
