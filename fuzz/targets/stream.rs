//! See `edgeward::invariants::stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::stream(bytes));
