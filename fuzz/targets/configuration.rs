//! See `edgeward::invariants::configuration`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::configuration(bytes));
