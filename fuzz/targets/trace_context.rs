//! See `edgeward::invariants::trace_context`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::trace_context(bytes));
