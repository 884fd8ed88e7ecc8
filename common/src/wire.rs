//! Numbers of the wire: protocol numbers, ports, header lengths. All in host byte order.

/// SPI of a heartbeat (legal in RFC 4303 section 2.1; never allocated to a security association).
pub const SPI_HEARTBEAT: u32 = 0xFFFF_FFFF;

/// IP protocol number of ICMP (RFC 792).
pub const IPPROTO_ICMP: u8 = 1;
/// IP protocol number of IPv4 in IP (RFC 2003).
pub const IPPROTO_IPV4: u8 = 4;
/// IP protocol number of UDP.
pub const IPPROTO_UDP: u8 = 17;
/// IP protocol number of IPv6 in IP (RFC 2473).
pub const IPPROTO_IPV6: u8 = 41;
/// IP protocol number of ESP (RFC 4303).
pub const IPPROTO_ESP: u8 = 50;
/// IP protocol number of ICMPv6 (RFC 4443).
pub const IPPROTO_ICMPV6: u8 = 58;
/// Next header "no next header" (RFC 8200 section 4.7); an ESP dummy packet (RFC 4303 section 2.6).
pub const IPPROTO_NONE: u8 = 59;

/// IPv6 extension header: hop-by-hop options (RFC 8200 section 4.3).
pub const IPV6_HOP_BY_HOP: u8 = 0;
/// IPv6 extension header: routing (RFC 8200 section 4.4).
pub const IPV6_ROUTING: u8 = 43;
/// IPv6 extension header: fragment (RFC 8200 section 4.5).
pub const IPV6_FRAGMENT: u8 = 44;
/// IPv6 extension header: destination options (RFC 8200 section 4.6).
pub const IPV6_DESTINATION_OPTIONS: u8 = 60;

/// UDP port of IKE (RFC 7296 section 2).
pub const PORT_IKE: u16 = 500;
/// UDP port of IKE and ESP through a NAT (RFC 3948).
pub const PORT_NAT_T: u16 = 4500;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad service tag.
pub const ETHERTYPE_SERVICE_VLAN: u16 = 0x88A8;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86DD;

/// ARP operation: request (RFC 826).
pub const ARP_REQUEST: u16 = 1;
/// ARP operation: reply (RFC 826).
pub const ARP_REPLY: u16 = 2;
/// ICMPv6 type: neighbour solicitation (RFC 4861 section 4.3).
pub const ND_SOLICITATION: u8 = 135;
/// ICMPv6 type: neighbour advertisement (RFC 4861 section 4.4).
pub const ND_ADVERTISEMENT: u8 = 136;

/// Bytes of an Ethernet header without a tag.
pub const ETHERNET_LEN: usize = 14;
/// Bytes that one VLAN tag adds.
pub const VLAN_LEN: usize = 4;
/// Bytes of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Bytes of an IPv6 header without extension headers.
pub const IPV6_LEN: usize = 40;
/// Bytes of a UDP header.
pub const UDP_LEN: usize = 8;
/// Bytes of an ESP header: SPI and sequence number.
pub const ESP_LEN: usize = 8;
