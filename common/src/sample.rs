//! Test packets, which the generator of `evergate bench send` makes and `evergate bench receive` counts: UDP
//! over IPv4 to the port of the discard service (RFC 863), so that a host that nobody counts on drops them.

use core::str::FromStr;

use crate::checksum::ipv4_header;
use crate::packet::{Bytes, BytesMut};
use crate::wire::{ETHERNET_LEN, ETHERTYPE_IPV4, IPPROTO_UDP, IPV4_LEN, UDP_LEN};

/// The destination port of test packets.
pub const PORT: u16 = 9;
/// The source port of the first flow.
pub const FIRST_PORT: u16 = 20_000;
/// Bytes of the smallest test packet, its IP header included.
pub const LEAST: usize = IPV4_LEN + UDP_LEN + NOTE_LEN;
/// Bytes of the largest test packet, so that it fits a tunnel through Ethernet.
pub const MOST: usize = 1500;
/// Tunnels and flows within them that a collector tells apart, together.
pub const MOST_FLOWS: usize = 1 << 20;
/// The usual simple mix of the Internet, 7 : 4 : 1, large packets made small enough for a tunnel.
const IMIX: [u16; 12] = [64, 64, 576, 64, 64, 576, 64, 1400, 64, 576, 64, 576];
/// Version 4, a header of five words.
const VERSION: u8 = 0x45;
/// The first bytes of the payload.
const MAGIC: [u8; 4] = *b"EGTP";
/// Magic, run (4), tunnel (2), flow (2), number (8), time of sending (8).
const NOTE_LEN: usize = 28;

/// Whether a frame is a test packet, as far as its headers tell: no VLAN tag, no IP options.
#[inline(always)]
pub fn is_sample<B: Bytes + ?Sized>(frame: &B) -> bool {
    frame.read_u16(12) == Some(ETHERTYPE_IPV4)
        && frame.read::<1>(ETHERNET_LEN) == Some([VERSION])
        && frame.read::<1>(ETHERNET_LEN + 9) == Some([IPPROTO_UDP])
        && frame.read_u16(ETHERNET_LEN + IPV4_LEN + 2) == Some(PORT)
}

/// What a test packet says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Tells the packets of one sender's run from those of others.
    pub run: u32,
    /// Numbered from 0; the source address goes with it.
    pub tunnel: u16,
    /// Of its tunnel, numbered from 0; the source port goes with it.
    pub flow: u16,
    /// Numbered from 0.
    pub number: u64,
    /// Of the machine's monotonic clock.
    pub sent_ns: u64,
}

impl Note {
    /// Reads a frame; none for anything that is no test packet.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let at = ETHERNET_LEN + IPV4_LEN + UDP_LEN;
        if frame.read::<4>(at)? != MAGIC {
            return None;
        }
        Some(Self {
            run: frame.read_u32(at + 4)?,
            tunnel: frame.read_u16(at + 8)?,
            flow: frame.read_u16(at + 10)?,
            number: u64::from_be_bytes(frame.read(at + 12)?),
            sent_ns: u64::from_be_bytes(frame.read(at + 20)?),
        })
    }

    /// Writes a whole IP packet from and to these addresses, as long as `packet` is; what is behind the note
    /// stays as it was. None if it is shorter than [`LEAST`], or longer than IP packets are.
    pub fn write(self, packet: &mut [u8], from: [u8; 4], to: [u8; 4]) -> Option<()> {
        let length = u16::try_from(packet.len()).ok()?;
        let udp = length.checked_sub(IPV4_LEN as u16)?;
        packet.get(..LEAST)?;
        // DF, TTL 64.
        packet.write(0, [VERSION, 0])?;
        packet.write(2, length.to_be_bytes())?;
        packet.write(4, [0, 0, 0x40, 0, 64, IPPROTO_UDP, 0, 0])?;
        packet.write(12, from)?;
        packet.write(16, to)?;
        let sum = ipv4_header(packet.get(..IPV4_LEN)?);
        packet.write(10, sum.to_be_bytes())?;
        packet.write(IPV4_LEN, FIRST_PORT.wrapping_add(self.flow).to_be_bytes())?;
        packet.write(IPV4_LEN + 2, PORT.to_be_bytes())?;
        packet.write(IPV4_LEN + 4, udp.to_be_bytes())?;
        // No checksum, which RFC 768 allows.
        packet.write(IPV4_LEN + 6, [0, 0])?;
        let at = IPV4_LEN + UDP_LEN;
        packet.write(at, MAGIC)?;
        packet.write(at + 4, self.run.to_be_bytes())?;
        packet.write(at + 8, self.tunnel.to_be_bytes())?;
        packet.write(at + 10, self.flow.to_be_bytes())?;
        packet.write(at + 12, self.number.to_be_bytes())?;
        packet.write(at + 20, self.sent_ns.to_be_bytes())
    }
}

/// Sizes of IP packets, in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// All packets have this one.
    One([u16; 1]),
    /// 64, 576 and 1400 bytes, as 7 : 4 : 1.
    Imix,
}

impl Sizes {
    fn in_turn(&self) -> &[u16] {
        match self {
            Self::One(size) => size,
            Self::Imix => &IMIX,
        }
    }
}

