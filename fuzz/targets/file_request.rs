//! See `edgeward::invariants::file_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::file_request(bytes));
