//! Neighbour solicitations and advertisements (RFC 4861) in whole Ethernet frames.

use std::net::Ipv6Addr;

use super::checksum::transport_v6;
use super::frame::{ETHERTYPE_IPV6, Ethernet, Mac, Tag, is_station, take, take_u16};

const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// RFC 4861 section 7.1: a packet from beyond the link has a lower one.
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Why a frame is no solicitation or advertisement that we may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotNd {
    #[error("the frame ends inside a header, or a length exceeds it")]
    Short,
    #[error("not an ICMPv6 neighbour solicitation or advertisement")]
    Kind,
    #[error("hop limit {0}, not 255: it does not come from this link")]
    HopLimit(u8),
    #[error("code {0}, not 0")]
    Code(u8),
    #[error("wrong ICMPv6 checksum")]
    Checksum,
    #[error("the target is no host's address")]
    Target,
    #[error("an option of length zero or longer than the packet")]
    Option,
    #[error("a source, destination and flags that do not go together")]
    Addresses,
}

/// What a message says beyond its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Who has the target? `source_mac` is absent in duplicate address detection.
    Solicitation { source_mac: Option<Mac> },
    /// The target is at `target_mac` (absent: at the frame's source).
    Advertisement {
        router: bool,
        solicited: bool,
        overrides: bool,
        target_mac: Option<Mac>,
    },
}

/// A checked message and the headers that it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nd {
    pub ethernet: Ethernet,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub target: Ipv6Addr,
    pub message: Message,
}

/// The group in which the owner of `address` hears solicitations (RFC 4291 section 2.7.1).
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let o = address.octets();
    Ipv6Addr::from([
        0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, o[13], o[14], o[15],
    ])
}

/// The MAC address of a multicast group (RFC 2464 section 7).
#[must_use]
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let o = group.octets();
    [0x33, 0x33, o[12], o[13], o[14], o[15]]
}

impl Nd {
    /// Parses a whole Ethernet frame, with or without one VLAN tag, and makes the checks of
    /// RFC 4861 sections 7.1.1 and 7.1.2. Extension headers are refused: no host sends them here.
    ///
    /// # Errors
    /// What is wrong with the frame, the first thing found.
    pub fn parse(frame: &[u8]) -> Result<Self, NotNd> {
        let (ethernet, ip) = Ethernet::parse(frame).ok_or(NotNd::Short)?;
        let [version, ..] = take::<8>(ip, 0).ok_or(NotNd::Short)?;
        let [next_header, hop_limit] = take(ip, 6).ok_or(NotNd::Short)?;
        if ethernet.ethertype != ETHERTYPE_IPV6 || version >> 4 != 6 || next_header != ICMPV6 {
            return Err(NotNd::Kind);
        }
        let length = usize::from(take_u16(ip, 4).ok_or(NotNd::Short)?);
        let source = Ipv6Addr::from(take::<16>(ip, 8).ok_or(NotNd::Short)?);
        let destination = Ipv6Addr::from(take::<16>(ip, 24).ok_or(NotNd::Short)?);
        let icmp = ip
            .get(40..)
            .and_then(|rest| rest.get(..length))
            .ok_or(NotNd::Short)?;
        let [kind, code] = take(icmp, 0).ok_or(NotNd::Short)?;
        if kind != SOLICITATION && kind != ADVERTISEMENT {
            return Err(NotNd::Kind);
        }
        // "ICMP length (derived from the IP length) is 24 or more octets."
        let target = Ipv6Addr::from(take::<16>(icmp, 8).ok_or(NotNd::Short)?);
        if hop_limit != HOP_LIMIT {
            return Err(NotNd::HopLimit(hop_limit));
        }
        if code != 0 {
            return Err(NotNd::Code(code));
        }
        if transport_v6(source, destination, ICMPV6, icmp) != 0 {
            return Err(NotNd::Checksum);
        }
        // Nor is it anybody's: an answer would come from nowhere.
        if target.is_multicast() || target.is_unspecified() {
            return Err(NotNd::Target);
        }
        if source.is_multicast() {
            return Err(NotNd::Addresses);
        }
        let options = icmp.get(24..).unwrap_or_default();
        let message = if kind == SOLICITATION {
            let source_mac = link_layer_option(options, SOURCE_LINK_LAYER)?;
            // "If the IP source address is the unspecified address, the IP destination address is
            // a solicited-node multicast address [and] there is no source link-layer address
            // option in the message."
            let to_group = destination.octets()[..13] == solicited_node(target).octets()[..13];
            if source.is_unspecified() && (!to_group || source_mac.is_some()) {
                return Err(NotNd::Addresses);
            }
            Message::Solicitation { source_mac }
        } else {
            let flags = take::<1>(icmp, 4).ok_or(NotNd::Short)?[0];
            let solicited = flags & 0x40 != 0;
            // "If the IP Destination Address is a multicast address the Solicited flag is zero."
            if solicited && destination.is_multicast() || source.is_unspecified() {
                return Err(NotNd::Addresses);
            }
            Message::Advertisement {
                router: flags & 0x80 != 0,
                solicited,
                overrides: flags & 0x20 != 0,
                target_mac: link_layer_option(options, TARGET_LINK_LAYER)?,
            }
        };
        Ok(Self {
            ethernet,
            source,
            destination,
            target,
            message,
        })
    }

