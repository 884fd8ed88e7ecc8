//! An Ethernet frame, as the XDP programs read it.
#![no_main]

use evergate_common::packet::{classify, parse, source_routed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(parsed) = parse(data) else { return };
    if let Some(ip) = &parsed.ip {
        let _ = ip.payload_len();
        let _ = source_routed(&parsed, ip, data);
    }
    let _ = classify(&parsed, data);
});
