//! AF_XDP: sockets, rings and the frame memory they share (kernel documentation:
//! `Documentation/networking/af_xdp.rst`).
//!
//! All sockets of a worker share one [`Umem`], so that a frame received on one interface is
//! changed in place and sent on another without a copy. A [`Frame`] is a token: it can not be
//! cloned, so each chunk of the memory is in exactly one place (a ring of the kernel, a queue of
//! ours, or the free list).

mod ring;
mod socket;
mod umem;

pub use socket::{BindMode, Socket, XskError};
pub use umem::{Frame, Umem};

/// Size of a chunk in bytes: one frame with its head- and tailroom.
pub const CHUNK: usize = 4096;

/// Where a frame that we fill ourselves starts within its chunk: room for the outer headers.
/// The kernel leaves as much before what it receives (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: usize = 256;
