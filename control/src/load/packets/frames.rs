//! The bytes of test packets.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use evergate_common::sample::{Note, Turns};
use evergate_common::wire::{ETHERNET_LEN, ETHERTYPE_IPV4};

use crate::dataplane::xsk::HEADROOM;
use crate::esp::{Marks, NEXT_IPV4, OutboundSa, Outer, OuterConfig};

/// How packets are sealed before they are sent.
pub struct Seal {
    /// One for each tunnel.
    pub sas: Vec<OutboundSa>,
    pub outer: OuterConfig,
}

/// Makes one packet after the other.
pub(super) struct Maker {
    ethernet: [u8; ETHERNET_LEN],
    /// Of the first tunnel; those of others follow.
    from: u32,
    to: [u8; 4],
    turns: Turns,
    run: u32,
    number: u64,
    seal: Option<(Vec<OutboundSa>, Outer)>,
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
        tunnels: u16,
        turns: Turns,
        run: u32,
        seal: Option<Seal>,
    ) -> Result<Self> {
        let from = ends.from.to_bits();
        ensure!(
            from.checked_add(u32::from(tunnels)).is_some(),
            "there are no {tunnels} addresses from {} on",
            ends.from
        );
        let mut ethernet = [0; ETHERNET_LEN];
        ethernet[..6].copy_from_slice(&ends.next_hop);
        ethernet[6..12].copy_from_slice(&ends.mac);
        ethernet[12..].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
        let seal = match seal {
            Some(Seal { sas, outer }) => {
                ensure!(
                    sas.len() == usize::from(tunnels),
                    "expected an SA for each of {tunnels} tunnels, found {}",
                    sas.len()
                );
                ensure!(
                    matches!(outer.local, IpAddr::V4(_)),
                    "outer addresses are IPv4 here"
                );
                Some((sas, Outer::new(&outer)?))
            }
            None => None,
        };
        Ok(Self {
            ethernet,
            from,
            to: ends.to.octets(),
            turns,
            run,
            number: 0,
            seal,
        })
    }

    /// Writes the next packet into a chunk of frame memory; returns where the frame lies. What was in the
    /// chunk before is the rest of the payload.
    pub(super) fn next(&mut self, chunk: &mut [u8], now_ns: u64) -> Result<Range<usize>> {
        let (tunnel, flow, size) = self.turns.of(self.number);
        let note = Note {
            run: self.run,
            tunnel,
            flow,
            number: self.number,
            sent_ns: now_ns,
        };
        let start = HEADROOM + ETHERNET_LEN;
        let inner = start..start + usize::from(size);
        let packet = chunk.get_mut(inner.clone()).context("a small chunk")?;
        let from = self.from + u32::from(tunnel);
        note.write(packet, from.to_be_bytes(), self.to)
            .context("a small packet")?;
        let ip = match &mut self.seal {
            Some((sas, outer)) => {
                let sa = sas.get_mut(usize::from(tunnel));
                let sa = sa.context("a tunnel without an SA")?;
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

    fn turns(tunnels: u16, flows: u16, sizes: &str) -> Turns {
        Turns::new(tunnels, flows, sizes.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_packet_tells_its_tunnel_flow_number_and_time() {
        let mut maker = Maker::new(ENDS, 2, turns(2, 3, "imix"), 7, None).unwrap();
        let mut chunk = [0; CHUNK];
        let mut sizes = std::collections::BTreeSet::new();
        for number in 0..30 {
            let range = maker.next(&mut chunk, 1000 + number).unwrap();
            let frame = &chunk[range];
            sizes.insert(frame.len() - ETHERNET_LEN);
            assert!(is_sample(frame));
            let note = Note {
                run: 7,
                tunnel: (number % 2) as u16,
                flow: (number / 2 % 3) as u16,
                number,
                sent_ns: 1000 + number,
            };
            assert_eq!(Note::of(frame), Some(note));
            let last = frame[ETHERNET_LEN + 15];
            assert_eq!(last, 130 + note.tunnel as u8, "an address for each tunnel");
        }
        assert_eq!(Vec::from_iter(sizes), [64, 576, 1400]);
    }

    #[test]
    fn each_tunnel_s_packets_open_with_its_key() {
        const TUNNELS: u16 = 3;
        let salt = || Salt::from([9; 4]);
        let aead = |tunnel: u16| {
            let key = Key::new(&[tunnel as u8; 32]).unwrap();
            Aead::new(Backend::Ring, Cipher::Aes256Gcm, &key).unwrap()
        };
        let outer = OuterConfig::new([192, 0, 2, 9].into(), [192, 0, 2, 1].into(), None);
        let spi = |tunnel: u16| 0x1000 + u32::from(tunnel);
        let sender = |tunnel| OutboundSa::new(spi(tunnel), aead(tunnel), salt(), true, 0);
        let sas = (0..TUNNELS).map(sender).collect();
        let seal = Some(Seal { sas, outer });
        let mut maker = Maker::new(ENDS, TUNNELS, turns(TUNNELS, 1, "64"), 7, seal).unwrap();
        let receiver = |tunnel| {
            let window = Window::new(1024).unwrap();
            InboundSa::new(spi(tunnel), aead(tunnel), salt(), true, window)
        };
        let mut receivers: Vec<_> = (0..TUNNELS).map(receiver).collect();
        let mut chunk = [0; CHUNK];
        for number in 0..12 {
            let range = maker.next(&mut chunk, 5).unwrap();
            let esp = range.start + ETHERNET_LEN + IPV4_LEN..range.end;
            assert_eq!(esp.len(), sealed_len(64));
            assert!(esp.len() > ESP_HEADER_LEN);
            let tunnel = number as u16 % TUNNELS;
            let opened = receivers[usize::from(tunnel)]
                .open(&mut chunk, esp)
                .unwrap();
            let start = opened.inner.start - ETHERNET_LEN;
            let note = Note::of(&chunk[start..]).unwrap();
            assert_eq!((note.number, note.tunnel), (number, tunnel));
        }
    }

    #[test]
    fn a_tunnel_has_an_address_and_an_sa() {
        let top = Ends {
            from: Ipv4Addr::new(255, 255, 255, 250),
            ..ENDS
        };
        assert!(Maker::new(top, 5, turns(5, 1, "64"), 7, None).is_ok());
        assert!(Maker::new(top, 6, turns(6, 1, "64"), 7, None).is_err());
        let outer = OuterConfig::new([192, 0, 2, 9].into(), [192, 0, 2, 1].into(), None);
        let seal = Seal {
            sas: Vec::new(),
            outer,
        };
        assert!(Maker::new(ENDS, 1, turns(1, 1, "64"), 7, Some(seal)).is_err());
    }
}
