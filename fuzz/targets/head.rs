//! See `edgeward::invariants::head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::head(bytes));
