//! An Ethernet frame, as the XDP programs read it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::packet_parser(data));
