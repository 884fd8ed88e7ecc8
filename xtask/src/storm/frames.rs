//! The frames of a storm: each is made anew, as somebody on the untrusted side could send it.

use super::Kind;
use crate::probe::first_message;
use anyhow::{Result, anyhow};
use rand::rngs::StdRng;
use rand::{Rng, RngExt as _, SeedableRng as _};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::net::Ipv4Addr;

/// The sender of every frame of a storm: by that the yardstick tells them from all others.
pub(super) const SENDER: [u8; 6] = [0x02, 0, 0, 0x0f, 0, 0x66];
/// Where a hostile peer is.
pub(super) const HOSTILE_AT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 66);
/// The inner address that it owns.
pub(super) const HOSTILE_INNER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 190);
/// The SPI that it sends on.
pub(super) const HOSTILE_SPI: u32 = 0x6666_0001;
/// Where its packets may go.
pub(super) const HOSTILE_MAY: &str = "10.0.0.0/24";

const ESP: u8 = 50;
const UDP: u8 = 17;
const ETHERNET: usize = 14;
/// Don't fragment.
const WHOLE: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
/// AES-256-GCM, and its salt.
pub(super) const KEY: usize = 32;
pub(super) const SALT: usize = 4;

/// Whom the frames are for, and what a listener on the wire knows of him.
#[derive(Clone, Debug)]
pub(super) struct Victim {
    pub(super) mac: [u8; 6],
    pub(super) gateway: Ipv4Addr,
    pub(super) client: Ipv4Addr,
    /// Of the client's session: what the client sends on, and what the gateway does.
    pub(super) spi_in: u32,
    pub(super) spi_out: u32,
}

/// Makes frames.
pub(super) struct Maker {
    kind: Kind,
    victim: Victim,
    sealer: Option<Sealer>,
    rng: StdRng,
    made: u32,
}

/// The hostile peer's half of its session.
struct Sealer {
    key: LessSafeKey,
    salt: [u8; SALT],
    sequence: u32,
}

