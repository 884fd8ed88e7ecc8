//! The socket as a port of a worker: frames out of datagrams, datagrams out of frames.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use arrayvec::ArrayVec;
use evergate_common::reason::Counter;
use socket2::SockRef;
use tokio::sync::mpsc::Sender;

use super::headers;
use super::message::{self, Inbox, MESSAGES};
use crate::dataplane::sockopt;
use crate::dataplane::xsk::{CHUNK, Frame, HEADROOM, Umem};

/// Before a message of IKE on port 4500 (RFC 3948 section 2.2).
const MARKER: [u8; 4] = [0; 4];

/// Datagrams that the kernel cuts one message into at most (`UDP_MAX_SEGMENTS` of its older versions).
const SEGMENTS: usize = 64;

/// Bytes of one message: as many as UDP over either IP version can carry.
const MESSAGE: usize = 65_000;

/// Bytes that the kernel may hold for us in each direction: what a worker that is not at work for some
/// milliseconds misses at full rate.
const BUFFER: usize = 8 << 20;

/// A message of IKE that came by the port, without its marker.
#[derive(Debug)]
pub struct IkeMessage {
    /// Who sent it.
    pub from: SocketAddr,
    /// The message.
    pub data: Vec<u8>,
}

/// Sets what the port needs of its socket.
pub(super) fn prepare(socket: &UdpSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let shown = SockRef::from(socket);
    // More than the system's limit needs a privilege; with less the port works too.
    for (force, plain) in [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ] {
        if sockopt::set(socket, libc::SOL_SOCKET, force, BUFFER as i32).is_err() {
            sockopt::set(socket, libc::SOL_SOCKET, plain, BUFFER as i32)?;
        }
    }
    // `PROBE`: the don't-fragment bit, and the size is ours to find.
    match socket.local_addr()? {
        SocketAddr::V4(_) => {
            shown.set_recv_tos_v4(true)?;
            let (option, value) = (libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE);
            sockopt::set(socket, libc::SOL_IP, option, value)?;
        }
        SocketAddr::V6(_) => {
            shown.set_recv_tclass_v6(true)?;
            let (option, value) = (libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE);
            sockopt::set(socket, libc::SOL_IPV6, option, value)?;
        }
    }
    sockopt::set(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Datagrams of one size to one peer that wait to be sent together.
struct Train {
    to: SocketAddr,
    class: u8,
    segment: usize,
    bytes: usize,
    /// Frames, and where in each the payload begins.
    frames: Vec<(Frame, usize)>,
}

/// The outside over a socket.
pub(in crate::dataplane) struct UdpPort {
    socket: UdpSocket,
    local: SocketAddr,
    inbox: Inbox,
    train: Train,
    ike: Sender<IkeMessage>,
    /// Whether the kernel cuts messages for us.
    segmentation: bool,
}

impl UdpPort {
    /// A port over a socket of [`bind`](super::bind); messages of IKE go to `ike`.
    ///
    /// # Errors
    /// The socket's address can not be told.
    pub(in crate::dataplane) fn new(
        socket: UdpSocket,
        ike: Sender<IkeMessage>,
    ) -> io::Result<Self> {
        let local = socket.local_addr()?;
        let train = Train {
            to: local,
            class: 0,
            segment: 0,
            bytes: 0,
            frames: Vec::with_capacity(SEGMENTS),
        };
        Ok(Self {
            socket,
            local,
            inbox: Inbox::new(),
            train,
            ike,
            segmentation: true,
        })
    }

    /// Goes on over another socket; what waits is sent by the old one.
    pub(in crate::dataplane) fn rebind(&mut self, umem: &mut Umem, socket: UdpSocket) {
        let _ = self.flush(umem);
        if let Ok(local) = socket.local_addr() {
            (self.socket, self.local) = (socket, local);
        }
    }

    /// Descriptor to poll for input.
    pub(in crate::dataplane) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Receives what is there, once, and appends a frame for each datagram but those of IKE. Counts what
    /// could not be taken by `count`. Says whether nothing more is there.
    pub(in crate::dataplane) fn receive(
        &mut self,
        umem: &mut Umem,
        frames: &mut Vec<Frame>,
        mut count: impl FnMut(Counter),
    ) -> bool {
        // Errors are of what was sent before, or there is nothing; the next call tells.
        let Ok(messages) = self.inbox.receive(self.socket.as_fd()) else {
            return true;
        };
        for at in 0..messages {
            let Some(message) = self.inbox.message(at) else {
                count(Counter::Malformed);
                continue;
            };
            for datagram in message.data.chunks(message.segment) {
                if let Some(data) = datagram.strip_prefix(&MARKER) {
                    let (from, data) = (message.from, data.to_vec());
                    // What does not fit is sent again by its sender.
                    if self.ike.try_send(IkeMessage { from, data }).is_err() {
                        count(Counter::QueueFull);
                    }
                    continue;
                }
                let Some(mut frame) = umem.take() else {
                    count(Counter::NoFrame);
                    continue;
                };
                let range = fill(umem.chunk_mut(&frame), datagram, &message, self.local);
                match range {
                    Some(range) => {
                        frame.set_range(range);
                        frames.push(frame);
                    }
                    None => {
                        umem.free(frame);
                        count(Counter::BadLength);
                    }
                }
            }
        }
        messages < MESSAGES
    }

    /// Sends an IP packet with ESP in UDP, now or at the next [`Self::flush`], and frees its frame. Says
    /// what was refused, and how many packets.
    pub(in crate::dataplane) fn send(
        &mut self,
        umem: &mut Umem,
        frame: Frame,
    ) -> Option<(Counter, usize)> {
        let packet = umem.bytes(&frame);
        let Some((to, payload, class)) = headers::read(packet) else {
            umem.free(frame);
            return Some((Counter::NoRoute, 1));
        };
        let length = packet.len() - payload;
        let train = &self.train;
        let joins = (train.to, train.class) == (to, class)
            && length <= train.segment
            && train.bytes + length <= MESSAGE
            && train.frames.len() < SEGMENTS
            // One that is shorter than the first is the last.
            && train.bytes == train.segment * train.frames.len()
            && self.segmentation;
        let refused = match joins {
            true => None,
            false => self.flush(umem),
        };
        if self.train.frames.is_empty() {
            (self.train.to, self.train.class) = (to, class);
            (self.train.segment, self.train.bytes) = (length, 0);
        }
        self.train.bytes += length;
        self.train.frames.push((frame, payload));
        refused
    }

    /// Sends what waits.
    pub(in crate::dataplane) fn flush(&mut self, umem: &mut Umem) -> Option<(Counter, usize)> {
        let count = self.train.frames.len();
        if count == 0 {
            return None;
        }
        let result = self.send_train(umem);
        for (frame, _) in self.train.frames.drain(..) {
            umem.free(frame);
        }
        let error = result.err()?;
        let reason = match error.raw_os_error() {
            Some(libc::EMSGSIZE) => Counter::TooBig,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => Counter::NoRoute,
            _ => Counter::TxRingFull,
        };
        Some((reason, count))
    }

    fn send_train(&mut self, umem: &Umem) -> io::Result<()> {
        let Train {
            to, class, segment, ..
        } = self.train;
        let parts: ArrayVec<IoSlice<'_>, SEGMENTS> = self
            .train
            .frames
            .iter()
            .map(|(frame, payload)| {
                IoSlice::new(umem.bytes(frame).get(*payload..).unwrap_or_default())
            })
            .collect();
        let socket = self.socket.as_fd();
        if parts.len() > 1 {
            let cut = u16::try_from(segment).ok();
            match message::send(socket, to, class, cut, &parts) {
                // An interface that can not: one by one from now on.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => self.segmentation = false,
                result => return result,
            }
        }
        let sent = parts
            .chunks(1)
            .map(|part| message::send(socket, to, class, None, part));
        sent.fold(Ok(()), io::Result::and)
    }
}

/// Makes a frame of a datagram in a chunk; `None` if it is too long for one.
fn fill(
    chunk: &mut [u8],
    datagram: &[u8],
    message: &message::Message<'_>,
    local: SocketAddr,
) -> Option<std::ops::Range<usize>> {
    // The tail stays free, as in what a NIC brings.
    let end = (HEADROOM + datagram.len()).checked_add(HEADROOM)?;
    if end > CHUNK {
        return None;
    }
    let room = chunk.get_mut(HEADROOM..HEADROOM + datagram.len())?;
    room.copy_from_slice(datagram);
    let length = datagram.len();
    headers::put(chunk, HEADROOM, length, message.from, local, message.class)
}

#[cfg(test)]
#[path = "port_tests.rs"]
mod tests;
