//! What an authority and an edge say to each other.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::cluster_message(data));
