//! A LAN on which an announcer hears what stations say by ARP and neighbour discovery.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use evergate::dataplane::net::announce::{Activation, Announcer, FRAME, REPEATS};
use evergate::dataplane::net::arp::{self, Arp, Operation};
use evergate::dataplane::net::nd::{self, Nd};

use super::neighbour_frame::{OURS, any_frame, mend};
use super::script::Script;

const CAPACITY: usize = 6;

/// Eight addresses of each family: more than there is room for.
fn address(byte: u8) -> IpAddr {
    match byte & 8 {
        0 => Ipv4Addr::new(10, 0, 0, byte & 7).into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(byte & 7)).into(),
    }
}

/// A station with a lower MAC than ours, ours, and one with a higher.
fn station(byte: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, 1 + byte % 3]
}

/// What is said on the LAN: a frame of any bytes, or one that is well formed.
fn said(script: &mut Script<'_>) -> Vec<u8> {
    let kind = script.byte();
    let mut frame = vec![0; FRAME];
    let length = match (kind % 4, address(script.byte())) {
        (0, _) => {
            frame = script.part().to_vec();
            if kind & 0x80 != 0 {
                mend(&mut frame);
            }
            return frame;
        }
        (1, IpAddr::V4(who)) => {
            let form = if kind & 4 == 0 {
                Operation::Request
            } else {
                Operation::Reply
            };
            arp::announcement(form, who, station(kind >> 3), None, &mut frame)
        }
        (_, IpAddr::V4(who)) => {
            // Somebody asks for an address.
            let mac = station(kind >> 3);
            arp::announcement(Operation::Request, who, mac, None, &mut frame).inspect(|_| {
                frame[28..32].copy_from_slice(&[10, 0, 0, script.byte() & 15]);
            })
        }
        (_, IpAddr::V6(who)) => nd::announcement(who, station(kind >> 3), None, &mut frame),
    };
    frame.truncate(length.expect("there is room"));
    // Something is changed after all.
    let at = usize::from(script.byte());
    if let Some(byte) = frame.get_mut(at) {
        *byte ^= script.byte();
        mend(&mut frame);
    }
    frame
}

pub fn neighbours(data: &[u8]) {
    let mut script = Script::new(data);
    let mut announcer = Announcer::new(OURS, None, CAPACITY);
    let mut active = BTreeSet::new();
    let mut now = Instant::now();
    let mut out = [0; FRAME];
    while !script.over() {
        let what = script.byte();
        let one = address(what >> 4);
        match what % 8 {
            0 => match announcer.activate(one, now) {
                Activation::New => assert!(active.insert(one), "active twice"),
                Activation::Already => assert!(active.contains(&one)),
                Activation::Full => assert!(!active.contains(&one)),
            },
            1 => {
                announcer.deactivate(one);
                active.remove(&one);
            }
            2 => {
                announcer.forget(one);
                active.remove(&one);
            }
            3 => announcer.overslept(now),
            4 => now += Duration::from_micros(500 << (what >> 4)),
            _ => {
                let frame = said(&mut script);
                let heard = announcer.on_frame(&frame, now, &mut out);
                if let Some(length) = heard.reply {
                    let asked = match (Arp::parse(&frame), Nd::parse(&frame)) {
                        (Ok(arp), _) => arp.target.into(),
                        (_, Ok(nd)) => nd.target.into(),
                        _ => panic!("an answer to nothing"),
                    };
                    assert!(active.contains(&asked), "an answer for another's address");
                    any_frame(&out[..length]);
                }
                if let Some(yielded) = heard.yielded {
                    assert!(active.remove(&yielded.address), "it was not ours");
                    assert_ne!(yielded.to, OURS);
                }
            }
        }
        let mut frames = 0;
        while let Some(length) = announcer.poll(now, &mut out) {
            let (address, mac): (IpAddr, _) = match Arp::parse(&out[..length]) {
                Ok(arp) => (arp.sender.into(), arp.sender_mac),
                Err(_) => {
                    let nd = Nd::parse(&out[..length]).expect("an announcement is right");
                    (nd.target.into(), nd.ethernet.source)
                }
            };
            assert!(active.contains(&address), "another's address is announced");
            assert_eq!(mac, OURS);
            frames += 1;
            // Each in both forms, and those of its repeats that are not too late yet.
            let most = 2 * (1 + REPEATS.len()) * CAPACITY;
            assert!(frames <= most, "it never ends");
        }
        assert_eq!(announcer.active().collect::<BTreeSet<_>>(), active);
        assert!(active.len() <= CAPACITY);
        let next = announcer.next_deadline();
        assert!(next.is_none_or(|at| at > now), "what is due was not sent");
    }
}
