//! See `edgeward::invariants::proxy_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::proxy_header(bytes));