    /// Writes the answer to this solicitation: the target is at `mac`, solicited, overriding; to
    /// the asker, or to all nodes if it has no address yet (RFC 4861 section 7.2.4). The VLAN tag
    /// is kept. Returns the length of the frame; `None` if this is no solicitation or `out` is
    /// shorter than the 90 bytes that hold any frame of this module.
    pub fn reply(&self, mac: Mac, out: &mut [u8]) -> Option<usize> {
        let Message::Solicitation { source_mac } = self.message else {
            return None;
        };
        let mut answer = Self {
            ethernet: Ethernet {
                source: mac,
                ..self.ethernet
            },
            source: self.target,
            destination: self.source,
            target: self.target,
            message: Message::Advertisement {
                router: false,
                solicited: true,
                overrides: true,
                target_mac: Some(mac),
            },
        };
        if self.source.is_unspecified() {
            return announcement(self.target, mac, self.ethernet.tag, out);
        }
        answer.ethernet.destination = source_mac.unwrap_or(self.ethernet.source);
        write(&answer, out)
    }
}

/// Writes an unsolicited, overriding advertisement to all nodes that `address` is at `mac`
/// (RFC 4861 section 7.2.6). Returns the length of the frame, `None` if `out` is too short
/// (86 bytes, 90 with a tag).
pub fn announcement(
    address: Ipv6Addr,
    mac: Mac,
    tag: Option<Tag>,
    out: &mut [u8],
) -> Option<usize> {
    write(
        &Nd {
            ethernet: Ethernet {
                destination: group_mac(ALL_NODES),
                source: mac,
                tag,
                ethertype: ETHERTYPE_IPV6,
            },
            source: address,
            destination: ALL_NODES,
            target: address,
            message: Message::Advertisement {
                router: false,
                solicited: false,
                overrides: true,
                target_mac: Some(mac),
            },
        },
        out,
    )
}

/// The MAC address in the option `wanted`, if it is there. Every option's length is checked.
fn link_layer_option(mut options: &[u8], wanted: u8) -> Result<Option<Mac>, NotNd> {
    let mut found = None;
    // Each turn takes at least 8 bytes away.
    while !options.is_empty() {
        let [kind, units] = take(options, 0).ok_or(NotNd::Option)?;
        let length = usize::from(units) * 8;
        if length == 0 || length > options.len() {
            return Err(NotNd::Option);
        }
        if kind == wanted && units == 1 {
            found = take::<6>(options, 2)
                .filter(|mac| is_station(*mac))
                .or(found);
        }
        options = options.get(length..).unwrap_or_default();
    }
    Ok(found)
}

