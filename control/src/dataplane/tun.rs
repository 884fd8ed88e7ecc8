//! The TUN port: a client's inside. Its routes lead the policy's tunnel ranges here.
//!
//! Offloads are on: the kernel hands over TCP super-packets of up to 64 KiB with a virtio-net
//! header, which are cut into packets straight into frames; what we write carries the header too, and
//! segments of one stream are joined.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use arrayvec::ArrayVec;
use tun_rs::{DeviceBuilder, SyncDevice};

use super::joining::Joining;
use super::net::coalesce::VNET_HEADER;
use super::xsk::{CHUNK, Frame, HEADROOM, Umem};

/// Most packets that one read can yield: the device is told so, or a peer with a tiny MSS would
/// get super-packets of more segments than that.
pub const MAX_SEGMENTS: usize = 128;

/// Packets that may wait in a device for the worker. The kernel's 500 are gone in 5 ms at 100,000 packets a second, which is
/// less than a scheduler's turn on a busy machine.
pub const TUN_QUEUE: u32 = 2048;

/// Why nothing was read.
pub(super) enum Unread {
    /// A packet was lost: too long for a frame, too many segments, or no frame is free.
    Packet,
    /// The device is gone.
    Device(io::Error),
}

/// A TUN device with offloads, non-blocking.
pub(super) struct Tun {
    device: SyncDevice,
    buffer: Box<[u8]>,
    joining: Joining,
    name: String,
}

impl Tun {
    /// Creates the device with so many queues, at least one; it goes away with the process. The kernel
    /// keeps a flow in one queue, the one in which its packets of the other direction are written.
    pub(super) fn create(name: &str, mtu: u16, queues: usize) -> io::Result<Vec<Self>> {
        let device = DeviceBuilder::new()
            .name(name)
            .mtu(mtu)
            .offload(true)
            .multi_queue(queues > 1)
            .build_sync()?;
        let more = (1..queues).map(|_| device.try_clone());
        let mut devices = more.collect::<io::Result<Vec<_>>>()?;
        devices.insert(0, device);
        devices.into_iter().map(Self::of_queue).collect()
    }

    fn of_queue(device: SyncDevice) -> io::Result<Self> {
        device.set_nonblocking(true)?;
        let name = device.name()?;
        let buffer = vec![0; VNET_HEADER + 65_536].into_boxed_slice();
        Ok(Self {
            device,
            buffer,
            joining: Joining::new(),
            name,
        })
    }

    /// Name of the device.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Descriptor to poll for input.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }

    /// Reads until `most` packets are there or nothing waits, and appends them to `frames`, at [`HEADROOM`]
    /// in their chunks; the last read may bring more of them. Returns how many. `spare` is scratch space
    /// that is left empty.
    ///
    /// # Errors
    /// [`Unread::Packet`]: one packet could not be taken and is lost. [`Unread::Device`]: the
    /// device is gone. What was read before is in `frames`.
    pub(super) fn receive(
        &mut self,
        umem: &mut Umem,
        frames: &mut Vec<Frame>,
        spare: &mut Vec<Frame>,
        most: usize,
    ) -> Result<usize, Unread> {
        let mut received = 0;
        let outcome = loop {
            if received >= most {
                break Ok(received);
            }
            match self.receive_once(umem, frames, spare) {
                Ok(0) => break Ok(received),
                Ok(count) => received += count,
                Err(error) => break Err(error),
            }
        };
        for frame in spare.drain(..) {
            umem.free(frame);
        }
        outcome
    }

    /// Reads once. Chunks that are not used stay in `spare`.
    fn receive_once(
        &mut self,
        umem: &mut Umem,
        frames: &mut Vec<Frame>,
        spare: &mut Vec<Frame>,
    ) -> Result<usize, Unread> {
        while spare.len() < MAX_SEGMENTS {
            let Some(frame) = umem.take() else { break };
            spare.push(frame);
        }
        let mut sizes = [0usize; MAX_SEGMENTS];
        let result = {
            let mut buffers: ArrayVec<&mut [u8], MAX_SEGMENTS> =
                umem.tails(spare, HEADROOM).collect();
            let sizes = &mut sizes[..buffers.len()];
            self.device
                .recv_multiple(&mut self.buffer, &mut buffers, sizes, 0)
        };
        let count = *result.as_ref().unwrap_or(&0);
        for (mut frame, size) in spare.drain(..count.min(spare.len())).zip(sizes) {
            frame.set_range(HEADROOM..(HEADROOM + size).min(CHUNK));
            frames.push(frame);
        }
        match result {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Err(Unread::Device(error)),
            Err(_) => Err(Unread::Packet),
        }
    }

    /// Writes a packet, now or at the next [`Self::flush`], and frees it. Yields how many packets the
    /// device has refused meanwhile.
    pub(super) fn send(&mut self, umem: &mut Umem, frame: Frame) -> usize {
        // SAFETY: the device owns the descriptor and lives as long as `self`.
        let fd = unsafe { BorrowedFd::borrow_raw(self.device.as_raw_fd()) };
        self.joining.send(fd, umem, frame)
    }

    /// Writes what waits for more of its stream. Yields how many packets the device has refused.
    pub(super) fn flush(&mut self, umem: &mut Umem) -> usize {
        // SAFETY: as in `send`.
        let fd = unsafe { BorrowedFd::borrow_raw(self.device.as_raw_fd()) };
        self.joining.flush(fd, umem)
    }
}
