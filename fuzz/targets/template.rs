//! See `edgeward::invariants::template`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::template(bytes));
