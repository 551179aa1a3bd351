//! See `edgeward::invariants::client_certificate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::client_certificate(bytes));
