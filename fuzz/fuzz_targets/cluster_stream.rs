//! What an authority and an edge say to each other, in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::cluster_stream(data));
