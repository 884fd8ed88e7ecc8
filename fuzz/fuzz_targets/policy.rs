//! A policy file: judged, and each diagnostic can be shown.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::policy(data));
