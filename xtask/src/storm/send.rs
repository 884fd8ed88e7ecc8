//! The sender of a storm: a helper on the router's end of a gateway's cable.

use super::Kind;
use super::frames::{Maker, Victim};
use crate::probe::{now_ns, sleep_until, until_stdin_ends};
use anyhow::{Context, Result, bail};
use clap::Args;
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

const BATCH: usize = 64;
/// How often it tells how many it has sent.
const TELL_NS: u64 = 20_000_000;
/// What was not sent so long after its time is not made up for.
const FORGET_NS: u64 = 5_000_000;

/// What is sent to whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct Words {
    pub(super) kind: Kind,
    /// The interface that it is sent on
    #[arg(long)]
    pub(super) on: String,
    /// The receiver's MAC address
    #[arg(long)]
    pub(super) mac: String,
    #[arg(long)]
    pub(super) gateway: Ipv4Addr,
    #[arg(long)]
    pub(super) client: Ipv4Addr,
    /// The SPIs of the client's session
    #[arg(long)]
    pub(super) spi_in: u32,
    #[arg(long)]
    pub(super) spi_out: u32,
    #[arg(long)]
    pub(super) rate: u64,
    /// The hostile peer's last sequence number
    #[arg(long)]
    pub(super) after: u32,
}

/// Sends until stdin ends; its first line is a key in hexadecimal, or empty. Stdout: `ready`, then
/// lines of a stamp of CLOCK_MONOTONIC and how many were sent by then.
pub(crate) fn send(words: &Words) -> Result<()> {
    let mut secret = String::new();
    std::io::stdin().read_line(&mut secret)?;
    let victim = Victim {
        mac: bytes(&words.mac.replace(':', ""))?
            .try_into()
            .ok()
            .context("a MAC address has six bytes")?,
        gateway: words.gateway,
        client: words.client,
        spi_in: words.spi_in,
        spi_out: words.spi_out,
    };
    let secret = bytes(secret.trim())?;
    let mut maker = Maker::new(words.kind, victim, &secret, words.after)?;
    let stop = until_stdin_ends();
    let socket =
        Socket::new(Domain::PACKET, Type::RAW, None).context("packet sockets need root")?;
    socket.bind(&interface(&words.on)?)?;
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, None);
    let addresses: [Option<SockaddrStorage>; BATCH] = [None; BATCH];
    let mut frames = vec![Vec::new(); BATCH];
    println!("ready");
    let (mut start, mut paced, mut sent, mut told) = (now_ns(), 0u64, 0u64, 0);
    while !stop.load(Ordering::Relaxed) {
        let now = now_ns();
        if now >= told + TELL_NS {
            told = now;
            println!("{now} {sent}");
        }
        let due = (u128::from(now - start) * u128::from(words.rate) / 1_000_000_000) as u64;
        let late = due.saturating_sub(paced);
        if late * 1_000_000_000 > words.rate * FORGET_NS {
            (start, paced) = (now, 0);
        }
        let wanted = late.min(BATCH as u64) as usize;
        if wanted == 0 {
            sleep_until(now + 50_000);
            continue;
        }
        for frame in &mut frames[..wanted] {
            maker.next(frame);
        }
        let parts: Vec<[IoSlice<'_>; 1]> = frames[..wanted]
            .iter()
            .map(|frame| [IoSlice::new(frame)])
            .collect();
        let result = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &parts,
            &addresses[..wanted],
            [],
            MsgFlags::empty(),
        );
        match result {
            Ok(results) => sent += results.count() as u64,
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::ENETDOWN) => {}
            Err(error) => return Err(error).context("sendmmsg"),
        }
        paced += wanted as u64;
    }
    println!("{} {sent}", now_ns());
    Ok(())
}

/// The address of an interface for a packet socket.
pub(crate) fn interface(name: &str) -> Result<SockAddr> {
    let index =
        i32::try_from(if_nametoindex(name).with_context(|| format!("no interface {name}"))?)?;
    // SAFETY: the storage is zeroed and large enough for every family; what is written and its
    // length are those of a `sockaddr_ll`.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as u16;
            (*link).sll_ifindex = index;
            *length = size_of::<libc::sockaddr_ll>() as u32;
            Ok(())
        })?
    };
    Ok(address)
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        (pair.len() == 2).then(|| u8::from_str_radix(pair, 16).ok())?
    });
    match pairs.collect() {
        Some(bytes) => Ok(bytes),
        None => bail!("expected pairs of hexadecimal digits"),
    }
}
