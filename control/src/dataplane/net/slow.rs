//! The slow path: the kernel resolves the next hop and sends the packet.
//!
//! The sockets are bound to the inside interface, so whatever the routing tables say, a packet
//! handed over here never leaves by another one.

use std::io::{self, ErrorKind};
use std::net::{SocketAddrV4, SocketAddrV6};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::frame::take;

/// `IPPROTO_RAW`: a socket of this protocol only sends.
const RAW: i32 = 255;

/// Why the slow path is not there.
#[derive(Debug, thiserror::Error)]
#[error("can not {what} for the slow path by {interface:?}: {why}")]
pub struct OpenError {
    what: &'static str,
    interface: String,
    #[source]
    why: io::Error,
}

/// Why a packet was not handed over; each is counted by [`SlowPath::counters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No whole IPv4 or IPv6 header, or IPv6 on a host without it.
    #[error("not a packet that this host can send")]
    NotIp,
    /// The socket's buffer is full.
    #[error("the kernel has too many packets of ours waiting")]
    Full,
    /// Longer than the interface's MTU.
    #[error("the packet does not fit the interface")]
    TooBig,
    /// No route by this interface, the interface is down, a firewall rule.
    #[error("the kernel refused the packet")]
    Kernel,
}

/// What became of the packets, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub sent: u64,
    pub not_ip: u64,
    pub full: u64,
    pub too_big: u64,
    pub kernel: u64,
}

/// Raw sockets of both families on one interface. Needs `CAP_NET_RAW`.
#[derive(Debug)]
pub struct SlowPath {
    v4: Socket,
    /// `None` on a host without IPv6.
    v6: Option<Socket>,
    counters: Counters,
}

impl SlowPath {
    /// Opens the sockets in the calling thread's network namespace.
    ///
    /// # Errors
    /// The interface is missing or a privilege is.
    pub fn open(interface: &str) -> Result<Self, OpenError> {
        let fail = |what| {
            move |why| OpenError {
                what,
                interface: interface.to_owned(),
                why,
            }
        };
        let v4 = socket(Domain::IPV4, interface).map_err(fail("open a raw IPv4 socket"))?;
        v4.set_header_included_v4(true)
            .map_err(fail("set IP_HDRINCL"))?;
        let v6 = match socket(Domain::IPV6, interface) {
            Ok(v6) => {
                v6.set_header_included_v6(true)
                    .map_err(fail("set IPV6_HDRINCL"))?;
                Some(v6)
            }
            Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) => None,
            Err(error) => return Err(fail("open a raw IPv6 socket")(error)),
        };
        Ok(Self {
            v4,
            v6,
            counters: Counters::default(),
        })
    }

    /// Hands the kernel a whole IP packet to send by the interface; never blocks. The kernel
    /// fills in the IPv4 header checksum, and queues the packet while it resolves the next hop.
    /// How many packets come this way the caller must bound.
    ///
    /// # Errors
    /// Why the packet was not taken.
    pub fn send(&mut self, packet: &[u8]) -> Result<(), Refused> {
        let result = self.try_send(packet);
        let counter = match result {
            Ok(()) => &mut self.counters.sent,
            Err(Refused::NotIp) => &mut self.counters.not_ip,
            Err(Refused::Full) => &mut self.counters.full,
            Err(Refused::TooBig) => &mut self.counters.too_big,
            Err(Refused::Kernel) => &mut self.counters.kernel,
        };
        *counter += 1;
        result
    }

    fn try_send(&self, packet: &[u8]) -> Result<(), Refused> {
        let version = packet.first().ok_or(Refused::NotIp)? >> 4;
        let (socket, to) = match version {
            4 => {
                let destination = take::<4>(packet, 16).ok_or(Refused::NotIp)?;
                (
                    &self.v4,
                    SockAddr::from(SocketAddrV4::new(destination.into(), 0)),
                )
            }
            6 => {
                let destination = take::<16>(packet, 24).ok_or(Refused::NotIp)?;
                let v6 = self.v6.as_ref().ok_or(Refused::NotIp)?;
                (
                    v6,
                    SockAddr::from(SocketAddrV6::new(destination.into(), 0, 0, 0)),
                )
            }
            _ => return Err(Refused::NotIp),
        };
        match socket.send_to(packet, &to) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(Refused::Full),
            Err(error) => Err(match error.raw_os_error() {
                Some(EMSGSIZE) => Refused::TooBig,
                Some(ENOBUFS) => Refused::Full,
                Some(EINVAL) => Refused::NotIp,
                _ => Refused::Kernel,
            }),
        }
    }

    /// What became of the packets so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

const EINVAL: i32 = 22;
const EMSGSIZE: i32 = 90;
const EAFNOSUPPORT: i32 = 97;
const ENOBUFS: i32 = 105;

fn socket(domain: Domain, interface: &str) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    Ok(socket)
}
