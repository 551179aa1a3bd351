//! See `edgeward::invariants::framing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::framing(bytes));
