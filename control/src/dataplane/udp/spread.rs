//! Port 4500 for several workers: a socket each, among which the kernel chooses by the SPI of what comes
//! (socket(7), `SO_ATTACH_REUSEPORT_CBPF`; needs no privilege).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use evergate_common::wire::PORT_NAT_T;
use socket2::{Domain, SockAddr, SockFilter, SockRef, Socket, Type};

use super::port::prepare;
use crate::dataplane::sockopt;
use crate::sadb::PLACES;

/// Binds port 4500 of `address` for ESP in UDP and IKE, by so many sockets, at least one.
///
/// # Errors
/// What the system refuses.
pub fn bind(address: IpAddr, sockets: usize) -> io::Result<Vec<UdpSocket>> {
    bind_to((address, PORT_NAT_T).into(), sockets)
}

/// Binds a port of the kernel's choice for ESP in UDP of one worker.
///
/// # Errors
/// What the system refuses.
pub(in crate::dataplane) fn bind_own(address: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, 0))?;
    prepare(&socket)?;
    Ok(socket)
}

pub(super) fn bind_to(address: SocketAddr, sockets: usize) -> io::Result<Vec<UdpSocket>> {
    // The first one alone: a port that another process has, even another evergate, must not be shared.
    let first = UdpSocket::bind(address)?;
    let bound = first.local_addr()?;
    let mut all = vec![first];
    if sockets > 1 {
        SockRef::from(&all[0]).set_reuse_port(true)?;
    }
    for _ in 1..sockets {
        let next = Socket::new(Domain::for_address(bound), Type::DGRAM.cloexec(), None)?;
        next.set_reuse_port(true)?;
        next.bind(&SockAddr::from(bound))?;
        all.push(next.into());
    }
    all.iter().try_for_each(prepare)?;
    Ok(all)
}

/// Has the kernel give each of the sockets, which [`bind`] has made in this order, what is for its worker.
/// Everything but ESP goes to the first one: IKE, heartbeats, keep-alives.
///
/// # Errors
/// What the system refuses.
pub(in crate::dataplane) fn spread(sockets: &[UdpSocket]) -> io::Result<()> {
    let (Some(first), Ok(count)) = (sockets.first(), u32::try_from(sockets.len())) else {
        return Ok(());
    };
    if count < 2 {
        return Ok(());
    }
    let program = worker_of(count);
    let mut program =
        program.map(|[code, yes, no, k]| SockFilter::new(code as u16, yes as u8, no as u8, k));
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr().cast(),
    };
    let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF);
    sockopt::set(first, level, option, program)
}

/// The number of the socket that a datagram is for, as a filter (Linux' `filter.txt`): code, jump if true,
/// jump if false, operand. The same as [`spi_worker`](crate::sadb::spi_worker). It begins at the payload; a load
/// beyond the end yields 0.
fn worker_of(workers: u32) -> [[u32; 4]; 6] {
    const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
    const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;
    const ANSWER_SUM: u32 = libc::BPF_RET | libc::BPF_A;
    // The marker of IKE is zero, and so the first one's anyway.
    let heartbeat = evergate_common::wire::SPI_HEARTBEAT;
    let step = |code, k, yes, no| [code, yes, no, k];
    [
        step(LOAD_WORD, 0, 0, 0),
        step(EQUAL, heartbeat, 3, 0),
        step(AND, PLACES - 1, 0, 0),
        step(MODULO, workers, 0, 0),
        step(ANSWER_SUM, 0, 0, 0),
        step(ANSWER, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sadb::spi_worker;
    use std::time::Duration;

    /// Which of the sockets gets a datagram.
    fn receiver(sockets: &[UdpSocket], from: &UdpSocket, datagram: &[u8]) -> usize {
        from.send_to(datagram, sockets[0].local_addr().unwrap())
            .unwrap();
        let mut room = [0; 64];
        for _ in 0..500 {
            let mut sockets = sockets.iter();
            if let Some(at) = sockets.position(|socket| socket.recv_from(&mut room).is_ok()) {
                return at;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("nobody got {datagram:?}")
    }

    #[test]
    fn each_worker_gets_its_spis_and_the_first_one_all_else() {
        for (address, workers) in [("127.0.0.1:0", 3), ("[::1]:0", 2), ("127.0.0.1:0", 1)] {
            let sockets = bind_to(address.parse().unwrap(), workers).unwrap();
            spread(&sockets).unwrap();
            let sender = UdpSocket::bind(address).unwrap();
            for spi in [
                0x100,
                0x101,
                0x102,
                0x0FFF_FFFF,
                0x1234_5678,
                0xDEAD_BEEF,
                0xFFFF_FFFE,
            ] {
                let esp = [&u32::to_be_bytes(spi)[..], &[7; 40]].concat();
                let (got, owner) = (receiver(&sockets, &sender, &esp), spi_worker(spi, workers));
                assert_eq!(got, owner, "{spi:#x} of {workers}");
            }
            let ike = [&[0; 4][..], &[9; 28]].concat();
            let heartbeat = [0xFF; 40];
            for other in [&ike[..], &heartbeat, &[0xFF], &[]] {
                assert_eq!(receiver(&sockets, &sender, other), 0, "{other:?}");
            }
        }
    }

    #[test]
    fn a_port_that_is_taken_is_refused_however_many_share_it() {
        let sockets = bind_to("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let address = sockets[0].local_addr().unwrap();
        for count in [1, 2] {
            let error = bind_to(address, count).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }
}
