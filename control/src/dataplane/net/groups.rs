//! Hearing neighbour solicitations for addresses that the kernel does not have.
//!
//! They go to a multicast group of the address. A NIC passes on only groups that somebody on the
//! host has joined, and a switch may forward them only to ports that reported so (MLD, RFC 3810);
//! joining does both. The memberships end with this value, also when the process is killed.

use std::collections::HashMap;
use std::io;
use std::net::Ipv6Addr;

use socket2::{Domain, Protocol, Socket, Type};

use super::nd::solicited_node;

/// A socket's memberships are limited by `net.core.optmem_max`; this many sockets may be opened.
const MAX_SOCKETS: usize = 64;
const ENOMEM: i32 = 12;
const ENOBUFS: i32 = 105;

#[derive(Debug, Clone, Copy)]
struct Membership {
    /// Index of the socket that has joined.
    socket: usize,
    /// How many of our addresses share the group: it has 24 bits of the address only.
    addresses: u32,
}

/// The solicited-node groups of the IPv6 addresses active on one interface.
#[derive(Debug)]
pub struct Groups {
    interface: u32,
    sockets: Vec<Socket>,
    joined: HashMap<Ipv6Addr, Membership>,
}

impl Groups {
    /// For the interface with this index. Opens nothing yet.
    #[must_use]
    pub fn new(interface: u32) -> Self {
        Self {
            interface,
            sockets: Vec::new(),
            joined: HashMap::new(),
        }
    }

    /// Joins the group of `address`. Call it once when the address becomes active. The first call
    /// must be made in the interface's network namespace.
    ///
    /// # Errors
    /// The kernel refuses, or has no room for another membership.
    pub fn join(&mut self, address: Ipv6Addr) -> io::Result<()> {
        let group = solicited_node(address);
        if let Some(membership) = self.joined.get_mut(&group) {
            membership.addresses += 1;
            return Ok(());
        }
        let socket = self.join_somewhere(group)?;
        self.joined.insert(
            group,
            Membership {
                socket,
                addresses: 1,
            },
        );
        Ok(())
    }

    fn join_somewhere(&mut self, group: Ipv6Addr) -> io::Result<usize> {
        // A socket that was full may have room again, but the last one nearly always has.
        if let Some((index, socket)) = self.sockets.iter().enumerate().next_back() {
            match socket.join_multicast_v6(&group, self.interface) {
                Ok(()) => return Ok(index),
                Err(error) if !matches!(error.raw_os_error(), Some(ENOMEM | ENOBUFS)) => {
                    return Err(error);
                }
                Err(error) if self.sockets.len() >= MAX_SOCKETS => return Err(error),
                Err(_) => {}
            }
        }
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.join_multicast_v6(&group, self.interface)?;
        self.sockets.push(socket);
        Ok(self.sockets.len() - 1)
    }

    /// Leaves the group of `address`, once for each `join`, if no other active address needs it.
    /// A group that was never joined is ignored.
    pub fn leave(&mut self, address: Ipv6Addr) {
        let group = solicited_node(address);
        let Some(membership) = self.joined.get_mut(&group) else {
            return;
        };
        membership.addresses -= 1;
        if membership.addresses > 0 {
            return;
        }
        let socket = membership.socket;
        self.joined.remove(&group);
        if let Some(socket) = self.sockets.get(socket) {
            // It fails only if the interface is gone, and the membership with it.
            let _ = socket.leave_multicast_v6(&group, self.interface);
        }
    }
}
