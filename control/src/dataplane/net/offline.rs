//! Routes and neighbours from datagrams of route netlink, without a kernel.

use std::sync::Arc;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;

use super::fib::{Fib, Interface, Neighbours, RouteTables};
use super::frame::take;
use super::notices::{Dirty, Known, note};
use super::{links, netlink};

/// Takes each datagram as an answer to a dump, then as a notification.
pub(crate) fn of_datagrams(datagrams: &[&[u8]]) -> Fib {
    let (mut found, mut addresses, mut routes) = (Vec::new(), Vec::new(), Vec::new());
    for message in datagrams.iter().flat_map(|datagram| messages(datagram)) {
        match message {
            RouteNetlinkMessage::NewLink(message) => found.extend(netlink::link(&message)),
            RouteNetlinkMessage::NewAddress(message) => {
                addresses.extend(netlink::address(&message))
            }
            RouteNetlinkMessage::NewRoute(message) => routes.extend(netlink::route(&message)),
            _ => {}
        }
    }
    let mut interfaces: Vec<Interface> = found
        .iter()
        .map(|link| links::interface(link, &addresses))
        .collect();
    let (mut neighbours, mut dirty) = (Known::new(), Dirty::default());
    for datagram in datagrams {
        note(
            datagram,
            &mut interfaces,
            &mut neighbours,
            &mut dirty,
            &mut Vec::new(),
        );
    }
    let indices: Vec<u32> = interfaces.iter().map(|own| own.index).collect();
    let usable = neighbours
        .iter()
        .filter_map(|(key, (_, mac))| Some((*key, (*mac)?)));
    let neighbours = Neighbours::new(usable);
    let tables = RouteTables::new(&routes, &indices);
    Fib::new(interfaces, Arc::new(tables), Arc::new(neighbours))
}

/// The messages of a datagram, those that can be read.
fn messages(datagram: &[u8]) -> Vec<RouteNetlinkMessage> {
    let (mut rest, mut all) = (datagram, Vec::new());
    while let Some(length) = take::<4>(rest, 0).map(u32::from_ne_bytes) {
        let length = length as usize;
        let Some(message) = rest.get(..length).filter(|_| length >= 16) else {
            break;
        };
        if let Ok(NetlinkMessage {
            payload: NetlinkPayload::InnerMessage(inner),
            ..
        }) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)
        {
            all.push(inner);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}
