//! What the kernel says of links, addresses, routes and neighbours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evergate::dataplane::net::fib::Resolution;

use super::script::Script;

/// Parts with a length of two bytes each, one datagram each.
pub fn netlink(data: &[u8]) {
    let mut script = Script::new(data);
    let mut datagrams = Vec::new();
    while !script.over() && datagrams.len() < 64 {
        datagrams.push(script.part());
    }
    let asked: [IpAddr; 6] = [
        Ipv4Addr::new(192, 0, 2, 1).into(),
        Ipv4Addr::new(10, 0, 0, 1).into(),
        Ipv4Addr::BROADCAST.into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        Ipv6Addr::LOCALHOST.into(),
    ];
    let (fib, hops) = evergate::fuzzing::netlink(&datagrams, &asked);
    for (address, hop) in asked.iter().zip(hops) {
        if let Resolution::Resolved(mac) = hop.resolution {
            assert!(mac != [0; 6] && mac[0] & 1 == 0, "a group's MAC");
            assert!(fib.interface(hop.interface).is_some());
        }
        for interface in fib.interfaces() {
            let by = fib.lookup_on(interface.index, *address);
            assert!(by.interface == 0 || by.interface == interface.index);
            let _ = fib.default_router(interface.index, address.is_ipv6());
            let _ = interface.source_for(*address);
        }
    }
}
