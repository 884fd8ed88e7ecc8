//! A flood of first messages of IKE, each from an address of its own: what a botnet, or one machine
//! that forges addresses, sends to a responder.

use super::{inject, now_ns, until_stdin_ends};
use anyhow::{Context, Result};
use rand::Rng;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How many are sent between two looks at the clock.
const BATCH: u64 = 16;

/// Sends `rate` first messages a second from random addresses of 198.18.0.0/15 (RFC 2544) to `to`,
/// port 500, until stdin ends. Stdout: how many were sent.
pub(super) fn knock(to: Ipv4Addr, rate: u64) -> Result<()> {
    let stop = until_stdin_ends();
    // IPPROTO_RAW: the packet comes with its IP header.
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))
        .context("raw sockets need root")?;
    let address = SockAddr::from(SocketAddr::from((to, 0)));
    let mut rng = rand::rng();
    let (start, mut sent) = (now_ns(), 0u64);
    println!("ready");
    while !stop.load(Ordering::Relaxed) {
        let due = u128::from(now_ns() - start) * u128::from(rate) / 1_000_000_000;
        if u128::from(sent) >= due {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        for _ in 0..BATCH {
            let from = Ipv4Addr::from(0xC612_0000 | rng.next_u32() & 0x1_FFFF);
            let datagram = datagram(&first_message(&mut rng));
            // A full queue only makes the flood smaller.
            let _ = socket.send_to(&inject::packet(from, to, 17, &datagram)?, &address);
        }
        sent += BATCH;
    }
    println!("{sent}");
    Ok(())
}

/// UDP from port 500 to port 500, without checksum.
fn datagram(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let mut datagram = [500u16, 500, length, 0].map(u16::to_be_bytes).concat();
    datagram.extend(payload);
    datagram
}

/// IKE_SA_INIT (RFC 7296 section 1.2) as a node would take it: AES-GCM-16 with 256 bits,
/// HMAC-SHA2-256, x25519.
pub(crate) fn first_message(rng: &mut impl Rng) -> Vec<u8> {
    let transform = |more: u8, kind: u8, id: u16, attribute: &[u8]| {
        let length = 8 + attribute.len() as u8;
        let [i0, i1] = id.to_be_bytes();
        [&[more, 0, 0, length, kind, 0, i0, i1], attribute].concat()
    };
    let transforms = [
        transform(3, 1, 20, &[0x80, 14, 1, 0]),
        transform(3, 2, 5, &[]),
        transform(0, 4, 31, &[]),
    ]
    .concat();
    let proposal = [
        &[0, 0, 0, 8 + transforms.len() as u8, 1, 1, 0, 3],
        &transforms[..],
    ]
    .concat();
    let (mut spi, mut public, mut nonce) = ([0; 8], [0; 32], [0; 32]);
    rng.fill_bytes(&mut spi);
    rng.fill_bytes(&mut public);
    rng.fill_bytes(&mut nonce);
    let payload = |next: u8, body: &[u8]| {
        let [l0, l1] = (4 + body.len() as u16).to_be_bytes();
        [&[next, 0, l0, l1], body].concat()
    };
    let body = [
        payload(34, &proposal),
        payload(40, &[&[0, 31, 0, 0], &public[..]].concat()),
        payload(0, &nonce),
    ]
    .concat();
    let mut message = [&spi[..], &[0; 8], &[33, 0x20, 34, 0x08, 0, 0, 0, 0]].concat();
    message.extend((28 + body.len() as u32).to_be_bytes());
    message.extend(body);
    message
}
