//! ESP that came in fragments, put together by the kernel and heard by raw sockets. What is no fragment the
//! XDP program takes before the kernel sees it.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};

use evergate_common::packet::Bytes as _;
use evergate_common::wire::{
    ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPPROTO_ESP, IPV4_LEN, IPV6_LEN,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::dataplane::sockopt;

/// A raw socket for ESP.
#[derive(Debug)]
pub struct WholeEsp {
    socket: Socket,
}

impl WholeEsp {
    /// Opens the socket on an interface. Needs `CAP_NET_RAW`. `None` on a host without the IP version.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn open(v6: bool, interface: &str) -> io::Result<Option<Self>> {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let protocol = Protocol::from(i32::from(IPPROTO_ESP));
        let socket = match Socket::new(domain, Type::RAW, Some(protocol)) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
            socket => socket?,
        };
        socket.set_nonblocking(true)?;
        // `INTERFACE`: the kernel must not believe what strangers say about ESP of this socket; it sends none.
        match v6 {
            false => {
                let (option, value) = (libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_INTERFACE);
                sockopt::set(&socket, libc::SOL_IP, option, value)?;
                sockopt::set(&socket, libc::SOL_IP, libc::IP_RECVTOS, 1i32)?;
            }
            true => {
                let (option, value) = (libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_INTERFACE);
                sockopt::set(&socket, libc::SOL_IPV6, option, value)?;
                sockopt::set(&socket, libc::SOL_IPV6, libc::IPV6_RECVTCLASS, 1i32)?;
            }
        }
        socket.bind_device(Some(interface.as_bytes()))?;
        Ok(Some(Self { socket }))
    }

    /// Descriptor to poll for input, and to receive from.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The frame that a NIC would have brought, of what a raw socket has heard from `from`: an IPv4 packet with
/// its header, or what is behind that of an IPv6 packet. `None` if it is no ESP.
#[must_use]
pub fn frame(from: IpAddr, class: u8, heard: &[u8]) -> Option<Vec<u8>> {
    let mut frame = Vec::with_capacity(ETHERNET_LEN + IPV6_LEN + heard.len());
    // A link address that is nobody's: unicast, and no station's own.
    frame.extend([0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0]);
    match from.to_canonical() {
        IpAddr::V4(_) => {
            let [first] = heard.read::<1>(0)?;
            let [protocol] = heard.read::<1>(9)?;
            if first >> 4 != 4 || heard.len() < IPV4_LEN || protocol != IPPROTO_ESP {
                return None;
            }
            frame.extend(ETHERTYPE_IPV4.to_be_bytes());
        }
        IpAddr::V6(from) => {
            frame.extend(ETHERTYPE_IPV6.to_be_bytes());
            let length = u16::try_from(heard.len()).ok()?;
            frame.extend([0x60 | class >> 4, class << 4, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([IPPROTO_ESP, 64]);
            frame.extend(from.octets());
            // To one of our addresses; which one, nobody asks.
            frame.extend(Ipv6Addr::UNSPECIFIED.octets());
        }
    }
    frame.extend(heard);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evergate_common::packet::{Class, classify, parse};
    use proptest::prelude::*;

    #[test]
    fn what_was_heard_is_esp_again() {
        let esp = [&0xC0FF_EE01u32.to_be_bytes()[..], &[0; 60]].concat();
        let v6: IpAddr = "2001:db8::7".parse().unwrap();
        let v4: IpAddr = "192.0.2.7".parse().unwrap();
        let mut packet = vec![0; 20];
        let total = (20 + esp.len()) as u16;
        (packet[0], packet[1], packet[8], packet[9]) = (0x45, 3, 64, 50);
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[12..16].copy_from_slice(&[192, 0, 2, 7]);
        packet.extend(&esp);
        for (from, heard) in [(v4, &packet), (v6, &esp)] {
            let frame = frame(from, 3, heard).unwrap();
            let parsed = parse(&frame[..]).unwrap();
            let ip = parsed.ip.unwrap();
            assert_eq!(ip.traffic_class, 3);
            assert_eq!(Ipv6Addr::from(ip.source).to_canonical(), from);
            let Ok(Class::Esp(found)) = classify(&parsed, &frame[..]) else {
                panic!("no ESP");
            };
            assert_eq!(frame[found.offset..], esp[..]);
        }
        packet[9] = 17;
        assert_eq!(frame(v4, 0, &packet), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(v6: bool, bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let from: IpAddr = if v6 { "2001:db8::7" } else { "192.0.2.7" }.parse().unwrap();
            if let Some(frame) = frame(from, 0, &bytes) {
                prop_assert!(frame.ends_with(&bytes));
            }
        }
    }
}
