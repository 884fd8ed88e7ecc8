//! ARP and neighbour discovery on the LAN, where the kernel forwards and no XDP program hands them over: a
//! packet socket (packet(7)) that sees only these.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::dataplane::sockopt;
use evergate_common::wire::{
    ETHERTYPE_ARP, ETHERTYPE_IPV6, IPPROTO_ICMPV6, ND_ADVERTISEMENT, ND_SOLICITATION,
};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

/// The longest question or answer; what is longer is cut, and refused by its reader.
pub const LONGEST: usize = 512;

/// A packet socket on one interface.
#[derive(Debug)]
pub struct Segment(Socket);

impl Segment {
    /// Opens the socket on the interface with this index. Needs `CAP_NET_RAW`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn open(index: u32) -> io::Result<Self> {
        // Without a protocol nothing comes before the filter is there.
        let socket = Self::deaf()?;
        socket.attach_filter(
            &neighbours()
                .map(|[code, yes, no, k]| SockFilter::new(code as u16, yes as u8, no as u8, k)),
        )?;
        // What we send ourselves is no news.
        sockopt::set(
            &socket,
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            1i32,
        )?;
        socket.bind(&link(index, libc::ETH_P_ALL))?;
        Ok(Self(socket))
    }

    /// Opens a socket that only sends.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn open_to_send(index: u32) -> io::Result<Self> {
        let socket = Self::deaf()?;
        socket.bind(&link(index, 0))?;
        Ok(Self(socket))
    }

    fn deaf() -> io::Result<Socket> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Takes the next frame, if there is one; yields its length.
    ///
    /// # Errors
    /// `WouldBlock` if nothing waits; else the interface is down or gone.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.0, buffer)?)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.0, frame)?;
        Ok(())
    }

    /// Descriptor to poll for input.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// ARP, neighbour solicitations and neighbour advertisements, as a filter (Linux' `filter.txt`): code, jump
/// if true, jump if false, operand.
fn neighbours() -> [[u32; 4]; 10] {
    const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    const ABOVE: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
    const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;
    let step = |code, k, yes, no| [code, yes, no, k];
    [
        step(LOAD_HALF, 12, 0, 0),
        step(EQUAL, ETHERTYPE_ARP.into(), 6, 0),
        step(EQUAL, ETHERTYPE_IPV6.into(), 0, 6),
        step(LOAD_BYTE, 14 + 6, 0, 0),
        step(EQUAL, IPPROTO_ICMPV6.into(), 0, 4),
        step(LOAD_BYTE, 14 + 40, 0, 0),
        step(AT_LEAST, ND_SOLICITATION.into(), 0, 2),
        step(ABOVE, ND_ADVERTISEMENT.into(), 1, 0),
        step(ANSWER, LONGEST as u32, 0, 0),
        step(ANSWER, 0, 0, 0),
    ]
}

/// A protocol on one interface; 0 is none.
fn link(index: u32, protocol: i32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the platform's types of addresses.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (protocol as u16).to_be();
    address.sll_ifindex = index as i32;
    // SAFETY: the address just written, and its length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as u32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel does; 0 is "no".
    fn passes(frame: &[u8]) -> bool {
        let program = neighbours();
        let (mut at, mut value) = (0, 0);
        loop {
            let [code, then, otherwise, operand] = program[at];
            at += 1;
            let k = operand as usize;
            let jump = |yes: bool| if yes { then } else { otherwise } as usize;
            match code {
                0x28 => match frame.get(k..k + 2) {
                    Some(half) => value = u32::from(half[0]) << 8 | u32::from(half[1]),
                    None => return false,
                },
                0x30 => match frame.get(k) {
                    Some(byte) => value = (*byte).into(),
                    None => return false,
                },
                0x15 => at += jump(value == operand),
                0x35 => at += jump(value >= operand),
                0x25 => at += jump(value > operand),
                0x06 => return operand > 0,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn only_questions_and_answers_about_neighbours_pass() {
        let frame = |ether_type: u16, next: u8, kind: u8| {
            let mut frame = vec![0; 90];
            frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
            (frame[20], frame[54]) = (next, kind);
            frame
        };
        for (ether_type, next, kind, wanted) in [
            (0x0806, 0, 0, true),
            (0x86DD, 58, 135, true),
            (0x86DD, 58, 136, true),
            (0x86DD, 58, 134, false),
            (0x86DD, 58, 137, false),
            (0x86DD, 58, 128, false),
            (0x86DD, 17, 135, false),
            (0x0800, 58, 135, false),
            (0x8100, 58, 135, false),
        ] {
            assert_eq!(
                passes(&frame(ether_type, next, kind)),
                wanted,
                "{ether_type:#x} {next} {kind}"
            );
        }
        assert!(!passes(&frame(0x86DD, 58, 135)[..54]), "cut short");
    }
}
