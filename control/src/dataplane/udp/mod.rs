//! The portable outside: ESP in UDP (RFC 3948) over a socket, where no XDP program is to be had.
//!
//! A datagram becomes the frame that a NIC would have brought, with headers made from what the kernel says
//! about it, and the [`Gate`] judges it by the code of the XDP program. On the way out the headers come off
//! again. Datagrams of one size to one peer cross the kernel together (UDP segmentation and receive
//! offload): a stream costs a system call for 64 kB, not for each packet.

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
