//! The echo service of many clients, which knows their requests and finds those that come twice.

use super::until_stdin_ends;
use anyhow::{Context, Result};
use evergate_common::sample::Note;
use evergate_common::wire::{ETHERNET_LEN, IPV4_LEN, UDP_LEN};
use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What a note expects in front of the payload.
const FRONT: usize = ETHERNET_LEN + IPV4_LEN + UDP_LEN;
/// Requests that may wait in the kernel, in bytes.
const BACKLOG: usize = 32 << 20;

/// Returns every packet to its sender until stdin ends. Stdout: `ready`, then how many came and how many of
/// them twice.
pub(super) fn echo(listen: SocketAddr) -> Result<()> {
    let stop = until_stdin_ends();
    let socket = UdpSocket::bind(listen).with_context(|| format!("can not bind {listen}"))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &BACKLOG)?;
    println!("ready");
    let mut buffer = [0u8; 2048];
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer[FRONT..]) {
            let whole = &buffer[..FRONT + length];
            if let Some(note) = Note::of(whole) {
                seen.note(note);
            }
            let _ = socket.send_to(&whole[FRONT..], from);
        }
    }
    println!("{} {}", seen.requests, seen.twice);
    Ok(())
}

#[derive(Default)]
struct Seen {
    /// A bit for each request, by run and client.
    of: HashMap<(u32, u16), Vec<u64>>,
    requests: u64,
    twice: u64,
}

impl Seen {
    fn note(&mut self, note: Note) {
        let bits = self.of.entry((note.run, note.tunnel)).or_default();
        let (Ok(at), bit) = (
            usize::try_from(note.number / 64),
            1_u64 << (note.number % 64),
        ) else {
            return;
        };
        if bits.len() <= at {
            bits.resize(at + 1, 0);
        }
        self.requests += 1;
        self.twice += u64::from(bits[at] & bit != 0);
        bits[at] |= bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_comes_twice_is_found() {
        let mut seen = Seen::default();
        let note = |tunnel, number| Note {
            run: 1,
            tunnel,
            flow: 0,
            number,
            sent_ns: 0,
        };
        for (tunnel, number) in [(0, 0), (1, 0), (0, 1), (0, 64), (0, 1), (1, 0)] {
            seen.note(note(tunnel, number));
        }
        assert_eq!((seen.requests, seen.twice), (6, 2));
    }
}
