//! Test packets, which the generator of `evergate bench send` makes and `evergate bench receive` counts: UDP
//! over IPv4 to the port of the discard service (RFC 863), so that a host that nobody counts on drops them.

use crate::packet::Bytes;
use crate::wire::{ETHERNET_LEN, ETHERTYPE_IPV4, IPPROTO_UDP, IPV4_LEN};

/// The destination port of test packets.
pub const PORT: u16 = 9;
/// Version 4, a header of five words.
const VERSION: u8 = 0x45;

/// Whether a frame is a test packet, as far as its headers tell: no VLAN tag, no IP options.
#[inline(always)]
pub fn is_sample<B: Bytes + ?Sized>(frame: &B) -> bool {
    frame.read_u16(12) == Some(ETHERTYPE_IPV4)
        && frame.read::<1>(ETHERNET_LEN) == Some([VERSION])
        && frame.read::<1>(ETHERNET_LEN + 9) == Some([IPPROTO_UDP])
        && frame.read_u16(ETHERNET_LEN + IPV4_LEN + 2) == Some(PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
