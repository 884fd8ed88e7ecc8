//! The slow path, the announcements and the link helpers against a real kernel. Needs root for
//! network namespaces.

mod net_lab;

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use evergate::dataplane::net::announce::{Announcer, FRAME, Yielded};
use evergate::dataplane::net::fib::Resolution;
use evergate::dataplane::net::frame::Mac;
use evergate::dataplane::net::groups::Groups;
use evergate::dataplane::net::links::{self, LinkError, LinkInfo};
use evergate::dataplane::net::slow::{Refused, SlowPath};
use net_lab::{BOUND, Lab, Namespace, ip, unresolved};
use rustix::io::retry_on_intr;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, eth, socket};

/// An inner UDP packet from a client, addressed by hand. The IPv4 checksum is left to the kernel.
fn inner(source: &str, destination: &str, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut udp = [
        7777u16.to_be_bytes(),
        port.to_be_bytes(),
        length.to_be_bytes(),
    ]
    .concat();
    udp.extend([0, 0]);
    udp.extend(payload);
    let mut packet = match (ip(source), ip(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = (20 + length).to_be_bytes();
            let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 63, 17, 0, 0];
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            use evergate::dataplane::net::checksum::transport_v6;
            let sum = transport_v6(source, destination, 17, &udp);
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
            let length = length.to_be_bytes();
            let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], 17, 63];
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet
        }
        _ => unreachable!("one family"),
    };
    packet.extend(udp);
    packet
}

/// Hears all IPv4 frames that arrive in this namespace.
fn ear() -> OwnedFd {
    let ear = socket(AddressFamily::PACKET, SocketType::RAW, Some(eth::IP)).unwrap();
    set_socket_timeout(&ear, Timeout::Recv, Some(BOUND)).unwrap();
    ear
}

#[test]
fn the_slow_path_resolves_and_stays_inside() {
    let lab = Lab::new();
    let watched = lab.watch();
    let mut slow = lab.host.inside(|| SlowPath::open("lan0").unwrap());
    let missing = lab
        .host
        .inside(|| SlowPath::open("lan7").unwrap_err().to_string());
    assert!(missing.contains("lan7"), "{missing}");
    for (client, target) in [("10.99.0.7", "10.1.0.2"), ("fd00:99::7", "fd00:1::2")] {
        lab.peer.ip(&format!("route add {client} dev lan0"));
        let socket = lab
            .peer
            .inside(move || UdpSocket::bind((ip(target), 0)).unwrap());
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        // The peer may have asked for us meanwhile, and be known by that.
        lab.host.ip("neigh flush dev lan0");
        watched.until_resolution(target, unresolved(target));
        let port = socket.local_addr().unwrap().port();
        slow.send(&inner(client, target, port, b"through the kernel"))
            .unwrap();
        let mut buffer = [0; 100];
        let (length, from) = loop {
            // A receive with a time limit is not begun again by the kernel (signal(7)).
            match socket.recv_from(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                done => break done.unwrap(),
            }
        };
        assert_eq!(&buffer[..length], b"through the kernel");
        assert_eq!((from.ip(), from.port()), (ip(client), 7777));
        watched.until(target, |found| {
            matches!(found.resolution, Resolution::Resolved(_))
        });
    }
    // Routed to the outside interface; the socket keeps it in, where any other would send it out.
    lab.host
        .ip("neigh replace 192.0.2.254 dev wan0 lladdr 02:00:00:00:aa:01 nud permanent");
    let ear = lab.peer.inside(ear);
    let _ = slow.send(&inner("10.99.0.7", "8.8.8.8", 9, b"secret"));
    lab.host.inside(|| {
        let any = UdpSocket::bind("0.0.0.0:0").unwrap();
        any.send_to(b"control", "8.8.8.8:9").unwrap();
    });
    let mut heard = [0; 2048];
    loop {
        let length = retry_on_intr(|| rustix::io::read(&ear, &mut heard)).unwrap();
        let frame = &heard[..length];
        assert!(
            !frame.ends_with(b"secret"),
            "plaintext left by the outside interface"
        );
        if frame.ends_with(b"control") {
            break;
        }
    }
    assert_eq!(
        slow.send(&inner("10.99.0.7", "10.1.0.2", 9, &[0; 1600])),
        Err(Refused::TooBig)
    );
    assert_eq!(slow.send(&[]), Err(Refused::NotIp));
    assert_eq!(slow.send(&[0x45; 10]), Err(Refused::NotIp));
    let counters = slow.counters();
    assert_eq!((counters.too_big, counters.not_ip), (1, 2));
}

