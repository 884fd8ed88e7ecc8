//! Parts of IKE messages: the place of each is read, opened with a key, and put together with others
//! of any number, total and length.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::ike_fragments(data));
