use super::*;
use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

const OURS_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 254));
const OURS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 254));

fn udp_v4(source: [u8; 4], destination: [u8; 4], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let builder = PacketBuilder::ipv4(source, destination, 64).udp(5, 6);
    builder.write(&mut out, &vec![7; size]).unwrap();
    out
}

fn udp_v6(source: [u8; 16], destination: [u8; 16], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let builder = PacketBuilder::ipv6(source, destination, 64).udp(5, 6);
    builder.write(&mut out, &vec![7; size]).unwrap();
    out
}

fn inner_v6(last: u8) -> [u8; 16] {
    let mut address = [0; 16];
    (address[0], address[15]) = (0xfd, last);
    address
}

#[test]
fn another_implementation_reads_each_message_v4() {
    use etherparse::icmpv4::DestUnreachableHeader as Unreachable;
    use etherparse::icmpv4::TimeExceededCode;
    let packet = udp_v4([10, 0, 0, 1], [10, 0, 0, 2], 900);
    let unreachable = Icmpv4Type::DestinationUnreachable;
    for (problem, expected) in [
        (Problem::NoRoute, unreachable(Unreachable::Network)),
        (Problem::HostUnreachable, unreachable(Unreachable::Host)),
        (
            Problem::Prohibited,
            unreachable(Unreachable::FilterProhibited),
        ),
        (
            Problem::TooBig { mtu: 1400 },
            unreachable(Unreachable::FragmentationNeeded { next_hop_mtu: 1400 }),
        ),
        (
            Problem::TimeExceeded,
            Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit),
        ),
    ] {
        let mut out = [0xaa; 2000];
        let length = build(problem, OURS_V4, &packet, &mut out).unwrap();
        assert_eq!(length, MAX_V4);
        let read = SlicedPacket::from_ip(&out[..length]).unwrap();
        let Some(NetSlice::Ipv4(ip)) = &read.net else {
            panic!("{read:?}")
        };
        assert_eq!(
            ip.header().header_checksum(),
            ip.header().to_header().calc_header_checksum()
        );
        assert_eq!(IpAddr::from(ip.header().source_addr()), OURS_V4);
        assert_eq!(ip.header().destination(), [10, 0, 0, 1]);
        let Some(TransportSlice::Icmpv4(icmp)) = &read.transport else {
            panic!("{read:?}")
        };
        assert_eq!(icmp.icmp_type(), expected);
        assert_eq!(checksum(icmp.slice()), 0);
        assert_eq!(icmp.payload(), &packet[..MAX_V4 - 28]);
    }
}

#[test]
fn another_implementation_reads_each_message_v6() {
    use etherparse::icmpv6::{DestUnreachableCode as Unreachable, TimeExceededCode};
    let packet = udp_v6(inner_v6(1), inner_v6(2), 1300);
    let unreachable = Icmpv6Type::DestinationUnreachable;
    for (problem, expected) in [
        (Problem::NoRoute, unreachable(Unreachable::NoRoute)),
        (Problem::HostUnreachable, unreachable(Unreachable::Address)),
        (Problem::Prohibited, unreachable(Unreachable::Prohibited)),
        (
            Problem::TooBig { mtu: 1280 },
            Icmpv6Type::PacketTooBig { mtu: 1280 },
        ),
        (
            Problem::TimeExceeded,
            Icmpv6Type::TimeExceeded(TimeExceededCode::HopLimitExceeded),
        ),
    ] {
        let mut out = [0xaa; 2000];
        let length = build(problem, OURS_V6, &packet, &mut out).unwrap();
        assert_eq!(length, MAX_V6);
        let read = SlicedPacket::from_ip(&out[..length]).unwrap();
        let Some(NetSlice::Ipv6(ip)) = &read.net else {
            panic!("{read:?}")
        };
        let (from, to) = (ip.header().source(), ip.header().destination());
        assert_eq!(to, inner_v6(1));
        let Some(TransportSlice::Icmpv6(icmp)) = &read.transport else {
            panic!("{read:?}")
        };
        assert_eq!(icmp.icmp_type(), expected);
        assert!(icmp.is_checksum_valid(from, to));
        assert_eq!(icmp.payload(), &packet[..MAX_V6 - 48]);
    }
}

#[test]
fn a_short_packet_is_quoted_whole() {
    let packet = udp_v4([10, 0, 0, 1], [10, 0, 0, 2], 3);
    let mut out = [0; 100];
    let length = build(Problem::NoRoute, OURS_V4, &packet, &mut out).unwrap();
    assert_eq!(&out[28..length], &packet);
    assert_eq!(
        build(Problem::NoRoute, OURS_V4, &packet, &mut out[..length - 1]),
        Err(NoAnswer::Buffer)
    );
}

