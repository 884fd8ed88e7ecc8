//! The socket as a port of a worker: frames out of datagrams, datagrams out of frames.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use arrayvec::ArrayVec;
use evergate_common::packet::Bytes as _;
use evergate_common::reason::Counter;
use evergate_common::wire::UDP_LEN;
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
    /// By the worker's own socket.
    own: bool,
    segment: usize,
    bytes: usize,
    /// Frames, and where in each the payload begins.
    frames: Vec<(Frame, usize)>,
}

/// The outside over a socket.
pub(in crate::dataplane) struct UdpPort {
    socket: UdpSocket,
    local: SocketAddr,
    /// Another one, on a port of the worker's own, and that port.
    own: Option<(UdpSocket, u16)>,
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
        own: Option<UdpSocket>,
        ike: Sender<IkeMessage>,
    ) -> io::Result<Self> {
        let own = own.map(with_port).transpose()?;
        let local = socket.local_addr()?;
        let train = Train {
            to: local,
            class: 0,
            own: false,
            segment: 0,
            bytes: 0,
            frames: Vec::with_capacity(SEGMENTS),
        };
        Ok(Self {
            socket,
            local,
            own,
            inbox: Inbox::new(),
            train,
            ike,
            segmentation: true,
        })
    }

    /// Goes on over other sockets; what waits is sent by the old ones.
    pub(in crate::dataplane) fn rebind(
        &mut self,
        umem: &mut Umem,
        socket: UdpSocket,
        own: Option<UdpSocket>,
    ) {
        let _ = self.flush(umem);
        if let Ok(local) = socket.local_addr() {
            (self.socket, self.local) = (socket, local);
            self.own = own.and_then(|own| with_port(own).ok());
        }
    }

    /// The port of the worker's own.
    pub(in crate::dataplane) fn own_port(&self) -> Option<u16> {
        self.own.as_ref().map(|(_, port)| *port)
    }

    /// How many sockets there are.
    pub(in crate::dataplane) fn sockets(&self) -> usize {
        1 + usize::from(self.own.is_some())
    }

    /// Descriptors to poll for input.
    pub(in crate::dataplane) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let own = self.own.iter().map(|(own, _)| own.as_fd());
        std::iter::once(self.socket.as_fd()).chain(own)
    }

    /// Receives what is there, once, by the shared socket (0) or by the own one, and appends a frame for each
    /// datagram but those of IKE, as to the shared port. Counts what could not be taken by `count`. Says
    /// whether nothing more is there.
    pub(in crate::dataplane) fn receive(
        &mut self,
        number: usize,
        umem: &mut Umem,
        frames: &mut Vec<Frame>,
        mut count: impl FnMut(Counter),
    ) -> bool {
        // Errors are of what was sent before, or there is nothing; the next call tells.
        let socket = match (number, &self.own) {
            (0, _) => &self.socket,
            (_, Some((own, _))) => own,
            (_, None) => return true,
        };
        let Ok(messages) = self.inbox.receive(socket.as_fd()) else {
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
        let from = packet.read_u16(payload - UDP_LEN);
        let own = self.own_port().is_some_and(|port| from == Some(port));
        let train = &self.train;
        let joins = (train.to, train.class, train.own) == (to, class, own)
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
            (self.train.to, self.train.class, self.train.own) = (to, class, own);
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
            to,
            class,
            segment,
            own,
            ..
        } = self.train;
        let parts: ArrayVec<IoSlice<'_>, SEGMENTS> = self
            .train
            .frames
            .iter()
            .map(|(frame, payload)| {
                IoSlice::new(umem.bytes(frame).get(*payload..).unwrap_or_default())
            })
            .collect();
        let socket = match &self.own {
            Some((socket, _)) if own => socket.as_fd(),
            _ => self.socket.as_fd(),
        };
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

fn with_port(socket: UdpSocket) -> io::Result<(UdpSocket, u16)> {
    let port = socket.local_addr()?.port();
    Ok((socket, port))
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
