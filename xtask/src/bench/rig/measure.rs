//! What is measured of one system in one run.

use super::cpu::Snapshot;
use super::packets::{Hit, Latency, Muzzle, Range, Shot};
use super::profile::{Profile, profile};
use super::search::{Found, LOSS, Trial, highest};
use crate::bench::FLOWS;
use crate::bench::peers::{Sealed, System, Up};
use crate::lab::{CLIENT_MAC, GATEWAY_MAC, Lab, Place};
use crate::traffic::transfer;
use anyhow::{Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;
use std::time::Duration;

/// Of the highest rate, where latency is measured.
const TENTH: f64 = 0.1;
/// Of the highest rate, where the worker is watched.
const NEARLY: f64 = 0.9;
/// How often the generator may be asked for a second look at latency if packets were lost.
const LOOKS: usize = 2;

/// How long as much as possible is sent.
const FLOOD: Duration = Duration::from_millis(500);

/// Among how many test packets are.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Traffic {
    pub(super) tunnels: u16,
    pub(super) flows: u16,
}

/// How long everything takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Halvings of what is between two rates.
    pub(super) steps: u32,
    /// One trial of a rate.
    pub(super) trial: Duration,
    pub(super) latency: Duration,
    /// A TCP stream in one direction.
    pub(super) tcp_seconds: u64,
}

/// One run of one system.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Figures {
    /// Packets a second with at most 0.1 % lost: IP packets of 64 and of 1400 bytes.
    pub(super) small: Found,
    pub(super) large: Found,
    /// Of 64, 576 and 1400 bytes, seven to four to one.
    pub(super) mix: Found,
    /// One way, at a tenth of `large`.
    pub(super) latency: Option<Delay>,
    pub(super) tcp: Option<Tcp>,
    /// Of the gateway alone, with 1400 bytes near the highest rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) profile: Option<Profile>,
}

/// One-way latency, microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Delay {
    /// Packets a second.
    pub(super) rate: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    /// The share of packets that was lost, and how many came late in their flow, or twice.
    pub(super) loss: f64,
    pub(super) reordered: u64,
    pub(super) duplicated: u64,
}

/// One stream in each direction.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Tcp {
    /// Bit/s.
    pub(super) up: f64,
    pub(super) down: f64,
    /// Processor seconds for a gigabyte, both directions together: of client's and gateway's daemons, and of
    /// the machine without the stream's ends.
    pub(super) cpu_daemons: f64,
    pub(super) cpu_machine: f64,
}

/// What gets through when as much as possible is sent: packets and bits a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried {
    pub(super) small: f64,
    pub(super) large: f64,
    pub(super) up: f64,
    pub(super) down: f64,
}

/// The cores of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cores {
    count: usize,
}

impl Cores {
    pub(super) fn all() -> Self {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        Self { count }
    }

    /// The one that the gateway has for itself.
    fn gateway(&self) -> Vec<usize> {
        vec![self.count - 1]
    }

    /// Those of everything else.
    fn rest(&self) -> Vec<usize> {
        (0..usize::max(self.count - 1, 1)).collect()
    }

    fn words(cores: &[usize]) -> String {
        let words: Vec<String> = cores.iter().map(usize::to_string).collect();
        words.join(",")
    }
}

/// Measures a system that is up.
pub(super) fn measure(
    lab: &Lab,
    system: System,
    up: &Up,
    flows: u16,
    pace: Pace,
) -> Result<Figures> {
    let cores = &Cores::all();
    let mut figures = Figures::default();
    if system != System::PlainFrames {
        pin(&up.gateway, &cores.gateway())?;
        pin(&up.client, &cores.rest())?;
        let range = Range::open(lab, muzzle(up, cores))?;
        packets(range, system, up, flows, pace, &mut figures)?;
        let everywhere: Vec<usize> = (0..cores.count).collect();
        pin(&up.gateway, &everywhere)?;
        pin(&up.client, &everywhere)?;
    }
    if !system.is_gateway() {
        figures.tcp = Some(tcp(lab, up, pace.tcp_seconds)?);
    }
    Ok(figures)
}

/// What a system carries when as much as possible is sent, with all cores for everybody.
pub(super) fn carried(lab: &Lab, up: &Up) -> Result<Carried> {
    let cores = Cores::all();
    let everywhere: Vec<usize> = (0..cores.count).collect();
    let muzzle = Muzzle {
        cores: Cores::words(&everywhere),
        urgent: false,
        ..muzzle(up, &cores)
    };
    let mut rates = [0.0; 2];
    {
        let mut range = Range::open(lab, muzzle)?;
        for (rate, size) in rates.iter_mut().zip(["64", "1400"]) {
            let hit = range.shoot(Shot {
                size,
                flows: FLOWS.get(),
                rate: None,
                time: FLOOD,
            })?;
            *rate = hit.received;
        }
    }
    let tcp = tcp(lab, up, 1)?;
    Ok(Carried {
        small: rates[0],
        large: rates[1],
        up: tcp.up,
        down: tcp.down,
    })
}

