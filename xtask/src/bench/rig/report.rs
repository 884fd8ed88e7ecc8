//! The figures of all systems as a table and as JSON.

use super::measure::{Figures, Pace, Traffic};
use super::search::Found;
use crate::bench::median;
use crate::bench::peers::System;
use crate::style::{bold, red};
use serde::Serialize;

/// One system.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) system: System,
    pub(super) version: String,
    pub(super) runs: Vec<Figures>,
    /// Why it could not be had or measured.
    pub(super) failures: Vec<String>,
}

/// All of them.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    cores: usize,
    kernel: String,
    /// Packets a second, bit a second, microseconds, processor seconds for a gigabyte.
    units: &'static str,
    /// In the row of many tunnels, and in each tunnel of all rows.
    traffic: Traffic,
    trial_seconds: f64,
    tcp_seconds: u64,
    pub(super) rows: Vec<Row>,
    /// Medians, and ratios in this run.
    pub(super) table: Vec<Line>,
}

/// Medians of one system.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    pub(super) system: System,
    /// Packets a second.
    pub(super) small: f64,
    pub(super) large: f64,
    pub(super) mix: f64,
    /// The generator was the limit in most runs.
    pub(super) small_by_generator: bool,
    pub(super) large_by_generator: bool,
    pub(super) mix_by_generator: bool,
    /// Of plain routing.
    pub(super) small_share: f64,
    pub(super) large_share: f64,
    pub(super) up: f64,
    pub(super) down: f64,
    /// Of plain routing with offloads.
    pub(super) up_share: f64,
    pub(super) down_share: f64,
    pub(super) cpu_daemons: f64,
    pub(super) cpu_machine: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// Above plain routing.
    pub(super) p50_above_us: f64,
    pub(super) p99_above_us: f64,
}

impl Row {
    pub(super) fn new(system: System) -> Self {
        Self {
            system,
            version: String::new(),
            runs: Vec::new(),
            failures: Vec::new(),
        }
    }

    pub(super) fn fail(&mut self, error: &anyhow::Error) {
        self.failures.push(format!("{error:#}"));
    }

    /// Once it has failed without ever having been measured, it would fail again.
    pub(super) fn can_go_on(&self) -> bool {
        self.failures.is_empty() || !self.runs.is_empty()
    }

    fn median(&self, what: impl Fn(&Figures) -> Option<f64>) -> f64 {
        median(&self.runs.iter().filter_map(what).collect::<Vec<_>>())
    }

    fn by_generator(&self, what: impl Fn(&Figures) -> Found) -> bool {
        let runs = self.runs.iter().filter(|f| what(f).by_generator).count();
        runs * 2 > self.runs.len()
    }

    /// Its medians, beside those of plain routing.
    pub(super) fn line(&self, plain: Option<&Line>) -> Line {
        let share = |mine: f64, of: fn(&Line) -> f64| match plain.map(of) {
            Some(theirs) if theirs > 0.0 => mine / theirs,
            _ => 0.0,
        };
        let small = self.median(|f| Some(f.small.rate));
        let large = self.median(|f| Some(f.large.rate));
        let mix = self.median(|f| Some(f.mix.rate));
        let up = self.median(|f| Some(f.tcp?.up));
        let down = self.median(|f| Some(f.tcp?.down));
        let p50_us = self.median(|f| Some(f.latency?.p50_us));
        let p99_us = self.median(|f| Some(f.latency?.p99_us));
        Line {
            system: self.system,
            small,
            large,
            mix,
            small_by_generator: self.by_generator(|f| f.small),
            large_by_generator: self.by_generator(|f| f.large),
            mix_by_generator: self.by_generator(|f| f.mix),
            small_share: share(small, |l| l.small),
            large_share: share(large, |l| l.large),
            up,
            down,
            up_share: share(up, |l| l.up),
            down_share: share(down, |l| l.down),
            cpu_daemons: self.median(|f| Some(f.tcp?.cpu_daemons)),
            cpu_machine: self.median(|f| Some(f.tcp?.cpu_machine)),
            p50_us,
            p99_us,
            p50_above_us: p50_us - plain.map_or(0.0, |l| l.p50_us),
            p99_above_us: p99_us - plain.map_or(0.0, |l| l.p99_us),
        }
    }
}

