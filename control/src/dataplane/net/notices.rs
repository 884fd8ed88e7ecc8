//! What the kernel tells of links, routes and neighbours unasked.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::neighbour::NeighbourState;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::fib::Interface;
use super::frame::{Mac, take};
use super::netlink::{self, Neighbour};

/// What must be read again.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Dirty {
    pub(super) links: bool,
    pub(super) routes: bool,
    pub(super) neighbours: bool,
    /// A single neighbour was changed in place; only publishing is left.
    pub(super) publish: bool,
}

impl Dirty {
    pub(super) const ALL: Self = Self {
        links: true,
        routes: true,
        neighbours: true,
        publish: true,
    };

    pub(super) fn any(self) -> bool {
        self.links || self.routes || self.neighbours || self.publish
    }
}

/// The neighbours that are known, and their MACs if they are usable.
pub(super) type Known = BTreeMap<(u32, IpAddr), (NeighbourState, Option<Mac>)>;

/// Takes in one datagram of notifications. `arrived`: neighbours that can be reached now and could not before.
pub(super) fn note(
    datagram: &[u8],
    interfaces: &mut [Interface],
    neighbours: &mut Known,
    dirty: &mut Dirty,
    arrived: &mut Vec<(u32, IpAddr)>,
) {
    let mut rest = datagram;
    // Header: length (4), type (2), flags (2), sequence (4), port (4), in the host's byte order.
    while let (Some(length), Some(kind)) = (take::<4>(rest, 0), take::<2>(rest, 4)) {
        let length = u32::from_ne_bytes(length) as usize;
        let Some(message) = rest.get(..length).filter(|_| length >= 16) else {
            return;
        };
        match u16::from_ne_bytes(kind) {
            // Links and addresses (RTM_NEWLINK to RTM_DELADDR): routes may go with them silently.
            kind @ 16..=21 => {
                (dirty.links, dirty.routes) = (true, true);
                if kind <= 17 {
                    note_link(message, interfaces);
                }
            }
            // Routes and next hop objects.
            24 | 25 | 104 | 105 => dirty.routes = true,
            // Neighbours.
            28 | 29 => match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
                Ok(NetlinkMessage {
                    payload: NetlinkPayload::InnerMessage(inner),
                    ..
                }) => {
                    dirty.publish |= note_neighbour(&inner, interfaces, neighbours, arrived);
                }
                // Not understood: read them all.
                _ => dirty.neighbours = true,
            },
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// A link that is in use may have gone down. The rest is for the next reading, which may have to wait;
/// a gateway without a link must fall silent at once.
fn note_link(message: &[u8], interfaces: &mut [Interface]) {
    let Ok(NetlinkMessage {
        payload: NetlinkPayload::InnerMessage(inner),
        ..
    }) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)
    else {
        return;
    };
    let (message, there) = match &inner {
        RouteNetlinkMessage::NewLink(message) => (message, true),
        RouteNetlinkMessage::DelLink(message) => (message, false),
        _ => return,
    };
    // A bridge tells in a family of its own that a port has left it, which is there still.
    let own_family = message.header.interface_family == AddressFamily::Unspec;
    let Some(link) = netlink::link(message).filter(|_| own_family) else {
        return;
    };
    for own in interfaces.iter_mut().filter(|own| own.index == link.index) {
        own.up = there && link.enabled && link.carrier;
    }
}

/// True if a look-up may now answer differently.
fn note_neighbour(
    message: &RouteNetlinkMessage,
    interfaces: &[Interface],
    neighbours: &mut Known,
    arrived: &mut Vec<(u32, IpAddr)>,
) -> bool {
    let (one, gone): (Option<Neighbour>, bool) = match message {
        RouteNetlinkMessage::NewNeighbour(message) => (netlink::neighbour(message), false),
        RouteNetlinkMessage::DelNeighbour(message) => (netlink::neighbour(message), true),
        _ => return false,
    };
    let Some(one) = one else { return false };
    if !interfaces.iter().any(|own| own.index == one.interface) {
        return false;
    }
    let key = (one.interface, one.address);
    let before = if gone {
        neighbours.remove(&key)
    } else {
        neighbours.insert(key, (one.state, one.mac))
    };
    let (before, after) = (before.and_then(|(_, mac)| mac), one.mac.filter(|_| !gone));
    if before.is_none() && after.is_some() {
        arrived.push(key);
    }
    before != after
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, State};

    use super::*;

    fn interface(index: u32) -> Interface {
        Interface {
            name: format!("eth{index}"),
            index,
            mac: None,
            mtu: 1500,
            up: true,
            addresses: Vec::new(),
        }
    }

    fn link(index: u32, flags: LinkFlags, state: State) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = flags;
        let name = LinkAttribute::IfName(format!("eth{index}"));
        message.attributes = vec![name, LinkAttribute::OperState(state)];
        message
    }

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn a_link_that_goes_down_is_seen_without_asking() {
        let well = LinkFlags::Up | LinkFlags::LowerUp;
        let new = RouteNetlinkMessage::NewLink;
        for (message, up) in [
            (new(link(7, well, State::Up)), true),
            (new(link(7, LinkFlags::Up, State::Down)), false),
            (new(link(7, LinkFlags::empty(), State::Down)), false),
            (new(link(7, well, State::Dormant)), false),
            (new(link(8, LinkFlags::empty(), State::Down)), true),
            (
                RouteNetlinkMessage::DelLink(link(7, well, State::Up)),
                false,
            ),
        ] {
            let text = format!("{message:?}");
            let (mut own, mut dirty) = ([interface(7)], Dirty::default());
            note(
                &bytes(message),
                &mut own,
                &mut Known::new(),
                &mut dirty,
                &mut Vec::new(),
            );
            assert_eq!(own[0].up, up, "{text}");
            assert!(dirty.links && dirty.routes, "{text}");
        }
        let mut port = link(7, well, State::Up);
        port.header.interface_family = AddressFamily::Bridge;
        let (mut own, mut dirty) = ([interface(7)], Dirty::default());
        let left = bytes(RouteNetlinkMessage::DelLink(port));
        note(
            &left,
            &mut own,
            &mut Known::new(),
            &mut dirty,
            &mut Vec::new(),
        );
        assert!(own[0].up, "it has left a bridge");
        let cut = &bytes(new(link(7, LinkFlags::empty(), State::Down)))[..20];
        note(
            cut,
            &mut own,
            &mut Known::new(),
            &mut dirty,
            &mut Vec::new(),
        );
        assert!(own[0].up, "what can not be read says nothing");
    }
}
