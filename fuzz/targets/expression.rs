//! See `edgeward::invariants::expression`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::expression(bytes));