/// The medians of all rows, in their order; the first is plain routing.
pub(super) fn lines(rows: &[Row]) -> Vec<Line> {
    let plain = rows.iter().find(|row| row.system == System::Plain);
    let plain = plain.map(|row| row.line(None));
    rows.iter().map(|row| row.line(plain.as_ref())).collect()
}

impl Report {
    pub(super) fn new(rows: Vec<Row>, traffic: Traffic, pace: Pace) -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
            units: "packets/s, bit/s, µs, CPU seconds per gigabyte",
            traffic,
            trial_seconds: pace.trial.as_secs_f64(),
            tcp_seconds: pace.tcp_seconds,
            table: lines(&rows),
            rows,
        }
    }

    pub(super) fn print(&self) {
        println!(
            "\n  {}",
            bold("thousand packets a second with at most 0.1 % lost; one TCP stream; medians")
        );
        println!(
            "  {:<21} {:>9} {:>9} {:>9} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8} {:>9} {:>9}",
            "",
            "64 B",
            "IMIX",
            "1400 B",
            "up",
            "down",
            "up",
            "down",
            "CPU s/GB",
            "CPU s/GB",
            "p50",
            "p99"
        );
        println!(
            "  {:<21} {:>9} {:>9} {:>9} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8} {:>9} {:>9}",
            "",
            "kpps",
            "kpps",
            "kpps",
            "Gbit/s",
            "Gbit/s",
            "share",
            "share",
            "daemons",
            "machine",
            "µs",
            "µs"
        );
        for (row, line) in self.rows.iter().zip(&self.table) {
            if row.runs.is_empty() {
                let why = row.failures.join("; ");
                println!(
                    "  {:<21} {}",
                    row.system.name(),
                    red(&format!("not measured: {why}"))
                );
                continue;
            }
            println!("  {:<21} {}", row.system.name(), line.cells());
            for failure in &row.failures {
                println!("  {:<21} {}", "", red(&format!("a run failed: {failure}")));
            }
        }
        println!(
            "  shares are those of plain routing with offloads; +: the generator could not send more;\n  \
             latency is one way, at a tenth of the rate with 1400 B, and for plain routing that alone, for \
             the others what they add to it"
        );
        self.best();
        for row in &self.rows {
            if let Some(profile) = row.runs.iter().rev().find_map(|run| run.profile.as_ref()) {
                profile.print(row.system.name());
            }
        }
    }

    /// evergate beside the best of its peers.
    fn best(&self) {
        let pairs = |l: &&Line| System::PEERS.contains(&l.system);
        let gateways = |l: &&Line| l.system.is_gateway() && !l.system.is_own();
        self.times("packets of 64 B", System::Evergate, pairs, |l| l.small);
        self.times("packets of 1400 B", System::Evergate, pairs, |l| l.large);
        let own = System::EvergateGateway;
        self.times("gateways alone, 64 B", own, gateways, |l| l.small);
        self.times("gateways alone, IMIX", own, gateways, |l| l.mix);
        self.times("gateways alone, 1400 B", own, gateways, |l| l.large);
        self.times("TCP, client to target", System::Evergate, pairs, |l| l.up);
        self.times("TCP, target to client", System::Evergate, pairs, |l| l.down);
        let line = |system| self.table.iter().find(|l| l.system == system);
        if let (Some(one), Some(many)) = (line(own), line(System::EvergateTunnels))
            && one.small > 0.0
        {
            println!(
                "  {:<26} {:.2} of one tunnel's",
                format!("{} tunnels, 64 B", self.traffic.tunnels),
                many.small / one.small
            );
        }
        if let (Some(own), Some(gotatun)) = (line(System::Evergate), line(System::Gotatun))
            && gotatun.cpu_machine > 0.0
        {
            println!(
                "  {:<26} {:.2} of gotatun's (daemons alone {:.2})",
                "CPU for a gigabyte",
                own.cpu_machine / gotatun.cpu_machine,
                own.cpu_daemons / gotatun.cpu_daemons.max(1e-9)
            );
        }
    }

    fn times(
        &self,
        name: &str,
        own: System,
        others: impl Fn(&&Line) -> bool,
        of: fn(&Line) -> f64,
    ) {
        let own = self.table.iter().find(|l| l.system == own);
        let peers = self.table.iter().filter(others);
        let best = peers.max_by(|a, b| of(a).total_cmp(&of(b)));
        if let (Some(own), Some(best)) = (own, best.filter(|best| of(best) > 0.0)) {
            println!(
                "  {name:<26} {:.2} times the best of the peers ({})",
                of(own) / of(best),
                best.system.name()
            );
        }
    }
}

