//! The Ethernet frame around ARP and neighbour discovery, with at most one VLAN tag.

/// A MAC address, in wire order.
pub type Mac = [u8; 6];

/// `ff:ff:ff:ff:ff:ff`.
pub const BROADCAST: Mac = [0xff; 6];

/// Shortest Ethernet frame without its checksum (IEEE 802.3 section 3.2.8); what we build is
/// padded to it, because not every driver pads a frame from an AF_XDP ring.
pub const MIN_FRAME: usize = 60;

pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
const TPID_8021Q: u16 = 0x8100;
const TPID_8021AD: u16 = 0x88a8;

/// A VLAN tag as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// 0x8100 (802.1Q) or 0x88a8 (802.1ad).
    pub tpid: u16,
    /// Priority (3 bits), drop eligible (1 bit), VLAN id (12 bits).
    pub tci: u16,
}

impl Tag {
    /// An 802.1Q tag of priority 0. `id`: 0 to 4094.
    #[must_use]
    pub fn vlan(id: u16) -> Self {
        Self {
            tpid: TPID_8021Q,
            tci: id & 0x0fff,
        }
    }
}

/// The Ethernet header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet {
    pub destination: Mac,
    pub source: Mac,
    pub tag: Option<Tag>,
    pub ethertype: u16,
}

/// `N` bytes of `bytes` at `offset`, if they are there.
pub(crate) fn take<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// A big-endian 16-bit word of `bytes` at `offset`, if it is there.
pub(crate) fn take_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    take(bytes, offset).map(u16::from_be_bytes)
}

/// Whether a station can have this MAC: neither a group address nor all zero.
pub(crate) fn is_station(mac: Mac) -> bool {
    mac != [0; 6] && mac[0] & 1 == 0
}

impl Ethernet {
    /// Reads the header of `frame`; also returns what comes after it. `None` if it is cut short.
    pub(crate) fn parse(frame: &[u8]) -> Option<(Self, &[u8])> {
        let destination = take(frame, 0)?;
        let source = take(frame, 6)?;
        let outer = take_u16(frame, 12)?;
        let (tag, ethertype, end) = if outer == TPID_8021Q || outer == TPID_8021AD {
            let tag = Tag {
                tpid: outer,
                tci: take_u16(frame, 14)?,
            };
            (Some(tag), take_u16(frame, 16)?, 18)
        } else {
            (None, outer, 14)
        };
        Some((
            Self {
                destination,
                source,
                tag,
                ethertype,
            },
            frame.get(end..)?,
        ))
    }

    /// Writes the header, `payload` and padding into `out`. Returns the length of the frame, or
    /// `None` if `out` is too small.
    pub(crate) fn write(&self, payload: &[u8], out: &mut [u8]) -> Option<usize> {
        let header = if self.tag.is_some() { 18 } else { 14 };
        let length = header + payload.len();
        let frame = out.get_mut(..length.max(MIN_FRAME))?;
        frame[..6].copy_from_slice(&self.destination);
        frame[6..12].copy_from_slice(&self.source);
        if let Some(tag) = self.tag {
            frame[12..14].copy_from_slice(&tag.tpid.to_be_bytes());
            frame[14..16].copy_from_slice(&tag.tci.to_be_bytes());
        }
        frame[header - 2..header].copy_from_slice(&self.ethertype.to_be_bytes());
        frame[header..length].copy_from_slice(payload);
        frame[length..].fill(0);
        Some(frame.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Ethernet::parse(&bytes);
        }

        #[test]
        fn what_was_written_is_read_back(
            destination: Mac, source: Mac, tci in proptest::option::of(any::<u16>()),
            payload in proptest::collection::vec(any::<u8>(), 46..100),
        ) {
            let header = Ethernet {
                destination,
                source,
                tag: tci.map(|tci| Tag { tpid: TPID_8021AD, tci }),
                ethertype: ETHERTYPE_ARP,
            };
            let mut out = [0xaa; 200];
            let length = header.write(&payload, &mut out).unwrap();
            prop_assert_eq!(Ethernet::parse(&out[..length]), Some((header, &payload[..])));
            prop_assert_eq!(header.write(&payload, &mut out[..length - 1]), None);
        }
    }
}
