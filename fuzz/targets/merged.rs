//! See `edgeward::invariants::merged`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::merged(bytes));
