//! Many datagrams in one system call: recvmmsg(2) and sendmsg(2) with segmentation offload (udp(7),
//! `UDP_SEGMENT` and `UDP_GRO`). No crate that does both takes the parts of a datagram from where they lie
//! and keeps its type of service.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use evergate_common::packet::Bytes as _;
use socket2::{SockAddr, SockAddrStorage};

/// Messages that one call receives.
pub(super) const MESSAGES: usize = 8;

/// Room for one message: as many bytes as an IP packet can have.
const ROOM: usize = 65_536;

/// Room for control messages.
const CONTROL: usize = 64;

/// Bytes of a `cmsghdr` and the alignment of what follows (cmsg(3)).
const HEADER: usize = size_of::<libc::cmsghdr>();
const ALIGN: usize = size_of::<usize>();

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// Buffers that messages are received into.
pub(in crate::dataplane) struct Inbox {
    data: Box<[u8]>,
    names: Box<[SockAddrStorage; MESSAGES]>,
    controls: Box<[Control; MESSAGES]>,
    lengths: [(usize, u32, usize); MESSAGES],
}

/// One message that was received: one datagram, or several of one sender that the kernel has joined.
pub(in crate::dataplane) struct Message<'a> {
    pub(in crate::dataplane) from: SocketAddr,
    /// Type of service or traffic class.
    pub(in crate::dataplane) class: u8,
    /// Length of each datagram but the last one.
    pub(in crate::dataplane) segment: usize,
    pub(in crate::dataplane) data: &'a [u8],
}

impl Inbox {
    pub(in crate::dataplane) fn new() -> Self {
        Self {
            data: vec![0; ROOM * MESSAGES].into_boxed_slice(),
            names: Box::new(std::array::from_fn(|_| SockAddrStorage::zeroed())),
            controls: Box::new([Control([0; CONTROL]); MESSAGES]),
            lengths: [(0, 0, 0); MESSAGES],
        }
    }

    /// Receives without waiting. Yields how many messages there are.
    ///
    /// # Errors
    /// What the kernel says; `WouldBlock` if nothing is there.
    pub(in crate::dataplane) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut parts: [libc::iovec; MESSAGES] = std::array::from_fn(|at| libc::iovec {
            iov_base: self.data[at * ROOM..(at + 1) * ROOM].as_mut_ptr().cast(),
            iov_len: ROOM,
        });
        let mut headers: [libc::mmsghdr; MESSAGES] = std::array::from_fn(|at| {
            // SAFETY: an `mmsghdr` is plain data, for which zeroes are valid.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_name = (&raw mut self.names[at]).cast();
            header.msg_hdr.msg_namelen = self.names[at].size_of();
            header.msg_hdr.msg_iov = &raw mut parts[at];
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = self.controls[at].0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL;
            header
        });
        // SAFETY: `headers` has `MESSAGES` entries; each points to a name, one part and a control buffer of
        // the lengths given, which are distinct, are ours alone by `&mut self`, and outlive the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                MESSAGES as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (lengths, header) in self.lengths.iter_mut().zip(&headers).take(count) {
            let control = header.msg_hdr.msg_controllen;
            *lengths = (header.msg_len as usize, header.msg_hdr.msg_namelen, control);
        }
        Ok(count)
    }

    /// A message of the last call; `None` if it is not whole, or its sender has no IP address.
    pub(in crate::dataplane) fn message(&self, at: usize) -> Option<Message<'_>> {
        let (length, name, control) = *self.lengths.get(at)?;
        let from = address(self.names.get(at)?, name)?;
        let data = self.data.get(at * ROOM..at * ROOM + length)?;
        let control = self.controls.get(at)?.0.get(..control)?;
        let mut message = Message {
            from,
            class: 0,
            segment: length.max(1),
            data,
        };
        read_control(control, &mut message);
        Some(message)
    }
}

/// The IP address and port that the kernel has written; it has written `length` bytes.
fn address(storage: &SockAddrStorage, length: u32) -> Option<SocketAddr> {
    let mut copy = SockAddrStorage::zeroed();
    // SAFETY: both are storage for any address of the platform, plain data of one size.
    unsafe { std::ptr::copy_nonoverlapping(storage, &raw mut copy, 1) };
    // SAFETY: the address that the kernel has written, or zeroes, and its length.
    let address = unsafe { SockAddr::new(copy, length.min(storage.size_of())) };
    address.as_socket()
}

