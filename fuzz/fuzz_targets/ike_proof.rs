//! What a peer proves itself with: certificates, an AUTH payload, and answers of EAP. Nobody is
//! believed.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::ike_proof(data));
