//! A ticket (RFC 5723) as a client sends it, and the state inside one that opens.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::ticket(data));
