//! Inner packets: what is changed in them, and what is told to their senders.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evergate::dataplane::net::checksum::{checksum, transport_v6};
use evergate::dataplane::net::icmp::{MAX_V4, MAX_V6, NoAnswer, Problem, build};
use evergate::dataplane::net::mss::clamp;
use evergate::dataplane::net::overhead::Envelope;

use super::script::Script;

const OURS_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OURS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Byte 0: what happened to the packet; 1 and 2: an MTU; the rest is the packet.
pub fn inner_packet(data: &[u8]) {
    let mut script = Script::new(data);
    let (which, mtu) = (script.byte(), script.word());
    let packet = script.rest();

    let mut changed = packet.to_vec();
    if clamp(&mut changed, mtu) {
        assert_eq!(changed.len(), packet.len());
        // The value and the checksum, two bytes each.
        let places = packet.iter().zip(&changed).filter(|(a, b)| a != b);
        assert!(places.count() <= 4, "more than two words were changed");
        assert!(!clamp(&mut changed.clone(), mtu), "it was not enough");
    } else {
        assert_eq!(changed, packet);
    }

    let problem = match which % 5 {
        0 => Problem::NoRoute,
        1 => Problem::HostUnreachable,
        2 => Problem::Prohibited,
        3 => Problem::TooBig { mtu },
        _ => Problem::TimeExceeded,
    };
    let mut out = [0; MAX_V6];
    for ours in [IpAddr::V4(OURS_V4), IpAddr::V6(OURS_V6)] {
        let Ok(length) = build(problem, ours, packet, &mut out) else {
            continue;
        };
        let told = out[..length].to_vec();
        let (header, most) = if ours.is_ipv4() {
            (20, MAX_V4)
        } else {
            (40, MAX_V6)
        };
        assert!((header + 8..=most).contains(&length));
        let quoted = &told[header + 8..];
        assert!(packet.starts_with(quoted), "it quotes something else");
        match ours {
            IpAddr::V4(_) => {
                assert_eq!(checksum(&told[..20]), 0);
                assert_eq!(checksum(&told[20..]), 0);
            }
            IpAddr::V6(ours) => {
                let to: [u8; 16] = told[24..40].try_into().expect("16 bytes");
                assert_eq!(transport_v6(ours, to.into(), 58, &told[40..]), 0);
            }
        }
        // Nobody answers it.
        let again = build(problem, ours, &told, &mut out);
        assert_eq!(again, Err(NoAnswer::AboutError));
    }

    let envelope = Envelope {
        v6: which & 0x40 != 0,
        udp: which & 0x80 != 0,
    };
    let largest = envelope.largest_inner(usize::from(mtu));
    assert!(largest == 0 || envelope.sealed(largest) <= usize::from(mtu));
}
