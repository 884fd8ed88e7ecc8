//! A hand-written session: what is accepted is shown and read back the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::sa_words(data));
