//! An Ethernet frame, as the XDP programs read it.

use evergate_common::packet::{classify, parse, source_routed};

pub fn packet_parser(data: &[u8]) {
    let Ok(parsed) = parse(data) else { return };
    if let Some(ip) = &parsed.ip {
        let _ = ip.payload_len();
        let _ = source_routed(&parsed, ip, data);
    }
    let _ = classify(&parsed, data);
}
