//! The outer header: prepared once per SA, patched per packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::rewrite::{fold, sum};
use super::{Marks, Refused};

const V4_LEN: usize = 20;
const V6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_ESP: u8 = 50;

/// ESP in UDP, RFC 3948. The usual port on both sides is 4500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UdpEncap {
    /// Source port of what we send.
    pub local_port: u16,
    /// Destination port of what we send; behind a NAT, the one that the NAT chose.
    pub remote_port: u16,
}

/// Where the outer DSCP comes from, RFC 4301 section 5.1.2.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DscpRule {
    /// From the inner packet.
    #[default]
    Copy,
    /// Always this one (0 to 63): shows an observer less.
    Fixed(u8),
}

/// Where the DF bit of an outer IPv4 header comes from, RFC 4301 section 8.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DfRule {
    /// Always set: routers do not fragment our packets.
    #[default]
    Set,
    /// Never set.
    Clear,
    /// From the inner packet; set for IPv6.
    Copy,
}

/// What the outer header of an SA is made of.
#[derive(Clone, Copy, Debug)]
pub struct OuterConfig {
    /// Outer source address.
    pub local: IpAddr,
    /// Outer destination address.
    pub remote: IpAddr,
    /// ESP in UDP.
    pub encap: Option<UdpEncap>,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Where the DSCP comes from.
    pub dscp: DscpRule,
    /// Where DF comes from.
    pub df: DfRule,
    /// Whether UDP over IPv6 carries a checksum. Without one it is cheaper, but stock receivers
    /// drop it (RFC 8200 section 8.1, RFC 6935). Over IPv4 there never is one (RFC 3948 section
    /// 2.1).
    pub udp6_checksum: bool,
}

/// One outer address is IPv4, the other IPv6.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("outer addresses of one IP version were expected, found {local} and {remote}")]
pub struct MixedFamilies {
    /// The outer source address.
    pub local: IpAddr,
    /// The outer destination address.
    pub remote: IpAddr,
}

/// The outer header of an SA.
#[derive(Clone, Debug)]
pub struct Outer {
    template: [u8; V6_LEN + UDP_LEN],
    len: usize,
    family: Family,
    udp: Option<UdpChecksum>,
    dscp: DscpRule,
    df: DfRule,
}

#[derive(Clone, Debug)]
enum Family {
    /// The sum of the constant words, and the next identification.
    V4 {
        sum: u32,
        id: u16,
    },
    V6,
}

#[derive(Clone, Copy, Debug)]
enum UdpChecksum {
    Zero,
    /// The sum of the constant words: addresses, protocol, ports.
    From(u32),
}

impl OuterConfig {
    /// The defaults: TTL 64, DSCP copied, DF set, UDP over IPv6 with a checksum.
    #[must_use]
    pub fn new(local: IpAddr, remote: IpAddr, encap: Option<UdpEncap>) -> Self {
        let (dscp, df) = (DscpRule::default(), DfRule::default());
        Self {
            local,
            remote,
            encap,
            ttl: 64,
            dscp,
            df,
            udp6_checksum: true,
        }
    }

    /// Bytes of the header that is made of it.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        let ip = match self.remote {
            IpAddr::V4(_) => V4_LEN,
            IpAddr::V6(_) => V6_LEN,
        };
        match self.encap {
            Some(_) => ip + UDP_LEN,
            None => ip,
        }
    }
}

