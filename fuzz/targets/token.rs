//! See `edgeward::invariants::token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::token(bytes));
