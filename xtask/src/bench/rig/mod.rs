//! The rig: evergate beside plain routing and its peers, in the same run, in the same namespaces, under the
//! same generator.

mod cpu;
mod floors;
mod measure;
mod packets;
mod picture;
mod profile;
mod report;
mod search;

pub(crate) use floors::{check, check_tunnels};

use self::measure::{Figures, Pace, Traffic, measure};
use self::report::{Report, Row};
use super::peers::{System, chosen};
use super::{Effort, keep};
use crate::lab::Lab;
use crate::paths;
use crate::style::{dim, red};
use anyhow::Result;
use std::io::Write as _;
use std::time::Duration;

/// Of a run that has time for a row with many of them.
const TUNNELS: u16 = 1000;

/// Of a run whose figures are kept.
const THOROUGH: Pace = Pace {
    steps: 5,
    trial: Duration::from_millis(600),
    latency: Duration::from_secs(2),
    tcp_seconds: 4,
};

/// Of a run that only looks whether all is as it was.
const QUICK: Pace = Pace {
    steps: 3,
    trial: Duration::from_millis(200),
    latency: Duration::from_millis(500),
    tcp_seconds: 1,
};

pub(super) fn run(effort: Effort<'_>) -> Result<()> {
    let (runs, pace) = if effort.quick {
        (1, QUICK)
    } else {
        (5, THOROUGH)
    };
    let tunnels = effort.tunnels.or((!effort.quick).then_some(TUNNELS));
    let traffic = Traffic {
        tunnels: tunnels.unwrap_or(1),
        flows: effort.flows,
    };
    let mut rows: Vec<Row> = [
        System::Plain,
        System::PlainFrames,
        System::Evergate,
        System::EvergateSockets,
        System::EvergateGateway,
    ]
    .into_iter()
    .chain(tunnels.map(|_| System::EvergateTunnels))
    .chain(chosen(effort.peers)?)
    .map(Row::new)
    .collect();
    for row in &mut rows {
        match row.system.install() {
            Ok(version) => row.version = version,
            Err(error) => row.fail(&error),
        }
    }
    println!("  {runs} runs of each, in turn");
    for run in 1..=runs {
        for row in rows.iter_mut().filter(|row| row.can_go_on()) {
            one(effort.prefix, row, traffic, pace, run)?;
        }
    }
    let report = Report::new(rows, traffic, pace);
    report.print();
    keep("rig", &report)?;
    let path = paths::target().join("bench/rig.svg");
    std::fs::write(&path, picture::draw(&report)?)?;
    println!("  {}", path.display());
    Ok(())
}

/// One system, in a lab of its own.
fn one(prefix: &str, row: &mut Row, traffic: Traffic, pace: Pace, run: usize) -> Result<()> {
    print!("  {} ", dim(&format!("run {run}, {} …", row.system.name())));
    std::io::stdout().flush()?;
    match figures(prefix, row.system, traffic, pace) {
        Ok(figures) => {
            println!("{}", dim(&report::short(&figures)));
            row.runs.push(figures);
        }
        Err(error) => {
            println!("{}", red(&format!("{error:#}")));
            row.fail(&error);
        }
    }
    Ok(())
}

fn figures(prefix: &str, system: System, traffic: Traffic, pace: Pace) -> Result<Figures> {
    let mut lab = Lab::short(prefix)?;
    let up = system.up(&mut lab, traffic.tunnels)?;
    measure(&lab, system, &up, traffic.flows, pace)
}
