//! How large an inner packet may be for a given outer MTU, and the other way round.
//!
//! ESP in tunnel mode with AES-GCM and 16-byte tags (RFC 4303 section 2, RFC 4106 section 3):
//!
//! | outer IP | UDP | SPI, sequence | IV | inner packet | padding | length, next header | tag |
//! | --- | --- | --- | --- | --- | --- | --- | --- |
//! | 20 or 40 | 0 or 8 | 8 | 8 | n | up to a multiple of 4 | 2 | 16 |

use std::net::IpAddr;

/// SPI and sequence number.
pub const ESP_HEADER: usize = 8;
/// The explicit part of the nonce.
pub const IV: usize = 8;
/// Pad length and next header.
pub const TRAILER: usize = 2;
/// The authentication tag.
pub const TAG: usize = 16;
/// Header of UDP encapsulation (RFC 3948).
pub const UDP_HEADER: usize = 8;
/// The trailer ends on a multiple of this (RFC 4303 section 2.4).
pub const ALIGNMENT: usize = 4;

/// TCP and IPv4 header without options: what an MSS leaves of an MTU.
const TCP_V4: u16 = 40;
/// TCP and IPv6 header without options.
const TCP_V6: u16 = 60;

/// What stands around the sealed packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Outer IPv6 (40 bytes of header) rather than IPv4 (20).
    pub v6: bool,
    /// ESP in UDP (RFC 3948).
    pub udp: bool,
}

impl Envelope {
    /// The envelope of a session with `peer`.
    #[must_use]
    pub fn toward(peer: IpAddr, udp: bool) -> Self {
        Self {
            v6: peer.is_ipv6(),
            udp,
        }
    }

    /// Bytes in front of the ESP header.
    #[must_use]
    pub const fn outer(self) -> usize {
        (if self.v6 { 40 } else { 20 }) + if self.udp { UDP_HEADER } else { 0 }
    }

    /// Bytes that do not depend on the size of the inner packet.
    const fn fixed(self) -> usize {
        self.outer() + ESP_HEADER + IV + TAG
    }

    /// Size of the outer IP packet that carries an inner packet of `inner` bytes.
    #[must_use]
    pub const fn sealed(self, inner: usize) -> usize {
        self.fixed() + (inner + TRAILER).next_multiple_of(ALIGNMENT)
    }

    /// Size of the largest inner packet that fits into an outer packet of `outer_mtu` bytes; 0 if
    /// none does.
    #[must_use]
    pub const fn largest_inner(self, outer_mtu: usize) -> usize {
        let room = outer_mtu.saturating_sub(self.fixed());
        (room - room % ALIGNMENT).saturating_sub(TRAILER)
    }
}

/// The largest MSS that a TCP connection over IPv4 may announce if its packets are to fit `mtu`.
#[must_use]
pub const fn mss_v4(mtu: u16) -> u16 {
    mtu.saturating_sub(TCP_V4)
}

/// The same over IPv6.
#[must_use]
pub const fn mss_v6(mtu: u16) -> u16 {
    mtu.saturating_sub(TCP_V6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Lays a packet out byte by byte, as a sealer does, with no arithmetic on sizes.
    fn lay_out(envelope: Envelope, inner: usize) -> usize {
        let mut encrypted = vec![0x55; inner];
        let mut padding = 0u8;
        while !(encrypted.len() + 2).is_multiple_of(4) {
            padding += 1;
            encrypted.push(padding);
        }
        encrypted.extend([padding, 4]);
        let ip: &[u8] = if envelope.v6 { &[0; 40] } else { &[0; 20] };
        let udp: &[u8] = if envelope.udp { &[0; 8] } else { &[] };
        [ip, udp, &[0; 8], &[0; 8], &encrypted, &[0; 16]]
            .concat()
            .len()
    }

    #[test]
    fn figures_that_operators_know() {
        let plain = Envelope {
            v6: false,
            udp: false,
        };
        assert_eq!(plain.largest_inner(1500), 1446);
        assert_eq!(plain.sealed(1446), 1500);
        assert_eq!(
            Envelope {
                v6: false,
                udp: true
            }
            .largest_inner(1500),
            1438
        );
        assert_eq!(
            Envelope {
                v6: true,
                udp: true
            }
            .largest_inner(1500),
            1418
        );
        assert_eq!(
            Envelope {
                v6: true,
                udp: false
            }
            .largest_inner(1280),
            1206
        );
        assert_eq!((mss_v4(1400), mss_v6(1400), mss_v4(20)), (1360, 1340, 0));
        assert_eq!(plain.largest_inner(10), 0);
    }

    proptest! {
        #[test]
        fn the_largest_fits_and_one_byte_more_does_not(
            v6: bool, udp: bool, mtu in 100usize..65536
        ) {
            let envelope = Envelope { v6, udp };
            let inner = envelope.largest_inner(mtu);
            prop_assert!(lay_out(envelope, inner) <= mtu);
            prop_assert!(lay_out(envelope, inner + 1) > mtu);
            prop_assert_eq!(lay_out(envelope, inner), envelope.sealed(inner));
            // Exactly, up to the alignment of the trailer.
            prop_assert!(mtu - envelope.sealed(inner) < ALIGNMENT);
        }
    }
}
