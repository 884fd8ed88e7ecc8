//! An ESP packet, and what it holds once opened: the first byte says which of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::esp_packet(data));
