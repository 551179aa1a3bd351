//! See `edgeward::invariants::nginx`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::nginx(bytes));
