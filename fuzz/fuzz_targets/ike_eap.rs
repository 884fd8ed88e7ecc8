//! A user who wants to prove itself by EAP: any packets; and a conversation of EAP-TLS in which some
//! bytes are changed. Nobody succeeds who has no certificate.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::ike_eap(data));
