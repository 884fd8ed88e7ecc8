//! What a peer that has made a key exchange with us says inside its protected messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::ike_session(data));
