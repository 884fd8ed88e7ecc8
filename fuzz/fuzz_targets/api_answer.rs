//! What whoever has the socket answers to `evergate status` and the other commands.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::api_answer(data));
