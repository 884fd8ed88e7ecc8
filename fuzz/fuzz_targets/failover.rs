//! The monitor of a cluster and the key management, wired as in a client, while gateways do what they
//! like: answer, refuse, fall silent, delete sessions, begin some, ask to be left.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::failover(data));
