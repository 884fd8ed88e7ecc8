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
    /// One part for each worker.
    pub(super) umems: Vec<Umem>,
    /// Empty where the outside is a UDP socket.
    pub(super) outside: Vec<Socket>,
    /// Empty where the inside is a TUN device.
    pub(super) inside: Vec<Socket>,
}

impl SocketSet {
    /// Of so many workers that are wanted, how many each have a queue of every interface.
    ///
    /// # Errors
    /// An interface whose queues can not be counted.
    pub(super) fn workers(
        outside: Option<&str>,
        inside: Option<&str>,
        wanted: usize,
    ) -> Result<usize, SetupError> {
        let mut workers = wanted.max(1);
        for interface in [outside, inside].into_iter().flatten() {
            let queues = loader::queues(interface)?.max(1);
            if (queues as usize) < workers {
                workers = queues as usize;
                tracing::warn!(
                    "{interface} has receive queues for {workers} of {wanted} workers: only so many are \
                     started (`ethtool -L {interface} combined {wanted}` makes more of them, if the driver \
                     can)"
                );
            }
        }
        Ok(workers)
    }

    /// Opens the sockets of all queues. All sockets on one memory have the mode of the first one:
    /// where one driver has zero-copy and the other has not, both are used in copy mode.
    ///
    /// # Errors
    /// What the kernel refused, and for which queue.
    pub(super) fn open(
        outside: Option<&str>,
        inside: Option<&str>,
        workers: usize,
    ) -> Result<Self, SetupError> {
        match Self::open_as(outside, inside, workers, BindMode::Auto) {
            Err(SetupError::Xsk(XskError::Bind {
                interface, source, ..
            })) if inside.is_some() => {
                tracing::warn!(
                    "{interface}: {source}; all interfaces are used in copy mode, which costs \
                     throughput"
                );
                Self::open_as(outside, inside, workers, BindMode::Copy)
            }
            result => result,
        }
    }

    fn open_as(
        outside: Option<&str>,
        inside: Option<&str>,
        workers: usize,
        mode: BindMode,
    ) -> Result<Self, SetupError> {
        let queues = |interface: Option<&str>| interface.map(loader::queues).transpose();
        let outside_queues = queues(outside)?.unwrap_or(0);
        let inside_queues = queues(inside)?.unwrap_or(0);
        // Some more for what TUN devices hand over, for what groups hold, and for what is on its way from
        // one worker to another.
        let more = u32::try_from(workers).unwrap_or(1);
        let chunks = (outside_queues + inside_queues + more) * RING * RINGS;
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
            umems: umem.split(workers),
            outside: outside_sockets,
            inside: inside_sockets,
        })
    }
}

/// Deals out to so many workers, one after the other.
pub(super) fn deal<T>(all: Vec<T>, workers: usize) -> Vec<Vec<T>> {
    let mut hands: Vec<Vec<T>> = (0..workers.max(1)).map(|_| Vec::new()).collect();
    for (number, one) in all.into_iter().enumerate() {
        hands[number % workers.max(1)].push(one);
    }
    hands
}
