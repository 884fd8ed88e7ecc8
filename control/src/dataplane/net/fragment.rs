//! Fragmentation of IPv4 packets that may be (RFC 791 section 3.2): before they are sealed, so that the peer has
//! no fragments of ESP to put together (RFC 4301 section 8.2).

use evergate_common::packet::Bytes as _;

use super::checksum::checksum;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1FFF;
const HEADER: usize = 20;
const LONGEST_HEADER: usize = 60;

/// Options that every fragment carries have this bit; 0 ends the list, 1 is padding.
const COPIED: u8 = 0x80;

/// Whether routers may cut a packet: IPv4 without the don't-fragment bit.
#[must_use]
pub fn may_be_cut(packet: &[u8]) -> bool {
    let flags = packet.read_u16(6).unwrap_or(DONT_FRAGMENT);
    packet.first().is_some_and(|first| first >> 4 == 4) && flags & DONT_FRAGMENT == 0
}

/// A packet that is to be cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a> {
    packet: &'a [u8],
    /// Bytes of its header.
    header: usize,
    /// Flags and offset as they were.
    flags: u16,
    /// Payload of each fragment but the last, a multiple of 8.
    step: usize,
}

impl<'a> Cut<'a> {
    /// Plans fragments of at most `mtu` bytes. `None` if the packet is no IPv4, must not be cut, has nothing
    /// to cut, or the MTU leaves no room for payload.
    #[must_use]
    pub fn plan(packet: &'a [u8], mtu: usize) -> Option<Self> {
        let [first] = packet.read::<1>(0)?;
        let header = usize::from(first & 15) * 4;
        let flags = packet.read_u16(6)?;
        let step = mtu.checked_sub(header)? & !7;
        let may = first >> 4 == 4
            && (HEADER..=LONGEST_HEADER).contains(&header)
            && flags & DONT_FRAGMENT == 0
            && packet.len() > header
            && step > 0;
        let end = usize::from(flags & OFFSET) * 8 + (packet.len() - header.min(packet.len()));
        // The last offset that the header can tell.
        (may && end <= usize::from(OFFSET) * 8 + step).then_some(Self {
            packet,
            header,
            flags,
            step,
        })
    }

    /// How many fragments there are.
    #[must_use]
    pub fn count(&self) -> usize {
        (self.packet.len() - self.header).div_ceil(self.step)
    }

