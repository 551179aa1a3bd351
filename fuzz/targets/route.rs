//! See `edgeward::invariants::route`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::route(bytes));
