//! Names and addresses of the lab: the one place that knows them.
//!
//! ```text
//! client ── wan ── gw1 gw2 gw3 ── lan ── target
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many gateways the lab has.
pub(crate) const GATEWAYS: [u8; 3] = [1, 2, 3];
/// Target addresses inside the tunnel range of the policy.
pub(crate) const TARGETS: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
/// The same for IPv6.
pub(crate) const TARGET_V6: &str = "2001:db8:3::1";
/// A further address of the target, reached by plain kernel routing through gw3.
pub(crate) const PLAIN_TARGET: &str = "10.0.9.1";
/// The client's outside address.
pub(crate) const CLIENT_OUTSIDE: &str = "198.51.100.2";
/// The same for IPv6.
pub(crate) const CLIENT_OUTSIDE_V6: &str = "2001:db8:1::2";
/// Where it is after it has moved to another network.
pub(crate) const CLIENT_ELSEWHERE: &str = "203.0.113.2";
/// The client's address inside the tunnel: one of the LAN's own subnet, so that targets ask for
/// it by ARP and find whichever gateway is active.
pub(crate) const CLIENT_INNER: &str = "10.0.0.130";
/// The same for IPv6.
pub(crate) const CLIENT_INNER_V6: &str = "2001:db8:3::82";
/// What gateways hand to clients that have no fixed address.
pub(crate) const POOL: &str = "10.0.0.128/26";
/// The TUN device that the client's daemon makes.
pub(crate) const TUN: &str = "eg0";

/// One network namespace of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The notebook: policy, TUN device, applications.
    Client,
    /// A router that stands for the Internet: client link on one side, gateways on the other.
    Wan,
    /// A gateway, numbered from 1.
    Gateway(u8),
    /// The switch behind the gateways.
    Lan,
    /// A plain host behind the gateways.
    Target,
    /// A front before the gateways, in the labs that have one.
    Front,
    /// Behind the client, in the short lab of the rig only: where test packets come from.
    Generator,
}

impl Place {
    /// Every namespace of the usual lab.
    pub(crate) const ALL: [Self; 7] = [
        Self::Client,
        Self::Wan,
        Self::Gateway(1),
        Self::Gateway(2),
        Self::Gateway(3),
        Self::Lan,
        Self::Target,
    ];
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Wan => f.write_str("wan"),
            Self::Gateway(number) => write!(f, "gw{number}"),
            Self::Lan => f.write_str("lan"),
            Self::Target => f.write_str("target"),
            Self::Front => f.write_str("front"),
            Self::Generator => f.write_str("generator"),
        }
    }
}

/// The outside address of a gateway: 192.0.2.N.
pub(crate) fn gateway_outside(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, number))
}

/// The LAN address of a gateway: 10.0.0.25N.
pub(crate) fn gateway_inside(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 250 + number))
}

/// The same for IPv6: 2001:db8:2::N.
pub(crate) fn gateway_outside_v6(number: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, number.into()))
}

/// Which gateway has this outside address.
pub(crate) fn gateway_number(address: &str) -> Option<u8> {
    GATEWAYS.into_iter().find(|n| {
        [gateway_outside(*n), gateway_outside_v6(*n)]
            .map(|a| a.to_string())
            .contains(&address.to_owned())
    })
}

/// Whether an address is one of the networks behind the gateways, which is never seen outside.
pub(crate) fn is_inner(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [10, 0, 0],
        IpAddr::V6(v6) => v6.segments()[..4] == [0x2001, 0xdb8, 3, 0],
    }
}
