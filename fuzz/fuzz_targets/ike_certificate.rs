//! Certificates, keys and CRLs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::ike_certificate(data));
