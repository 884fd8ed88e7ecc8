//! What the XDP programs decide about a frame, run on the host.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::verdicts(data));
