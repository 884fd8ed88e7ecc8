//! ARP and neighbour discovery.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::neighbour_frame(data));