impl Line {
    fn cells(&self) -> String {
        let number = |value: f64, digits: usize| match value == 0.0 {
            true => "–".to_owned(),
            false => format!("{value:.digits$}"),
        };
        let rate = |value: f64, limit: bool| {
            format!("{}{}", number(value / 1e3, 1), if limit { "+" } else { "" })
        };
        let latency = |value: f64, above: f64| match (value == 0.0, self.system.is_plain()) {
            (true, _) => "–".to_owned(),
            (_, true) => format!("{value:.0}"),
            _ => format!("{above:+.0}"),
        };
        format!(
            "{:>9} {:>9} {:>9} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8} {:>9} {:>9}",
            rate(self.small, self.small_by_generator),
            rate(self.mix, self.mix_by_generator),
            rate(self.large, self.large_by_generator),
            number(self.up / 1e9, 2),
            number(self.down / 1e9, 2),
            number(self.up_share, 3),
            number(self.down_share, 3),
            number(self.cpu_daemons, 2),
            number(self.cpu_machine, 2),
            latency(self.p50_us, self.p50_above_us),
            latency(self.p99_us, self.p99_above_us),
        )
    }
}

/// A run in a few words.
pub(super) fn short(figures: &Figures) -> String {
    let mut parts = Vec::new();
    for (name, found) in [
        ("64 B", figures.small),
        ("IMIX", figures.mix),
        ("1400 B", figures.large),
    ] {
        if found.rate > 0.0 {
            parts.push(format!("{name} {:.1} kpps", found.rate / 1e3));
        }
    }
    if let Some(tcp) = &figures.tcp {
        let (up, down) = (tcp.up / 1e9, tcp.down / 1e9);
        parts.push(format!("TCP {up:.2} / {down:.2} Gbit/s"));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::measure::Tcp;
    use super::*;

    #[test]
    fn lines_are_medians_and_shares() {
        let figures = |rate: f64, up: f64| Figures {
            small: Found {
                rate,
                by_generator: rate > 500.0,
            },
            tcp: Some(Tcp {
                up,
                down: up,
                cpu_daemons: 1.0,
                cpu_machine: 2.0,
            }),
            ..Figures::default()
        };
        let mut plain = Row::new(System::Plain);
        plain.runs = vec![
            figures(1000.0, 10.0),
            figures(900.0, 12.0),
            figures(100.0, 11.0),
        ];
        let mut own = Row::new(System::Evergate);
        own.runs = vec![figures(450.0, 5.5)];
        let lines = lines(&[plain, own]);
        assert_eq!((lines[0].small, lines[0].up), (900.0, 11.0));
        assert!(lines[0].small_by_generator);
        assert_eq!((lines[1].small_share, lines[1].up_share), (0.5, 0.5));
        assert!(!lines[1].small_by_generator);
        assert_eq!(lines[1].large, 0.0);
    }
}
