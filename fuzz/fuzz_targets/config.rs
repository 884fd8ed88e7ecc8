//! The configuration of a node: judged, and each problem can be shown. What it says is not obeyed, but
//! for the files that it names, which are not there.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::config(data));
