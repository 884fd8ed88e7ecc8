//! What may be on the wire between client and gateways, judged frame by frame: no nonce twice for
//! different packets, nothing inner in the clear.

use crate::lab::sharing::SHARED;
use crate::lab::topology::{gateway_number, is_inner};
use crate::probe::MARK;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether a frame comes from the node at the other end of the cable, or goes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    FromNode,
    ToNode,
}

/// What was seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) frames: u64,
    /// ESP packets as their senders sent them, heartbeats apart.
    pub(crate) esp: u64,
    /// Different nonces of all keys.
    pub(crate) nonces: u64,
    /// Keys: pairs of a receiver and an SPI.
    pub(crate) keys: u64,
    pub(crate) heartbeats: u64,
    pub(crate) ike: u64,
    /// Packets that left their sender twice, byte for byte: no nonce used twice, but worth knowing.
    pub(crate) repeated: u64,
    /// Parts of IP packets, which ESP never comes in.
    pub(crate) fragments: u64,
    /// Frames that the kernel had no room for: of these nothing is known.
    pub(crate) unseen: u64,
}

/// Numbers in a page of the table of nonces.
const PAGE: u64 = 1024;
const SPI_HEARTBEAT: u32 = 0xFFFF_FFFF;
const UDP_ESP: u16 = 4500;
const UDP_IKE: u16 = 500;
/// SPI and sequence number, IV, tag.
const LEAST_ESP: usize = 8 + IV + TAG;
const IV: usize = 8;
const TAG: usize = 16;

/// Who receives by this SPI (0 is the client, which may move), and the SPI: a key.
type Key = (u8, u32);

/// All edges that share an address, as a receiver.
const EDGES: u8 = u8::MAX;

/// Keys at edges are replaced every 10 s, and used all the time until then. An authority that is restarted does not know
/// for ever which SPIs it had.
const RETIRED_NS: u64 = 60_000_000_000;

/// The checker.
#[derive(Default)]
pub(super) struct Checker {
    pub(super) seen: Seen,
    /// The time, in nanoseconds since any.
    pub(super) now_ns: u64,
    /// When they were last used.
    keys: HashMap<Key, u64>,
    /// For each nonce of a key a print of the packet that was sealed with it; 0: not seen. Their
    /// IVs count up, so pages are full.
    pages: HashMap<(Key, u64), Box<[u32; PAGE as usize]>>,
}

impl Checker {
    /// Looks at a frame; yields what must not be.
    pub(super) fn look(&mut self, frame: &[u8], way: Way) -> Option<String> {
        self.seen.frames += 1;
        if let Some(at) = marked(frame) {
            return Some(format!("byte {at} of a frame is inside's, in the clear"));
        }
        let packet = Packet::of(frame)?;
        if is_inner(packet.from) || is_inner(packet.to) {
            return Some(format!(
                "a packet from {} to {} (protocol {}) outside of ESP",
                packet.from, packet.to, packet.protocol
            ));
        }
        if packet.fragment {
            self.seen.fragments += u64::from(way == Way::FromNode);
            return None;
        }
        match packet.protocol {
            50 => self.esp(&packet, packet.payload, way),
            17 => self.udp(&packet, way),
            _ => None,
        }
    }

    /// This receiver has begun anew (0: the client): it has new keys, whatever their SPIs.
    pub(super) fn forget(&mut self, receiver: u8) {
        self.keys.retain(|(to, _), _| *to != receiver);
        self.pages.retain(|((to, _), _), _| *to != receiver);
    }

    fn udp(&mut self, packet: &Packet<'_>, way: Way) -> Option<String> {
        let (header, data) = packet.payload.split_at_checked(8)?;
        let ports = [number16(header, 0)?, number16(header, 2)?];
        // RFC 3948: four zero bytes are IKE, a single byte keeps a mapping alive.
        let esp = ports.contains(&UDP_ESP) && data.len() >= 8 && number32(data, 0) != Some(0);
        if esp {
            return self.esp(packet, data, way);
        }
        let ike = ports.contains(&UDP_ESP) || ports.contains(&UDP_IKE);
        self.seen.ike += u64::from(ike && way == Way::FromNode);
        None
    }

    fn esp(&mut self, packet: &Packet<'_>, esp: &[u8], way: Way) -> Option<String> {
        let (spi, sequence) = (number32(esp, 0)?, number32(esp, 4)?);
        if spi == SPI_HEARTBEAT {
            self.seen.heartbeats += u64::from(way == Way::FromNode);
            return None;
        }
        let who = format_args!("from {} to {}, SPI {spi:08x}", packet.from, packet.to);
        if esp.len() < LEAST_ESP {
            return Some(format!("ESP of {} bytes {who}", esp.len()));
        }
        let iv = u64::from_be_bytes(esp.get(8..8 + IV)?.try_into().ok()?);
        // So a number that comes twice is a nonce that comes twice.
        if iv & u64::from(u32::MAX) != u64::from(sequence) {
            return Some(format!("{who}: IV {iv}, sequence number {sequence}"));
        }
        let to = packet.to.to_string();
        let receiver = match to == SHARED {
            true => EDGES,
            false => gateway_number(&to).unwrap_or_default(),
        };
        let key = (receiver, spi);
        let slot = self.slot(key, iv)?;
        let print = print(esp);
        let before = std::mem::replace(slot, print);
        let sent = u64::from(way == Way::FromNode);
        self.seen.esp += sent;
        if before == 0 {
            self.seen.nonces += 1;
        } else if before == print {
            self.seen.repeated += sent;
        } else {
            return Some(format!("nonce {iv} for two packets {who}"));
        }
        None
    }

