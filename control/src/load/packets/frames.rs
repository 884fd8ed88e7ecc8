//! The bytes of test packets.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use evergate_common::sample::{FIRST_PORT, LEAST, Note};
use evergate_common::wire::{ETHERNET_LEN, ETHERTYPE_IPV4};

use crate::dataplane::xsk::HEADROOM;
use crate::esp::{Marks, NEXT_IPV4, OutboundSa, Outer, OuterConfig};

/// Bytes of the largest, so that it fits a tunnel through Ethernet.
const MOST: usize = 1500;
/// The usual simple mix of the Internet, 7 : 4 : 1, large packets made small enough for a tunnel.
const IMIX: [u16; 12] = [64, 64, 576, 64, 64, 576, 64, 1400, 64, 576, 64, 576];

/// Sizes of IP packets, in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(Vec<u16>);

impl FromStr for Sizes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "imix" {
            return Ok(Self(IMIX.to_vec()));
        }
        let size: u16 = text.parse().context("expected a number, or imix")?;
        ensure!(
            (LEAST..=MOST).contains(&usize::from(size)),
            "expected {LEAST} to {MOST} bytes, or imix"
        );
        Ok(Self(vec![size]))
    }
}

/// How packets are sealed before they are sent.
pub struct Seal {
    pub sa: OutboundSa,
    pub outer: OuterConfig,
}

/// Makes one packet after the other.
pub(super) struct Maker {
    ethernet: [u8; ETHERNET_LEN],
    from: [u8; 4],
    to: [u8; 4],
    sizes: Vec<u16>,
    flows: u16,
    run: u32,
    number: u64,
    seal: Option<(OutboundSa, Outer)>,
}

/// From where to where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) mac: [u8; 6],
    pub(super) next_hop: [u8; 6],
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
}

impl Maker {
    pub(super) fn new(
        ends: Ends,
        sizes: Sizes,
        flows: u16,
        run: u32,
        seal: Option<Seal>,
    ) -> Result<Self> {
        ensure!(
            flows > 0 && flows <= u16::MAX - FIRST_PORT,
            "expected 1 to {} flows",
            u16::MAX - FIRST_PORT
        );
        let mut ethernet = [0; ETHERNET_LEN];
        ethernet[..6].copy_from_slice(&ends.next_hop);
        ethernet[6..12].copy_from_slice(&ends.mac);
        ethernet[12..].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
        let seal = match seal {
            Some(Seal { sa, outer }) => {
                ensure!(
                    matches!(outer.local, IpAddr::V4(_)),
                    "outer addresses are IPv4 here"
                );
                Some((sa, Outer::new(&outer)?))
            }
            None => None,
        };
        Ok(Self {
            ethernet,
            from: ends.from.octets(),
            to: ends.to.octets(),
            sizes: sizes.0,
            flows,
            run,
            number: 0,
            seal,
        })
    }

    /// Writes the next packet into a chunk of frame memory; returns where the frame lies. What was in the
    /// chunk before is the rest of the payload.
    pub(super) fn next(&mut self, chunk: &mut [u8], now_ns: u64) -> Result<Range<usize>> {
        let turn = (self.number % self.sizes.len() as u64) as usize;
        let size = self.sizes.get(turn).copied().unwrap_or(LEAST as u16);
        let note = Note {
            run: self.run,
            flow: (self.number % u64::from(self.flows)) as u16,
            number: self.number,
            sent_ns: now_ns,
        };
        let start = HEADROOM + ETHERNET_LEN;
        let inner = start..start + usize::from(size);
        let packet = chunk.get_mut(inner.clone()).context("a small chunk")?;
        note.write(packet, self.from, self.to)
            .context("a small packet")?;
        let ip = match &mut self.seal {
            Some((sa, outer)) => {
                let marks = Marks::of(packet);
                let esp = sa.seal(chunk, inner, NEXT_IPV4)?;
                outer.write(chunk, esp, marks)?
            }
            None => inner,
        };
        self.number += 1;
        let start = ip.start - ETHERNET_LEN;
        chunk[start..ip.start].copy_from_slice(&self.ethernet);
        Ok(start..ip.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::xsk::CHUNK;
    use crate::esp::{
        Aead, Backend, Cipher, ESP_HEADER_LEN, InboundSa, Key, Salt, Window, sealed_len,
    };
    use evergate_common::sample::is_sample;
    use evergate_common::wire::IPV4_LEN;

    const ENDS: Ends = Ends {
        mac: [2, 0, 0, 0, 0, 1],
        next_hop: [2, 0, 0, 0, 0, 2],
        from: Ipv4Addr::new(10, 0, 0, 130),
        to: Ipv4Addr::new(10, 0, 0, 1),
    };

    #[test]
    fn a_packet_tells_its_number_flow_and_time() {
        let sizes = "imix".parse().unwrap();
        let mut maker = Maker::new(ENDS, sizes, 3, 7, None).unwrap();
        let mut chunk = [0; CHUNK];
        for number in 0..30 {
            let range = maker.next(&mut chunk, 1000 + number).unwrap();
            let frame = &chunk[range];
            let size = IMIX[number as usize % IMIX.len()];
            assert_eq!(frame.len(), ETHERNET_LEN + usize::from(size));
            assert!(is_sample(frame));
            let note = Note {
                run: 7,
                flow: (number % 3) as u16,
                number,
                sent_ns: 1000 + number,
            };
            assert_eq!(Note::of(frame), Some(note));
        }
    }

    #[test]
    fn a_sealed_packet_opens() {
        let (key, salt) = (Key::new(&[5; 32]).unwrap(), Salt::from([9; 4]));
        let aead = || Aead::new(Backend::Ring, Cipher::Aes256Gcm, &key).unwrap();
        let outer = OuterConfig::new([192, 0, 2, 9].into(), [192, 0, 2, 1].into(), None);
        let sa = OutboundSa::new(0x1000, aead(), Salt::from([9; 4]), true, 0);
        let seal = Some(Seal { sa, outer });
        let mut maker = Maker::new(ENDS, "64".parse().unwrap(), 1, 7, seal).unwrap();
        let window = Window::new(1024).unwrap();
        let mut receiver = InboundSa::new(0x1000, aead(), salt, true, window);
        let mut chunk = [0; CHUNK];
        for number in 0..3 {
            let range = maker.next(&mut chunk, 5).unwrap();
            let esp = range.start + ETHERNET_LEN + IPV4_LEN..range.end;
            assert_eq!(esp.len(), sealed_len(64));
            assert!(esp.len() > ESP_HEADER_LEN);
            let opened = receiver.open(&mut chunk, esp).unwrap();
            let start = opened.inner.start - ETHERNET_LEN;
            assert_eq!(Note::of(&chunk[start..]).unwrap().number, number);
        }
    }

    #[test]
    fn sizes_have_bounds() {
        for wrong in ["55", "1501", "", "mix", "-1"] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
        assert_eq!("56".parse::<Sizes>().unwrap(), Sizes(vec![56]));
        assert_eq!(LEAST, 56);
    }
}
