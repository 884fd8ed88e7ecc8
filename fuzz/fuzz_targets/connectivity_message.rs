//! What a datagram of the connectivity protocol says.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::connectivity_message(data));
