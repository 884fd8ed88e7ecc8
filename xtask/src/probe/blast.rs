//! A plain UDP generator and its counter, for packets per second.

use super::echo::sleep_until;
use super::record::wait_ready;
use super::{now_ns, until_stdin_ends};
use crate::lab::{Lab, Place};
use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use serde::Serialize;
use std::io::{IoSlice, Read};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

const BATCH: usize = 32;
const PORT: u16 = 7002;
/// IPv4 and UDP headers, so that sizes are those of IP packets.
const HEADERS: usize = 28;

/// Sends packets of `size` bytes (IP packet) for `millis`; at most `rate` a second.
/// Stdout: how many were sent.
pub(super) fn blast(to: SocketAddr, size: usize, millis: u64, rate: Option<u64>) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    let payload = vec![0x5Au8; size.saturating_sub(HEADERS)];
    let addresses: [Option<SockaddrStorage>; BATCH] = [None; BATCH];
    let start = now_ns();
    let end = start + millis * 1_000_000;
    let mut sent = 0u64;
    loop {
        let now = now_ns();
        if now >= end {
            break;
        }
        let wanted = match rate {
            None => BATCH,
            // As many as are due by now, never more than a batch.
            Some(rate) => {
                let due = (u128::from(now - start) * u128::from(rate) / 1_000_000_000) as u64;
                let wanted = due.saturating_sub(sent).min(BATCH as u64) as usize;
                if wanted == 0 {
                    sleep_until(now + 50_000);
                    continue;
                }
                wanted
            }
        };
        let messages: Vec<[IoSlice<'_>; 1]> = vec![[IoSlice::new(&payload)]; wanted];
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(wanted, None);
        let result = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &messages,
            &addresses[..wanted],
            [],
            MsgFlags::empty(),
        );
        match result {
            Ok(results) => sent += results.count() as u64,
            // A full queue is what a flood meets; an outage may be announced by ICMP.
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::ECONNREFUSED | Errno::EHOSTUNREACH) => {}
            Err(error) => return Err(error).context("sendmmsg"),
        }
    }
    println!("{sent}");
    Ok(())
}

/// Counts packets until stdin ends. Stdout: `ready`, then the count.
pub(super) fn sink(listen: SocketAddr) -> Result<()> {
    let stop = until_stdin_ends();
    let socket = UdpSocket::bind(listen).with_context(|| format!("can not bind {listen}"))?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(8 << 20)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    println!("ready");
    let mut buffer = [0u8; 2048];
    let mut count = 0u64;
    while !stop.load(Ordering::Relaxed) {
        if socket.recv(&mut buffer).is_ok() {
            count += 1;
        }
    }
    println!("{count}");
    Ok(())
}

/// One run of the generator.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Flood {
    /// Bytes of an IP packet.
    pub(crate) size: usize,
    pub(crate) sent_pps: f64,
    pub(crate) received_pps: f64,
    pub(crate) loss_percent: f64,
}

/// Sends from the client to an address of the target and counts there.
pub(crate) fn measure_flood(
    lab: &Lab,
    address: &str,
    size: usize,
    millis: u64,
    rate: Option<u64>,
) -> Result<Flood> {
    let to = format!("{address}:{PORT}");
    let mut sink = lab.helper(Place::Target, &["sink", &to])?;
    let mut output = wait_ready(&mut sink)?;
    let (size_text, millis_text) = (size.to_string(), millis.to_string());
    let mut words = vec!["blast", &to, "--size", &size_text, "--millis", &millis_text];
    let rate_text = rate.map(|r| r.to_string());
    if let Some(rate) = &rate_text {
        words.extend(["--rate", rate]);
    }
    let mut blast = lab.helper(Place::Client, &words)?;
    let mut text = String::new();
    blast
        .stdout()
        .ok_or_else(|| anyhow!("no stdout"))?
        .read_to_string(&mut text)?;
    let sent: u64 = text
        .trim()
        .parse()
        .context("the generator failed (log/helpers.log)")?;
    std::thread::sleep(Duration::from_millis(200));
    drop(sink.stdin());
    text.clear();
    output.read_to_string(&mut text)?;
    let received: u64 = text
        .trim()
        .parse()
        .context("the counter failed (log/helpers.log)")?;
    let seconds = millis as f64 / 1000.0;
    Ok(Flood {
        size,
        sent_pps: sent as f64 / seconds,
        received_pps: received as f64 / seconds,
        loss_percent: if sent == 0 {
            100.0
        } else {
            100.0 * sent.saturating_sub(received) as f64 / sent as f64
        },
    })
}
