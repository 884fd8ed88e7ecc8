//! The probe: both ends of it.

use super::{now_ns, until_stdin_ends};
use anyhow::{Context, Result};
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MAGIC: [u8; 4] = *b"EGPR";
/// Payload: magic, zero (4), sequence (8), stamp of sending (8), zeros up to this size.
const SIZE: usize = 72;
/// How long answers are waited for after the last packet.
const LATE: Duration = Duration::from_millis(400);

/// Sends one packet each interval until stdin ends. Stdout: `start NS INTERVAL_NS`, then a line
/// `SEQ SENT_NS RECEIVED_NS` for each answer, at the end `sent COUNT`.
pub(super) fn send(to: SocketAddr, interval_us: u64) -> Result<()> {
    let mut packet = [0u8; SIZE];
    packet[..4].copy_from_slice(&MAGIC);
    send_paced(to, interval_us, receive, |seq, now| {
        packet[8..16].copy_from_slice(&seq.to_be_bytes());
        packet[16..24].copy_from_slice(&now.to_be_bytes());
        packet
    })
}

/// The sending end of a probe: `make` gets number and stamp of each packet, `receive` prints what comes
/// back until it is told to end. Stdout: `start NS INTERVAL_NS` first, `sent COUNT` last.
pub(crate) fn send_paced<P: AsRef<[u8]>>(
    to: SocketAddr,
    interval_us: u64,
    receive: fn(&UdpSocket, &AtomicBool),
    mut make: impl FnMut(u64, u64) -> P,
) -> Result<()> {
    let stop = until_stdin_ends();
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket
        .connect(to)
        .with_context(|| format!("no way to {to}"))?;
    let interval = interval_us.max(1).saturating_mul(1000);
    let start = now_ns() + 5_000_000;
    println!("start {start} {interval}");
    let done = Arc::new(AtomicBool::new(false));
    let receiver = {
        let (socket, done) = (socket.try_clone()?, Arc::clone(&done));
        std::thread::spawn(move || receive(&socket, &done))
    };
    let mut seq = 0u64;
    while !stop.load(Ordering::Relaxed) {
        sleep_until(start + seq * interval);
        // An unreachable target is what is being measured: a packet not sent counts as lost.
        let _ = socket.send(make(seq, now_ns()).as_ref());
        seq += 1;
    }
    std::thread::sleep(LATE);
    done.store(true, Ordering::Relaxed);
    let _ = receiver.join();
    println!("sent {seq}");
    Ok(())
}

fn receive(socket: &UdpSocket, done: &AtomicBool) {
    let _ = socket.set_read_timeout(Some(Duration::from_millis(10)));
    let mut buffer = [0u8; 2048];
    let mut lines = String::new();
    let mut flushed = now_ns();
    while !done.load(Ordering::Relaxed) {
        if let Ok(length) = socket.recv(&mut buffer)
            && let Some((seq, sent)) = read_packet(&buffer[..length])
        {
            let _ = writeln!(lines, "{seq} {sent} {}", now_ns());
        }
        if now_ns().saturating_sub(flushed) > 20_000_000 && !lines.is_empty() {
            flushed = now_ns();
            if std::io::stdout().write_all(lines.as_bytes()).is_err() {
                return;
            }
            lines.clear();
        }
    }
    let _ = std::io::stdout().write_all(lines.as_bytes());
}

fn read_packet(packet: &[u8]) -> Option<(u64, u64)> {
    let rest = packet.strip_prefix(&MAGIC)?;
    let seq = rest.get(4..12)?.try_into().ok()?;
    let sent = rest.get(12..20)?.try_into().ok()?;
    Some((u64::from_be_bytes(seq), u64::from_be_bytes(sent)))
}

/// Returns every packet to its sender until stdin ends.
pub(super) fn echo(listen: SocketAddr) -> Result<()> {
    let stop = until_stdin_ends();
    let socket = UdpSocket::bind(listen).with_context(|| format!("can not bind {listen}"))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    println!("ready");
    let mut buffer = [0u8; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
    Ok(())
}

/// Sleeps until a point of CLOCK_MONOTONIC; at once when it has passed.
pub(crate) fn sleep_until(at_ns: u64) {
    let at = Duration::from_nanos(at_ns).into();
    while clock_nanosleep(
        ClockId::CLOCK_MONOTONIC,
        ClockNanosleepFlags::TIMER_ABSTIME,
        &at,
    ) == Err(nix::errno::Errno::EINTR)
    {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_probe_packets_are_read() {
        let mut packet = [0u8; SIZE];
        packet[..4].copy_from_slice(&MAGIC);
        packet[15] = 9;
        packet[23] = 7;
        assert_eq!(read_packet(&packet), Some((9, 7)));
        assert_eq!(read_packet(&packet[..23]), None);
        packet[0] = 0;
        assert_eq!(read_packet(&packet), None);
    }
}
