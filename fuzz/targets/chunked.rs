//! See `edgeward::invariants::chunked`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::chunked(bytes));
