//! The portable outside: ESP in UDP (RFC 3948) over a socket, where no XDP program is to be had.
//!
//! A datagram becomes the frame that a NIC would have brought, with headers made from what the kernel says
//! about it, and the [`Gate`] judges it by the code of the XDP program. On the way out the headers come off
//! again. Datagrams of one size to one peer cross the kernel together (UDP segmentation and receive
//! offload): a stream costs a system call for 64 kB, not for each packet.

use std::io;
use std::os::fd::AsFd;

use socket2::SockRef;

use super::sockopt;

mod gate;
mod headers;
mod message;
mod port;
mod spread;

pub use port::IkeMessage;
pub use spread::bind;
pub(super) use spread::bind_own;

pub(super) use gate::{Gate, Judged};
pub(super) use headers::{MOST, put};
pub(super) use message::Inbox;
pub(super) use port::UdpPort;
pub(super) use spread::spread;

/// What this socket sends may be cut on its way, and what ICMP says about it is not believed.
///
/// # Errors
/// What the kernel refuses.
pub fn let_be_cut(socket: impl AsFd) -> io::Result<()> {
    // `INTERFACE`: no don't-fragment bit, and only the interface's own MTU counts.
    match SockRef::from(&socket).local_addr()?.is_ipv4() {
        true => {
            let (option, value) = (libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_INTERFACE);
            sockopt::set(socket, libc::SOL_IP, option, value)
        }
        false => {
            let (option, value) = (libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_INTERFACE);
            sockopt::set(socket, libc::SOL_IPV6, option, value)
        }
    }
}