impl Outer {
    /// Prepares the header.
    ///
    /// # Errors
    /// Addresses of different IP versions.
    pub fn new(config: &OuterConfig) -> Result<Self, MixedFamilies> {
        let protocol = if config.encap.is_some() {
            IPPROTO_UDP
        } else {
            IPPROTO_ESP
        };
        let mut template = [0; V6_LEN + UDP_LEN];
        let (ip_len, family) = match (config.local, config.remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => {
                fill_v4(&mut template, local, remote, config.ttl, protocol);
                let sum = sum(&template[..V4_LEN]);
                (V4_LEN, Family::V4 { sum, id: 0 })
            }
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                fill_v6(&mut template, local, remote, config.ttl, protocol);
                (V6_LEN, Family::V6)
            }
            (local, remote) => return Err(MixedFamilies { local, remote }),
        };
        let udp = config.encap.map(|encap| {
            template[ip_len..ip_len + 2].copy_from_slice(&encap.local_port.to_be_bytes());
            template[ip_len + 2..ip_len + 4].copy_from_slice(&encap.remote_port.to_be_bytes());
            match family {
                Family::V6 if config.udp6_checksum => {
                    UdpChecksum::From(sum(&template[8..ip_len + 4]) + u32::from(IPPROTO_UDP))
                }
                _ => UdpChecksum::Zero,
            }
        });
        let len = ip_len + if udp.is_some() { UDP_LEN } else { 0 };
        Ok(Self {
            template,
            len,
            family,
            udp,
            dscp: config.dscp,
            df: config.df,
        })
    }

    /// Bytes that [`Outer::write`] puts in front of the ESP packet.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.len
    }

    /// The length of the largest inner packet that fits `mtu` bytes when sealed under this header.
    #[must_use]
    pub fn inner_mtu(&self, mtu: usize) -> usize {
        Self::inner_mtu_behind(self.len, mtu)
    }

    /// The same under a header of so many bytes.
    #[must_use]
    pub const fn inner_mtu_behind(header_len: usize, mtu: usize) -> usize {
        let room = mtu.saturating_sub(header_len + super::SEAL_HEADROOM + super::TAG_LEN);
        (room & !3).saturating_sub(2)
    }

    /// Writes the header in front of the ESP packet at `esp` and returns where the whole IP packet
    /// lies. `marks` are those of the inner packet.
    ///
    /// # Errors
    /// [`Refused::NoRoom`], [`Refused::TooBig`]; the buffer is unchanged then.
    #[inline]
    pub fn write(
        &mut self,
        buf: &mut [u8],
        esp: Range<usize>,
        marks: Marks,
    ) -> Result<Range<usize>, Refused> {
        let start = esp.start.checked_sub(self.len).ok_or(Refused::NoRoom)?;
        let packet = buf.get_mut(start..esp.end).ok_or(Refused::NoRoom)?;
        let total = u16::try_from(packet.len()).map_err(|_| Refused::TooBig)?;
        let (header, esp_packet) = packet.split_at_mut(self.len);
        header.copy_from_slice(&self.template[..self.len]);

        // RFC 6040 section 4.1, normal mode: the outer ECN field is the inner one.
        let tos = match self.dscp {
            DscpRule::Copy => marks.tos,
            DscpRule::Fixed(dscp) => dscp << 2 | marks.tos & 3,
        };
        let ip_len = match &mut self.family {
            Family::V4 { sum, id } => {
                let df = match self.df {
                    DfRule::Set => true,
                    DfRule::Clear => false,
                    DfRule::Copy => marks.dont_fragment,
                };
                let flags = if df { 0x4000_u16 } else { 0 };
                let words = u32::from(tos) + u32::from(total) + u32::from(*id) + u32::from(flags);
                let checksum = !fold(*sum + words);
                header[1] = tos;
                header[2..4].copy_from_slice(&total.to_be_bytes());
                header[4..6].copy_from_slice(&id.to_be_bytes());
                header[6..8].copy_from_slice(&flags.to_be_bytes());
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                *id = id.wrapping_add(1);
                V4_LEN
            }
            Family::V6 => {
                header[0] |= tos >> 4;
                header[1] |= tos << 4;
                let payload = total - V6_LEN as u16;
                header[4..6].copy_from_slice(&payload.to_be_bytes());
                V6_LEN
            }
        };
        if let Some(udp) = self.udp {
            let udp_len = total - ip_len as u16;
            header[ip_len + 4..ip_len + 6].copy_from_slice(&udp_len.to_be_bytes());
            if let UdpChecksum::From(constant) = udp {
                // The length counts twice: in the pseudo header and in the header.
                let checksum = !fold(constant + u32::from(udp_len) * 2 + sum(esp_packet));
                // RFC 768: a sum of zero is sent as all ones.
                let checksum = if checksum == 0 { 0xFFFF } else { checksum };
                header[ip_len + 6..ip_len + 8].copy_from_slice(&checksum.to_be_bytes());
            }
        }
        Ok(start..esp.end)
    }
}

fn fill_v4(header: &mut [u8], local: Ipv4Addr, remote: Ipv4Addr, ttl: u8, protocol: u8) {
    header[0] = 0x45;
    header[8] = ttl;
    header[9] = protocol;
    header[12..16].copy_from_slice(&local.octets());
    header[16..20].copy_from_slice(&remote.octets());
}

