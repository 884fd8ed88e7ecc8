//! The parser against etherparse, and on bytes that are no packet at all.

use super::*;
use crate::wire::*;
use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, PayloadSlice};
use proptest::prelude::*;
use std::vec::Vec;

fn judge(frame: &[u8]) -> Option<(Parsed, Class)> {
    let parsed = parse(frame).ok()?;
    let class = classify(&parsed, frame).ok()?;
    if let Some(ip) = &parsed.ip {
        let _ = source_routed(&parsed, ip, frame);
    }
    Some((parsed, class))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        judge(&bytes);
    }

    #[test]
    fn nearly_right_bytes_stay_within_the_frame(
        mut bytes in prop::collection::vec(any::<u8>(), 14..200),
        kind in 0usize..4,
    ) {
        bytes[12..14].copy_from_slice([&[8, 0], &[0x86, 0xDD], &[0x81, 0], &[8, 6]][kind]);
        if let Some((Parsed { ip: Some(ip), l3, .. }, class)) = judge(&bytes) {
            prop_assert!(ip.header_len <= ip.total_len);
            prop_assert!(l3 + ip.total_len <= bytes.len());
            if let Class::Esp(esp) | Class::Heartbeat(esp) = class {
                prop_assert!(esp.len >= ESP_LEN);
                prop_assert!(esp.offset + esp.len <= bytes.len());
            }
        }
    }

    #[test]
    fn agrees_with_etherparse_on_ipv4(
        source: [u8; 4], destination: [u8; 4], ttl: u8, tag in prop::option::of(0u16..4096),
        options in 0usize..=10, payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut header = etherparse::Ipv4Header::new(
            0, ttl, etherparse::IpNumber(IPPROTO_ESP), source, destination,
        ).unwrap();
        header.options = std::vec![1u8; options * 4].as_slice().try_into().unwrap();
        let link = PacketBuilder::ethernet2([1; 6], [2; 6]);
        let mut frame = Vec::new();
        let ip = etherparse::IpHeaders::Ipv4(header, Default::default());
        let number = etherparse::IpNumber(IPPROTO_ESP);
        match tag {
            Some(tag) => link.single_vlan(tag.try_into().unwrap()).ip(ip)
                .write(&mut frame, number, &payload).unwrap(),
            None => link.ip(ip).write(&mut frame, number, &payload).unwrap(),
        }
        compare(&frame)?;
    }

    #[test]
    fn agrees_with_etherparse_on_damaged_packets(
        mut frame in prop::collection::vec(any::<u8>(), 60..160), v6: bool, ihl in 4u8..16,
    ) {
        frame[12..14].copy_from_slice(if v6 { &[0x86, 0xDD] } else { &[8, 0] });
        frame[14] = if v6 { 0x60 } else { 0x40 | ihl };
        let length = (frame.len() - 14 - if v6 { 40 } else { 0 }) as u16;
        let at = if v6 { 18 } else { 16 };
        frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
        compare(&frame)?;
    }
}

/// Where both accept a frame they see the same in it; what etherparse accepts is not refused.
fn compare(frame: &[u8]) -> Result<(), TestCaseError> {
    let ours = parse(frame);
    let Ok(theirs) = PacketHeaders::from_ethernet_slice(frame) else {
        return Ok(());
    };
    let parsed = match ours {
        Ok(parsed) => parsed,
        Err(error) => return Err(TestCaseError::fail(std::format!("{error} {frame:02x?}"))),
    };
    match &theirs.net {
        Some(NetHeaders::Ipv4(header, _)) => {
            let ip = parsed.ip.expect("IPv4");
            prop_assert_eq!(ip.source, v4_mapped(header.source));
            prop_assert_eq!(ip.destination, v4_mapped(header.destination));
            prop_assert_eq!(ip.header_len, header.header_len());
            prop_assert_eq!(ip.total_len, usize::from(header.total_len));
            prop_assert_eq!(ip.ttl, header.time_to_live);
            prop_assert_eq!(ip.protocol, header.protocol.0);
            prop_assert_eq!(
                ip.fragment == Fragment::None,
                !header.is_fragmenting_payload()
            );
        }
        Some(NetHeaders::Ipv6(header, extensions)) => {
            let ip = parsed.ip.expect("IPv6");
            prop_assert_eq!(ip.source, header.source);
            prop_assert_eq!(ip.destination, header.destination);
            prop_assert_eq!(ip.ttl, header.hop_limit);
            prop_assert_eq!(ip.traffic_class, header.traffic_class);
            prop_assert_eq!(ip.total_len, 40 + usize::from(header.payload_length));
            // etherparse follows authentication headers and each kind once; we do not.
            if extensions.auth.is_none()
                && let (Ok(next), PayloadSlice::Ip(_) | PayloadSlice::Udp(_)) =
                    (extensions.next_header(header.next_header), &theirs.payload)
                && ip.header_len == 40 + extensions.header_len()
            {
                prop_assert_eq!(ip.protocol, next.0);
                prop_assert_eq!(
                    ip.fragment == Fragment::None,
                    !extensions.is_fragmenting_payload()
                );
            }
        }
        _ => {}
    }
    Ok(())
}
