//! See `edgeward::invariants::cookies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::cookies(bytes));
