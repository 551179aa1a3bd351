//! See `edgeward::invariants::service_rows`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::service_rows(bytes));
