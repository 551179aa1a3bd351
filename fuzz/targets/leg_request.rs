//! See `edgeward::invariants::leg_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::leg_request(bytes));
