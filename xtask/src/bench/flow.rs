//! Throughput through client and gateway, beside plain routing through the same gateway.
//!
//! Plain routing is measured with no node running, once with the offloads of the veth pairs (a
//! packet of up to 64 kB crosses as one) and once frame by frame, as a wire would carry it.

use super::{Effort, keep, median};
use crate::lab::topology::{PLAIN_TARGET, TARGETS};
use crate::lab::{Lab, Offloads, Place, Setup};
use crate::probe::{Flood, Probe, measure_flood, now_ns};
use crate::style::rate;
use crate::traffic::transfer;
use anyhow::Result;
use serde::Serialize;
use std::time::Duration;

/// Sizes of inner IP packets in bytes.
const SIZES: [usize; 3] = [64, 512, 1400];

#[derive(Debug, Default, Serialize)]
struct Tcp {
    plain_offloads: Vec<f64>,
    plain_frames: Vec<f64>,
    tunnel: Vec<f64>,
    sockets: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct TcpFigures {
    unit: &'static str,
    seconds: u64,
    up: Tcp,
    down: Tcp,
    plain_rtt_ms: f64,
    tunnel_rtt_ms: f64,
}

/// The path that is being measured.
#[derive(Clone, Copy)]
enum Path {
    PlainOffloads,
    PlainFrames,
    /// With XDP programs and AF_XDP.
    Tunnel,
    /// Without: sockets and TUN devices, with the offloads of the veth pairs.
    Sockets,
}

impl Path {
    fn target(self) -> &'static str {
        match self {
            Self::Tunnel | Self::Sockets => TARGETS[0],
            Self::PlainOffloads | Self::PlainFrames => PLAIN_TARGET,
        }
    }
}

/// Measures twice with no node up, then with all of them, with XDP and without.
fn in_turn(effort: Effort<'_>, mut measure: impl FnMut(&Lab, Path) -> Result<()>) -> Result<()> {
    let mut lab = effort.lab()?;
    lab.set_offloads(Offloads::All)?;
    measure(&lab, Path::PlainOffloads)?;
    lab.set_offloads(Offloads::None)?;
    measure(&lab, Path::PlainFrames)?;
    lab.set_offloads(Offloads::Usual)?;
    lab.configure(&Setup::default())?;
    lab.start_all()?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(15))?;
    measure(&lab, Path::Tunnel)?;
    drop(lab);
    let mut lab = effort.lab()?;
    lab.set_offloads(Offloads::All)?;
    lab.configure(&Setup {
        without_xdp: true,
        ..Setup::default()
    })?;
    lab.start_all()?;
    lab.ping_until(Place::Client, TARGETS[0], Duration::from_secs(15))?;
    measure(&lab, Path::Sockets)
}

pub(super) fn tcp(effort: Effort<'_>) -> Result<()> {
    let (runs, seconds) = if effort.quick { (1, 2) } else { (3, 5) };
    let (mut up, mut down) = (Tcp::default(), Tcp::default());
    let (mut plain_rtt, mut tunnel_rtt) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        in_turn(effort, |lab, path| {
            for (side, extra) in [(&mut up, &[][..]), (&mut down, &["-R"][..])] {
                let bits = transfer(lab, path.target(), seconds, extra)?.bits_per_second;
                match path {
                    Path::PlainOffloads => side.plain_offloads.push(bits),
                    Path::PlainFrames => side.plain_frames.push(bits),
                    Path::Tunnel => side.tunnel.push(bits),
                    Path::Sockets => side.sockets.push(bits),
                }
            }
            match path {
                Path::PlainOffloads | Path::Sockets => {}
                Path::PlainFrames => plain_rtt.push(round_trip(lab, path.target())?),
                Path::Tunnel => tunnel_rtt.push(round_trip(lab, path.target())?),
            }
            Ok(())
        })?;
    }
    println!("  one TCP stream, median of {runs} × {seconds} s");
    println!(
        "  {:<32} {:>14} {:>16} {:>16} {:>10} {:>10}",
        "", "tunnel", "plain, offloads", "plain, frames", "share", "share"
    );
    for (name, side) in [("client → target", &up), ("target → client", &down)] {
        let (offloads, frames) = (median(&side.plain_offloads), median(&side.plain_frames));
        for (how, samples) in [("XDP", &side.tunnel), ("sockets", &side.sockets)] {
            let tunnel = median(samples);
            println!(
                "  {:<32} {:>14} {:>16} {:>16} {:>10.3} {:>10.3}",
                format!("{name}, {how}"),
                rate(tunnel),
                rate(offloads),
                rate(frames),
                tunnel / offloads.max(1.0),
                tunnel / frames.max(1.0),
            );
        }
    }
    let (plain_rtt_ms, tunnel_rtt_ms) = (median(&plain_rtt), median(&tunnel_rtt));
    println!("  round trip of the probe    {tunnel_rtt_ms:.3} ms, plain {plain_rtt_ms:.3} ms");
    let unit = "bit/s";
    keep(
        "tcp",
        &TcpFigures {
            unit,
            seconds,
            up,
            down,
            plain_rtt_ms,
            tunnel_rtt_ms,
        },
    )
}

