//! What edges and authorities say to each other in datagrams.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::connectivity(data));