    fn slot(&mut self, key: Key, iv: u64) -> Option<&mut u32> {
        let last = self.keys.insert(key, self.now_ns);
        if let (EDGES, Some(last)) = (key.0, last)
            && self.now_ns.saturating_sub(last) > RETIRED_NS
        {
            self.pages.retain(|(of, _), _| *of != key);
            self.seen.keys += 1;
        }
        self.seen.keys += u64::from(last.is_none());
        let page = self.pages.entry((key, iv / PAGE));
        let page = page.or_insert_with(|| Box::new([0; PAGE as usize]));
        page.get_mut(usize::try_from(iv % PAGE).ok()?)
    }
}

/// Of an ESP packet: its tag, which the key and every byte are in; never 0.
fn print(esp: &[u8]) -> u32 {
    let tag = esp.len().saturating_sub(TAG);
    let words = esp.get(tag..).unwrap_or_default().chunks_exact(4);
    let print = words.fold(esp.len() as u32, |print, word| {
        print.rotate_left(9) ^ word.iter().fold(0, |all, byte| all << 8 | u32::from(*byte))
    });
    print.max(1)
}

/// Where a run of the mark is, if there is one. The mark is written eight times in a row, so it
/// suffices to look at each thirty-second byte, from whatever letter of the mark on.
fn marked(frame: &[u8]) -> Option<usize> {
    let here = |at: &usize| {
        let part = frame.get(*at..*at + 2 * MARK.len()).unwrap_or_default();
        let from = |turn: usize| {
            let letters = MARK.iter().cycle().skip(turn);
            !part.is_empty()
                && part
                    .iter()
                    .zip(letters)
                    .all(|(byte, letter)| byte == letter)
        };
        (0..MARK.len()).any(from)
    };
    (0..frame.len()).step_by(32).find(here)
}

