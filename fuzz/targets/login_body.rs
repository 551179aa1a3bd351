//! See `edgeward::invariants::login_body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::login_body(bytes));
