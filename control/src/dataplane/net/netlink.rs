//! From route netlink messages to our own types, and dumps that know when they were torn.

use std::net::IpAddr;

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, State,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHopFlags,
    RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::Handle;

use super::fib::{Hop, Refusal, Route, RouteKind};
use super::frame::{Mac, is_station};

/// How often a dump is tried when the kernel's tables change under it.
const DUMP_TRIES: usize = 5;

/// Why the kernel did not tell.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("can not open a netlink socket: {0}")]
    Open(#[source] std::io::Error),
    #[error("can not read notifications from the netlink socket: {0}")]
    Read(#[source] std::io::Error),
    #[error("the netlink connection is closed")]
    Closed,
    #[error("netlink request for {what}: {why}")]
    Request {
        what: &'static str,
        why: std::io::Error,
    },
}

/// Asks for all objects of a kind. `what` names it in errors. A dump that was torn by a change is
/// asked for again; after some tries the last one is taken, since the change also comes as a
/// notification.
pub(crate) async fn dump(
    handle: &Handle,
    what: &'static str,
    request: RouteNetlinkMessage,
) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
    let mut all = Vec::new();
    for _ in 0..DUMP_TRIES {
        all.clear();
        let mut message = NetlinkMessage::from(request.clone());
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut torn = false;
        let mut handle = handle.clone();
        let mut answers = handle.request(message).map_err(|_| NetlinkError::Closed)?;
        while let Some(answer) = answers.next().await {
            torn |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => all.push(inner),
                NetlinkPayload::Error(error) => {
                    return Err(NetlinkError::Request {
                        what,
                        why: error.to_io(),
                    });
                }
                NetlinkPayload::Overrun(_) => torn = true,
                _ => {}
            }
        }
        if !torn {
            break;
        }
    }
    Ok(all)
}

/// What a link message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    /// Switched on by the administrator.
    pub(crate) enabled: bool,
    pub(crate) carrier: bool,
    /// Whether IPv4 packets that come by it are forwarded, if the kernel says.
    pub(crate) forwards_v4: Option<bool>,
}

/// `None` if the message has no name, so that nobody can mean this link.
pub(crate) fn link(message: &LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        enabled: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        forwards_v4: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes)
                if message.header.link_layer_type == LinkLayerType::Ether =>
            {
                link.mac = bytes.as_slice().try_into().ok();
            }
            LinkAttribute::AfSpecUnspec(families) => {
                let conf = families.iter().find_map(|family| match family {
                    AfSpecUnspec::Inet(inet) => inet.iter().find_map(|value| match value {
                        AfSpecInet::DevConf(conf) => Some(conf),
                        _ => None,
                    }),
                    _ => None,
                });
                link.forwards_v4 = conf.map(|conf| conf.forwarding != 0);
            }
            // "Unknown" is what drivers without operational state say, "dormant" waits for
            // something like 802.1X: no traffic yet.
            LinkAttribute::OperState(
                State::Down | State::LowerLayerDown | State::NotPresent | State::Dormant,
            ) => link.carrier = false,
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

/// An address of an interface, if it may be used as a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) interface: u32,
    pub(crate) address: IpAddr,
    pub(crate) length: u8,
    pub(crate) global: bool,
}

pub(crate) fn address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut other) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            // On point-to-point links `Address` is the peer's and `Local` is ours.
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    if flags.intersects(AddressFlags::Dadfailed | AddressFlags::Tentative) {
        return None;
    }
    Some(Address {
        interface: message.header.index,
        address: local.or(other)?,
        length: message.header.prefix_len,
        global: message.header.scope == AddressScope::Universe,
    })
}

fn route_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// The address of the next router among a route's or next hop's attributes.
fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => route_address(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

/// `None` for routes that a look-up by destination alone does not use: those for one TOS or
/// source, cached ones, other families.
pub(crate) fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let zero: IpAddr = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    if header.tos != 0
        || header.source_prefix_length != 0
        || header.flags.contains(RouteFlags::Cloned)
    {
        return None;
    }
    let kind = match header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local | RouteType::Anycast => RouteKind::Local,
        RouteType::Broadcast | RouteType::Multicast => RouteKind::Group,
        RouteType::BlackHole => RouteKind::Refuse(Refusal::Blackhole),
        RouteType::Unreachable => RouteKind::Refuse(Refusal::Unreachable),
        RouteType::Prohibit => RouteKind::Refuse(Refusal::Prohibited),
        RouteType::Throw => RouteKind::Throw,
        _ => return None,
    };
    let mut route = Route {
        table: u32::from(header.table),
        destination: zero,
        length: header.destination_prefix_length,
        metric: 0,
        kind,
        hops: Vec::new(),
        mtu: None,
    };
    let mut interface = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => route.destination = route_address(address)?,
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::MultiPath(hops) => route.hops.extend(hops.iter().map(|hop| Hop {
                interface: hop.interface_index,
                via: gateway(&hop.attributes),
                dead: hop.flags.contains(RouteNextHopFlags::Dead),
                link_down: hop.flags.contains(RouteNextHopFlags::Linkdown),
            })),
            _ => {}
        }
    }
    if let (Some(interface), true) = (interface, route.hops.is_empty()) {
        route.hops.push(Hop {
            interface,
            via: gateway(&message.attributes),
            dead: header.flags.contains(RouteFlags::Dead),
            link_down: header.flags.contains(RouteFlags::Linkdown),
        });
    }
    Some(route)
}

/// A neighbour, and its MAC if packets may be sent to it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) interface: u32,
    pub(crate) address: IpAddr,
    pub(crate) mac: Option<Mac>,
    pub(crate) state: NeighbourState,
}

/// `None` for entries that are no neighbours of ours (bridge entries, proxies).
pub(crate) fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    let state = message.header.state;
    let usable = matches!(state, Reachable | Stale | Delay | Probe | Permanent | Noarp);
    Some(Neighbour {
        interface: message.header.ifindex,
        address: address?,
        mac: mac.filter(|mac| usable && is_station(*mac)),
        state,
    })
}