#[test]
fn solicitation_groups_are_joined_and_left() {
    let lab = Lab::new();
    let index = lab.watch().index("lan0");
    let joined = || {
        let list = lab.host.ip("maddr show dev lan0");
        (
            list.contains("33:33:ff:00:07:07"),
            list.contains("33:33:ff:00:08:08"),
        )
    };
    let v6 = |text: &str| text.parse().unwrap();
    let mut groups = lab.host.inside(move || {
        let mut groups = Groups::new(index);
        // The first two share a group; more than one socket is needed for the rest.
        for address in ["fd00:1::707", "fd00:2::707", "fd00:1::808"] {
            groups.join(v6(address)).unwrap();
        }
        for n in 0..4000u16 {
            groups
                .join(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x99, n))
                .unwrap();
        }
        groups
    });
    assert_eq!(joined(), (true, true));
    groups.leave(v6("fd00:1::707"));
    groups.leave(v6("fd00:1::808"));
    groups.leave(v6("fd00:1::999"));
    assert_eq!(joined(), (true, false));
    groups.leave(v6("fd00:2::707"));
    assert_eq!(joined(), (false, false));
    drop(groups);
    // A process that another test is starting may hold the sockets until it runs its program.
    let start = Instant::now();
    while lab.host.ip("maddr show dev lan0").contains("33:33:ff:99") {
        assert!(start.elapsed() < BOUND, "the groups were not left");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn interfaces_by_name() {
    let lab = Lab::new();
    lab.host.ip("route add default via fd00:1::2 dev lan0");
    let (lan, wan, missing) = lab.host.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let handle = links::connect().unwrap();
            let lan = LinkInfo::by_name(&handle, "lan0").await.unwrap();
            let wan = LinkInfo::by_name(&handle, "wan0").await.unwrap();
            let missing = LinkInfo::by_name(&handle, "lan7").await.unwrap_err();
            // What a TUN needs, on the LAN interface here.
            let index = lan.interface.index;
            links::set_up(&handle, index, 1380).await.unwrap();
            for (address, length) in [("10.55.0.1", 32), ("fd00:55::1", 128)] {
                links::add_address(&handle, index, ip(address), length)
                    .await
                    .unwrap();
                links::add_address(&handle, index, ip(address), length)
                    .await
                    .unwrap();
            }
            for (prefix, length, source) in [
                ("10.66.0.0", 16, "10.55.0.1"),
                ("fd00:66::", 32, "fd00:55::1"),
            ] {
                links::add_route(&handle, index, ip(prefix), length, Some(ip(source)))
                    .await
                    .unwrap();
            }
            let again = links::add_route(&handle, index, ip("10.66.0.0"), 16, None).await;
            assert!(matches!(again, Err(LinkError::Set { .. })));
            (lan, wan, missing)
        })
    });
    assert_eq!(lan.v4, Some((ip("10.1.0.1"), 24)));
    assert_eq!(lan.v6, Some((ip("fd00:1::1"), 64)));
    assert_eq!(
        (lan.router_v4, lan.router_v6),
        (None, Some(ip("fd00:1::2")))
    );
    assert_eq!(wan.router_v4, Some(ip("192.0.2.254")));
    assert!(lan.interface.up && lan.mac().is_ok());
    let sentence = missing.to_string();
    assert!(
        sentence.contains("\"lan7\"") && sentence.contains("lan0, "),
        "{sentence}"
    );
    assert!(lab.host.ip("link show lan0").contains("mtu 1380"));
    let routes = lab.host.ip("route show 10.66.0.0/16");
    assert!(
        routes.contains("dev lan0") && routes.contains("src 10.55.0.1"),
        "{routes}"
    );
    assert!(
        lab.host
            .ip("-6 route show fd00:66::/32")
            .contains("dev lan0")
    );
}

#[test]
fn a_linux_host_believes_the_announcements() {
    const FIRST: Mac = [2, 0, 0, 0, 0, 0xa1];
    const SECOND: Mac = [2, 0, 0, 0, 0, 0xa2];
    let host = Namespace::new();
    host.sysctl("net/ipv6/conf/default/accept_dad", "0");
    // We are the wire of the host's interface, and the two gateways on it.
    let wire = host.inside(|| {
        let builder = tun_rs::DeviceBuilder::new()
            .name("lan0")
            .layer(tun_rs::Layer::L2);
        let device = builder.build_sync().unwrap();
        device.set_nonblocking(true).unwrap();
        device
    });
    host.ip("addr add 10.1.0.1/24 dev lan0");
    host.ip("addr add fd00:1::1/64 dev lan0 nodad");
    host.ip("link set lan0 up");
    for address in ["10.1.0.7", "fd00:1::7"] {
        let mut first = Announcer::new(FIRST, None, 8);
        let mut second = Announcer::new(SECOND, None, 8);
        let (mut frame, mut out) = ([0; 2048], [0; FRAME]);
        let entry = || host.ip(&format!("neigh show {address} dev lan0"));

        // The host asks, the active gateway answers.
        second.register(ip(address));
        first.activate(ip(address), Instant::now());
        host.inside(move || {
            let any = if ip(address).is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            UdpSocket::bind(any)
                .unwrap()
                .send_to(b"x", (ip(address), 9))
                .unwrap();
        });
        let start = Instant::now();
        while !entry().contains("02:00:00:00:00:a1") {
            assert!(
                start.elapsed() < BOUND,
                "the host did not take the answer: {}",
                entry()
            );
            while let Ok(length) = wire.recv(&mut frame) {
                assert_eq!(
                    second
                        .on_frame(&frame[..length], Instant::now(), &mut out)
                        .reply,
                    None
                );
                let heard = first.on_frame(&frame[..length], Instant::now(), &mut out);
                if let Some(reply) = heard.reply {
                    wire.send(&out[..reply]).unwrap();
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        while first.poll(Instant::now(), &mut out).is_some() {}

        // The client moves: the other one announces, the host follows, the first yields.
        thread::sleep(Duration::from_millis(20));
        second.activate(ip(address), Instant::now());
        let length = second.poll(Instant::now(), &mut out).unwrap();
        wire.send(&out[..length]).unwrap();
        let heard = first.on_frame(&out[..length], Instant::now(), &mut [0; FRAME]);
        assert_eq!(
            heard.yielded,
            Some(Yielded {
                address: ip(address),
                to: SECOND
            })
        );
        let start = Instant::now();
        while !entry().contains("02:00:00:00:00:a2") {
            assert!(
                start.elapsed() < BOUND,
                "the host did not follow: {}",
                entry()
            );
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!first.is_active(ip(address)) && second.is_active(ip(address)));
    }
}
