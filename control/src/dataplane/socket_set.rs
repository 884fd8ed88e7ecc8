//! The AF_XDP sockets of a node: one for each receive queue, all on one memory, so that a frame
//! goes from one interface to the other without being copied.

use super::loader;
use super::start::SetupError;
use super::worker::RING;
use super::xsk::{BindMode, Socket, Umem, XskError};

/// Frames that a socket may have at once: a ring of received ones, one full of frames to receive
/// into, and one of frames to send.
const RINGS: u32 = 3;

/// The memory and the sockets on it.
pub(super) struct SocketSet {
    pub(super) umem: Umem,
    /// Empty where the outside is a UDP socket.
    pub(super) outside: Vec<Socket>,
    /// Empty where the inside is a TUN device.
    pub(super) inside: Vec<Socket>,
}

impl SocketSet {
    /// Opens the sockets of all queues. All sockets on one memory have the mode of the first one:
    /// where one driver has zero-copy and the other has not, both are used in copy mode.
    ///
    /// # Errors
    /// What the kernel refused, and for which queue.
    pub(super) fn open(outside: Option<&str>, inside: Option<&str>) -> Result<Self, SetupError> {
        match Self::open_as(outside, inside, BindMode::Auto) {
            Err(SetupError::Xsk(XskError::Bind {
                interface, source, ..
            })) if inside.is_some() => {
                tracing::warn!(
                    "{interface}: {source}; all interfaces are used in copy mode, which costs \
                     throughput"
                );
                Self::open_as(outside, inside, BindMode::Copy)
            }
            result => result,
        }
    }

    fn open_as(
        outside: Option<&str>,
        inside: Option<&str>,
        mode: BindMode,
    ) -> Result<Self, SetupError> {
        let queues = |interface: Option<&str>| interface.map(loader::queues).transpose();
        let outside_queues = queues(outside)?.unwrap_or(0);
        let inside_queues = queues(inside)?.unwrap_or(0);
        // One more for what a TUN device hands over and for what groups hold.
        let chunks = (outside_queues + inside_queues + 1) * RING * RINGS;
        let mut umem = Umem::new(chunks).map_err(|source| SetupError::System {
            what: "reserving memory for frames (RLIMIT_MEMLOCK?)",
            source,
        })?;
        let mut outside_sockets: Vec<Socket> = Vec::new();
        for queue in 0..outside_queues {
            let first = outside_sockets.first();
            let interface = outside.unwrap_or_default();
            let socket = Socket::open(&mut umem, first, interface, queue, RING, mode)?;
            outside_sockets.push(socket);
        }
        let mut inside_sockets: Vec<Socket> = Vec::new();
        for queue in 0..inside_queues {
            let first = outside_sockets.first().or(inside_sockets.first());
            let interface = inside.unwrap_or_default();
            let socket = Socket::open(&mut umem, first, interface, queue, RING, mode)?;
            inside_sockets.push(socket);
        }
        Ok(Self {
            umem,
            outside: outside_sockets,
            inside: inside_sockets,
        })
    }
}