#[test]
fn what_is_never_answered_v4() {
    let ask = |packet: &[u8]| build(Problem::NoRoute, OURS_V4, packet, &mut [0; 2000]);
    let host = [10, 0, 0, 1];
    for (source, destination, reason) in [
        (host, [224, 0, 0, 1], NoAnswer::Destination),
        (host, [255; 4], NoAnswer::Destination),
        ([0; 4], host, NoAnswer::Source),
        ([127, 0, 0, 1], host, NoAnswer::Source),
        ([239, 1, 2, 3], host, NoAnswer::Source),
        ([255; 4], host, NoAnswer::Source),
        ([241, 0, 0, 1], host, NoAnswer::Source),
    ] {
        assert_eq!(
            ask(&udp_v4(source, destination, 9)),
            Err(reason),
            "{source:?}"
        );
    }
    let mut icmp = udp_v4(host, [10, 0, 0, 2], 9);
    icmp[9] = ICMP;
    for kind in 0..=255 {
        icmp[20] = kind;
        let is_query = [0, 8, 9, 10, 13, 14, 15, 16, 17, 18].contains(&kind);
        let expected = if is_query {
            Ok(28 + icmp.len())
        } else {
            Err(NoAnswer::AboutError)
        };
        assert_eq!(ask(&icmp), expected, "type {kind}");
    }
    let mut fragment = udp_v4(host, [10, 0, 0, 2], 9);
    fragment[7] = 3;
    assert_eq!(ask(&fragment), Err(NoAnswer::LaterFragment));
    let fine = udp_v4(host, [10, 0, 0, 2], 9);
    assert_eq!(ask(&fine[..fine.len() - 1]), Err(NoAnswer::Malformed));
    assert_eq!(
        build(Problem::NoRoute, OURS_V6, &fine, &mut [0; 99]),
        Err(NoAnswer::Family)
    );
}

#[test]
fn what_is_never_answered_v6() {
    let ask = |problem, packet: &[u8]| build(problem, OURS_V6, packet, &mut [0; 2000]);
    let (host, mut group) = (inner_v6(1), inner_v6(9));
    group[0] = 0xff;
    let to_group = udp_v6(host, group, 9);
    assert_eq!(ask(Problem::NoRoute, &to_group), Err(NoAnswer::Destination));
    assert!(ask(Problem::TooBig { mtu: 1280 }, &to_group).is_ok());
    let mut loopback = [0; 16];
    loopback[15] = 1;
    for source in [[0; 16], group, loopback] {
        assert_eq!(
            ask(Problem::NoRoute, &udp_v6(source, host, 9)),
            Err(NoAnswer::Source)
        );
    }
    let mut icmp = udp_v6(host, inner_v6(2), 9);
    icmp[6] = ICMPV6;
    for kind in 0..=255 {
        icmp[40] = kind;
        let refused = kind < 128 || kind == 137;
        assert_eq!(
            ask(Problem::NoRoute, &icmp) == Err(NoAnswer::AboutError),
            refused,
            "{kind}"
        );
    }
}

#[test]
fn the_bucket_holds_its_rate() {
    let start = Instant::now();
    let mut limit = RateLimit::new(10, 3, start);
    let allowed = |limit: &mut RateLimit, now| (0..20).filter(|_| limit.allow(now)).count();
    assert_eq!(allowed(&mut limit, start), 3, "the burst");
    assert_eq!(allowed(&mut limit, start + Duration::from_millis(99)), 0);
    assert_eq!(allowed(&mut limit, start + Duration::from_millis(100)), 1);
    assert_eq!(allowed(&mut limit, start + Duration::from_millis(350)), 2);
    assert_eq!(
        allowed(&mut limit, start + Duration::from_secs(99)),
        3,
        "no more than the burst"
    );
    assert_eq!(allowed(&mut RateLimit::new(0, 5, start), start), 0);
}

proptest! {
    #[test]
    fn any_bytes_are_taken_without_panic(
        mut packet in proptest::collection::vec(any::<u8>(), 0..1500), v6: bool, mtu: u16, room in 0usize..1500,
    ) {
        if let Some(first) = packet.first_mut() {
            *first = if v6 { 0x60 } else { 0x45 };
        }
        let length = packet.len();
        if let Some(field) = packet.get_mut(2..6) {
            let (v4, v6) = (length as u16, (length as u16).saturating_sub(40));
            field.copy_from_slice(&[v4.to_be_bytes(), v6.to_be_bytes()].concat());
        }
        let mut out = vec![0; room];
        for source in [OURS_V4, OURS_V6] {
            if let Ok(length) = build(Problem::TooBig { mtu }, source, &packet, &mut out) {
                let limit = if v6 { MAX_V6 } else { MAX_V4 };
                prop_assert!(length <= limit);
            }
        }
    }

    #[test]
    fn the_bucket_never_gives_more_than_rate_and_burst(
        rate in 1u32..5000, burst in 1u32..50, gaps in proptest::collection::vec(0u64..2_000_000, 1..300),
    ) {
        let start = Instant::now();
        let (mut limit, mut now, mut given) = (RateLimit::new(rate, burst, start), start, 0u64);
        for gap in gaps {
            now += Duration::from_nanos(gap);
            given += u64::from(limit.allow(now));
        }
        let grown = (now - start).as_secs_f64() * f64::from(rate) + f64::from(burst);
        prop_assert!(given as f64 <= grown + 1.0);
    }
}