/// The median round trip of a probe on an otherwise idle path.
fn round_trip(lab: &Lab, address: &str) -> Result<f64> {
    let probe = Probe::start_at(lab, address, 7000)?;
    std::thread::sleep(Duration::from_millis(200));
    let from = now_ns();
    std::thread::sleep(Duration::from_secs(1));
    let median = probe.so_far().median_rtt_ms(from, now_ns());
    Ok(median.unwrap_or_default())
}

#[derive(Debug, Serialize)]
struct UdpFigures {
    plain_frames: Vec<Rates>,
    tunnel: Vec<Rates>,
    sockets: Vec<Rates>,
}

#[derive(Debug, Serialize)]
struct Rates {
    /// The generator sends as fast as it can; what arrives counts.
    flood: Flood,
    /// The highest rate found with at most 1 % loss.
    nearly_lossless: Flood,
}

pub(super) fn udp(effort: Effort<'_>) -> Result<()> {
    let millis = if effort.quick { 500 } else { 2000 };
    let (mut plain, mut tunnel, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
    in_turn(effort, |lab, path| {
        let rows = match path {
            Path::PlainOffloads => return Ok(()),
            Path::PlainFrames => &mut plain,
            Path::Tunnel => &mut tunnel,
            Path::Sockets => &mut sockets,
        };
        for size in SIZES {
            rows.push(rates(lab, path.target(), size, millis)?);
        }
        Ok(())
    })?;
    println!(
        "  thousand packets a second, client → target; sizes are those of the inner IP packet"
    );
    println!(
        "  {:>6} {:<14} {:>16} {:>20}",
        "bytes", "path", "flood", "≤ 1 % loss"
    );
    let paths = [
        ("plain", &plain),
        ("tunnel", &tunnel),
        ("sockets", &sockets),
    ];
    for (at, _) in SIZES.iter().enumerate() {
        for (path, rates) in paths {
            let Some(rates) = rates.get(at) else { continue };
            println!(
                "  {:>6} {path:<14} {:>16.1} {:>20.1}",
                rates.flood.size,
                rates.flood.received_pps / 1e3,
                rates.nearly_lossless.received_pps / 1e3,
            );
        }
    }
    keep(
        "udp",
        &UdpFigures {
            plain_frames: plain,
            tunnel,
            sockets,
        },
    )
}

/// Floods, then halves its way to the highest rate with at most 1 % loss.
fn rates(lab: &Lab, address: &str, size: usize, millis: u64) -> Result<Rates> {
    let flood = measure_flood(lab, address, size, millis, None)?;
    let (mut low, mut high) = (0.0, flood.sent_pps.min(flood.received_pps * 1.6) + 5000.0);
    let mut best = Flood {
        size,
        sent_pps: 0.0,
        received_pps: 0.0,
        loss_percent: 0.0,
    };
    for _ in 0..7 {
        let middle = f64::midpoint(low, high);
        let found = measure_flood(lab, address, size, millis, Some(middle as u64))?;
        if found.loss_percent <= 1.0 {
            low = middle;
            best = found;
        } else {
            high = middle;
        }
    }
    Ok(Rates {
        flood,
        nearly_lossless: best,
    })
}
