//! Proposals as text: read, written, and read the same; and as the node offers them on the wire.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::ike_proposals(data));
