//! What routers say about packets of ours that were too long.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::icmp_quote(data));