    /// Writes the fragment with this number to the start of `out`. Yields its length; `None` if there is no
    /// such fragment or no room.
    pub fn write(&self, number: usize, out: &mut [u8]) -> Option<usize> {
        let payload = self.packet.get(self.header..)?;
        let from = number.checked_mul(self.step)?;
        let part = payload.get(from..payload.len().min(from + self.step))?;
        if part.is_empty() {
            return None;
        }
        let mut header = [0; LONGEST_HEADER];
        let length = match number {
            0 => {
                let whole = self.packet.get(..self.header)?;
                header.get_mut(..self.header)?.copy_from_slice(whole);
                self.header
            }
            _ => self.later_header(&mut header)?,
        };
        let last = from + part.len() == payload.len();
        let more = if last {
            self.flags & MORE_FRAGMENTS
        } else {
            MORE_FRAGMENTS
        };
        let offset = (self.flags & OFFSET) + u16::try_from(from / 8).ok()?;
        let total = u16::try_from(length + part.len()).ok()?;
        let header = header.get_mut(..length)?;
        header[0] = 0x40 | (length / 4) as u8;
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[6..8].copy_from_slice(&(more | offset).to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        out.get_mut(..length)?.copy_from_slice(header);
        out.get_mut(length..length + part.len())?
            .copy_from_slice(part);
        Some(length + part.len())
    }

    /// The header of a fragment after the first: with those options only that are copied (RFC 791 section
    /// 3.1). What can not be read ends them.
    fn later_header(&self, header: &mut [u8; LONGEST_HEADER]) -> Option<usize> {
        header
            .get_mut(..HEADER)?
            .copy_from_slice(self.packet.get(..HEADER)?);
        let options = self.packet.get(HEADER..self.header)?;
        let (mut at, mut used) = (0, HEADER);
        while let Some(&kind) = options.get(at) {
            let length = match kind {
                0 => break,
                1 => 1,
                _ => usize::from(*options.get(at + 1).unwrap_or(&0)),
            };
            let Some(option) = options.get(at..at + length).filter(|o| !o.is_empty()) else {
                break;
            };
            if kind & COPIED != 0 {
                header.get_mut(used..used + length)?.copy_from_slice(option);
                used += length;
            }
            at += length;
        }
        // Zeroes end the options and fill the last word.
        Some(used.next_multiple_of(4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(options: &[u8], flags: u16, payload: &[u8]) -> Vec<u8> {
        let header = HEADER + options.len();
        let mut packet = vec![0; header];
        packet[0] = 0x40 | (header / 4) as u8;
        packet[1] = 0xb8;
        packet[2..4].copy_from_slice(&((header + payload.len()) as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&[0x12, 0x34]);
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        (packet[8], packet[9]) = (64, 17);
        packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
        packet[16..20].copy_from_slice(&[10, 0, 0, 2]);
        packet[HEADER..].copy_from_slice(options);
        packet.extend_from_slice(payload);
        packet
    }

    fn fragments(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        let cut = Cut::plan(packet, mtu).unwrap();
        let write = |number| {
            let mut out = [0; 4096];
            let length = cut.write(number, &mut out).unwrap();
            out[..length].to_vec()
        };
        assert_eq!(cut.write(cut.count(), &mut [0; 4096]), None);
        (0..cut.count()).map(write).collect()
    }

    proptest! {
        /// What a receiver puts together (RFC 791 section 3.2) is what was cut.
        #[test]
        fn fragments_make_up_the_packet(
            payload in prop::collection::vec(any::<u8>(), 1..4000),
            mtu in 68usize..1500,
            offset in 0u16..1000,
            more: bool,
        ) {
            let flags = offset | if more { MORE_FRAGMENTS } else { 0 };
            // All fragments but the last are of whole 8 bytes.
            let payload = &payload[..if more { payload.len() & !7 } else { payload.len() }];
            prop_assume!(!payload.is_empty());
            let whole = packet(&[], flags, payload);
            let mut next = usize::from(offset) * 8;
            let mut seen = Vec::new();
            let all = fragments(&whole, mtu);
            for (number, fragment) in all.iter().enumerate() {
                prop_assert!(fragment.len() <= mtu);
                prop_assert_eq!(checksum(&fragment[..HEADER]), 0);
                prop_assert_eq!(&fragment[4..6], &[0x12, 0x34]);
                prop_assert_eq!(usize::from(fragment.read_u16(2).unwrap()), fragment.len());
                let flags = fragment.read_u16(6).unwrap();
                prop_assert_eq!(usize::from(flags & OFFSET) * 8, next);
                let last = number + 1 == all.len();
                prop_assert_eq!(flags & MORE_FRAGMENTS != 0, !last || more);
                next += fragment.len() - HEADER;
                seen.extend_from_slice(&fragment[HEADER..]);
            }
            prop_assert_eq!(seen, payload);
        }

        #[test]
        fn nothing_panics(bytes: Vec<u8>, mtu in 0usize..3000, number in 0usize..50) {
            if let Some(cut) = Cut::plan(&bytes, mtu) {
                let _ = cut.write(number, &mut [0; 2000]);
            }
        }
    }

    #[test]
    fn later_fragments_have_the_copied_options_only() {
        // Record route (7), not copied; router alert (148), copied; padding.
        let options = [7, 7, 4, 0, 0, 0, 0, 1, 148, 4, 0, 0];
        let whole = packet(&options, 0, &[9; 100]);
        let all = fragments(&whole, 80);
        assert_eq!(all[0][..4], [0x48, 0xb8, 0, 80]);
        assert_eq!(all[0][HEADER..HEADER + 12], options);
        assert_eq!(all[1][0], 0x46);
        assert_eq!(all[1][HEADER..HEADER + 4], [148, 4, 0, 0]);
    }

    #[test]
    fn what_must_not_be_cut_is_not() {
        let whole = packet(&[], DONT_FRAGMENT, &[0; 2000]);
        assert!(Cut::plan(&whole, 1400).is_none());
        let mut v6 = vec![0; 2000];
        v6[0] = 0x60;
        assert!(Cut::plan(&v6, 1400).is_none());
        let whole = packet(&[], 0, &[0; 2000]);
        assert!(Cut::plan(&whole, 27).is_none(), "no room for 8 bytes");
        // Beyond what an offset can say.
        let whole = packet(&[], OFFSET, &[0; 2000]);
        assert!(Cut::plan(&whole, 1400).is_none());
    }
}
