//! What the kernel says of links, addresses, routes and neighbours.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::netlink(data));
