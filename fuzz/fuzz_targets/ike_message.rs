//! A datagram on port 500: the parser reads and writes it back the same, and an engine takes it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::ike_message(data));