impl Maker {
    /// `secret`: the hostile peer's key and salt; `sequence`: the last number that it has used.
    pub(super) fn new(kind: Kind, victim: Victim, secret: &[u8], sequence: u32) -> Result<Self> {
        let sealer = match secret.split_at_checked(KEY) {
            Some((key, salt)) => {
                let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| anyhow!("a bad key"))?;
                Some(Sealer {
                    key: LessSafeKey::new(key),
                    salt: salt.try_into()?,
                    sequence,
                })
            }
            None => None,
        };
        Ok(Self {
            kind,
            victim,
            sealer,
            rng: StdRng::from_rng(&mut rand::rng()),
            made: 0,
        })
    }

    /// Writes the next frame to `frame`.
    pub(super) fn next(&mut self, frame: &mut Vec<u8>) {
        self.made = self.made.wrapping_add(1);
        let (stranger, client) = (self.stranger(), self.victim.client);
        match self.kind {
            Kind::FirstMessages => {
                let message = first_message(&mut self.rng);
                let datagram = [udp(500, 500, message.len()), message].concat();
                self.packet(frame, stranger, UDP, WHOLE, &datagram);
            }
            Kind::Strangers if self.made.is_multiple_of(2) => {
                let spi = self.rng.next_u32();
                let payload = self.keyed_heartbeat(spi, 0);
                self.packet(frame, stranger, ESP, WHOLE, &payload);
            }
            Kind::Strangers => {
                let mut payload = [0xff; 36];
                payload[4..8].copy_from_slice(&(self.made >> 1).to_be_bytes());
                payload[8..].fill(0);
                self.packet(frame, stranger, ESP, WHOLE, &payload);
            }
            Kind::SpoofedRequests => {
                let payload = self.keyed_heartbeat(self.victim.spi_in, 0);
                self.packet(frame, client, ESP, WHOLE, &payload);
            }
            Kind::SpoofedAnswers => {
                let payload = self.keyed_heartbeat(self.victim.spi_out, 0x8000_0000);
                self.packet(frame, client, ESP, WHOLE, &payload);
            }
            Kind::UnknownSpi => {
                // The first byte tells them from all that the lab's nodes have.
                let spi = self.rng.next_u32() & 0x00ff_ffff | 0x6700_0000;
                let payload = self.esp(spi, 0, 80);
                self.packet(frame, stranger, ESP, WHOLE, &payload);
            }
            Kind::Fragments => self.fragment(frame, stranger),
            Kind::Forged => {
                // Ahead of what the session has sent: only the integrity check can refuse it.
                let sequence = 0x0080_0000 | self.rng.next_u32() & 0x007f_ffff;
                let payload = self.esp(self.victim.spi_in, sequence, 256);
                self.packet(frame, client, ESP, WHOLE, &payload);
            }
            Kind::HostilePeer => {
                let payload = self.sealed();
                self.packet(frame, HOSTILE_AT, ESP, WHOLE, &payload);
            }
        }
    }

    /// One of 131,072 addresses (RFC 2544).
    fn stranger(&mut self) -> Ipv4Addr {
        Ipv4Addr::from(0xC612_0000 | self.rng.next_u32() & 0x1_FFFF)
    }

    /// Ethernet and IPv4 before a payload.
    fn packet(&self, frame: &mut Vec<u8>, from: Ipv4Addr, protocol: u8, flags: u16, body: &[u8]) {
        frame.clear();
        frame.extend(self.victim.mac);
        frame.extend(SENDER);
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((20 + body.len() as u16).to_be_bytes());
        frame.extend((self.made as u16).to_be_bytes());
        frame.extend(flags.to_be_bytes());
        frame.extend([64, protocol, 0, 0]);
        frame.extend(from.octets());
        frame.extend(self.victim.gateway.octets());
        let sum = checksum(&frame[ETHERNET..]);
        frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(body);
    }

    /// As docs/xdp.md has it, with a MAC that can only be guessed.
    fn keyed_heartbeat(&mut self, spi: u32, answer: u32) -> Vec<u8> {
        let mut payload = vec![0xff; 4];
        payload.extend((answer | self.made & 0x7fff_ffff).to_be_bytes());
        payload.extend(b"EGH1");
        payload.extend(spi.to_be_bytes());
        payload.extend([0; 4]);
        payload.extend(self.rng.random::<[u8; 16]>());
        payload
    }

    fn esp(&mut self, spi: u32, sequence: u32, length: usize) -> Vec<u8> {
        let mut payload = vec![0; length];
        self.rng.fill_bytes(&mut payload);
        payload[..4].copy_from_slice(&spi.to_be_bytes());
        payload[4..8].copy_from_slice(&sequence.to_be_bytes());
        payload
    }

    /// Eight bytes each: the beginning of a datagram of IKE, a later part of one, a part of ESP.
    fn fragment(&mut self, frame: &mut Vec<u8>, from: Ipv4Addr) {
        let body = self.rng.random::<[u8; 8]>();
        let later = self.rng.random_range(1..180);
        match self.made % 3 {
            0 => self.packet(frame, from, UDP, MORE_FRAGMENTS, &udp(4500, 4500, 1200)),
            1 => self.packet(frame, from, UDP, MORE_FRAGMENTS | later, &body),
            _ => self.packet(frame, from, ESP, MORE_FRAGMENTS | later, &body),
        }
    }

    /// What a peer with a key seals that does not keep to the rules: noise, a next header that is none,
    /// a source that it does not own, lengths that are wrong, padding that is none.
    fn sealed(&mut self) -> Vec<u8> {
        let mut inner = vec![0x45, 0, 0, 60, 0, 1, 0x40, 0, 64, UDP, 0, 0];
        inner.extend(HOSTILE_INNER.octets());
        inner.extend([10, 0, 0, 1]);
        inner.extend(udp(9, 9, 32));
        inner.resize(60, 0);
        let mut next = 4;
        match self.made % 4 {
            0 => self.rng.fill_bytes(&mut inner),
            1 => next = self.rng.random(),
            2 => self.rng.fill_bytes(&mut inner[12..16]),
            _ => self.rng.fill_bytes(&mut inner[..4]),
        }
        // Two bytes of padding, their number, and what is inside (RFC 4303 section 2.4).
        inner.extend([1, 2, 2, next]);
        if self.made.is_multiple_of(64) {
            let end = inner.len();
            self.rng.fill_bytes(&mut inner[end - 4..]);
        }
        match &mut self.sealer {
            Some(sealer) => sealer.seal(inner),
            None => inner,
        }
    }
}

