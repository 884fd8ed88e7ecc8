//! What tunnelling changes in the inner header: ECN (RFC 6040), TTL, and the IPv4 checksum
//! incrementally (RFC 1624).

use super::Refused;

/// The ECN field, RFC 3168 section 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// Not ECN-capable transport, `00`.
    NotEct = 0,
    /// ECN-capable transport (1), `01`.
    Ect1 = 1,
    /// ECN-capable transport (0), `10`.
    Ect0 = 2,
    /// Congestion experienced, `11`.
    Ce = 3,
}

/// What the outer header may take from the inner one. Read it before sealing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// TOS or traffic class: DSCP in the upper six bits, ECN in the lower two.
    pub tos: u8,
    /// DF of IPv4; true for IPv6.
    pub dont_fragment: bool,
}

impl Ecn {
    /// The ECN field of a TOS or traffic class byte.
    #[must_use]
    pub const fn of(tos: u8) -> Self {
        match tos & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

impl Marks {
    /// Reads the marks of an IP packet; none for anything else.
    #[inline]
    #[must_use]
    pub fn of(packet: &[u8]) -> Self {
        match packet.first_chunk::<8>() {
            Some(header) if header[0] >> 4 == 4 => Self {
                tos: header[1],
                dont_fragment: header[6] & 0x40 != 0,
            },
            Some(header) if header[0] >> 4 == 6 => Self {
                tos: header[0] << 4 | header[1] >> 4,
                dont_fragment: true,
            },
            _ => Self::default(),
        }
    }
}

/// The ECN field of the packet that leaves the tunnel, RFC 6040 section 4.2 (figure 4).
///
/// # Errors
/// [`Refused::EcnIllegal`]: congestion experienced on a packet that does not support ECN.
#[inline]
pub const fn decapsulate_ecn(outer: Ecn, inner: Ecn) -> Result<Ecn, Refused> {
    match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => Err(Refused::EcnIllegal),
        (Ecn::NotEct, _) => Ok(Ecn::NotEct),
        (_, Ecn::Ce) | (Ecn::Ce, _) => Ok(Ecn::Ce),
        (Ecn::Ect0, Ecn::Ect1) | (Ecn::Ect1, _) => Ok(Ecn::Ect1),
        (Ecn::Ect0, Ecn::NotEct | Ecn::Ect0) => Ok(Ecn::Ect0),
    }
}

/// Brings the ECN field of the outer TOS or traffic class into the inner packet. The outer DSCP is
/// not copied (RFC 4301 section 5.1.2.1).
///
/// # Errors
/// [`Refused::EcnIllegal`], [`Refused::InnerMalformed`].
#[inline]
pub fn apply_ecn(packet: &mut [u8], outer_tos: u8) -> Result<(), Refused> {
    let inner = Ecn::of(Marks::of(packet).tos);
    let ecn = decapsulate_ecn(Ecn::of(outer_tos), inner)?;
    if ecn == inner {
        return Ok(());
    }
    match packet.first() {
        Some(first) if first >> 4 == 4 => {
            rewrite_v4(packet, 0, |[first, tos]| [first, tos & !3 | ecn as u8])
        }
        Some(first) if first >> 4 == 6 => {
            let byte = packet.get_mut(1).ok_or(Refused::InnerMalformed)?;
            *byte = *byte & !0x30 | (ecn as u8) << 4;
            Ok(())
        }
        _ => Err(Refused::InnerMalformed),
    }
}

/// Takes one from the TTL or hop limit of a packet that is forwarded.
///
/// # Errors
/// [`Refused::TtlExpired`] if nothing would be left, and the packet is unchanged;
/// [`Refused::InnerMalformed`].
#[inline]
pub fn decrement_ttl(packet: &mut [u8]) -> Result<(), Refused> {
    let (version, at) = match packet.first() {
        Some(first) if first >> 4 == 4 => (4, 8),
        Some(first) if first >> 4 == 6 => (6, 7),
        _ => return Err(Refused::InnerMalformed),
    };
    let ttl = packet.get_mut(at).ok_or(Refused::InnerMalformed)?;
    if *ttl <= 1 {
        return Err(Refused::TtlExpired);
    }
    if version == 4 {
        return rewrite_v4(packet, at, |[ttl, protocol]| [ttl - 1, protocol]);
    }
    *ttl -= 1;
    Ok(())
}

/// Changes the 16-bit word at `at` (even) of an IPv4 header and mends the checksum.
#[inline]
fn rewrite_v4(
    packet: &mut [u8],
    at: usize,
    change: impl FnOnce([u8; 2]) -> [u8; 2],
) -> Result<(), Refused> {
    let header = packet
        .first_chunk_mut::<20>()
        .ok_or(Refused::InnerMalformed)?;
    let old = [header[at], header[at + 1]];
    let new = change(old);
    [header[at], header[at + 1]] = new;
    let checksum = u16::from_be_bytes([header[10], header[11]]);
    //= rfc1624#section-3
    //# HC' = ~(~HC + ~m + m')
    let sum = u32::from(!checksum)
        + u32::from(!u16::from_be_bytes(old))
        + u32::from(u16::from_be_bytes(new));
    [header[10], header[11]] = (!fold(sum)).to_be_bytes();
    Ok(())
}

/// Adds the carries of a sum of 16-bit words back in.
#[inline]
pub(super) fn fold(mut sum: u32) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}