impl FromStr for Sizes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<u16>() {
            _ if text == "imix" => Ok(Self::Imix),
            Ok(size) if (LEAST..=MOST).contains(&usize::from(size)) => Ok(Self::One([size])),
            _ => Err("expected 56 to 1500 bytes, or imix"),
        }
    }
}

/// How the packets of a run take turns: one packet of each tunnel, then the next flow of each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    tunnels: u16,
    flows: u16,
    sizes: Sizes,
}

impl Turns {
    /// So many tunnels with so many flows in each. None: no tunnel, no flow, more flows than ports, or
    /// more than [`MOST_FLOWS`] in all.
    #[must_use]
    pub const fn new(tunnels: u16, flows: u16, sizes: Sizes) -> Option<Self> {
        let all = tunnels as usize * flows as usize;
        if all == 0 || all > MOST_FLOWS || flows > u16::MAX - FIRST_PORT {
            return None;
        }
        Some(Self {
            tunnels,
            flows,
            sizes,
        })
    }

    /// Tunnel, flow and size of the packet with this number. Every flow has all sizes.
    #[must_use]
    pub fn of(&self, number: u64) -> (u16, u16, u16) {
        let (tunnels, flows) = (u64::from(self.tunnels), u64::from(self.flows));
        let (round, place) = (number / (tunnels * flows), number % (tunnels * flows));
        let sizes = self.sizes.in_turn();
        let turn = (round % sizes.len() as u64 + place) % sizes.len() as u64;
        let size = sizes.get(turn as usize).copied().unwrap_or(LEAST as u16);
        ((place % tunnels) as u16, (place / tunnels) as u16, size)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use super::*;

    const NOTE: Note = Note {
        run: 7,
        tunnel: 999,
        flow: 3,
        number: 1 << 40,
        sent_ns: 5,
    };

    #[test]
    fn only_udp_to_the_port_is_a_sample() {
        let mut frame = [0_u8; 60];
        frame[12] = 8;
        frame[14] = VERSION;
        frame[23] = IPPROTO_UDP;
        frame[37] = 9;
        assert!(is_sample(&frame[..]));
        assert!(!is_sample(&frame[..37]));
        for at in [12, 14, 23, 37] {
            let mut other = frame;
            other[at] ^= 1;
            assert!(!is_sample(&other[..]), "byte {at}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut frame = [0xff_u8; ETHERNET_LEN + 64];
        frame[12..14].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
        let packet = &mut frame[ETHERNET_LEN..];
        NOTE.write(packet, [10, 0, 0, 130], [10, 0, 0, 1]).unwrap();
        assert_eq!(
            ipv4_header(&packet[..IPV4_LEN]),
            0,
            "a right sum adds up to nothing"
        );
        assert_eq!(packet[16..20], [10, 0, 0, 1]);
        assert_eq!(packet[63], 0xff, "the rest is left alone");
        assert!(is_sample(&frame[..]));
        assert_eq!(Note::of(&frame), Some(NOTE));
        for length in 0..ETHERNET_LEN + LEAST {
            assert_eq!(Note::of(&frame[..length]), None);
        }
        assert_eq!(NOTE.write(&mut [0; LEAST - 1], [0; 4], [0; 4]), None);
        assert_eq!(NOTE.write(&mut [0; LEAST], [0; 4], [0; 4]), Some(()));
    }

    #[test]
    fn sizes_have_bounds() {
        for wrong in ["55", "1501", "", "mix", "-1"] {
            let why = wrong.parse::<Sizes>().unwrap_err();
            assert!(why.contains("56 to 1500"), "{wrong}");
        }
        assert_eq!("56".parse(), Ok(Sizes::One([56])));
        assert_eq!("imix".parse(), Ok(Sizes::Imix));
        assert_eq!((LEAST, MOST), (56, 1500));
    }

    #[test]
    fn every_flow_of_every_tunnel_has_the_whole_mix() {
        for (tunnels, flows) in [(1, 1), (1, 11), (1, 16), (3, 4), (1000, 16), (12, 12)] {
            let turns = Turns::new(tunnels, flows, Sizes::Imix).unwrap();
            let mut sizes: BTreeMap<(u16, u16), Vec<u16>> = BTreeMap::new();
            let all = u64::from(tunnels) * u64::from(flows);
            for number in 0..all * IMIX.len() as u64 {
                let (tunnel, flow, size) = turns.of(number);
                assert_eq!(u64::from(tunnel), number % u64::from(tunnels));
                sizes.entry((tunnel, flow)).or_default().push(size);
            }
            assert_eq!(sizes.len() as u64, all);
            let mut mix = IMIX;
            mix.sort_unstable();
            for sizes in sizes.values_mut() {
                sizes.sort_unstable();
                assert_eq!(sizes[..], mix);
            }
        }
        for (tunnels, flows) in [(0, 1), (1, 0), (1, u16::MAX), (u16::MAX, 17)] {
            assert_eq!(Turns::new(tunnels, flows, Sizes::Imix), None);
        }
        assert!(Turns::new(u16::MAX, 16, Sizes::Imix).is_some());
    }
}
