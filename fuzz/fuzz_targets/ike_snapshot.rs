//! A snapshot of an IKE SA (see `control/src/ike/snapshot.rs`) as a repository may have it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evergate_tests::fuzz::ike_snapshot(data));