/// A mix of sizes through a gateway at a rate, with all cores for everybody.
pub(super) fn mixed(lab: &Lab, up: &Up, flows: u16, rate: u64, time: Duration) -> Result<Hit> {
    let mut range = Range::open(lab, muzzle(up, &Cores::all()))?;
    range.shoot(Shot {
        size: "imix",
        flows,
        rate: Some(rate),
        time,
    })
}

fn muzzle(up: &Up, cores: &Cores) -> Muzzle {
    let (place, interface, next_hop) = match up.sealed {
        Sealed::ByClient => (Place::Generator, "eth0", CLIENT_MAC),
        _ => (Place::Client, "out0", GATEWAY_MAC),
    };
    Muzzle {
        place,
        interface,
        next_hop,
        from: up.from.into(),
        to: up.to.into(),
        tunnels: up.tunnels,
        cores: Cores::words(&cores.rest()),
        urgent: true,
        sealed: up.sealed.clone(),
        used: 0,
    }
}

fn packets(
    mut range: Range<'_>,
    system: System,
    up: &Up,
    flows: u16,
    pace: Pace,
    figures: &mut Figures,
) -> Result<()> {
    for (size, found) in [
        ("64", &mut figures.small),
        ("imix", &mut figures.mix),
        ("1400", &mut figures.large),
    ] {
        *found = highest(pace.steps, |rate| {
            let hit = range.shoot(Shot {
                size,
                flows,
                rate: Some(rate as u64),
                time: pace.trial,
            })?;
            // One of a thousand tunnels that carries nothing would be within what may be lost.
            let tunnels = u64::from(up.tunnels).min(hit.packets);
            ensure!(
                hit.loss > LOSS || hit.tunnels == tunnels,
                "packets of {} tunnels have come, not of {tunnels}",
                hit.tunnels
            );
            Ok(Trial {
                sent: hit.sent,
                loss: hit.loss,
            })
        })?;
    }
    let rate = figures.large.rate * TENTH;
    if rate < 1.0 {
        return Ok(());
    }
    if let (System::EvergateGateway, [gateway, ..]) = (system, &up.gateway[..]) {
        let rate = Some((figures.large.rate * NEARLY) as u64);
        figures.profile = profile(*gateway, || {
            let shot = Shot {
                size: "1400",
                flows,
                rate,
                time: pace.latency,
            };
            range.shoot(shot).map(drop)
        })?;
    }
    for _ in 0..LOOKS {
        let hit = range.shoot(Shot {
            size: "1400",
            flows,
            rate: Some(rate as u64),
            time: pace.latency,
        })?;
        let Latency {
            p50_us,
            p99_us,
            p999_us,
        } = hit.latency;
        figures.latency = Some(Delay {
            rate,
            p50_us,
            p99_us,
            p999_us,
            loss: hit.loss,
            reordered: hit.reordered,
            duplicated: hit.duplicated,
        });
        if hit.loss <= LOSS {
            break;
        }
    }
    Ok(())
}

fn tcp(lab: &Lab, up: &Up, seconds: u64) -> Result<Tcp> {
    let daemons = [&up.client[..], &up.gateway].concat();
    let mut rates = [0.0; 2];
    let (mut used_daemons, mut used_machine, mut bytes) = (0.0, 0.0, 0.0);
    for (rate, extra) in rates.iter_mut().zip([&[][..], &["-R"]]) {
        let before = Snapshot::take()?;
        let done = transfer(lab, up.to, seconds, extra)?;
        let used = Snapshot::take()?.since(&before, &daemons);
        *rate = done.bits_per_second;
        used_daemons += used.daemons;
        used_machine += used.machine;
        bytes += done.bytes as f64;
    }
    let gigabytes = (bytes / 1e9).max(1e-9);
    Ok(Tcp {
        up: rates[0],
        down: rates[1],
        cpu_daemons: used_daemons / gigabytes,
        cpu_machine: used_machine / gigabytes,
    })
}

/// All threads of these processes run on these cores; later ones inherit it.
fn pin(processes: &[i32], cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    for pid in processes {
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let Ok(thread) = thread?.file_name().to_string_lossy().parse() else {
                continue;
            };
            match sched_setaffinity(Pid::from_raw(thread), &set) {
                // A thread that has ended meanwhile.
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_has_the_last_core() {
        let four = Cores { count: 4 };
        assert_eq!(Cores::words(&four.rest()), "0,1,2");
        assert_eq!(four.gateway(), [3]);
        let one = Cores { count: 1 };
        assert_eq!((one.rest(), one.gateway()), (vec![0], vec![0]));
    }
}
