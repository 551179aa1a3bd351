//! See `edgeward::invariants::shape`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::shape(bytes));
