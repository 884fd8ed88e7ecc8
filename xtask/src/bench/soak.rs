//! Full load and short timers: no healthy gateway may be taken for dead.

use super::{Effort, keep};
use crate::lab::topology::{PLAIN_TARGET, TARGETS};
use crate::lab::{Place, Setup};
use crate::probe::measure_flood;
use crate::style::rate;
use crate::traffic::transfer;
use anyhow::Result;
use serde::Serialize;
use std::time::{Duration, Instant};

#[derive(Debug, Serialize)]
struct Figures {
    minutes: f64,
    false_failovers: usize,
    heartbeats_lost: usize,
    tcp_bits_per_second: Vec<f64>,
    udp_packets_per_second: Vec<f64>,
    plain_tcp_bits_per_second: f64,
}

pub(super) fn run(effort: Effort<'_>) -> Result<()> {
    let minutes = if effort.quick { 1 } else { effort.minutes };
    let mut lab = effort.lab()?;
    let plain = transfer(&lab, PLAIN_TARGET, 2, &[])?.bits_per_second;
    lab.configure(&Setup::default())?;
    lab.start_all()?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(15))?;
    lab.wait_client("a standby is keyed", Duration::from_secs(15), |s| {
        s.keyed().len() >= 2
    })?;
    let since = lab.events(Place::Client, 0)?.last().map_or(0, |e| e.seq);
    let (started, whole) = (Instant::now(), Duration::from_secs(minutes * 60));
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    let mut flood = 0;
    while started.elapsed() < whole {
        tcp.push(transfer(&lab, TARGETS[0], 10, &[])?.bits_per_second);
        tcp.push(transfer(&lab, TARGETS[0], 5, &["-R"])?.bits_per_second);
        // In turn: packets that fill the path and packets that fill the processor.
        let size = [1400, 64][flood % 2];
        flood += 1;
        udp.push(measure_flood(&lab, TARGETS[0], size, 10_000, None)?.received_pps);
    }
    let events = lab.events(Place::Client, since)?;
    let count = |kind: &str| events.iter().filter(|e| e.kind == kind).count();
    let figures = Figures {
        minutes: started.elapsed().as_secs_f64() / 60.0,
        false_failovers: count("gateway_dead"),
        heartbeats_lost: count("heartbeat_lost"),
        tcp_bits_per_second: tcp,
        udp_packets_per_second: udp,
        plain_tcp_bits_per_second: plain,
    };
    println!(
        "  {:.1} minutes of TCP and UDP at full load: {} false failovers, {} heartbeats unanswered; \
         TCP {} (plain routing {})",
        figures.minutes,
        figures.false_failovers,
        figures.heartbeats_lost,
        rate(super::median(&figures.tcp_bits_per_second)),
        rate(plain),
    );
    keep("soak", &figures)
}
