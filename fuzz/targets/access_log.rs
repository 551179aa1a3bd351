//! See `edgeward::invariants::access_log`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::access_log(bytes));
