//! A hostile peer that has made a key exchange: what it says inside its protected messages, in any order
//! and number, between true messages and beside them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::ike_peer(data));
