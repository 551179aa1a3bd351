//! See `edgeward::invariants::frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::frames(bytes));