fn fill_v6(header: &mut [u8], local: Ipv6Addr, remote: Ipv6Addr, ttl: u8, protocol: u8) {
    header[0] = 0x60;
    header[6] = protocol;
    header[7] = ttl;
    header[8..24].copy_from_slice(&local.octets());
    header[24..40].copy_from_slice(&remote.octets());
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{DfRule, DscpRule, Outer, OuterConfig, UdpEncap};
    use crate::esp::rewrite::{fold, sum};
    use crate::esp::{Marks, Refused};

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn config(v6: bool, udp: bool) -> OuterConfig {
        let (local, remote) = if v6 {
            ("2001:db8::1", "2001:db8::2")
        } else {
            ("192.0.2.1", "192.0.2.2")
        };
        let encap = udp.then_some(UdpEncap {
            local_port: 4500,
            remote_port: 40_123,
        });
        OuterConfig::new(address(local), address(remote), encap)
    }

    fn written(config: &OuterConfig, len: usize, marks: Marks) -> Vec<u8> {
        let mut outer = Outer::new(config).expect("one family");
        let mut buf = vec![0xA5; 64 + len];
        let packet = outer.write(&mut buf, 64..64 + len, marks).expect("room");
        assert_eq!(packet.start, 64 - outer.header_len());
        buf[packet].to_vec()
    }

    #[test]
    fn ecn_is_copied_and_dscp_copied_or_set_for_every_value() {
        for tos in 0..=255 {
            for (rule, expected) in [
                (DscpRule::Copy, tos),
                (DscpRule::Fixed(0), tos & 3),
                (DscpRule::Fixed(46), 46 << 2 | tos & 3),
            ] {
                for v6 in [false, true] {
                    let config = OuterConfig {
                        dscp: rule,
                        ..config(v6, false)
                    };
                    let packet = written(
                        &config,
                        52,
                        Marks {
                            tos,
                            dont_fragment: false,
                        },
                    );
                    assert_eq!(Marks::of(&packet).tos, expected, "{rule:?} {tos} v6 {v6}");
                }
            }
        }
    }

    #[test]
    fn df_follows_its_rule() {
        for (rule, inner, expected) in [
            (DfRule::Set, false, true),
            (DfRule::Set, true, true),
            (DfRule::Clear, false, false),
            (DfRule::Clear, true, false),
            (DfRule::Copy, false, false),
            (DfRule::Copy, true, true),
        ] {
            let config = OuterConfig {
                df: rule,
                ..config(false, true)
            };
            let packet = written(
                &config,
                52,
                Marks {
                    tos: 0,
                    dont_fragment: inner,
                },
            );
            assert_eq!(
                Marks::of(&packet).dont_fragment,
                expected,
                "{rule:?} {inner}"
            );
        }
    }

    #[test]
    fn headers_are_what_the_rfcs_say() {
        let plain = written(
            &config(false, false),
            52,
            Marks {
                tos: 0xB9,
                dont_fragment: false,
            },
        );
        let expected = [0x45, 0xB9, 0, 72, 0, 0, 0x40, 0, 64, 50];
        assert_eq!(plain[..10], expected);
        assert_eq!(plain[12..20], [192, 0, 2, 1, 192, 0, 2, 2]);
        assert_eq!(fold(sum(&plain[..20])), 0xFFFF);

        let udp = written(&config(false, true), 52, Marks::default());
        assert_eq!((udp[3], udp[9]), (80, 17));
        assert_eq!(fold(sum(&udp[..20])), 0xFFFF);
        assert_eq!(udp[20..28], [0x11, 0x94, 0x9C, 0xBB, 0, 60, 0, 0]);

        let six = written(
            &config(true, false),
            52,
            Marks {
                tos: 0xB9,
                dont_fragment: true,
            },
        );
        assert_eq!(six[..8], [0x6B, 0x90, 0, 0, 0, 52, 50, 64]);
    }

    #[test]
    fn udp_over_ipv6_has_a_checksum_unless_told_otherwise() {
        for len in [52, 53, 1400] {
            let packet = written(&config(true, true), len, Marks::default());
            let udp = &packet[40..];
            let pseudo = sum(&packet[8..40]) + udp.len() as u32 + 17;
            assert_eq!(fold(pseudo + sum(udp)), 0xFFFF, "{len}");
            assert_ne!(udp[6..8], [0, 0]);
        }
        let without = OuterConfig {
            udp6_checksum: false,
            ..config(true, true)
        };
        assert_eq!(written(&without, 52, Marks::default())[46..48], [0, 0]);
    }

    #[test]
    fn identifications_differ_and_checksums_stay_right() {
        let mut outer = Outer::new(&config(false, false)).expect("one family");
        let mut buf = [0; 128];
        let mut last = None;
        for len in (32..64).cycle().take(70_000) {
            let packet = outer
                .write(&mut buf, 64..64 + len, Marks::default())
                .expect("room");
            let header = &buf[packet][..20];
            assert_eq!(fold(sum(header)), 0xFFFF);
            assert_ne!(
                last.replace([header[4], header[5]]),
                Some([header[4], header[5]])
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut outer = Outer::new(&config(false, true)).expect("one family");
        let mut buf = vec![0; 70_000];
        assert_eq!(
            outer.write(&mut buf, 27..90, Marks::default()),
            Err(Refused::NoRoom)
        );
        assert_eq!(
            outer.write(&mut buf, 28..70_001, Marks::default()),
            Err(Refused::NoRoom)
        );
        assert_eq!(
            outer.write(&mut buf, 28..65_536, Marks::default()),
            Err(Refused::TooBig)
        );
        assert_eq!(
            outer.write(&mut buf, 28..65_535, Marks::default()),
            Ok(0..65_535)
        );
        let (local, remote) = (address("192.0.2.1"), address("2001:db8::1"));
        let mixed = Outer::new(&OuterConfig::new(local, remote, None)).expect_err("two families");
        assert!(mixed.to_string().contains("192.0.2.1 and 2001:db8::1"));
    }

    #[test]
    fn the_inner_mtu_fits_and_one_more_does_not() {
        for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
            let outer = Outer::new(&config(v6, udp)).expect("one family");
            for mtu in 576..1600 {
                let inner = outer.inner_mtu(mtu);
                assert!(outer.header_len() + crate::esp::sealed_len(inner) <= mtu);
                assert!(outer.header_len() + crate::esp::sealed_len(inner + 1) > mtu);
            }
        }
        let outer = Outer::new(&config(false, false)).expect("one family");
        assert_eq!(outer.inner_mtu(0), 0);
    }
}
