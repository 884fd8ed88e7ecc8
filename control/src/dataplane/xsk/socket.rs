//! One AF_XDP socket: one queue of one interface.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use thiserror::Error;

use super::super::sockopt;
use super::CHUNK;
use super::ring::{Consumer, Producer};
use super::umem::{Frame, Umem};

/// How a socket is bound to its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindMode {
    /// Zero-copy where the driver has it, copy mode otherwise.
    Auto,
    /// Copy mode, which every driver has.
    Copy,
}

/// Why a socket could not be made.
#[derive(Debug, Error)]
pub enum XskError {
    /// The kernel has no AF_XDP, or the process may not use it.
    #[error(
        "no AF_XDP socket for interface {interface} could be made: {source} (needs CAP_NET_RAW and a kernel with CONFIG_XDP_SOCKETS)"
    )]
    Socket {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Frame memory is locked memory.
    #[error(
        "the frame memory of {bytes} bytes for interface {interface} can not be locked: {source} (needs \
         CAP_IPC_LOCK, or a larger limit: `ulimit -l`, `LimitMEMLOCK=` in a unit of systemd)"
    )]
    Locked {
        /// The interface.
        interface: String,
        /// Of the frame memory.
        bytes: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// A step of the set-up failed.
    #[error("AF_XDP socket for queue {queue} of interface {interface}: {step} failed: {source}")]
    Step {
        /// The interface.
        interface: String,
        /// The receive queue.
        queue: u32,
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket could not be bound to the queue.
    #[error("AF_XDP socket for queue {queue} of interface {interface}: binding failed: {source}")]
    Bind {
        /// The interface.
        interface: String,
        /// The receive queue.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another socket has the queue.
    #[error("queue {queue} of interface {interface} is taken by another AF_XDP socket")]
    Busy {
        /// The interface.
        interface: String,
        /// The receive queue.
        queue: u32,
    },
}

/// An AF_XDP socket with its rings. Sends and receives frames of the [`Umem`] that it was made
/// with; the first socket on a memory registers it, the others share it.
pub struct Socket {
    receive: Consumer<libc::xdp_desc>,
    transmit: Producer<libc::xdp_desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    ring_size: u32,
    /// Frames in the transmit ring or on their way to the completion ring.
    in_flight: u32,
    fd: OwnedFd,
}

impl Socket {
    /// Opens and binds a socket for one receive queue. `shared` is a socket that was made with the
    /// same memory before. `ring_size` is a power of two.
    pub fn open(
        umem: &mut Umem,
        shared: Option<&Socket>,
        interface: &str,
        queue: u32,
        ring_size: u32,
        mode: BindMode,
    ) -> Result<Self, XskError> {
        let step = |step| {
            let interface = interface.to_owned();
            move |source| XskError::Step {
                interface,
                queue,
                step,
                source,
            }
        };
        // SAFETY: plain system call, result checked.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(XskError::Socket {
                interface: interface.to_owned(),
                source: io::Error::last_os_error(),
            });
        }
        // SAFETY: a descriptor that was just made and that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if shared.is_none() {
            let registration = libc::xdp_umem_reg_v1 {
                addr: umem.address(),
                len: umem.length(),
                chunk_size: CHUNK as u32,
                headroom: 0,
            };
            sockopt::set(&fd, libc::SOL_XDP, libc::XDP_UMEM_REG, registration).map_err(
                |source| match source.raw_os_error() {
                    Some(libc::ENOBUFS) => XskError::Locked {
                        interface: interface.to_owned(),
                        bytes: umem.length(),
                        source,
                    },
                    _ => step("registration of the frame memory")(source),
                },
            )?;
        }
        for option in [
            libc::XDP_UMEM_FILL_RING,
            libc::XDP_UMEM_COMPLETION_RING,
            libc::XDP_RX_RING,
            libc::XDP_TX_RING,
        ] {
            sockopt::set(&fd, libc::SOL_XDP, option, ring_size).map_err(step("sizing a ring"))?;
        }
        let offsets = ring_offsets(&fd).map_err(step("asking for the ring offsets"))?;
        let raw = fd.as_raw_fd();
        let rings = || -> io::Result<_> {
            Ok((
                Consumer::new(raw, libc::XDP_PGOFF_RX_RING, &offsets.rx, ring_size)?,
                Producer::new(raw, libc::XDP_PGOFF_TX_RING, &offsets.tx, ring_size)?,
                Producer::new(
                    raw,
                    libc::XDP_UMEM_PGOFF_FILL_RING as i64,
                    &offsets.fr,
                    ring_size,
                )?,
                Consumer::new(
                    raw,
                    libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64,
                    &offsets.cr,
                    ring_size,
                )?,
            ))
        };
        let (receive, transmit, fill, completion) = rings().map_err(step("mapping a ring"))?;
        let mut socket = Self {
            receive,
            transmit,
            fill,
            completion,
            ring_size,
            in_flight: 0,
            fd,
        };
        // Before the bind: some drivers take it ill if the fill ring is empty then.
        socket.refill(umem);

        let index = interface_index(interface).map_err(step("looking the interface up"))?;
        let (flags, shared_fd) = match (shared, mode) {
            (Some(first), _) => (libc::XDP_SHARED_UMEM, first.fd.as_raw_fd() as u32),
            (None, BindMode::Auto) => (libc::XDP_USE_NEED_WAKEUP, 0),
            (None, BindMode::Copy) => (libc::XDP_USE_NEED_WAKEUP | libc::XDP_COPY, 0),
        };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags,
            sxdp_ifindex: index,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: shared_fd,
        };
        // SAFETY: `address` is a sockaddr of the family and of the length that is given.
        let result = unsafe {
            libc::bind(
                socket.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_xdp>() as u32,
            )
        };
        if result < 0 {
            let source = io::Error::last_os_error();
            if source.raw_os_error() == Some(libc::EBUSY) {
                return Err(XskError::Busy {
                    interface: interface.to_owned(),
                    queue,
                });
            }
            return Err(XskError::Bind {
                interface: interface.to_owned(),
                queue,
                source,
            });
        }
        Ok(socket)
    }

    /// Moves free frames into the fill ring, so that the kernel has where to receive to.
    pub fn refill(&mut self, umem: &mut Umem) {
        let mut filled = false;
        while self.fill.room() > 0 {
            let Some(mut frame) = umem.take() else { break };
            frame.set_range(0..0);
            if self.fill.push(frame.address()).is_err() {
                umem.free(frame);
                break;
            }
            filled = true;
        }
        if filled {
            self.fill.submit();
        }
    }

    /// Receives up to `limit` frames into `frames` and returns how many.
    pub fn receive(&mut self, umem: &Umem, frames: &mut Vec<Frame>, limit: usize) -> usize {
        let mut received = 0;
        while received < limit {
            let Some(descriptor) = self.receive.pop() else {
                break;
            };
            if let Some(frame) = umem.frame_at(descriptor.addr, descriptor.len) {
                frames.push(frame);
            }
            received += 1;
        }
        if received > 0 {
            self.receive.release();
        }
        received
    }

    /// Packets that came since the socket was opened and were lost: because the receive ring was full, and because
    /// there was no frame for them (kernel: `Documentation/networking/af_xdp.rst`, `XDP_STATISTICS`).
    pub fn lost(&self) -> [u64; 2] {
        // It is a count for people: without it the socket works as well.
        sockopt::xdp_statistics(&self.fd)
            .map_or([0; 2], |said| [said.rx_ring_full, said.rx_dropped])
    }

    /// Puts a frame into the transmit ring, or gives it back when the ring is full. It leaves with
    /// the next [`Self::kick`].
    pub fn send(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.in_flight >= self.ring_size {
            return Err(frame);
        }
        let descriptor = libc::xdp_desc {
            addr: frame.address(),
            len: frame.len() as u32,
            options: 0,
        };
        match self.transmit.push(descriptor) {
            Ok(()) => {
                self.in_flight += 1;
                Ok(())
            }
            Err(_) => Err(frame),
        }
    }

    /// Shows what was sent to the kernel and wakes it if it asks for that. Returns whether it is of
    /// use to kick again soon: in copy mode one call sends at most 32 frames and says EAGAIN. What
    /// an interface that is down still holds waits for a later kick.
    pub fn kick(&mut self) -> bool {
        self.transmit.submit();
        if self.transmit.pending() == 0 {
            return false;
        }
        if self.transmit.needs_wakeup() {
            // SAFETY: an empty send on a descriptor that we own.
            let sent = unsafe {
                libc::sendto(
                    self.fd.as_raw_fd(),
                    std::ptr::null(),
                    0,
                    libc::MSG_DONTWAIT,
                    std::ptr::null(),
                    0,
                )
            };
            if sent < 0 {
                let error = io::Error::last_os_error().raw_os_error();
                let soon = [libc::EAGAIN, libc::EBUSY, libc::ENOBUFS, libc::EINTR];
                if !error.is_some_and(|error| soon.contains(&error)) {
                    return false;
                }
            }
        }
        self.transmit.pending() > 0
    }

    /// Takes back the frames that the kernel has sent, and returns how many.
    pub fn complete(&mut self, umem: &mut Umem) -> usize {
        let mut completed = 0;
        while let Some(address) = self.completion.pop() {
            if let Some(frame) = umem.frame_at(address, 0) {
                umem.free(frame);
            }
            completed += 1;
        }
        if completed > 0 {
            self.completion.release();
            self.in_flight = self.in_flight.saturating_sub(completed);
        }
        completed as usize
    }

    /// Wakes the kernel's receive side if it ran out of frames and asks for that.
    pub fn wake_receive(&mut self) {
        if self.fill.needs_wakeup() {
            self.look();
        }
    }

    /// Has the kernel look into the queue now, in this thread, if [`Self::busy_poll`] was asked for.
    pub fn look(&mut self) {
        // SAFETY: a receive of nothing on a descriptor that we own.
        unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            );
        }
    }

    /// From now on [`Self::look`] takes packets from the queue, and the driver leaves that to us while we
    /// do so (`SO_PREFER_BUSY_POLL`, Linux 5.11; how long it waits is `napi_defer_hard_irqs` and
    /// `gro_flush_timeout` of the interface).
    ///
    /// # Errors
    /// A kernel that does not know it, or CAP_NET_ADMIN missing.
    pub fn busy_poll(&self, time: Duration, budget: i32) -> io::Result<()> {
        let time = i32::try_from(time.as_micros()).unwrap_or(i32::MAX).max(1);
        sockopt::set(&self.fd, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, 1)?;
        sockopt::set(&self.fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, time)?;
        sockopt::set(
            &self.fd,
            libc::SOL_SOCKET,
            libc::SO_BUSY_POLL_BUDGET,
            budget,
        )
    }

    /// How many frames can be sent now.
    pub fn room(&self) -> usize {
        self.ring_size.saturating_sub(self.in_flight) as usize
    }

    /// Frames given to the kernel for sending and not yet given back.
    pub fn in_flight(&self) -> usize {
        self.in_flight as usize
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn ring_offsets(fd: &OwnedFd) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: a struct of integers, for which all-zero is a value.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::xdp_mmap_offsets>() as u32;
    // SAFETY: the pointers describe `offsets` and `length`, which outlive the call.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_MMAP_OFFSETS,
            (&raw mut offsets).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < size_of::<libc::xdp_mmap_offsets>() {
        return Err(io::Error::other(
            "the kernel is older than 5.4: no need-wakeup flags",
        ));
    }
    Ok(offsets)
}

fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: a NUL-terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}
