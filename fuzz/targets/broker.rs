//! See `edgeward::invariants::broker`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::broker(bytes));
