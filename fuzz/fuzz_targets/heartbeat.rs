//! A heartbeat, in a frame and by itself: whatever it says, a wrong MAC is never answered.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::heartbeat(data));
