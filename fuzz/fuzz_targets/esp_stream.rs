//! Packets of a peer on their way: reordered, repeated, damaged, cut and forged. Each is accepted once
//! at most, and only as it was sent.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::esp_stream(data));
