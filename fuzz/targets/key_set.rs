//! See `edgeward::invariants::key_set`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::key_set(bytes));
