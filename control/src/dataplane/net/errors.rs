//! ICMP errors about packets that were too long, heard by a raw socket: the kernel does not know who has sent
//! ESP past it, and forgets them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::quote::{self, TooLong};

/// As much as such a message may have (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4 (c)).
const LONGEST: usize = 1500;

/// A raw socket that hears nothing else.
#[derive(Debug)]
pub struct Errors {
    socket: Socket,
    v6: bool,
}

impl Errors {
    /// Opens the socket on an interface. Needs `CAP_NET_RAW`. `None` on a host without the IP version.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn open(v6: bool, interface: &str) -> io::Result<Option<Self>> {
        let (domain, protocol) = match v6 {
            false => (Domain::IPV4, Protocol::ICMPV4),
            true => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = match Socket::new(domain, Type::RAW, Some(protocol)) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
            socket => socket?,
        };
        socket.set_nonblocking(true)?;
        let filter = |program: &[[u32; 4]]| {
            let step = |&[code, yes, no, k]: &[u32; 4]| {
                SockFilter::new(code as u16, yes as u8, no as u8, k)
            };
            program.iter().map(step).collect::<Vec<_>>()
        };
        match v6 {
            false => socket.attach_filter(&filter(&FILTER_V4))?,
            true => socket.attach_filter(&filter(&FILTER_V6))?,
        }
        socket.bind_device(Some(interface.as_bytes()))?;
        Ok(Some(Self { socket, v6 }))
    }

    /// Takes the next message; `Ok(None)` if it says nothing that is of use.
    ///
    /// # Errors
    /// `WouldBlock` if nothing waits.
    pub fn receive(&self) -> io::Result<Option<TooLong>> {
        let mut buffer = [0; LONGEST];
        let length = rustix::io::read(&self.socket, &mut buffer)?;
        let message = buffer.get(..length).unwrap_or_default();
        Ok(match self.v6 {
            false => quote::read_v4(message),
            true => quote::read_v6(message),
        })
    }

    /// Descriptor to poll for input.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_BEHIND: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
const HEADER_LENGTH: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;

/// Type and code behind the IP header, as a filter (Linux' `filter.txt`): code, jump if true, jump if false,
/// operand.
const FILTER_V4: [[u32; 4]; 5] = [
    [HEADER_LENGTH, 0, 0, 0],
    [LOAD_BEHIND, 0, 0, 0],
    [
        EQUAL,
        0,
        1,
        (quote::UNREACHABLE as u32) << 8 | quote::FRAGMENTATION_NEEDED as u32,
    ],
    [ANSWER, 0, 0, LONGEST as u32],
    [ANSWER, 0, 0, 0],
];

/// The type of an ICMPv6 message, which a raw socket gets without its IP header.
const FILTER_V6: [[u32; 4]; 4] = [
    [LOAD_BYTE, 0, 0, 0],
    [EQUAL, 0, 1, quote::PACKET_TOO_BIG as u32],
    [ANSWER, 0, 0, LONGEST as u32],
    [ANSWER, 0, 0, 0],
];