/// An IP packet of a frame.
struct Packet<'a> {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    fragment: bool,
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    fn of(frame: &'a [u8]) -> Option<Self> {
        let (_, packet) = frame.split_at_checked(14)?;
        match number16(frame, 12)? {
            0x0800 => Self::v4(packet),
            0x86DD => Self::v6(packet),
            _ => None,
        }
    }

    fn v4(packet: &'a [u8]) -> Option<Self> {
        let address = |at: usize| -> Option<IpAddr> {
            let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(bytes).into())
        };
        let header = usize::from(packet.first()? & 0x0F) * 4;
        // Short frames are filled up: the packet ends where it says.
        let end = usize::from(number16(packet, 2)?);
        Some(Self {
            from: address(12)?,
            to: address(16)?,
            protocol: *packet.get(9)?,
            // More to come, or not the first part.
            fragment: number16(packet, 6)? & 0x3FFF != 0,
            payload: packet.get(header..end)?,
        })
    }

    fn v6(packet: &'a [u8]) -> Option<Self> {
        let address = |at: usize| -> Option<IpAddr> {
            let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        };
        let protocol = *packet.get(6)?;
        let end = 40 + usize::from(number16(packet, 4)?);
        Some(Self {
            from: address(8)?,
            to: address(24)?,
            protocol,
            fragment: protocol == 44,
            payload: packet.get(40..end)?,
        })
    }
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Ethernet frame with an IPv4 packet.
    fn frame(from: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + payload.len() as u16).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend(from);
        frame.extend(to);
        frame.extend(payload);
        frame
    }

    fn esp(spi: u32, number: u32, content: u8) -> Vec<u8> {
        let mut esp = [spi, number, 0, number].map(u32::to_be_bytes).concat();
        esp.extend([content; 40]);
        esp
    }

    const CLIENT: [u8; 4] = [198, 51, 100, 2];
    const GW1: [u8; 4] = [192, 0, 2, 1];
    const GW2: [u8; 4] = [192, 0, 2, 2];

    #[test]
    fn a_nonce_for_two_packets_is_found_and_a_packet_seen_twice_is_none() {
        let mut checker = Checker::default();
        let mut look = |to, esp: &[u8], way| checker.look(&frame(CLIENT, to, 50, esp), way);
        for number in 1..=3000 {
            assert_eq!(
                look(GW1, &esp(7, number, number as u8), Way::FromNode),
                None
            );
            // The same on its way out of the router.
            assert_eq!(look(GW1, &esp(7, number, number as u8), Way::ToNode), None);
        }
        // Another gateway may have the same SPI: it is another key.
        assert_eq!(look(GW2, &esp(7, 5, 99), Way::FromNode), None);
        // What the bridge brings twice is no nonce used twice.
        assert_eq!(look(GW1, &esp(7, 2, 2), Way::FromNode), None);
        let found = look(GW1, &esp(7, 2, 77), Way::ToNode).unwrap();
        assert!(found.contains("nonce 2 for two packets"), "{found}");
        let seen = checker.seen;
        assert_eq!(
            (seen.esp, seen.nonces, seen.keys, seen.repeated),
            (3002, 3001, 2, 1)
        );
    }

    #[test]
    fn a_gateway_that_begins_anew_may_use_an_spi_again() {
        let mut checker = Checker::default();
        let look = |checker: &mut Checker, to_gateway: bool, content| {
            let (from, to) = match to_gateway {
                true => (CLIENT, GW1),
                false => (GW1, CLIENT),
            };
            checker.look(
                &frame(from, to, 50, &esp(0x1001, 1, content)),
                Way::FromNode,
            )
        };
        for to_gateway in [true, false] {
            assert_eq!(look(&mut checker, to_gateway, 1), None);
        }
        checker.forget(1);
        assert_eq!(look(&mut checker, true, 2), None);
        assert!(look(&mut checker, true, 3).is_some());
        assert!(look(&mut checker, false, 2).is_some(), "the client did not");
    }

    #[test]
    fn an_spi_that_was_silent_for_a_minute_is_another_key() {
        let mut checker = Checker::default();
        let to = SHARED.parse::<Ipv4Addr>().unwrap();
        let mut look = |seconds: u64, content| {
            checker.now_ns = seconds * 1_000_000_000;
            let frame = frame(CLIENT, to.octets(), 50, &esp(7, 1, content));
            checker.look(&frame, Way::FromNode)
        };
        assert_eq!(look(0, 1), None);
        assert!(look(59, 2).is_some());
        assert_eq!(look(120, 3), None);
        assert!(look(121, 4).is_some());
        assert_eq!(checker.seen.keys, 2);
    }

    #[test]
    fn an_iv_that_is_not_the_number_is_found() {
        let mut packet = esp(7, 1, 0);
        packet[15] = 9;
        let found = Checker::default().look(&frame(CLIENT, GW1, 50, &packet), Way::FromNode);
        assert!(found.unwrap().contains("IV 9, sequence number 1"));
        let short = Checker::default().look(&frame(CLIENT, GW1, 50, &packet[..31]), Way::FromNode);
        assert!(short.unwrap().contains("ESP of 31 bytes"));
    }

    #[test]
    fn esp_in_udp_counts_and_ike_and_heartbeats_do_not() {
        let mut checker = Checker::default();
        let udp = |port: u16, data: &[u8]| {
            let mut udp = [port, port, 8 + data.len() as u16, 0]
                .map(u16::to_be_bytes)
                .concat();
            udp.extend(data);
            frame(CLIENT, GW1, 17, &udp)
        };
        let frames = [
            udp(4500, &esp(7, 1, 0)),
            udp(4500, &[0; 40]),
            udp(500, &[1; 40]),
            udp(4500, &[0xFF]),
            frame(CLIENT, GW1, 50, &esp(SPI_HEARTBEAT, 1, 0)),
        ];
        for frame in &frames {
            assert_eq!(checker.look(frame, Way::FromNode), None);
        }
        let seen = checker.seen;
        assert_eq!((seen.esp, seen.ike, seen.heartbeats), (1, 3, 1));
    }

    #[test]
    fn inner_addresses_and_marks_are_found() {
        let mut checker = Checker::default();
        for (from, to) in [([10, 0, 0, 130], [10, 0, 0, 1]), (GW1, [10, 0, 0, 1])] {
            let found = checker.look(&frame(from, to, 6, &[0; 20]), Way::FromNode);
            assert!(found.unwrap().contains("outside of ESP"));
        }
        let mut payload = esp(7, 1, 0);
        for shift in 0..64 {
            payload.truncate(16);
            payload.resize(16 + shift, 0);
            payload.extend(MARK.repeat(8));
            payload.extend([0; 16]);
            let found = checker.look(&frame(CLIENT, GW1, 50, &payload), Way::FromNode);
            assert!(found.unwrap().contains("in the clear"), "{shift}");
        }
    }

    #[test]
    fn frames_that_end_early_are_no_trouble() {
        let whole = frame(CLIENT, GW1, 50, &esp(7, 1, 0));
        let mut checker = Checker::default();
        for end in 0..whole.len() {
            let _ = checker.look(&whole[..end], Way::FromNode);
        }
        // None of them is a whole packet.
        assert_eq!((checker.seen.frames, checker.seen.keys), (90, 0));
    }
}