impl Sealer {
    /// ESP by RFC 4106, with sequence numbers of 32 bits.
    fn seal(&mut self, mut inner: Vec<u8>) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let iv = u64::from(self.sequence).to_be_bytes();
        let mut packet = HOSTILE_SPI.to_be_bytes().to_vec();
        packet.extend(self.sequence.to_be_bytes());
        let mut nonce = [0; SALT + 8];
        nonce[..SALT].copy_from_slice(&self.salt);
        nonce[SALT..].copy_from_slice(&iv);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let header = Aad::from(packet.clone());
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, header, &mut inner);
        packet.extend(iv);
        packet.extend(inner);
        // A packet without its tag is only one more that is refused.
        packet.extend(tag.iter().flat_map(|tag| tag.as_ref()));
        packet
    }
}

/// A UDP header, without checksum.
fn udp(from: u16, to: u16, length: usize) -> Vec<u8> {
    let length = u16::try_from(8 + length).unwrap_or(u16::MAX);
    [from, to, length, 0].map(u16::to_be_bytes).concat()
}

/// Of an IPv4 header (RFC 1071), whose own field is zero.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2);
    let sum: u32 = words
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(folded as u16 + (folded >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn maker(kind: Kind) -> Maker {
        let victim = Victim {
            mac: [2, 0, 0, 2, 0, 1],
            gateway: Ipv4Addr::new(192, 0, 2, 1),
            client: Ipv4Addr::new(198, 51, 100, 2),
            spi_in: 0x1234_5678,
            spi_out: 0x8765_4321,
        };
        Maker::new(kind, victim, &[7; KEY + SALT], 0).unwrap()
    }

    #[test]
    fn every_frame_is_ipv4_with_a_right_header() {
        for kind in Kind::ALL {
            let (mut maker, mut frame) = (maker(kind), Vec::new());
            let mut seen = HashSet::new();
            for _ in 0..200 {
                maker.next(&mut frame);
                assert_eq!(frame[..6], [2, 0, 0, 2, 0, 1]);
                assert_eq!(frame[6..12], SENDER);
                let packet = &frame[ETHERNET..];
                let length = u16::from_be_bytes([packet[2], packet[3]]);
                assert_eq!(usize::from(length), packet.len());
                assert_eq!(checksum(&packet[..20]), 0, "{kind:?}");
                assert!(seen.insert(frame.clone()), "{kind:?}: twice the same");
            }
        }
    }

    #[test]
    fn what_a_listener_knows_is_in_what_is_forged() {
        let (mut maker, mut frame) = (maker(Kind::Forged), Vec::new());
        maker.next(&mut frame);
        assert_eq!(frame[26..30], [198, 51, 100, 2]);
        assert_eq!(frame[34..38], [0x12, 0x34, 0x56, 0x78]);
    }

    #[test]
    fn a_hostile_peer_seals_with_its_key() {
        let (mut maker, mut frame) = (maker(Kind::HostilePeer), Vec::new());
        maker.next(&mut frame);
        let esp = &mut frame[34..];
        let (header, rest) = esp.split_at_mut(8);
        let (iv, sealed) = rest.split_at_mut(8);
        let nonce: [u8; 12] = [&[7; SALT][..], &iv[..]].concat().try_into().unwrap();
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; KEY]).unwrap());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = key.open_in_place(nonce, Aad::from(&header[..]), sealed);
        assert_eq!(opened.unwrap().len(), 64);
    }
}
