//! Inner packets: what is changed in them, and what is told to their senders.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::inner_packet(data));
