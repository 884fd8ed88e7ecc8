//! A generator that speaks WireGuard: it has a handshake with a gateway and sends it test packets that it
//! seals itself, so that the gateway alone is what is measured.

use super::{now_ns, sleep_until};
use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use clap::Args;
use evergate_common::sample::{MOST, Note, Sizes, Turns};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

const BATCH: u64 = 32;
/// What a packet becomes at most: header (16) and tag (16) are added.
const LARGEST: usize = MOST + 32;
/// As `evergate bench send` has them.
const LEAST_SLEEP_NS: u64 = 40_000;
const FORGET_NS: u64 = 5_000_000;
/// How long an answer to a handshake may take, and how often it is begun.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: usize = 5;

/// What is sent to whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct Words {
    /// The gateway's outside address and port
    gateway: SocketAddr,
    #[arg(long)]
    from: Ipv4Addr,
    #[arg(long)]
    to: Ipv4Addr,
    #[arg(long)]
    size: Sizes,
    #[arg(long)]
    flows: u16,
    #[arg(long)]
    rate: Option<u64>,
    #[arg(long)]
    seconds: f64,
    #[arg(long)]
    run: u32,
}

/// Sends, and says how many as `evergate bench send --json` does. Reads a private key and the gateway's public
/// key from stdin, a line each, as `wg` writes them.
pub(super) fn send(words: &Words) -> Result<()> {
    let turns = Turns::new(1, words.flows, words.size).context("expected a flow")?;
    let (private, public) = (key()?, key()?);
    let (private, public) = (StaticSecret::from(private), PublicKey::from(public));
    let mut session = Tunn::new(
        private,
        public,
        None,
        None,
        rand::random::<u32>() >> 8,
        None,
    );
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(words.gateway)?;
    shake_hands(&mut session, &socket)?;
    // Sleeps end when they should, not up to 50 µs later; without it the sender is only less even.
    let _ = nix::sys::prctl::set_timerslack(1);

    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH as usize, None);
    let addresses: [Option<SockaddrStorage>; BATCH as usize] = [None; BATCH as usize];
    let mut packet = [0; MOST];
    let mut messages = vec![vec![0; LARGEST]; BATCH as usize];
    let start = now_ns();
    let end = start + (words.seconds * 1e9) as u64;
    let (mut pace_start, mut paced, mut sent, mut number) = (start, 0_u64, 0_u64, 0_u64);
    loop {
        let now = now_ns();
        if now >= end {
            break;
        }
        let wanted = match words.rate {
            None => BATCH,
            Some(rate) => {
                let due = (u128::from(now - pace_start) * u128::from(rate) / 1_000_000_000) as u64;
                let late = due.saturating_sub(paced);
                // One packet is never too late.
                let bound = 1 + u128::from(rate) * u128::from(FORGET_NS) / 1_000_000_000;
                if u128::from(late) > bound {
                    (pace_start, paced) = (now, 0);
                    continue;
                }
                if late == 0 {
                    let next = u128::from(paced + 1) * 1_000_000_000 / u128::from(rate.max(1));
                    let next = pace_start + u64::try_from(next).unwrap_or(u64::MAX / 2);
                    sleep_until(next.max(now + LEAST_SLEEP_NS).min(end));
                    continue;
                }
                late.min(BATCH)
            }
        };
        let mut parts: Vec<[IoSlice<'_>; 1]> = Vec::with_capacity(wanted as usize);
        for message in &mut messages[..wanted as usize] {
            let (tunnel, flow, size) = turns.of(number);
            let packet = packet.get_mut(..size.into()).context("a size")?;
            let note = Note {
                run: words.run,
                tunnel,
                flow,
                number,
                sent_ns: now,
            };
            note.write(packet, words.from.octets(), words.to.octets())
                .context("a packet of this size")?;
            number += 1;
            match session.encapsulate(packet, message) {
                TunnResult::WriteToNetwork(sealed) => parts.push([IoSlice::new(sealed)]),
                other => bail!("sealing a packet: {other:?}"),
            }
        }
        let result = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &parts,
            &addresses[..parts.len()],
            [],
            MsgFlags::empty(),
        );
        match result {
            Ok(results) => sent += results.count() as u64,
            Err(Errno::ENOBUFS | Errno::EAGAIN) => {}
            Err(error) => return Err(error).context("sendmmsg"),
        }
        paced += wanted;
    }
    let seconds = (now_ns() - start) as f64 / 1e9;
    println!(
        "{}",
        serde_json::json!({ "sent": sent, "seconds": seconds })
    );
    Ok(())
}

/// Begins a session, and confirms it by an empty packet.
fn shake_hands(tunnel: &mut Tunn, socket: &UdpSocket) -> Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let (mut out, mut input) = ([0; 2048], [0; 2048]);
    for _ in 0..TRIES {
        let TunnResult::WriteToNetwork(request) =
            tunnel.format_handshake_initiation(&mut out, true)
        else {
            bail!("no handshake could be begun");
        };
        socket.send(request)?;
        let Ok(length) = socket.recv(&mut input) else {
            continue;
        };
        if let TunnResult::WriteToNetwork(confirm) =
            tunnel.decapsulate(None, &input[..length], &mut out)
        {
            socket.send(confirm)?;
            return Ok(());
        }
    }
    bail!("the gateway did not answer a handshake");
}

fn key() -> Result<[u8; 32]> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let key = BASE64_STANDARD.decode(line.trim())?;
    key.try_into().ok().context("a key has 32 bytes")
}
