use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::checksum::{fold, ipv4_header, sum};

/// A world in which all slots but those of number 5 lead somewhere.
struct World {
    translation: Translation,
    to: IpAddr,
    local: Local,
}

impl Translates for World {
    fn translation(&self) -> Option<&Translation> {
        Some(&self.translation)
    }
    fn toward(&self, slot: u32) -> Option<Address> {
        (slot != 5 && slot < TOWARD_SLOTS).then(|| address(self.to))
    }
    fn local(&self) -> Option<&Local> {
        Some(&self.local)
    }
}

/// A datagram with right checksums, or in IPv4 none over UDP.
fn frame(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8], checked: bool) -> Vec<u8> {
    let length = (UDP_LEN + payload.len()) as u16;
    let mut udp = Vec::new();
    for word in [from.1, to.1, length, 0] {
        udp.extend(word.to_be_bytes());
    }
    udp.extend(payload);
    if checked {
        let right = udp_sum(from.0, to.0, &udp);
        udp[6..8].copy_from_slice(&(if right == 0 { 0xFFFF } else { right }).to_be_bytes());
    }
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match (from.0, to.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = (IPV4_LEN as u16 + length).to_be_bytes();
            let mut header = vec![0x45, 0, total[0], total[1], 1, 2, 0x40, 0, 64, 17, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = ipv4_header(&header).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            frame.extend(ETHERTYPE_IPV4.to_be_bytes());
            frame.extend(header);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let [l0, l1] = length.to_be_bytes();
            frame.extend(ETHERTYPE_IPV6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0, l0, l1, 17, 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        _ => panic!("two families"),
    }
    frame.extend(udp);
    frame
}

fn udp_sum(from: IpAddr, to: IpAddr, udp: &[u8]) -> u16 {
    let mut total = u32::from(IPPROTO_UDP) + udp.len() as u32;
    for ip in [from, to] {
        total = match ip {
            IpAddr::V4(v4) => sum(&v4.octets(), total),
            IpAddr::V6(v6) => sum(&v6.octets(), total),
        };
    }
    !fold(sum(udp, total))
}

/// An IKE message with these first bytes of its SPIs.
fn message(initiator: u8, responder: u8, flags: u8) -> Vec<u8> {
    let mut message = vec![0x33; 60];
    message[8..16].fill(0);
    (message[0], message[8]) = (initiator, responder);
    message[19] = flags;
    message
}

fn addresses(v6: bool, seed: u32) -> [IpAddr; 3] {
    [seed, 0x0202, 0x0303].map(|low| match v6 {
        false => Ipv4Addr::from(0xC000_0000 | low).into(),
        true => Ipv6Addr::from(0x2001_0db8_0000_0000_0000_0000_0000_0000 | u128::from(low)).into(),
    })
}

fn world(shared: IpAddr, stands: IpAddr) -> World {
    World {
        translation: Translation::new(shared, &[stands]),
        to: stands,
        local: Local::new(Some([2, 0, 0, 0, 0, 1]), &[]),
    }
}

#[test]
fn a_number_in_the_receivers_spi_says_which_authority() {
    let [client, shared, stands] = addresses(false, 0x77);
    let world = world(shared, stands);
    let ask = |message: &[u8]| {
        let frame = frame((client, 4000), (shared, 500), message, true);
        toward(frame.as_slice(), &world).map(|found| found.counter)
    };
    for (message, expected) in [
        // Number 5 has nobody; who has none yet goes by the client's slot, whatever the client's own SPI is.
        (message(5 << 2, 0, 0x08), Ok(Counter::IkeFirstTranslated)),
        (message(0x11, 5 << 2, 0x08), Err(Counter::IkeNoAuthority)),
        (message(0x11, 6 << 2, 0x08), Ok(Counter::IkeTranslated)),
        // The authority has begun this IKE SA.
        (message(5 << 2, 0x11, 0), Err(Counter::IkeNoAuthority)),
        (message(6 << 2, 5 << 2, 0), Ok(Counter::IkeTranslated)),
        // No whole header.
        (
            message(0x11, 5 << 2, 0x08)[..27].to_vec(),
            Err(Counter::Passed),
        ),
    ] {
        assert_eq!(ask(&message), expected, "{message:?}");
    }
}

#[test]
fn clients_have_slots_of_their_own() {
    let mut hits = [0; CLIENT_SLOTS as usize];
    for n in 0..102_400 {
        let client = address(Ipv4Addr::from_bits(0x0A00_0000 + n).into());
        hits[client_slot(&client) as usize] += 1;
    }
    assert!(hits.iter().all(|hits| (50..200).contains(hits)), "{hits:?}");
}

#[test]
fn unused_slots_are_nobodys() {
    let translation = Translation::new(Ipv4Addr::LOCALHOST.into(), &[]);
    assert!(!translation.has_answers_from(&[0; 16]));
    let many: Vec<IpAddr> = (0..10).map(|n| Ipv4Addr::from_bits(n).into()).collect();
    let translation = Translation::new(Ipv4Addr::LOCALHOST.into(), &many);
    let known = many
        .iter()
        .filter(|ip| translation.has_answers_from(&address(**ip)));
    assert_eq!(known.count(), MAX_AUTHORITIES);
}

proptest! {
    /// There and back: each time the frame is what it would be had it been made with the other address.
    #[test]
    fn only_one_address_changes(
        v6: bool,
        nat_t: bool,
        checked: bool,
        seed in 1u32..0x0100,
        port: u16,
        content in proptest::collection::vec(any::<u8>(), 28..200),
    ) {
        let checked = checked || v6;
        let [client, shared, stands] = addresses(v6, seed);
        let world = world(shared, stands);
        let own = if nat_t { PORT_NAT_T } else { PORT_IKE };
        let mut content = content;
        if nat_t {
            content.splice(..0, [0; 4]);
        }
        // No number that nobody has.
        let start = if nat_t { 4 } else { 0 };
        (content[start], content[start + 8]) = (1, 1);

        let mut there = frame((client, port), (shared, own), &content, checked);
        let found = toward(there.as_slice(), &world).unwrap();
        prop_assert_eq!(found.counter, Counter::IkeTranslated);
        prop_assert_eq!(found.apply(there.as_mut_slice()), Some(()));
        prop_assert_eq!(&there, &frame((client, port), (stands, own), &content, checked));
        prop_assert_eq!(toward(there.as_slice(), &world), Err(Counter::Passed));
        prop_assert_eq!(back(there.as_slice(), &world), None);

        let mut answer = frame((stands, own), (client, port), &content, checked);
        let found = back(answer.as_slice(), &world).unwrap();
        prop_assert_eq!(found.counter, Counter::IkeReturned);
        prop_assert_eq!(found.apply(answer.as_mut_slice()), Some(()));
        prop_assert_eq!(&answer, &frame((shared, own), (client, port), &content, checked));
        prop_assert_eq!(back(answer.as_slice(), &world), None);
    }

    /// Whatever comes, nothing is written beyond a frame, and what was decided can be done.
    #[test]
    fn damage_is_survived(
        v6: bool,
        answer: bool,
        damage in proptest::collection::vec((0usize..100, any::<u8>()), 0..4),
        cut in 0usize..140,
    ) {
        let [client, shared, stands] = addresses(v6, 1);
        let world = World { local: Local::default(), ..world(shared, stands) };
        let message = message(1, 1, 8);
        let mut bytes = match answer {
            false => frame((client, 500), (shared, 500), &message, true),
            true => frame((stands, 500), (client, 500), &message, true),
        };
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len().min(cut));
        let found = [toward(bytes.as_slice(), &world).ok(), back(bytes.as_slice(), &world)];
        for found in found.into_iter().flatten() {
            prop_assert_eq!(found.apply(bytes.clone().as_mut_slice()), Some(()));
        }
    }
}