fn write(nd: &Nd, out: &mut [u8]) -> Option<usize> {
    let (kind, flags, option, mac) = match nd.message {
        Message::Solicitation { source_mac } => (SOLICITATION, 0, SOURCE_LINK_LAYER, source_mac),
        Message::Advertisement {
            router,
            solicited,
            overrides,
            target_mac,
        } => {
            let flags = u8::from(router) << 7 | u8::from(solicited) << 6 | u8::from(overrides) << 5;
            (ADVERTISEMENT, flags, TARGET_LINK_LAYER, target_mac)
        }
    };
    let mut packet = [0; 72];
    let length: u8 = if mac.is_some() { 32 } else { 24 };
    packet[0] = 6 << 4;
    packet[5] = length;
    packet[6] = ICMPV6;
    packet[7] = HOP_LIMIT;
    packet[8..24].copy_from_slice(&nd.source.octets());
    packet[24..40].copy_from_slice(&nd.destination.octets());
    packet[40] = kind;
    packet[44] = flags;
    packet[48..64].copy_from_slice(&nd.target.octets());
    if let Some(mac) = mac {
        packet[64] = option;
        packet[65] = 1;
        packet[66..72].copy_from_slice(&mac);
    }
    let end = 40 + usize::from(length);
    let sum = transport_v6(nd.source, nd.destination, ICMPV6, &packet[40..end]);
    packet[42..44].copy_from_slice(&sum.to_be_bytes());
    nd.ethernet.write(&packet[..end], out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv6Type, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    const OURS: Mac = [2, 0, 0, 0, 0, 1];
    const THEIRS: Mac = [2, 0, 0, 0, 0, 2];
    const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0x12, 0x3456);
    const HOST: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 1);

    fn solicitation(tag: Option<Tag>, source: Ipv6Addr) -> Nd {
        Nd {
            ethernet: Ethernet {
                destination: group_mac(solicited_node(ADDRESS)),
                source: THEIRS,
                tag,
                ethertype: ETHERTYPE_IPV6,
            },
            source,
            destination: solicited_node(ADDRESS),
            target: ADDRESS,
            message: Message::Solicitation {
                source_mac: (!source.is_unspecified()).then_some(THEIRS),
            },
        }
    }

    fn bytes(nd: &Nd) -> Vec<u8> {
        let mut out = [0; 90];
        let length = write(nd, &mut out).unwrap();
        out[..length].to_vec()
    }

    /// Rewrites one byte and makes the checksum right again.
    fn broken(at: usize, value: u8) -> Result<Nd, NotNd> {
        let mut frame = bytes(&solicitation(None, HOST));
        frame[at] = value;
        frame[56..58].fill(0);
        let source = Ipv6Addr::from(take::<16>(&frame, 22).unwrap());
        let destination = Ipv6Addr::from(take::<16>(&frame, 38).unwrap());
        let sum = transport_v6(source, destination, ICMPV6, &frame[54..]);
        frame[56..58].copy_from_slice(&sum.to_be_bytes());
        Nd::parse(&frame)
    }

    #[test]
    fn group_addresses() {
        assert_eq!(
            solicited_node(ADDRESS),
            "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap()
        );
        assert_eq!(
            group_mac(solicited_node(ADDRESS)),
            [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]
        );
        assert_eq!(group_mac(ALL_NODES), [0x33, 0x33, 0, 0, 0, 1]);
    }

    #[test]
    fn a_solicitation_gets_its_answer() {
        for tag in [None, Some(Tag::vlan(7))] {
            let asked = solicitation(tag, HOST);
            assert_eq!(Nd::parse(&bytes(&asked)), Ok(asked));
            let mut out = [0xaa; 90];
            let length = asked.reply(OURS, &mut out).unwrap();
            let answer = Nd::parse(&out[..length]).unwrap();
            assert_eq!(answer.ethernet.destination, THEIRS);
            assert_eq!(answer.ethernet.tag, tag);
            assert_eq!((answer.source, answer.destination), (ADDRESS, HOST));
            let expected = Message::Advertisement {
                router: false,
                solicited: true,
                overrides: true,
                target_mac: Some(OURS),
            };
            assert_eq!(answer.message, expected);
            assert_eq!(answer.reply(THEIRS, &mut out), None);
        }
    }

    #[test]
    fn duplicate_address_detection_is_answered_to_all() {
        let asked = solicitation(None, Ipv6Addr::UNSPECIFIED);
        assert_eq!(Nd::parse(&bytes(&asked)), Ok(asked));
        let mut out = [0; 90];
        let length = asked.reply(OURS, &mut out).unwrap();
        let answer = Nd::parse(&out[..length]).unwrap();
        assert_eq!(answer.destination, ALL_NODES);
        assert!(matches!(
            answer.message,
            Message::Advertisement {
                solicited: false,
                ..
            }
        ));
    }

    #[test]
    fn another_implementation_reads_our_announcement() {
        let mut out = [0; 90];
        let length = announcement(ADDRESS, OURS, None, &mut out).unwrap();
        assert_eq!(length, 86);
        let packet = SlicedPacket::from_ethernet(&out[..length]).unwrap();
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else {
            panic!("{packet:?}")
        };
        assert!(icmp.is_checksum_valid(ADDRESS.octets(), ALL_NODES.octets()));
        let Icmpv6Type::NeighborAdvertisement(flags) = icmp.icmp_type() else {
            panic!("{:?}", icmp.icmp_type())
        };
        assert!(!flags.router && !flags.solicited && flags.r#override);
    }

    #[test]
    fn each_fault_has_its_error() {
        let good = bytes(&solicitation(None, HOST));
        for length in 0..good.len() {
            assert_eq!(
                Nd::parse(&good[..length]),
                Err(NotNd::Short),
                "{length} bytes"
            );
        }
        let mut flipped = good.clone();
        flipped[85] ^= 1;
        assert_eq!(Nd::parse(&flipped), Err(NotNd::Checksum));
        assert_eq!(broken(12, 8), Err(NotNd::Kind));
        assert_eq!(broken(14, 0x40), Err(NotNd::Kind));
        assert_eq!(broken(20, 17), Err(NotNd::Kind));
        assert_eq!(broken(54, 134), Err(NotNd::Kind));
        assert_eq!(broken(21, 254), Err(NotNd::HopLimit(254)));
        assert_eq!(broken(55, 1), Err(NotNd::Code(1)));
        assert_eq!(broken(62, 0xff), Err(NotNd::Target));
        assert_eq!(broken(22, 0xff), Err(NotNd::Addresses));
        assert_eq!(broken(79, 0), Err(NotNd::Option));
        assert_eq!(broken(79, 2), Err(NotNd::Option));
        assert_eq!(broken(78, 9).map(|nd| nd.message), {
            Ok(Message::Solicitation { source_mac: None })
        });
    }

    #[test]
    fn addresses_that_do_not_go_together() {
        let parse = |nd: &Nd| Nd::parse(&bytes(nd));
        let mut nameless = solicitation(None, Ipv6Addr::UNSPECIFIED);
        nameless.message = Message::Solicitation {
            source_mac: Some(THEIRS),
        };
        assert_eq!(parse(&nameless), Err(NotNd::Addresses));
        let mut direct = solicitation(None, Ipv6Addr::UNSPECIFIED);
        direct.destination = ADDRESS;
        assert_eq!(parse(&direct), Err(NotNd::Addresses));
        let mut answer = solicitation(None, HOST);
        answer.destination = ALL_NODES;
        answer.message = Message::Advertisement {
            router: false,
            solicited: true,
            overrides: true,
            target_mac: Some(THEIRS),
        };
        assert_eq!(parse(&answer), Err(NotNd::Addresses));
    }

    #[test]
    fn nobody_has_the_unspecified_address() {
        let mut question = solicitation(None, HOST);
        question.target = Ipv6Addr::UNSPECIFIED;
        assert_eq!(Nd::parse(&bytes(&question)), Err(NotNd::Target));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..120),
            at in 0usize..86, tail in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let _ = Nd::parse(&noise);
            let mut frame = bytes(&solicitation(None, HOST));
            frame.truncate(at);
            frame.extend_from_slice(&tail);
            let _ = Nd::parse(&frame);
        }

        #[test]
        fn options_end_for_any_bytes(options in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = link_layer_option(&options, 1);
        }
    }
}
