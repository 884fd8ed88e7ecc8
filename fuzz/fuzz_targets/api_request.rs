//! Bytes on a connection to the API: requests of HTTP, their queries and their JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::api_request(data));
