//! See `edgeward::invariants::forwarded`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::forwarded(bytes));
