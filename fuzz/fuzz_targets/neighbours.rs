//! ARP and neighbour discovery: any frame; and a LAN on which an announcer hears what stations say.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::neighbours(data));