/// The sum of the 16-bit words of `bytes`, an odd last byte padded with zero (RFC 1071). Good for
/// up to 128 KiB.
pub(super) fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    let sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    sum + rest.first().map_or(0, |last| u32::from(*last) << 8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Ecn, Marks, apply_ecn, decapsulate_ecn, decrement_ttl, fold, sum};
    use crate::esp::Refused;
    use crate::esp::tests::{v4_packet, v6_packet};

    const ALL: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce];

    /// RFC 6040 figure 4: a row for each inner field, a column for each outer field, both in the
    /// order of `ALL`; None is the drop.
    const TABLE: [[Option<Ecn>; 4]; 4] = [
        [
            Some(Ecn::NotEct),
            Some(Ecn::NotEct),
            Some(Ecn::NotEct),
            None,
        ],
        [
            Some(Ecn::Ect0),
            Some(Ecn::Ect0),
            Some(Ecn::Ect1),
            Some(Ecn::Ce),
        ],
        [
            Some(Ecn::Ect1),
            Some(Ecn::Ect1),
            Some(Ecn::Ect1),
            Some(Ecn::Ce),
        ],
        [Some(Ecn::Ce), Some(Ecn::Ce), Some(Ecn::Ce), Some(Ecn::Ce)],
    ];

    fn set_tos(packet: &mut [u8], tos: u8) {
        if packet[0] >> 4 == 6 {
            packet[0] = 0x60 | tos >> 4;
            packet[1] = packet[1] & 15 | tos << 4;
        } else {
            packet[1] = tos;
            packet[10..12].fill(0);
            let checksum = !fold(sum(&packet[..20]));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
    }

    #[test]
    fn every_combination_of_rfc_6040() {
        for (row, inner) in TABLE.iter().zip(ALL) {
            for (expected, outer) in row.iter().zip(ALL) {
                let expected = expected.ok_or(Refused::EcnIllegal);
                assert_eq!(
                    decapsulate_ecn(outer, inner),
                    expected,
                    "{inner:?} in {outer:?}"
                );
                for mut packet in [v4_packet(60), v6_packet(60)] {
                    // The inner DSCP stays, the outer DSCP goes.
                    set_tos(&mut packet, 0b1011_1000 | inner as u8);
                    let applied = apply_ecn(&mut packet, 0b0010_1000 | outer as u8);
                    assert_eq!(applied, expected.map(|_| ()));
                    let left = expected.unwrap_or(inner);
                    assert_eq!(Marks::of(&packet).tos, 0b1011_1000 | left as u8);
                    if packet[0] >> 4 == 4 {
                        assert_eq!(fold(sum(&packet[..20])), 0xFFFF, "checksum");
                    } else {
                        assert_eq!(packet[1] & 15, v6_packet(60)[1] & 15, "flow label");
                    }
                }
            }
        }
    }

    #[test]
    fn a_ttl_runs_down_to_one_and_no_further() {
        for (mut packet, at) in [(v4_packet(60), 8), (v6_packet(60), 7)] {
            for left in (1..64).rev() {
                assert_eq!(decrement_ttl(&mut packet), Ok(()));
                assert_eq!(packet[at], left);
                assert!(at == 7 || fold(sum(&packet[..20])) == 0xFFFF, "checksum");
            }
            let last = packet.clone();
            assert_eq!(decrement_ttl(&mut packet), Err(Refused::TtlExpired));
            assert_eq!(packet, last);
            packet[at] = 0;
            assert_eq!(decrement_ttl(&mut packet), Err(Refused::TtlExpired));
        }
    }

    #[test]
    fn what_is_no_ip_packet_is_malformed() {
        for packet in [&mut [][..], &mut [0x45; 9], &mut [0x60; 3], &mut [0x50; 40]] {
            assert_eq!(decrement_ttl(packet), Err(Refused::InnerMalformed));
        }
        assert_eq!(
            apply_ecn(&mut [0x45, 2, 0, 0, 0, 0, 0, 0], 3),
            Err(Refused::InnerMalformed)
        );
    }

    proptest! {
        #[test]
        fn the_mended_checksum_is_the_computed_one(mut header in any::<[u8; 20]>()) {
            header[0] = 0x45;
            header[8] |= 2;
            let tos = header[1] | 2;
            set_tos(&mut header, tos);
            decrement_ttl(&mut header).expect("a TTL of two or more");
            apply_ecn(&mut header, 3).expect("ECN-capable");
            prop_assert_eq!(fold(sum(&header)), 0xFFFF);
        }
    }
}
