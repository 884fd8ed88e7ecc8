//! The generator.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::time::{ClockId, Timespec};
use serde::Serialize;

use super::frames::{Ends, Maker, Seal};
use super::patiently;
use super::{Sizes, Turns};
use crate::dataplane::loader::{link_address, monotonic_ns};
use crate::dataplane::xsk::{BindMode, Socket, Umem};

const RING: u32 = 256;
/// The kernel copies so many in one call.
const BATCH: u64 = 32;
/// A sender that is ahead sleeps at least so long, so that it does not take the processor that others need.
const LEAST_SLEEP_NS: u64 = 40_000;
/// What was not sent so long after its time is not made up for: a burst of it would measure queues.
const FORGET_NS: u64 = 5_000_000;
/// How long frames may take to leave at the end.
const LINGER_NS: u64 = 200_000_000;

/// What is sent.
pub struct Plan {
    pub interface: String,
    /// The link address of the next hop.
    pub next_hop: [u8; 6],
    /// Of the first tunnel; those of others follow.
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    pub sizes: Sizes,
    /// So many source addresses in turn, each with an SA of its own if packets are sealed.
    pub tunnels: u16,
    /// So many source ports in turn in each tunnel.
    pub flows: u16,
    /// Packets a second; without: as fast as it can.
    pub rate: Option<u64>,
    pub time: Duration,
    /// Tells this run's packets from others'.
    pub run: u32,
    pub seal: Option<Seal>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sent {
    pub run: u32,
    /// Packets that the interface has taken.
    pub sent: u64,
    pub seconds: f64,
    pub per_second: f64,
}

/// Sends packets until their time is over.
///
/// # Errors
/// What the kernel refused.
pub fn send(plan: Plan) -> Result<Sent> {
    let interface = &plan.interface;
    ensure!(plan.rate != Some(0), "expected a rate above 0");
    let mac = link_address(interface)?
        .with_context(|| format!("interface {interface} is no Ethernet"))?;
    let ends = Ends {
        mac,
        next_hop: plan.next_hop,
        from: plan.from,
        to: plan.to,
    };
    let turns = Turns::new(plan.tunnels, plan.flows, plan.sizes)
        .context("expected a tunnel and a flow at least, and a million flows in all at most")?;
    let mut maker = Maker::new(ends, plan.tunnels, turns, plan.run, plan.seal)?;
    let (mut umem, mut socket) = patiently(|| {
        let mut umem = Umem::new(4 * RING).context("memory for frames")?;
        let socket = Socket::open(&mut umem, None, interface, 0, RING, BindMode::Auto)?;
        Ok((umem, socket))
    })?;
    // Sleeps end when they should, not up to 50 µs later. The call can not fail with this argument.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));

    let start = monotonic_ns();
    let end = start.saturating_add(u64::try_from(plan.time.as_nanos()).unwrap_or(u64::MAX));
    let (mut made, mut pace_start, mut paced) = (0_u64, start, 0_u64);
    loop {
        socket.complete(&mut umem);
        let now = monotonic_ns();
        if now >= end {
            break;
        }
        let due = match plan.rate {
            None => BATCH,
            Some(rate) => {
                let since = u128::from(now - pace_start);
                let due = (since * u128::from(rate) / 1_000_000_000) as u64;
                let late = due.saturating_sub(paced);
                // One packet is never too late.
                let bound = 1 + u128::from(rate) * u128::from(FORGET_NS) / 1_000_000_000;
                if u128::from(late) > bound {
                    (pace_start, paced) = (now, 0);
                    continue;
                }
                late
            }
        };
        let wanted = due.min(BATCH).min(socket.room() as u64);
        for _ in 0..wanted {
            let Some(mut frame) = umem.take() else { break };
            let range = maker.next(umem.chunk_mut(&frame), now)?;
            frame.set_range(range);
            if let Err(frame) = socket.send(frame) {
                umem.free(frame);
                break;
            }
            (made, paced) = (made + 1, paced + 1);
        }
        let more = socket.kick();
        if wanted == 0 && !more {
            let next = match plan.rate {
                Some(rate) => u128::from(paced + 1) * 1_000_000_000 / u128::from(rate),
                None => 0,
            };
            let next = pace_start.saturating_add(u64::try_from(next).unwrap_or(u64::MAX));
            sleep_until(next.max(now + LEAST_SLEEP_NS).min(end));
        }
    }
    let stop = monotonic_ns();
    while socket.in_flight() > 0 && monotonic_ns() < stop + LINGER_NS {
        socket.kick();
        socket.complete(&mut umem);
    }
    let sent = made - socket.in_flight() as u64;
    if sent == 0 && made > 0 {
        bail!("interface {interface} takes no frames: is it up?");
    }
    let seconds = (stop - start) as f64 / 1e9;
    Ok(Sent {
        run: plan.run,
        sent,
        seconds,
        per_second: sent as f64 / seconds.max(f64::MIN_POSITIVE),
    })
}

fn sleep_until(at_ns: u64) {
    let at = Timespec {
        tv_sec: i64::try_from(at_ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: (at_ns % 1_000_000_000) as _,
    };
    // Woken early, it is asked again what is due.
    let _ = rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &at);
}