/// Goes through control messages (cmsg(3)): length, level, type, and the data, each aligned.
fn read_control(mut bytes: &[u8], message: &mut Message<'_>) {
    while let (Some(length), Some(level), Some(kind)) = (
        bytes.read::<ALIGN>(0).map(usize::from_ne_bytes),
        bytes.read::<4>(ALIGN).map(i32::from_ne_bytes),
        bytes.read::<4>(ALIGN + 4).map(i32::from_ne_bytes),
    ) {
        let number = bytes.read::<4>(HEADER).map(i32::from_ne_bytes);
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let segment = number.and_then(|n| usize::try_from(n).ok());
                message.segment = segment.filter(|s| *s > 0).unwrap_or(message.segment);
            }
            (libc::SOL_IP, libc::IP_TOS) => {
                message.class = bytes.get(HEADER).copied().unwrap_or_default();
            }
            (libc::SOL_IPV6, libc::IPV6_TCLASS) => {
                message.class = number.unwrap_or_default() as u8;
            }
            _ => {}
        }
        let next = length.max(HEADER).next_multiple_of(ALIGN);
        let Some(rest) = bytes.get(next..) else {
            return;
        };
        bytes = rest;
    }
}

/// Sends what the parts make up to one address: one datagram, or with `segment` several of that length, of
/// which the last may be shorter. Never waits.
///
/// # Errors
/// What the kernel says; nothing is sent then.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    to: SocketAddr,
    class: u8,
    segment: Option<u16>,
    parts: &[IoSlice<'_>],
) -> io::Result<()> {
    let mut control = Control([0; CONTROL]);
    let mut used = 0;
    if let Some(segment) = segment {
        let data = segment.to_ne_bytes();
        used += put_control(&mut control, used, libc::SOL_UDP, libc::UDP_SEGMENT, &data);
    }
    if class != 0 {
        let data = i32::from(class).to_ne_bytes();
        let (level, kind) = match to.is_ipv4() {
            true => (libc::SOL_IP, libc::IP_TOS),
            false => (libc::SOL_IPV6, libc::IPV6_TCLASS),
        };
        used += put_control(&mut control, used, level, kind, &data);
    }
    let to = SockAddr::from(to);
    // SAFETY: an `msghdr` is plain data, for which zeroes are valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = to.as_ptr().cast_mut().cast();
    header.msg_namelen = to.len();
    // An `IoSlice` is an `iovec` in memory, as its documentation promises.
    header.msg_iov = parts.as_ptr().cast_mut().cast();
    header.msg_iovlen = parts.len();
    if used > 0 {
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = used;
    }
    // SAFETY: name, parts and control have the lengths given and outlive the call, which only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
    match sent {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes a control message of up to 8 bytes of data at `at`; yields the room that it takes.
fn put_control(control: &mut Control, at: usize, level: i32, kind: i32, data: &[u8]) -> usize {
    let length = HEADER + data.len();
    let room = length.next_multiple_of(ALIGN);
    let bytes = &mut control.0[at..at + room];
    bytes[..ALIGN].copy_from_slice(&length.to_ne_bytes());
    bytes[ALIGN..ALIGN + 4].copy_from_slice(&level.to_ne_bytes());
    bytes[ALIGN + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
    bytes[HEADER..length].copy_from_slice(data);
    room
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    fn pair(address: &str) -> (UdpSocket, UdpSocket) {
        let bind = || UdpSocket::bind(address).unwrap();
        let (a, b) = (bind(), bind());
        for socket in [&a, &b] {
            crate::dataplane::udp::port::prepare(socket).unwrap();
        }
        (a, b)
    }

    fn received(socket: &UdpSocket, inbox: &mut Inbox) -> usize {
        for _ in 0..500 {
            match inbox.receive(socket.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                result => return result.unwrap(),
            }
        }
        panic!("nothing came")
    }

    #[test]
    fn many_datagrams_of_one_size_cross_together() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (a, b) = pair(address);
            let bytes: Vec<u8> = (0..2500).map(|n| n as u8).collect();
            let parts = [IoSlice::new(&bytes[..1500]), IoSlice::new(&bytes[1500..])];
            let to = b.local_addr().unwrap();
            send(a.as_fd(), to, 0xb9, Some(1000), &parts).unwrap();
            let mut inbox = Inbox::new();
            let (mut whole, mut lengths) = (Vec::new(), Vec::new());
            while whole.len() < bytes.len() {
                for at in 0..received(&b, &mut inbox) {
                    let message = inbox.message(at).unwrap();
                    assert_eq!(message.from, a.local_addr().unwrap());
                    assert_eq!(message.class, 0xb9, "{address}");
                    lengths.extend(message.data.chunks(message.segment).map(<[u8]>::len));
                    whole.extend_from_slice(message.data);
                }
            }
            assert_eq!(whole, bytes);
            assert_eq!(lengths, [1000, 1000, 500]);
        }
    }

    #[test]
    fn an_empty_datagram_is_a_message_without_bytes() {
        let (a, b) = pair("127.0.0.1:0");
        send(a.as_fd(), b.local_addr().unwrap(), 0, None, &[]).unwrap();
        let mut inbox = Inbox::new();
        assert_eq!(received(&b, &mut inbox), 1);
        let message = inbox.message(0).unwrap();
        assert!(message.data.is_empty() && message.segment > 0);
        assert!(inbox.message(MESSAGES).is_none());
    }
}
